//! The one task of the broker: expires group members, periodically.
//!
//! Called by: `Broker::open`. Invariants: it holds no broker alive, and ends when the last handle
//! is gone.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::broker::{Broker, Inner};

pub(crate) fn spawn(inner: &Arc<Inner>, period: Duration) {
    let inner: Weak<Inner> = Arc::downgrade(inner);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(period.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(inner) = inner.upgrade() else { return };
            Broker { inner }.tick();
        }
    });
}
