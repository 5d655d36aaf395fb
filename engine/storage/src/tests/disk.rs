//! A disk in memory for tests: knows what was synced, fails on demand, crashes.
//!
//! Called by: tests. Invariants: a crash keeps all that was synced; of the bytes and names that
//! were not it keeps any part, each block as it was after any of its writes, in any order; what
//! a failed sync did not bring to the disk counts as clean from then on, as on Linux, and no
//! later sync brings it there. Every fault is counted when it fires.
//! Refuses: what it was told to refuse.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::io::ring::{Judged, judge};
use crate::io::{Disk, DiskFile, JoinedFile};

/// Unsynced bytes reach the disk, or do not, in blocks of this size.
const BLOCK: usize = 64;

pub(crate) struct Faults {
    /// A write does half of its work, then fails with EIO.
    pub write_fails: AtomicBool,
    /// The same with ENOSPC, as where nothing can be preallocated.
    pub write_is_full: AtomicBool,
    pub sync_fails: AtomicBool,
    /// Only the next one.
    pub next_sync_fails: AtomicBool,
    /// No room for a new file.
    pub is_full: AtomicBool,
    pub syncs: AtomicU64,
    /// Changes until the power goes; then everything fails.
    pub power: AtomicI64,
    pub fired: Mutex<Fired>,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            write_fails: AtomicBool::default(),
            write_is_full: AtomicBool::default(),
            sync_fails: AtomicBool::default(),
            next_sync_fails: AtomicBool::default(),
            is_full: AtomicBool::default(),
            syncs: AtomicU64::default(),
            power: AtomicI64::new(i64::MAX),
            fired: Mutex::default(),
        }
    }
}

/// How many times each fault happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fired(BTreeMap<&'static str, u64>);

impl Fired {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Fired) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    pub(crate) fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }
}

impl fmt::Display for Fired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        for (what, count) in &self.0 {
            write!(f, "{gap}{what}={count}")?;
            gap = " ";
        }
        Ok(())
    }
}

impl Faults {
    fn fire(&self, what: &'static str) -> io::Error {
        self.fired.lock().unwrap().count(what);
        let short = what.split('_').next().unwrap_or(what);
        io::Error::other(format!("{short} fails on purpose"))
    }

    fn fire_full(&self, what: &'static str) -> io::Error {
        self.fired.lock().unwrap().count(what);
        io::ErrorKind::StorageFull.into()
    }

    /// Counts a change; an error once the power is gone.
    fn power(&self) -> io::Result<()> {
        if self.power.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(self.fire("power"));
        }
        Ok(())
    }
}

struct Write {
    at: usize,
    bytes: Vec<u8>,
    /// A sync failed since: no later one brings it to the disk.
    is_clean: bool,
}

impl Write {
    fn range(&self) -> Range<usize> {
        self.at..self.at + self.bytes.len()
    }
}

#[derive(Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync, oldest first; longer if one failed.
    unsynced: Vec<Write>,
    /// Where appended bytes end, and how far they are synced.
    written_to: usize,
    synced_to: usize,
    /// What an unsynced append may say of bytes before it.
    claimed_to: usize,
    /// Bytes before it are durable and a durable entry (or segment) after them says so: damage
    /// to them must be named, and cannot be taken for a torn tail.
    known_to: usize,
}

impl Content {
    fn whole(bytes: Vec<u8>, known_to: usize) -> Content {
        Content {
            durable: bytes.clone(),
            seen: bytes,
            unsynced: Vec::new(),
            written_to: known_to,
            synced_to: known_to,
            claimed_to: known_to,
            known_to,
        }
    }

    fn sync(&mut self) {
        let (synced, failed): (Vec<_>, Vec<_>) = std::mem::take(&mut self.unsynced)
            .into_iter()
            .partition(|write| !write.is_clean);
        for write in &synced {
            self.durable[write.range()].copy_from_slice(&write.bytes);
        }
        let is_over = |old: &Write| {
            let covers = |new: &Write| new.at < old.range().end && old.at < new.range().end;
            synced.iter().any(covers)
        };
        self.unsynced = failed.into_iter().filter(|old| !is_over(old)).collect();
        self.synced_to = self.written_to;
        self.known_to = self.known_to.max(self.claimed_to);
    }

