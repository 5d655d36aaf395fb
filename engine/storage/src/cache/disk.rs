//! Blocks as files of a folder: more than memory holds, and still there after a restart.
//!
//! Called by: `Blocks`. One thread writes and deletes; readers open files on their own.
//! Invariants: a block that is put is written behind, or skipped when the thread is behind; the
//! files' sizes sum up to at most the high watermark, and going over it brings them down to the
//! low one, least recently used first; only files with a block's name are ever touched.
//! Refuses: to be waited for. What fails makes the folder rest, longer each time, with one
//! warning; a full disk makes it smaller first. After the rest it begins again, empty if what
//! failed was not space.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};

use super::file::{self, Head, Name};
use super::index::Index;
use super::{BlockKey, BlocksConfig};
use crate::status::DiskCacheStatus;

/// Our own folder inside the configured one; the number is the format of the files in it.
const FOLDER: &str = "rustmq-blocks-1";
/// Bytes that wait to be written; what comes on top is skipped.
const QUEUE_BYTES_MAX: u64 = 32 << 20;
/// How long the folder is left alone after a failure, and at most after many.
const REST: Duration = Duration::from_secs(5);
const REST_MAX: Duration = Duration::from_secs(300);

enum Job {
    Put {
        name: Name,
        head: Head,
        block: Bytes,
    },
    /// Others need the space.
    Release,
    Expire,
}

pub(super) struct DiskBlocks {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    dir: PathBuf,
    scope: String,
    bytes_max: u64,
    low: u64,
    age_max: Duration,
    free_bytes_min: u64,
    state: Mutex<State>,
    wake: Condvar,
    #[cfg(test)]
    fault: Mutex<Option<io::ErrorKind>>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    queued_bytes: u64,
    is_busy: bool,
    is_closed: bool,
    index: Index,
    rest: Option<Rest>,
    counters: Counters,
}

/// Why and until when nothing is written.
#[derive(Clone)]
struct Rest {
    until: Instant,
    failures: u32,
    reason: String,
    /// Whether the folder must be emptied before it is used again.
    is_suspect: bool,
}

#[derive(Default)]
struct Counters {
    evictions: u64,
    expirations: u64,
    written_bytes: u64,
    skipped: u64,
    damaged: u64,
}

impl DiskBlocks {
    /// Never fails: a folder that cannot be used is found by the thread.
    pub(super) fn open(config: &BlocksConfig, scope: &str) -> DiskBlocks {
        let shared = Arc::new(Shared {
            dir: config.dir.join(FOLDER),
            scope: scope.to_owned(),
            bytes_max: config.disk_bytes_max,
            low: config.disk_bytes_max / 100 * u64::from(config.low_percent.min(100)),
            age_max: config.age_max,
            free_bytes_min: config.free_bytes_min,
            state: Mutex::new(State {
                is_busy: true,
                ..State::default()
            }),
            wake: Condvar::new(),
            #[cfg(test)]
            fault: Mutex::new(None),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            lock: None,
        };
        let builder = std::thread::Builder::new().name("cache-disk".to_owned());
        let thread = match builder.spawn(|| writer.run()) {
            Ok(thread) => Some(thread),
            Err(error) => {
                tracing::warn!(%error, "no thread for the cache's disk: blocks stay in memory");
                shared.lock().is_closed = true;
                None
            }
        };
        DiskBlocks {
            shared,
            thread: Mutex::new(thread),
        }
    }

    /// The block and its age, if it is there and is what was written.
    pub(super) async fn read(&self, key: &BlockKey) -> Option<(Bytes, Duration)> {
        let shared = &self.shared;
        let name = file::name_of(&shared.scope, key);
        let since = shared.lock().index.touch(name)?;
        let age = SystemTime::now().duration_since(since).unwrap_or_default();
        if age > shared.age_max {
            // The thread takes it away in its next round.
            return None;
        }
        let head = Head::new(&shared.scope, key);
        let (path, len) = (shared.dir.join(file::file_name(name)), key.len);
        let read = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || file::read(&path, &head, len))
        };
        let error = match read.await {
            Ok(Ok(block)) => return Some((block, age)),
            Ok(Err(error)) => error,
            Err(_) => return None,
        };
        shared.lost(name, &path, &error);
        None
    }

    pub(super) fn put(&self, key: &BlockKey, block: &Bytes) {
        let shared = &self.shared;
        let name = file::name_of(&shared.scope, key);
        let mut state = shared.lock();
        if state.is_closed || state.index.contains(name) {
            return;
        }
        let bytes = block.len() as u64;
        if state.queued_bytes + bytes > QUEUE_BYTES_MAX {
            state.counters.skipped += 1;
            return;
        }
        state.queued_bytes += bytes;
        let head = Head::new(&shared.scope, key);
        let block = block.clone();
        state.jobs.push_back(Job::Put { name, head, block });
        shared.wake.notify_all();
    }

    pub(super) fn release(&self) {
        self.give(Job::Release);
    }

    pub(super) fn expire(&self) {
        self.give(Job::Expire);
    }

    /// At most one of these waits at a time.
    fn give(&self, job: Job) {
        let mut state = self.shared.lock();
        let kind = std::mem::discriminant(&job);
        let waits = |other: &Job| std::mem::discriminant(other) == kind;
        if !state.is_closed && !state.jobs.iter().any(waits) {
            state.jobs.push_front(job);
            self.shared.wake.notify_all();
        }
    }

    pub(super) fn close(&self) {
        let mut state = self.shared.lock();
        state.is_closed = true;
        state.jobs.clear();
        state.queued_bytes = 0;
        drop(state);
        self.shared.wake.notify_all();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the thread of the cache's disk panicked; nothing is lost by that");
        }
    }

    pub(super) fn status(&self, hits: u64) -> DiskCacheStatus {
        let shared = &self.shared;
        let state = shared.lock();
        let age = |since| SystemTime::now().duration_since(since).unwrap_or_default();
        let oldest = state.index.oldest().map(|since| age(since).as_millis());
        DiskCacheStatus {
            dir: shared.dir.display().to_string(),
            bytes: state.index.bytes(),
            blocks: state.index.len() as u64,
            high_bytes: shared.bytes_max,
            low_bytes: shared.low,
            oldest_ms: oldest.map(|age| age as u64),
            hits,
            evictions: state.counters.evictions,
            expirations: state.counters.expirations,
            written_bytes: state.counters.written_bytes,
            skipped: state.counters.skipped,
            damaged: state.counters.damaged,
            failure: state.rest.as_ref().map(|rest| rest.reason.clone()),
        }
    }
}

