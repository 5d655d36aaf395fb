//! Columns to JSON: one object a row, fields in the schema's order, nulls written.
//!
//! Called by pipelines (`map`, typed outputs) and by sql's JSON lines. What it writes for the
//! types of a topic's schema, the decoder reads back; other Arrow types get `arrow-json`'s form.
//! Invariants: as many objects as rows; no row depends on another.
//! Refuses: a result beyond `i32::MAX` bytes, types without a JSON form.

use std::sync::{Arc, LazyLock};

use arrow::array::cast::AsArray;
use arrow::array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder};
use arrow::record_batch::RecordBatch;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::scan::plain_until;
use crate::time::format_rfc3339;
use crate::values::{Values, push_float, push_int};

/// How bytes become a JSON string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BytesAs {
    /// Always base64: what the decoder reads back.
    #[default]
    Base64,
    /// As they are where they are UTF-8, else base64: for people.
    TextElseBase64,
}

/// Why columns cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The type has no form in the codec.
    #[error("column `{column}` of type {data_type} cannot be written: cast it first")]
    Type {
        /// The column's name.
        column: String,
        /// Its Arrow type.
        data_type: DataType,
    },
    /// Arrow refused to convert a column.
    #[error("column `{column}` cannot be written: {source}")]
    Convert {
        /// The column's name.
        column: String,
        /// Arrow's reason.
        source: ArrowError,
    },
    /// A row does not fit the schema it is written by.
    #[error("row {row}: {message}")]
    Row {
        /// Its number in the batch.
        row: u32,
        /// What does not fit.
        message: String,
    },
    /// The values together are larger than one array can be.
    #[error("{rows} rows are more than {bytes_max} bytes: encode fewer at a time")]
    TooLarge {
        /// Rows in the batch.
        rows: usize,
        /// The bound, in bytes.
        bytes_max: usize,
    },
}

/// Writes each row as one JSON object, bytes as base64.
///
/// # Errors
/// See [`EncodeError`].
pub fn encode_json(batch: &RecordBatch) -> Result<BinaryArray, EncodeError> {
    let mut encoder = JsonEncoder::new(batch, BytesAs::Base64)?;
    let mut values = Values::new(batch.num_rows(), encoder.row_bytes_guess());
    for row in 0..batch.num_rows() {
        encoder.row(row, values.data());
        values.end_row()?;
    }
    Ok(values.finish())
}

/// Writes rows of one batch, one at a time, into a buffer of the caller's.
pub struct JsonEncoder<'a> {
    columns: Vec<Column<'a>>,
    /// One value a row, no object.
    bare: bool,
}

struct Column<'a> {
    /// `"name":`, with the comma or brace before it.
    lead: Vec<u8>,
    values: Cells<'a>,
}

enum Cells<'a> {
    Bool(BooleanArray),
    Int(Int64Array),
    Float(Float64Array),
    Text(StringArray),
    Bytes(BinaryArray, BytesAs),
    Time(TimestampMicrosecondArray),
    Other(NullableEncoder<'a>),
}

impl<'a> JsonEncoder<'a> {
    /// Prepares the columns of `batch`.
    ///
    /// # Errors
    /// A type that has no JSON form, or that Arrow cannot convert.
    pub fn new(batch: &'a RecordBatch, bytes: BytesAs) -> Result<JsonEncoder<'a>, EncodeError> {
        let schema = batch.schema_ref();
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (field, array) in schema.fields().iter().zip(batch.columns()) {
            let mut lead = vec![if columns.is_empty() { b'{' } else { b',' }];
            push_text(&mut lead, field.name());
            lead.push(b':');
            columns.push(Column {
                lead,
                values: Cells::of(field, array, bytes)?,
            });
        }
        Ok(JsonEncoder {
            columns,
            bare: false,
        })
    }

    /// Prepares one column alone: rows are bare values, without an object around them.
    ///
    /// # Errors
    /// As [`JsonEncoder::new`].
    pub fn value(
        field: &'a FieldRef,
        array: &'a ArrayRef,
        bytes: BytesAs,
    ) -> Result<JsonEncoder<'a>, EncodeError> {
        let values = Cells::of(field, array, bytes)?;
        Ok(JsonEncoder {
            columns: vec![Column {
                lead: Vec::new(),
                values,
            }],
            bare: true,
        })
    }

    fn row_bytes_guess(&self) -> usize {
        self.columns
            .iter()
            .map(|c| c.lead.len() + 12)
            .sum::<usize>()
            + 2
    }

    /// Appends row `row` as one object. The row must be one of the batch.
    pub fn row(&mut self, row: usize, out: &mut Vec<u8>) {
        if self.columns.is_empty() {
            out.push(b'{');
        }
        for column in &mut self.columns {
            out.extend_from_slice(&column.lead);
            column.values.write(row, out);
        }
        if !self.bare {
            out.push(b'}');
        }
    }
}

