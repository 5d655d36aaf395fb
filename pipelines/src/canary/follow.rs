//! Which lanes' state a canary has: it follows a lane as long as it gets every batch of it.
//!
//! Called by: `canary`, from the lanes. Invariants: a lane is followed from a batch that brought a copy of
//! its state on, each batch beginning where the one before ended; one that is missed ends it, until a copy
//! comes again. Copies cost the lane, so the first is made at once and further ones when the canary is idle
//! and the lane has read as many bytes as it keeps.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::ids::Offset;

use super::Sample;

/// How far a lane is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follow {
    /// The batch that begins there is to bring a copy.
    Asked(Offset),
    /// All batches up to there.
    At(Offset),
    /// A batch was missed; bytes of those that were left out since.
    Lost(usize),
}

/// By stage and lane.
#[derive(Default)]
pub(super) struct Follows(Mutex<BTreeMap<(String, u32), Follow>>);

impl Follows {
    fn lanes(&self) -> MutexGuard<'_, BTreeMap<(String, u32), Follow>> {
        // whole even if a writer panicked: each change is one assignment
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the batch that begins there shall bring a copy of so many bytes.
    pub fn wants(
        &self,
        (stage, lane): (&str, u32),
        from: Offset,
        bytes: usize,
        idle: bool,
    ) -> bool {
        let mut lanes = self.lanes();
        let key = (stage.to_string(), lane);
        let wanted = match lanes.get(&key) {
            None => true,
            Some(Follow::Asked(at)) => *at == from,
            Some(Follow::At(_)) => false,
            Some(Follow::Lost(missed)) => idle && *missed >= bytes,
        };
        if wanted {
            lanes.insert(key, Follow::Asked(from));
        }
        wanted
    }

    /// Whether the candidate can go on with this batch.
    pub fn takes(&self, lane: &(String, u32), sample: &Sample) -> bool {
        sample.copy.is_some() || self.lanes().get(lane) == Some(&Follow::At(sample.from))
    }

    /// What became of a batch that ends there.
    pub fn offered(&self, lane: (String, u32), next: Offset, bytes: usize, taken: bool) {
        let mut lanes = self.lanes();
        let follow = match (taken, lanes.get(&lane)) {
            (true, _) => Follow::At(next),
            (false, Some(Follow::Lost(missed))) => Follow::Lost(missed + bytes),
            (false, Some(Follow::At(_))) => Follow::Lost(bytes),
            (false, Some(Follow::Asked(at))) if next > *at => Follow::Lost(bytes),
            // it was worked before the copy was asked for
            (false, _) => return,
        };
        lanes.insert(lane, follow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_followed_from_copy_to_gap() {
        let follows = Follows::default();
        let lane = || ("s".to_string(), 1);
        let wants = |from, idle| follows.wants(("s", 1), from, 10, idle);
        let at = |lane: (String, u32)| follows.lanes().get(&lane).copied();
        // two batches are under way before the first copy is there
        assert!(wants(5, false) && !wants(7, true));
        follows.offered(lane(), 5, 4, false);
        assert_eq!(at(lane()), Some(Follow::Asked(5)));
        // the batch is worked again
        assert!(wants(5, false));
        follows.offered(lane(), 7, 4, true);
        assert_eq!(at(lane()), Some(Follow::At(7)));
        assert!(!wants(7, true));
        // one that did not fit: a copy is worth it when as much was missed, and nobody waits
        follows.offered(lane(), 9, 4, false);
        follows.offered(lane(), 11, 4, false);
        assert!(!wants(11, true));
        follows.offered(lane(), 13, 4, false);
        assert!(!wants(13, false) && wants(13, true));
        // the batch with the copy was not committed
        follows.offered(lane(), 15, 4, false);
        assert_eq!(at(lane()), Some(Follow::Lost(4)));
        // of another lane nothing is known
        assert!(follows.wants(("s", 2), 0, 10, false));
    }
}
