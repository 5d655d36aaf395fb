//! One cell as text.
//!
//! Called by CSV and table. Text and bytes go straight through; everything else is what its JSON
//! form is, without the quotes.

use arrow::array::cast::AsArray;
use arrow::array::{Array, BinaryArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use codec::{BytesAs, JsonEncoder};
use std::borrow::Cow;
use std::sync::Arc;

use crate::error::SqlError;

pub(super) fn failed(error: impl std::fmt::Display) -> SqlError {
    SqlError::Failed {
        message: error.to_string(),
    }
}

/// The batch with what `->` gives (a union of JSON's types) as JSON text.
pub(super) fn plain(batch: &RecordBatch) -> Result<RecordBatch, SqlError> {
    let schema = batch.schema();
    let union = |field: &Arc<Field>| matches!(field.data_type(), DataType::Union(..));
    if !schema.fields().iter().any(union) {
        return Ok(batch.clone());
    }
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        let column = match union(field) {
            true => expr::functions::json_text(column).map_err(failed)?,
            false => column.clone(),
        };
        fields.push(Field::new(field.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(failed)
}

enum Column<'a> {
    Text(StringArray),
    Bytes(BinaryArray),
    Json(JsonEncoder<'a>),
}

/// The cells of one batch.
pub(super) struct Cells<'a> {
    columns: Vec<Column<'a>>,
    buffer: Vec<u8>,
    text: String,
}

impl<'a> Cells<'a> {
    pub(super) fn new(batch: &'a RecordBatch) -> Result<Cells<'a>, SqlError> {
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            columns.push(match array.data_type() {
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                    let array = cast(array, &DataType::Utf8).map_err(failed)?;
                    Column::Text(array.as_string::<i32>().clone())
                }
                DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                    let array = cast(array, &DataType::Binary).map_err(failed)?;
                    Column::Bytes(array.as_binary::<i32>().clone())
                }
                _ => {
                    let encoder = JsonEncoder::value(field, array, BytesAs::TextElseBase64);
                    Column::Json(encoder.map_err(failed)?)
                }
            });
        }
        Ok(Cells {
            columns,
            buffer: Vec::new(),
            text: String::new(),
        })
    }

    /// `None` is null.
    pub(super) fn text(&mut self, column: usize, row: usize) -> Option<&str> {
        match &mut self.columns[column] {
            Column::Text(array) => array.is_valid(row).then(|| array.value(row)),
            Column::Bytes(array) => {
                if array.is_null(row) {
                    return None;
                }
                let value = array.value(row);
                match std::str::from_utf8(value) {
                    Ok(text) => Some(text),
                    Err(_) => {
                        self.text = STANDARD.encode(value);
                        Some(&self.text)
                    }
                }
            }
            Column::Json(encoder) => {
                self.buffer.clear();
                encoder.row(row, &mut self.buffer);
                let json = String::from_utf8_lossy(&self.buffer);
                if json == "null" {
                    return None;
                }
                self.text = unquoted(json);
                Some(&self.text)
            }
        }
    }
}

fn unquoted(json: Cow<'_, str>) -> String {
    if !json.starts_with('"') {
        return json.into_owned();
    }
    serde_json::from_str(&json).unwrap_or_else(|_| json.into_owned())
}
