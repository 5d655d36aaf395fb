//! Rows with holes between them, as batches that stand for a whole range of offsets.
//!
//! Called by: `tier::reader` (rows of an object), `log::compaction` (what is left of batches).
//! Invariants: the first batch begins where the range begins, the last one ends where it ends,
//! and each begins where the one before ended, so that nothing looks missing between two; rows
//! and offsets do not change.
//! Refuses: a range that no batch can stand for, which is a hole of 2^32 offsets.

use std::ops::Range;

use model::{Batch, Codec, EncodeError, Offset, Rows};

/// Offsets without a record at either end of a batch, whose deltas are 32 bits wide.
pub(crate) const SPAN_MAX: u64 = 1 << 30;
/// Offsets of one batch, so that what follows its last record fits too.
const BATCH_SPAN_MAX: u64 = u32::MAX as u64 - SPAN_MAX;

/// Appends one batch and its base, or several where the rows do not fit one. The rows are at
/// least one; their offsets rise and lie in the range.
pub(crate) fn encode(
    rows: &Rows,
    offsets: &[Offset],
    range: Range<Offset>,
    codec: Codec,
    out: &mut Vec<(Offset, Batch)>,
) -> Result<(), EncodeError> {
    let Range { start, end } = range;
    let halves = |out: &mut Vec<(Offset, Batch)>| {
        let half = rows.len() / 2;
        let (left, right) = offsets.split_at(half);
        let middle = left[half - 1] + 1;
        let middle = middle + (right[0] - middle) / 2;
        encode(&rows.slice(0, half), left, start..middle, codec, out)?;
        let rows = rows.slice(half, rows.len() - half);
        encode(&rows, right, middle..end, codec, out)
    };
    let is_wide = offsets
        .last()
        .is_some_and(|last| last - start > BATCH_SPAN_MAX);
    if is_wide && rows.len() > 1 {
        return halves(out);
    }
    let delta = |offset: &Offset| (offset - start) as u32;
    let deltas: Vec<u32> = offsets.iter().map(delta).collect();
    match Batch::encode_compacted(rows, &deltas, delta(&(end - 1)), codec) {
        Ok(batch) => out.push((start, batch)),
        Err(_) if rows.len() > 1 => return halves(out),
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::{RowsBuilder, ShardEpoch};

    use super::*;

    #[test]
    fn what_is_too_far_apart_becomes_several_batches() {
        let mut rows = RowsBuilder::new();
        (0..3).for_each(|n| rows.push(n, Some(b"key"), Some(b"value"), &[]));
        let rows = rows.finish();
        let offsets = [SPAN_MAX, SPAN_MAX * 3 - 1, SPAN_MAX * 4];
        let mut out = Vec::new();
        encode(&rows, &offsets, 0..SPAN_MAX * 5, Codec::None, &mut out).unwrap();
        let stamped = |(base, batch): &(Offset, Batch)| {
            let batch = batch.clone().stamped(*base, ShardEpoch(0), 0);
            let range = batch.base_offset()..batch.next_offset();
            (range, batch.offsets().unwrap())
        };
        let got: Vec<_> = out.iter().map(stamped).collect();
        let middle = SPAN_MAX * 2;
        assert_eq!(got[0], (0..middle, vec![SPAN_MAX]));
        assert_eq!(got[1], (middle..SPAN_MAX * 5, offsets[1..].to_vec()));
    }
}
