//! Reads a topic into its table: all partitions from what is kept, and then on with what comes.
//!
//! Called by: `lookup`. Invariants: the records of a partition go in in their order, a batch of the log
//! at once; what is read and put in happens on a worker thread. A read that fails is tried again
//! for ever, with longer and longer waits, and said; what was removed before it was read is left
//! out, and said. Two partitions that hold the same key have no order between them.
//! Refuses: what is larger than the limit; then the table is empty and stays so.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use model::batch::{Batch, BatchError};
use model::ids::{Offset, PartitionId, TopicId};
use model::port::{LogError, TopicLog};
use model::topic::Topic;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use wasm::{Table, TableFull};

use super::Tables;
use crate::limits::{FETCH_BYTES_MAX, LOG_BACKOFF_MS, LOG_BACKOFF_MS_MAX};

/// A table that follows its topic until it is dropped.
pub(crate) struct Followed {
    pub name: String,
    pub table: Table,
    shared: Arc<Shared>,
    task: OnceLock<AbortHandle>,
}

/// What the task and the users of its table share.
struct Shared {
    log: Arc<dyn TopicLog>,
    topic: TopicId,
    name: String,
    partitions: u32,
    table: Table,
    bytes_max: AtomicUsize,
    state: Mutex<State>,
    /// More was read, or something went wrong.
    moved: watch::Sender<u64>,
    changed: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct State {
    /// By partition: the next offset to be read; 0 before the first.
    positions: Vec<Offset>,
    /// By partition: what goes wrong now.
    faults: BTreeMap<u32, String>,
    /// The last records that nobody could read.
    lost: Option<String>,
    /// Records without a key, which say nothing here.
    without_key: u64,
    /// Why there is no table any more.
    given_up: Option<String>,
}

/// Why a partition could not be read on.
enum Stop {
    Again(String),
    GiveUp(String),
}

impl Followed {
    pub fn start(tables: &Tables, topic: &Topic, bytes_max: usize) -> Arc<Followed> {
        let table = tables.host.table();
        let partitions = topic.spec.partitions;
        let state = State {
            positions: vec![0; partitions as usize],
            ..State::default()
        };
        let shared = Arc::new(Shared {
            log: tables.log.clone(),
            topic: topic.id,
            name: topic.name.clone(),
            partitions,
            table: table.clone(),
            bytes_max: AtomicUsize::new(bytes_max),
            state: Mutex::new(state),
            moved: watch::Sender::new(0),
            changed: tables.changed.clone(),
        });
        let task = tables.handle.spawn(shared.clone().follow());
        let followed = Followed {
            name: topic.name.clone(),
            table,
            shared,
            task: OnceLock::from(task.abort_handle()),
        };
        Arc::new(followed)
    }

    /// Lets it hold so much, if it was not given up.
    pub fn grows_to(&self, bytes_max: usize) -> bool {
        self.shared
            .bytes_max
            .fetch_max(bytes_max, Ordering::Relaxed);
        self.given_up().is_none()
    }

    pub fn given_up(&self) -> Option<String> {
        self.shared.state().given_up.clone()
    }

    pub fn fault(&self) -> Option<String> {
        let state = self.shared.state();
        state
            .faults
            .values()
            .next()
            .or(state.lost.as_ref())
            .cloned()
    }

    pub fn without_key(&self) -> u64 {
        self.shared.state().without_key
    }

    pub fn too_large(&self, bytes_max: usize) -> String {
        self.shared.too_large(bytes_max)
    }

    /// Records read of those that are kept, over all partitions, about.
    pub fn progress(&self, log: &dyn TopicLog) -> (u64, u64) {
        let positions = self.shared.state().positions.clone();
        let mut sums = (0, 0);
        for (index, at) in (0..).zip(positions) {
            if let Ok(bounds) = log.bounds(self.shared.partition(index)) {
                sums.0 += at.clamp(bounds.start, bounds.end) - bounds.start;
                sums.1 += bounds.end - bounds.start;
            }
        }
        sums
    }

