//! Waiting for conditions: the only place in tests that may sleep.
//!
//! Called by: tests of whole processes, through `#[path]`.
//! Invariants: a condition that holds is noticed within milliseconds; one that never holds fails
//! the test with what was waited for, after a time that a slow machine does not reach.

use std::time::{Duration, Instant};

/// How long a condition may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until there is an answer; panics with `what` when there is none in time.
#[track_caller]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "waited {PATIENCE:?} in vain for {what}"
        );
        nap(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Lets time go by until a moment.
pub fn moment(until: Instant) {
    nap(until.saturating_duration_since(Instant::now()));
}

#[allow(clippy::disallowed_methods, reason = "the one sleep of all tests")]
fn nap(pause: Duration) {
    std::thread::sleep(pause);
}
