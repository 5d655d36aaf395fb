//! The store: the one public door to a broker's bytes.
//!
//! Called by: `broker`, `sql`, `server`. Invariants: enqueued entries are written in the order
//! of the calls; a reader never sees past the high watermark; the watermark moves before the
//! appender is answered.
//! Refuses: batches that leave a gap or come from an older epoch, reads outside of what is kept,
//! work after a failure.

mod collection;
mod commit;
mod compaction;
mod gather;
mod linger;
mod merge;
mod open;
pub(crate) mod partition;
mod parts;
mod queue;
mod read;
mod reclaim;
mod retention;
mod room;
mod save;
mod tiering;

#[cfg(test)]
mod budget_tests;
#[cfg(test)]
mod proof;
#[cfg(test)]
mod retention_tests;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use bytes::Bytes;
use model::{
    Batch, Bounds, BoxFuture, Digest, Durability, LogError, Modules, Offset, PartitionId,
    PartitionMap, ProducerTable, ShardEpoch, ShardId,
};
use object_store::ObjectStore;
use tokio::sync::{Notify, watch};

use crate::config::{PartitionConfig, StoreConfig};
use crate::io::Disk;
use crate::status::{PartitionStatus, StoreStatus};
use crate::tail::Tail;
use crate::tier::Tier;
use crate::wal::entry::{ENTRY_BYTES_MAX, entry_len};
use crate::wal::{Control, Kind, Segment};
use commit::Counters;
pub use linger::Linger;
use linger::UnderWay;
use partition::Partition;
pub use queue::Pending;
use queue::{BatchWork, Queue, Work};
use save::{LastSaved, Reached};

/// An atomic set of batches of one shard, already stamped with their offsets.
#[derive(Clone, Debug)]
pub struct Entry {
    pub shard: ShardId,
    pub epoch: ShardEpoch,
    pub batches: Vec<(PartitionId, Batch)>,
    /// When the entry counts as done. One batch that wants `Fsync` makes it that for all.
    pub durability: Durability,
}

impl Entry {
    /// Of shard 0, the only one of a broker alone, acknowledged after the sync.
    pub fn new(batches: Vec<(PartitionId, Batch)>) -> Entry {
        let (shard, epoch) = (ShardId(0), ShardEpoch(0));
        Entry {
            shard,
            epoch,
            batches,
            durability: Durability::Fsync,
        }
    }
}

/// The partitions by id.
#[derive(Default)]
pub(crate) struct Partitions(RwLock<PartitionMap<Arc<Partition>>>);

impl Partitions {
    fn get(&self, id: PartitionId) -> Option<Arc<Partition>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    /// All, in order.
    fn all(&self) -> BTreeMap<PartitionId, Arc<Partition>> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        map.iter()
            .map(|(id, partition)| (*id, Arc::clone(partition)))
            .collect()
    }

    fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Puts it in unless it is there.
    fn put(&self, partition: Arc<Partition>) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        map.entry(partition.id()).or_insert(partition);
    }

    fn remove(&self, id: PartitionId) -> Option<Arc<Partition>> {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id)
    }
}

/// The WAL's files, oldest first; the last one is written.
#[derive(Default)]
pub(crate) struct Segments(Mutex<VecDeque<Arc<Segment>>>);

impl Segments {
    fn with<T>(&self, act: impl FnOnce(&mut VecDeque<Arc<Segment>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, segment: Arc<Segment>) {
        self.with(|segments| segments.push_back(segment));
    }

    fn bytes(&self) -> u64 {
        self.with(|segments| segments.iter().map(|segment| segment.capacity).sum())
    }

    /// Whether nothing in them matters any more.
    fn are_dead(&self) -> bool {
        self.with(|segments| segments.iter().all(|segment| segment.is_dead()))
    }
}

/// A broker's storage. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: StoreConfig,
    disk: Arc<dyn Disk>,
    partitions: Arc<Partitions>,
    segments: Arc<Segments>,
    queue: Arc<Queue>,
    tail: Arc<Tail>,
    counters: Arc<Counters>,
    tier: Tier,
    tier_wake: Arc<Notify>,
    /// One at a time gives segments back.
    reclaiming: tokio::sync::Mutex<()>,
    /// One at a time makes room under pressure.
    relieving: tokio::sync::Mutex<()>,
    /// Held from reading batches until what is written again of them is durable: the later of
    /// two writes of a batch counts, so it must be the newer one.
    moving: tokio::sync::Mutex<()>,
    reached: Arc<Mutex<Reached>>,
    saved: Mutex<LastSaved>,
    /// One at a time saves a checkpoint.
    saving: tokio::sync::Mutex<()>,
    writer: Mutex<Option<JoinHandle<()>>>,
    tier_loop: Mutex<Option<tokio::task::JoinHandle<()>>>,
    compaction_loop: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Inner {
    /// Objects that the lists name, shared ones once.
    fn tier_objects(&self) -> u64 {
        let all = self.partitions.all().into_values();
        let lists: Vec<_> = all.map(|partition| partition.cold()).collect();
        let objects = lists.iter().flat_map(|cold| &cold.objects);
        let paths: HashSet<&str> = objects.map(|object| object.path.as_str()).collect();
        paths.len() as u64
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer finishes what is queued; nobody waits for it here.
        self.queue.close();
    }
}

impl Store {
    pub(crate) fn partition(&self, id: PartitionId) -> Result<Arc<Partition>, LogError> {
        self.inner
            .partitions
            .get(id)
            .ok_or(LogError::NotFound { partition: id })
    }

