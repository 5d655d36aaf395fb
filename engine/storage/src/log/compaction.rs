//! Key compaction in the WAL: of partitions that ask for it and do not go to the tier, only the
//! newest record of each key stays.
//!
//! Called by: a task of the store, again and again; `Store::compact`.
//! A pass notes the newest offsets of the dirty part's keys, then reads all from the partition's
//! start and writes what stays at the WAL's head, entry by entry, so that old segments go free.
//! Invariants: an entry stands for whole batches, from a batch's first offset to a batch's last,
//! so between any two entries nothing is missing and nothing double; a record goes only because a
//! newer one of its key is durable, or by the rule for tombstones; the newest batch and what is
//! younger than the topic's lag is left alone; memory is bounded by `compaction_keys_bytes_max`
//! and a few batches. One pass a partition at a time.
//! Refuses: batches that do not decode; the partition then stays as it is.

mod rewrite;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::compaction::{KeyHash, LatestOffsets, Pass, Worth};
use model::{Batch, LogError, Offset, PartitionId};

use super::partition::{Dirt, Partition};
use super::queue::{Pending, Work};
use super::read::load;
use super::{Inner, Store};
use crate::config::CompactionConfig;
use crate::status::CompactionReport;
use crate::wal::Control;
use rewrite::{Rewrite, RewriteError};

/// Batches read at once; few in tests, so that a pass is of many parts.
const READ_BYTES: usize = if cfg!(test) { 400 } else { 4 << 20 };
/// Kept records of one entry.
const ENTRY_BYTES: usize = if cfg!(test) { 100 } else { 1 << 20 };

/// A moment: the caller's clock, moved on by the machine's.
#[derive(Clone, Copy)]
struct Since {
    now_us: i64,
    begun: Instant,
}

impl Since {
    fn us(self) -> i64 {
        let us = i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.now_us.saturating_add(us)
    }
}

impl Store {
    /// Compacts all of a partition that may be compacted now. `now_us` is the time in
    /// microseconds since the epoch. A partition that does not ask for it stays as it is.
    pub async fn compact(&self, p: PartitionId, now_us: i64) -> Result<CompactionReport, LogError> {
        let partition = self.partition(p)?;
        let config = partition.config();
        match config.compact {
            Some(compact) if !config.tier => {
                let since = Since {
                    now_us,
                    begun: Instant::now(),
                };
                self.passes(&partition, compact, since).await
            }
            _ => Ok(CompactionReport::default()),
        }
    }

    /// Compacts what is worth it.
    pub(crate) async fn compact_due(&self, now_us: i64) {
        for (id, partition) in self.inner.partitions.all() {
            let Some(compact) = partition.config().compact else {
                continue;
            };
            if !self.is_worth_a_pass(&partition, compact, now_us) {
                continue;
            }
            match self.compact(id, now_us).await {
                Ok(report) => tracing::debug!(partition = %id, ?report, "compacted"),
                // Dropped meanwhile.
                Err(LogError::NotFound { .. } | LogError::Closed) => {}
                Err(error) => tracing::warn!(partition = %id, %error, "not compacted"),
            }
        }
    }

    fn is_worth_a_pass(
        &self,
        partition: &Partition,
        compact: CompactionConfig,
        now_us: i64,
    ) -> bool {
        let config = &self.inner.config;
        let worth = Worth {
            dirty_percent_min: config.compaction_dirty_percent,
            dirty_bytes_min: config.compaction_bytes_min,
            dirty_age_max: Duration::from_millis(config.compaction_age_ms),
        };
        let dirt = partition.dirt(now_us, compact.lag_min);
        let age_us = now_us.saturating_sub(dirt.oldest_us);
        let age = Duration::from_micros(u64::try_from(age_us).unwrap_or(0));
        worth.is_due(dirt.dirty_bytes, dirt.clean_bytes, age)
            || partition
                .compacted()
                .has_tombstones_to_drop(now_us, compact.tombstone_retention)
    }

    /// Passes until nothing is dirty that may be compacted.
    async fn passes(
        &self,
        partition: &Arc<Partition>,
        compact: CompactionConfig,
        since: Since,
    ) -> Result<CompactionReport, LogError> {
        let _one = partition.tiering.lock().await;
        let mut report = CompactionReport::default();
        loop {
            let compacted = partition.compacted();
            let horizon = compacted.horizon_at(since.us(), compact.tombstone_retention);
            let Dirt { until, .. } = partition.dirt(since.us(), compact.lag_min);
            let is_dirty = until > compacted.end();
            let has_tombstones = compacted.tombstones > 0 && horizon > compacted.horizon;
            if !is_dirty && !has_tombstones {
                return Ok(report);
            }
            let (latest, end) = self.note_keys(partition, compacted.end(), until).await?;
            let Some(last) = last_record(partition, end).await? else {
                return Ok(report);
            };
            let pass = Pass {
                latest,
                last,
                horizon,
            };
            report.add(&self.pass(partition, pass, end, since).await?);
            report.segments_freed += self.reclaim_or_warn().await;
        }
    }

    /// Notes the newest offsets of the keys from `from` on, as many as memory allows; answers up
    /// to where.
    async fn note_keys(
        &self,
        partition: &Arc<Partition>,
        from: Offset,
        until: Offset,
    ) -> Result<(LatestOffsets, Offset), LogError> {
        let mut latest = LatestOffsets::new(self.inner.config.compaction_keys_bytes_max);
        let mut at = from;
        loop {
            let batches = load(partition, partition.slots(at, until, READ_BYTES)).await?;
            if batches.is_empty() {
                return Ok((latest, at));
            }
            let id = partition.id();
            let noted = tokio::task::spawn_blocking(move || note(id, latest, &batches));
            (latest, at) = noted.await.map_err(|_| broken_off())??;
            if latest.is_full() {
                return Ok((latest, at));
            }
        }
    }

