//! How worker threads linger before they sleep, while the log has something under way.
//!
//! Waking a core that sleeps takes tens of microseconds, and hundreds in a virtual machine: longer
//! than many a sync. So one thread that has nothing to do looks again and again for about as long
//! as a sync takes here, gives its core away each time to whoever wants it, and is awake when the
//! answers come.
//! Called by: the runtime's workers before they sleep (`Store` does not start them, so whoever
//! does lends the same [`Linger`] to both); `queue` and `commit` say what is under way.
//! Invariants: one thread at a time; never longer than two syncs; not at all where syncs are slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A sync that takes longer is worth a sleep.
const SYNC_MAX: Duration = Duration::from_millis(1);
/// A thread lingers for so many syncs at most: the one under way and the next.
const SYNCS: u32 = 2;

/// What workers need to know of the log; cheap to ask.
#[derive(Debug, Default)]
pub struct Linger {
    /// Entries that wait for their answer.
    under_way: AtomicUsize,
    /// What the last sync took; 0 if it was slow.
    sync_ns: AtomicU64,
    is_taken: AtomicBool,
}

impl Linger {
    /// Returns when `has_work` says so, when nothing is under way, or after a while; at once if
    /// another thread lingers already.
    pub fn before_sleep(&self, has_work: impl Fn() -> bool) {
        let longest = SYNCS * Duration::from_nanos(self.sync_ns.load(Ordering::Relaxed));
        if longest.is_zero() || !self.is_under_way() || self.is_taken.swap(true, Ordering::Acquire)
        {
            return;
        }
        let begun = Instant::now();
        while self.is_under_way() && !has_work() && begun.elapsed() < longest {
            std::thread::yield_now();
        }
        self.is_taken.store(false, Ordering::Release);
    }

    fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn synced_in(&self, sync: Duration) {
        let sync_ns = match sync > SYNC_MAX {
            true => 0,
            false => sync.as_nanos() as u64,
        };
        self.sync_ns.store(sync_ns, Ordering::Relaxed);
    }
}

/// An entry that waits for its answer, as long as this lives.
pub(crate) struct UnderWay(Arc<Linger>);

impl UnderWay {
    pub(crate) fn new(linger: &Arc<Linger>) -> UnderWay {
        linger.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(linger))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_lingers_for_nothing() {
        let linger = Arc::new(Linger::default());
        let never = || panic!("it does not even look");
        linger.before_sleep(never);
        let entry = UnderWay::new(&linger);
        // no sync was timed, or a slow one
        linger.before_sleep(never);
        linger.synced_in(2 * SYNC_MAX);
        linger.before_sleep(never);
        linger.synced_in(SYNC_MAX);
        linger.before_sleep(|| true);
        drop(entry);
        linger.before_sleep(never);
    }

    #[test]
    fn one_thread_lingers_until_the_answer_is_there() {
        let linger = Arc::new(Linger::default());
        let entry = std::sync::Mutex::new(Some(UnderWay::new(&linger)));
        linger.synced_in(SYNC_MAX);
        let looks = std::cell::Cell::new(0);
        linger.before_sleep(|| {
            linger.before_sleep(|| panic!("two linger"));
            looks.set(looks.get() + 1);
            if looks.get() == 3 {
                entry.lock().expect("no panic").take();
            }
            false
        });
        assert!(!linger.is_taken.load(Ordering::Relaxed));
    }
}