    /// What is there after a power cut.
    fn crashed(
        &self,
        block: usize,
        lottery: &mut impl FnMut() -> bool,
        fired: &mut Fired,
    ) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let first = self.unsynced.iter().map(|write| write.at / block).min();
        let end = self
            .unsynced
            .iter()
            .map(|write| write.range().end.div_ceil(block))
            .max();
        let (mut is_lost, mut is_torn) = (false, false);
        for number in first.unwrap_or(0)..end.unwrap_or(0) {
            let range = number * block..((number + 1) * block).min(bytes.len());
            for write in &self.unsynced {
                let from = range.start.max(write.at);
                let to = range.end.min(write.range().end);
                if from >= to {
                    continue;
                }
                if !lottery() {
                    is_lost = true;
                    break;
                }
                is_torn |= is_lost;
                bytes[from..to].copy_from_slice(&write.bytes[from - write.at..to - write.at]);
            }
        }
        if is_lost {
            fired.count("lost_writes");
        }
        if is_torn {
            fired.count("reordered_writes");
        }
        bytes
    }
}

type File = Arc<Mutex<Content>>;

/// A change of a folder that is not synced.
#[derive(Clone)]
enum NameChange {
    Link(PathBuf, File),
    Rename(PathBuf, PathBuf, File),
    Unlink(PathBuf),
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<PathBuf, File>) {
        match self {
            NameChange::Link(path, file) => {
                names.insert(path, file);
            }
            NameChange::Rename(from, to, file) => {
                names.remove(&from);
                names.insert(to, file);
            }
            NameChange::Unlink(path) => {
                names.remove(&path);
            }
        }
    }
}

#[derive(Default)]
struct Names {
    seen: BTreeMap<PathBuf, File>,
    durable: BTreeMap<PathBuf, File>,
    unsynced: Vec<NameChange>,
}

impl Names {
    fn change(&mut self, change: NameChange) {
        change.clone().apply(&mut self.seen);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        self.durable = self.seen.clone();
        self.unsynced.clear();
    }
}

#[derive(Clone, Default)]
pub(crate) struct SimDisk {
    names: Arc<Mutex<Names>>,
    is_joined: bool,
    pub faults: Arc<Faults>,
}

struct SimFile {
    content: File,
    is_joined: bool,
    faults: Arc<Faults>,
}

impl SimDisk {
    /// One whose files take a write and its sync together, as io_uring does, or do not.
    pub(crate) fn joined(is_joined: bool) -> SimDisk {
        SimDisk {
            is_joined,
            ..SimDisk::default()
        }
    }

    /// The disk after a power cut: `lottery` decides which unsynced blocks and names made it.
    pub(crate) fn crashed(&self, lottery: impl FnMut() -> bool) -> SimDisk {
        self.crashed_in(BLOCK, lottery)
    }

