//! SQL over topics: hot and tiered rows of one moment in one query, read only.
//!
//! Called by server (`rustmq sql`, `POST /v1/sql`). The only room that links DataFusion's
//! scans; plans and runs on threads of its own, so a heavy query does not hold up the broker.
//!
//! Invariants: a query sees each topic at one moment, each record once; a result ends within the
//! time and row limits or says that it did not; memory of all queries together is bounded.
//! Refuses: everything that writes, sets, or reaches outside of topics and system tables.

mod catalog;
mod cold;
mod engine;
mod error;
mod hot;
mod limits;
mod object;
mod prune;
pub mod render;
mod statement;
mod stop;
mod stream;
mod system;
mod topic;

pub use engine::{Engine, QueryOptions};
pub use error::SqlError;
pub use limits::SqlLimits;
pub use render::{Format, render};
pub use stream::QueryStream;

#[cfg(test)]
mod tests;
