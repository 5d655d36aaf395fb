//! A canary: a new version of a module in the shadow of the one that runs, on the same batches.
//!
//! - `shadow` the thread that runs the candidate; `compare` what differs; `report` for people
//! - `follow` which lanes' state it has, of a node that keeps some
//!
//! Called by: `runtime` starts and ends it, lanes hand it what they committed. Invariants: nothing
//! that the candidate says goes anywhere but into the report; a lane never waits for it, nor for what it
//! compares: what does not fit into the queue is counted and left out; each committed record is seen at
//! most once; it ends with the generation that it is compared with, also where a lane goes back from that,
//! and with the process; its thread, instances and copies end with it. What a node keeps it gets as a copy,
//! with the batch that it begins with, and again after one that it missed; what passes meanwhile is left
//! out too.
//! Refuses: a candidate that does not open with the node's params, inputs and outputs.

mod compare;
mod follow;
pub(crate) mod report;
mod shadow;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::ids::{Digest, Offset};
use tokio::sync::watch;
use wasm::http::Stop;
use wasm::{Keyed, Module, View};

use crate::limits::{CANARY_QUEUE_BATCHES_MAX, CANARY_QUEUE_BYTES_MAX};
use crate::operator::{Chunk, Reject};
use crate::stage::Stage;
use crate::stage::state::States;
use follow::Follows;
use report::{CanaryReport, CanaryState};
pub(crate) use shadow::candidate;

/// When a canary has seen enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Until {
    /// At least so many records compared.
    pub records: Option<u64>,
    pub time: Option<Duration>,
}

/// Whose shadow it is.
#[derive(Clone, Debug)]
pub(crate) struct Of {
    pub node: String,
    pub alias: String,
    pub running: Digest,
    pub candidate: Digest,
    pub generation: u64,
}

/// What the running version did with a batch, or with the part of it that was committed.
pub(crate) struct Sample {
    pub stage: Arc<Stage>,
    pub node: usize,
    pub lane: u32,
    /// By input of the node.
    pub inputs: Vec<Chunk>,
    /// By output.
    pub ports: Vec<Chunk>,
    pub rejects: Vec<Reject>,
    /// Rows from this origin on were not committed.
    pub cut: Option<u32>,
    pub took: Duration,
    /// Of the lane's batch.
    pub offsets: Vec<Offset>,
    /// What the running version saw of the node's tables.
    pub view: Option<View>,
    /// The largest event time of the lane's batch.
    pub newest: Option<i64>,
    /// Entries and timers of the state that the running version changed.
    pub changed: usize,
    /// Where the lane was before the batch, and where after it.
    pub from: Offset,
    pub next: Offset,
    /// What the node kept before the batch, or why there is no copy of it.
    pub copy: Option<Result<Keyed, String>>,
}

impl Sample {
    /// About what it holds on to.
    fn bytes(&self) -> usize {
        let columns = |chunk: &Chunk| {
            let columns = chunk.columns.as_ref();
            columns.map_or(0, |columns| columns.get_array_memory_size())
        };
        let chunks = self.inputs.iter().chain(&self.ports);
        chunks
            .map(|chunk| chunk.rows.bytes() + columns(chunk))
            .sum()
    }
}

/// What the canary's thread and everybody else share.
struct Ledger {
    report: Mutex<CanaryReport>,
    /// Beside the report, which lanes ask for every batch: its state is no more `Running`.
    over: AtomicBool,
    /// In the queue.
    bytes: AtomicUsize,
    /// Ends the candidate's waiting for answers of others.
    stop: Stop,
    changed: Arc<watch::Sender<u64>>,
}

impl Ledger {
    fn report(&self) -> MutexGuard<'_, CanaryReport> {
        // counts are whole even if their writer panicked
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runs(&self) -> bool {
        !self.over.load(Ordering::Acquire)
    }

    /// The first end counts.
    fn end(&self, state: CanaryState) {
        self.stop.set();
        let mut report = self.report();
        if report.state == CanaryState::Running {
            report.state = state;
        }
        self.over.store(true, Ordering::Release);
        drop(report);
        self.changed.send_modify(|version| *version += 1);
    }
}

pub(crate) struct Canary {
    of: Of,
    /// None after its end: then its thread ends too, with its instances and copies.
    queue: Mutex<Option<SyncSender<Sample>>>,
    ledger: Arc<Ledger>,
    /// Of a node that keeps state.
    follows: Option<Follows>,
}

impl Canary {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn start(
        of: Of,
        module: Module,
        until: Until,
        changed: Arc<watch::Sender<u64>>,
    ) -> std::io::Result<Canary> {
        let follows = module.info().stateful.then(Follows::default);
        let (queue, samples) = sync_channel(CANARY_QUEUE_BATCHES_MAX);
        let ledger = Arc::new(Ledger {
            report: Mutex::new(CanaryReport::new(&of)),
            over: AtomicBool::new(false),
            bytes: AtomicUsize::new(0),
            stop: Stop::default(),
            changed,
        });
        let end = until.time.map(|time| Instant::now() + time);
        let shadow = shadow::Shadow::new(module, samples, ledger.clone(), until.records, end);
        std::thread::Builder::new()
            .name("canary".to_string())
            .spawn(move || shadow.run())?;
        Ok(Canary {
            of,
            queue: Mutex::new(Some(queue)),
            ledger,
            follows,
        })
    }

