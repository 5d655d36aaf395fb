//! What a pipeline is doing, for people, the demo and `GET /v1/status`.
//!
//! Called by: lanes write, `Runtime::status` reads. Invariants: a status never blocks a lane; the
//! committed position is what the log acknowledged; lists are bounded.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::ids::{Digest, Offset};
use serde::{Deserialize, Serialize};
use wasm::{Metric, Metrics};

use crate::canary::report::CanaryReport;
use crate::limits::HANDOVERS_KEPT_MAX;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineStatus {
    pub name: String,
    /// The newest generation that was started.
    pub generation: u64,
    pub lanes: Vec<LaneStatus>,
    /// What modules count, by node and name, summed up over the lanes, since each lane's generation
    /// took over.
    #[serde(default)]
    pub metrics: BTreeMap<String, BTreeMap<String, Metric>>,
    /// The tables that its nodes look into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lookups: Vec<LookupStatus>,
    /// A new version in the shadow of one that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryReport>,
}

/// The numbers of one lane's modules: they outlive an instance, and end with their generation, so
/// that a trial counts apart from what runs and no name stays behind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers(Arc<Mutex<Generations>>);

#[derive(Debug, Default)]
struct Generations {
    /// The one that is known to work.
    adopted: u64,
    /// By generation and node.
    metrics: BTreeMap<(u64, String), Metrics>,
}

impl Numbers {
    pub fn of(&self, generation: u64, node: &str) -> Metrics {
        let key = (generation, node.to_string());
        self.lock().metrics.entry(key).or_default().clone()
    }

    /// The numbers of this generation are the lane's from now on.
    pub fn adopt(&self, generation: u64) {
        let mut all = self.lock();
        all.adopted = generation;
        all.metrics.retain(|(of, _), _| *of >= generation);
    }

    /// A generation that was not taken.
    pub fn forget(&self, generation: u64) {
        let mut all = self.lock();
        let adopted = all.adopted;
        all.metrics
            .retain(|(of, _), _| *of == adopted || *of != generation);
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds them to those of other lanes.
    pub fn sum(&self, into: &mut BTreeMap<String, BTreeMap<String, Metric>>) {
        let all = self.lock();
        let adopted = |((of, _), _): &(&(u64, String), &Metrics)| *of == all.adopted;
        for ((_, node), metrics) in all.metrics.iter().filter(adopted) {
            for (name, metric) in metrics.read() {
                let known = into.entry(node.clone()).or_default().entry(name);
                known.and_modify(|sum| sum.merge(&metric)).or_insert(metric);
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaneStatus {
    pub stage: String,
    pub topic: String,
    pub partition: u32,
    /// The generation that works now.
    pub generation: u64,
    pub state: LaneState,
    /// The generation of its last commit since it started; 0 before.
    #[serde(default)]
    pub committed: u64,
    /// Committed: the next offset to be read.
    pub position: Offset,
    /// The end of the partition when the status was asked for.
    pub end: Offset,
    /// Rows since the lane started, counted when they are committed.
    pub rows_in: u64,
    pub rows_out: u64,
    pub rejected: u64,
    pub dropped: u64,
    /// Of those read, the rows that did not fit their topic's schema and went on as nulls.
    #[serde(default)]
    pub nulled: u64,
    pub commits: u64,
    pub retries: u64,
    /// Module alias → digest of what works now.
    pub modules: BTreeMap<String, Digest>,
    /// The last thing that went wrong, also when the lane goes on.
    pub fault: Option<String>,
    /// Hand-overs between generations, oldest first.
    pub handovers: VecDeque<Handover>,
    /// What modules keep, by node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<String, StateStatus>,
}

/// What a module keeps in a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateStatus {
    /// Version of the schema that the log has it in.
    #[serde(default)]
    pub schema: u32,
    /// Timers too.
    pub entries: u64,
    /// About what they take.
    pub bytes: u64,
    /// Microseconds since the epoch, UTC; none before the first batch.
    pub watermark: Option<i64>,
}

/// A table of a node. All tables of a topic are one, which all lanes of this server share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupStatus {
    pub node: String,
    /// What the module calls it.
    pub table: String,
    pub topic: String,
    pub entries: u64,
    /// About what they take, and at most may.
    pub bytes: u64,
    pub bytes_max: u64,
    /// Offsets read of those that the topic keeps, over its partitions.
    pub read: u64,
    pub end: u64,
    /// Records that say nothing here.
    pub without_key: u64,
    /// What goes wrong, or went wrong last.
    pub fault: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum LaneState {
    Starting,
    Running,
    Retrying { why: String },
    Stopped { why: String },
}

impl fmt::Display for LaneState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaneState::Starting => f.write_str("starting"),
            LaneState::Running => f.write_str("running"),
            LaneState::Retrying { why } => write!(f, "retrying: {why}"),
            LaneState::Stopped { why } => write!(f, "stopped: {why}"),
        }
    }
}

/// One generation took over from another between two batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    pub from: u64,
    pub to: u64,
    /// The first offset of the input that the new one worked on.
    pub offset: Offset,
    /// How long the lane stood still for it, in microseconds: from the last batch of the old one to
    /// the first of the new one, while the last commits ended and state was migrated.
    #[serde(default)]
    pub gap_us: u64,
    /// The new one failed before its first commit, and the old one went on.
    pub rolled_back: Option<String>,
}

impl LaneStatus {
    /// The last hand-over that was not taken and why, if a generation before it still works.
    pub fn rolled_back(&self) -> Option<(&Handover, &str)> {
        let mut all = self.handovers.iter().rev();
        let last = all.find(|handover| handover.to > self.generation)?;
        Some((last, last.rolled_back.as_deref()?))
    }

    pub(crate) fn handover(&mut self, handover: Handover) {
        if self.handovers.len() >= HANDOVERS_KEPT_MAX {
            self.handovers.pop_front();
        }
        self.handovers.push_back(handover);
    }
}
