//! A canary: a new version of a module in the shadow of the one that runs, on the same batches.
//!
//! - `shadow` the thread that runs the candidate; `compare` what differs; `report` for people
//!
//! Called by: `runtime` starts and ends it, lanes hand it what they committed. Invariants: nothing
//! that the candidate says goes anywhere but into the report; a lane never waits for it: what does
//! not fit into the queue is counted and left out; each committed record is seen at most once; it
//! ends with the generation that it is compared with, and with the process.
//! Refuses: a candidate that does not open with the node's params, inputs and outputs.

mod compare;
pub(crate) mod report;
mod shadow;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::ids::{Digest, Offset};
use tokio::sync::watch;
use wasm::http::Stop;
use wasm::{Module, View};

use crate::limits::{CANARY_QUEUE_BATCHES_MAX, CANARY_QUEUE_BYTES_MAX};
use crate::operator::{Chunk, Reject};
use crate::stage::Stage;
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
        self.report().state == CanaryState::Running
    }

    /// The first end counts.
    fn end(&self, state: CanaryState) {
        self.stop.set();
        let mut report = self.report();
        if report.state == CanaryState::Running {
            report.state = state;
        }
        drop(report);
        self.changed.send_modify(|version| *version += 1);
    }
}

pub(crate) struct Canary {
    of: Of,
    queue: SyncSender<Sample>,
    ledger: Arc<Ledger>,
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
        let (queue, samples) = sync_channel(CANARY_QUEUE_BATCHES_MAX);
        let ledger = Arc::new(Ledger {
            report: Mutex::new(CanaryReport::new(&of)),
            bytes: AtomicUsize::new(0),
            stop: Stop::default(),
            changed,
        });
        let end = until.time.map(|time| Instant::now() + time);
        let shadow = shadow::Shadow::new(module, samples, ledger.clone(), until.records, end);
        std::thread::Builder::new()
            .name("canary".to_string())
            .spawn(move || shadow.run())?;
        Ok(Canary { of, queue, ledger })
    }

    /// The node to be watched, if it is part of this stage.
    fn node(&self, stage: &Stage) -> Option<usize> {
        if stage.generation != self.of.generation || !self.ledger.runs() {
            return None;
        }
        stage.nodes.iter().position(|n| n.name == self.of.node)
    }

    fn offer(&self, sample: Sample) {
        if sample.stage.generation != self.of.generation || !self.ledger.runs() {
            return;
        }
        let bytes = sample.bytes();
        let records = sample
            .offsets
            .len()
            .min(sample.cut.map_or(usize::MAX, |cut| cut as usize));
        let held = self.ledger.bytes.fetch_add(bytes, Ordering::Relaxed);
        // one that is larger than the queue still fits into an empty one
        let room = held == 0 || held + bytes <= CANARY_QUEUE_BYTES_MAX;
        if room && self.queue.try_send(sample).is_ok() {
            return;
        }
        self.ledger.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let mut report = self.ledger.report();
        report.skipped_batches += 1;
        report.skipped_records += records as u64;
    }
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

    /// Never waits.
    pub fn offer(&self, sample: Sample) {
        let canary = self.canary().clone();
        if let Some(canary) = canary {
            canary.offer(sample);
        }
    }

    pub fn report(&self) -> Option<CanaryReport> {
        let canary = self.canary();
        canary.as_ref().map(|canary| canary.ledger.report().clone())
    }

    /// Whether one is at work.
    pub fn runs(&self) -> bool {
        self.canary().as_ref().is_some_and(|c| c.ledger.runs())
    }

    /// It compares no more; what it found stays to be read.
    pub fn end(&self, why: &str) {
        if let Some(canary) = self.canary().as_ref() {
            canary.ledger.end(CanaryState::Done {
                why: why.to_string(),
            });
        }
    }

    /// It goes, with what it found.
    pub fn take(&self) -> Option<CanaryReport> {
        let canary = self.canary().take()?;
        canary.ledger.end(CanaryState::Done {
            why: "stopped".to_string(),
        });
        let report = canary.ledger.report().clone();
        Some(report)
    }
}
