//! How much a module may misbehave before its lane stops.
//!
//! Called by: `wasm`; `stage::run` puts it back when a batch is worked once more. Invariants: numbers only: a
//! row that kills the module costs a credit, good rows earn them back; a batch in which the module dies more
//! often than single rows explain is not halved on for ever.

use crate::limits::{BREAKER_ROWS_MAX, BREAKER_ROWS_PER_CREDIT};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Breaker {
    credits: u32,
    good_rows: u32,
}

impl Breaker {
    pub fn new() -> Breaker {
        Breaker {
            credits: BREAKER_ROWS_MAX,
            good_rows: 0,
        }
    }

    pub fn earn(&mut self, rows: u32) {
        self.good_rows = self.good_rows.saturating_add(rows);
        let credits = self.good_rows / BREAKER_ROWS_PER_CREDIT;
        self.good_rows %= BREAKER_ROWS_PER_CREDIT;
        self.credits = self.credits.saturating_add(credits).min(BREAKER_ROWS_MAX);
    }

    /// One row killed the module: whether there was a credit for it.
    pub fn spend(&mut self) -> bool {
        let left = self.credits.checked_sub(1);
        self.credits = left.unwrap_or_default();
        left.is_some()
    }

    /// How often the module may die over so many rows. Each row that kills it is found by halving, so that
    /// there are no more deaths to a row than halves of halves; more than that is not the rows' doing.
    pub fn deaths_max(&self, rows: usize) -> u32 {
        (self.credits + 1).saturating_mul(rows.max(1).ilog2() + 2)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Deaths over rows of which these kill, as `wasm` halves.
    fn deaths(from: usize, len: usize, killers: &[usize]) -> u32 {
        let kills = killers.iter().any(|row| (from..from + len).contains(row));
        match (kills, len) {
            (false, _) | (_, 0) => 0,
            (true, 1) => 1,
            _ => {
                let half = len / 2;
                1 + deaths(from, half, killers) + deaths(from + half, len - half, killers)
            }
        }
    }

    proptest! {
        #[test]
        fn rows_that_kill_are_found_while_there_is_credit(
            rows in 1usize..5000,
            killers in prop::collection::vec(any::<prop::sample::Index>(), 0..=BREAKER_ROWS_MAX as usize + 1),
        ) {
            let killers: Vec<usize> = killers.iter().map(|at| at.index(rows)).collect();
            prop_assert!(deaths(0, rows, &killers) <= Breaker::new().deaths_max(rows));
        }
    }

    #[test]
    fn credits_are_spent_and_earned() {
        let mut breaker = Breaker::new();
        for _ in 0..BREAKER_ROWS_MAX {
            assert!(breaker.spend());
        }
        assert!(!breaker.spend());
        breaker.earn(BREAKER_ROWS_PER_CREDIT - 1);
        assert!(!breaker.spend());
        breaker.earn(1);
        assert!(breaker.spend() && !breaker.spend());
        breaker.earn(u32::MAX);
        breaker.earn(u32::MAX);
        assert_eq!(breaker.credits, BREAKER_ROWS_MAX);
    }
}
