//! The records that a pass keeps, gathered into fewer batches over the same range of offsets.
//!
//! Called by: `compaction`, on a thread that may block. Invariants: batches go in and come out in
//! offset order; what comes out stands for all offsets that went in, without a gap; offsets,
//! timestamps, keys, values and headers of what is kept do not change; a batch has at most
//! `SPAN_MAX` offsets before its first record and after its last, and twice as many between two.
//! For the last rule a record that would go may stay as a placeholder: without its value, which a
//! newer record of its key stands for.
//! Refuses: batches whose sections do not decode.

use std::sync::Arc;

use model::compaction::{Fact, KeyHash, Pass};
use model::{Batch, BatchError, EncodeError, Offset, RecordRef, Rows, RowsBuilder, RowsError};

use crate::cover::{self, SPAN_MAX};

#[derive(Debug, thiserror::Error)]
pub(crate) enum RewriteError {
    #[error("the batch at offset {offset}: {error}")]
    Batch { offset: Offset, error: BatchError },
    #[error("what is left before offset {offset}: {error}")]
    Rows { offset: Offset, error: RowsError },
    #[error("what is left before offset {offset}: {error}")]
    Encode { offset: Offset, error: EncodeError },
}

/// What went in and what came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub records_before: u64,
    pub records_after: u64,
    pub tombstones: u64,
}

pub(crate) struct Rewrite {
    pass: Arc<Pass>,
    /// Records before it were trimmed.
    start: Offset,
    /// Where what went in since the last cut begins; none before the first batch.
    base: Option<Offset>,
    parts: Vec<Part>,
    bytes: usize,
    /// The last kept record since the last cut, or `base`.
    anchor: Offset,
    /// The last record since the last cut, if it was not kept.
    dropped: Option<Dropped>,
    span_max: u64,
    /// The last batch that went in: its codec, epoch and end, and the latest append time.
    newest: Option<Batch>,
    append_time: i64,
    counts: Counts,
}

/// Kept records that stood in one batch.
struct Part {
    rows: Rows,
    offsets: Vec<Offset>,
    /// The batch, if all of its records are kept.
    whole: Option<Batch>,
}

/// A record that was not kept, which may be needed as a placeholder.
pub(super) struct Dropped {
    pub offset: Offset,
    pub is_tombstone: bool,
    timestamp: i64,
    key: Option<Vec<u8>>,
}

impl Dropped {
    pub(super) fn new(record: &RecordRef<'_>, offset: Offset) -> Dropped {
        Dropped {
            offset,
            is_tombstone: record.value.is_none(),
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
        }
    }

    /// The record without its value.
    pub(super) fn rows(&self) -> Rows {
        let mut rows = RowsBuilder::new();
        rows.push(self.timestamp, self.key.as_deref(), None, &[]);
        rows.finish()
    }
}

/// What a pass must know of a record.
pub(super) fn fact(record: &RecordRef<'_>, offset: Offset) -> Fact {
    Fact {
        key: record.key.map(KeyHash::of),
        offset,
        is_tombstone: record.value.is_none(),
    }
}

impl Rewrite {
    pub(crate) fn new(pass: Arc<Pass>, start: Offset) -> Rewrite {
        Rewrite {
            pass,
            start,
            base: None,
            parts: Vec::new(),
            bytes: 0,
            anchor: 0,
            dropped: None,
            span_max: SPAN_MAX,
            newest: None,
            append_time: 0,
            counts: Counts::default(),
        }
    }

    /// Bytes of the records kept since the last cut.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes the next batch.
    pub(crate) fn push(&mut self, batch: &Batch) -> Result<(), RewriteError> {
        let damaged = |error| RewriteError::Batch {
            offset: batch.base_offset(),
            error,
        };
        let rows = batch.rows().map_err(damaged)?;
        let offsets = batch.offsets().map_err(damaged)?;
        if self.base.is_none() {
            (self.base, self.anchor) = (Some(batch.base_offset()), batch.base_offset());
        }
        let mut chosen = Vec::with_capacity(offsets.len());
        for (row, offset) in offsets.iter().copied().enumerate() {
            if offset - self.anchor > self.span_max && self.dropped.is_some() {
                self.take(batch, &rows, &offsets, &mut chosen)?;
                self.placeholder();
            }
            let record = rows.record(row);
            let fact = fact(&record, offset);
            if offset >= self.start && self.pass.keeps(&fact) {
                self.counts.tombstones += u64::from(fact.is_tombstone);
                self.anchor = offset;
                self.dropped = None;
                chosen.push(row as u32);
            } else {
                self.dropped = Some(Dropped::new(&record, offset));
            }
        }
        self.take(batch, &rows, &offsets, &mut chosen)?;
        self.counts.records_before += offsets.len() as u64;
        self.append_time = self.append_time.max(batch.append_time());
        self.newest = Some(batch.clone());
        Ok(())
    }