    /// Writes what stays of all below `end` again, and remembers the pass.
    async fn pass(
        &self,
        partition: &Arc<Partition>,
        pass: Pass,
        end: Offset,
        since: Since,
    ) -> Result<CompactionReport, LogError> {
        let horizon = pass.horizon;
        let start = partition.bounds().start;
        let mut rewrite = Rewrite::new(pass, start);
        let mut at = start;
        let mut report = CompactionReport::default();
        while at < end {
            let _one = self.inner.moving.lock().await;
            let mut batches = Vec::new();
            while at < end && batches.is_empty() {
                let slots = partition.slots(at, end, READ_BYTES);
                let Some(last) = slots.last() else {
                    // Dropped, or trimmed meanwhile.
                    return Ok(report);
                };
                at = last.next;
                report.bytes_before += bytes(&slots);
                let read = load(partition, slots).await?;
                (rewrite, batches) = sift(partition.id(), rewrite, read, at >= end).await?;
            }
            report.bytes_after += batches.iter().map(|b| b.size() as u64).sum::<u64>();
            let parts = batches.into_iter();
            let parts = parts.map(|batch| (Arc::clone(partition), batch));
            self.move_batches(parts.collect()).await?;
        }
        let counts = rewrite.counts();
        let mut compacted = partition.compacted();
        compacted.add(end, since.us(), counts.tombstones, horizon);
        self.remember(partition, &compacted).await?;
        partition.set_compacted(compacted);
        report.passes = 1;
        report.records_before = counts.records_before;
        report.records_after = counts.records_after;
        Ok(report)
    }

    async fn remember(
        &self,
        partition: &Partition,
        compacted: &model::compaction::Compacted,
    ) -> Result<(), LogError> {
        let (reply, pending) = Pending::new();
        let control = Control::Compacted {
            partition: partition.id(),
            compacted: compacted.clone(),
        };
        let reply = Some(reply);
        self.inner.queue.put(Work::Control { control, reply })?;
        pending.await
    }
}

fn bytes(slots: &[super::partition::Slot]) -> u64 {
    slots.iter().map(|slot| u64::from(slot.location.size)).sum()
}

/// Notes whole batches until memory is full; answers up to where.
fn note(
    partition: PartitionId,
    mut latest: LatestOffsets,
    batches: &[Batch],
) -> Result<(LatestOffsets, Offset), LogError> {
    let mut at = 0;
    for batch in batches {
        if at > 0 && latest.is_full() {
            break;
        }
        let damaged = |error| {
            let offset = batch.base_offset();
            damaged(partition, &RewriteError::Batch { offset, error })
        };
        let rows = batch.rows().map_err(damaged)?;
        let offsets = batch.offsets().map_err(damaged)?;
        for (row, offset) in offsets.into_iter().enumerate() {
            if let Some(key) = rows.record(row).key {
                latest.note(KeyHash::of(key), offset);
            }
        }
        at = batch.next_offset();
    }
    Ok((latest, at))
}

/// Puts batches through; answers an entry's worth of what is kept, if there is as much or if
/// this is the end.
async fn sift(
    partition: PartitionId,
    mut rewrite: Rewrite,
    batches: Vec<Batch>,
    is_end: bool,
) -> Result<(Rewrite, Vec<Batch>), LogError> {
    let sift = move || {
        batches.iter().try_for_each(|batch| rewrite.push(batch))?;
        let is_enough = is_end || rewrite.bytes() >= ENTRY_BYTES;
        let out = if is_enough {
            rewrite.cut()?
        } else {
            Vec::new()
        };
        Ok((rewrite, out))
    };
    let sifted = tokio::task::spawn_blocking(sift).await;
    let sifted = sifted.map_err(|_| broken_off())?;
    sifted.map_err(|error| damaged(partition, &error))
}

/// The offset of the last record below `end`, which is where a batch ends.
async fn last_record(partition: &Arc<Partition>, end: Offset) -> Result<Option<Offset>, LogError> {
    let slots = partition.slots(end.saturating_sub(1), end, 1);
    let batches = load(partition, slots).await?;
    let Some(batch) = batches.last() else {
        return Ok(None);
    };
    let offsets = batch.offsets().map_err(|error| {
        let offset = batch.base_offset();
        damaged(partition.id(), &RewriteError::Batch { offset, error })
    })?;
    Ok(offsets.last().copied())
}

fn damaged(partition: PartitionId, error: &RewriteError) -> LogError {
    LogError::Corrupt {
        partition,
        detail: format!("{error}; it stays uncompacted"),
    }
}

fn broken_off() -> LogError {
    LogError::Unavailable("the compaction was broken off".to_owned())
}

/// Looks for what is due until the store is gone.
pub(super) async fn run(inner: Weak<Inner>, tick: Duration) {
    loop {
        tokio::time::sleep(tick).await;
        let Some(inner) = inner.upgrade() else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_us = now.unwrap_or_default().as_micros();
        let now_us = i64::try_from(now_us).unwrap_or(i64::MAX);
        Store { inner }.compact_due(now_us).await;
    }
}
