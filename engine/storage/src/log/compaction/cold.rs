//! The part of a pass over the objects of the tier.
//!
//! Called by: `compaction`. Neighbouring objects of which rows go become one, up to an object's
//! worth of rows; objects of which nothing goes stay as they are; a run of which nothing is left
//! goes, and its neighbour stands for its offsets.
//! Invariants: data object, then the list that names it in place of the old ones, which stay
//! until readers are through (`collection`); the list is held from reading to the put, object by
//! object of a run, and let go between runs, so that uploads are not kept waiting; an object that
//! partitions share is left to the others. Memory is bounded by two objects.
//! Refuses: to go on where the list is not the one that was put.

use std::ops::Range;
use std::sync::Arc;

use model::compaction::Compacted;
use model::{Batch, LogError, Offset};

use super::super::Store;
use super::super::partition::Partition;
use super::super::parts::encode;
use super::sieve::Sieve;
use super::{broken_off, damaged};
use crate::error::TierError;
use crate::planted::{Bug, planted};
use crate::status::CompactionReport;
use crate::tier::manifest::{ColdObject, Manifest, is_shared};

/// Objects that become one at a time; few in tests, so that a pass is of many parts.
const OBJECTS_MAX: usize = if cfg!(test) { 3 } else { 64 };
/// Rows read for one run, in times of `tier_bytes`.
const READ_FACTOR: u64 = 4;
/// Rows kept of it.
const KEPT_FACTOR: u64 = 2;

/// Neighbours of which something goes, and what is left of them.
#[derive(Default)]
struct Run {
    objects: Range<usize>,
    kept: Vec<Batch>,
    read_bytes: u64,
    kept_bytes: u64,
}

impl Run {
    /// Whether another object would be too much for it.
    fn is_full(&self, object: &ColdObject, tier_bytes: u64) -> bool {
        let exceeds = |bytes: u64, factor: u64| {
            bytes.saturating_add(object.row_bytes) > tier_bytes.saturating_mul(factor)
        };
        !self.objects.is_empty()
            && (self.objects.len() == OBJECTS_MAX
                || exceeds(self.read_bytes, READ_FACTOR)
                || exceeds(self.kept_bytes, KEPT_FACTOR))
    }

    fn add(&mut self, index: usize, object: &ColdObject, kept: Vec<Batch>) {
        if self.objects.is_empty() {
            self.objects = index..index;
        }
        self.objects.end = index + 1;
        self.read_bytes += object.row_bytes;
        self.kept_bytes += kept.iter().map(|batch| batch.size() as u64).sum::<u64>();
        self.kept.extend(kept);
    }
}

impl Store {
    /// Puts the objects from `at` on through the sieve, up to one run of them, and writes down
    /// what is left; answers where it goes on. The partition's list is held.
    pub(super) async fn rewrite_run(
        &self,
        partition: &Arc<Partition>,
        mut sieve: Sieve,
        mut at: Offset,
        end: Offset,
        report: &mut CompactionReport,
    ) -> Result<(Sieve, Offset), TierError> {
        let before = partition.cold();
        let first = before.objects.partition_point(|object| object.next <= at);
        let mut run = Run::default();
        if first == before.objects.len() {
            at = before.end;
        }
        for (index, object) in before.objects.iter().enumerate().skip(first) {
            if object.base >= end {
                at = end;
                break;
            }
            if run.is_full(object, self.inner.config.tier_bytes) {
                break;
            }
            let (counts, kept);
            (sieve, counts, kept) = self.sift_object(&before, object, sieve).await?;
            at = object.next;
            report.bytes_before += object.bytes();
            if counts {
                run.add(index, object, kept);
            } else {
                report.bytes_after += object.bytes();
                break;
            }
        }
        if !run.objects.is_empty() {
            report.bytes_after += self.put_run(partition, &before, run, &mut sieve).await?;
        }
        Ok((sieve, at))
    }

