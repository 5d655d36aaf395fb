//! The disk as the WAL sees it: the one seam through which it creates, writes, syncs and reads.
//!
//! Called by: `wal`, `tier::objects`, tests (with a disk that fails on purpose).
//! Invariants: a file that has its final name has a durable head and a durable name; a write or
//! sync that failed is reported once and never tried again here.
//! Refuses: short reads and writes (they become errors).

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::FallocateFlags;

/// Most slices one `pwritev` takes (IOV_MAX).
const SLICES_MAX: usize = 1024;

/// One open file of the WAL.
pub(crate) trait DiskFile: Send + Sync {
    /// Writes all slices, one after the other, from `position` on.
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], position: u64) -> io::Result<()>;
    /// Makes what was written durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    /// Cuts the file at `position` and gives it `capacity` bytes of zeros again.
    fn cut(&self, position: u64, capacity: u64) -> io::Result<()>;
}

/// Where the files of the WAL come from.
pub(crate) trait Disk: Send + Sync {
    /// Makes a preallocated file that begins with `head`; it appears whole or not at all.
    fn create(&self, path: &Path, capacity: u64, head: &[u8]) -> io::Result<Box<dyn DiskFile>>;
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Names of the files in a folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Removes the file, durably.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The operating system's file system.
pub(crate) struct RealDisk;

struct RealFile(File);

impl Disk for RealDisk {
    fn create(&self, path: &Path, capacity: u64, head: &[u8]) -> io::Result<Box<dyn DiskFile>> {
        let temporary = path.with_extension("tmp");
        let made = create_temporary(&temporary, capacity, head);
        let file = match made {
            Ok(file) => file,
            Err(error) => {
                // Gives the space back; the error that matters is the first one.
                let _ = std::fs::remove_file(&temporary);
                return Err(error);
            }
        };
        std::fs::rename(&temporary, path)?;
        sync_parent(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)?;
        sync_parent(path)
    }
}

fn create_temporary(path: &Path, capacity: u64, head: &[u8]) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    allocate(&file, capacity)?;
    file.write_all_at(head, 0)?;
    file.sync_all()?;
    Ok(file)
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
            let written = match rustix::io::pwritev(&self.0, &rest[..now], position) {
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
        Ok(rustix::fs::fdatasync(&self.0)?)
    }

    fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, position)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn cut(&self, position: u64, capacity: u64) -> io::Result<()> {
        self.0.set_len(position)?;
        allocate(&self.0, capacity)?;
        self.0.sync_all()
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
