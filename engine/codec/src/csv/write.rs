//! Columns to CSV: one row a value, fields in the schema's order, nulls empty.
//!
//! Called by [`crate::Format`]. What it writes, the decoder reads back.
//! Invariants: as many values as rows; no row depends on another.
//! Refuses: a result beyond `i32::MAX` bytes, types a topic's schema does not have.

use arrow::array::cast::AsArray;
use arrow::array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::array::{Array, ArrayRef, BinaryArray, TimestampMicrosecondArray};
use arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, TimeUnit};
use arrow::record_batch::RecordBatch;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::json::EncodeError;
use crate::time::format_rfc3339;
use crate::values::{Values, push_float, push_int};

enum Column<'a> {
    Bool(&'a BooleanArray),
    Int(&'a Int64Array),
    Float(&'a Float64Array),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    Time(&'a TimestampMicrosecondArray),
}

/// Writes each row as CSV, without a line end.
pub(crate) fn encode_csv(batch: &RecordBatch) -> Result<BinaryArray, EncodeError> {
    let schema = batch.schema_ref();
    let columns = schema.fields().iter().zip(batch.columns());
    let columns: Vec<Column<'_>> = columns
        .map(|(field, array)| Column::of(field, array))
        .collect::<Result<_, _>>()?;
    let rows = batch.num_rows();
    let mut values = Values::new(rows, columns.len() * 12);
    for row in 0..rows {
        for (number, column) in columns.iter().enumerate() {
            if number > 0 {
                values.data().push(b',');
            }
            column.write(row, values.data());
        }
        values.end_row()?;
    }
    Ok(values.finish())
}

impl<'a> Column<'a> {
    fn of(field: &Field, array: &'a ArrayRef) -> Result<Column<'a>, EncodeError> {
        Ok(match array.data_type() {
            DataType::Boolean => Column::Bool(array.as_boolean()),
            DataType::Int64 => Column::Int(array.as_primitive::<Int64Type>()),
            DataType::Float64 => Column::Float(array.as_primitive::<Float64Type>()),
            DataType::Utf8 => Column::Text(array.as_string::<i32>()),
            DataType::Binary => Column::Bytes(array.as_binary::<i32>()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Column::Time(array.as_primitive::<TimestampMicrosecondType>())
            }
            other => {
                return Err(EncodeError::Type {
                    column: field.name().clone(),
                    data_type: other.clone(),
                });
            }
        })
    }

    fn write(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Column::Bool(a) if a.is_valid(row) => {
                out.extend_from_slice(if a.value(row) { b"true" } else { b"false" });
            }
            Column::Int(a) if a.is_valid(row) => push_int(out, a.value(row)),
            Column::Float(a) if a.is_valid(row) && a.value(row).is_finite() => {
                push_float(out, a.value(row));
            }
            Column::Text(a) if a.is_valid(row) => push_text(out, a.value(row)),
            Column::Bytes(a) if a.is_valid(row) => push_text(out, &STANDARD.encode(a.value(row))),
            Column::Time(a) if a.is_valid(row) => push_time(out, a.value(row)),
            // Null.
            _ => {}
        }
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
