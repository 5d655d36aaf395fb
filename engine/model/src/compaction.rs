//! What key compaction keeps of a partition, and when it is due: decisions without effects.
//!
//! Called by storage, which reads and writes the records. A pass cleans the records below an
//! end: it notes the newest offset of each key among those that came since the pass before, then
//! looks at all records from the partition's start and keeps what [`Pass::keeps`] says.
//! Invariants: the newest record of a key stays, unless it is a tombstone (a record without a
//! value) whose time is over; a tombstone goes only when older values of its key have been gone
//! for the retention time, so who reads from the start and is not slower than that sees no value
//! come back; the last record of a pass stays where what it leaves must not be nothing; a record
//! without a key stays. Memory is bounded by the bytes given to [`LatestOffsets`].

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ids::Offset;
use crate::limits::COMPACTION_PASSES_REMEMBERED;

/// What a key takes in [`LatestOffsets`]: 25 bytes in a table that is at least half full.
const KEY_BYTES: usize = 50;

/// Stands for a key. Half of a SHA-256: two keys that share one cannot be found, not even by
/// those who choose the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(u64, u64);

impl KeyHash {
    /// Of a key as the producer wrote it.
    pub fn of(key: &[u8]) -> KeyHash {
        let digest = Sha256::digest(key);
        let half = |at: usize| {
            let bytes = digest[at..at + 8].iter();
            bytes.fold(0u64, |half, byte| half << 8 | u64::from(*byte))
        };
        KeyHash(half(0), half(8))
    }
}

/// The newest offset of each key that was noted.
#[derive(Debug)]
pub struct LatestOffsets {
    offsets: HashMap<KeyHash, Offset>,
    keys_max: usize,
}

impl LatestOffsets {
    /// Holds as many keys as fit into `bytes_max`, at least one.
    pub fn new(bytes_max: usize) -> LatestOffsets {
        LatestOffsets {
            offsets: HashMap::new(),
            keys_max: (bytes_max / KEY_BYTES).max(1),
        }
    }

    /// Whether no further batch is to be noted: the pass ends before it.
    pub fn is_full(&self) -> bool {
        self.offsets.len() >= self.keys_max
    }

    /// Notes a record. Records come in the order of their offsets.
    pub fn note(&mut self, key: KeyHash, offset: Offset) {
        self.offsets.insert(key, offset);
    }
}

/// What a pass must know of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact {
    pub key: Option<KeyHash>,
    pub offset: Offset,
    pub is_tombstone: bool,
}

/// One pass over the records below an end.
#[derive(Debug)]
pub struct Pass {
    /// Of the records that came since the pass before, up to the end of this one.
    pub latest: LatestOffsets,
    /// The last record below the end, where what is left must not be nothing.
    pub last: Option<Offset>,
    /// Tombstones below this offset go: [`Compacted::horizon_at`].
    pub horizon: Offset,
}

impl Pass {
    /// Whether a record stays.
    pub fn keeps(&self, fact: &Fact) -> bool {
        let Some(key) = &fact.key else { return true };
        let newest = self.latest.offsets.get(key);
        let is_newest = newest.is_none_or(|newest| *newest <= fact.offset);
        let is_over = fact.is_tombstone && fact.offset < self.horizon;
        self.last == Some(fact.offset) || (is_newest && !is_over)
    }
}

/// A pass that was completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleaned {
    /// Below it no key had two records,
    pub end: Offset,
    /// from this time on, microseconds since the epoch, UTC.
    pub at_us: i64,
}

/// What a partition remembers of the passes over it. Losing it costs work and time, not data.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Compacted {
    /// Oldest first; their ends grow. The ones that later passes made useless are left out.
    pub passes: Vec<Cleaned>,
    /// Tombstones that the last pass left below its end.
    pub tombstones: u64,
    /// Below it the last pass let tombstones go.
    pub horizon: Offset,
}

impl Compacted {
    /// Where the last pass ended: what lies before is clean, what follows is dirty.
    pub fn end(&self) -> Offset {
        self.passes.last().map_or(0, |pass| pass.end)
    }

    /// Below it every tombstone has stood for `retention` without an older value before it.
    pub fn horizon_at(&self, now_us: i64, retention: Duration) -> Offset {
        let retention_us = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
        let is_over = |pass: &&Cleaned| pass.at_us.saturating_add(retention_us) <= now_us;
        let over = self.passes.iter().rev().find(is_over);
        over.map_or(0, |pass| pass.end)
    }

    /// Of two memories of the same partition the one that knows more; both are true.
    pub fn or(self, other: Compacted) -> Compacted {
        match (self.end(), self.horizon) < (other.end(), other.horizon) {
            true => other,
            false => self,
        }
    }

    /// Whether a pass over what is clean already would let tombstones go.
    pub fn has_tombstones_to_drop(&self, now_us: i64, retention: Duration) -> bool {
        self.tombstones > 0 && self.horizon_at(now_us, retention) > self.horizon
    }

    /// A pass that ended at `end` is through since `at_us`; it left `tombstones`, and let those
    /// below `horizon` go.
    pub fn add(&mut self, end: Offset, at_us: i64, tombstones: u64, horizon: Offset) {
        let newest = self.passes.last().copied();
        self.tombstones = tombstones;
        self.horizon = self.horizon.max(horizon);
        if newest.is_some_and(|newest| end <= newest.end) {
            return;
        }
        // Of the passes whose tombstones have gone only the last one says anything.
        let done = self.passes.partition_point(|pass| pass.end <= horizon);
        self.passes.drain(..done.saturating_sub(1));
        if self.passes.len() == COMPACTION_PASSES_REMEMBERED {
            self.passes.remove(self.least_missed());
        }
        let at_us = newest.map_or(at_us, |newest| at_us.max(newest.at_us));
        self.passes.push(Cleaned { end, at_us });
    }

    /// The pass that the one after it stands for with the least delay.
    fn least_missed(&self) -> usize {
        let pairs = self.passes.windows(2).enumerate();
        let gap = |(_, pair): &(usize, &[Cleaned])| pair[1].at_us.saturating_sub(pair[0].at_us);
        pairs.min_by_key(gap).map_or(0, |(index, _)| index)
    }
}

/// When the dirty part of a partition is worth a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worth {
    /// Dirty bytes of all bytes, in percent, that a pass needs.
    pub dirty_percent_min: u32,
    /// Fewer dirty bytes than these wait for `dirty_age_max`,
    pub dirty_bytes_min: u64,
    /// which begins with the oldest of them.
    pub dirty_age_max: Duration,
}

impl Worth {
    /// Whether `dirty` bytes beside `clean` ones, the oldest of that age, are worth a pass.
    pub fn is_due(&self, dirty: u64, clean: u64, oldest: Duration) -> bool {
        let is_enough = dirty >= self.dirty_bytes_min || oldest >= self.dirty_age_max;
        let share = u128::from(dirty) * 100;
        let least = (u128::from(dirty) + u128::from(clean)) * u128::from(self.dirty_percent_min);
        dirty > 0 && is_enough && share >= least
    }
}

#[cfg(test)]
mod tests;
