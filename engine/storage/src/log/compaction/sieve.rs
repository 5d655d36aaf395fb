//! The rows of objects that a pass keeps.
//!
//! Called by: `compaction::cold`, on a thread that may block. Invariants: rows go in and come out
//! in offset order; offsets, timestamps, keys, values and headers of what is kept do not change;
//! between two rows that are kept, and after the last one of an object, are at most
//! 2 * `HOLE_MAX` + 1 offsets without one. For the last rule a record that would go may stay as a
//! placeholder, as in `rewrite`.
//! Refuses: batches whose sections do not decode.

use std::sync::Arc;

use model::compaction::Pass;
use model::{Batch, Codec, Offset, Rows};

use super::rewrite::{Counts, Dropped, RewriteError, fact};
use crate::cover::SPAN_MAX;

/// Half of what a batch leaves for a hole, so that one row may stand between two of them.
const HOLE_MAX: u64 = SPAN_MAX / 2;

pub(crate) struct Sieve {
    pass: Arc<Pass>,
    /// Records before it were trimmed.
    start: Offset,
    /// The last record that was kept, or where the first object begins.
    anchor: Option<Offset>,
    /// The last record, if it was not kept, and the batch it stood in.
    dropped: Option<(Dropped, Batch)>,
    hole_max: u64,
    counts: Counts,
}

