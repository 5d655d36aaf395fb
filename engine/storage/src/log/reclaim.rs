//! Gives WAL space back: deletes the oldest segments once nothing in them matters any more.
//!
//! Called by: `tiering` after each range, `trim_durable`, `partition_drop`.
//! Invariants: segments go oldest first, so the WAL has no holes; before the first one goes, a
//! durable checkpoint at the WAL's head says where every partition begins and ends.
//! Under pressure what many partitions leave in an old segment, little each or without a tier, is
//! written again at the head, with the same offsets, and so frees the segment.
//! Refuses: the segment being written.

use std::sync::Arc;

use model::{Durability, LogError};

use super::Store;
use super::partition::Partition;
use super::queue::{BatchWork, Pending, Work};
use super::read::load;
use crate::planted::{Bug, carried, planted};
use crate::wal::entry::entry_len;
use crate::wal::{Kind, Segment, remove_segments};

/// Bytes written again in one entry.
const MOVE_BYTES: usize = 1 << 20;
/// What still matters is little when it is no more than this part of its segment, or of what
/// the WAL may hold.
const LIGHT_PART: u64 = 4;
/// An object of less than this part of `tier_bytes`, and of what the WAL may hold, is not worth
/// a request: that much is written again instead.
const LITTLE_PART: u64 = 32;
const LITTLE_PART_OF_WAL: u64 = 256;

/// A WAL that is larger than it should be, or finds no room.
#[derive(Clone, Copy)]
pub(super) struct Pressed {
    /// The oldest one that still matters: it must go first.
    pub segment: u64,
    /// What partitions have there that have less than this in all is written again; 0 where
    /// that is no help.
    pub little: u64,
}

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
        let dir = self.inner.config.dir.join("wal");
        let remove = carried(move || remove_segments(&*disk, &dir, &dead));
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

    /// Under pressure: frees segment after segment, as long as that takes little work.
    pub(super) async fn relieve(&self) -> Result<(), LogError> {
        // Once around: what is written again is not touched again.
        let segments = self.inner.segments.with(|segments| segments.len());
        for _ in 0..segments {
            if self.pressed().is_none() {
                break;
            }
            // A disk that is too full to write again must not keep from giving back.
            let moved = self.move_leftovers().await;
            let freed = self.reclaim().await?;
            match moved {
                Ok(()) if freed > 0 => {}
                Ok(()) | Err(LogError::DiskFull) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The oldest segment with something in it, if the WAL is larger than it should be, or finds
    /// no room. What is dead goes by itself.
    pub(super) fn pressed(&self) -> Option<Pressed> {
        let segments = &self.inner.segments;
        let is_full = self.inner.counters.full_ms().is_some();
        if segments.bytes() <= self.inner.config.wal_bytes_max && !is_full {
            return None;
        }
        let oldest = segments.with(|segments| {
            // Without room the one that is written counts too: once all are dead, the next one
            // may be made.
            let sealed = segments.len().saturating_sub(1);
            let until = if is_full { segments.len() } else { sealed };
            let is_live = |segment: &&Arc<Segment>| !segment.is_dead();
            segments.iter().take(until).find(is_live).cloned()
        })?;
        let segment = oldest.head.id;
        // Without room nothing can be written again.
        let little = if is_full { 0 } else { self.little(&oldest) };
        Some(Pressed { segment, little })
    }

    /// Below how many bytes a partition stays in the WAL, given its oldest segment.
    fn little(&self, oldest: &Segment) -> u64 {
        let config = &self.inner.config;
        let of_wal = config.wal_bytes_max / LITTLE_PART_OF_WAL;
        let little = of_wal.min(config.tier_bytes / LITTLE_PART);
        let stays = |partition: &Arc<Partition>| {
            let (bytes, _) = partition.untiered();
            let is_little = bytes < little || !partition.config().tier;
            if is_little { bytes } else { 0 }
        };
        let stay = || self.inner.partitions.all().values().map(stays).sum();
        if self.is_light(oldest, stay) {
            little
        } else {
            0
        }
    }

    /// Whether writing again what matters in this segment is little work for what it gives:
    /// there is little in it, or in all the WAL.
    fn is_light(&self, segment: &Segment, live: impl FnOnce() -> u64) -> bool {
        segment.live_bytes() <= segment.capacity / LIGHT_PART
            || live() <= self.inner.config.wal_bytes_max / LIGHT_PART
    }

    /// Writes again at the WAL's head what is left in the oldest segment, if that is little.
    pub(super) async fn move_leftovers(&self) -> Result<(), LogError> {
        let segments = &self.inner.segments;
        let oldest = segments.with(|segments| {
            let is_sealed = segments.len() > 1;
            segments.front().filter(|_| is_sealed).cloned()
        });
        let live = || segments.with(|segments| segments.iter().map(|s| s.live_bytes()).sum());
        // Held by compaction, which writes again all it finds.
        let Ok(_one) = self.inner.moving.try_lock() else {
            return Ok(());
        };
        let is_little = |oldest: &Arc<Segment>| !oldest.is_dead() && self.is_light(oldest, live);
        let Some(oldest) = oldest.filter(is_little) else {
            return Ok(());
        };
        // Many partitions with little each share an entry.
        let (mut group, mut bytes) = (Vec::new(), 0);
        for partition in self.inner.partitions.all().into_values() {
            let slots = partition.slots_in(oldest.head.id);
            for batch in load(&partition, slots).await? {
                bytes += batch.size();
                group.push((Arc::clone(&partition), batch));
                if bytes >= MOVE_BYTES {
                    self.move_batches(std::mem::take(&mut group)).await?;
                    bytes = 0;
                }
            }
        }
        self.move_batches(group).await
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
