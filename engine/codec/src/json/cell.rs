//! One field of one row while its row is being read, and the growing column it ends in.
//!
//! Called by the decoder: a row's cells are pushed only when the whole row is good.
//! Invariants: a [`Column`] grows by exactly one per push; text never outgrows its source, so
//! `i32` offsets suffice.

use std::sync::Arc;

use arrow::array::builder::{BinaryBuilder, BooleanBuilder, PrimitiveBuilder, StringBuilder};
use arrow::array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::array::{ArrayRef, builder::ArrayBuilder};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::schema::FieldType;

use super::scan::{Text, Value};
use crate::time::parse_rfc3339;

/// A field's value, already of the schema's type.
#[derive(Debug, Clone)]
pub(super) enum Cell<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Text<'a>),
    Bytes(Vec<u8>),
}

/// Largest integer up to which every integer has its own float.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

impl<'a> Cell<'a> {
    /// `Err` says what was expected; `Ok(None)` is null.
    pub(super) fn read(ty: FieldType, value: Value<'a>) -> Result<Option<Cell<'a>>, &'static str> {
        let cell = match (ty, value) {
            (_, Value::Null) => return Ok(None),
            (FieldType::Bool, Value::Bool(b)) => Cell::Bool(b),
            (FieldType::Bool, _) => return Err("true or false"),
            (FieldType::Int64, Value::Number(n)) => {
                Cell::Int(integer(n).ok_or("an integer of 64 bits")?)
            }
            (FieldType::Int64, _) => return Err("an integer"),
            (FieldType::Float64, Value::Number(n)) => {
                let number: f64 = n.parse().map_err(|_| "a number")?;
                if !number.is_finite() {
                    return Err("a number that fits float64");
                }
                Cell::Float(number)
            }
            (FieldType::Float64, _) => return Err("a number"),
            (FieldType::String, Value::Text(text)) => Cell::Text(text),
            (FieldType::String, _) => return Err("a string"),
            (FieldType::Bytes, Value::Text(text)) => Cell::Bytes(
                STANDARD
                    .decode(text.get().as_bytes())
                    .map_err(|_| "a string of base64")?,
            ),
            (FieldType::Bytes, _) => return Err("a string of base64"),
            (FieldType::Timestamp, Value::Text(text)) => {
                Cell::Int(parse_rfc3339(&text.get()).ok_or("an RFC 3339 time with its zone")?)
            }
            (FieldType::Timestamp, Value::Number(n)) => {
                Cell::Int(integer(n).ok_or("whole microseconds since 1970")?)
            }
            (FieldType::Timestamp, _) => return Err("an RFC 3339 time or microseconds"),
        };
        Ok(Some(cell))
    }
}

fn integer(number: &str) -> Option<i64> {
    if let Ok(n) = number.parse() {
        return Some(n);
    }
    if !number.contains(['.', 'e', 'E']) {
        return None;
    }
    let float: f64 = number.parse().ok()?;
    (float.fract() == 0.0 && float.abs() <= EXACT_MAX).then_some(float as i64)
}

/// A column under construction.
pub(super) enum Column {
    Bool(BooleanBuilder),
    Int(PrimitiveBuilder<Int64Type>),
    Float(PrimitiveBuilder<Float64Type>),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Time(PrimitiveBuilder<TimestampMicrosecondType>),
}

impl Column {
    pub(super) fn new(ty: FieldType, rows: usize) -> Column {
        match ty {
            FieldType::Bool => Column::Bool(BooleanBuilder::with_capacity(rows)),
            FieldType::Int64 => Column::Int(PrimitiveBuilder::with_capacity(rows)),
            FieldType::Float64 => Column::Float(PrimitiveBuilder::with_capacity(rows)),
            FieldType::String => Column::Text(StringBuilder::with_capacity(rows, rows * 8)),
            FieldType::Bytes => Column::Bytes(BinaryBuilder::with_capacity(rows, rows * 8)),
            FieldType::Timestamp => {
                Column::Time(PrimitiveBuilder::with_capacity(rows).with_timezone("UTC"))
            }
        }
    }

    pub(super) fn push(&mut self, cell: Option<Cell<'_>>) {
        match (self, cell) {
            (Column::Bool(c), Some(Cell::Bool(b))) => c.append_value(b),
            (Column::Int(c), Some(Cell::Int(n))) => c.append_value(n),
            (Column::Time(c), Some(Cell::Int(n))) => c.append_value(n),
            (Column::Float(c), Some(Cell::Float(n))) => c.append_value(n),
            (Column::Text(c), Some(Cell::Text(text))) if !text.escaped => {
                c.append_value(text.raw);
            }
            (Column::Text(c), Some(Cell::Text(text))) => c.append_value(text.get()),
            (Column::Bytes(c), Some(Cell::Bytes(bytes))) => c.append_value(bytes),
            // `Cell::read` gives a field only cells of its own type, so the rest is null.
            (column, _) => column.push_null(),
        }
    }

    fn push_null(&mut self) {
        match self {
            Column::Bool(c) => c.append_null(),
            Column::Int(c) => c.append_null(),
            Column::Float(c) => c.append_null(),
            Column::Text(c) => c.append_null(),
            Column::Bytes(c) => c.append_null(),
            Column::Time(c) => c.append_null(),
        }
    }

    pub(super) fn finish(self) -> ArrayRef {
        match self {
            Column::Bool(mut c) => Arc::new(c.finish()),
            Column::Int(mut c) => Arc::new(c.finish()),
            Column::Float(mut c) => Arc::new(c.finish()),
            Column::Text(mut c) => Arc::new(c.finish()),
            Column::Bytes(mut c) => Arc::new(c.finish()),
            Column::Time(mut c) => ArrayBuilder::finish(&mut c),
        }
    }
}