    /// The same with blocks of another size.
    pub(crate) fn crashed_in(&self, block: usize, mut lottery: impl FnMut() -> bool) -> SimDisk {
        let after = SimDisk::joined(self.is_joined);
        let names = self.names.lock().unwrap();
        let mut fired = self.faults.fired.lock().unwrap();
        let mut kept = names.durable.clone();
        for change in &names.unsynced {
            if lottery() {
                change.clone().apply(&mut kept);
            } else {
                fired.count("lost_names");
            }
        }
        for (path, content) in kept {
            let content = content.lock().unwrap();
            let bytes = content.crashed(block, &mut lottery, &mut fired);
            after.put_known(&path, bytes, content.known_to);
        }
        drop(fired);
        after
    }

    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        self.put_known(path, bytes, 0);
    }

    fn put_known(&self, path: &Path, bytes: Vec<u8>, known_to: usize) {
        let file = Arc::new(Mutex::new(Content::whole(bytes, known_to)));
        let mut names = self.names.lock().unwrap();
        names.seen.insert(path.to_owned(), Arc::clone(&file));
        names.durable.insert(path.to_owned(), file);
    }

    /// Changes a file's bytes behind everybody's back, on the disk and in memory.
    pub(crate) fn edit(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let file = Arc::clone(&self.names.lock().unwrap().seen[path]);
        let mut content = file.lock().unwrap();
        edit(&mut content.seen);
        content.durable = content.seen.clone();
    }

    /// Files and their bytes as programs see them.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let names = self.names.lock().unwrap();
        let seen = |content: &File| content.lock().unwrap().seen.clone();
        let files = names.seen.iter();
        files
            .map(|(path, content)| (path.clone(), seen(content)))
            .collect()
    }

    /// Per file, how many of its first bytes cannot change unnoticed.
    pub(crate) fn known(&self) -> BTreeMap<PathBuf, usize> {
        let names = self.names.lock().unwrap();
        let known = |content: &File| content.lock().unwrap().known_to;
        let files = names.seen.iter();
        files
            .map(|(path, content)| (path.clone(), known(content)))
            .collect()
    }

    /// The same files and page cache, for the next process: faults are over.
    pub(crate) fn restarted(&self) -> SimDisk {
        SimDisk {
            names: Arc::clone(&self.names),
            is_joined: self.is_joined,
            faults: Arc::default(),
        }
    }

    fn file(&self, content: &File) -> Box<dyn DiskFile> {
        Box::new(SimFile {
            content: Arc::clone(content),
            is_joined: self.is_joined,
            faults: Arc::clone(&self.faults),
        })
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path, capacity: u64, head: &[u8]) -> io::Result<Box<dyn DiskFile>> {
        self.faults.power()?;
        if self.faults.is_full.load(Ordering::SeqCst) {
            return Err(self.faults.fire_full("full_on_create"));
        }
        let mut bytes = head.to_vec();
        bytes.resize(capacity as usize, 0);
        let file = Arc::new(Mutex::new(Content::whole(bytes, head.len())));
        let opened = self.file(&file);
        let link = NameChange::Link(path.to_owned(), file);
        self.names.lock().unwrap().change(link);
        Ok(opened)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let names = self.names.lock().unwrap();
        let content = names.seen.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(content))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = self.names.lock().unwrap();
        let names = names.seen.keys().filter(|path| path.parent() == Some(dir));
        Ok(names
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.power()?;
        let mut names = self.names.lock().unwrap();
        let file = names.seen.get(from).ok_or(io::ErrorKind::NotFound)?;
        let file = Arc::clone(file);
        names.change(NameChange::Rename(from.to_owned(), to.to_owned(), file));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.faults.power()?;
        let mut names = self.names.lock().unwrap();
        names.seen.get(path).ok_or(io::ErrorKind::NotFound)?;
        names.change(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.faults.power()?;
        let mut names = self.names.lock().unwrap();
        let is_whole = |change: &NameChange| matches!(change, NameChange::Rename(..));
        if names.unsynced.iter().any(is_whole) {
            // The new file's head says that all before it was durable.
            for content in names.durable.values() {
                let mut content = content.lock().unwrap();
                content.known_to = content.written_to.max(content.known_to);
            }
        }
        names.sync();
        Ok(())
    }

    fn writer(&self) -> &'static str {
        "simulated"
    }
}

impl JoinedFile for SimFile {
    fn write_synced_at(&self, slices: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        // What the kernel would answer for the two.
        let length = slices.iter().map(|slice| slice.len()).sum();
        let code = |error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull => -28,
            _ => -5,
        };
        let (written, synced) = match self.write_all_at(slices, position) {
            Ok(()) => (length as i32, self.sync().err().map_or(0, code)),
            Err(error) => (code(error), -125),
        };
        match judge(written, synced, length)? {
            Judged::Done => Ok(()),
            Judged::Short(_) => unreachable!("this disk writes all or fails"),
        }
    }
}

impl DiskFile for SimFile {
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        let power = self.faults.power();
        let fails = self.faults.write_fails.load(Ordering::SeqCst);
        let is_full = self.faults.write_is_full.load(Ordering::SeqCst);
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        if fails || is_full {
            // A write that fails may have done its beginning.
            bytes.truncate(bytes.len() / 2);
        }
        let mut content = self.content.lock().unwrap();
        let write = Write {
            at: position as usize,
            bytes,
            is_clean: false,
        };
        let range = write.range();
        content.seen[range.clone()].copy_from_slice(&write.bytes);
        content.unsynced.push(write);
        // A write that failed may not have whole entries.
        if !fails && !is_full && range.start >= content.written_to {
            content.claimed_to = content.synced_to;
            content.written_to = range.end;
        }
        power?;
        if fails {
            return Err(self.faults.fire("write_eio"));
        }
        if is_full {
            return Err(self.faults.fire_full("full_on_write"));
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.power()?;
        let mut content = self.content.lock().unwrap();
        let fails_once = self.faults.next_sync_fails.swap(false, Ordering::SeqCst);
        if fails_once || self.faults.sync_fails.load(Ordering::SeqCst) {
            content
                .unsynced
                .iter_mut()
                .for_each(|write| write.is_clean = true);
            return Err(self.faults.fire("sync_eio"));
        }
        self.faults.syncs.fetch_add(1, Ordering::SeqCst);
        content.sync();
        Ok(())
    }

    fn joined(&self) -> Option<&dyn JoinedFile> {
        self.is_joined.then_some(self as &dyn JoinedFile)
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
}
