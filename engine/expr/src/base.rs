//! The columns every record has, as an expression sees them.
//!
//! Called by pipelines to lay a batch before an expression; typed columns follow these.
//! Invariants: views over the same buffers where possible; `_value_text` is null where the value
//! is not UTF-8, so that text functions never fail on foreign bytes.

use std::sync::Arc;

use arrow::array::builder::StringBuilder;
use arrow::array::{Array, ArrayRef, BinaryArray, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use model::rows::Rows;

/// A record's time.
pub const TIMESTAMP: &str = "_timestamp";
/// A record's key, binary.
pub const KEY: &str = "_key";
/// A record's value, binary.
pub const VALUE: &str = "_value";
/// A record's value as text, null where it is not UTF-8.
pub const VALUE_TEXT: &str = "_value_text";

/// `_timestamp`, `_key`, `_value`, `_value_text`.
pub fn base_schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new(TIMESTAMP, time, false),
        Field::new(KEY, DataType::Binary, true),
        Field::new(VALUE, DataType::Binary, true),
        Field::new(VALUE_TEXT, DataType::Utf8, true),
    ]))
}

/// The base columns of `rows`; the text column only where `text` says somebody uses it.
pub fn base_batch(rows: &Rows, text: bool) -> RecordBatch {
    let times = TimestampMicrosecondArray::new(rows.timestamps.clone(), None);
    let value_text = if text {
        text_of(&rows.values)
    } else {
        StringArray::new_null(rows.values.len())
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(times.with_timezone("UTC")),
        Arc::new(rows.keys.clone()),
        Arc::new(rows.values.clone()),
        Arc::new(value_text),
    ];
    RecordBatch::try_new(base_schema(), columns).expect("rows have columns of one length")
}

/// The values that are UTF-8, as text; the rest null.
pub fn text_of(values: &BinaryArray) -> StringArray {
    // One check over all bytes makes the ordinary case a view over the same buffer.
    if let Ok(text) = StringArray::try_new(
        values.offsets().clone(),
        values.values().clone(),
        values.nulls().cloned(),
    ) {
        return text;
    }
    let mut out = StringBuilder::with_capacity(values.len(), values.values().len());
    for value in values.iter() {
        out.append_option(value.and_then(|bytes| std::str::from_utf8(bytes).ok()));
    }
    out.finish()
}