impl Drop for DiskBlocks {
    fn drop(&mut self) {
        // The thread ends by itself; nobody waits for it here.
        self.shared.lock().is_closed = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block that should be there did not come back.
    fn lost(&self, name: Name, path: &Path, error: &io::Error) {
        let mut state = self.lock();
        state.index.remove(name);
        if error.kind() == io::ErrorKind::NotFound {
            return;
        }
        state.counters.damaged += 1;
        let is_first = state.counters.damaged == 1;
        drop(state);
        if is_first {
            let file = path.display();
            tracing::warn!(%file, %error, "a damaged block of the cache; it is fetched again");
        }
        let _ = std::fs::remove_file(path);
    }

    /// The next job; none once closed.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        state.is_busy = false;
        self.wake.notify_all();
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                if let Job::Put { block, .. } = &job {
                    state.queued_bytes -= block.len() as u64;
                }
                state.is_busy = true;
                return Some(job);
            }
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn write(&self, path: &Path, head: Head, block: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if let Some(kind) = *self.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(kind.into());
        }
        file::write(path, head, block)
    }
}

/// The thread: the only one that makes files.
struct Writer {
    shared: Arc<Shared>,
    /// Held while the folder is used, so that no two brokers share one.
    lock: Option<File>,
}

impl Writer {
    fn run(mut self) {
        if let Err(error) = self.open(false) {
            self.rest(&error);
        }
        while let Some(job) = self.shared.next() {
            match job {
                Job::Put { name, head, block } => self.put(name, head, &block),
                Job::Release => self.release(),
                Job::Expire => self.expire(),
            }
        }
    }

