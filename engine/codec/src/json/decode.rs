//! JSON values to columns: same rows in, same rows out, bad ones named and null.
//!
//! Called by storage when it writes typed columns, by pipelines at a typed edge, by sql for hot
//! rows. One decoder per schema, shared between threads.
//! Invariants: the row count is kept; whether a row is good does not depend on the columns asked
//! for; memory taken is bounded by the input's.
//! Refuses: nothing as a whole; a bad row gives an entry in [`Decoded::errors`].

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, BinaryArray};
use arrow::datatypes::SchemaRef;
use model::schema::{FieldType, Schema};

use super::cell::Cell;
use super::scan::{Fault, Scanner, Value};
use crate::column::{Column, Columns, Decoded, shown};

/// Reads JSON objects by a schema.
#[derive(Debug, Clone)]
pub struct JsonDecoder {
    fields: Arc<[Field]>,
    types: Arc<[FieldType]>,
    schema: SchemaRef,
}

#[derive(Debug)]
struct Field {
    name: Box<str>,
    ty: FieldType,
    /// The key as writers mostly write it: `"name":`.
    key: Box<[u8]>,
}

impl JsonDecoder {
    /// A decoder for all columns of `schema`.
    pub fn new(schema: &Schema) -> JsonDecoder {
        let field = |f: &model::schema::Field| Field {
            name: f.name.as_str().into(),
            ty: f.ty,
            key: format!("{}:", serde_json::Value::from(f.name.as_str()))
                .into_bytes()
                .into(),
        };
        JsonDecoder {
            fields: schema.fields.iter().map(field).collect(),
            types: schema.fields.iter().map(|f| f.ty).collect(),
            schema: schema.to_arrow(),
        }
    }

    /// The Arrow schema of what [`JsonDecoder::decode`] gives.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Decodes every column.
    pub fn decode(&self, values: &BinaryArray) -> Decoded {
        let all: Vec<usize> = (0..self.fields.len()).collect();
        self.read(values, &all, self.schema.clone())
    }

    /// Reads the columns wanted, in that order; the others are only checked, so that a row is
    /// good or bad whatever is asked for.
    pub(crate) fn read(
        &self,
        values: &BinaryArray,
        wanted: &[usize],
        schema: SchemaRef,
    ) -> Decoded {
        let mut columns = Columns::new(&self.types, wanted, values.len());
        let (mut errors, mut before) = (Vec::new(), Layout::new());
        // all at once is much faster than row by row; a row may still begin inside a character
        let whole = std::str::from_utf8(all_bytes(values)).ok();
        let first = values.value_offsets()[0];
        for row in 0..values.len() {
            let mut good = true;
            if values.is_valid(row) {
                let offsets = &values.value_offsets()[row..row + 2];
                let (from, to) = ((offsets[0] - first) as usize, (offsets[1] - first) as usize);
                let text = match whole.and_then(|whole| whole.get(from..to)) {
                    Some(text) => Ok(text),
                    None => utf8(values.value(row)),
                };
                let read = text.and_then(|text| self.row(text, row, &mut columns, &mut before));
                if let Err(message) = read {
                    errors.push((row as u32, message));
                    good = false;
                }
            }
            columns.end_row(row, good);
        }
        columns.decoded(wanted, schema, values.len(), errors)
    }