    /// One object through the sieve; answers whether anything goes, and what is kept.
    async fn sift_object(
        &self,
        before: &Manifest,
        object: &ColdObject,
        mut sieve: Sieve,
    ) -> Result<(Sieve, bool, Vec<Batch>), TierError> {
        let counts = sieve.counts();
        let mut kept = Vec::new();
        for group in 0..object.group_count() {
            let from = object.group_base(group);
            let tier = &self.inner.tier;
            let batches = tier.read_group(before, object, group, from, usize::MAX);
            let batches = batches.await?;
            let is_last = group + 1 == object.group_count();
            let next = is_last.then_some(object.next);
            let sift = move || {
                for batch in &batches {
                    sieve.push(batch, &mut kept)?;
                }
                if let Some(next) = next {
                    kept.extend(sieve.close(next)?);
                }
                Ok((sieve, kept))
            };
            let sifted = tokio::task::spawn_blocking(sift).await;
            let sifted = sifted.map_err(|_| broken_off())?;
            (sieve, kept) = sifted.map_err(|error| damaged(before.partition, &error))?;
        }
        let after = sieve.counts();
        let (was, is) = (
            after.records_before - counts.records_before,
            after.records_after - counts.records_after,
        );
        Ok((sieve, was != is, kept))
    }

    /// Puts what is left of a run in place of it; answers its bytes.
    async fn put_run(
        &self,
        partition: &Partition,
        before: &Manifest,
        mut run: Run,
        sieve: &mut Sieve,
    ) -> Result<u64, TierError> {
        let old = &before.objects[run.objects.clone()];
        let (Some(first), Some(last)) = (old.first(), old.last()) else {
            return Ok(0);
        };
        let (base, next) = (first.base, last.next);
        if run.kept.is_empty() && old.len() == before.objects.len() {
            // A list is never without a row: that one alone would stand for all its offsets.
            let is_all_there_is = first.rows == 1 && old.len() == 1;
            if is_all_there_is && sieve.last_dropped().is_some_and(|(_, is)| is) {
                return Ok(first.bytes());
            }
            let placeholder = sieve.placeholder();
            run.kept
                .extend(placeholder.map_err(|error| damaged(before.partition, &error))?);
        }
        let object = match run.kept.is_empty() {
            true => None,
            false => Some(self.put_kept(partition, base..next, run.kept).await?),
        };
        let bytes = object.as_ref().map_or(0, ColdObject::bytes);
        if planted(Bug::ObjectsGoneBeforeList) {
            for object in old.iter().filter(|object| !is_shared(&object.path)) {
                self.inner.tier.delete(&object.path.as_str().into()).await?;
            }
        }
        let list = before.rewritten(run.objects, object);
        let list = list.ok_or_else(|| not_ours(before))?;
        let put = self.inner.tier.put_manifest(&list).await?;
        let is_ours = put.objects == list.objects;
        partition.release_tiered(Arc::new(put));
        is_ours.then_some(bytes).ok_or_else(|| not_ours(before))
    }

    /// An object with these rows, for a range of offsets.
    async fn put_kept(
        &self,
        partition: &Partition,
        range: Range<Offset>,
        kept: Vec<Batch>,
    ) -> Result<ColdObject, TierError> {
        let config = partition.config();
        let encoded = encode(Arc::clone(&config), vec![partition.id()], vec![kept]);
        let mut written = encoded.await?;
        for object in &mut written.objects {
            (object.base, object.next) = (range.start, range.end);
        }
        let mut objects = self.inner.tier.put_data(&config, written).await?;
        objects.pop().ok_or_else(|| broken_off().into())
    }

    /// Says in the tier's list that a pass is through. Who opens it without this broker's log
    /// knows it too.
    pub(super) async fn remember_cold(
        &self,
        partition: &Partition,
        compacted: &Compacted,
    ) -> Result<(), TierError> {
        let _held = partition.tiering.lock().await;
        let before = partition.cold();
        let list = before.compacted(compacted.clone());
        let put = self.inner.tier.put_manifest(&list).await?;
        let is_ours = put.compacted == *compacted;
        partition.release_tiered(Arc::new(put));
        is_ours.then_some(()).ok_or_else(|| not_ours(&before))
    }
}

/// A put of an earlier run came late and stands where the new list should.
fn not_ours(before: &Manifest) -> TierError {
    LogError::Unavailable(format!(
        "the list of partition {} is another one than {}; compaction begins anew later",
        before.partition, before.number
    ))
    .into()
}
