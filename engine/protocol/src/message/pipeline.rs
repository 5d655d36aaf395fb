//! Pipelines: lint, plan, apply, and looking at them.
//!
//! What: admin messages, JSON. Called by: `rustmq pipeline`, `rustmq pipeline canary`.
//! Invariants: the YAML travels as written, with the environment replaced; diagnostics travel as
//! data, all of them. Plan, status and description are documents of the `pipelines` room, which
//! this room does not know: they travel as JSON values.

use std::collections::BTreeMap;

use model::diagnostic::Diagnostic;
use model::ids::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wire::json_bodies;

/// A pipeline file and the modules it names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineFile {
    /// Its name, for diagnostics.
    pub file: String,
    pub yaml: String,
    /// By the alias in the file.
    pub modules: BTreeMap<String, Digest>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineLint {
    pub file: PipelineFile,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineLinted {
    pub diagnostics: Vec<Diagnostic>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelinePlan {
    pub file: PipelineFile,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelinePlanned {
    /// For people.
    pub text: String,
    /// For `--json`.
    pub plan: Value,
    pub diagnostics: Vec<Diagnostic>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineApply {
    pub file: PipelineFile,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineApplied {
    pub name: String,
    pub generation: u64,
    /// What was changed, for people.
    pub text: String,
    /// The same for `--json`; null from a server that does not say it yet.
    #[serde(default)]
    pub plan: Value,
    /// Warnings only: an error refuses the apply.
    pub diagnostics: Vec<Diagnostic>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineList {}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pipelines {
    pub pipelines: Vec<PipelineInfo>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineInfo {
    pub name: String,
    pub generation: u64,
    pub file: String,
    pub lanes: u32,
    /// One word: running, retrying, stopped.
    pub state: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineDescribe {
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineDescription {
    pub name: String,
    pub generation: u64,
    pub file: PipelineFile,
    /// Lanes and their positions; null if it does not run.
    pub status: Value,
    /// Why it did not start with the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_started: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineDelete {
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineDeleted {}

/// Lets a stored module run in the shadow of the one that a node runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CanaryStart {
    pub pipeline: String,
    pub node: String,
    pub module: Digest,
    /// Enough, when so many records were compared.
    pub records: Option<u64>,
    /// Enough, after so many milliseconds.
    pub time_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CanaryStarted {
    pub report: Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CanaryShow {
    pub pipeline: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CanaryShown {
    pub report: Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CanaryPromote {
    pub pipeline: String,
    /// Also when it failed, or when nothing was compared.
    pub force: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CanaryPromoted {
    pub generation: u64,
    /// The last report.
    pub report: Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CanaryStop {
    pub pipeline: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CanaryStopped {
    /// The last report.
    pub report: Value,
}

json_bodies!(
    PipelineLint,
    PipelineLinted,
    PipelinePlan,
    PipelinePlanned,
    PipelineApply,
    PipelineApplied,
    PipelineList,
    Pipelines,
    PipelineDescribe,
    PipelineDescription,
    PipelineDelete,
    PipelineDeleted,
    CanaryStart,
    CanaryStarted,
    CanaryShow,
    CanaryShown,
    CanaryPromote,
    CanaryPromoted,
    CanaryStop,
    CanaryStopped,
);
