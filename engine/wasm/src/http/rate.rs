//! How many requests a second a node makes: each gets its turn, or hears that it would come too late.
//!
//! Called by: the server's client. Pure: the time is an argument.
//! Invariants: over any second at most twice the rate, over many the rate; who is turned away costs
//! nothing.

/// The turns of a node, shared by its lanes. Nanoseconds since it began.
#[derive(Debug, Clone)]
pub struct Rate {
    /// From one request to the next.
    pause: u64,
    /// When the request after the last one would come if all came evenly.
    due: u64,
}

/// How far requests may run ahead: a second's worth comes at once.
const AHEAD: u64 = 1_000_000_000;

impl Rate {
    pub fn new(per_s: u64) -> Rate {
        let pause = AHEAD / per_s.max(1);
        Rate { pause, due: 0 }
    }

    /// How long a request waits for its turn; none if that is longer than `most`.
    pub fn turn(&mut self, now: u64, most: u64) -> Option<u64> {
        let due = self.due.max(now);
        let ahead = AHEAD - self.pause.min(AHEAD);
        let wait = due.saturating_sub(ahead).saturating_sub(now);
        if wait > most {
            return None;
        }
        self.due = due + self.pause;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_seconds_worth_comes_at_once_and_the_rest_evenly() {
        let mut rate = Rate::new(4);
        let turns: Vec<_> = (0..7).map(|_| rate.turn(0, SECOND).unwrap_or(9)).collect();
        assert_eq!(turns, [0, 0, 0, 0, SECOND / 4, SECOND / 2, 3 * SECOND / 4]);
        assert_eq!(rate.turn(0, SECOND), Some(SECOND));
        // who is turned away costs nothing
        assert_eq!(rate.turn(0, SECOND), None);
        assert_eq!(rate.turn(SECOND, SECOND), Some(SECOND / 4));
        // idle time is not saved up for more than a second
        let turns: Vec<_> = (0..5).map(|_| rate.turn(100 * SECOND, SECOND)).collect();
        assert_eq!(turns[3..], [Some(0), Some(SECOND / 4)]);
    }

    #[test]
    fn one_a_second_is_one_a_second() {
        let mut rate = Rate::new(1);
        assert_eq!(rate.turn(0, SECOND), Some(0));
        assert_eq!(rate.turn(0, SECOND), Some(SECOND));
        assert_eq!(rate.turn(0, SECOND), None);
    }
}
