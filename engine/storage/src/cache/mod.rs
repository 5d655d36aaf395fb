//! Blocks of the tier's objects near at hand: in memory, and on a fast disk if there is one.
//!
//! What: `Blocks`, asked by key; `memory` holds some, `disk` more (`index` says what, `file` how).
//! Called by: `tier::reader` (reads and reads ahead), `log` (status, close, when space is short).
//! Invariants: a value never changes, so nothing is ever taken out for being stale; nothing
//! here is the only copy of anything; whoever asks for what is on its way waits for that one
//! fetch; what comes from disk passed its checksum; both parts stay within their bytes.
//! Refuses: nothing. A disk that does not work is a warning, and every block a miss.

mod disk;
mod file;
mod index;
mod memory;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore};

use crate::config::StoreConfig;
use crate::error::TierError;
use crate::status::{CacheStatus, MemoryCacheStatus};
use disk::DiskBlocks;
use memory::MemoryBlocks;

/// Blocks that are read ahead at the same time, over all readers.
const AHEAD_MAX: usize = 8;
/// Part of the memory's bytes that may be on its way ahead of readers.
const AHEAD_SHARE: usize = 4;

/// Free space that is left to the log, in its segments.
const FREE_SEGMENTS: u64 = 4;

/// How much is kept, where and how long.
#[derive(Clone, Debug)]
pub(crate) struct BlocksConfig {
    /// High watermark of the memory; 0 keeps nothing in it.
    pub memory_bytes_max: usize,
    /// High watermark of the disk; 0 is the switch that turns it off.
    pub disk_bytes_max: u64,
    /// Where the disk's part lives, in a folder of its own.
    pub dir: PathBuf,
    /// Both parts are brought down to so many per cent of their high watermark.
    pub low_percent: u8,
    /// A block is forgotten that long after it was fetched.
    pub age_max: Duration,
    /// Free bytes of its file system that the disk's part leaves to others.
    pub free_bytes_min: u64,
}

impl BlocksConfig {
    pub(crate) fn of(config: &StoreConfig) -> BlocksConfig {
        BlocksConfig {
            memory_bytes_max: config.cache_memory_bytes_max,
            disk_bytes_max: config.cache_disk_bytes_max,
            dir: match &config.cache_dir {
                Some(dir) => dir.clone(),
                None => config.dir.join("cache"),
            },
            low_percent: config.cache_low_percent,
            age_max: Duration::from_millis(config.cache_age_ms_max),
            free_bytes_min: config.segment_bytes.saturating_mul(FREE_SEGMENTS),
        }
    }
}

/// Which bytes of which object. Objects have names nobody else uses and never change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BlockKey {
    pub path: Arc<str>,
    pub at: u64,
    pub len: u64,
}

/// The cache. Clones share it.
#[derive(Clone)]
pub(crate) struct Blocks(Arc<Inner>);

struct Inner {
    config: BlocksConfig,
    memory: Mutex<MemoryBlocks>,
    disk: Option<DiskBlocks>,
    /// What is being fetched now.
    flights: Mutex<HashMap<BlockKey, Arc<Flight>>>,
    ahead: Arc<Semaphore>,
    ahead_bytes: AtomicU64,
    counters: Counters,
}

/// One fetch that all who want the block wait for. Errors go to all of them.
type Flight = OnceCell<Result<Bytes, Arc<TierError>>>;

#[derive(Default)]
struct Counters {
    memory_hits: AtomicU64,
    disk_hits: AtomicU64,
    misses: AtomicU64,
    fetched_bytes: AtomicU64,
    ahead: AtomicU64,
}

impl Blocks {
    /// A cache for the objects of one store; `scope` (its URL) keeps it apart from others.
    pub(crate) fn new(config: BlocksConfig, scope: &str) -> Blocks {
        let disk = (config.disk_bytes_max > 0).then(|| DiskBlocks::open(&config, scope));
        Blocks(Arc::new(Inner {
            memory: Mutex::new(MemoryBlocks::new(
                config.memory_bytes_max,
                config.low_percent,
                config.age_max,
            )),
            disk,
            flights: Mutex::default(),
            ahead: Arc::new(Semaphore::new(AHEAD_MAX)),
            ahead_bytes: AtomicU64::new(0),
            counters: Counters::default(),
            config,
        }))
    }

