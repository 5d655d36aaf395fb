//! Gives WAL space back: deletes the oldest segments once nothing in them matters any more.
//!
//! Called by: `tiering` after each range, `trim_durable`, `partition_drop`.
//! Invariants: segments go oldest first, so the WAL has no holes; before the first one goes, a
//! durable checkpoint at the WAL's head says where every partition begins and ends.
//! Under pressure what many partitions leave in an old segment, little each or without a tier, is
//! written again at the head, with the same offsets, and so frees the segment.
//! Refuses: the segment being written.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Durability, LogError};

use super::Store;
use super::linger::UnderWay;
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
    /// Segments up to this one must go.
    pub until: u64,
    /// What a partition has there is written again if it has less than this in all; 0 where that
    /// would be no help.
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
        let _one = self.inner.relieving.lock().await;
        let segments = &self.inner.segments;
        let oldest = || segments.with(|segments| segments.front().map(|s| s.head.id));
        // Once around: what is written again is not touched again.
        for _ in 0..segments.with(|segments| segments.len()) {
            let before = oldest();
            if self.pressed().is_none() {
                break;
            }
            // A disk that is too full to write again must not keep from giving back.
            let moved = self.move_leftovers().await;
            self.reclaim().await?;
            match moved {
                Err(LogError::DiskFull) => break,
                moved => moved?,
            }
            if oldest() == before {
                break;
            }
        }
        Ok(())
    }

    /// What must go, if the WAL is larger than it should be, or finds no room.
    pub(super) fn pressed(&self) -> Option<Pressed> {
        let max = self.inner.config.wal_bytes_max;
        let mut bytes = self.inner.segments.bytes();
        if self.inner.counters.full_ms().is_some() {
            // What is dead goes by itself. The one that is written counts too: once all are
            // dead, the next one may be made. Nothing can be written again.
            let is_live = |segment: &&Arc<Segment>| !segment.is_dead();
            let segments = &self.inner.segments;
            let until = segments.with(|all| all.iter().find(is_live).map(|s| s.head.id));
            return until.map(|until| Pressed { until, little: 0 });
        }
        if bytes <= max {
            return None;
        }
        let (little, staying) = self.staying();
        let until = self.inner.segments.with(|segments| {
            let sealed = segments.len().saturating_sub(1);
            let mut until = None;
            for segment in segments.iter().take(sealed) {
                let stays = staying.get(&segment.head.id).copied().unwrap_or(0);
                let is_stuck = little == 0 && stays > segment.capacity / LIGHT_PART;
                if bytes <= max || is_stuck {
                    break;
                }
                // What stays comes again at the head.
                bytes -= segment.capacity.saturating_sub(stays);
                until = Some(segment.head.id);
            }
            until
        })?;
        Some(Pressed { until, little })
    }

    /// Below how many bytes a partition stays in the WAL, and bytes by segment of all that do. If
    /// there are so many of them that writing them again would be most of the work, only those
    /// stay that never go to the tier.
    fn staying(&self) -> (u64, BTreeMap<u64, u64>) {
        let config = &self.inner.config;
        let of_wal = config.wal_bytes_max / LITTLE_PART_OF_WAL;
        let little = of_wal.min(config.tier_bytes / LITTLE_PART);
        let partitions = self.inner.partitions.all();
        for little in [little, 0] {
            let mut staying = BTreeMap::new();
            let stay = partitions.values().filter(|p| stays(p, little));
            stay.for_each(|partition| partition.bytes_by_segment(&mut staying));
            let is_little = staying.values().sum::<u64>() <= config.wal_bytes_max / LIGHT_PART;
            if is_little || little == 0 {
                return (little, staying);
            }
        }
        (0, BTreeMap::new())
    }

    /// Writes again at the WAL's head what is left in the oldest segment, if that is little work
    /// for what it gives: because little is left in it, or little in all of what stays.
    pub(super) async fn move_leftovers(&self) -> Result<(), LogError> {
        let oldest = self.inner.segments.with(|segments| {
            let is_sealed = segments.len() > 1;
            segments.front().filter(|_| is_sealed).cloned()
        });
        // Held by compaction, which writes again all it finds.
        let Ok(_one) = self.inner.moving.try_lock() else {
            return Ok(());
        };
        let Some(oldest) = oldest.filter(|oldest| !oldest.is_dead()) else {
            return Ok(());
        };
        let id = oldest.head.id;
        let mut partitions: Vec<_> = self.inner.partitions.all().into_values().collect();
        partitions.retain(|partition| partition.holds(id));
        if oldest.live_bytes() > oldest.capacity / LIGHT_PART {
            let (little, _) = self.staying();
            if little == 0 || !partitions.iter().all(|partition| stays(partition, little)) {
                return Ok(());
            }
        }
        // Many partitions with little each share an entry.
        let (mut group, mut bytes) = (Vec::new(), 0);
        for partition in partitions {
            let slots = partition.slots_in(id);
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
            under_way: UnderWay::new(&self.inner.config.linger),
        };
        self.inner.queue.room(length).await;
        self.inner.queue.put_batches(work)?;
        pending.await
    }
}

/// Whether it never goes to the tier, or has too little for it.
fn stays(partition: &Partition, little: u64) -> bool {
    partition.untiered().0 < little || !partition.config().tier
}
