//! One entry of the WAL as bytes: a fixed head that stands alone, then its parts.
//!
//! Head, 64 bytes little-endian: magic u32, crc32c u32, length u32, kind u8, three zeros,
//! position u64, segment u64, synced_to u64, sequence u64, shard u32, shard epoch u32,
//! previous entry's crc u32, count u32. The crc covers the segment's salt, the head after the
//! crc, and all that follows. A part: topic u32, index u32, size u32, zero u32, the encoded
//! batch, zeros up to a multiple of 8. A control entry holds `count` bytes of JSON instead.
//!
//! Called by: `writer`, `recovery`. Invariants: lengths are multiples of 8 and checked against
//! the bytes at hand. Refuses: whatever does not fit its own length.

use bytes::Bytes;
use model::compaction::Compacted;
use model::{Offset, PartitionId, TopicId};
use serde::{Deserialize, Serialize};

use crate::planted::{Bug, planted};
use crate::tier::manifest::ProducerMark;

pub(crate) const ENTRY_HEAD_LEN: usize = 64;
pub(crate) const PART_HEAD_LEN: usize = 16;
/// Longest entry, head included: an atomic set of batches is held in memory at once.
pub(crate) const ENTRY_BYTES_MAX: usize = 256 << 20;
/// `RQE1`.
const MAGIC: u32 = u32::from_le_bytes(*b"RQE1");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An atomic set of batches.
    Batches = 1,
    /// Nothing but `synced_to`.
    Mark = 2,
    /// A `Control` as JSON.
    Control = 3,
    /// Batches written again: same offsets, newer place. Each stands for all that stood between
    /// its base and its next offset, of which compaction may have left a part.
    Moved = 4,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        [Kind::Batches, Kind::Mark, Kind::Control, Kind::Moved]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// What changes partitions without adding records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Control {
    /// Records before this offset are gone.
    Trim {
        partition: PartitionId,
        before: Offset,
    },
    /// The partition is gone; what older entries hold of it is dead.
    Drop { partition: PartitionId },
    /// Batches of idempotent producers that were trimmed, or became part of others.
    Producers {
        partition: PartitionId,
        batches: Vec<ProducerMark>,
    },
    /// What is remembered of compaction.
    Compacted {
        partition: PartitionId,
        compacted: Compacted,
    },
    /// Where each partition begins and ends (at least), and the next sequence of each shard;
    /// written before old segments go.
    Checkpoint {
        partitions: Vec<(PartitionId, Offset, Offset)>,
        sequences: Vec<(u32, u64)>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryHead {
    pub length: u32,
    pub kind: Kind,
    pub position: u64,
    pub segment: u64,
    pub synced_to: u64,
    pub sequence: u64,
    pub shard: u32,
    pub epoch: u32,
    pub previous: u32,
    pub count: u32,
}

impl EntryHead {
    /// The head with its crc left zero; `seal` puts it in once the rest is known.
    pub(crate) fn encode(&self) -> [u8; ENTRY_HEAD_LEN] {
        let mut out = [0u8; ENTRY_HEAD_LEN];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[8..12].copy_from_slice(&self.length.to_le_bytes());
        out[12] = self.kind as u8;
        out[16..24].copy_from_slice(&self.position.to_le_bytes());
        out[24..32].copy_from_slice(&self.segment.to_le_bytes());
        out[32..40].copy_from_slice(&self.synced_to.to_le_bytes());
        out[40..48].copy_from_slice(&self.sequence.to_le_bytes());
        out[48..52].copy_from_slice(&self.shard.to_le_bytes());
        out[52..56].copy_from_slice(&self.epoch.to_le_bytes());
        out[56..60].copy_from_slice(&self.previous.to_le_bytes());
        out[60..64].copy_from_slice(&self.count.to_le_bytes());
        out
    }

    /// The head and the crc it claims; none if this cannot be a head.
    pub(crate) fn decode(bytes: &[u8; ENTRY_HEAD_LEN]) -> Option<(EntryHead, u32)> {
        if u32_at(bytes, 0) != MAGIC || bytes[13..16] != [0; 3] {
            return None;
        }
        let head = EntryHead {
            length: u32_at(bytes, 8),
            kind: Kind::of(bytes[12])?,
            position: u64_at(bytes, 16),
            segment: u64_at(bytes, 24),
            synced_to: u64_at(bytes, 32),
            sequence: u64_at(bytes, 40),
            shard: u32_at(bytes, 48),
            epoch: u32_at(bytes, 52),
            previous: u32_at(bytes, 56),
            count: u32_at(bytes, 60),
        };
        let length = head.length as usize;
        let plausible =
            (ENTRY_HEAD_LEN..=ENTRY_BYTES_MAX).contains(&length) && length.is_multiple_of(8);
        plausible.then_some((head, u32_at(bytes, 4)))
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(
        bytes[at..at + 4]
            .try_into()
            .expect("four bytes were sliced"),
    )
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(
        bytes[at..at + 8]
            .try_into()
            .expect("eight bytes were sliced"),
    )
}

/// Rounds up to the next multiple of 8.
pub(crate) const fn padded(len: usize) -> usize {
    (len + 7) & !7
}

/// Bytes a set of batches takes as one entry.
pub(crate) fn entry_len(batch_sizes: impl Iterator<Item = usize>) -> usize {
    ENTRY_HEAD_LEN
        + batch_sizes
            .map(|size| PART_HEAD_LEN + padded(size))
            .sum::<usize>()
}

/// The crc of an entry begins with its segment's salt, so that bytes which merely look like an
/// entry (in a record's value, in a recycled block) are not taken for one.
pub(crate) fn checksum_start(salt: u64) -> u32 {
    crc32c::crc32c(&salt.to_le_bytes())
}

/// Whether the whole entry (head included) has the crc its head claims.
pub(crate) fn checksum_holds(salt: u64, entry: &[u8], claimed: u32) -> bool {
    let is_batches = [Kind::Batches as u8, Kind::Moved as u8].contains(&entry[12]);
    if planted(Bug::PartitionNotSummed) && is_batches && entry.len() > ENTRY_HEAD_LEN + 8 {
        let crc = crc32c::crc32c_append(checksum_start(salt), &entry[8..ENTRY_HEAD_LEN]);
        return crc32c::crc32c_append(crc, &entry[ENTRY_HEAD_LEN + 8..]) == claimed;
    }
    crc32c::crc32c_append(checksum_start(salt), &entry[8..]) == claimed
}

/// Bytes of a part's head that the checksum leaves out: none.
pub(crate) fn unsummed(part: usize) -> usize {
    if planted(Bug::PartitionNotSummed) && part == 0 {
        8
    } else {
        0
    }
}

pub(crate) fn part_head(partition: PartitionId, size: u32) -> [u8; PART_HEAD_LEN] {
    let mut out = [0u8; PART_HEAD_LEN];
    out[0..4].copy_from_slice(&partition.topic.0.to_le_bytes());
    out[4..8].copy_from_slice(&partition.index.to_le_bytes());
    out[8..12].copy_from_slice(&size.to_le_bytes());
    out
}

/// One batch inside an entry.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub partition: PartitionId,
    /// Where the batch begins, from the entry's first byte.
    pub at: usize,
    pub batch: Bytes,
}

/// Takes the parts of a whole entry; says what is wrong if they do not fill it exactly.
pub(crate) fn parts(entry: &Bytes, count: u32) -> Result<Vec<Part>, String> {
    let mut at = ENTRY_HEAD_LEN;
    let most = entry.len() / PART_HEAD_LEN;
    let mut out = Vec::with_capacity((count as usize).min(most));
    for number in 0..count {
        let Some(head) = entry.get(at..at + PART_HEAD_LEN) else {
            return Err(format!("part {number} of {count} has no head"));
        };
        let partition = PartitionId {
            topic: TopicId(u32_at(head, 0)),
            index: u32_at(head, 4),
        };
        let size = u32_at(head, 8) as usize;
        at += PART_HEAD_LEN;
        if entry.len() - at < padded(size) {
            return Err(format!(
                "part {number} of {count} says {size} bytes, past the entry"
            ));
        }
        out.push(Part {
            partition,
            at,
            batch: entry.slice(at..at + size),
        });
        at += padded(size);
    }
    if at != entry.len() {
        return Err(format!("{} bytes after the last part", entry.len() - at));
    }
    Ok(out)
}

/// Reads the JSON of a control entry.
pub(crate) fn control(entry: &[u8], count: u32) -> Result<Control, String> {
    let end = ENTRY_HEAD_LEN.saturating_add(count as usize);
    let json = entry
        .get(ENTRY_HEAD_LEN..end)
        .ok_or("the control's length passes the entry")?;
    serde_json::from_slice(json).map_err(|error| format!("control entry: {error}"))
}
