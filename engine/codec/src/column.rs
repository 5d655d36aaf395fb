//! Columns while rows are being decoded into them: every codec's rows end here.
//!
//! Called by `json`, `csv`, `avro`. A row is begun, its fields are set in any order, and it is
//! ended: kept or dropped as a whole. A field that was not set is null, one set twice has the last.
//! Invariants: one entry a row; a dropped row is all null and leaves no bytes; data never outgrows
//! its source by more than what base64 and escapes save, so `i32` offsets suffice.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use model::schema::FieldType;

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

/// As much of a wrong value as a message shows.
pub(crate) fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let mut out: String = chars.by_ref().take(SHOWN_CHARS_MAX).collect();
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

/// A column under construction, with room for all its rows.
#[derive(Debug)]
pub(crate) struct Column {
    values: Values,
    /// A bit a row, least significant first.
    present: Vec<u8>,
    rows: usize,
}

#[derive(Debug)]
enum Values {
    Bool(Vec<u8>),
    Int(Vec<i64>),
    Time(Vec<i64>),
    Float(Vec<f64>),
    Text(Bytes),
    Bytes(Bytes),
}

/// Byte strings one after the other. `offsets[row]` is where the row that is being read begins.
#[derive(Debug)]
struct Bytes {
    offsets: Vec<i32>,
    data: Vec<u8>,
}

impl Bytes {
    fn new(rows: usize) -> Bytes {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Bytes {
            offsets,
            data: Vec::with_capacity(rows * 8),
        }
    }

    fn begin(&self) -> usize {
        self.offsets.last().map_or(0, |last| *last as usize)
    }

    #[inline]
    fn set(&mut self, bytes: &[u8]) {
        let begin = self.begin();
        if self.data.len() > begin {
            self.data.truncate(begin);
        }
        self.data.extend_from_slice(bytes);
    }
}

impl Column {
    pub(crate) fn new(ty: FieldType, rows: usize) -> Column {
        let values = match ty {
            FieldType::Bool => Values::Bool(vec![0; rows.div_ceil(8)]),
            FieldType::Int64 => Values::Int(vec![0; rows]),
            FieldType::Timestamp => Values::Time(vec![0; rows]),
            FieldType::Float64 => Values::Float(vec![0.0; rows]),
            FieldType::String => Values::Text(Bytes::new(rows)),
            FieldType::Bytes => Values::Bytes(Bytes::new(rows)),
        };
        Column {
            values,
            present: vec![0; rows.div_ceil(8)],
            rows,
        }
    }

    #[inline]
    fn mark(&mut self, row: usize) {
        self.present[row / 8] |= 1 << (row % 8);
    }

    #[inline]
    pub(crate) fn set_null(&mut self, row: usize) {
        self.present[row / 8] &= !(1 << (row % 8));
        if let Values::Text(bytes) | Values::Bytes(bytes) = &mut self.values {
            let begin = bytes.begin();
            bytes.data.truncate(begin);
        }
    }

    #[inline]
    pub(crate) fn set_bool(&mut self, row: usize, value: bool) {
        if let Values::Bool(bits) = &mut self.values {
            let bit = 1 << (row % 8);
            bits[row / 8] = (bits[row / 8] & !bit) | (u8::from(value) << (row % 8));
            self.mark(row);
        }
    }

    /// Of integers, and of times in microseconds.
    #[inline]
    pub(crate) fn set_int(&mut self, row: usize, value: i64) {
        if let Values::Int(values) | Values::Time(values) = &mut self.values {
            values[row] = value;
            self.mark(row);
        }
    }

    #[inline]
    pub(crate) fn set_float(&mut self, row: usize, value: f64) {
        if let Values::Float(values) = &mut self.values {
            values[row] = value;
            self.mark(row);
        }
    }

    #[inline]
    pub(crate) fn set_text(&mut self, row: usize, value: &str) {
        if let Values::Text(bytes) = &mut self.values {
            bytes.set(value.as_bytes());
            self.mark(row);
        }
    }

    pub(crate) fn set_bytes(&mut self, row: usize, value: &[u8]) {
        if let Values::Bytes(bytes) = &mut self.values {
            bytes.set(value);
            self.mark(row);
        }
    }

