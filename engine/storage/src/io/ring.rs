//! The io_uring writer: a vectored write linked with its `fdatasync`, handed over and answered
//! in one system call.
//!
//! Called by: `io` for files of a disk that has a ring. What the two completions mean is decided
//! in `judge`, which the tests' disk uses too.
//! Invariants: both completions are looked at; a failed write or sync is an error and is not
//! tried again; buffers stay put until the kernel has answered for them.
//! Refuses: nothing; a kernel without io_uring, or one that forbids it, is noticed in `Ring::new`.

use std::io;

/// What is still to be done after both completions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// All is written and durable.
    Done,
    /// Only so many bytes were written, and so the sync was called off.
    Short(usize),
}

/// What the completions of a write of `length` bytes and of the sync linked to it say.
pub(crate) fn judge(written: i32, synced: i32, length: usize) -> io::Result<Judged> {
    use crate::planted::{Bug, planted};

    let Ok(count) = usize::try_from(written) else {
        return match io::Error::from_raw_os_error(-written) {
            // Nothing happened yet: not a failure of the disk.
            error if error.kind() == io::ErrorKind::Interrupted => Ok(Judged::Short(0)),
            error => Err(error),
        };
    };
    if count < length {
        return Ok(Judged::Short(count));
    }
    if synced < 0 && !planted(Bug::CompletionNotChecked) {
        return Err(io::Error::from_raw_os_error(-synced));
    }
    Ok(Judged::Done)
}

#[cfg(target_os = "linux")]
pub(crate) use linux::Ring;
#[cfg(not(target_os = "linux"))]
pub(crate) use other::Ring;

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io::{self, IoSlice};
    use std::os::fd::AsRawFd;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    use io_uring::{IoUring, Probe, opcode, squeue, types};

    use super::{Judged, judge};

    /// One write and one sync are all that is ever under way.
    const ENTRIES: u32 = 4;
    const WRITE: u64 = 0;
    const SYNC: u64 = 1;
    /// Between two looks for completions once waiting for them itself fails.
    const LOOK: Duration = Duration::from_micros(200);

    pub(crate) struct Ring {
        ring: Mutex<IoUring>,
        /// The kernel took no submission: nothing more is handed to it.
        is_broken: AtomicBool,
    }

    impl Ring {
        /// Why there is none: an old kernel, or one that is told to forbid it.
        pub(crate) fn new() -> io::Result<Ring> {
            let ring = IoUring::new(ENTRIES)?;
            let mut probe = Probe::new();
            ring.submitter().register_probe(&mut probe)?;
            let needed = [opcode::Writev::CODE, opcode::Fsync::CODE];
            if !needed.into_iter().all(|code| probe.is_supported(code)) {
                return Err(io::ErrorKind::Unsupported.into());
            }
            Ok(Ring {
                ring: Mutex::new(ring),
                is_broken: AtomicBool::new(false),
            })
        }

        pub(crate) fn is_broken(&self) -> bool {
            self.is_broken.load(Ordering::Relaxed)
        }

        /// Writes the slices (IOV_MAX at most) and makes them durable; `None` if the kernel took
        /// nothing of it.
        pub(crate) fn write_synced(
            &self,
            file: &File,
            slices: &[IoSlice<'_>],
            position: u64,
        ) -> Option<io::Result<Judged>> {
            let fd = types::Fd(file.as_raw_fd());
            // An `IoSlice` is an `iovec` in memory: its documentation promises that.
            let (iovecs, count) = (slices.as_ptr().cast(), slices.len() as u32);
            let write = opcode::Writev::new(fd, iovecs, count)
                .offset(position)
                .build()
                .flags(squeue::Flags::IO_LINK)
                .user_data(WRITE);
            let sync = opcode::Fsync::new(fd)
                .flags(types::FsyncFlags::DATASYNC)
                .build()
                .user_data(SYNC);
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the file, the slices and what they borrow outlive this call, and it does
            // not return before both completions are there, or with neither taken.
            let pushed = unsafe { ring.submission().push_multiple(&[write, sync]) };
            if pushed.is_err() || !wait(&mut ring) {
                self.is_broken.store(true, Ordering::Relaxed);
                return None;
            }
            let mut results = [-libc_ecanceled(); 2];
            for entry in ring.completion() {
                if let Some(result) = results.get_mut(entry.user_data() as usize) {
                    *result = entry.result();
                }
            }
            let length = slices.iter().map(|slice| slice.len()).sum();
            Some(judge(results[0], results[1], length))
        }
    }

    fn libc_ecanceled() -> i32 {
        rustix::io::Errno::CANCELED.raw_os_error()
    }

    /// Hands over what was pushed and waits for both completions; false if the kernel took
    /// nothing. What it took must be waited for, whatever waiting answers: the buffers are ours.
    fn wait(ring: &mut IoUring) -> bool {
        loop {
            let waited = ring.submit_and_wait(2);
            if ring.completion().len() >= 2 {
                return true;
            }
            match waited {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if ring.submission().len() == 2 => return false,
                Err(_) => std::thread::park_timeout(LOOK),
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::fs::File;
    use std::io::{self, IoSlice};

    use super::Judged;

    /// There is none here.
    pub(crate) enum Ring {}

    impl Ring {
        pub(crate) fn new() -> io::Result<Ring> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) fn is_broken(&self) -> bool {
            match *self {}
        }

        pub(crate) fn write_synced(
            &self,
            _: &File,
            _: &[IoSlice<'_>],
            _: u64,
        ) -> Option<io::Result<Judged>> {
            match *self {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions() {
        let (eio, canceled, interrupted) = (-5, -125, -4);
        let check = |written, synced, want: Result<Judged, i32>| {
            let got = judge(written, synced, 100);
            let got = got.map_err(|error| error.raw_os_error().unwrap());
            assert_eq!(got, want, "{written} {synced}");
        };
        check(100, 0, Ok(Judged::Done));
        check(100, eio, Err(5));
        check(eio, canceled, Err(5));
        check(60, canceled, Ok(Judged::Short(60)));
        check(0, canceled, Ok(Judged::Short(0)));
        check(interrupted, canceled, Ok(Judged::Short(0)));
    }
}
