//! CSV as columns: a value is one row (a record of RFC 4180), its fields in the schema's order.
//!
//! Called by storage, pipelines and sql through [`crate::Format`].
//!
//! How a field is read, and written:
//! - an empty field is null, `""` is the text without characters. `bool`: `true`, `false`.
//!   `int64`: digits with a sign or none. `float64`: any finite number; others are written empty.
//! - `string`: the text, in double quotes where it holds a comma, a quote or a line end, or would
//!   be empty. `bytes`: standard base64 with padding.
//! - `timestamp`: RFC 3339 with a zone, or an integer, which is microseconds since the epoch, UTC.
//!   Written as RFC 3339 with microseconds and `Z`.
//! - A row has as many fields as the schema. One line end behind it is allowed, so lines can be
//!   sent as they are; none is written. A null value (a tombstone) is a row of nulls and no error.
//!
//! Own scanner instead of crate `csv`: that one does not tell an empty field from `""`.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use read::CsvDecoder;
pub(crate) use write::encode_csv;
