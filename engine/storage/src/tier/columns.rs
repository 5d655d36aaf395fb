//! Rows of batches as Parquet columns and back.
//!
//! Columns: `_offset` u64, `_timestamp` microseconds UTC, `_key` and `_value` binary (null where
//! absent), `_headers` list of (name, value), then the typed columns of a topic's schema. Those of
//! a topic of `columns` are its values: `_value` is empty, or null where a record has none.
//! Called by: `writer`, `reader`, `snapshot`. Invariants: keys, values and headers are shared,
//! not copied; what comes back is what went in, nulls included.
//! Refuses: columns of other types.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, ListArray, RecordBatch, StructArray,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{
    DataType, Field, Fields, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, UInt64Type,
};
use arrow::error::ArrowError;
use codec::Format;
use model::rows::TypedColumns;
use model::{Headers, Offset, Rows};

use crate::config::PartitionConfig;

pub(crate) const OFFSET: &str = "_offset";
pub(crate) const TIMESTAMP: &str = "_timestamp";
pub(crate) const KEY: &str = "_key";
pub(crate) const VALUE: &str = "_value";
pub(crate) const HEADERS: &str = "_headers";
/// The columns every object has, in this order.
pub(crate) const BASE: [&str; 5] = [OFFSET, TIMESTAMP, KEY, VALUE, HEADERS];

fn header_fields() -> Fields {
    Fields::from(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("value", DataType::Binary, true),
    ])
}

fn header_item() -> Arc<Field> {
    Arc::new(Field::new(
        "element",
        DataType::Struct(header_fields()),
        false,
    ))
}

/// The columns of a partition's objects.
pub(crate) fn schema(config: &PartitionConfig) -> SchemaRef {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let mut fields = vec![
        Arc::new(Field::new(OFFSET, DataType::UInt64, false)),
        Arc::new(Field::new(TIMESTAMP, utc, false)),
        Arc::new(Field::new(KEY, DataType::Binary, true)),
        Arc::new(Field::new(VALUE, DataType::Binary, true)),
        Arc::new(Field::new(HEADERS, DataType::List(header_item()), true)),
    ];
    if let Some(format) = format(config) {
        let is_new = |field: &&Arc<Field>| !BASE.contains(&field.name().as_str());
        fields.extend(format.arrow().fields().iter().filter(is_new).cloned());
    }
    Arc::new(Schema::new(fields))
}

/// How values are read that have columns.
fn format(config: &PartitionConfig) -> Option<Format> {
    let schema = config.schema.clone()?;
    Format::new(config.codec, Arc::new(schema))
}

/// Makes record batches of one partition's rows.
pub(crate) struct Columns {
    schema: SchemaRef,
    format: Option<Format>,
}

impl Columns {
    pub(crate) fn new(config: &PartitionConfig) -> Columns {
        Columns {
            schema: schema(config),
            format: format(config),
        }
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether the typed columns are what the values are.
    pub(crate) fn are_values(&self) -> bool {
        self.format.as_ref().is_some_and(Format::keeps_columns)
    }

    /// Values that do not fit the schema give nulls in the typed columns; `_value` has them whole.
    pub(crate) fn of(&self, offsets: Vec<Offset>, rows: &Rows) -> Result<RecordBatch, ArrowError> {
        let timestamps = TimestampMicrosecondArray::new(rows.timestamps.clone(), None);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from(offsets)),
            Arc::new(timestamps.with_timezone("UTC")),
            Arc::new(rows.keys.clone()),
            Arc::new(rows.values.clone()),
            Arc::new(headers_out(rows)?),
        ];
        if let Some(format) = &self.format {
            let decoded = match format.keeps_columns() {
                true => format.columns_of(rows)?.columns,
                false => format.decode(&rows.values, &format.all()).columns,
            };
            for field in &self.schema.fields()[BASE.len()..] {
                let column = decoded.column_by_name(field.name()).ok_or_else(|| {
                    ArrowError::SchemaError(format!("no column {} was decoded", field.name()))
                })?;
                columns.push(Arc::clone(column));
            }
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

fn headers_out(rows: &Rows) -> Result<ListArray, ArrowError> {
    let Some(headers) = &rows.headers else {
        return Ok(ListArray::new_null(header_item(), rows.len()));
    };
    // Rows may be a slice of larger ones: the list begins where its first row does.
    let entries = StructArray::try_new(
        header_fields(),
        vec![
            Arc::new(headers.names.clone()),
            Arc::new(headers.values.clone()),
        ],
        None,
    )?;
    ListArray::try_new(header_item(), headers.rows.clone(), Arc::new(entries), None)
}

/// Rows of the base columns, and their offsets if that column was read. All columns behind the
/// base ones are what the values are.
pub(crate) fn rows_of(batch: &RecordBatch) -> Result<(Option<Vec<Offset>>, Rows), String> {
    let column = |name: &str| {
        batch
            .column_by_name(name)
            .ok_or_else(|| format!("column {name} is missing"))
    };
    let binary = |name: &str| -> Result<BinaryArray, String> {
        let array = column(name)?.as_binary_opt::<i32>();
        array
            .cloned()
            .ok_or_else(|| format!("column {name} is not binary"))
    };
    let offsets = match batch.column_by_name(OFFSET) {
        None => None,
        Some(array) => {
            let offsets = array.as_primitive_opt::<UInt64Type>();
            Some(
                offsets
                    .ok_or("column _offset is not u64")?
                    .values()
                    .to_vec(),
            )
        }
    };
    let timestamps = column(TIMESTAMP)?
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or("column _timestamp is not in microseconds")?
        .values()
        .clone();
    let headers = column(HEADERS)?
        .as_list_opt::<i32>()
        .ok_or("column _headers is not a list")?;
    let headers = headers_in(headers)?;
    let rows = Rows {
        timestamps,
        keys: binary(KEY)?,
        values: binary(VALUE)?,
        headers,
        columns: typed_in(batch)?,
    };
    Ok((offsets, rows))
}

fn typed_in(batch: &RecordBatch) -> Result<Option<TypedColumns>, String> {
    let fields = batch.schema_ref().fields().iter().zip(batch.columns());
    let typed = fields.filter(|(field, _)| !BASE.contains(&field.name().as_str()));
    let arrays: Vec<ArrayRef> = typed.map(|(_, array)| Arc::clone(array)).collect();
    if arrays.is_empty() {
        return Ok(None);
    }
    let columns = TypedColumns::new(arrays);
    columns.map(Some).map_err(|error| error.to_string())
}

fn headers_in(list: &ListArray) -> Result<Option<Headers>, String> {
    if list.values().is_empty() {
        return Ok(None);
    }
    let entries = list
        .values()
        .as_struct_opt()
        .ok_or("column _headers has no structs")?;
    let names = entries
        .column_by_name("name")
        .and_then(|array| array.as_string_opt::<i32>());
    let values = entries
        .column_by_name("value")
        .and_then(|array| array.as_binary_opt::<i32>());
    let (Some(names), Some(values)) = (names, values) else {
        return Err("column _headers has no name and value".to_owned());
    };
    Ok(Some(Headers {
        // A null list has no entries: Parquet reads it so.
        rows: list.offsets().clone(),
        names: names.clone(),
        values: values.clone(),
    }))
}