impl Sieve {
    pub(crate) fn new(pass: Arc<Pass>, start: Offset) -> Sieve {
        Sieve {
            pass,
            start,
            anchor: None,
            dropped: None,
            hole_max: HOLE_MAX,
            counts: Counts::default(),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes the next batch; what is kept of it goes to `out`.
    pub(crate) fn push(&mut self, batch: &Batch, out: &mut Vec<Batch>) -> Result<(), RewriteError> {
        let damaged = |error| RewriteError::Batch {
            offset: batch.base_offset(),
            error,
        };
        let rows = batch.rows().map_err(damaged)?;
        let offsets = batch.offsets().map_err(damaged)?;
        let mut chosen: Vec<u32> = Vec::with_capacity(offsets.len());
        for (row, offset) in offsets.iter().copied().enumerate() {
            if self.is_far(offset, batch) {
                out.extend(part(batch, &rows, &offsets, &std::mem::take(&mut chosen))?);
                out.extend(self.placeholder()?);
            }
            let record = rows.record(row);
            let fact = fact(&record, offset);
            if offset >= self.start && self.pass.keeps(&fact) {
                self.counts.tombstones += u64::from(fact.is_tombstone);
                self.counts.records_after += 1;
                (self.anchor, self.dropped) = (Some(offset), None);
                chosen.push(row as u32);
            } else {
                self.dropped = Some((Dropped::new(&record, offset), batch.clone()));
            }
        }
        self.counts.records_before += offsets.len() as u64;
        out.extend(part(batch, &rows, &offsets, &chosen)?);
        Ok(())
    }

    /// The object of the batches so far ends before `next`.
    pub(crate) fn close(&mut self, next: Offset) -> Result<Option<Batch>, RewriteError> {
        match self.anchor.is_some_and(|at| next - at > self.hole_max) {
            true => self.placeholder(),
            false => Ok(None),
        }
    }

    fn is_far(&mut self, offset: Offset, batch: &Batch) -> bool {
        let anchor = *self.anchor.get_or_insert(batch.base_offset());
        offset - anchor > self.hole_max && self.dropped.is_some()
    }

    /// Keeps the last record without its value, if it was not kept.
    pub(crate) fn placeholder(&mut self) -> Result<Option<Batch>, RewriteError> {
        let Some((dropped, batch)) = self.dropped.take() else {
            return Ok(None);
        };
        let (offset, rows) = (dropped.offset, dropped.rows());
        let encoded = Batch::encode(&rows, Codec::None, None);
        let encoded = encoded.map_err(|error| RewriteError::Encode { offset, error })?;
        self.anchor = Some(offset);
        self.counts.records_after += 1;
        Ok(Some(encoded.stamped(
            offset,
            batch.epoch(),
            batch.append_time(),
        )))
    }

    /// The last record, if it was not kept: its offset, and whether it has no value anyway.
    pub(crate) fn last_dropped(&self) -> Option<(Offset, bool)> {
        let (dropped, _) = self.dropped.as_ref()?;
        Some((dropped.offset, dropped.is_tombstone))
    }
}

/// The chosen rows as a batch of their own, the batch itself if they are all.
fn part(
    batch: &Batch,
    rows: &Rows,
    offsets: &[Offset],
    chosen: &[u32],
) -> Result<Option<Batch>, RewriteError> {
    let Some(first) = chosen.first() else {
        return Ok(None);
    };
    if chosen.len() == offsets.len() {
        return Ok(Some(batch.clone()));
    }
    let offset = batch.next_offset();
    let rows = rows.try_take(chosen);
    let rows = rows.map_err(|error| RewriteError::Rows { offset, error })?;
    let base = offsets[*first as usize];
    let delta = |row: &u32| (offsets[*row as usize] - base) as u32;
    let deltas: Vec<u32> = chosen.iter().map(delta).collect();
    let part = Batch::encode_sparse(&rows, &deltas, Codec::None, None);
    let part = part.map_err(|error| RewriteError::Encode { offset, error })?;
    Ok(Some(part.stamped(base, batch.epoch(), batch.append_time())))
}

#[cfg(test)]
mod tests {
    use model::compaction::{KeyHash, LatestOffsets};
    use model::{RowsBuilder, ShardEpoch};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Objects of a few records each (key, has a value, offsets missing before it).
        #[test]
        fn what_is_kept_is_what_the_pass_says_and_holes_stay_small(
            objects in prop::collection::vec(
                prop::collection::vec((0u8..4, any::<bool>(), 0u64..9), 1..8), 1..9),
            hole_max in 9u64..30,
            horizon in 0u64..200,
        ) {
            let (mut at, mut latest, mut all) = (0, LatestOffsets::new(usize::MAX), Vec::new());
            let mut batches = Vec::new();
            for records in &objects {
                let (base, mut rows, mut deltas) = (at, RowsBuilder::new(), Vec::new());
                for (key, has_value, gap) in records {
                    at += gap;
                    deltas.push((at - base) as u32);
                    latest.note(KeyHash::of(&[*key]), at);
                    rows.push(1, Some(&[*key]), has_value.then_some(&b"v"[..]), &[]);
                    all.push((at, *key, *has_value));
                    at += 1;
                }
                let last = (at - base) as u32;
                let batch = Batch::encode_compacted(&rows.finish(), &deltas, last, Codec::None);
                batches.push(batch.unwrap().stamped(base, ShardEpoch(3), 7));
                at += 1;
            }
            let pass = Arc::new(Pass { latest, last: None, horizon });
            let mut sieve = Sieve::new(Arc::clone(&pass), 0);
            sieve.hole_max = hole_max;
            let (mut left, mut previous) = (Vec::new(), 0);
            for batch in &batches {
                let mut out = Vec::new();
                sieve.push(batch, &mut out).unwrap();
                out.extend(sieve.close(batch.next_offset()).unwrap());
                for kept in &out {
                    prop_assert_eq!((kept.epoch(), kept.append_time()), (ShardEpoch(3), 7));
                    let rows = kept.rows().unwrap();
                    for (row, offset) in kept.offsets().unwrap().into_iter().enumerate() {
                        prop_assert!(offset - previous <= 2 * hole_max + 1);
                        previous = offset;
                        let record = rows.record(row);
                        left.push((offset, record.key.unwrap()[0], record.value.is_some()));
                    }
                }
                prop_assert!(batch.next_offset() - previous <= 2 * hole_max + 1);
            }
            let stays = |(offset, key, has_value): &&(Offset, u8, bool)| {
                pass.keeps(&model::compaction::Fact {
                    key: Some(KeyHash::of(&[*key])),
                    offset: *offset,
                    is_tombstone: !has_value,
                })
            };
            let kept: Vec<_> = all.iter().filter(stays).copied().collect();
            let (placeholders, records): (Vec<_>, Vec<_>) =
                left.iter().copied().partition(|record| !kept.contains(record));
            prop_assert_eq!(records, kept);
            for (offset, key, has_value) in placeholders {
                prop_assert!(!has_value);
                prop_assert!(all.iter().any(|record| (record.0, record.1) == (offset, key)));
            }
            let counts = sieve.counts();
            prop_assert_eq!(counts.records_before, all.len() as u64);
            prop_assert_eq!(counts.records_after, left.len() as u64);
        }
    }
}
