//! How many rows a lane takes at once.
//!
//! Called by: `lane`. Invariants: numbers only, no clock: who measures says how long a batch took; never
//! more rows than the policy's most, never none. A lane that is behind doubles its batches while they are
//! quickly worked, since each costs a commit and its calls; a lane that keeps up never waits for more rows
//! than the policy asks. Trouble takes back what was grown, and nothing grows for a while; a number of rows
//! that was too much once is not tried again.

use std::time::Duration;

use super::Batching;
use crate::limits::PACE_REST_BATCHES;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    /// The policy's rows at the newest batch.
    rows: u32,
    /// Most rows of the next batch; the policy's where nothing was learned yet.
    most: Option<u32>,
    /// Batches before it may grow again.
    rest: u32,
    /// What it never grows beyond, since twice as many were too much for a module.
    ceiling: Option<u32>,
}

/// What a batch was like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worked {
    pub rows: u32,
    pub took: Duration,
    pub trouble: Trouble,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    /// A guest failed or died of some rows, or they are to be worked again.
    Rows,
    /// A guest died of them all, and of no part of them.
    Number,
}

impl Pace {
    /// The policy with what was learned: what the next batch is cut by.
    pub fn bound(&mut self, policy: Batching) -> Batching {
        let most = self.most(policy);
        self.rows = policy.rows;
        Batching {
            rows: policy.rows.min(most),
            rows_max: most,
            ..policy
        }
    }

    fn most(&self, policy: Batching) -> u32 {
        let most = self.most.unwrap_or(policy.rows);
        most.min(policy.rows_max).max(1)
    }

    pub fn worked(&mut self, policy: Batching, batch: Worked) {
        let most = self.most(policy);
        if batch.trouble == Trouble::Number {
            self.ceiling = Some(policy.rows.max(batch.rows / 2));
        }
        if batch.trouble != Trouble::None {
            self.rest = PACE_REST_BATCHES;
            self.most = Some(most.min(policy.rows));
        } else if batch.took > policy.quick * 4 {
            self.most = Some(most.min(policy.rows.max(most / 2)));
        } else if self.rest > 0 {
            self.rest -= 1;
        } else if most >= policy.rows && batch.rows > most / 2 && batch.took <= policy.quick {
            let ceiling = self.ceiling.unwrap_or(policy.rows_max);
            self.most = Some(most.max(most.saturating_mul(2).min(ceiling)));
        }
    }

    /// The log did not take the commit of a batch of so many rows.
    pub fn too_large(&mut self, rows: u32) {
        self.rest = PACE_REST_BATCHES;
        self.ceiling = Some(self.rows.max(rows / 2));
        self.most = Some((rows / 2).max(1));
    }

    /// Back to the policy's rows, slowly: each commit that is too large costs a start of the lane.
    pub fn committed(&mut self) {
        let less = self.most.filter(|most| *most < self.rows);
        if let Some(most) = less {
            self.most = Some((most + most / 8 + 1).min(self.rows));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUICK: Duration = Duration::from_millis(5);

    fn policy(rows: u32, rows_max: u32) -> Batching {
        Batching {
            rows,
            rows_max,
            bytes: 1 << 20,
            wait_ms: 5,
            quick: QUICK,
        }
    }

    /// The most rows after each batch: `q`uick, `b`usy, `s`low, `f`ault, `l`ittle (few rows, quick),
    /// `t`oo large for the log, `c`ommitted, `m`ore rows than the module stands.
    fn check(rows: u32, rows_max: u32, steps: &str, expected: &[u32]) {
        let policy = policy(rows, rows_max);
        let mut pace = Pace::default();
        let mut seen = Vec::new();
        for step in steps.chars() {
            let most = pace.bound(policy).rows_max;
            let worked = |rows, took, trouble| Worked {
                rows,
                took,
                trouble,
            };
            match step {
                't' => pace.too_large(most),
                'c' => pace.committed(),
                'q' => pace.worked(policy, worked(most, QUICK, Trouble::None)),
                'b' => pace.worked(policy, worked(most, QUICK * 2, Trouble::None)),
                's' => pace.worked(policy, worked(most, QUICK * 5, Trouble::None)),
                'f' => pace.worked(policy, worked(most, QUICK, Trouble::Rows)),
                'm' => pace.worked(policy, worked(most, QUICK, Trouble::Number)),
                _ => pace.worked(policy, worked(most / 2, QUICK, Trouble::None)),
            }
            seen.push(pace.bound(policy).rows_max);
        }
        assert_eq!(seen, expected, "{steps}");
    }

    #[test]
    fn batches_double_while_a_lane_is_behind_and_quick() {
        check(1000, 5000, "qqqq", &[2000, 4000, 5000, 5000]);
        check(1000, 5000, "qlb", &[2000, 2000, 2000]);
        check(1000, 5000, "qqsss", &[2000, 4000, 2000, 1000, 1000]);
    }

    #[test]
    fn a_policy_that_says_its_rows_is_kept() {
        check(1000, 1000, "qqsfq", &[1000; 5]);
    }

    #[test]
    fn a_fault_takes_back_what_was_grown_for_a_while() {
        check(1000, 5000, "qqfq", &[2000, 4000, 1000, 1000]);
        let steps = "f".to_string() + &"q".repeat(PACE_REST_BATCHES as usize + 1);
        let mut expected = vec![1000; PACE_REST_BATCHES as usize + 1];
        expected.push(2000);
        check(1000, 5000, &steps, &expected);
    }

    #[test]
    fn a_number_of_rows_that_was_too_much_is_not_tried_again() {
        let rest = PACE_REST_BATCHES as usize;
        let steps = "qqqm".to_string() + &"q".repeat(rest + 3);
        let mut expected = vec![2000, 4000, 8000, 1000];
        expected.extend(vec![1000; rest]);
        expected.extend([2000, 4000, 4000]);
        check(1000, 16_000, &steps, &expected);
        check(1000, 1000, "mq", &[1000, 1000]);
    }

    #[test]
    fn a_commit_that_is_too_large_halves_and_comes_back_slowly() {
        check(10, 100, "tttt", &[5, 2, 1, 1]);
        check(10, 100, "tcccc", &[5, 6, 7, 8, 10]);
        check(10, 100, "ts", &[5, 5]);
        check(10, 100, "qqtc", &[20, 40, 20, 20]);
    }

    proptest! {
        #[test]
        fn bounds_are_kept_whatever_happens(
            (rows, rows_max) in (1u32..=100_000).prop_flat_map(|rows| (Just(rows), rows..=100_000)),
            steps in prop::collection::vec((0u8..8, any::<u32>(), 0u64..100, 0u8..8), 0..200),
        ) {
            let policy = policy(rows, rows_max);
            let mut pace = Pace::default();
            for (step, rows, took, trouble) in steps {
                let took = Duration::from_millis(took);
                let trouble = match trouble {
                    0 => Trouble::Rows,
                    1 => Trouble::Number,
                    _ => Trouble::None,
                };
                match step {
                    0 => pace.too_large(rows),
                    1 => pace.committed(),
                    _ => pace.worked(policy, Worked { rows, took, trouble }),
                }
                let bound = pace.bound(policy);
                prop_assert!((1..=policy.rows).contains(&bound.rows), "{bound:?}");
                prop_assert!((bound.rows..=policy.rows_max).contains(&bound.rows_max), "{bound:?}");
                let calm = trouble == Trouble::None || step < 2;
                prop_assert!(calm || bound.rows_max <= policy.rows, "{bound:?}");
            }
        }
    }
}
