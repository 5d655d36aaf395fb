//! How long a call may take: the epoch ticker and the clock of one call.
//!
//! Called by: `host` (one ticker an engine), `guest` (one clock a store).
//! Invariants: a guest that computes is stopped within two ticks after its processor time is used
//! up; a guest that only waits for a core is given up to twenty times that on the wall clock.
//! Outside a tick nothing is read, so a call that ends early costs one store.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Engine, UpdateDeadline};

use crate::error::HostError;

/// Wall clock allowed for each unit of processor time.
const WALL_FACTOR: u32 = 20;

/// The one thread that moves the engine's epoch. Stops when dropped.
pub(crate) struct Ticker {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(engine: &Engine, tick_ms: u64) -> Result<Ticker, HostError> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (engine, seen) = (engine.weak(), Arc::clone(&stop));
        let tick = Duration::from_millis(tick_ms.max(1));
        let thread = std::thread::Builder::new()
            .name("wasm-ticker".into())
            .spawn(move || {
                let (lock, moved) = &*seen;
                let mut stopped = lock.lock().unwrap_or_else(PoisonError::into_inner);
                while !*stopped {
                    (stopped, _) = moved
                        .wait_timeout(stopped, tick)
                        .unwrap_or_else(PoisonError::into_inner);
                    match engine.upgrade() {
                        Some(engine) => engine.increment_epoch(),
                        None => return,
                    }
                }
            })
            .map_err(|e| HostError::Ticker(e.to_string()))?;
        Ok(Ticker {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        let (lock, moved) = &*self.stop;
        *lock.lock().unwrap_or_else(PoisonError::into_inner) = true;
        moved.notify_all();
        if let Some(thread) = self.thread.take() {
            // the thread only waits and increments: it cannot panic
            let _ = thread.join();
        }
    }
}

/// Clock of the call that runs now.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    limit: Duration,
    /// Taken at the first tick that falls into the call, not at its start.
    first: Option<(Instant, Duration)>,
    pub(crate) over: bool,
}

impl Clock {
    pub(crate) fn begin(&mut self, limit_ms: u64) {
        *self = Clock {
            limit: Duration::from_millis(limit_ms),
            first: None,
            over: false,
        };
    }

    pub(crate) fn limit_ms(&self) -> u64 {
        self.limit.as_millis() as u64
    }

    /// What went by since was not the guest's.
    pub(crate) fn resume(&mut self, pause: &Pause) {
        let Some((wall, cpu)) = &mut self.first else {
            return;
        };
        *wall += pause.wall.elapsed();
        *cpu += thread_cpu_time().saturating_sub(pause.cpu);
    }

    /// One tick fell into the call: go on, or is its time used up?
    pub(crate) fn tick(&mut self) -> UpdateDeadline {
        let Some((wall, cpu)) = self.first else {
            self.first = Some((Instant::now(), thread_cpu_time()));
            return UpdateDeadline::Continue(1);
        };
        let waited = wall.elapsed();
        let used = thread_cpu_time().saturating_sub(cpu);
        if used >= self.limit || waited >= self.limit * WALL_FACTOR {
            self.over = true;
            return UpdateDeadline::Interrupt;
        }
        UpdateDeadline::Continue(1)
    }
}

/// The host works, or waits, for a guest that stands still.
pub(crate) struct Pause {
    wall: Instant,
    cpu: Duration,
}

impl Pause {
    pub(crate) fn begin() -> Pause {
        Pause {
            wall: Instant::now(),
            cpu: thread_cpu_time(),
        }
    }
}

/// Processor time of this thread.
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}
