//! Why a pipeline was not started or removed.
//!
//! Called by: `runtime`. Invariant: each message says what to do.

use model::port::LogError;

use crate::stage::build::NoTopic;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    NoTopic(#[from] NoTopic),
    #[error(
        "pipeline `{pipeline}` cannot take this change while it exists ({what}); delete it first, \
         then apply it again"
    )]
    Reset { pipeline: String, what: String },
    #[error("the start of source `{source_name}` cannot be found: {error}")]
    Start {
        source_name: String,
        error: LogError,
    },
    #[error("the positions of pipeline `{pipeline}` cannot be written: {error}")]
    Positions { pipeline: String, error: LogError },
    #[error("the runtime is shutting down")]
    Closed,
}

/// Why there is no canary.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    #[error("no pipeline `{0}` runs")]
    Unknown(String),
    #[error("pipeline `{pipeline}` has no node `{node}` that runs a module; it has: {nodes}")]
    Node {
        pipeline: String,
        node: String,
        nodes: String,
    },
    #[error(
        "module `{module}` also runs in node `{other}`, which would be promoted unseen: give the \
         two nodes an entry under `modules` each, and apply that first"
    )]
    Alias { module: String, other: String },
    #[error(
        "the file names module `{module}` by its digest, which a promotion would contradict: put \
         the new digest into the file and apply it"
    )]
    Pinned { module: String },
    #[error("a canary runs in node `{0}`; stop it first")]
    Runs(String),
    #[error(
        "lane {lane} of topic {topic} works with generation {works}, because generation {generation}, which \
         a canary would be compared with, was rolled back ({why}): apply a version that the lanes take \
         first"
    )]
    RolledBack {
        topic: String,
        lane: u32,
        works: u64,
        generation: u64,
        why: String,
    },
    #[error("the module cannot be loaded: {0}")]
    Load(String),
    #[error("the module does not open in node `{node}`: {why}")]
    Open { node: String, why: String },
    #[error(
        "one of the two versions keeps state and the other does not: there is nothing to compare it on; \
         `rustmq pipeline plan` says what applying it would do"
    )]
    Stateful,
    #[error(
        "the lanes keep their state with schema {from}, and the candidate, whose schema is {to}, does not \
         take over from it: give it a migration (`migrate` from {from}, beside its state schema {to})"
    )]
    Schema { from: u32, to: u32 },
    #[error("{0}")]
    Room(String),
    #[error(
        "the module is granted {method} requests, and a canary would send them a second time: only modules \
         that are granted nothing but GET and HEAD have one"
    )]
    Writes { method: String },
    #[error("the pipeline was changed meanwhile; try again")]
    Changed,
    #[error("no thread for it: {0}")]
    Thread(std::io::Error),
}

#[derive(Debug, thiserror::Error)]
#[error(
    "pipeline `{pipeline}` was stopped, but its positions are still there: {error}; delete it again, so \
     that nothing of it stays"
)]
pub struct RemoveError {
    pub pipeline: String,
    pub error: LogError,
}
