//! How long a group of entries may grow before it is synced.
//!
//! Called by: `commit`, which stages the group; `queue`, which waits for more. Invariants: a group
//! grows only while works keep coming that can be hoped for, and never for longer than half of a sync.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::queue::Work;

/// A group of this size is worth a sync of its own.
const GATHER_BYTES_MAX: usize = 1 << 20;
/// Syncs quicker than this are not worth waiting for company.
const GATHER_SYNC_MIN: Duration = Duration::from_micros(40);
/// A group grows for half of a sync at most, and only while something comes within an eighth.
pub(crate) const GATHER_PARTS: u32 = 2;
const PAUSE_PARTS: u32 = 8;

/// How long the writer lets a group grow: producers that were just answered come back, and one
/// sync for all of them is cheaper than two. Bounded by a part of what a sync takes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Gather {
    /// Works that can be hoped for: those just answered and those that waited meanwhile.
    pub hoped: usize,
    /// What the last sync took.
    pub sync: Duration,
}

/// A group that may still grow.
pub(crate) struct Growing {
    gather: Gather,
    begun: Instant,
    works: usize,
    bytes: usize,
}

impl Growing {
    pub(crate) fn new(gather: Gather, first: &VecDeque<Work>) -> Growing {
        let mut growing = Growing {
            gather,
            begun: Instant::now(),
            works: 0,
            bytes: 0,
        };
        growing.add(first);
        growing
    }

    pub(crate) fn add(&mut self, more: &VecDeque<Work>) {
        self.works += more.len();
        self.bytes += more.iter().map(Work::bytes).sum::<usize>();
    }

    /// How long the next of it may take to come; `None` once it has grown enough.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let Gather { hoped, sync } = self.gather;
        let is_alone = hoped <= 1 || sync < GATHER_SYNC_MIN;
        if is_alone || self.works >= hoped || self.bytes >= GATHER_BYTES_MAX {
            return None;
        }
        let rest = (sync / GATHER_PARTS).saturating_sub(self.begun.elapsed());
        (!rest.is_zero()).then(|| rest.min(sync / PAUSE_PARTS))
    }
}
