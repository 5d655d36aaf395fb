//! Pipelines: from a YAML file to lanes that move records, exactly once and in order.
//!
//! - `spec` the file: read, checked, all errors with line and column
//! - `graph`, `compile`, `lint` its meaning: order, fields of edges, expressions
//! - `plan` what applying it would do: stages, fused nodes, reload class of each change
//!
//! Called by: server (service, command line). Invariants: a stage commits its input position
//! together with everything it wrote; guests run on worker threads, never in an async task;
//! every queue is bounded. Refuses: everything `lint` calls an error.

mod compile;
pub mod graph;
pub mod limits;
pub mod lint;
pub mod plan;
pub mod spec;

pub use lint::lint;
pub use plan::{Change, Plan, Reload, plan};
pub use spec::{Spec, Surroundings, freeze, json_schema, parse, parse_with};
