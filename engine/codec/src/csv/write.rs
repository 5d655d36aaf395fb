//! Columns to CSV: one row a value, fields in the schema's order, nulls empty.
//!
//! Called by [`crate::Format`]. What it writes, the decoder reads back.
//! Invariants: as many values as rows; no row depends on another.
//! Refuses: a result beyond `i32::MAX` bytes, types a topic's schema does not have.

use arrow::array::BinaryArray;
use arrow::record_batch::RecordBatch;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cells::Cells;
use crate::json::EncodeError;
use crate::time::format_rfc3339;
use crate::values::{Values, push_float, push_int};

/// Writes each row as CSV, without a line end.
pub(crate) fn encode_csv(batch: &RecordBatch) -> Result<BinaryArray, EncodeError> {
    let columns = Cells::of(batch)?;
    let rows = batch.num_rows();
    let mut values = Values::new(rows, columns.len() * 12);
    for row in 0..rows {
        for (number, column) in columns.iter().enumerate() {
            if number > 0 {
                values.data().push(b',');
            }
            write(column, row, values.data());
        }
        values.end_row()?;
    }
    Ok(values.finish())
}

fn write(column: &Cells<'_>, row: usize, out: &mut Vec<u8>) {
    if column.is_null(row) {
        return;
    }
    match column {
        Cells::Bool(a) => out.extend_from_slice(if a.value(row) { b"true" } else { b"false" }),
        Cells::Int(a) => push_int(out, a.value(row)),
        Cells::Float(a) if a.value(row).is_finite() => push_float(out, a.value(row)),
        // as null
        Cells::Float(_) => {}
        Cells::Text(a) => push_text(out, a.value(row)),
        Cells::Bytes(a) => push_text(out, &STANDARD.encode(a.value(row))),
        Cells::Time(a) => push_time(out, a.value(row)),
    }
}

/// Outside the years that RFC 3339 knows the number itself stands.
fn push_time(out: &mut Vec<u8>, micros: i64) {
    if !format_rfc3339(micros, out) {
        push_int(out, micros);
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    if !text.is_empty() && !text.contains([',', '"', '\n', '\r']) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}
