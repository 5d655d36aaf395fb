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
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use model::schema::{FieldType, Schema};

use super::cell::{Cell, Column};
use super::scan::{Fault, Scanner, Value};

/// How much of a wrong value a message shows.
const SHOWN_CHARS_MAX: usize = 40;

/// Columns of all rows, and what was wrong with which.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// As many rows as there were values; all null where the row is in `errors`.
    pub columns: RecordBatch,
    /// In row order, at most one a row.
    pub errors: Vec<(u32, String)>,
}

/// A column was asked for that the schema does not have.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("column {index} asked for, but the schema has {columns} columns")]
pub struct DecodeError {
    /// The index asked for, from 0.
    pub index: usize,
    /// How many columns the schema has.
    pub columns: usize,
}

/// Reads JSON objects by a schema.
#[derive(Debug, Clone)]
pub struct JsonDecoder {
    fields: Arc<[(Box<str>, FieldType)]>,
    schema: SchemaRef,
}

impl JsonDecoder {
    /// A decoder for all columns of `schema`.
    pub fn new(schema: &Schema) -> JsonDecoder {
        let fields = schema
            .fields
            .iter()
            .map(|f| (f.name.as_str().into(), f.ty))
            .collect();
        JsonDecoder {
            fields,
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

    /// Decodes the columns asked for, in that order; the others are only checked, so that a row
    /// is good or bad whatever is asked for.
    ///
    /// # Errors
    /// An index beyond the schema's columns.
    pub fn decode_columns(
        &self,
        values: &BinaryArray,
        columns: &[usize],
    ) -> Result<Decoded, DecodeError> {
        if let Some(index) = columns.iter().copied().find(|i| *i >= self.fields.len()) {
            return Err(DecodeError {
                index,
                columns: self.fields.len(),
            });
        }
        let schema = self
            .schema
            .project(columns)
            .expect("indices are checked above");
        Ok(self.read(values, columns, Arc::new(schema)))
    }

    fn read(&self, values: &BinaryArray, wanted: &[usize], schema: SchemaRef) -> Decoded {
        let mut columns: Vec<Column> = wanted
            .iter()
            .map(|i| Column::new(self.fields[*i].1, values.len()))
            .collect();
        let mut cells: Vec<Option<Cell<'_>>> = vec![None; self.fields.len()];
        let mut errors = Vec::new();
        for row in 0..values.len() {
            cells.fill(None);
            if values.is_valid(row)
                && let Err(message) = self.row(values.value(row), &mut cells)
            {
                errors.push((row as u32, message));
                cells.fill(None);
            }
            for (column, index) in columns.iter_mut().zip(wanted) {
                // A column may be asked for twice, so its cell is not taken out.
                column.push(cells[*index].clone());
            }
        }
        let arrays = columns.into_iter().map(Column::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(values.len()));
        let columns = RecordBatch::try_new_with_options(schema, arrays, &options)
            .expect("every column has one entry a row and its field's type");
        Decoded { columns, errors }
    }

    /// Reads one object into `cells`, one cell a field.
    fn row<'a>(&self, value: &'a [u8], cells: &mut [Option<Cell<'a>>]) -> Result<(), String> {
        let text = std::str::from_utf8(value)
            .map_err(|e| format!("not JSON: not UTF-8 at byte {}", e.valid_up_to()))?;
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
        self.object(&mut scan, cells)
            .map_err(|trouble| match trouble {
                Trouble::Syntax(fault) => not_json(text, &fault),
                Trouble::Field {
                    index,
                    expected,
                    found,
                } => {
                    let (name, ty) = &self.fields[index];
                    format!(
                        "field `{name}` ({ty}): expected {expected}, found {}",
                        describe(found)
                    )
                }
            })
    }

    fn object<'a>(
        &self,
        scan: &mut Scanner<'a>,
        cells: &mut [Option<Cell<'a>>],
    ) -> Result<(), Trouble<'a>> {
        // A row's syntax is judged before its types, so the first wrong type waits.
        let mut wrong = None;
        let mut next = 0;
        scan.take(b'{');
        if !scan.take(b'}') {
            loop {
                let key = scan.key()?;
                let value = scan.value()?;
                let index = if key.escaped {
                    self.find(&key.get(), next)
                } else {
                    self.find(key.raw, next)
                };
                if let Some(index) = index {
                    next = index + 1;
                    match Cell::read(self.fields[index].1, value) {
                        Ok(cell) => cells[index] = cell,
                        Err(expected) => {
                            wrong.get_or_insert(Trouble::Field {
                                index,
                                expected,
                                found: value,
                            });
                        }
                    }
                }
                if !scan.take(b',') {
                    scan.expect(b'}', "expected `,` or `}`")?;
                    break;
                }
            }
        }
        scan.end()?;
        wrong.map_or(Ok(()), Err)
    }

    /// Fields mostly come in the schema's order, so `next` is tried first.
    fn find(&self, key: &str, next: usize) -> Option<usize> {
        if self
            .fields
            .get(next)
            .is_some_and(|(name, _)| **name == *key)
        {
            return Some(next);
        }
        self.fields.iter().position(|(name, _)| **name == *key)
    }
}

enum Trouble<'a> {
    Syntax(Fault),
    Field {
        index: usize,
        expected: &'static str,
        found: Value<'a>,
    },
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

fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let mut out: String = chars.by_ref().take(SHOWN_CHARS_MAX).collect();
    if chars.next().is_some() {
        out.push('…');
    }
    out
}