    /// Reads one object into the row of its columns.
    fn row<'a>(
        &self,
        text: &'a str,
        row: usize,
        columns: &mut Columns,
        before: &mut Layout<'a>,
    ) -> Result<(), String> {
        let mut scan = Scanner::new(text);
        match scan.peek() {
            None => return Err("not JSON: the value is empty".to_string()),
            Some(b'{') => {}
            Some(_) => {
                let found = scan.value().and_then(|found| scan.end().map(|()| found));
                let found = found.map_err(|fault| not_json(text, &fault))?;
                return Err(format!("not a JSON object: found {}", describe(found)));
            }
        }
        self.object(&mut scan, row, columns, before)
            .map_err(|trouble| match trouble {
                Trouble::Syntax(fault) => not_json(text, &fault),
                Trouble::Field(wrong) => {
                    let Field { name, ty, .. } = &self.fields[wrong.index];
                    let (expected, found) = (wrong.expected, describe(wrong.found));
                    format!("field `{name}` ({ty}): expected {expected}, found {found}")
                }
            })
    }

    fn object<'a>(
        &self,
        scan: &mut Scanner<'a>,
        row: usize,
        columns: &mut Columns,
        before: &mut Layout<'a>,
    ) -> Result<(), Trouble<'a>> {
        // A row's syntax is judged before its types, so the first wrong type waits.
        let mut wrong = None;
        let (mut next, mut place) = (0, 0);
        scan.take(b'{');
        if !scan.take(b'}') {
            loop {
                let index = self.key(scan, next, place, before)?;
                place += 1;
                match index {
                    Some(index) => {
                        next = index + 1;
                        let found = self.field(scan, index, row, columns.get(index))?;
                        wrong = wrong.or(found);
                    }
                    None => {
                        scan.value()?;
                    }
                }
                if !scan.take(b',') {
                    scan.expect(b'}', "expected `,` or `}`")?;
                    break;
                }
            }
        }
        scan.end()?;
        wrong.map_or(Ok(()), |wrong| Err(Trouble::Field(wrong)))
    }

    /// Takes a key and its colon: the field's number, if there is one of that name.
    #[inline]
    fn key<'a>(
        &self,
        scan: &mut Scanner<'a>,
        next: usize,
        place: usize,
        before: &mut Layout<'a>,
    ) -> Result<Option<usize>, Fault> {
        // rows mostly have what the row before had in the same place, the keys that no field has included
        if let Some((key, index)) = before.get(place)
            && scan.take_all(key.as_bytes())
        {
            return Ok(*index);
        }
        let from = scan.at();
        let index = self.other_key(scan, next)?;
        if place < LAYOUT_MAX {
            before.truncate(place);
            before.push((scan.since(from), index));
        }
        Ok(index)
    }

    fn other_key(&self, scan: &mut Scanner<'_>, next: usize) -> Result<Option<usize>, Fault> {
        // fields mostly come in the schema's order, written without spaces
        if let Some(field) = self.fields.get(next)
            && scan.take_all(&field.key)
        {
            return Ok(Some(next));
        }
        let key = scan.key()?;
        let find = |key: &str| self.fields.iter().position(|field| *field.name == *key);
        Ok(match key.escaped {
            true => find(&key.get()),
            false => find(key.raw),
        })
    }

    /// Takes the value of a field and sets it; says what is wrong with its type.
    #[inline]
    fn field<'a>(
        &self,
        scan: &mut Scanner<'a>,
        index: usize,
        row: usize,
        column: Option<&mut Column>,
    ) -> Result<Option<Wrong<'a>>, Fault> {
        let ty = self.fields[index].ty;
        match ty {
            FieldType::Int64 => {
                if let Some(number) = scan.quick_int() {
                    if let Some(column) = column {
                        column.set_int(row, number);
                    }
                    return Ok(None);
                }
            }
            FieldType::Float64 => {
                if let Some(number) = scan.quick_float() {
                    if let Some(column) = column {
                        column.set_float(row, number);
                    }
                    return Ok(None);
                }
            }
            FieldType::String => {
                if let Some(text) = scan.quick_text() {
                    if let Some(column) = column {
                        column.set_text(row, text);
                    }
                    return Ok(None);
                }
            }
            FieldType::Bool | FieldType::Bytes | FieldType::Timestamp => {}
        }
        let found = scan.value()?;
        match (Cell::read(ty, found), column) {
            (Ok(cell), Some(column)) => set(column, row, cell),
            (Ok(_), None) => {}
            (Err(expected), _) => {
                return Ok(Some(Wrong {
                    index,
                    expected,
                    found,
                }));
            }
        }
        Ok(None)
    }
}

fn set(column: &mut Column, row: usize, cell: Option<Cell<'_>>) {
    match cell {
        None => column.set_null(row),
        Some(Cell::Bool(value)) => column.set_bool(row, value),
        Some(Cell::Int(value)) => column.set_int(row, value),
        Some(Cell::Float(value)) => column.set_float(row, value),
        Some(Cell::Text(text)) if !text.escaped => column.set_text(row, text.raw),
        Some(Cell::Text(text)) => column.set_text(row, &text.get()),
        Some(Cell::Bytes(bytes)) => column.set_bytes(row, &bytes),
    }
}

fn all_bytes(values: &BinaryArray) -> &[u8] {
    let offsets = values.value_offsets();
    &values.value_data()[offsets[0] as usize..offsets[values.len()] as usize]
}

fn utf8(value: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(value)
        .map_err(|e| format!("not JSON: not UTF-8 at byte {}", e.valid_up_to()))
}

/// The keys of a row as they stand there, with their quotes and colons, and the fields of these names.
type Layout<'a> = Vec<(&'a str, Option<usize>)>;

/// Keys of a row that are remembered for the next.
const LAYOUT_MAX: usize = 256;

/// A field whose value has another type.
struct Wrong<'a> {
    index: usize,
    expected: &'static str,
    found: Value<'a>,
}

enum Trouble<'a> {
    Syntax(Fault),
    Field(Wrong<'a>),
}

impl From<Fault> for Trouble<'_> {
    fn from(fault: Fault) -> Self {
        Trouble::Syntax(fault)
    }
}

fn not_json(text: &str, fault: &Fault) -> String {
    let mut message = format!("not JSON: {} at byte {}", fault.what, fault.at);
    if let Some(found) = text.get(fault.at..).and_then(|rest| rest.chars().next()) {
        let _ = write!(message, ", found {found:?}");
    }
    message
}

fn describe(value: Value<'_>) -> String {
    match value {
        Value::Null => "null".to_string(),
        Value::Bool(b) => format!("{b}"),
        Value::Number(n) => format!("number {}", shown(n)),
        Value::Text(text) => format!("string \"{}\"", shown(text.raw)),
        Value::Array(_) => "an array".to_string(),
        Value::Object(_) => "an object".to_string(),
    }
}