impl<'a> Cells<'a> {
    fn of(field: &'a FieldRef, array: &'a ArrayRef, bytes: BytesAs) -> Result<Self, EncodeError> {
        let convert = |to: &DataType| {
            cast(array, to).map_err(|source| EncodeError::Convert {
                column: field.name().clone(),
                source,
            })
        };
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        Ok(match array.data_type() {
            DataType::Boolean => Cells::Bool(array.as_boolean().clone()),
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32
            | DataType::Int64 => Cells::Int(
                convert(&DataType::Int64)?
                    .as_primitive::<Int64Type>()
                    .clone(),
            ),
            DataType::Float64 => Cells::Float(array.as_primitive::<Float64Type>().clone()),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Cells::Text(convert(&DataType::Utf8)?.as_string::<i32>().clone())
            }
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => Cells::Bytes(
                convert(&DataType::Binary)?.as_binary::<i32>().clone(),
                bytes,
            ),
            DataType::Timestamp(_, _) => {
                let array = convert(&utc)?;
                Cells::Time(array.as_primitive::<TimestampMicrosecondType>().clone())
            }
            _ => Cells::Other(other(field, array, bytes)?),
        })
    }

    fn write(&mut self, row: usize, out: &mut Vec<u8>) {
        let null = match self {
            Cells::Bool(a) => a.is_null(row),
            Cells::Int(a) => a.is_null(row),
            Cells::Float(a) => a.is_null(row) || !a.value(row).is_finite(),
            Cells::Text(a) => a.is_null(row),
            Cells::Bytes(a, _) => a.is_null(row),
            Cells::Time(a) => a.is_null(row),
            Cells::Other(a) => a.is_null(row),
        };
        if null {
            out.extend_from_slice(b"null");
            return;
        }
        match self {
            Cells::Bool(a) => {
                out.extend_from_slice(if a.value(row) { b"true" } else { b"false" });
            }
            Cells::Int(a) => push_int(out, a.value(row)),
            Cells::Float(a) => push_float(out, a.value(row)),
            Cells::Text(a) => push_text(out, a.value(row)),
            Cells::Bytes(a, form) => push_bytes(out, a.value(row), *form),
            Cells::Time(a) => push_time(out, a.value(row)),
            Cells::Other(a) => a.encode(row, out),
        }
    }
}

/// Nested and rarer types, as `arrow-json` writes them, but for bytes inside, which are as at
/// the top.
fn other<'a>(
    field: &'a FieldRef,
    array: &'a ArrayRef,
    bytes: BytesAs,
) -> Result<NullableEncoder<'a>, EncodeError> {
    static BASE64: LazyLock<EncoderOptions> = LazyLock::new(|| nested(BytesAs::Base64));
    static TEXT: LazyLock<EncoderOptions> = LazyLock::new(|| nested(BytesAs::TextElseBase64));
    let options: &'static EncoderOptions = match bytes {
        BytesAs::Base64 => &BASE64,
        BytesAs::TextElseBase64 => &TEXT,
    };
    make_encoder(field, array.as_ref(), options).map_err(|_| EncodeError::Type {
        column: field.name().clone(),
        data_type: array.data_type().clone(),
    })
}

fn nested(bytes: BytesAs) -> EncoderOptions {
    EncoderOptions::default()
        .with_explicit_nulls(true)
        .with_encoder_factory(Arc::new(NestedBytes(bytes)))
        .with_timestamp_format("%Y-%m-%dT%H:%M:%S%.6fZ".to_string())
        .with_timestamp_tz_format("%Y-%m-%dT%H:%M:%S%.6f%:z".to_string())
}

/// Bytes inside of lists and structs.
#[derive(Debug)]
struct NestedBytes(BytesAs);

impl EncoderFactory for NestedBytes {
    fn make_default_encoder<'a>(
        &self,
        _: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        Ok(array.as_binary_opt::<i32>().map(|values| {
            let encoder = Box::new(BytesEncoder(values, self.0));
            NullableEncoder::new(encoder, values.nulls().cloned())
        }))
    }
}

struct BytesEncoder<'a>(&'a BinaryArray, BytesAs);

impl Encoder for BytesEncoder<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        push_bytes(out, self.0.value(row), self.1);
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    if plain_until(text.as_bytes(), 0) < text.len() {
        serde_json::to_writer(out, text).expect("a string into memory always writes");
        return;
    }
    out.reserve(text.len() + 2);
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8], form: BytesAs) {
    match (form, std::str::from_utf8(bytes)) {
        (BytesAs::TextElseBase64, Ok(text)) => push_text(out, text),
        _ => push_text(out, &STANDARD.encode(bytes)),
    }
}

fn push_time(out: &mut Vec<u8>, micros: i64) {
    out.push(b'"');
    if format_rfc3339(micros, out) {
        out.push(b'"');
    } else {
        // Outside the years that RFC 3339 knows the number itself stands; decoding takes both.
        out.pop();
        push_int(out, micros);
    }
}
