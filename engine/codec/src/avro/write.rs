//! Columns to Avro: one datum a value, fields in the schema's order, without a head.
//!
//! Called by [`crate::Format`]. What it writes, the decoder reads back.
//! Invariants: as many values as rows; no row depends on another; a row that does not fit the
//! schema is named and leaves no bytes.
//! Refuses: a result beyond `i32::MAX` bytes, types a topic's schema does not have.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use model::schema::avro::{AvroField, AvroRecord, AvroType, Branches};

use crate::cells::Cells;
use crate::column::shown;
use crate::format::Written;
use crate::json::EncodeError;
use crate::values::Values;

const MICROS_PER_MILLI: i64 = 1_000;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Writes datums of one schema.
#[derive(Debug, Clone)]
pub(crate) struct AvroEncoder {
    fields: Arc<[AvroField]>,
}

impl AvroEncoder {
    pub(crate) fn new(record: &AvroRecord) -> AvroEncoder {
        AvroEncoder {
            fields: record.fields.as_slice().into(),
        }
    }

    pub(crate) fn write(&self, batch: &RecordBatch) -> Result<Written, EncodeError> {
        let columns = Cells::of(batch)?;
        let rows = batch.num_rows();
        let mut values = Values::new(rows, columns.len() * 6);
        let mut errors = Vec::new();
        for row in 0..rows {
            let begin = values.data().len();
            for (field, column) in self.fields.iter().zip(&columns) {
                if let Err(what) = write(column, field, row, values.data()) {
                    values.data().truncate(begin);
                    let AvroField { name, ty, .. } = field;
                    errors.push((row as u32, format!("field `{name}` (Avro {ty}): {what}")));
                    break;
                }
            }
            values.end_row()?;
        }
        Ok(Written {
            values: values.finish(),
            errors,
        })
    }
}

/// Appends the cell, with the branch of its union.
fn write(
    column: &Cells<'_>,
    field: &AvroField,
    row: usize,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    if column.is_null(row) {
        match (field.branches, &field.ty) {
            (Branches::NullFirst, _) => out.push(0),
            (Branches::NullLast, _) => push_long(out, 1),
            (Branches::One, AvroType::Null) => out.push(0),
            (Branches::None, AvroType::Null) => {}
            _ => return Err("it is null, and the schema has no null there".to_owned()),
        }
        return Ok(());
    }
    match field.branches {
        Branches::None => {}
        Branches::One | Branches::NullLast => out.push(0),
        Branches::NullFirst => push_long(out, 1),
    }
    value(column, &field.ty, row, out)
}

fn value(column: &Cells<'_>, ty: &AvroType, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
    match (column, ty) {
        (Cells::Bool(a), AvroType::Boolean) => out.push(a.value(row).into()),
        (Cells::Int(a), AvroType::Long) => push_long(out, a.value(row)),
        (Cells::Int(a), AvroType::Int) => push_int(out, a.value(row))?,
        (Cells::Float(a), AvroType::Double) => {
            out.extend_from_slice(&a.value(row).to_le_bytes());
        }
        (Cells::Float(a), AvroType::Float) => push_float(out, a.value(row))?,
        (Cells::Text(a), AvroType::String) => push_bytes(out, a.value(row).as_bytes()),
        (Cells::Text(a), AvroType::Enum { symbols, .. }) => {
            let text = a.value(row);
            let index = symbols.iter().position(|symbol| symbol == text);
            let index = index.ok_or_else(|| format!("`{}` is no symbol of it", shown(text)))?;
            push_long(out, index as i64);
        }
        (Cells::Bytes(a), AvroType::Bytes) => push_bytes(out, a.value(row)),
        (Cells::Bytes(a), AvroType::Fixed { size, .. }) => {
            let bytes = a.value(row);
            if bytes.len() != *size {
                return Err(format!("it has {} bytes", bytes.len()));
            }
            out.extend_from_slice(bytes);
        }
        (Cells::Time(a), AvroType::TimestampMicros) => push_long(out, a.value(row)),
        (Cells::Time(a), AvroType::TimestampMillis) => {
            push_long(out, a.value(row).div_euclid(MICROS_PER_MILLI));
        }
        (Cells::Time(a), AvroType::Date) => {
            push_long(out, a.value(row).div_euclid(MICROS_PER_DAY));
        }
        (Cells::Text(_), AvroType::Null) => {
            return Err("it is not null, and the schema has only null there".to_owned());
        }
        _ => return Err("its column has another type".to_owned()),
    }
    Ok(())
}

fn push_int(out: &mut Vec<u8>, number: i64) -> Result<(), String> {
    if i32::try_from(number).is_err() {
        return Err(format!("{number} has more than 32 bits"));
    }
    push_long(out, number);
    Ok(())
}

/// Rounded to the nearest float of 32 bits.
fn push_float(out: &mut Vec<u8>, number: f64) -> Result<(), String> {
    let rounded = number as f32;
    if number.is_finite() && !rounded.is_finite() {
        return Err(format!("{number:e} does not fit 32 bits"));
    }
    out.extend_from_slice(&rounded.to_le_bytes());
    Ok(())
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

/// A variable-length zig-zag number.
#[inline]
fn push_long(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
