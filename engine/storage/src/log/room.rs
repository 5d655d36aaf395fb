//! Who may still write when the WAL has little room left, and when that is told.
//!
//! Called by: `commit`, before each entry. Pure: clock and sizes are given.
//! Invariants: batches leave room in their segment for what gives space back (a trim, a
//! checkpoint), so a disk that the WAL alone has filled is not full for ever; a checkpoint, which
//! must be there before segments go, may use the last of it; that the disk is full is told at
//! once, then less and less often.
//! Refuses: batches that would take the WAL beyond its limit.

use std::time::{Duration, Instant};

use super::queue::Work;

/// Kept for trims and drops.
const CONTROL_BYTES: usize = 64 << 10;
/// Kept for a checkpoint: so much, and so much for each partition.
const CHECKPOINT_BYTES: usize = 4 << 10;
const CHECKPOINT_BYTES_EACH: usize = 96;
/// But of a segment at most one part in so many for each of the two.
const RESERVE_PART: u64 = 16;
/// A full disk is told again after this, then after twice as long, up to the second.
const TOLD_AGAIN: Duration = Duration::from_secs(10);
const TOLD_AGAIN_MAX: Duration = Duration::from_secs(600);

pub(crate) struct Room {
    segment_bytes: u64,
    /// Most bytes of all segments; 0 is without limit.
    limit: u64,
    full: Option<Full>,
}

struct Full {
    since: Instant,
    tell_at: Instant,
    pause: Duration,
}

impl Room {
    pub(crate) fn new(segment_bytes: u64, limit: u64) -> Room {
        Room {
            segment_bytes,
            limit,
            full: None,
        }
    }

    /// Bytes that this work leaves free in its segment for work that is needed more.
    pub(crate) fn reserve(&self, work: &Work, partitions: usize) -> usize {
        let part = (self.segment_bytes / RESERVE_PART) as usize;
        let checkpoint = CHECKPOINT_BYTES + partitions * CHECKPOINT_BYTES_EACH;
        match work {
            Work::Checkpoint { .. } => 0,
            Work::Control { .. } => checkpoint.min(part),
            Work::Batches(_) | Work::Sync { .. } => checkpoint.min(part) + CONTROL_BYTES.min(part),
        }
    }

    /// Whether the WAL, which has `held` bytes to keep, may have another segment for this work.
    pub(crate) fn allows(&self, work: &Work, held: u64, length: usize) -> bool {
        let is_limited = matches!(work, Work::Batches(_) | Work::Sync { .. });
        let segment = self.segment_bytes.max(length as u64);
        self.limit == 0 || !is_limited || held.saturating_add(segment) <= self.limit
    }

    /// There was no room; answers whether it is time to say so.
    pub(crate) fn is_full(&mut self, now: Instant) -> bool {
        let full = self.full.get_or_insert(Full {
            since: now,
            tell_at: now,
            pause: TOLD_AGAIN,
        });
        if now < full.tell_at {
            return false;
        }
        full.tell_at = now + full.pause;
        full.pause = (full.pause * 2).min(TOLD_AGAIN_MAX);
        true
    }

    /// There was room; answers for how long there was none.
    pub(crate) fn has_room(&mut self, now: Instant) -> Option<Duration> {
        let full = self.full.take()?;
        Some(now.saturating_duration_since(full.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::queue::Pending;

    #[test]
    fn a_full_disk_is_told_less_and_less_often() {
        let mut room = Room::new(1 << 20, 0);
        let began = Instant::now();
        let told = (0..3600).filter(|s| room.is_full(began + Duration::from_secs(*s)));
        let told: Vec<u64> = told.collect();
        assert_eq!(told, [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430, 3030]);
        let hour = Duration::from_secs(3600);
        assert_eq!(room.has_room(began + hour), Some(hour));
        assert_eq!(room.has_room(began + hour), None);
        assert!(room.is_full(began + hour));
    }

    #[test]
    fn what_gives_space_back_may_use_the_last_of_it() {
        let room = Room::new(1 << 20, 3 << 20);
        let checkpoint = Work::Checkpoint {
            reply: Pending::new().0,
        };
        assert_eq!(room.reserve(&checkpoint, 1000), 0);
        assert!(room.allows(&checkpoint, 3 << 20, 100));
    }
}