    /// Returns when all is in the table that the topic has now.
    ///
    /// # Errors
    /// The table was given up.
    pub async fn caught_up(&self) -> Result<(), String> {
        let mut moved = self.shared.moved.subscribe();
        let mut targets = Vec::new();
        for index in 0..self.shared.partitions {
            targets.push(self.shared.end(index).await?);
        }
        loop {
            moved.borrow_and_update();
            if let Some(why) = self.given_up() {
                return Err(why);
            }
            let reached = {
                let state = self.shared.state();
                let mut all = state.positions.iter().zip(&targets);
                all.all(|(at, target)| at >= target)
            };
            if reached {
                return Ok(());
            }
            // its sender lives as long as `self`
            let _ = moved.changed().await;
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // plain data: it is whole even if a writer panicked
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.moved.send_modify(|version| *version += 1);
        self.changed.send_modify(|version| *version += 1);
    }

    fn partition(&self, index: u32) -> PartitionId {
        PartitionId::new(self.topic, index)
    }

    fn too_large(&self, bytes_max: usize) -> String {
        let limit = match bytes_max >> 20 {
            0 => format!("{} KiB", bytes_max >> 10),
            mebibytes => format!("{mebibytes} MiB"),
        };
        format!(
            "the newest values of topic `{}` take more than {limit}: raise its `limit`, or keep \
             less in the topic",
            self.name
        )
    }

    fn gone(&self) -> String {
        format!("topic `{}` was deleted", self.name)
    }

    /// The end of a partition now, however long it takes to learn it.
    async fn end(&self, index: u32) -> Result<Offset, String> {
        let mut wait = LOG_BACKOFF_MS;
        loop {
            match self.log.bounds(self.partition(index)) {
                Ok(bounds) => return Ok(bounds.end),
                Err(LogError::NotFound { .. }) => return Err(self.gone()),
                Err(_) => pause(&mut wait).await,
            }
        }
    }

    /// All partitions beside each other, until the table has to be given up.
    async fn follow(self: Arc<Shared>) {
        let all = (0..self.partitions).map(|index| self.clone().follow_one(index));
        let Err(why) = try_join_all(all).await else {
            return;
        };
        tracing::warn!(topic = self.name, why, "lookup table given up");
        // in this order, so that nobody takes an empty table for a whole one
        self.update(|state| state.given_up = Some(why));
        self.table.clear();
        self.changed.send_modify(|version| *version += 1);
    }

    async fn follow_one(self: Arc<Shared>, index: u32) -> Result<Infallible, String> {
        let mut wait = LOG_BACKOFF_MS;
        loop {
            match self.step(index).await {
                Ok(()) => wait = LOG_BACKOFF_MS,
                Err(Stop::GiveUp(why)) => return Err(why),
                Err(Stop::Again(why)) => {
                    let partition = self.partition(index);
                    tracing::debug!(%partition, why, "lookup table is read again");
                    self.update(|state| drop(state.faults.insert(index, why)));
                    pause(&mut wait).await;
                }
            }
        }
    }

    /// Reads what comes next, waits where nothing does.
    async fn step(self: &Arc<Shared>, index: u32) -> Result<(), Stop> {
        let partition = self.partition(index);
        let bounds = self.log.bounds(partition).map_err(|e| self.stop(e))?;
        let known = self.state().positions[index as usize];
        let at = known.max(bounds.start);
        if known < bounds.start {
            self.skipped(index, known, bounds.start);
        }
        if at >= bounds.end {
            self.mended(index);
            let moved = self.log.moved(partition, at);
            return moved.await.map_err(|e| self.stop(e));
        }
        self.room().await;
        let fetched = self.log.fetch(partition, at, FETCH_BYTES_MAX).await;
        let batches = fetched.map_err(|e| self.stop(e))?;
        if batches.is_empty() {
            let end = bounds.end;
            let why = format!("{partition} has nothing at offset {at}, before its end {end}");
            return Err(Stop::Again(why));
        }
        let shared = self.clone();
        let taken = tokio::task::spawn_blocking(move || shared.take(index, at, &batches));
        taken
            .await
            .unwrap_or_else(|_| Err(Stop::Again("its worker panicked: this is a bug".into())))?;
        self.mended(index);
        Ok(())
    }

    fn stop(&self, error: LogError) -> Stop {
        match error {
            LogError::NotFound { .. } => Stop::GiveUp(self.gone()),
            other => Stop::Again(other.to_string()),
        }
    }

    /// Reading goes on behind what is not there any more. At the beginning nothing is lost.
    fn skipped(&self, index: u32, from: Offset, start: Offset) {
        let partition = self.partition(index);
        self.update(|state| {
            state.positions[index as usize] = start;
            if from > 0 {
                let last = start - 1;
                let lost = format!(
                    "records {from} to {last} of {partition} were removed before they were read"
                );
                tracing::warn!(lost, "lookup table");
                state.lost = Some(lost);
            }
        });
    }

    fn mended(&self, index: u32) {
        if self.state().faults.contains_key(&index) {
            self.update(|state| drop(state.faults.remove(&index)));
        }
    }

    /// Waits while batches at work hold on to as much of the past as the table may hold.
    async fn room(&self) {
        let mut wait = LOG_BACKOFF_MS;
        while self.table.bytes_aside() > self.bytes_max.load(Ordering::Relaxed) {
            pause(&mut wait).await;
        }
    }

    /// Puts batches into the table; those before one that fails are in.
    fn take(&self, index: u32, from: Offset, batches: &[Batch]) -> Result<(), Stop> {
        let (mut at, mut without_key) = (from, 0);
        let done = batches.iter().try_for_each(|batch| {
            without_key += self.take_one(batch, at)?;
            at = at.max(batch.next_offset());
            Ok(())
        });
        self.update(|state| {
            state.positions[index as usize] = at;
            state.without_key += without_key;
        });
        done
    }

    /// How many records had no key.
    fn take_one(&self, batch: &Batch, from: Offset) -> Result<u64, Stop> {
        let unread = |source: BatchError| {
            let offset = batch.base_offset();
            Stop::Again(format!(
                "the batch at offset {offset} cannot be read: {source}"
            ))
        };
        let offsets = batch.offsets().map_err(unread)?;
        let rows = batch.rows().map_err(unread)?;
        let mut without_key = 0;
        let new = offsets.iter().zip(rows.records());
        let new = new.filter(|(offset, _)| **offset >= from);
        let changes = new.filter_map(|(_, record)| {
            without_key += u64::from(record.key.is_none());
            Some((record.key?, record.value))
        });
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        let applied = self.table.apply(changes, bytes_max);
        applied.map_err(|TableFull { bytes_max }| Stop::GiveUp(self.too_large(bytes_max)))?;
        Ok(without_key)
    }
}

/// Waits, the next time for longer.
async fn pause(wait: &mut u64) {
    tokio::time::sleep(Duration::from_millis(*wait)).await;
    *wait = (*wait * 2).min(LOG_BACKOFF_MS_MAX);
}
