//! Gives WAL space back: deletes the oldest segments once nothing in them matters any more.
//!
//! Called by: `tiering` after each range, `trim_durable`, `partition_drop`.
//! Invariants: segments go oldest first, so the WAL has no holes; before the first one goes, a
//! durable checkpoint at the WAL's head says where every partition begins and ends.
//! What a partition without tier (or with little) leaves in an old segment under pressure is
//! written again at the head, with the same offsets, and so frees the segment.
//! Refuses: the segment being written.

use std::sync::Arc;

use model::{Durability, LogError};

use super::Store;
use super::partition::{Partition, Slot};
use super::queue::{BatchWork, Pending, Work};
use super::read::load;
use crate::planted::{Bug, planted};
use crate::wal::entry::entry_len;
use crate::wal::{Kind, Segment};

/// Bytes written again in one entry.
const MOVE_BYTES: usize = 1 << 20;

impl Store {
    /// Deletes what can be deleted; answers how many segments that was.
    pub(super) async fn reclaim(&self) -> Result<u64, LogError> {
        let _one = self.inner.reclaiming.lock().await;
        let dead: Vec<Arc<Segment>> = self.inner.segments.with(|segments| {
            let sealed = segments.len().saturating_sub(1);
            let oldest = segments.iter().take(sealed);
            oldest
                .take_while(|segment| {
                    segment.is_dead() || (planted(Bug::SegmentFreedEarly) && segment.live() == 1)
                })
                .cloned()
                .collect()
        });
        if dead.is_empty() {
            return Ok(0);
        }
        if !planted(Bug::CheckpointLeftOut) {
            self.checkpoint().await?;
        }
        let freed = dead.len() as u64;
        self.inner
            .segments
            .with(|segments| segments.drain(..dead.len()).for_each(drop));
        let disk = Arc::clone(&self.inner.disk);
        // One by one and oldest first, so that after a crash no hole can be among what is left.
        let remove = move || {
            dead.iter()
                .try_for_each(|segment| disk.remove(&segment.path))
        };
        match tokio::task::spawn_blocking(remove).await {
            Ok(Ok(())) => Ok(freed),
            Ok(Err(error)) => Err(LogError::Unavailable(format!(
                "cannot remove a WAL segment: {error}"
            ))),
            Err(_) => Err(LogError::Unavailable(
                "giving back WAL space was broken off".to_owned(),
            )),
        }
    }

    /// Puts at the WAL's head what only older entries say, but for batches.
    async fn checkpoint(&self) -> Result<(), LogError> {
        let queue = &self.inner.queue;
        for partition in self.inner.partitions.all().into_values() {
            for control in partition.apart() {
                let reply = None;
                queue.put(Work::Control { control, reply })?;
            }
        }
        let (reply, pending) = Pending::new();
        queue.put(Work::Checkpoint { reply })?;
        pending.await
    }

    pub(super) async fn reclaim_or_warn(&self) -> u64 {
        self.reclaim().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "WAL space was not given back");
            0
        })
    }

    /// Under pressure: writes again what partitions that do not go to the tier hold in the
    /// oldest segment, if that is little.
    pub(super) async fn move_leftovers(&self) -> Result<(), LogError> {
        let oldest = self.inner.segments.with(|segments| {
            let is_sealed = segments.len() > 1;
            segments.front().filter(|_| is_sealed).cloned()
        });
        let Some(oldest) = oldest else { return Ok(()) };
        // Held by compaction, which writes again all it finds.
        let Ok(_one) = self.inner.moving.try_lock() else {
            return Ok(());
        };
        if oldest.is_dead() || oldest.live_bytes() > oldest.capacity / 4 {
            return Ok(());
        }
        for partition in self.inner.partitions.all().into_values() {
            let slots: Vec<Slot> = partition
                .oldest_untiered(oldest.capacity)
                .into_iter()
                .filter(|slot| slot.location.segment.head.id == oldest.head.id)
                .collect();
            let batches = load(&partition, slots).await?;
            let mut group = Vec::new();
            let mut bytes = 0;
            for batch in batches {
                bytes += batch.size();
                group.push((Arc::clone(&partition), batch));
                if bytes >= MOVE_BYTES {
                    self.move_batches(std::mem::take(&mut group)).await?;
                    bytes = 0;
                }
            }
            self.move_batches(group).await?;
        }
        Ok(())
    }

    /// Writes batches again at the WAL's head; resolves when that is durable.
    pub(super) async fn move_batches(
        &self,
        parts: Vec<(Arc<Partition>, model::Batch)>,
    ) -> Result<(), LogError> {
        if parts.is_empty() {
            return Ok(());
        }
        let (reply, pending) = Pending::new();
        let length = entry_len(parts.iter().map(|(_, batch)| batch.size()));
        let (kind, durability) = (Kind::Moved, Durability::Fsync);
        let work = BatchWork {
            kind,
            shard: 0,
            epoch: 0,
            durability,
            parts,
            length,
            reply,
        };
        self.inner.queue.room(length).await;
        self.inner.queue.put_batches(work)?;
        pending.await
    }
}
