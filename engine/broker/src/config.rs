//! What a broker is given from outside: its clock, its shard, its periods.
//!
//! Called by: server (composition), tests (a clock they move by hand).
//! Invariants: every time the broker uses comes from here; nothing else in the room reads a clock.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::{BrokerLife, ShardEpoch, ShardId};

/// Wall time. Append times and group sessions are measured with it.
pub trait Clock: Send + Sync + 'static {
    /// Microseconds since the epoch, UTC.
    fn now_us(&self) -> i64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_us(&self) -> i64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }
}

/// Settings of a [`Broker`](crate::Broker).
#[derive(Clone)]
pub struct BrokerConfig {
    pub clock: Arc<dyn Clock>,
    /// Which life of which broker this is, as the catalog said when it started.
    pub life: BrokerLife,
    /// The shard this broker leads, and in which epoch.
    pub shard: ShardId,
    pub epoch: ShardEpoch,
    /// Period of the task that expires members. `None`: no task, the owner calls
    /// [`Broker::tick`](crate::Broker::tick).
    pub tick: Option<Duration>,
}

impl Default for BrokerConfig {
    fn default() -> BrokerConfig {
        BrokerConfig {
            clock: Arc::new(SystemClock),
            life: BrokerLife::default(),
            shard: ShardId::FIRST,
            epoch: ShardEpoch(1),
            tick: Some(Duration::from_millis(500)),
        }
    }
}
