//! One field of one row, from any JSON value: the way of what the decoder's fast ways leave over,
//! and the judge of what is wrong.
//!
//! Called by the decoder.
//! Invariants: a cell is of its field's type; what the fast ways read is read the same here.

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
