//! A column's cells by their Arrow type, for codecs that write row by row.
//!
//! Called by `csv`, `avro`. Refuses: types a topic's schema does not have.

use arrow::array::cast::AsArray;
use arrow::array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::array::{
    Array, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::record_batch::RecordBatch;

use crate::json::EncodeError;

pub(crate) enum Cells<'a> {
    Bool(&'a BooleanArray),
    Int(&'a Int64Array),
    Float(&'a Float64Array),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    Time(&'a TimestampMicrosecondArray),
}

impl<'a> Cells<'a> {
    /// Of each column, in their order.
    pub(crate) fn of(batch: &'a RecordBatch) -> Result<Vec<Cells<'a>>, EncodeError> {
        let fields = batch.schema_ref().fields().iter();
        let columns = fields.zip(batch.columns()).map(|(field, array)| {
            Ok(match array.data_type() {
                DataType::Boolean => Cells::Bool(array.as_boolean()),
                DataType::Int64 => Cells::Int(array.as_primitive::<Int64Type>()),
                DataType::Float64 => Cells::Float(array.as_primitive::<Float64Type>()),
                DataType::Utf8 => Cells::Text(array.as_string::<i32>()),
                DataType::Binary => Cells::Bytes(array.as_binary::<i32>()),
                DataType::Timestamp(TimeUnit::Microsecond, _) => {
                    Cells::Time(array.as_primitive::<TimestampMicrosecondType>())
                }
                other => {
                    return Err(EncodeError::Type {
                        column: field.name().clone(),
                        data_type: other.clone(),
                    });
                }
            })
        });
        columns.collect()
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        match self {
            Cells::Bool(a) => a.is_null(row),
            Cells::Int(a) => a.is_null(row),
            Cells::Float(a) => a.is_null(row),
            Cells::Text(a) => a.is_null(row),
            Cells::Bytes(a) => a.is_null(row),
            Cells::Time(a) => a.is_null(row),
        }
    }
}