    /// Puts the chosen rows aside.
    fn take(
        &mut self,
        batch: &Batch,
        rows: &Rows,
        offsets: &[Offset],
        chosen: &mut Vec<u32>,
    ) -> Result<(), RewriteError> {
        let chosen = std::mem::take(chosen);
        if chosen.is_empty() {
            return Ok(());
        }
        let wrong = |error| RewriteError::Rows {
            offset: batch.next_offset(),
            error,
        };
        let whole = (chosen.len() == offsets.len()).then(|| batch.clone());
        let rows = rows.try_take(&chosen).map_err(wrong)?;
        let offsets = chosen.iter().map(|row| offsets[*row as usize]).collect();
        self.put(Part {
            rows,
            offsets,
            whole,
        });
        Ok(())
    }

    fn put(&mut self, part: Part) {
        self.bytes += part.rows.bytes();
        self.counts.records_after += part.rows.len() as u64;
        self.parts.push(part);
    }

    /// Keeps the last dropped record without its value, so that the next is not too far away.
    fn placeholder(&mut self) {
        let Some(dropped) = self.dropped.take() else {
            return;
        };
        self.anchor = dropped.offset;
        self.put(Part {
            rows: dropped.rows(),
            offsets: vec![dropped.offset],
            whole: None,
        });
    }

    /// What is kept of all that went in since the last cut, as batches that stand for all of it.
    /// Nothing if nothing is kept: then the next cut stands for it too.
    pub(crate) fn cut(&mut self) -> Result<Vec<Batch>, RewriteError> {
        let (Some(base), Some(newest)) = (self.base, self.newest.clone()) else {
            return Ok(Vec::new());
        };
        if self.parts.is_empty() {
            return Ok(Vec::new());
        }
        let next = newest.next_offset();
        if next - self.anchor > self.span_max {
            self.placeholder();
        }
        let parts = std::mem::take(&mut self.parts);
        let append_time = std::mem::take(&mut self.append_time);
        (self.base, self.anchor, self.bytes) = (Some(next), next, 0);
        self.dropped = None;
        if let [
            Part {
                whole: Some(batch), ..
            },
        ] = &parts[..]
            && (batch.base_offset(), batch.next_offset()) == (base, next)
        {
            return Ok(vec![batch.clone()]);
        }
        let (rows, offsets): (Vec<Rows>, Vec<Vec<Offset>>) = parts
            .into_iter()
            .map(|part| (part.rows, part.offsets))
            .unzip();
        let rows = Rows::concat(&rows).map_err(|error| RewriteError::Rows {
            offset: next,
            error,
        })?;
        let mut out = Vec::new();
        let encoded = cover::encode(
            &rows,
            &offsets.concat(),
            base..next,
            newest.codec(),
            &mut out,
        );
        encoded.map_err(|error| RewriteError::Encode {
            offset: next,
            error,
        })?;
        let stamp =
            |(base, batch): (Offset, Batch)| batch.stamped(base, newest.epoch(), append_time);
        Ok(out.into_iter().map(stamp).collect())
    }
}

#[cfg(test)]
mod tests {
    use model::compaction::LatestOffsets;
    use model::{Codec, ShardEpoch};
    use proptest::prelude::*;

    use super::*;

    /// Records (key, has a value) with a gap before each, as batches of `size` records.
    fn batches(records: &[(u8, bool, u64)], size: usize) -> Vec<Batch> {
        let (mut base, mut out) = (0, Vec::new());
        for chunk in records.chunks(size) {
            let mut rows = RowsBuilder::new();
            let (mut at, mut deltas) = (0u64, Vec::new());
            for (key, has_value, gap) in chunk {
                at += gap;
                deltas.push(at as u32);
                let value = has_value.then_some(&b"value"[..]);
                rows.push((base + at) as i64, Some(&[*key]), value, &[("h", None)]);
                at += 1;
            }
            let rows = rows.finish();
            let batch = Batch::encode_compacted(&rows, &deltas, at as u32 + 1, Codec::None);
            out.push(batch.unwrap().stamped(base, ShardEpoch(2), base as i64));
            base += at + 2;
        }
        out
    }

