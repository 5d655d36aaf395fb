//! JSON objects as columns, one object a row.
//!
//! Called by storage, pipelines and sql through [`JsonDecoder`] and [`encode_json`].
//!
//! How a field is read, and written:
//! - `bool`: `true`, `false`. `int64`: a number without a fraction (`3`, also `3.0` and `3e2` up
//!   to 2^53). `float64`: any number; NaN and infinities are written as `null`.
//! - `string`: a string, nothing else. `bytes`: a string of standard base64 with padding.
//! - `timestamp`: an RFC 3339 string with a zone, or an integer, which is microseconds since the
//!   epoch, UTC. Written as RFC 3339 with microseconds and `Z`.
//! - `null` and a missing field are null; fields the schema does not name are ignored; of a field
//!   named twice the last counts. A null value (a tombstone) is a row of nulls and no error.
//!
//! Own scanner instead of `arrow-json`: that one reads numbers out of strings and cuts fractions
//! off integers silently, and fails whole batches where one row is bad.

mod cell;
mod decode;
mod encode;
mod scan;
#[cfg(test)]
mod tests;

pub use decode::JsonDecoder;
pub use encode::{BytesAs, EncodeError, JsonEncoder, encode_json};
