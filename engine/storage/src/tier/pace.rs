//! How hard the tier asks its object store: pauses after failures, a bandwidth limit, and a
//! circuit breaker.
//!
//! Called by: `upload`. Invariants: pure but for `Pace`, which holds clock and slots; pauses
//! grow twice as long each time and are cut at random by up to half; an open breaker lets one
//! try through when its time is over. Refuses: requests while the breaker is open.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::StoreConfig;

/// Failures in a row that open the breaker.
const FAILURES_MAX: u32 = 8;

/// Numbers from a seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % end.max(1)
    }
}

/// Pauses between tries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub first: Duration,
    pub max: Duration,
}

impl Backoff {
    /// The pause after the `failures`-th failure in a row.
    pub(crate) fn pause(&self, failures: u32, dice: &mut Dice) -> Duration {
        let doubled = 1u32 << failures.saturating_sub(1).min(20);
        let whole = self.first.saturating_mul(doubled).min(self.max);
        let micros = u64::try_from(whole.as_micros()).unwrap_or(u64::MAX);
        whole - Duration::from_micros(dice.below(micros / 2 + 1))
    }
}

/// Bytes that may go in a second; 0 is without limit.
#[derive(Debug)]
pub(crate) struct Bandwidth {
    bytes_per_s: u64,
    free_at: Duration,
}

impl Bandwidth {
    /// Takes room for `bytes`; answers how long to wait before they may go.
    pub(crate) fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        if self.bytes_per_s == 0 {
            return Duration::ZERO;
        }
        let begin = self.free_at.max(now);
        let micros = bytes.saturating_mul(1_000_000) / self.bytes_per_s;
        self.free_at = begin + Duration::from_micros(micros);
        begin - now
    }
}

/// Whether the object store is asked at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    #[default]
    Closed,
    /// It failed too often in a row and is left alone for a while.
    Open,
    /// One try is on its way.
    HalfOpen,
}

/// The circuit breaker before the object store, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BreakerStatus {
    pub state: BreakerState,
    /// How long it has been so.
    pub since_ms: u64,
    /// Failures in a row.
    pub failures: u32,
    /// The last one, also after it closed again.
    pub last_error: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Breaker {
    state: BreakerState,
    since: Duration,
    /// When the next try may go, unless closed.
    until: Duration,
    failures: u32,
    last_error: Option<String>,
}

impl Breaker {
    fn turn(&mut self, state: BreakerState, now: Duration) {
        if self.state != state {
            self.state = state;
            self.since = now;
        }
    }

    /// Whether a request may go. A try whose answer never comes does not block the next for
    /// longer than `again`.
    pub(crate) fn allow(&mut self, now: Duration, again: Duration) -> bool {
        if self.state == BreakerState::Closed {
            return true;
        }
        let is_time = now >= self.until;
        if is_time {
            self.turn(BreakerState::HalfOpen, now);
            self.until = now + again;
        }
        is_time
    }

    pub(crate) fn succeeded(&mut self, now: Duration) {
        self.failures = 0;
        self.turn(BreakerState::Closed, now);
    }

    pub(crate) fn failed(&mut self, error: String, now: Duration, pause: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(error);
        if self.failures >= FAILURES_MAX || self.state != BreakerState::Closed {
            self.turn(BreakerState::Open, now);
            self.until = now + pause;
        }
    }

    pub(crate) fn status(&self, now: Duration) -> BreakerStatus {
        let since = now.saturating_sub(self.since).as_millis();
        BreakerStatus {
            state: self.state,
            since_ms: u64::try_from(since).unwrap_or(u64::MAX),
            failures: self.failures,
            last_error: self.last_error.clone(),
        }
    }
}

struct State {
    dice: Dice,
    bandwidth: Bandwidth,
    breaker: Breaker,
}

pub(crate) struct Pace {
    origin: Instant,
    backoff: Backoff,
    slots: Semaphore,
    state: Mutex<State>,
}