    /// Ends a row as it is.
    #[inline]
    pub(crate) fn end_row(&mut self) {
        if let Values::Text(bytes) | Values::Bytes(bytes) = &mut self.values {
            bytes.offsets.push(bytes.data.len() as i32);
        }
    }

    pub(crate) fn finish(self) -> ArrayRef {
        let rows = self.rows;
        let bits = BooleanBuffer::new(Buffer::from_vec(self.present), 0, rows);
        let nulls = Some(NullBuffer::new(bits)).filter(|nulls| nulls.null_count() > 0);
        match self.values {
            Values::Bool(bits) => {
                let bits = BooleanBuffer::new(Buffer::from_vec(bits), 0, rows);
                Arc::new(BooleanArray::new(bits, nulls))
            }
            Values::Int(values) => Arc::new(Int64Array::new(values.into(), nulls)),
            Values::Float(values) => Arc::new(Float64Array::new(values.into(), nulls)),
            Values::Time(values) => {
                let times = TimestampMicrosecondArray::new(values.into(), nulls);
                Arc::new(times.with_timezone("UTC"))
            }
            Values::Text(bytes) => {
                let (offsets, data) = bytes.finish();
                // SAFETY: the data is nothing but whole texts, as `set_text` got them, and every
                // offset is where one ends
                Arc::new(unsafe { StringArray::new_unchecked(offsets, data, nulls) })
            }
            Values::Bytes(bytes) => {
                let (offsets, data) = bytes.finish();
                Arc::new(BinaryArray::new(offsets, data, nulls))
            }
        }
    }
}

impl Bytes {
    fn finish(self) -> (OffsetBuffer<i32>, Buffer) {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        (offsets, Buffer::from_vec(self.data))
    }
}

/// The columns of some of a schema's fields, by the field's number.
#[derive(Debug)]
pub(crate) struct Columns {
    columns: Vec<Option<Column>>,
}

impl Columns {
    /// For `rows` rows of the fields wanted.
    pub(crate) fn new(types: &[FieldType], wanted: &[usize], rows: usize) -> Columns {
        let mut columns: Vec<Option<Column>> = types.iter().map(|_| None).collect();
        for index in wanted {
            columns[*index].get_or_insert_with(|| Column::new(types[*index], rows));
        }
        Columns { columns }
    }

    /// Reads values row by row into the columns wanted. A row without a value, or one that `read`
    /// refuses, is all null.
    pub(crate) fn read(
        (types, wanted): (&[FieldType], &[usize]),
        schema: SchemaRef,
        values: &BinaryArray,
        read: impl Fn(&[u8], usize, &mut Columns) -> Result<(), String>,
    ) -> Decoded {
        let mut columns = Columns::new(types, wanted, values.len());
        let mut errors = Vec::new();
        for row in 0..values.len() {
            let read = match values.is_valid(row) {
                true => read(values.value(row), row, &mut columns),
                false => Ok(()),
            };
            columns.end_row(row, read.is_ok());
            errors.extend(read.err().map(|message| (row as u32, message)));
        }
        columns.decoded(wanted, schema, values.len(), errors)
    }

    /// The column of a field, if it is wanted.
    #[inline]
    pub(crate) fn get(&mut self, field: usize) -> Option<&mut Column> {
        self.columns[field].as_mut()
    }

    /// Ends the row: as it was set, or as nulls.
    #[inline]
    pub(crate) fn end_row(&mut self, row: usize, keep: bool) {
        for column in self.columns.iter_mut().flatten() {
            if !keep {
                column.set_null(row);
            }
            column.end_row();
        }
    }

    /// All rows, and what was wrong with which, as columns of a schema.
    pub(crate) fn decoded(
        self,
        wanted: &[usize],
        schema: SchemaRef,
        rows: usize,
        errors: Vec<(u32, String)>,
    ) -> Decoded {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let columns = RecordBatch::try_new_with_options(schema, self.finish(wanted), &options)
            .expect("every column has one entry a row and its field's type");
        Decoded { columns, errors }
    }

    /// Arrays in the order wanted; a field may be wanted twice.
    fn finish(self, wanted: &[usize]) -> Vec<ArrayRef> {
        let finish = |column: Option<Column>| column.map(Column::finish);
        let arrays: Vec<Option<ArrayRef>> = self.columns.into_iter().map(finish).collect();
        wanted.iter().filter_map(|i| arrays[*i].clone()).collect()
    }
}
