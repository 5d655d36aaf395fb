//! The quick look at a plain batch: what most producers send is right, and need not be decoded to
//! know it.
//!
//! Called by `Batch::check`. A batch is plain if its offsets are dense and nothing in it is
//! compressed, null, or more than timestamps, keys and values. Invariants: reads the body where
//! it lies and takes no memory; says yes only where the whole check would.
//! Refuses nothing: where it says no, the whole check finds out, and says what is wrong.

use super::format::{self, Head, Section};
use crate::limits::RECORD_BYTES_MAX;

/// Whether the batch is plain, and right.
pub(super) fn is_right(head: &Head, body: &[u8]) -> bool {
    let is_dense = head.last_offset_delta == head.records - 1;
    is_dense && are_right(head, body).unwrap_or(false)
}

/// `None` where there is more than is looked at here.
fn are_right(head: &Head, body: &[u8]) -> Option<bool> {
    let cells = head.records as usize;
    let mut has_times = false;
    // The section of bytes that offsets before it promise, and its length.
    let mut due: Option<(u16, usize)> = None;
    let mut bytes = 0;
    for section in format::sections(head, body) {
        let stored = stored(&section, body)?;
        if let Some(due) = due.take() {
            bytes += stored.len();
            if due != (section.id, stored.len()) {
                return None;
            }
            continue;
        }
        match section.id {
            format::TIMESTAMPS => has_times = are_times(head, stored, cells),
            format::KEY_OFFSETS | format::VALUE_OFFSETS => {
                due = Some((section.id + 1, last_offset(stored, cells)?));
            }
            _ => return None,
        }
    }
    Some(has_times && due.is_none() && bytes <= RECORD_BYTES_MAX)
}

fn stored<'a>(section: &Section, body: &'a [u8]) -> Option<&'a [u8]> {
    if section.is_compressed() {
        return None;
    }
    let start = section.offset as usize;
    body.get(start..start + section.length as usize)
}

/// Whether these are the timestamps that the head tells of.
fn are_times(head: &Head, stored: &[u8], cells: usize) -> bool {
    let (times, rest) = stored.as_chunks::<8>();
    let times = times.iter().map(|time| i64::from_le_bytes(*time));
    rest.is_empty()
        && times.len() == cells
        && times.clone().next() == Some(head.first_timestamp)
        && times.max() == Some(head.max_timestamp)
}

/// The last of `cells + 1` offsets, if they begin at 0 and never fall.
fn last_offset(stored: &[u8], cells: usize) -> Option<usize> {
    let (offsets, rest) = stored.as_chunks::<4>();
    if !rest.is_empty() || offsets.len() != cells + 1 {
        return None;
    }
    let at = |offset: &[u8; 4]| i32::from_le_bytes(*offset);
    let never_falls = offsets
        .windows(2)
        .fold(true, |ok, pair| ok & (at(&pair[0]) <= at(&pair[1])));
    let (first, last) = (at(&offsets[0]), at(&offsets[cells]));
    (first == 0 && never_falls).then_some(last as usize)
}
