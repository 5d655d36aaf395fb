//! Sections of typed columns: what a batch has instead of value bytes.
//!
//! Called by `batch::encode` and `batch::columns`. Column `i` has the sections
//! `COLUMNS + 3 i` (values, bits or offsets), the next one (bytes of text and bytes) and the one
//! behind that (validity). Invariants: what is encoded decodes to the same arrays.
//! Refuses: types that are not known, lengths that do not fit the records, text that is not
//! UTF-8.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

use super::BatchError;
use super::columns::Reader;
use super::encode::{Plain, bits, rebased};
use super::format::{self, Section};
use crate::limits::COLUMNS_MAX;
use crate::rows::TypedColumns;
use crate::schema::FieldType;

/// How the section of types says each; never changed.
const CODES: [(u8, FieldType); 6] = [
    (1, FieldType::Bool),
    (2, FieldType::Int64),
    (3, FieldType::Float64),
    (4, FieldType::String),
    (5, FieldType::Bytes),
    (6, FieldType::Timestamp),
];

fn code_of(ty: FieldType) -> u8 {
    let known = CODES.iter().find(|(_, known)| *known == ty);
    known.map_or(0, |(code, _)| *code)
}

fn id_of(column: usize) -> u16 {
    format::COLUMNS + 3 * column as u16
}

/// Appends the sections of all columns.
pub(super) fn sections<'a>(out: &mut Vec<Plain<'a>>, columns: &'a TypedColumns) {
    out.push(Plain {
        id: format::COLUMN_TYPES,
        bytes: Cow::Owned(columns.types().map(code_of).collect()),
    });
    for (column, array) in columns.arrays().iter().enumerate() {
        let id = id_of(column);
        let mut put = |id, bytes| out.push(Plain { id, bytes });
        match FieldType::of_arrow(array.data_type()) {
            Some(FieldType::Bool) => {
                put(id, Cow::Owned(bits(array.as_boolean().values())));
            }
            Some(FieldType::Int64) => {
                put(
                    id,
                    plain(array.as_primitive::<Int64Type>().values().inner()),
                );
            }
            Some(FieldType::Timestamp) => {
                let times = array.as_primitive::<TimestampMicrosecondType>();
                put(id, plain(times.values().inner()));
            }
            Some(FieldType::Float64) => {
                put(
                    id,
                    plain(array.as_primitive::<Float64Type>().values().inner()),
                );
            }
            Some(FieldType::String) => {
                let text = array.as_string::<i32>();
                put(id, rebased(text.offsets(), 0, text.len() + 1));
                put(id + 1, cells(text.offsets(), text.values()));
            }
            Some(FieldType::Bytes) => {
                let bytes = array.as_binary::<i32>();
                put(id, rebased(bytes.offsets(), 0, bytes.len() + 1));
                put(id + 1, cells(bytes.offsets(), bytes.values()));
            }
            None => unreachable!("`TypedColumns` has only these"),
        }
        if let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) {
            put(id + 2, Cow::Owned(bits(nulls.inner())));
        }
    }
}

fn plain(values: &Buffer) -> Cow<'_, [u8]> {
    Cow::Borrowed(values.as_slice())
}

/// The bytes that the offsets mean.
fn cells<'a>(offsets: &OffsetBuffer<i32>, data: &'a Buffer) -> Cow<'a, [u8]> {
    let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
    Cow::Borrowed(&data.as_slice()[first as usize..last as usize])
}

