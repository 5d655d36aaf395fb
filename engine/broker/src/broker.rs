//! The broker's handle: what doors and pipelines call. Joins the shard, the groups and the store.
//!
//! Called by: server (service), pipelines (through `TopicLog`). Calls: every file of this room.
//! Two locks, both short and never held across an await: `groups` (members and generations) and
//! `shard` (offsets, sequences, positions); where both are needed `groups` is taken first.
//! Invariants: a commit is answered when it is durable; dropping the future of a commit does not
//! take the commit back. A repeated batch is answered when the first one is durable.
//! Refuses: what the shard and the groups refuse. It knows no sessions, frames or users.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{
    Append, Batch, BatchError, Bounds, BoxFuture, CatalogControl, Commit, Committed, LogError,
    Lookup, Offset, PartitionId, ProducerId, ProposeError, Topic, TopicId, TopicLog,
};
use storage::Store;

use crate::commit::Turns;
use crate::config::BrokerConfig;
use crate::error::OpenError;
use crate::fetch::{self, Fetched};
use crate::group::Groups;
use crate::group::record::Record;
use crate::producers::ProducerIds;
use crate::shard::{OFFSETS, Shard, Wait};
use crate::status::BrokerStatus;
use crate::{ticker, topics};

/// Live partitions and groups over a [`Store`]. Clones share them.
#[derive(Clone)]
pub struct Broker {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) catalog: Arc<dyn CatalogControl>,
    pub(crate) config: BrokerConfig,
    /// Offsets, producer sequences, positions.
    shard: Mutex<Shard>,
    /// Members and generations. Taken before `shard`.
    groups: Mutex<Groups>,
    producers: ProducerIds,
    fetches_waiting: Arc<AtomicU64>,
    pub(crate) turns: Turns,
}

/// The answer to a produced batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    pub base_offset: Offset,
    /// Microseconds since the epoch; of a repeat: when the repeat came.
    pub append_time: i64,
    /// The batch had been written before, at `base_offset`.
    pub duplicate: bool,
}

impl Broker {
    /// Rebuilds partitions, producers and positions from the store, and starts the ticker if the
    /// configuration wants one. The store was opened with [`topics::partition_configs`].
    pub async fn open(
        store: Store,
        catalog: Arc<dyn CatalogControl>,
        config: BrokerConfig,
    ) -> Result<Broker, OpenError> {
        let mut shard = Shard::new(config.shard, config.epoch);
        let gone = topics::rebuild(&store, &catalog.catalog(), &mut shard).await?;
        let inner = Inner {
            store,
            catalog,
            shard: Mutex::new(shard),
            groups: Mutex::new(Groups::default()),
            producers: ProducerIds::default(),
            fetches_waiting: Arc::default(),
            turns: Turns::default(),
            config,
        };
        let broker = Broker {
            inner: Arc::new(inner),
        };
        broker.inner.forget_positions(&gone);
        if let Some(period) = broker.inner.config.tick {
            ticker::spawn(&broker.inner, period);
        }
        Ok(broker)
    }

    /// Appends one batch from outside. It gets its offset when this is called and not when the
    /// future is polled: of two calls one after the other the first comes first. Resolves when
    /// the batch is durable (or written, for `durability: memory`).
    pub fn produce(
        &self,
        partition: PartitionId,
        batch: Batch,
    ) -> impl Future<Output = Result<Produced, LogError>> + Send + use<> {
        // Once in the log, a batch that does not decode would stop every reader behind it.
        let invalid = |error: BatchError| LogError::Invalid {
            partition,
            reason: error.to_string(),
        };
        let inner = Arc::clone(&self.inner);
        let checked = batch.check().map_err(invalid);
        let checked = checked.and_then(|()| dense_check(partition, &batch));
        let appends = vec![Append { partition, batch }];
        let ticket = checked.and_then(|()| inner.keys_check(&appends)).map(|()| {
            let positions = Vec::new();
            inner.admit_in_turn(Commit { appends, positions })
        });
        async move {
            let ticket = ticket?.await?;
            let duplicate = matches!(ticket.wait, Wait::Earlier(_));
            let append_time = ticket.append_time_us;
            let committed = inner.durable(ticket).await?;
            let base_offset = committed.base_offsets.first().copied().unwrap_or_default();
            Ok(Produced {
                base_offset,
                append_time,
                duplicate,
            })
        }
    }

    /// Reads whole batches from `from`; with nothing there waits up to `wait_ms` for something.
    pub async fn fetch_wait(
        &self,
        partition: PartitionId,
        from: Offset,
        bytes_max: usize,
        wait_ms: u64,
    ) -> Result<Fetched, LogError> {
        let inner = &self.inner;
        let waiting = &inner.fetches_waiting;
        fetch::fetch_wait(&inner.store, waiting, partition, from, bytes_max, wait_ms).await
    }

    /// The same from many partitions at once, until one of them has something: what those have
    /// that have something. `bytes_max` is for all together, and at most doubled by the last.
    pub async fn fetch_many(
        &self,
        wants: &[(PartitionId, Offset)],
        bytes_max: usize,
        wait_ms: u64,
    ) -> Vec<(PartitionId, Result<Fetched, LogError>)> {
        let inner = &self.inner;
        let waiting = &inner.fetches_waiting;
        fetch::fetch_many(&inner.store, waiting, wants, bytes_max, wait_ms).await
    }

    /// An id that no producer has had, of no broker and before no restart.
    pub async fn producer_open(&self) -> Result<ProducerId, ProposeError> {
        let Inner {
            producers,
            catalog,
            config,
            ..
        } = &*self.inner;
        producers.next(catalog.as_ref(), config.life).await
    }

