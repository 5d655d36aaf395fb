//! The one task of the broker: expires group members and keeps `_offsets` small, periodically.
//!
//! Called by: `Broker::open`. Invariants: it holds no broker alive, and ends when the last handle
//! is gone; a failing tick is logged and tried again at the next period.

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
            if let Err(error) = (Broker { inner }).tick().await {
                tracing::warn!(%error, "the periodic work of the broker failed");
            }
        }
    });
}
