//! The messages, one file per family.
//!
//! What: plain structs, request and reply side by side, with their bodies' encoding.
//! Called by: `table`, which gives each its number.
//! Invariants: Produce and Fetch are fixed little-endian fields and encoded batches; every other
//! body is one JSON document, whose unknown fields are ignored.

mod group;
mod hello;
mod lookup;
mod module;
mod pipeline;
mod record;
mod sql;
mod status;
mod topic;

pub use group::*;
pub use hello::*;
pub use lookup::*;
pub use module::*;
pub use pipeline::*;
pub use record::*;
pub use sql::*;
pub use status::*;
pub use topic::*;

#[cfg(test)]
mod tests;
