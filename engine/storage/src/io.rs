//! The disk as the WAL sees it: the one seam through which it creates, writes, syncs and reads.
//!
//! Called by: `wal`, `tier`, tests (with a disk that fails on purpose).
//! Invariants: bytes are durable after a sync of their file, names after a sync of their folder,
//! and nothing else is; a write or sync that failed is reported once and never tried again here.
//! Refuses: short reads and writes (they become errors).

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FallocateFlags;

use crate::config::WalWriterKind;
use ring::{Judged, Ring};

pub(crate) mod ring;

/// Most slices one `pwritev` takes (IOV_MAX).
const SLICES_MAX: usize = 1024;

/// One open file of the WAL.
pub(crate) trait DiskFile: Send + Sync {
    /// Writes all slices, one after the other, from `position` on.
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], position: u64) -> io::Result<()>;
    /// Makes what was written durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// Both at once, where that is one call.
    fn joined(&self) -> Option<&dyn JoinedFile> {
        None
    }
    fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
}

/// A file whose write and sync are handed over together.
pub(crate) trait JoinedFile {
    /// As `write_all_at` and then `sync`.
    fn write_synced_at(&self, slices: &mut [IoSlice<'_>], position: u64) -> io::Result<()>;
}

/// Where the files of the WAL come from.
pub(crate) trait Disk: Send + Sync {
    /// Makes a preallocated file that begins with `head`, in place of one that has its name.
    fn create(&self, path: &Path, capacity: u64, head: &[u8]) -> io::Result<Box<dyn DiskFile>>;
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Names of the files in a folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes durable what was created, renamed and removed in a folder.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// What writes, for status and benchmarks.
    fn writer(&self) -> &'static str;
}

/// The operating system's file system.
pub(crate) struct RealDisk {
    ring: Option<Arc<Ring>>,
}

struct RealFile {
    file: File,
    ring: Option<Arc<Ring>>,
}

impl RealDisk {
    /// With the writer that was asked for; where the kernel refuses io_uring, with the plain one.
    pub(crate) fn new(writer: WalWriterKind) -> RealDisk {
        let ring = match writer {
            // Measured (benches/append): a thread that waits for its sync anyway gains nothing
            // from handing it over, and the kernel's own hand-over costs.
            WalWriterKind::Auto | WalWriterKind::Plain => None,
            WalWriterKind::IoUring => match Ring::new() {
                Ok(ring) => Some(Arc::new(ring)),
                Err(error) => {
                    tracing::info!(%error, "the kernel refuses io_uring: the WAL is written without");
                    None
                }
            },
        };
        RealDisk { ring }
    }

    fn file(&self, file: File) -> Box<dyn DiskFile> {
        let ring = self.ring.clone();
        Box::new(RealFile { file, ring })
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &Path, capacity: u64, head: &[u8]) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        allocate(&file, capacity)?;
        file.write_all_at(head, 0)?;
        file.sync_all()?;
        Ok(self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(self.file(file))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_dir(dir)
    }

    fn writer(&self) -> &'static str {
        match &self.ring {
            Some(ring) if !ring.is_broken() => "io_uring",
            _ => "plain",
        }
    }
}

/// Takes the space now, so that a full disk shows before anything is promised.
fn allocate(file: &File, capacity: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, capacity) {
        Ok(()) => Ok(()),
        // A file system without preallocation: the size is set, the space is not reserved.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(capacity),
        Err(error) => Err(error.into()),
    }
}

impl DiskFile for RealFile {
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut rest = slices;
        let mut position = position;
        while !rest.is_empty() {
            let now = rest.len().min(SLICES_MAX);
            let written = match rustix::io::pwritev(&self.file, &rest[..now], position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            position += written as u64;
            IoSlice::advance_slices(&mut rest, written);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn joined(&self) -> Option<&dyn JoinedFile> {
        let ring = self.ring.as_ref().filter(|ring| !ring.is_broken());
        ring.map(|_| self as &dyn JoinedFile)
    }

    fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, position)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

impl JoinedFile for RealFile {
    fn write_synced_at(&self, slices: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        let (first, mut last) = slices.split_at_mut(slices.len().saturating_sub(SLICES_MAX));
        let first_len: usize = first.iter().map(|slice| slice.len()).sum();
        if !first.is_empty() {
            self.write_all_at(first, position)?;
        }
        let position = position + first_len as u64;
        let judged = match &self.ring {
            Some(ring) => ring.write_synced(&self.file, last, position),
            None => None,
        };
        // What the kernel did not take was not tried.
        let Judged::Short(written) = judged.unwrap_or(Ok(Judged::Short(0)))? else {
            return Ok(());
        };
        IoSlice::advance_slices(&mut last, written);
        self.write_all_at(last, position + written as u64)?;
        self.sync()
    }
}

/// Makes names that were created, renamed or removed in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// `sync_dir` of the folder that holds `path`.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

/// Makes the folder and all above it, durably.
pub(crate) fn create_dir_durable(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent()
        && !parent.as_os_str().is_empty()
    {
        create_dir_durable(parent)?;
    }
    match std::fs::create_dir(dir) {
        Ok(()) => sync_parent(dir),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes a whole new file and syncs it; its name is not durable until the folder is synced.
pub(crate) fn write_synced<'a>(
    path: &Path,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    for piece in pieces {
        file.write_all(piece)?;
    }
    file.sync_all()
}
