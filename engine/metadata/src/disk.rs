//! The folder of the catalog as its log and snapshot see it: the one seam to the disk.
//!
//! Called by: `log`, `snapshot`; tests put a folder in memory behind it that fails on purpose.
//! Invariants: a file that has its final name is whole, and it and its name are durable; what was
//! reserved can be written on a full disk; a write or a sync that failed is reported once and
//! never tried again here.
//! Refuses: nothing; every error is the caller's.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// A file that grows at its end.
pub(crate) trait LogFile: Send {
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
    /// Takes the space from `from` to `to`, zeros, so that a full disk shows before anything is
    /// promised.
    fn reserve(&self, from: u64, to: u64) -> io::Result<()>;
    /// Ends the file at `at`, durably.
    fn cut(&self, at: u64) -> io::Result<()>;
}

/// A folder with a few named files.
pub(crate) trait Folder: Send + Sync + 'static {
    /// All of a file; `None` if it is not there.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>>;
    /// Puts a file that begins with `bytes` and has `reserved` zeros behind them in the place of
    /// that name, whole or not at all.
    fn put(&self, name: &str, bytes: &[u8], reserved: u64) -> io::Result<Box<dyn LogFile>>;
    /// Where a file is, for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// A folder of the operating system.
pub(crate) struct RealFolder(PathBuf);

struct RealFile(File);

impl RealFolder {
    /// Makes the folder and all above it, durably.
    pub(crate) fn create(dir: &Path) -> io::Result<RealFolder> {
        create_dir(dir)?;
        Ok(RealFolder(dir.to_owned()))
    }
}

impl Folder for RealFolder {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.0.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        let file = OpenOptions::new().write(true).open(self.0.join(name))?;
        Ok(Box::new(RealFile(file)))
    }

    fn put(&self, name: &str, bytes: &[u8], reserved: u64) -> io::Result<Box<dyn LogFile>> {
        let temporary = self.0.join(format!("{name}.tmp"));
        let file = match write_temporary(&temporary, bytes, reserved) {
            Ok(file) => file,
            Err(error) => {
                // Gives the space back; the error that matters is the first one.
                let _ = std::fs::remove_file(&temporary);
                return Err(error);
            }
        };
        std::fs::rename(&temporary, self.0.join(name))?;
        sync_dir(&self.0)?;
        Ok(Box::new(file))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

fn write_temporary(path: &Path, bytes: &[u8], reserved: u64) -> io::Result<RealFile> {
    let file = RealFile(File::create(path)?);
    let end = bytes.len() as u64;
    file.write_at(0, bytes)?;
    if reserved > 0 {
        file.reserve(end, end + reserved)?;
    }
    file.0.sync_all()?;
    Ok(file)
}

impl LogFile for RealFile {
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn reserve(&self, from: u64, to: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), from, to - from) {
            Ok(()) => Ok(()),
            // A file system without preallocation: zeros take the space too.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let zeros = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
                self.0.write_all_at(&zeros, from)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn cut(&self, at: u64) -> io::Result<()> {
        self.0.set_len(at)?;
        self.0.sync_all()
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    create_dir(parent)?;
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_dir(parent),
    }
}
