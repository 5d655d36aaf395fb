//! CSV rows to columns: same rows in, same rows out, bad ones named and null.
//!
//! Called by [`crate::Format`]. Invariants: the row count is kept; whether a row is good does not
//! depend on the columns asked for; memory taken is bounded by the input's.
//! Refuses: nothing as a whole; a bad row gives an entry in [`Decoded::errors`].

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::BinaryArray;
use arrow::datatypes::SchemaRef;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::schema::{Field, FieldType, Schema};

use crate::column::{Column, Columns, Decoded, shown};
use crate::time::parse_rfc3339;

/// Reads CSV rows by a schema.
#[derive(Debug, Clone)]
pub(crate) struct CsvDecoder {
    fields: Arc<[Field]>,
    types: Arc<[FieldType]>,
}

/// One field as it stands.
struct Text<'a> {
    text: Cow<'a, str>,
    quoted: bool,
}

/// A field's value, already of the schema's type.
enum Cell<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Bytes(Vec<u8>),
}

impl CsvDecoder {
    pub(crate) fn new(schema: &Schema) -> CsvDecoder {
        CsvDecoder {
            fields: schema.fields.iter().cloned().collect(),
            types: schema.fields.iter().map(|field| field.ty).collect(),
        }
    }

    pub(crate) fn read(
        &self,
        values: &BinaryArray,
        wanted: &[usize],
        schema: SchemaRef,
    ) -> Decoded {
        let fields = (&self.types[..], wanted);
        Columns::read(fields, schema, values, |value, row, columns| {
            self.row(value, row, columns)
        })
    }

    fn row(&self, value: &[u8], row: usize, columns: &mut Columns) -> Result<(), String> {
        let text = std::str::from_utf8(value)
            .map_err(|e| format!("not CSV: not UTF-8 at byte {}", e.valid_up_to()))?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        let (mut at, mut count, mut wrong) = (0, 0, None);
        loop {
            let (found, next) = field(text, at).map_err(|what| format!("not CSV: {what}"))?;
            if let Some(Field { name, ty }) = self.fields.get(count)
                && let Err(expected) = set(*ty, &found, row, columns.get(count))
            {
                wrong.get_or_insert_with(|| {
                    let found = shown(&found.text);
                    format!("field `{name}` ({ty}): expected {expected}, found `{found}`")
                });
            }
            count += 1;
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        let due = self.fields.len();
        if count != due {
            return Err(format!("the schema has {due} fields, the row {count}"));
        }
        wrong.map_or(Ok(()), Err)
    }
}

/// The field that begins at a byte, and where the next one begins.
fn field(text: &str, at: usize) -> Result<(Text<'_>, Option<usize>), String> {
    let rest = &text[at..];
    if let Some(inside) = rest.strip_prefix('"') {
        return quoted(inside, at);
    }
    let end = rest.find(',').unwrap_or(rest.len());
    if let Some(line_end) = rest[..end].find(['\n', '\r']) {
        return Err(format!(
            "a line end at byte {}: a value is one row, and a field with a line end is quoted",
            at + line_end
        ));
    }
    let found = Text {
        text: Cow::Borrowed(&rest[..end]),
        quoted: false,
    };
    Ok((found, (end < rest.len()).then_some(at + end + 1)))
}

/// A field whose quote begins at byte `at`; `inside` is what follows the quote.
fn quoted(inside: &str, at: usize) -> Result<(Text<'_>, Option<usize>), String> {
    let (mut text, mut from) = (Cow::Borrowed(""), 0);
    loop {
        let Some(quote) = inside[from..].find('"') else {
            return Err(format!("the quote at byte {at} does not end"));
        };
        let until = from + quote;
        match text.is_empty() {
            true => text = Cow::Borrowed(&inside[from..until]),
            false => text.to_mut().push_str(&inside[from..until]),
        }
        from = until + 1;
        let place = at + 1 + from;
        let next = match inside.as_bytes().get(from) {
            Some(b'"') => {
                text.to_mut().push('"');
                from += 1;
                continue;
            }
            Some(b',') => Some(place + 1),
            Some(_) => return Err(format!("expected `,` behind the quote at byte {place}")),
            None => None,
        };
        return Ok((Text { text, quoted: true }, next));
    }
}

/// Reads a field, and sets it if its column is asked for; `Err` says what was expected.
fn set(
    ty: FieldType,
    found: &Text<'_>,
    row: usize,
    column: Option<&mut Column>,
) -> Result<(), &'static str> {
    let cell = cell(ty, found)?;
    let Some(column) = column else { return Ok(()) };
    match cell {
        None => column.set_null(row),
        Some(Cell::Bool(value)) => column.set_bool(row, value),
        Some(Cell::Int(value)) => column.set_int(row, value),
        Some(Cell::Float(value)) => column.set_float(row, value),
        Some(Cell::Text(text)) => column.set_text(row, text),
        Some(Cell::Bytes(bytes)) => column.set_bytes(row, &bytes),
    }
    Ok(())
}

fn cell<'a>(ty: FieldType, found: &'a Text<'_>) -> Result<Option<Cell<'a>>, &'static str> {
    let text = found.text.as_ref();
    if text.is_empty() && !found.quoted {
        return Ok(None);
    }
    Ok(Some(match ty {
        FieldType::Bool => Cell::Bool(text.parse().map_err(|_| "true or false")?),
        FieldType::Int64 => Cell::Int(text.parse().map_err(|_| "an integer of 64 bits")?),
        FieldType::Float64 => {
            let number = text.parse().ok().filter(|number: &f64| number.is_finite());
            Cell::Float(number.ok_or("a finite number")?)
        }
        FieldType::String => Cell::Text(text),
        FieldType::Bytes => Cell::Bytes(STANDARD.decode(text).map_err(|_| "base64")?),
        FieldType::Timestamp => {
            let time = text.parse().ok().or_else(|| parse_rfc3339(text));
            Cell::Int(time.ok_or("an RFC 3339 time with its zone, or microseconds")?)
        }
    }))
}