    /// Makes and takes the folder, and learns what is in it. What is suspect is deleted: the
    /// blocks, and nothing else.
    fn open(&mut self, is_suspect: bool) -> io::Result<()> {
        let dir = &self.shared.dir;
        self.lock = None;
        std::fs::create_dir_all(dir)?;
        let lock = File::create(dir.join("LOCK"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(io::Error::other("another process uses it"));
        }
        self.lock = Some(lock);
        if is_suspect {
            for name in names(dir)? {
                std::fs::remove_file(self.path(name))?;
            }
        }
        let index = scan(dir)?;
        self.shared.lock().index = index;
        self.make_room(0);
        Ok(())
    }

    fn put(&mut self, name: Name, head: Head, block: &[u8]) {
        let size = head.file_size(block.len() as u64);
        let is_there = self.shared.lock().index.contains(name);
        if is_there || size > self.shared.low || !self.is_awake() {
            self.shared.lock().counters.skipped += u64::from(!is_there);
            return;
        }
        let written = self.has_space(size).and_then(|()| {
            self.make_room(size);
            let path = self.path(name);
            let written = self.shared.write(&path, head, block);
            if written.is_err() {
                let _ = std::fs::remove_file(&path);
            }
            written
        });
        if let Err(error) = written {
            self.shared.lock().counters.skipped += 1;
            return self.rest(&error);
        }
        let mut state = self.shared.lock();
        state.index.insert(name, size, SystemTime::now());
        state.counters.written_bytes += size;
        if state.rest.take().is_some() {
            tracing::info!(dir = %self.shared.dir.display(), "the cache's disk is used again");
        }
    }

    /// Whether the folder may be written; at the end of a rest it is opened again.
    fn is_awake(&mut self) -> bool {
        let Some(rest) = self.shared.lock().rest.clone() else {
            return true;
        };
        if Instant::now() < rest.until {
            return false;
        }
        if !rest.is_suspect {
            return true;
        }
        let opened = self.open(true);
        if let Err(error) = &opened {
            self.rest(error);
        }
        opened.is_ok()
    }

    /// Leaves the folder alone for a while. The first failure is told, the next ones are not.
    fn rest(&mut self, error: &io::Error) {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        let is_full = matches!(error.kind(), StorageFull | QuotaExceeded);
        if is_full {
            let held = self.shared.lock().index.bytes();
            self.shrink(held / 2);
        }
        let mut state = self.shared.lock();
        let before = state.rest.as_ref();
        let failures = before.map_or(0, |rest| rest.failures) + 1;
        let is_suspect = !is_full || before.is_some_and(|rest| rest.is_suspect);
        let pause = REST
            .saturating_mul(1 << (failures - 1).min(8))
            .min(REST_MAX);
        let reason = error.to_string();
        if failures == 1 {
            tracing::warn!(
                dir = %self.shared.dir.display(), %reason,
                "the cache's disk is not used for now: blocks stay in memory"
            );
        }
        state.rest = Some(Rest {
            until: Instant::now() + pause,
            failures,
            reason,
            is_suspect,
        });
    }

    /// Others on this file system need the space: all of it goes back, and rests.
    fn release(&mut self) {
        if self.shared.lock().index.bytes() > 0 {
            self.shrink(0);
            self.rest(&io::ErrorKind::StorageFull.into());
        }
    }

    fn expire(&mut self) {
        let now = SystemTime::now();
        let old = self
            .shared
            .lock()
            .index
            .take_older(now, self.shared.age_max);
        self.shared.lock().counters.expirations += old.len() as u64;
        self.remove(old);
    }

    /// Goes down to the low watermark if `size` more would go over the high one.
    fn make_room(&self, size: u64) {
        let held = self.shared.lock().index.bytes();
        if held + size > self.shared.bytes_max {
            self.shrink(self.shared.low.saturating_sub(size));
        }
    }

    fn shrink(&self, bytes: u64) {
        let evicted = self.shared.lock().index.take_down_to(bytes);
        self.shared.lock().counters.evictions += evicted.len() as u64;
        self.remove(evicted);
    }

    fn remove(&self, names: Vec<Name>) {
        for name in names {
            let removed = std::fs::remove_file(self.path(name));
            if let Err(error) = removed
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(%error, "a block of the cache stays behind until it is scanned");
            }
        }
    }

    /// Refuses to take what the file system's other users may soon need.
    fn has_space(&self, size: u64) -> io::Result<()> {
        let stat = rustix::fs::statvfs(&self.shared.dir)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < self.shared.free_bytes_min.saturating_add(size) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn path(&self, name: Name) -> PathBuf {
        self.shared.dir.join(file::file_name(name))
    }
}

fn names(dir: &Path) -> io::Result<Vec<Name>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        names.extend(name.to_str().and_then(file::parse_file_name));
    }
    Ok(names)
}

/// What is there, in the order it was written. What it holds is checked when it is read.
fn scan(dir: &Path) -> io::Result<Index> {
    let mut found = Vec::new();
    for name in names(dir)? {
        let metadata = std::fs::metadata(dir.join(file::file_name(name)))?;
        let since = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        found.push((since, name, metadata.len()));
    }
    found.sort_unstable();
    let mut index = Index::default();
    for (since, name, size) in found {
        index.insert(name, size, since);
    }
    Ok(index)
}

#[cfg(test)]
impl DiskBlocks {
    /// Every write fails like this from now on.
    pub(super) fn set_fault(&self, kind: Option<io::ErrorKind>) {
        *self
            .shared
            .fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = kind;
    }

    /// Ends a rest now.
    pub(super) fn wake_up(&self) {
        if let Some(rest) = &mut self.shared.lock().rest {
            rest.until = Instant::now();
        }
    }

    pub(super) fn settle(&self) {
        let mut state = self.shared.lock();
        while !state.is_closed && (state.is_busy || !state.jobs.is_empty()) {
            state = self
                .shared
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
