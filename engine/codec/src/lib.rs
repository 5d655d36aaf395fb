//! Payloads as columns: turns the values of a topic with a schema into Arrow columns and back.
//!
//! Called by storage (typed columns of the tier), pipelines (edges between nodes) and sql (hot
//! rows, rendering). Pure: no clock, no files, no tasks.
//!
//! Invariants: decoding keeps the row count; one bad row never spoils another; what
//! [`encode_json`] writes, [`JsonDecoder`] reads back to the same columns.
//! Refuses: codecs that are not built yet (csv, avro, columns), column types JSON has no form for.

mod column;
mod format;
pub mod json;
pub mod time;

pub use format::{Format, Projection, finite};
pub use json::{BytesAs, DecodeError, Decoded, EncodeError, JsonDecoder, JsonEncoder, encode_json};