    /// The block, from memory, from disk, or from `fetch`, whose answer the caller has checked.
    /// If another reader fetches it already, that one's answer.
    pub(crate) async fn get<F>(
        &self,
        key: &BlockKey,
        fetch: impl FnOnce() -> F,
    ) -> Result<Bytes, TierError>
    where
        F: Future<Output = Result<Bytes, TierError>>,
    {
        if let Some(bytes) = self.0.memory().get(key, Instant::now()) {
            self.0.counters.memory_hits.fetch_add(1, Ordering::Relaxed);
            return Ok(bytes);
        }
        let boarding = Boarding::new(&self.0, key);
        let answer = boarding.flight.get_or_init(|| self.0.load(key, fetch));
        let answer = answer.await.clone();
        if answer.is_err() {
            boarding.cancel();
        }
        answer.map_err(TierError::shared)
    }

    /// Fetches the block in the background if it is not there, not on its way, and the bounds
    /// for reading ahead have room; answers whether it does.
    pub(crate) fn ahead<F>(&self, key: BlockKey, fetch: impl FnOnce() -> F + Send + 'static) -> bool
    where
        F: Future<Output = Result<Bytes, TierError>> + Send + 'static,
    {
        let inner = &self.0;
        let room = (inner.config.memory_bytes_max / AHEAD_SHARE) as u64;
        let under_way = inner.ahead_bytes.load(Ordering::Relaxed);
        if under_way + key.len > room || self.is_near(&key) {
            return false;
        }
        let Ok(permit) = Arc::clone(&inner.ahead).try_acquire_owned() else {
            return false;
        };
        inner.ahead_bytes.fetch_add(key.len, Ordering::Relaxed);
        let blocks = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let _bytes = Weight(&blocks.0.ahead_bytes, key.len);
            let boarding = Boarding::new(&blocks.0, &key);
            let fetched = boarding
                .flight
                .get_or_init(|| blocks.0.load_ahead(&key, fetch));
            // A reader that needs the block fetches it itself and hears why that fails.
            if let Err(error) = fetched.await {
                tracing::debug!(path = %key.path, at = key.at, %error, "nothing read ahead");
            }
        });
        true
    }

    fn is_near(&self, key: &BlockKey) -> bool {
        let inner = &self.0;
        inner.memory().contains(key) || inner.flights().contains_key(key)
    }

    /// Gives what the disk's part holds back to the file system, which others need more.
    pub(crate) fn release_disk(&self) {
        if let Some(disk) = &self.0.disk {
            disk.release();
        }
    }

    /// Forgets what has grown too old.
    pub(crate) fn expire(&self) {
        self.0.memory().expire(Instant::now());
        if let Some(disk) = &self.0.disk {
            disk.expire();
        }
    }

    pub(crate) fn status(&self) -> CacheStatus {
        let inner = &self.0;
        let counters = &inner.counters;
        let memory = inner.memory().status(Instant::now());
        CacheStatus {
            memory: MemoryCacheStatus {
                hits: counters.memory_hits.load(Ordering::Relaxed),
                ..memory
            },
            disk: inner
                .disk
                .as_ref()
                .map(|disk| disk.status(counters.disk_hits.load(Ordering::Relaxed))),
            misses: counters.misses.load(Ordering::Relaxed),
            fetched_bytes: counters.fetched_bytes.load(Ordering::Relaxed),
            ahead_blocks: counters.ahead.load(Ordering::Relaxed),
            age_ms_max: inner.config.age_max.as_millis() as u64,
        }
    }

    /// Ends the disk's thread; what it had not written yet is not written.
    pub(crate) async fn close(&self) {
        let blocks = self.clone();
        let closing = move || blocks.0.disk.iter().for_each(DiskBlocks::close);
        if tokio::task::spawn_blocking(closing).await.is_err() {
            tracing::warn!("the thread of the cache's disk did not end well");
        }
    }

    /// Waits until the disk's thread has done all it was given.
    #[cfg(test)]
    fn settle(&self) {
        self.0.disk.iter().for_each(DiskBlocks::settle);
    }
}

