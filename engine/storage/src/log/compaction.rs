//! Key compaction: of partitions that ask for it only the newest record of each key stays, in the
//! tier and in the WAL.
//!
//! Called by: a task of the store, again and again; `Store::compact`.
//! A pass notes the newest offsets of the dirty part's keys, then reads all from the partition's
//! start and writes what stays: of objects as new ones in the tier (`cold`), of batches that do
//! not go there at the WAL's head, entry by entry, so that old segments go free. Of a partition
//! that goes to the tier only what is there counts, so that the tier alone is whole.
//! Invariants: an entry, or an object in its list, stands for all offsets from its first to its
//! last, so between any two nothing is missing and nothing double; a record goes only because a
//! newer one of its key is durable, or by the rule for tombstones; a pass is remembered when all
//! of it is durable; the WAL's newest batch and what is younger than the topic's lag is left
//! alone; memory is bounded by `compaction_keys_bytes_max`, a few batches and two objects. One
//! pass a partition at a time.
//! Refuses: batches and objects that do not decode; the partition then stays as it is.

mod cold;
mod rewrite;
mod sieve;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::compaction::{Compacted, KeyHash, LatestOffsets, Pass, Worth};
use model::{Batch, LogError, Offset, PartitionId};

use super::partition::{Dirt, Partition};
use super::queue::{Pending, Work};
use super::read::load;
use super::tiering::PARKED_DOUBLED;
use super::{Inner, Store};
use crate::config::CompactionConfig;
use crate::error::TierError;
use crate::planted::{Bug, planted};
use crate::status::CompactionReport;
use crate::wal::Control;
use rewrite::{Counts, Rewrite, RewriteError};
use sieve::Sieve;

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
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` where something does not decode; `Unavailable` where the tier or the
    /// WAL does not take what was written again, or another broker owns the partition: what is
    /// there then says the same as before, and compaction begins anew.
    pub async fn compact(&self, p: PartitionId, now_us: i64) -> Result<CompactionReport, LogError> {
        let partition = self.partition(p)?;
        let Some(compact) = partition.config().compact else {
            return Ok(CompactionReport::default());
        };
        let since = Since {
            now_us,
            begun: Instant::now(),
        };
        let done = self.passes(&partition, compact, since).await;
        if let Err(TierError::Fenced { epoch, .. }) = &done {
            partition.fence(*epoch);
        }
        let done = done.map_err(|error| error.into_read(p));
        let failure = done.as_ref().err().map(ToString::to_string);
        let pace = &self.inner.tier.pace;
        let pause = |failures: u32| pace.pause(failures.saturating_add(PARKED_DOUBLED));
        partition.compaction_ended(failure, pause);
        done
    }

    /// Compacts what is worth it of the partitions that go to the tier, or of the others.
    async fn compact_due(&self, is_tiered: bool, now_us: i64) {
        for (id, partition) in self.inner.partitions.all() {
            let config = partition.config();
            let Some(compact) = config.compact.filter(|_| config.tier == is_tiered) else {
                continue;
            };
            let is_owned = partition.newest_epoch() <= self.inner.tier.epoch;
            if !is_owned
                || partition.is_compaction_parked()
                || !self.is_worth_a_pass(&partition, compact, now_us)
            {
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
    ) -> Result<CompactionReport, TierError> {
        let _one = partition.compacting.lock().await;
        let mut report = CompactionReport::default();
        loop {
            let compacted = partition.compacted();
            let mut horizon = compacted.horizon_at(since.us(), compact.tombstone_retention);
            let Dirt { until, .. } = partition.dirt(since.us(), compact.lag_min);
            let is_dirty = until > compacted.end();
            let has_tombstones = compacted.tombstones > 0 && horizon > compacted.horizon;
            if !is_dirty && !has_tombstones {
                return Ok(report);
            }
            let (latest, end) = self.note_keys(partition, compacted.end(), until).await?;
            if end <= compacted.end() && !has_tombstones {
                // Dropped, or trimmed meanwhile.
                return Ok(report);
            }
            let last = last_record(partition, end).await?;
            if planted(Bug::TombstonesGoneAtOnce) {
                horizon = end;
            }
            let pass = Pass {
                latest,
                last,
                horizon,
            };
            let done = self.pass(partition, pass, end, since).await?;
            report.add(&done);
            report.segments_freed += self.reclaim_or_warn().await;
            if done.passes == 0 {
                return Ok(report);
            }
        }
    }

    /// Notes the newest offsets of the keys from `from` on, as many as memory allows; answers up
    /// to where.
    async fn note_keys(
        &self,
        partition: &Arc<Partition>,
        from: Offset,
        until: Offset,
    ) -> Result<(LatestOffsets, Offset), TierError> {
        let mut latest = LatestOffsets::new(self.inner.config.compaction_keys_bytes_max);
        let mut at = from;
        loop {
            let batches = self.dirty_batches(partition, at, until).await?;
            if batches.is_empty() {
                break;
            }
            let id = partition.id();
            let noted = tokio::task::spawn_blocking(move || note(id, latest, &batches, at..until));
            (latest, at) = noted.await.map_err(|_| broken_off())??;
            if latest.is_full() {
                return Ok((latest, at));
            }
        }
        if planted(Bug::UndurableNoted) {
            let end = partition.bounds().end;
            let batches = load(partition, partition.slots(at, end, usize::MAX)).await?;
            (latest, _) = note(partition.id(), latest, &batches, at..end)?;
        }
        Ok((latest, at))
    }

    /// Some batches from `at` on, which may begin before it; none at `until`.
    async fn dirty_batches(
        &self,
        partition: &Arc<Partition>,
        at: Offset,
        until: Offset,
    ) -> Result<Vec<Batch>, TierError> {
        let at = at.max(partition.bounds().start);
        let cold = partition.cold();
        if at >= until {
            return Ok(Vec::new());
        }
        match cold.object_at(at) {
            Some(object) => {
                let at = at.max(object.base);
                self.inner.tier.read(&cold, at, READ_BYTES).await
            }
            None => Ok(load(partition, partition.slots(at, until, READ_BYTES)).await?),
        }
    }

    /// Writes what stays of all below `end` again, and remembers the pass. None was done if
    /// the partition was dropped or trimmed meanwhile.
    async fn pass(
        &self,
        partition: &Arc<Partition>,
        pass: Pass,
        end: Offset,
        since: Since,
    ) -> Result<CompactionReport, TierError> {
        let (pass, start) = (Arc::new(pass), partition.bounds().start);
        if planted(Bug::PassRememberedFirst) {
            self.through(partition, end, since, (0, pass.horizon))
                .await?;
        }
        let cold_end = partition.cold().end;
        if start < cold_end && cold_end < end {
            // What is newer than objects that go must be as durable as they are.
            self.sync().await?;
        }
        let mut report = CompactionReport::default();
        let mut sieve = Sieve::new(Arc::clone(&pass), start);
        let (mut at, mut hot) = (start, Counts::default());
        while at < end {
            let _held = partition.tiering.lock().await;
            if at >= partition.cold().end {
                let rewrite = Rewrite::new(Arc::clone(&pass), start);
                let rewritten = self.rewrite_hot(partition, rewrite, at..end, &mut report);
                let Some(counts) = rewritten.await? else {
                    return Ok(report);
                };
                (at, hot) = (end, counts);
                continue;
            }
            let run = self.rewrite_run(partition, sieve, at, end, &mut report);
            (sieve, at) = run.await?;
        }
        let cold = sieve.counts();
        let tombstones = cold.tombstones + hot.tombstones;
        self.through(partition, end, since, (tombstones, pass.horizon))
            .await?;
        report.passes = 1;
        report.records_before = cold.records_before + hot.records_before;
        report.records_after = cold.records_after + hot.records_after;
        Ok(report)
    }

    /// Remembers a pass over all below `end` that left so many tombstones and let those below
    /// a horizon go: where its last part stands.
    async fn through(
        &self,
        partition: &Partition,
        end: Offset,
        since: Since,
        (tombstones, horizon): (u64, Offset),
    ) -> Result<(), TierError> {
        let mut compacted = partition.compacted();
        compacted.add(end, since.us(), tombstones, horizon);
        if end <= partition.cold().end {
            self.remember_cold(partition, &compacted).await?;
        } else {
            self.remember(partition, &compacted).await?;
        }
        partition.set_compacted(compacted);
        Ok(())
    }

    /// Writes what stays of untiered batches at the WAL's head; nothing if they are gone.
    async fn rewrite_hot(
        &self,
        partition: &Arc<Partition>,
        mut rewrite: Rewrite,
        range: Range<Offset>,
        report: &mut CompactionReport,
    ) -> Result<Option<Counts>, LogError> {
        let Range { start: mut at, end } = range;
        while at < end {
            let _one = self.inner.moving.lock().await;
            let mut batches = Vec::new();
            while at < end && batches.is_empty() {
                let slots = partition.slots(at, end, READ_BYTES);
                let Some(last) = slots.last() else {
                    // Dropped, or trimmed meanwhile.
                    return Ok(None);
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
        Ok(Some(rewrite.counts()))
    }

    async fn remember(&self, partition: &Partition, compacted: &Compacted) -> Result<(), LogError> {
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

/// Notes the records of a range, whole batches until memory is full; answers up to where.
fn note(
    partition: PartitionId,
    mut latest: LatestOffsets,
    batches: &[Batch],
    range: Range<Offset>,
) -> Result<(LatestOffsets, Offset), LogError> {
    let mut at = range.start;
    for batch in batches {
        if at > range.start && latest.is_full() {
            break;
        }
        let damaged = |error| {
            let offset = batch.base_offset();
            damaged(partition, &RewriteError::Batch { offset, error })
        };
        let rows = batch.rows().map_err(damaged)?;
        let offsets = batch.offsets().map_err(damaged)?;
        let rest = offsets.into_iter().enumerate();
        for (row, offset) in rest.filter(|(_, offset)| range.contains(offset)) {
            if let Some(key) = rows.record(row).key {
                latest.note(KeyHash::of(key), offset);
            }
        }
        at = batch.next_offset().min(range.end);
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

/// The offset of the last record below `end`, if a batch of the WAL ends there: of the tier
/// nothing need stay, since a neighbour stands for what is gone.
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

/// Looks for what is due until the store is gone. What is in the tier may take long, and what is
/// in the WAL keeps it from its size, so neither waits for the other.
pub(super) async fn run(inner: Weak<Inner>, tick: Duration) {
    let tiered = run_of(Weak::clone(&inner), tick, true);
    futures::join!(tiered, run_of(inner, tick, false));
}

async fn run_of(inner: Weak<Inner>, tick: Duration, is_tiered: bool) {
    loop {
        tokio::time::sleep(tick).await;
        let Some(inner) = inner.upgrade() else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_us = now.unwrap_or_default().as_micros();
        let now_us = i64::try_from(now_us).unwrap_or(i64::MAX);
        Store { inner }.compact_due(is_tiered, now_us).await;
    }
}
