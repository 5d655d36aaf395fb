//! Columns to Avro: one datum a value, fields in the schema's order, without a head.
//!
//! Called by [`crate::Format`]. What it writes, the decoder reads back.
//! Invariants: as many values as rows; no row depends on another; a row that does not fit the
//! schema is named and leaves no bytes.
//! Refuses: a result beyond `i32::MAX` bytes, types a topic's schema does not have.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, TimeUnit};
use arrow::record_batch::RecordBatch;
use model::schema::avro::{AvroField, AvroRecord, AvroType, Branches};

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

enum Column<'a> {
    Bool(&'a BooleanArray),
    Int(&'a Int64Array),
    Float(&'a Float64Array),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    Time(&'a TimestampMicrosecondArray),
}

impl AvroEncoder {
    pub(crate) fn new(record: &AvroRecord) -> AvroEncoder {
        AvroEncoder {
            fields: record.fields.as_slice().into(),
        }
    }

    pub(crate) fn write(&self, batch: &RecordBatch) -> Result<Written, EncodeError> {
        let schema = batch.schema_ref();
        let columns = schema.fields().iter().zip(batch.columns());
        let columns: Vec<Column<'_>> = columns
            .map(|(field, array)| Column::of(field, array))
            .collect::<Result<_, _>>()?;
        let rows = batch.num_rows();
        let mut values = Values::new(rows, columns.len() * 6);
        let mut errors = Vec::new();
        for row in 0..rows {
            let begin = values.data().len();
            for (field, column) in self.fields.iter().zip(&columns) {
                if let Err(what) = column.write(field, row, values.data()) {
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

    fn array(&self) -> &dyn Array {
        match self {
            Column::Bool(a) => *a,
            Column::Int(a) => *a,
            Column::Float(a) => *a,
            Column::Text(a) => *a,
            Column::Bytes(a) => *a,
            Column::Time(a) => *a,
        }
    }

    /// Appends the cell, with the branch of its union.
    fn write(&self, field: &AvroField, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        if self.array().is_null(row) {
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
        self.value(&field.ty, row, out)
    }

    fn value(&self, ty: &AvroType, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        match (self, ty) {
            (Column::Bool(a), AvroType::Boolean) => out.push(a.value(row).into()),
            (Column::Int(a), AvroType::Long) => push_long(out, a.value(row)),
            (Column::Int(a), AvroType::Int) => push_int(out, a.value(row))?,
            (Column::Float(a), AvroType::Double) => {
                out.extend_from_slice(&a.value(row).to_le_bytes());
            }
            (Column::Float(a), AvroType::Float) => push_float(out, a.value(row))?,
            (Column::Text(a), AvroType::String) => push_bytes(out, a.value(row).as_bytes()),
            (Column::Text(a), AvroType::Enum { symbols, .. }) => {
                let text = a.value(row);
                let index = symbols.iter().position(|symbol| symbol == text);
                let index = index.ok_or_else(|| format!("`{}` is no symbol of it", shown(text)))?;
                push_long(out, index as i64);
            }
            (Column::Bytes(a), AvroType::Bytes) => push_bytes(out, a.value(row)),
            (Column::Bytes(a), AvroType::Fixed { size, .. }) => {
                let bytes = a.value(row);
                if bytes.len() != *size {
                    return Err(format!("it has {} bytes", bytes.len()));
                }
                out.extend_from_slice(bytes);
            }
            (Column::Time(a), AvroType::TimestampMicros) => push_long(out, a.value(row)),
            (Column::Time(a), AvroType::TimestampMillis) => {
                push_long(out, a.value(row).div_euclid(MICROS_PER_MILLI));
            }
            (Column::Time(a), AvroType::Date) => {
                push_long(out, a.value(row).div_euclid(MICROS_PER_DAY));
            }
            (Column::Text(_), AvroType::Null) => {
                return Err("it is not null, and the schema has only null there".to_owned());
            }
            _ => return Err("its column has another type".to_owned()),
        }
        Ok(())
    }
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
