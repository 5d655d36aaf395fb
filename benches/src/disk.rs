//! The raw disk: sequential writes into preallocated files, each followed by `fdatasync`.
//!
//! Called by: `append` (the baselines), `machine` (sync latency). It prepares its files as a
//! write-ahead log does, so that neither side pays for allocation within a sync.
//! Two ways to keep N requests in flight: `turn` has all N at hand at all times and pays nothing
//! for handing them over, which no log can; `shared_turn` has N threads that each wait for their
//! request, and one that writes all that wait, which is the least a log must do.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;

use crate::median;

/// Size of each file: a WAL segment's.
const FILE_BYTES: u64 = 64 << 20;

/// Writes one file after the other.
pub struct RawDisk {
    path: PathBuf,
    file: File,
    position: u64,
}

impl RawDisk {
    pub fn create(dir: &Path) -> io::Result<RawDisk> {
        let path = dir.join("raw.bin");
        let file = prepared(&path)?;
        Ok(RawDisk {
            path,
            file,
            position: 0,
        })
    }

    /// Writes `bytes` behind what was written before and makes them durable.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.position + bytes.len() as u64 > FILE_BYTES {
            self.file = prepared(&self.path)?;
            self.position = 0;
        }
        self.file.write_all_at(bytes, self.position)?;
        self.position += bytes.len() as u64;
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    /// Appends `bytes` again and again for `turn`; how often, and how long it really took.
    pub fn turn(&mut self, bytes: &[u8], turn: Duration) -> io::Result<(u64, Duration)> {
        let begun = Instant::now();
        let mut count = 0;
        while begun.elapsed() < turn {
            self.append(bytes)?;
            count += 1;
        }
        Ok((count, begun.elapsed()))
    }

    /// `threads` threads have one request of `bytes` in flight each, and this one writes all that
    /// wait, again and again for `turn`; how many requests were answered, and how long it took.
    pub fn shared_turn(
        &mut self,
        bytes: &[u8],
        threads: usize,
        turn: Duration,
    ) -> io::Result<(u64, Duration)> {
        let line = Line::default();
        let all = bytes.repeat(threads);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| while line.request() {});
            }
            let done = (|| {
                let mut count = 0;
                while begun.elapsed() < turn {
                    let waiting = line.take();
                    self.append(&all[..bytes.len() * waiting])?;
                    line.answer();
                    count += waiting as u64;
                }
                Ok((count, begun.elapsed()))
            })();
            line.close();
            done
        })
    }
}

/// Where requests wait for the one that writes.
#[derive(Default)]
struct Line {
    state: Mutex<LineState>,
    arrived: Condvar,
    answered: Condvar,
}

#[derive(Default)]
struct LineState {
    waiting: usize,
    /// Groups taken and groups answered.
    taken: u64,
    answered: u64,
    is_closed: bool,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, LineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until its request is on the disk; false once the turn is over.
    fn request(&self) -> bool {
        let mut state = self.lock();
        state.waiting += 1;
        let group = state.taken + 1;
        self.arrived.notify_one();
        let is_open = |state: &mut LineState| state.answered < group && !state.is_closed;
        let state = self.answered.wait_while(state, is_open);
        !state.unwrap_or_else(PoisonError::into_inner).is_closed
    }

    fn take(&self) -> usize {
        let state = self
            .arrived
            .wait_while(self.lock(), |state| state.waiting == 0);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.taken += 1;
        std::mem::take(&mut state.waiting)
    }

    fn answer(&self) {
        self.lock().answered += 1;
        self.answered.notify_all();
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.answered.notify_all();
    }
}

impl Drop for RawDisk {
    fn drop(&mut self) {
        // A file left behind is in the benchmark's own folder, which goes too.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A new file in the place of the old one, with its space taken and its name durable.
fn prepared(path: &Path) -> io::Result<File> {
    let _ = std::fs::remove_file(path);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).open(path)?;
    if rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES).is_err() {
        file.set_len(FILE_BYTES)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Median time of one 4 KiB write with its sync.
pub fn sync_latency_us(dir: &Path) -> io::Result<f64> {
    let mut disk = RawDisk::create(dir)?;
    let block = [7u8; 4096];
    let mut times = Vec::new();
    for _ in 0..64 {
        let begun = Instant::now();
        disk.append(&block)?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(&times))
}