impl Pace {
    pub(crate) fn new(config: &StoreConfig, seed: u64) -> Pace {
        let state = State {
            dice: Dice(seed),
            bandwidth: Bandwidth {
                bytes_per_s: config.tier_bytes_per_s,
                free_at: Duration::ZERO,
            },
            breaker: Breaker::default(),
        };
        Pace {
            origin: Instant::now(),
            backoff: Backoff {
                first: Duration::from_millis(config.tier_backoff_ms),
                max: Duration::from_millis(config.tier_backoff_ms_max),
            },
            slots: Semaphore::new(config.tier_uploads_max.max(1)),
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a slot and for room in the bandwidth.
    pub(crate) async fn slot(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let slot = self.slots.acquire().await.ok();
        let wait = self.lock().bandwidth.take(bytes, self.origin.elapsed());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        slot
    }

    /// Whether the breaker lets a request through; if not, why.
    pub(crate) fn allow(&self) -> Result<(), String> {
        let now = self.origin.elapsed();
        let mut state = self.lock();
        if state.breaker.allow(now, self.backoff.max) {
            return Ok(());
        }
        let (failures, error) = (state.breaker.failures, &state.breaker.last_error);
        let error = error.as_deref().unwrap_or("no answer");
        Err(format!(
            "{failures} requests in a row failed, the last one: {error}"
        ))
    }

    pub(crate) fn succeeded(&self) {
        let now = self.origin.elapsed();
        self.lock().breaker.succeeded(now);
    }

    /// Notes a failure; answers how long to pause before the next try.
    pub(crate) fn failed(&self, error: String, attempt: u32) -> Duration {
        let now = self.origin.elapsed();
        let mut state = self.lock();
        let failures = state.breaker.failures + 1;
        let open = self.backoff.pause(failures, &mut state.dice);
        state.breaker.failed(error, now, open);
        self.backoff.pause(attempt, &mut state.dice)
    }

    /// The pause before a partition that failed so often is tried again.
    pub(crate) fn pause(&self, failures: u32) -> Duration {
        self.backoff.pause(failures, &mut self.lock().dice)
    }

    pub(crate) fn status(&self) -> BreakerStatus {
        self.lock().breaker.status(self.origin.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_lose_up_to_half_at_random() {
        let backoff = Backoff {
            first: ms(100),
            max: ms(1_000),
        };
        let pauses = |seed| {
            let mut dice = Dice(seed);
            let pause = |failures| backoff.pause(failures, &mut dice);
            (1..=30).map(pause).collect::<Vec<_>>()
        };
        for seed in 0..200 {
            for (at, pause) in pauses(seed).into_iter().enumerate() {
                let whole = ms((100 << at.min(10)).min(1_000));
                assert!(
                    pause <= whole && pause >= whole / 2,
                    "seed {seed}: {at}: {pause:?}"
                );
            }
        }
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
    }

    #[test]
    fn bytes_wait_for_the_bytes_before_them() {
        let mut bandwidth = Bandwidth {
            bytes_per_s: 1_000,
            free_at: Duration::ZERO,
        };
        let mut check = |bytes, now, wait| assert_eq!(bandwidth.take(bytes, ms(now)), ms(wait));
        check(500, 0, 0);
        check(500, 100, 400);
        check(1, 5_000, 0);
        bandwidth.bytes_per_s = 0;
        assert_eq!(bandwidth.take(u64::MAX, ms(0)), Duration::ZERO);
    }

    #[test]
    fn the_breaker_opens_tries_once_and_closes() {
        let mut breaker = Breaker::default();
        for _ in 1..FAILURES_MAX {
            breaker.failed("503".into(), ms(1), ms(100));
        }
        assert!(breaker.allow(ms(1), ms(50)), "not yet open");
        breaker.failed("504".into(), ms(2), ms(100));
        assert!(!breaker.allow(ms(101), ms(50)));
        let status = breaker.status(ms(12));
        assert_eq!((status.state, status.since_ms), (BreakerState::Open, 10));
        assert_eq!(status.last_error.as_deref(), Some("504"));
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(
            (&json["state"], &json["failures"]),
            (&"open".into(), &8.into())
        );
        assert!(breaker.allow(ms(102), ms(50)));
        assert_eq!(breaker.status(ms(102)).state, BreakerState::HalfOpen);
        assert!(!breaker.allow(ms(103), ms(50)), "only one try");
        breaker.failed("503".into(), ms(104), ms(200));
        assert!(!breaker.allow(ms(303), ms(50)));
        assert!(breaker.allow(ms(304), ms(50)));
        // Its answer never comes.
        assert!(breaker.allow(ms(354), ms(50)));
        breaker.succeeded(ms(355));
        assert!(breaker.allow(ms(355), ms(50)));
        assert_eq!(breaker.status(ms(355)).failures, 0);
    }
}
