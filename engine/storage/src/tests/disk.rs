//! A disk in memory for tests: knows what was synced, fails on demand, crashes.
//!
//! Called by: tests. Invariants: a crash keeps all that was synced and any part of what was not,
//! in any order; what a failed sync did not bring to the disk counts as clean from then on, as
//! on Linux, and no later sync brings it there. Refuses: what it was told to refuse.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::io::{Disk, DiskFile};

/// Unsynced bytes reach the disk, or do not, in blocks of this size.
const BLOCK: usize = 64;

pub(crate) struct Faults {
    pub write_fails: AtomicBool,
    pub sync_fails: AtomicBool,
    /// Only the next one.
    pub next_sync_fails: AtomicBool,
    pub is_full: AtomicBool,
    pub syncs: AtomicU64,
    /// Changes until the power goes; then everything fails.
    pub power: AtomicI64,
    /// How many times something was made to fail.
    pub fired: AtomicU64,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            write_fails: AtomicBool::default(),
            sync_fails: AtomicBool::default(),
            next_sync_fails: AtomicBool::default(),
            is_full: AtomicBool::default(),
            syncs: AtomicU64::default(),
            power: AtomicI64::new(i64::MAX),
            fired: AtomicU64::default(),
        }
    }
}

impl Faults {
    fn fire(&self, what: &str) -> io::Error {
        self.fired.fetch_add(1, Ordering::SeqCst);
        io::Error::other(format!("{what} fails on purpose"))
    }

    /// Counts a change; an error once the power is gone.
    fn power(&self) -> io::Result<()> {
        if self.power.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(self.fire("power"));
        }
        Ok(())
    }
}

#[derive(Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Written since the last sync, successful or not.
    dirty: Vec<Range<usize>>,
    /// Where appended bytes end, and how far they are synced.
    written_to: usize,
    synced_to: usize,
    /// What an unsynced append may say of bytes before it.
    claimed_to: usize,
    /// Bytes before it are durable and a durable entry (or segment) after them says so: damage
    /// to them must be named, and cannot be taken for a torn tail.
    known_to: usize,
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
    pub(crate) fn crashed(&self, lottery: impl FnMut() -> bool) -> SimDisk {
        self.crashed_in(BLOCK, lottery)
    }

    /// The same with blocks of another size.
    pub(crate) fn crashed_in(&self, block: usize, mut lottery: impl FnMut() -> bool) -> SimDisk {
        let after = SimDisk::default();
        for (path, content) in self.files.lock().unwrap().iter() {
            let content = content.lock().unwrap();
            let mut bytes = content.durable.clone();
            bytes.resize(content.seen.len(), 0);
            for (durable, seen) in bytes.chunks_mut(block).zip(content.seen.chunks(block)) {
                if durable != seen && lottery() {
                    durable.copy_from_slice(seen);
                }
            }
            after.put_known(path, bytes, content.known_to);
        }
        after
    }

    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        self.put_known(path, bytes, 0);
    }

    fn put_known(&self, path: &Path, bytes: Vec<u8>, known_to: usize) {
        let content = Content {
            durable: bytes.clone(),
            seen: bytes,
            dirty: Vec::new(),
            written_to: known_to,
            synced_to: known_to,
            claimed_to: known_to,
            known_to,
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

    /// Per file, how many of its first bytes cannot change unnoticed.
    pub(crate) fn known(&self) -> BTreeMap<PathBuf, usize> {
        let files = self.files.lock().unwrap();
        let known = |content: &Arc<Mutex<Content>>| content.lock().unwrap().known_to;
        files
            .iter()
            .map(|(path, content)| (path.clone(), known(content)))
            .collect()
    }

    /// The same files and page cache, for the next process: faults are over.
    pub(crate) fn restarted(&self) -> SimDisk {
        SimDisk {
            files: Arc::clone(&self.files),
            faults: Arc::default(),
        }
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
        self.faults.power()?;
        if self.faults.is_full.load(Ordering::SeqCst) {
            self.faults.fired.fetch_add(1, Ordering::SeqCst);
            return Err(io::ErrorKind::StorageFull.into());
        }
        // The new file's head says that all before it was durable.
        for content in self.files.lock().unwrap().values() {
            let mut content = content.lock().unwrap();
            content.known_to = content.written_to.max(content.known_to);
        }
        let mut bytes = head.to_vec();
        bytes.resize(capacity as usize, 0);
        self.put_known(path, bytes, head.len());
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
        self.faults.power()?;
        self.files.lock().unwrap().remove(path);
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        let power = self.faults.power();
        let fails = self.faults.write_fails.load(Ordering::SeqCst);
        let mut content = self.content.lock().unwrap();
        let from = position as usize;
        let mut at = from;
        for slice in slices {
            content.seen[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
            // A write that fails may have done its beginning.
            if fails {
                break;
            }
        }
        content.dirty.push(from..at);
        // A write that failed may not have whole entries.
        if !fails && from >= content.written_to {
            content.claimed_to = content.synced_to;
            content.written_to = at;
        }
        power?;
        if fails {
            return Err(self.faults.fire("write"));
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.power()?;
        let mut content = self.content.lock().unwrap();
        let dirty = std::mem::take(&mut content.dirty);
        let fails_once = self.faults.next_sync_fails.swap(false, Ordering::SeqCst);
        if fails_once || self.faults.sync_fails.load(Ordering::SeqCst) {
            return Err(self.faults.fire("sync"));
        }
        self.faults.syncs.fetch_add(1, Ordering::SeqCst);
        let Content { seen, durable, .. } = &mut *content;
        dirty
            .into_iter()
            .for_each(|range| durable[range.clone()].copy_from_slice(&seen[range]));
        content.synced_to = content.written_to;
        content.known_to = content.known_to.max(content.claimed_to);
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
        self.faults.power()?;
        let mut content = self.content.lock().unwrap();
        content.seen.truncate(position as usize);
        content.seen.resize(capacity as usize, 0);
        content.durable = content.seen.clone();
        content.dirty.clear();
        let position = position as usize;
        content.written_to = content.written_to.min(position);
        content.synced_to = content.synced_to.min(position);
        content.claimed_to = content.claimed_to.min(position);
        content.known_to = content.known_to.min(position);
        Ok(())
    }
}
