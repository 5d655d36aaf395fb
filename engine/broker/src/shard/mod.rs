//! The one owner of offsets: every append and every committed position of a shard passes here.
//!
//! Called by: `broker` with the lock held, never across an await. Calls: `admit` (the decision),
//! the `enqueue` it is given (the store's; a plain closure in tests).
//! A commit goes decide → enqueue → apply. `decide` reads, and refuses without a trace. `enqueue`
//! takes the entry into the WAL's queue or refuses it. Only then `apply` moves log ends, producer
//! sequences and positions, so a refused entry leaves nothing behind and the order of offsets is
//! the order of the WAL.
//! The WAL may still refuse an entry later. On a full disk nothing of it and of what followed was
//! written, and `resync` follows the log back. Until then the shard cannot go on wrongly: what
//! depends on a refused entry (a producer's next batch, a group's next position) appends to the
//! same partition, and the store refuses it since its offsets do not adjoin.
//! After a sync that failed, admitted state is ahead of the disk for good. That is harmless: the
//! WAL refuses every later entry, high watermarks stand still, so nothing admitted is seen, and
//! the next start rebuilds from what the disk holds.
//! Refuses: partitions it does not own, producers out of order, positions that moved meanwhile.

mod admit;
#[cfg(test)]
mod tests;

use model::{
    Batch, Commit, Committed, Durability, LogError, Offset, PartitionId, PartitionMap, Producer,
    ProducerTable, ShardEpoch, ShardId, TopicId,
};
use storage::Entry;

use crate::group::offsets::Positions;
use crate::group::record::{self, Record};
use crate::status::ShardCounters;

/// The partition that holds the positions of groups.
pub(crate) const OFFSETS: PartitionId = PartitionId::new(TopicId::OFFSETS, 0);

/// Records of one batch when positions are forgotten.
const FORGOTTEN_RECORDS: usize = 1_000;

/// A partition as its owner sees it.
pub(crate) struct Partition {
    /// Offset of the next record, durable or not.
    pub(crate) log_end: Offset,
    pub(crate) durability: Durability,
    /// Every record needs a key.
    pub(crate) is_compacted: bool,
    pub(crate) producers: ProducerTable,
}

impl Partition {
    fn log_end_move(&mut self, to: Offset) {
        debug_assert!(self.log_end < to, "offsets only grow");
        self.log_end = to;
    }
}

/// What a shard keeps of a batch that went into the WAL's queue.
struct Admitted {
    partition: PartitionId,
    producer: Option<Producer>,
    records: u32,
    base: Offset,
    next: Offset,
    bytes: u64,
}

impl Admitted {
    fn of((partition, batch): &(PartitionId, Batch)) -> Admitted {
        Admitted {
            partition: *partition,
            producer: batch.producer(),
            records: batch.len(),
            base: batch.base_offset(),
            next: batch.next_offset(),
            bytes: batch.size() as u64,
        }
    }
}

/// What an admitted commit waits for before it is answered.
pub(crate) enum Wait<P> {
    /// An empty commit.
    Nothing,
    /// Its own entry.
    Entry(P),
    /// The entries that held the same batches before: partition and the offset that the high
    /// watermark must reach.
    Earlier(Vec<(PartitionId, Offset)>),
}

/// An admitted commit.
pub(crate) struct Ticket<P> {
    pub(crate) committed: Committed,
    pub(crate) append_time_us: i64,
    pub(crate) wait: Wait<P>,
    /// `Shard::resyncs` at the admission.
    pub(crate) resyncs: u64,
}

/// State and counters of one shard.
pub(crate) struct Shard {
    id: ShardId,
    epoch: ShardEpoch,
    /// Append times never go back, even when the clock does.
    append_time_us: i64,
    partitions: PartitionMap<Partition>,
    /// How often admitted entries were taken back.
    pub(crate) resyncs: u64,
    pub(crate) positions: Positions,
    pub(crate) counters: ShardCounters,
}

impl Shard {
    pub(crate) fn new(id: ShardId, epoch: ShardEpoch) -> Shard {
        Shard {
            id,
            epoch,
            append_time_us: 0,
            partitions: PartitionMap::default(),
            resyncs: 0,
            positions: Positions::default(),
            counters: ShardCounters::default(),
        }
    }

    pub(crate) fn partition_insert(&mut self, id: PartitionId, partition: Partition) {
        self.partitions.insert(id, partition);
    }

    pub(crate) fn partition(&self, id: PartitionId) -> Option<&Partition> {
        self.partitions.get(&id)
    }

    pub(crate) fn partition_mut(&mut self, id: PartitionId) -> Option<&mut Partition> {
        self.partitions.get_mut(&id)
    }