impl Reader<'_> {
    /// The typed columns, if there are any; no section may be left over.
    pub(super) fn typed(&self, n: usize) -> Result<Option<TypedColumns>, BatchError> {
        let Some(section) = self.find(format::COLUMN_TYPES) else {
            return match self.first_of_columns(0) {
                Some(stray) => Err(stray.wrong("it is of a column, and no types are there")),
                None => Ok(None),
            };
        };
        let count = section.decoded_length as usize;
        if count == 0 || count > COLUMNS_MAX {
            return Err(section.wrong(format!("{count} columns; 1 to {COLUMNS_MAX} are allowed")));
        }
        if let Some(stray) = self.first_of_columns(count) {
            return Err(stray.wrong(format!("it is of a column beyond the {count} there are")));
        }
        let types = self.load(&section, count, 1)?;
        let mut arrays = Vec::with_capacity(count);
        for (column, code) in types.iter().enumerate() {
            let known = CODES.iter().find(|(known, _)| known == code);
            let Some((_, ty)) = known else {
                return Err(section.wrong(format!("column {column} has type {code}")));
            };
            arrays.push(self.typed_column(id_of(column), *ty, n)?);
        }
        let columns = TypedColumns::new(arrays);
        columns.map(Some).map_err(|e| section.wrong(e.to_string()))
    }

    /// The first section of a column from this one on.
    fn first_of_columns(&self, from: usize) -> Option<Section> {
        let from = id_of(from);
        let all = format::sections(self.head, self.body);
        all.into_iter()
            .find(|section| (from..=format::KNOWN_MAX).contains(&section.id))
    }

    fn typed_column(&self, id: u16, ty: FieldType, n: usize) -> Result<ArrayRef, BatchError> {
        let is_text = matches!(ty, FieldType::String | FieldType::Bytes);
        if !is_text && let Some(stray) = self.find(id + 1) {
            return Err(stray.wrong(format!("a column of {ty} has no bytes of its own")));
        }
        let nulls = self.validity(id + 2, n)?;
        Ok(match ty {
            FieldType::Bool => {
                let bits = self.bits(id, n)?;
                Arc::new(BooleanArray::new(bits, nulls))
            }
            FieldType::Int64 => Arc::new(Int64Array::new(self.numbers(id, n)?, nulls)),
            FieldType::Float64 => {
                let values = ScalarBuffer::new(self.required(id, n * 8, 8)?, 0, n);
                Arc::new(Float64Array::new(values, nulls))
            }
            FieldType::Timestamp => {
                let times = TimestampMicrosecondArray::new(self.numbers(id, n)?, nulls);
                Arc::new(times.with_timezone("UTC"))
            }
            FieldType::String => {
                let (section, offsets, data) = self.text(id, n)?;
                let text = StringArray::try_new(offsets, data, nulls);
                Arc::new(text.map_err(|e| section.wrong(e.to_string()))?)
            }
            FieldType::Bytes => {
                let (section, offsets, data) = self.text(id, n)?;
                let bytes = BinaryArray::try_new(offsets, data, nulls);
                Arc::new(bytes.map_err(|e| section.wrong(e.to_string()))?)
            }
        })
    }

    fn numbers(&self, id: u16, n: usize) -> Result<ScalarBuffer<i64>, BatchError> {
        Ok(ScalarBuffer::new(self.required(id, n * 8, 8)?, 0, n))
    }

    fn text(&self, id: u16, n: usize) -> Result<(Section, OffsetBuffer<i32>, Buffer), BatchError> {
        let section = self.present(id)?;
        let offsets = self.offsets(&section, n)?;
        let data = self.required(id + 1, offsets[n] as usize, 1)?;
        Ok((section, offsets, data))
    }

    /// Which records have a value, where columns say what it is: as values of no bytes.
    pub(super) fn presence(&self, n: usize) -> Result<BinaryArray, BatchError> {
        let id = format::VALUE_OFFSETS;
        if let Some(stray) = self.find(id).or_else(|| self.find(id + 1)) {
            return Err(stray.wrong("there are columns, so there are no value bytes"));
        }
        let nulls: Option<NullBuffer> = self.validity(id + 2, n)?;
        let (offsets, data) = (OffsetBuffer::new_zeroed(n), Buffer::default());
        Ok(BinaryArray::new(offsets, data, nulls))
    }

    fn bits(&self, id: u16, n: usize) -> Result<BooleanBuffer, BatchError> {
        let section = self.present(id)?;
        self.checked_bits(&section, n)
    }
}
