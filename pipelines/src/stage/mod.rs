//! A stage: one source topic, the nodes fused behind it, and its lanes.
//!
//! - `build` a stage's program from the spec and the catalog
//! - `needs` which columns of an edge are decoded
//! - `run` one batch through the nodes, synchronously
//! - `commit` what a batch wrote as one atomic commit; `deadletter` its rejected rows
//! - `state` what modules keep from batch to batch
//! - `read` batches cut by policy, `pace` how many rows they have; `opening` and `flight` what is under
//!   way; `lane` the task that joins all of it
//!
//! Called by: `runtime`. Invariants: a program is immutable and shared by the lanes of its
//! stage; a lane changes its program only between two batches.

pub(crate) mod build;
pub(crate) mod commit;
pub(crate) mod deadletter;
pub(crate) mod flight;
pub(crate) mod lane;
pub(crate) mod needs;
pub(crate) mod opening;
pub(crate) mod pace;
pub(crate) mod read;
pub(crate) mod run;
pub(crate) mod state;

use std::collections::BTreeMap;
use std::time::Duration;

use codec::Format;
use expr::{Expr, Predicate};
use model::ids::{Digest, TopicId};
use model::schema::Field;

use crate::lookup::Lookup;
use crate::operator::program::Program as WasmProgram;

/// Everything that the lanes of a stage run, of one generation.
pub(crate) struct Stage {
    pub pipeline: String,
    /// The name of the source.
    pub name: String,
    pub group: String,
    pub generation: u64,
    pub topic: TopicId,
    pub topic_name: String,
    pub partitions: u32,
    /// In the order they run; the source first.
    pub nodes: Vec<StageNode>,
    pub batch: Batching,
    pub modules: BTreeMap<String, Digest>,
}

impl Stage {
    /// An output of a node; none for an input that comes from another stage.
    pub fn port(&self, node: usize, port: usize) -> Option<&Port> {
        self.nodes.get(node)?.ports.get(port)
    }

    /// How the values of the source's topic are read, where they have columns.
    pub fn source_format(&self) -> Option<&Format> {
        self.port(0, 0)?.format.as_ref()
    }
}

pub(crate) struct StageNode {
    pub name: String,
    /// Numbers in `nodes` and ports of what it reads.
    pub inputs: Vec<(usize, usize)>,
    /// The only edge that rows come by; empty where there are several, or none.
    pub edge: String,
    pub op: Op,
    pub ports: Vec<Port>,
    pub then: Disposal,
    /// What a dead letter names as the module.
    pub module: Option<Digest>,
    /// What the module keeps from batch to batch.
    pub kept: Option<state::Kept>,
    /// The tables that the module looks into, in the order of its numbers for them.
    pub lookups: Vec<Lookup>,
}

pub(crate) enum Op {
    Source,
    Filter(Predicate),
    Route(Vec<Predicate>),
    Map {
        select: Vec<(Field, Expr)>,
        format: Format,
        key: Option<Expr>,
    },
    Wasm(Box<WasmProgram>),
    Sink {
        topic: TopicId,
        partitions: u32,
        /// Each record must have a key then.
        is_compacted: bool,
        key: Option<Expr>,
        /// How values are written again, where they must be.
        format: Option<Format>,
    },
}

/// An output, and what its values are, where that is known.
pub(crate) struct Port {
    pub name: String,
    pub format: Option<Format>,
}

/// What becomes of a rejected row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Disposal {
    Stop,
    Drop,
    DeadLetter { topic: TopicId, partitions: u32 },
}

/// How input is cut into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batching {
    /// Rows that are enough to begin with.
    pub rows: u32,
    /// Rows that a lane may take at once where more are there.
    pub rows_max: u32,
    pub bytes: u64,
    /// How long less than enough is waited for.
    pub wait_ms: u64,
    /// Batches that take no longer, in processor time, may become larger.
    pub quick: Duration,
}

impl Batching {
    /// Row by row.
    pub const ONE: Batching = Batching {
        rows: 1,
        rows_max: 1,
        bytes: 1,
        wait_ms: 0,
        quick: Duration::ZERO,
    };
}
