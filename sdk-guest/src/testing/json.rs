//! Rows in JSON as typed columns and back, as the host does it, for tests: simple, not fast.
//!
//! Called by: `testing`.
//! Invariants: what the host refuses with code `schema` is refused here; bytes are base64, times
//! RFC 3339; a field that is not there is null, one that nobody asked for is left alone.

use serde_json::{Map, Number, Value};

use super::{Refused, Row};
use crate::sys::Typed;
use crate::time::Timestamp;
use crate::typed::{Field, FieldType};

/// The rows that can be read, as columns, and those that cannot.
pub(super) struct Decoded {
    /// Numbers of the rows that the columns are of.
    pub(super) good: Vec<usize>,
    pub(super) columns: Vec<Typed>,
    pub(super) refused: Vec<Refused>,
}

impl Decoded {
    /// The rows that can be read, of those that were decoded.
    pub(super) fn kept(&self, rows: &[Row]) -> Vec<Row> {
        self.good.iter().map(|row| rows[*row].clone()).collect()
    }
}

pub(super) fn decode(rows: &[Row], fields: &[Field]) -> Decoded {
    let mut decoded = Decoded {
        good: Vec::new(),
        columns: fields.iter().map(|field| Typed::new(field.kind)).collect(),
        refused: Vec::new(),
    };
    for (number, row) in rows.iter().enumerate() {
        match cells(row, fields) {
            Ok(cells) => {
                decoded.good.push(number);
                let columns = decoded.columns.iter_mut();
                columns
                    .zip(cells)
                    .for_each(|(column, cell)| column.push(cell));
            }
            Err(message) => decoded.refused.push(Refused {
                row: number,
                code: "schema".into(),
                message,
            }),
        }
    }
    decoded
}

/// A value of a field, or null.
enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Bytes(Vec<u8>),
}

fn cells(row: &Row, fields: &[Field]) -> Result<Vec<Cell>, String> {
    let Some(value) = row.value.as_deref().filter(|_| !fields.is_empty()) else {
        return Ok(fields.iter().map(|_| Cell::Null).collect());
    };
    let object: Map<String, Value> =
        serde_json::from_slice(value).map_err(|e| format!("not a JSON object: {e}"))?;
    let cell = |field: &Field| {
        let found = object.get(&*field.name).unwrap_or(&Value::Null);
        cell(field.kind, found)
            .ok_or_else(|| format!("field `{}` ({:?}): found {found}", field.name, field.kind))
    };
    fields.iter().map(cell).collect()
}

fn cell(kind: FieldType, value: &Value) -> Option<Cell> {
    Some(match (kind, value) {
        (_, Value::Null) => Cell::Null,
        (FieldType::Bool, Value::Bool(flag)) => Cell::Bool(*flag),
        (FieldType::Int64, Value::Number(number)) => Cell::Int(whole(number)?),
        (FieldType::Float64, Value::Number(number)) => Cell::Float(number.as_f64()?),
        (FieldType::String, Value::String(text)) => Cell::Bytes(text.clone().into_bytes()),
        (FieldType::Bytes, Value::String(text)) => Cell::Bytes(base64_decode(text)?),
        (FieldType::Timestamp, Value::String(text)) => {
            Cell::Int(text.parse::<Timestamp>().ok()?.micros())
        }
        (FieldType::Timestamp, Value::Number(number)) => Cell::Int(whole(number)?),
        _ => return None,
    })
}

fn whole(number: &Number) -> Option<i64> {
    let float = || {
        number
            .as_f64()
            .filter(|n| n.fract() == 0.0 && n.abs() < 9e15)
    };
    number.as_i64().or_else(|| float().map(|n| n as i64))
}

impl Typed {
    fn push(&mut self, cell: Cell) {
        match (self, cell) {
            (Typed::Bools(column), Cell::Bool(flag)) => column.push(Some(flag)),
            (Typed::Bools(column), _) => column.push(None),
            (Typed::Ints(column), Cell::Int(number)) => column.push(Some(number)),
            (Typed::Ints(column), _) => column.push(None),
            (Typed::Floats(column), Cell::Float(number)) => column.push(Some(number)),
            (Typed::Floats(column), _) => column.push(None),
            (Typed::Bytes(column), Cell::Bytes(bytes)) => column.push(Some(&bytes)),
            (Typed::Bytes(column), _) => column.push(None),
        }
    }
}

/// One row of columns as a JSON object, its fields in the order they were declared.
pub(super) fn encode(columns: &[(Field, Option<Typed>)], row: usize) -> Vec<u8> {
    let mut text = String::from("{");
    for (i, (field, column)) in columns.iter().enumerate() {
        let value = column
            .as_ref()
            .map_or(Value::Null, |column| value(field.kind, column, row));
        let comma = if i == 0 { "" } else { "," };
        text.push_str(&format!("{comma}{}:{value}", Value::from(&*field.name)));
    }
    text.push('}');
    text.into_bytes()
}

fn value(kind: FieldType, column: &Typed, row: usize) -> Value {
    match (kind, column) {
        (FieldType::Timestamp, Typed::Ints(column)) => column.get(row).map_or(Value::Null, |t| {
            Timestamp::from_micros(t).to_string().into()
        }),
        (_, Typed::Bools(column)) => column.get(row).into(),
        (_, Typed::Ints(column)) => column.get(row).into(),
        (_, Typed::Floats(column)) => column.get(row).into(),
        (FieldType::Bytes, Typed::Bytes(column)) => column.get(row).map(base64_encode).into(),
        (_, Typed::Bytes(column)) => {
            let text = column.get(row).map(String::from_utf8_lossy);
            text.map(|text| text.into_owned()).into()
        }
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64_encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            let letter = BASE64[(bits >> (18 - 6 * place)) as usize & 63];
            let pad = place > chunk.len();
            text.push(if pad { '=' } else { char::from(letter) });
        }
    }
    text
}

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let letters = text.trim_end_matches('=');
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for letter in letters.bytes() {
        let value = BASE64.iter().position(|known| *known == letter)?;
        bits = bits << 6 | value as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    (text.len() - letters.len() < 3).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"\xff\xfe", "//4="),
        ] {
            assert_eq!(base64_encode(bytes), text);
            assert_eq!(base64_decode(text).as_deref(), Some(bytes));
        }
        assert_eq!((base64_decode("Zg="), base64_decode("*===")), (None, None));
    }
}
