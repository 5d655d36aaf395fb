//! What a segment's bytes say beyond the place where they make sense: is an entry whole, what of
//! later ones is, and which records are lost.
//!
//! Called by: `recovery`. Invariants: decides, and touches no file; an entry counts only with
//! its own checksum, segment and position, whatever lies around it.
//! Refuses: nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use model::{Batch, Offset, PartitionId};

use super::entry::{self, Control, ENTRY_HEAD_LEN, EntryHead, Kind};
use super::segment::{SEGMENT_HEAD_LEN, Segment, SegmentHead};

/// The entry at `at`, if it is whole and belongs there.
pub(super) fn valid_at(segment: &SegmentHead, bytes: &[u8], at: usize) -> Option<(EntryHead, u32)> {
    let head_bytes = bytes.get(at..at + ENTRY_HEAD_LEN)?.try_into().ok()?;
    let (head, crc) = EntryHead::decode(head_bytes)?;
    if head.segment != segment.id || head.position != segment.base + at as u64 {
        return None;
    }
    let entry = bytes.get(at..at + head.length as usize)?;
    entry::checksum_holds(segment.salt, entry, crc).then_some((head, crc))
}

/// Valid entries anywhere after `from`, each taken on its own.
pub(super) fn later<'a>(
    segment: &'a SegmentHead,
    bytes: &'a [u8],
    from: usize,
) -> impl Iterator<Item = (usize, EntryHead)> + 'a {
    let mut at = from;
    std::iter::from_fn(move || {
        while at + ENTRY_HEAD_LEN <= bytes.len() {
            at += skip_zeros(&bytes[at..]);
            let here = at;
            if let Some((head, _)) = valid_at(segment, bytes, here) {
                at += head.length as usize;
                return Some((here, head));
            }
            at += 8;
        }
        None
    })
}

/// Bytes of zeros in front, in large steps: an unused rest is most of a fresh segment.
fn skip_zeros(bytes: &[u8]) -> usize {
    static ZEROS: [u8; 4096] = [0; 4096];
    bytes
        .chunks_exact(ZEROS.len())
        .take_while(|chunk| **chunk == ZEROS)
        .count()
        * ZEROS.len()
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes[skip_zeros(bytes)..].iter().all(|byte| *byte == 0)
}

/// Where each partition goes on after the damage, as far as later entries tell.
#[derive(Default)]
pub(super) struct After(BTreeMap<PartitionId, Offset>);

impl After {
    /// Takes what a segment's valid entries behind `from` say. They stand in the order in which
    /// they were written, so the first word about a partition counts.
    pub(super) fn take(&mut self, segment: &SegmentHead, bytes: &Bytes, from: usize) {
        for (at, head) in later(segment, bytes, from) {
            let entry = bytes.slice(at..at + head.length as usize);
            match head.kind {
                Kind::Batches => {
                    for part in entry::parts(&entry, head.count).unwrap_or_default() {
                        if let Ok(batch) = Batch::decode(part.batch) {
                            self.first(part.partition, batch.base_offset());
                        }
                    }
                }
                Kind::Control => {
                    if let Ok(Control::Checkpoint { partitions, .. }) =
                        entry::control(&entry, head.count)
                    {
                        partitions
                            .into_iter()
                            .for_each(|(partition, _, end)| self.first(partition, end));
                    }
                }
                Kind::Mark | Kind::Moved => {}
            }
        }
    }

    /// The same of whole segments; what cannot be read says nothing.
    pub(super) fn take_all<'a>(
        &mut self,
        segments: impl Iterator<Item = &'a Arc<Segment>>,
        read: impl Fn(&Segment) -> Option<Bytes>,
    ) {
        for segment in segments {
            if let Some(bytes) = read(segment) {
                self.take(&segment.head, &bytes, SEGMENT_HEAD_LEN);
            }
        }
    }

    fn first(&mut self, partition: PartitionId, offset: Offset) {
        self.0.entry(partition).or_insert(offset);
    }

    /// The offsets that are missing, given where each partition ended before the damage; empty
    /// if nothing tells.
    pub(super) fn lost(self, end_of: impl Fn(PartitionId) -> Offset) -> String {
        let gap = |(partition, first): (PartitionId, Offset)| {
            let end = end_of(partition);
            (first > end).then(|| format!("partition {partition} offsets {end} to {}", first - 1))
        };
        let gaps: Vec<String> = self.0.into_iter().filter_map(gap).collect();
        if gaps.is_empty() {
            return String::new();
        }
        format!("; lost: {}", gaps.join(", "))
    }
}
