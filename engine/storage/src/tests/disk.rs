//! A disk in memory for tests: knows what was synced, fails on demand, crashes.
//!
//! Called by: tests. Invariants: a crash keeps all that was synced and any part of what was not.
//! Refuses: what it was told to refuse.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::io::{Disk, DiskFile};

/// Unsynced bytes reach the disk, or do not, in blocks of this size.
const BLOCK: usize = 64;

#[derive(Default)]
pub(crate) struct Faults {
    pub write_fails: AtomicBool,
    pub sync_fails: AtomicBool,
    pub is_full: AtomicBool,
    pub syncs: AtomicU64,
}

#[derive(Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone, Default)]
pub(crate) struct SimDisk {
    files: Arc<Mutex<BTreeMap<PathBuf, Arc<Mutex<Content>>>>>,
    pub faults: Arc<Faults>,
}

struct SimFile {
    content: Arc<Mutex<Content>>,
    faults: Arc<Faults>,
}

impl SimDisk {
    /// The disk after a power cut: `lottery` decides which unsynced blocks made it.
    pub(crate) fn crashed(&self, mut lottery: impl FnMut() -> bool) -> SimDisk {
        let after = SimDisk::default();
        for (path, content) in self.files.lock().unwrap().iter() {
            let content = content.lock().unwrap();
            let mut bytes = content.durable.clone();
            bytes.resize(content.seen.len(), 0);
            for (block, seen) in bytes.chunks_mut(BLOCK).zip(content.seen.chunks(BLOCK)) {
                if lottery() {
                    block.copy_from_slice(seen);
                }
            }
            after.put(path, bytes);
        }
        after
    }

    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        let content = Content {
            durable: bytes.clone(),
            seen: bytes,
        };
        self.files
            .lock()
            .unwrap()
            .insert(path.to_owned(), Arc::new(Mutex::new(content)));
    }

    /// Files and their bytes as programs see them.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = self.files.lock().unwrap();
        let seen = |content: &Arc<Mutex<Content>>| content.lock().unwrap().seen.clone();
        files
            .iter()
            .map(|(path, content)| (path.clone(), seen(content)))
            .collect()
    }

    fn file(&self, content: &Arc<Mutex<Content>>) -> Box<dyn DiskFile> {
        Box::new(SimFile {
            content: Arc::clone(content),
            faults: Arc::clone(&self.faults),
        })
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path, capacity: u64, head: &[u8]) -> io::Result<Box<dyn DiskFile>> {
        if self.faults.is_full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut bytes = head.to_vec();
        bytes.resize(capacity as usize, 0);
        self.put(path, bytes);
        self.open(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let files = self.files.lock().unwrap();
        let content = files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(content))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let files = self.files.lock().unwrap();
        let names = files.keys().filter(|path| path.parent() == Some(dir));
        Ok(names
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.lock().unwrap().remove(path);
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        if self.faults.write_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("write fails on purpose"));
        }
        let mut content = self.content.lock().unwrap();
        let mut at = position as usize;
        for slice in slices {
            content.seen[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self.faults.sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("sync fails on purpose"));
        }
        self.faults.syncs.fetch_add(1, Ordering::SeqCst);
        let mut content = self.content.lock().unwrap();
        content.durable = content.seen.clone();
        Ok(())
    }

    fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        let content = self.content.lock().unwrap();
        let from = position as usize;
        let there = content.seen.get(from..from + bytes.len());
        bytes.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().unwrap().seen.len() as u64)
    }

    fn cut(&self, position: u64, capacity: u64) -> io::Result<()> {
        let mut content = self.content.lock().unwrap();
        content.seen.truncate(position as usize);
        content.seen.resize(capacity as usize, 0);
        content.durable = content.seen.clone();
        Ok(())
    }
}