    /// Gives up a topic's partitions: from here on nothing is admitted to them. Answers them and
    /// the positions that went with them.
    pub(crate) fn topic_remove(&mut self, topic: TopicId) -> (Vec<PartitionId>, Vec<Record>) {
        let ids = self.partitions.keys().filter(|id| id.topic == topic);
        let mut ids: Vec<PartitionId> = ids.copied().collect();
        ids.sort();
        for id in &ids {
            self.partitions.remove(id);
        }
        (ids, self.positions.forget_topic(topic))
    }

    /// Partitions owned, `_offsets` included.
    pub(crate) fn len(&self) -> usize {
        self.partitions.len()
    }

    /// Admits a commit: all of it, or nothing and an error.
    pub(crate) fn commit<P>(
        &mut self,
        commit: &Commit,
        now_us: i64,
        enqueue: impl FnOnce(Entry) -> Result<P, LogError>,
    ) -> Result<Ticket<P>, LogError> {
        let append_time_us = now_us.max(self.append_time_us);
        let decision = admit::decide(self, commit, append_time_us);
        let (committed, wait) = match decision.inspect_err(|_| self.counters.refused += 1)? {
            admit::Decision::Write(plan) => {
                let admitted: Vec<Admitted> = plan.batches.iter().map(Admitted::of).collect();
                let entry = self.entry(plan.batches);
                let pending = enqueue(entry).inspect_err(|_| self.counters.refused += 1)?;
                self.append_time_us = append_time_us;
                admitted.into_iter().for_each(|batch| self.apply(batch));
                if let Some((base, records)) = plan.positions {
                    self.positions.admit(base, records);
                }
                let base_offsets = plan.base_offsets;
                (Committed { base_offsets }, Wait::Entry(pending))
            }
            admit::Decision::Duplicate {
                base_offsets,
                until,
            } => {
                self.counters.duplicates += base_offsets.len() as u64;
                (Committed { base_offsets }, Wait::Earlier(until))
            }
            admit::Decision::Nothing => (Committed::default(), Wait::Nothing),
        };
        Ok(Ticket {
            committed,
            append_time_us,
            wait,
            resyncs: self.resyncs,
        })
    }

    /// Writes to `_offsets` that these positions are gone, so that compaction lets go of them.
    pub(crate) fn forget_positions<P>(
        &mut self,
        gone: &[Record],
        now_us: i64,
        enqueue: impl Fn(Entry) -> Result<P, LogError>,
    ) -> Result<(), LogError> {
        let now_us = now_us.max(self.append_time_us);
        for records in gone.chunks(FORGOTTEN_RECORDS) {
            let batch = record::encode(records, now_us).map_err(LogError::Unavailable)?;
            let batch = batch.stamped(self.log_end(OFFSETS), self.epoch, now_us);
            let next = batch.next_offset();
            enqueue(self.entry(vec![(OFFSETS, batch)]))?;
            if let Some(own) = self.partitions.get_mut(&OFFSETS) {
                own.log_end_move(next);
            }
        }
        self.append_time_us = now_us;
        Ok(())
    }

    /// Follows the log back after it refused entries that were admitted (a full disk: nothing of
    /// them was written, and all that came after them was refused too). Partitions, producers and
    /// positions stand again where the log ends. Says whether anything was taken back.
    pub(crate) fn resync(&mut self, log_end: impl Fn(PartitionId) -> Option<Offset>) -> bool {
        let mut is_changed = false;
        for (id, own) in &mut self.partitions {
            let Some(end) = log_end(*id).filter(|end| *end < own.log_end) else {
                continue;
            };
            is_changed = true;
            own.log_end = end;
            own.producers.truncate(end);
            if *id == OFFSETS {
                self.positions.truncate(end);
            }
        }
        self.resyncs += u64::from(is_changed);
        is_changed
    }

    /// One WAL entry of these batches; it waits for the sync if any of its partitions wants that.
    fn entry(&self, batches: Vec<(PartitionId, Batch)>) -> Entry {
        let memory = batches.iter().all(|(id, _)| {
            self.partitions
                .get(id)
                .is_some_and(|own| own.durability == Durability::Memory)
        });
        let durability = if memory {
            Durability::Memory
        } else {
            Durability::Fsync
        };
        Entry {
            shard: self.id,
            epoch: self.epoch,
            batches,
            durability,
        }
    }

    /// A batch is in the WAL's queue: what it says is now the newest state.
    fn apply(&mut self, batch: Admitted) {
        self.counters.batches += 1;
        self.counters.records += u64::from(batch.records);
        self.counters.bytes += batch.bytes;
        let Some(own) = self.partitions.get_mut(&batch.partition) else {
            return;
        };
        own.log_end_move(batch.next);
        if let Some(producer) = batch.producer {
            own.producers.record(producer, batch.records, batch.base);
        }
    }

    fn log_end(&self, id: PartitionId) -> Offset {
        self.partitions.get(&id).map_or(0, |own| own.log_end)
    }
}