    fn pass(batches: &[Batch], horizon: Offset) -> Pass {
        let mut latest = LatestOffsets::new(usize::MAX);
        let mut last = 0;
        for batch in batches {
            let rows = batch.rows().unwrap();
            for (row, offset) in batch.offsets().unwrap().into_iter().enumerate() {
                latest.note(KeyHash::of(rows.keys.value(row)), offset);
                last = offset;
            }
        }
        Pass {
            latest,
            last: Some(last),
            horizon,
        }
    }

    type Line = (Offset, Vec<u8>, Option<Vec<u8>>);

    fn lines(batches: &[Batch]) -> Vec<Line> {
        let of_batch = |batch: &Batch| {
            let (rows, offsets) = (batch.rows().unwrap(), batch.offsets().unwrap());
            let line = |(row, offset): (usize, Offset)| {
                let record = rows.record(row);
                let key = record.key.unwrap_or_default().to_vec();
                (offset, key, record.value.map(<[u8]>::to_vec))
            };
            offsets
                .into_iter()
                .enumerate()
                .map(line)
                .collect::<Vec<_>>()
        };
        batches.iter().flat_map(of_batch).collect()
    }

    proptest! {
        #[test]
        fn what_is_kept_stands_for_all_that_went_in(
            records in prop::collection::vec((0u8..5, any::<bool>(), 0u64..12), 1..60),
            size in 1usize..9,
            cuts in prop::collection::vec(any::<bool>(), 60),
            span_max in 14u64..40,
            horizon in 0u64..300,
        ) {
            let before = batches(&records, size);
            let judge = pass(&before, horizon);
            let mut rewrite = Rewrite::new(Arc::new(pass(&before, horizon)), 0);
            rewrite.span_max = span_max;
            let mut after = Vec::new();
            for (batch, cut) in before.iter().zip(cuts) {
                rewrite.push(batch).unwrap();
                if cut {
                    after.extend(rewrite.cut().unwrap());
                }
            }
            after.extend(rewrite.cut().unwrap());
            let mut at = 0;
            for batch in &after {
                batch.check().unwrap();
                prop_assert_eq!(batch.base_offset(), at, "no gap");
                at = batch.next_offset();
            }
            prop_assert_eq!(at, before.last().unwrap().next_offset());
            let (all, left) = (lines(&before), lines(&after));
            let fact = |line: &Line| Fact {
                key: Some(KeyHash::of(&line.1)),
                offset: line.0,
                is_tombstone: line.2.is_none(),
            };
            let stays = |line: &&Line| judge.keeps(&fact(line));
            let kept: Vec<&Line> = all.iter().filter(stays).collect();
            let (placeholders, records): (Vec<&Line>, Vec<&Line>) =
                left.iter().partition(|line| !kept.contains(line));
            prop_assert_eq!(records, kept);
            for (offset, key, value) in placeholders {
                prop_assert_eq!(value, &None);
                prop_assert!(all.iter().any(|line| (&line.0, &line.1) == (offset, key)));
            }
            for batch in &after {
                let offsets = batch.offsets().unwrap();
                let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
                prop_assert!(first - batch.base_offset() <= span_max);
                prop_assert!(batch.next_offset() - last <= span_max + 1);
                prop_assert!(offsets.windows(2).all(|two| two[1] - two[0] <= 2 * span_max + 1));
            }
            let counts = rewrite.counts();
            prop_assert_eq!(counts.records_before, all.len() as u64);
            prop_assert_eq!(counts.records_after, left.len() as u64);
        }
    }

    #[test]
    fn a_batch_that_stays_whole_stays_as_it_is() {
        let before = batches(&[(1, true, 0), (2, true, 0), (3, true, 0)], 3);
        let mut rewrite = Rewrite::new(Arc::new(pass(&before, 0)), 0);
        rewrite.push(&before[0]).unwrap();
        assert_eq!(rewrite.cut().unwrap(), before);
        assert_eq!(rewrite.cut().unwrap(), vec![]);
    }
}
