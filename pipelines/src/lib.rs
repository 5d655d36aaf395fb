//! Pipelines: from a YAML file to lanes that move records, exactly once and in order.
//!
//! - `spec` the file: read, checked, all errors with line and column
//! - `graph`, `compile`, `lint` its meaning: order, fields of edges, expressions
//! - `plan` what applying it would do: stages, fused nodes, reload class of each change
//! - `operator` filter, map, route, wasm, sink over chunks of rows
//! - `lookup` topics as tables in memory, for modules that look into them
//! - `stage` one source and what is fused behind it: lanes, commits, dead letters
//! - `canary` a new version of a module in the shadow of the one that runs
//! - `prepare`, `runtime`, `positions` starting, changing and removing pipelines; `status` what they do
//!
//! Called by: server (service, command line). Invariants: a stage commits its input position
//! together with everything it wrote; guests run on worker threads, never in an async task;
//! every queue is bounded. Refuses: everything `lint` calls an error.

mod canary;
mod compile;
pub mod error;
pub mod graph;
pub mod limits;
pub mod lint;
mod lookup;
mod operator;
pub mod plan;
mod positions;
mod prepare;
mod runtime;
pub mod spec;
mod stage;
pub mod status;
#[cfg(test)]
mod tests;

pub use canary::Until;
pub use canary::report::{CanaryReport, CanaryState, Difference, Example, KeptReport};
pub use error::{CanaryError, RemoveError, StartError};
pub use lint::lint;
pub use plan::{Change, Held, Kept, KeptSchema, Plan, Previous, Reload, plan};
pub use prepare::Prepared;
pub use runtime::{Deps, Runtime};
pub use spec::{Spec, Surroundings, freeze, json_schema, parse, parse_with};
pub use stage::state::{state_prefix, state_topic};
pub use status::{Handover, LaneState, LaneStatus, LookupStatus, PipelineStatus, StateStatus};
pub use wasm::Metric;
