//! What a canary found, for people and programs.
//!
//! Called by: `canary` fills it, `status` and the server hand it on. Invariants: plain data; lists
//! and texts are bounded; a record is counted once, under one difference.

use std::collections::BTreeMap;
use std::fmt;

use model::ids::{Digest, Offset};
use serde::{Deserialize, Serialize};

use super::compare::Compared;

/// A candidate beside the version that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryReport {
    pub node: String,
    /// Alias of the module in the pipeline's file.
    pub module: String,
    /// What runs.
    pub running: Digest,
    /// What runs in its shadow.
    pub candidate: Digest,
    /// The pipeline's generation that it is compared with.
    pub generation: u64,
    pub state: CanaryState,
    /// Records of the source topic that were compared, and those among them that came to the same.
    pub records: u64,
    pub same: u64,
    pub differences: BTreeMap<Difference, u64>,
    /// What differs in records of `content`: key, value, time, headers.
    pub content: BTreeMap<String, u64>,
    /// Records that only the candidate rejected, by code.
    pub failures: BTreeMap<String, u64>,
    /// Batches compared, and those among them whose rows are the same but in another order.
    pub batches: u64,
    pub reordered: u64,
    /// What was committed meanwhile without being compared: the candidate was too slow, or, of a node that
    /// keeps state, waited for a copy of it after a batch that it missed.
    pub skipped_batches: u64,
    pub skipped_records: u64,
    /// Wall clock of the node for what was compared, in microseconds.
    pub running_us: u64,
    pub candidate_us: u64,
    /// What both changed of the state, of a node that keeps some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeptReport>,
    /// The last time the candidate's instance ended or said no.
    pub fault: Option<String>,
    /// The first records of each difference.
    pub examples: Vec<Example>,
}

/// A candidate works on copies of what the lanes keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptReport {
    /// Copies that were made: one a lane, and one each time that batches were left out.
    pub copies: u64,
    /// Copies among them that the candidate migrated to its schema.
    pub migrated: u64,
    /// Entries and timers changed in the batches that were compared.
    pub running: u64,
    pub candidate: u64,
    /// Batches in which not as many were changed.
    pub batches_differ: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum CanaryState {
    Running,
    /// It saw what it was to see, or the pipeline changed under it.
    Done {
        why: String,
    },
    /// The candidate could not go on.
    Failed {
        why: String,
    },
}

impl fmt::Display for CanaryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CanaryState::Running => f.write_str("running"),
            CanaryState::Done { why } => write!(f, "done: {why}"),
            CanaryState::Failed { why } => write!(f, "failed: {why}"),
        }
    }
}

/// How a record differs; the first that fits counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Difference {
    /// Only the candidate rejected it.
    Failed,
    /// Only the running version rejected it.
    Mended,
    /// Both rejected it, with different codes.
    Code,
    /// Another number of rows came of it.
    Rows,
    /// As many rows, but on other outputs.
    Port,
    /// The same outputs, but keys, values, times or headers differ.
    Content,
}

impl Difference {
    pub const ALL: [Difference; 6] = [
        Difference::Failed,
        Difference::Mended,
        Difference::Code,
        Difference::Rows,
        Difference::Port,
        Difference::Content,
    ];

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Difference::Failed => "only the candidate rejected it",
            Difference::Mended => "only the running version rejected it",
            Difference::Code => "rejected with another code",
            Difference::Rows => "another number of rows",
            Difference::Port => "on another output",
            Difference::Content => "other content",
        }
    }
}

/// A record that came to something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    pub partition: u32,
    pub offset: Offset,
    pub difference: Difference,
    /// What differs of the content.
    pub content: Vec<String>,
    /// The value as the node was given it.
    pub input: String,
    /// What became of it: `OUTPUT: VALUE` a row, or why it was rejected.
    pub running: Vec<String>,
    pub candidate: Vec<String>,
}

impl CanaryReport {
    /// A batch was compared.
    pub(crate) fn add(&mut self, found: Compared) {
        self.batches += 1;
        self.records += found.records;
        self.same += found.same;
        self.reordered += u64::from(found.reordered);
        sum(&mut self.differences, found.differences);
        sum(&mut self.content, found.content);
        sum(&mut self.failures, found.failures);
        self.examples.extend(found.examples);
    }

    /// Before anything was compared.
    pub(crate) fn new(of: &super::Of) -> CanaryReport {
        CanaryReport {
            node: of.node.clone(),
            module: of.alias.clone(),
            running: of.running,
            candidate: of.candidate,
            generation: of.generation,
            state: CanaryState::Running,
            records: 0,
            same: 0,
            differences: BTreeMap::new(),
            content: BTreeMap::new(),
            failures: BTreeMap::new(),
            batches: 0,
            reordered: 0,
            skipped_batches: 0,
            skipped_records: 0,
            running_us: 0,
            candidate_us: 0,
            kept: None,
            fault: None,
            examples: Vec::new(),
        }
    }
}

fn sum<K: Ord>(all: &mut BTreeMap<K, u64>, more: BTreeMap<K, u64>) {
    for (what, count) in more {
        *all.entry(what).or_default() += count;
    }
}