    fn queue(&self) -> MutexGuard<'_, Option<SyncSender<Sample>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its thread ends after the sample that it is at.
    fn end(&self, why: &str) {
        let why = why.to_string();
        self.ledger.end(CanaryState::Done { why });
        self.queue().take();
    }

    /// Whether this is the node that it watches, of the generation that it is compared with.
    fn watches(&self, stage: &Stage, node: usize) -> bool {
        let node = stage.nodes.get(node);
        stage.generation == self.of.generation && node.is_some_and(|n| n.name == self.of.node)
    }

    /// Whether the batch that begins there shall bring what the node keeps, of so many bytes.
    fn wants(&self, (stage, lane, from): (&Stage, u32, Offset), bytes: usize) -> bool {
        let idle = self.ledger.bytes.load(Ordering::Relaxed) == 0;
        let follows = self.follows.as_ref();
        follows.is_some_and(|follows| follows.wants((&stage.name, lane), from, bytes, idle))
    }

    /// The node to be watched, if it is part of this stage.
    fn node(&self, stage: &Stage) -> Option<usize> {
        if stage.generation != self.of.generation || !self.ledger.runs() {
            return None;
        }
        stage.nodes.iter().position(|n| n.name == self.of.node)
    }

    /// One that a lane made for the canary before this one is nobody's any more.
    fn offer(&self, sample: Sample) {
        if !self.watches(&sample.stage, sample.node) || !self.ledger.runs() {
            return;
        }
        let bytes = sample.bytes();
        let records = sample
            .offsets
            .len()
            .min(sample.cut.map_or(usize::MAX, |cut| cut as usize));
        let lane = (sample.stage.name.clone(), sample.lane);
        let next = sample.next;
        let follows = self.follows.as_ref();
        let taken = follows.is_none_or(|follows| follows.takes(&lane, &sample))
            && self.queued(sample, bytes);
        if let Some(follows) = follows {
            follows.offered(lane, next, bytes, taken);
        }
        if taken {
            return;
        }
        let mut report = self.ledger.report();
        report.skipped_batches += 1;
        report.skipped_records += records as u64;
    }

    fn queued(&self, sample: Sample, bytes: usize) -> bool {
        let held = self.ledger.bytes.fetch_add(bytes, Ordering::Relaxed);
        // one that is larger than the queue still fits into an empty one
        let room = held == 0 || held + bytes <= CANARY_QUEUE_BYTES_MAX;
        let send = |queue: &SyncSender<Sample>| queue.try_send(sample).is_ok();
        let queued = room && self.queue().as_ref().is_some_and(send);
        if !queued {
            self.ledger.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        queued
    }
}

/// Why there is no copy of a state.
pub(crate) fn no_room(bytes: usize, (used, limit): (usize, usize)) -> String {
    format!(
        "a canary works on a copy of what the node keeps, which takes {bytes} bytes, and modules use \
         {used} of the {limit} bytes that the server gives them (`--memory-bytes`)"
    )
}

/// The place for a pipeline's canary, shared by its lanes. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Slot(Arc<Mutex<Option<Arc<Canary>>>>);

impl Slot {
    fn canary(&self) -> MutexGuard<'_, Option<Arc<Canary>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put(&self, canary: Canary) {
        *self.canary() = Some(Arc::new(canary));
    }

    /// The node of the stage that the lane shall watch.
    pub fn watches(&self, stage: &Stage) -> Option<usize> {
        self.canary().as_ref()?.node(stage)
    }

    /// Whether the lane's next batch shall bring what the node keeps.
    pub fn wants(&self, lane: (&Stage, u32, Offset), node: usize, states: &States) -> bool {
        let stage = lane.0;
        let keyed = stage.nodes.get(node);
        let keyed = keyed.and_then(|node| states.get(&node.name));
        let canary = self.canary().clone();
        let wanted = keyed.zip(canary.filter(|canary| canary.watches(stage, node)));
        wanted.is_some_and(|(keyed, canary)| canary.wants(lane, keyed.bytes()))
    }

    /// Never waits.
    pub fn offer(&self, sample: Sample) {
        let canary = self.canary().clone();
        if let Some(canary) = canary {
            canary.offer(sample);
        }
    }

    pub fn report(&self) -> Option<CanaryReport> {
        // whoever waits for the report must not keep lanes from the slot
        let canary = self.canary().clone()?;
        let report = canary.ledger.report().clone();
        Some(report)
    }

    /// Whether one is at work.
    pub fn runs(&self) -> bool {
        self.canary().as_ref().is_some_and(|c| c.ledger.runs())
    }

    /// It compares no more; what it found stays to be read.
    pub fn end(&self, why: &str) {
        if let Some(canary) = self.canary().as_ref() {
            canary.end(why);
        }
    }

    /// A lane does not work with this generation: what it would be compared with does not run.
    pub fn rolled_back(&self, generation: u64, why: &str) {
        let canary = self.canary();
        if let Some(canary) = canary.as_ref().filter(|c| c.of.generation == generation) {
            canary.end(&format!("a lane went back to the generation before: {why}"));
        }
    }

    /// It goes, with what it found.
    pub fn take(&self) -> Option<CanaryReport> {
        let canary = self.canary().take()?;
        canary.end("stopped");
        let report = canary.ledger.report().clone();
        Some(report)
    }
}
