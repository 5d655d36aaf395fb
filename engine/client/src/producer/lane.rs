//! The records of one partition on their way: what is being filled, what waits to be sent.
//!
//! What: `Lane`, shared by the senders and the task in `run`. Called by: `Producer` (push,
//! flush), `run` (take, done, fail). Invariants: records leave in the order in which they were
//! pushed; memory taken for a record is given back exactly once, when it is acked or lost.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use model::ids::PartitionId;
use model::limits::BATCH_RECORDS_MAX;
use model::rows::{Rows, RowsBuilder};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::{Count, ProduceError, ProducerConfig, Record};
use crate::error::ClientError;

/// What a record costs beside its bytes.
pub(super) const RECORD_COST_BYTES: usize = 64;

pub(super) struct Lane {
    topic: String,
    pub partition: PartitionId,
    linger: Duration,
    batch_bytes: usize,
    memory: Arc<Semaphore>,
    fill: Mutex<Fill>,
    /// Something may be there to be sent.
    wake: Notify,
    progress: watch::Sender<Progress>,
    batches: Count,
}

#[derive(Default)]
struct Fill {
    open: RowsBuilder,
    open_cost: usize,
    open_since: Option<Instant>,
    ready: VecDeque<Filled>,
    pushed: u64,
    /// Records up to this count are sent without lingering.
    flush_to: u64,
    failed: Option<ProduceError>,
}

#[derive(Clone, Default)]
struct Progress {
    acked: u64,
    failed: Option<ProduceError>,
}

/// A full batch, not yet encoded.
pub(super) struct Filled {
    pub rows: Rows,
    pub cost: usize,
}

/// What `run` finds when it looks.
pub(super) enum Look {
    Batch(Box<Filled>),
    /// There will be one by then.
    Until(Instant),
    Nothing,
}

impl Lane {
    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    pub(super) fn new(
        topic: &str,
        partition: PartitionId,
        config: &ProducerConfig,
        memory: &Arc<Semaphore>,
    ) -> Lane {
        Lane {
            topic: topic.to_owned(),
            partition,
            linger: Duration::from_millis(config.linger_ms),
            batch_bytes: config.batch_bytes,
            memory: Arc::clone(memory),
            fill: Mutex::default(),
            wake: Notify::new(),
            progress: watch::Sender::new(Progress::default()),
            batches: Count::default(),
        }
    }

    pub(super) fn error(&self, error: ClientError) -> ProduceError {
        ProduceError {
            topic: self.topic.clone(),
            partition: Some(self.partition.index),
            error: Box::new(error),
        }
    }

    fn fill(&self) -> MutexGuard<'_, Fill> {
        self.fill.lock().expect("nothing panics while holding it")
    }

    /// How many batches were closed; tells sticky senders when to move on.
    pub(super) fn batches(&self) -> u64 {
        self.batches.get()
    }

    pub(super) fn push(
        &self,
        record: &Record,
        timestamp: i64,
        cost: usize,
    ) -> Result<(), ProduceError> {
        let mut fill = self.fill();
        if let Some(error) = &fill.failed {
            self.memory.add_permits(cost);
            return Err(error.clone());
        }
        if !fill.open.is_empty() && fill.open.bytes() + cost > self.batch_bytes {
            self.close(&mut fill);
        }
        let headers: Vec<(&str, Option<&[u8]>)> = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        fill.open.push(timestamp, key, value, &headers);
        fill.open_cost += cost;
        fill.pushed += 1;
        let first = fill.open_since.is_none();
        if first {
            fill.open_since = Some(Instant::now());
        }
        let full = fill.open.bytes() >= self.batch_bytes || fill.open.len() >= BATCH_RECORDS_MAX;
        if full {
            self.close(&mut fill);
        }
        drop(fill);
        if first || full {
            self.wake.notify_one();
        }
        Ok(())
    }

    fn close(&self, fill: &mut Fill) {
        let rows = std::mem::take(&mut fill.open).finish();
        let cost = std::mem::take(&mut fill.open_cost);
        fill.open_since = None;
        fill.ready.push_back(Filled { rows, cost });
        self.batches.add(1);
        self.wake.notify_one();
    }

    /// The next batch to send, if one is due.
    pub(super) fn look(&self) -> Look {
        let mut fill = self.fill();
        if let Some(filled) = fill.ready.pop_front() {
            return Look::Batch(Box::new(filled));
        }
        let Some(since) = fill.open_since else {
            return Look::Nothing;
        };
        let due = since + self.linger;
        let flush = fill.flush_to > fill.pushed - fill.open.len() as u64;
        if !flush && Instant::now() < due {
            return Look::Until(due);
        }
        self.close(&mut fill);
        fill.ready
            .pop_front()
            .map_or(Look::Nothing, |filled| Look::Batch(Box::new(filled)))
    }

    /// Waits until `look` may find more.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Asks for everything pushed so far; gives the count that `acked` waits for.
    pub(super) fn flush_begin(&self) -> u64 {
        let mut fill = self.fill();
        fill.flush_to = fill.pushed;
        self.wake.notify_one();
        fill.pushed
    }

    pub(super) async fn acked(&self, target: u64) -> Result<(), ProduceError> {
        let mut progress = self.progress.subscribe();
        let reached = |now: &Progress| now.acked >= target || now.failed.is_some();
        let now = progress
            .wait_for(reached)
            .await
            .expect("the lane outlives its watchers");
        match (&now.failed, now.acked >= target) {
            (Some(error), false) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    pub(super) fn acked_so_far(&self) -> u64 {
        self.progress.borrow().acked
    }

    /// A batch was acked.
    pub(super) fn done(&self, records: u64, cost: usize) {
        self.memory.add_permits(cost);
        self.progress
            .send_modify(|progress| progress.acked += records);
    }

    /// Memory of records that will never be sent.
    pub(super) fn give_back(&self, cost: usize) {
        self.memory.add_permits(cost);
    }

    /// Nothing can be delivered any more; `lost` is the cost of what `run` holds.
    pub(super) fn fail(&self, error: ClientError, lost: usize) {
        let error = self.error(error);
        let mut fill = self.fill();
        let waiting: usize = fill.ready.drain(..).map(|filled| filled.cost).sum();
        let open = std::mem::take(&mut fill.open_cost);
        fill.open = RowsBuilder::new();
        fill.open_since = None;
        fill.failed = Some(error.clone());
        drop(fill);
        self.memory.add_permits(lost + waiting + open);
        self.progress
            .send_modify(|progress| progress.failed = Some(error));
    }
}