    /// Knows a new, empty partition from now on. One that is there already stays as it is.
    pub fn partition_create(&self, config: PartitionConfig) {
        self.inner
            .partitions
            .put(Arc::new(Partition::empty(config)));
    }

    /// Takes other settings of a partition from now on: how it is acknowledged, how long it is
    /// kept, whether it goes to the tier.
    pub fn partition_alter(&self, config: PartitionConfig) -> Result<(), LogError> {
        self.partition(config.id)?.configure(config);
        Ok(())
    }

    /// Forgets a partition and deletes what the tier has of it.
    pub async fn partition_drop(&self, id: PartitionId) -> Result<(), LogError> {
        let partition = self
            .inner
            .partitions
            .remove(id)
            .ok_or(LogError::NotFound { partition: id })?;
        partition.discard();
        let (reply, pending) = Pending::new();
        let control = Control::Drop { partition: id };
        self.inner.queue.put(Work::Control {
            control,
            reply: Some(reply),
        })?;
        pending.await?;
        let _tiering = partition.tiering.lock().await;
        if let Err(error) = self.inner.tier.delete_partition(&partition.cold()).await {
            tracing::warn!(partition = %id, %error, "objects of a dropped partition stay behind");
        }
        self.reclaim_or_warn().await;
        Ok(())
    }

    /// Puts an entry behind all that was enqueued before. Its batches must begin where their
    /// partitions' `log_end` is at this moment. The answer resolves when the entry is as
    /// durable as asked; the high watermarks have moved by then.
    ///
    /// # Errors
    /// `NotFound`, `TooLarge`, `Closed`; `Fenced` when a newer epoch owns the shard or one of the
    /// partitions; `Unavailable` when the queue is full, offsets do not
    /// fit (stamp again) or the WAL has stopped. The pending answer: `DiskFull` (nothing was
    /// written and the offsets are free again), `Unknown` (a write or sync failed).
    pub fn enqueue(&self, entry: Entry) -> Result<Pending, LogError> {
        let (reply, pending) = Pending::new();
        let mut parts = Vec::with_capacity(entry.batches.len());
        let mut durability = entry.durability;
        for (id, batch) in entry.batches {
            let partition = self.partition(id)?;
            if partition.config().durability == Durability::Fsync {
                durability = Durability::Fsync;
            }
            parts.push((partition, batch));
        }
        let Some((first, _)) = parts.first() else {
            let _ = reply.send(Ok(()));
            return Ok(pending);
        };
        let length = entry_len(parts.iter().map(|(_, batch)| batch.size()));
        if length > ENTRY_BYTES_MAX {
            let (bytes, limit) = (length as u64, ENTRY_BYTES_MAX as u64);
            return Err(LogError::TooLarge {
                partition: first.id(),
                bytes,
                limit,
            });
        }
        let (shard, epoch) = (entry.shard.0, entry.epoch.0);
        let kind = Kind::Batches;
        let work = BatchWork {
            kind,
            shard,
            epoch,
            durability,
            parts,
            length,
            reply,
            under_way: UnderWay::new(&self.inner.config.linger),
        };
        self.inner.queue.put_batches(work)?;
        Ok(pending)
    }

    /// Waits until the queue has room for about `bytes` more: what to do before `enqueue` where
    /// waiting is better than being refused.
    pub async fn room(&self, bytes: usize) {
        self.inner.queue.room(bytes).await;
    }

    /// What of `p` can be read.
    pub fn bounds(&self, p: PartitionId) -> Result<Bounds, LogError> {
        Ok(self.partition(p)?.bounds())
    }

    /// The next offset to be assigned, counting what is enqueued and not yet durable.
    pub fn log_end(&self, p: PartitionId) -> Result<Offset, LogError> {
        Ok(self.partition(p)?.assigned())
    }

    /// The high watermark of `p` as it moves.
    pub fn watch(&self, p: PartitionId) -> Result<watch::Receiver<Offset>, LogError> {
        Ok(self.partition(p)?.watch())
    }

    /// The partitions there are, in order.
    pub fn partitions(&self) -> Vec<PartitionId> {
        self.inner.partitions.all().into_keys().collect()
    }

    /// The idempotent producers and their last durable batches.
    pub fn producers(&self, p: PartitionId) -> Result<ProducerTable, LogError> {
        Ok(self.partition(p)?.producers())
    }

