//! The raw disk: sequential writes into preallocated files, each followed by `fdatasync`.
//!
//! Called by: `append` (the baseline), `machine` (sync latency). It prepares its files as a
//! write-ahead log does, so that neither side pays for allocation within a sync.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
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
