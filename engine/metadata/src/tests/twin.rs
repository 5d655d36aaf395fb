//! A folder in memory: knows what was synced, fails on demand, loses its power.
//!
//! Called by: tests. Invariants: a crash keeps all that was synced and any part of what was not,
//! in any order; a file that was put is there whole or not at all, and a crash in the middle of
//! that leaves the one or the other. Refuses: what it was told to refuse.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::disk::{Folder, LogFile};

/// Unsynced bytes reach the disk, or do not, in blocks of this size.
const BLOCK: usize = 16;

#[derive(Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
}

pub(crate) struct Faults {
    pub is_full: AtomicBool,
    pub sync_fails: AtomicBool,
    /// Changes until the power goes; then everything fails.
    power: AtomicI64,
    changes: AtomicU64,
}

#[derive(Clone)]
pub(crate) struct TwinFolder {
    files: Arc<Mutex<BTreeMap<String, Arc<Mutex<Content>>>>>,
    /// What was being put when the power went.
    half_put: Arc<Mutex<Option<(String, Vec<u8>)>>>,
    pub faults: Arc<Faults>,
}

struct TwinFile {
    content: Arc<Mutex<Content>>,
    faults: Arc<Faults>,
}

impl Default for TwinFolder {
    fn default() -> TwinFolder {
        TwinFolder {
            files: Arc::default(),
            half_put: Arc::default(),
            faults: Arc::new(Faults {
                is_full: AtomicBool::default(),
                sync_fails: AtomicBool::default(),
                power: AtomicI64::new(i64::MAX),
                changes: AtomicU64::default(),
            }),
        }
    }
}

impl Faults {
    /// The power goes at the change after so many.
    pub(crate) fn power_for(&self, changes: u64) {
        self.power.store(changes as i64, Ordering::SeqCst);
    }

    /// How many changes there were.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    fn change(&self) -> io::Result<()> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        match self.power.fetch_sub(1, Ordering::SeqCst) > 0 {
            true => Ok(()),
            false => Err(io::Error::other("the power is gone")),
        }
    }

    fn room(&self) -> io::Result<()> {
        match self.is_full.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl TwinFolder {
    /// The folder after a power cut: `lottery` decides which unsynced blocks made it.
    pub(crate) fn crashed(&self, mut lottery: impl FnMut() -> bool) -> TwinFolder {
        let after = TwinFolder::default();
        for (name, content) in self.files.lock().unwrap().iter() {
            let content = content.lock().unwrap();
            let mut bytes = content.durable.clone();
            bytes.resize(content.seen.len(), 0);
            for (durable, seen) in bytes.chunks_mut(BLOCK).zip(content.seen.chunks(BLOCK)) {
                if durable != seen && lottery() {
                    durable.copy_from_slice(seen);
                }
            }
            after.set(name, bytes);
        }
        if let Some((name, bytes)) = self.half_put.lock().unwrap().clone()
            && lottery()
        {
            after.set(&name, bytes);
        }
        after
    }

    /// The same files for the next process: faults are over.
    pub(crate) fn restarted(&self) -> TwinFolder {
        TwinFolder {
            files: Arc::clone(&self.files),
            ..TwinFolder::default()
        }
    }

    /// A file with these bytes, durable.
    pub(crate) fn set(&self, name: &str, bytes: Vec<u8>) {
        let content = Content {
            durable: bytes.clone(),
            seen: bytes,
        };
        let content = Arc::new(Mutex::new(content));
        self.files.lock().unwrap().insert(name.to_owned(), content);
    }

    /// All bytes of a file, as programs see them.
    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        self.read(name).unwrap().unwrap_or_default()
    }

    fn file(&self, content: &Arc<Mutex<Content>>) -> Box<dyn LogFile> {
        Box::new(TwinFile {
            content: Arc::clone(content),
            faults: Arc::clone(&self.faults),
        })
    }
}

impl Folder for TwinFolder {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let files = self.files.lock().unwrap();
        Ok(files
            .get(name)
            .map(|content| content.lock().unwrap().seen.clone()))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        let files = self.files.lock().unwrap();
        Ok(self.file(files.get(name).ok_or(io::ErrorKind::NotFound)?))
    }

    fn put(&self, name: &str, bytes: &[u8], reserved: u64) -> io::Result<Box<dyn LogFile>> {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len() + reserved as usize, 0);
        if let Err(gone) = self.faults.change() {
            *self.half_put.lock().unwrap() = Some((name.to_owned(), bytes));
            return Err(gone);
        }
        self.faults.room()?;
        self.set(name, bytes);
        self.open(name)
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new("twin").join(name)
    }
}

impl LogFile for TwinFile {
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (at, power) = (at as usize, self.faults.change());
        let mut content = self.content.lock().unwrap();
        let end = at + bytes.len();
        if end > content.seen.len() {
            power
                .as_ref()
                .map_err(|_| io::Error::other("the power is gone"))?;
            self.faults.room()?;
            content.seen.resize(end, 0);
        }
        // What the power cut interrupted may have been written in part.
        content.seen[at..end].copy_from_slice(bytes);
        power
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.change()?;
        if self.faults.sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the sync fails on purpose"));
        }
        let mut content = self.content.lock().unwrap();
        content.durable = content.seen.clone();
        Ok(())
    }

    fn reserve(&self, from: u64, to: u64) -> io::Result<()> {
        self.faults.change()?;
        self.faults.room()?;
        let mut content = self.content.lock().unwrap();
        assert_eq!(content.seen.len() as u64, from, "space is taken at the end");
        content.seen.resize(to as usize, 0);
        Ok(())
    }

    fn cut(&self, at: u64) -> io::Result<()> {
        self.faults.change()?;
        let mut content = self.content.lock().unwrap();
        content.seen.truncate(at as usize);
        content.durable = content.seen.clone();
        Ok(())
    }
}