    /// Takes records before an offset away: at once for readers, durably with the next sync.
    pub fn trim(&self, p: PartitionId, before: Offset) -> Result<(), LogError> {
        self.trim_with(p, before, None)
    }

    /// As `trim`; resolves when it is durable.
    pub async fn trim_durable(&self, p: PartitionId, before: Offset) -> Result<(), LogError> {
        let (reply, pending) = Pending::new();
        self.trim_with(p, before, Some(reply))?;
        pending.await?;
        self.reclaim_or_warn().await;
        Ok(())
    }

    fn trim_with(
        &self,
        p: PartitionId,
        before: Offset,
        reply: Option<tokio::sync::oneshot::Sender<Result<(), LogError>>>,
    ) -> Result<(), LogError> {
        let partition = self.partition(p)?;
        let bounds = partition.bounds();
        if before > bounds.end {
            return Err(LogError::OutOfRange {
                partition: p,
                offset: before,
                bounds,
            });
        }
        partition.hide_before(before);
        let control = Control::Trim {
            partition: p,
            before,
        };
        self.inner.queue.put(Work::Control { control, reply })
    }

    /// The objects of the tier; paths in a snapshot are relative to it.
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.inner.tier.objects)
    }

    /// Where the tier is.
    pub fn tier_url(&self) -> &str {
        &self.inner.tier.url
    }

    /// Resolves with the reason if the WAL stops for good: the process should then end.
    pub async fn failed(&self) -> String {
        let mut failure = self.inner.queue.failure();
        // The guard that `wait_for` answers with must not live across the next await.
        let reason = failure
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|known| known.clone());
        match reason {
            Some(reason) => reason,
            // The queue lives as long as this store.
            None => std::future::pending().await,
        }
    }

    /// Numbers about everything here.
    pub fn status(&self) -> StoreStatus {
        use std::sync::atomic::Ordering::Relaxed;
        let inner = &self.inner;
        let (queue_entries, queue_bytes) = inner.queue.waiting();
        let partitions: Vec<PartitionStatus> = inner
            .partitions
            .all()
            .values()
            .map(|partition| partition.status())
            .collect();
        let waiting = |status: &&PartitionStatus| status.hot_bytes > 0;
        StoreStatus {
            wal_bytes: inner.segments.bytes(),
            wal_segments: inner.segments.with(|segments| segments.len() as u64),
            wal_live_bytes: inner
                .segments
                .with(|segments| segments.iter().map(|s| s.live_bytes()).sum()),
            queue_entries: queue_entries as u64,
            queue_bytes: queue_bytes as u64,
            entries: inner.counters.entries.load(Relaxed),
            batches: inner.counters.batches.load(Relaxed),
            written_bytes: inner.counters.bytes.load(Relaxed),
            syncs: inner.counters.syncs.load(Relaxed),
            full_ms: inner.counters.full_ms(),
            wal_writer: inner.disk.writer(),
            tail_bytes: inner.tail.bytes() as u64,
            tail_bytes_max: inner.config.tail_bytes_max as u64,
            cache: inner.tier.blocks.status(),
            failure: inner.queue.failure().borrow().clone(),
            tier_url: inner.tier.url.clone(),
            tier_waiting: partitions.iter().filter(waiting).count() as u64,
            tier_failure: inner
                .tier
                .failure()
                .or_else(|| partitions.iter().find_map(|p| p.tier_failure.clone())),
            tier_breaker: inner.tier.pace.status(),
            tier_merged: inner.tier.merged(),
            tier_objects: inner.tier_objects(),
            partitions,
        }
    }

    /// Writes and syncs all that is enqueued, saves a checkpoint, so that the next opening has
    /// little to read, and stops. Appends are refused from then on.
    pub async fn close(&self) -> Result<(), LogError> {
        for task in [&self.inner.compaction_loop, &self.inner.tier_loop] {
            let task = task.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(task) = task {
                task.abort();
                let _ = task.await;
            }
        }
        self.inner.tier.blocks.close().await;
        self.save_at_close().await;
        self.inner.queue.close();
        let writer = self
            .inner
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer {
            let joined = tokio::task::spawn_blocking(move || writer.join().is_ok()).await;
            if !matches!(joined, Ok(true)) {
                return Err(LogError::Unknown(
                    "the log's writer did not end well".to_owned(),
                ));
            }
        }
        match self.inner.queue.failure().borrow().clone() {
            Some(failure) => Err(LogError::Unknown(failure)),
            None => Ok(()),
        }
    }
}

impl Modules for Store {
    fn get(&self, digest: Digest) -> BoxFuture<'_, Result<Bytes, LogError>> {
        Box::pin(self.inner.tier.module_get(digest))
    }

    fn put(&self, bytes: Bytes) -> BoxFuture<'_, Result<Digest, LogError>> {
        Box::pin(self.inner.tier.module_put(bytes))
    }
}
