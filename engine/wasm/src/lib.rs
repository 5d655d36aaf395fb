//! The sandbox: runs WASM modules over batches. The only room that links wasmtime.
//!
//! - [`Host`] one engine, its ticker and the compiled-code cache; [`check`] what a module is and
//!   whether it may be loaded, decided before anything is compiled
//! - [`sign`] who vouches for a module
//! - [`compile`] compiling in a process of its own
//! - [`Description`] what a module says of itself, read without running it
//! - [`Module`] compiled and linked, cheap to clone; [`Guest`] one warm instance, owned by a lane
//! - `link` the functions of `wit/`, one file an interface; `list`, `column`, `number` how columns
//!   cross, `wide` in which loops; `fields` which of them; `outbox` what a call emits, validated;
//!   `telemetry` what it tells; `state` what it keeps; `lookup` the tables it looks into; [`http`] what it
//!   asks of others; [`Ambient`] what it has of the machine's clocks and randomness
//!
//! Called by: pipelines (lanes), server (`module inspect`, `module build`), benches.
//! Invariants: nothing is granted by default; a guest's values are never trusted; what a call
//! emitted counts only if it returned ok; after a trap the instance is gone.
//! Refuses: imports that were not granted, plain core modules, WASI beyond clocks, randomness and
//! deny-everything stubs.

mod ambient;
mod cache;
pub mod check;
mod column;
pub mod compile;
mod deadline;
pub mod describe;
mod error;
mod fields;
mod guest;
mod host;
pub mod http;
mod limits;
mod link;
mod list;
mod lookup;
mod number;
mod outbox;
mod packages;
mod section;
pub mod sign;
mod state;
mod telemetry;
mod wide;
pub mod world;

pub use ambient::Ambient;
pub use check::{Grants, Kind, ModuleInfo};
pub use deadline::thread_cpu_time;
pub use describe::Description;
pub use error::{HostError, InspectError, LoadError, OpenError, ProcessError};
pub use guest::{Batch, Edge, Entry, Guest, Input, Module, OpenContext};
pub use host::{Host, HostConfig};
pub use limits::{COMPILE_CPU_S, COMPILE_MEMORY_BYTES, Limits};
pub use lookup::{Lookups, Pinned, Reading, Table, TableFull, View};
pub use outbox::{Emission, Outcome, Rejection, Retry};
pub use sign::{PublicKey, SigningKey, Trust};
pub use state::{Keyed, Old, StateError, Timer};
pub use telemetry::{Labels, Metric, Metrics};

#[cfg(test)]
mod tests;