    /// Takes the partitions of a topic that the catalog has now, and gives them to the groups
    /// that subscribe to it.
    pub fn topic_created(&self, topic: &Topic) -> Result<(), LogError> {
        topics::create(&self.inner.store, &mut self.inner.shard(), topic)?;
        self.inner.groups_refresh();
        Ok(())
    }

    /// Follows a topic's settings, which the catalog has changed.
    pub fn topic_altered(&self, topic: &Topic) -> Result<(), LogError> {
        topics::alter(&self.inner.store, &mut self.inner.shard(), topic)
    }

    /// Removes the records of a partition before an offset; one that is gone already changes
    /// nothing. Readers see it at once, and it is durable when this resolves. Answers what is
    /// kept.
    ///
    /// # Errors
    /// `NotFound`; `OutOfRange` beyond the high watermark; what the log answers to an append.
    pub async fn trim(&self, partition: PartitionId, before: Offset) -> Result<Bounds, LogError> {
        if partition == OFFSETS {
            return Err(LogError::NotFound { partition });
        }
        let store = &self.inner.store;
        if before > store.bounds(partition)?.start {
            store.trim_durable(partition, before).await?;
        }
        store.bounds(partition)
    }

    /// Gives up a topic: admits nothing more to it, forgets its positions, drops its data.
    pub async fn topic_deleted(&self, topic: TopicId) -> Result<(), LogError> {
        if topic == TopicId::OFFSETS {
            return Err(LogError::NotFound { partition: OFFSETS });
        }
        let (partitions, gone) = self.inner.shard().topic_remove(topic);
        self.inner.groups_refresh();
        self.inner.forget_positions(&gone);
        for partition in partitions {
            self.inner.store.partition_drop(partition).await?;
        }
        Ok(())
    }

    /// Expires group members whose session is over.
    pub fn tick(&self) {
        let now_ms = self.inner.now_ms();
        self.inner.groups().expire(now_ms);
        self.inner.settle_and_resync();
    }

    /// Numbers of this broker.
    pub fn status(&self) -> BrokerStatus {
        let groups = self.inner.groups().names().count();
        let mut shard = self.inner.shard();
        self.inner.settle(&mut shard);
        BrokerStatus {
            partitions: shard.len(),
            groups,
            positions: shard.positions.len(),
            offsets_topic: self.inner.store.bounds(OFFSETS).unwrap_or_default(),
            fetches_waiting: self.inner.fetches_waiting.load(Ordering::Relaxed),
            counters: shard.counters,
        }
    }
}

impl Inner {
    /// A panic under the lock leaves at worst memory that the next start rebuilds; the log checks
    /// offsets itself, so going on is better than failing every later request.
    pub(crate) fn shard(&self) -> MutexGuard<'_, Shard> {
        self.shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the epoch, for sessions.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.config.clock.now_us() / 1000).unwrap_or(0)
    }

    /// Says in `_offsets` that positions are gone. What is not said now is said at the next start.
    fn forget_positions(&self, gone: &[Record]) {
        let now_us = self.config.clock.now_us();
        let enqueue = |entry| self.store.enqueue(entry);
        if let Err(error) = self.shard().forget_positions(gone, now_us, enqueue) {
            tracing::warn!(%error, "positions of a deleted topic stay in _offsets for now");
        }
    }

    /// Compaction keeps a record by its key, so each must have one.
    fn keys_check(&self, appends: &[Append]) -> Result<(), LogError> {
        for Append { partition, batch } in appends {
            let is_compacted = |own: &crate::shard::Partition| own.is_compacted;
            if !self.shard().partition(*partition).is_some_and(is_compacted) {
                continue;
            }
            let invalid = |reason: String| LogError::Invalid {
                partition: *partition,
                reason,
            };
            let rows = batch.rows().map_err(|error| invalid(error.to_string()))?;
            if let Some(row) = rows.records().position(|record| record.key.is_none()) {
                return Err(invalid(format!(
                    "record {row} has no key, and the topic is compacted: it keeps the newest \
                     record of each key, so every record needs one (`rustmq produce --key FIELD`)"
                )));
            }
        }
        Ok(())
    }
}

/// Offsets are given here: a batch from outside leaves none out.
fn dense_check(partition: PartitionId, batch: &Batch) -> Result<(), LogError> {
    if batch.is_dense() {
        return Ok(());
    }
    let reason = "it has offsets of its own; they are given by the log".to_owned();
    Err(LogError::Invalid { partition, reason })
}

impl TopicLog for Broker {
    fn bounds(&self, p: PartitionId) -> Result<Bounds, LogError> {
        self.inner.store.bounds(p)
    }

    fn fetch(
        &self,
        p: PartitionId,
        from: Offset,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Batch>, LogError>> {
        Box::pin(async move { Ok(self.fetch_wait(p, from, bytes_max, 0).await?.batches) })
    }

    fn moved(&self, p: PartitionId, beyond: Offset) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(fetch::moved(&self.inner.store, p, beyond))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, LogError>> {
        let checked = self.inner.keys_check(&commit.appends);
        let ticket = checked.map(|()| self.inner.admit_in_turn(commit));
        Box::pin(async move { self.inner.durable(ticket?.await?).await })
    }

    fn position(&self, group: &str, p: PartitionId) -> Option<Offset> {
        let mut shard = self.inner.shard();
        self.inner.settle(&mut shard);
        Some(shard.positions.visible(group, p)?.offset)
    }

    fn held(&self, prefix: &str) -> Vec<(String, PartitionId)> {
        let mut shard = self.inner.shard();
        self.inner.settle(&mut shard);
        shard.positions.held(prefix)
    }

    fn lookup(&self, p: PartitionId, at: Lookup) -> BoxFuture<'_, Result<Offset, LogError>> {
        Box::pin(self.inner.store.lookup(p, at))
    }
}

#[cfg(test)]
mod tests;