impl Inner {
    fn memory(&self) -> MutexGuard<'_, MemoryBlocks> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<BlockKey, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn load<F>(
        &self,
        key: &BlockKey,
        fetch: impl FnOnce() -> F,
    ) -> Result<Bytes, Arc<TierError>>
    where
        F: Future<Output = Result<Bytes, TierError>>,
    {
        // It may have landed between the look into memory and this flight.
        if let Some(bytes) = self.memory().get(key, Instant::now()) {
            self.counters.memory_hits.fetch_add(1, Ordering::Relaxed);
            return Ok(bytes);
        }
        if let Some(bytes) = self.read_disk(key).await {
            self.counters.disk_hits.fetch_add(1, Ordering::Relaxed);
            return Ok(bytes);
        }
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        self.fetched(key, fetch().await)
    }

    async fn load_ahead<F>(
        &self,
        key: &BlockKey,
        fetch: impl FnOnce() -> F,
    ) -> Result<Bytes, Arc<TierError>>
    where
        F: Future<Output = Result<Bytes, TierError>>,
    {
        if let Some(bytes) = self.read_disk(key).await {
            return Ok(bytes);
        }
        self.counters.ahead.fetch_add(1, Ordering::Relaxed);
        self.fetched(key, fetch().await)
    }

    async fn read_disk(&self, key: &BlockKey) -> Option<Bytes> {
        let (bytes, age) = self.disk.as_ref()?.read(key).await?;
        let now = Instant::now();
        let since = now.checked_sub(age).unwrap_or(now);
        self.memory().put(key.clone(), bytes.clone(), since);
        Some(bytes)
    }

    fn fetched(
        &self,
        key: &BlockKey,
        fetched: Result<Bytes, TierError>,
    ) -> Result<Bytes, Arc<TierError>> {
        let bytes = fetched.map_err(Arc::new)?;
        let count = bytes.len() as u64;
        self.counters
            .fetched_bytes
            .fetch_add(count, Ordering::Relaxed);
        // Another length would be found as damage later: it is the caller's to judge, not kept.
        if count == key.len {
            self.memory()
                .put(key.clone(), bytes.clone(), Instant::now());
            if let Some(disk) = &self.disk {
                disk.put(key, &bytes);
            }
        }
        Ok(bytes)
    }
}

/// One reader's seat on a flight; the last one to leave takes it off the list.
struct Boarding<'a> {
    inner: &'a Inner,
    key: &'a BlockKey,
    flight: Arc<Flight>,
}

impl<'a> Boarding<'a> {
    fn new(inner: &'a Inner, key: &'a BlockKey) -> Boarding<'a> {
        let mut flights = inner.flights();
        let flight = Arc::clone(flights.entry(key.clone()).or_default());
        drop(flights);
        Boarding { inner, key, flight }
    }

    /// A flight that failed takes nobody else on, though some have not left it yet.
    fn cancel(&self) {
        self.take_off(&mut self.inner.flights());
    }

    fn take_off(&self, flights: &mut HashMap<BlockKey, Arc<Flight>>) {
        let is_ours = |flight: &Arc<Flight>| Arc::ptr_eq(flight, &self.flight);
        if flights.get(self.key).is_some_and(is_ours) {
            flights.remove(self.key);
        }
    }
}

impl Drop for Boarding<'_> {
    fn drop(&mut self) {
        let mut flights = self.inner.flights();
        // Seats are taken and left only under the lock: this one and the list's own.
        if Arc::strong_count(&self.flight) <= 2 {
            self.take_off(&mut flights);
        }
    }
}

/// Bytes on their way, until they are here or given up.
struct Weight<'a>(&'a AtomicU64, u64);

impl Drop for Weight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}
