//! Payloads as columns: turns the values of a topic with a schema into Arrow columns and back.
//!
//! Called by storage (typed columns of the tier), pipelines (edges between nodes) and sql (hot
//! rows, rendering). Pure: no clock, no files, no tasks.
//!
//! Invariants: decoding keeps the row count; one bad row never spoils another; what a
//! [`Format`] writes, it reads back to the same columns.
//! Refuses: raw values, column types a codec has no form for.

mod avro;
mod cells;
mod column;
mod csv;
mod format;
pub mod json;
pub mod time;
mod values;

pub use column::Decoded;
pub use format::{Format, Projection, Written, all_finite, finite};
pub use json::{BytesAs, EncodeError, JsonDecoder, JsonEncoder, encode_json};
