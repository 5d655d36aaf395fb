//! Values as typed columns: what rows of a topic of `columns` have instead of value bytes.
//!
//! Called by `rows`, batch, codec, storage, pipelines, sql. Invariants: every column has one of
//! the types of a schema and as many rows as the others; a clone shares the buffers, and so does
//! a slice. Refuses other types, uneven columns, more than `COLUMNS_MAX` of them.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::{concat, take};
use arrow::datatypes::DataType;

use super::{Rows, RowsError};
use crate::limits::COLUMNS_MAX;
use crate::schema::FieldType;

/// The columns of a schema's fields, in its order. A row without a value is null in all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct TypedColumns {
    arrays: Arc<[ArrayRef]>,
}

impl TypedColumns {
    /// At least one column.
    ///
    /// # Errors
    /// No columns or too many, columns of uneven length, types that no schema has.
    pub fn new(arrays: Vec<ArrayRef>) -> Result<TypedColumns, RowsError> {
        let Some(first) = arrays.first() else {
            return Err(RowsError::Typed("there are none".to_owned()));
        };
        if arrays.len() > COLUMNS_MAX {
            let count = arrays.len();
            return Err(RowsError::Typed(format!(
                "there are {count}; at most {COLUMNS_MAX} are allowed"
            )));
        }
        let expected = first.len();
        for array in &arrays {
            if array.len() != expected {
                return Err(RowsError::Uneven {
                    column: "typed",
                    expected,
                    got: array.len(),
                });
            }
            if FieldType::of_arrow(array.data_type()).is_none() {
                let ty = array.data_type();
                return Err(RowsError::Typed(format!("one has type {ty}")));
            }
        }
        Ok(TypedColumns {
            arrays: arrays.into(),
        })
    }

    /// In the order of the schema's fields.
    pub fn arrays(&self) -> &[ArrayRef] {
        &self.arrays
    }

    /// The type of each column.
    pub fn types(&self) -> impl ExactSizeIterator<Item = FieldType> {
        let ty = |array: &ArrayRef| FieldType::of_arrow(array.data_type());
        let types = self.arrays.iter().map(ty);
        types.map(|ty| ty.expect("`new` let only these pass"))
    }

    /// How many rows.
    #[allow(
        clippy::len_without_is_empty,
        reason = "`Rows` says whether there are none"
    )]
    pub fn len(&self) -> usize {
        self.arrays[0].len()
    }

    /// Rows `from..from + len`, sharing the buffers. The range must be inside.
    pub fn slice(&self, from: usize, len: usize) -> TypedColumns {
        TypedColumns {
            arrays: self.arrays.iter().map(|a| a.slice(from, len)).collect(),
        }
    }

    /// The chosen rows. Every row must be there.
    pub(super) fn take(&self, rows: &[u32]) -> Result<TypedColumns, RowsError> {
        let indices = UInt32Array::from(rows.to_vec());
        let taken = |array: &ArrayRef| take(array, &indices, None).map_err(RowsError::typed);
        let arrays: Result<Vec<ArrayRef>, RowsError> = self.arrays.iter().map(taken).collect();
        Ok(TypedColumns {
            arrays: arrays?.into(),
        })
    }

    /// Bytes of `len` rows from `from` on, as they would be encoded without compression; without
    /// the bits that say what is null.
    pub fn span_bytes(&self, from: usize, len: usize) -> usize {
        let bytes = |array: &ArrayRef| match text_offsets(array) {
            Some(offsets) => (offsets[from + len] - offsets[from]) as usize + len * 4,
            None if *array.data_type() == DataType::Boolean => len.div_ceil(8),
            None => len * 8,
        };
        self.arrays.iter().map(bytes).sum()
    }

    /// Bytes of all rows, as [`TypedColumns::span_bytes`] has them.
    pub fn bytes(&self) -> usize {
        self.span_bytes(0, self.len())
    }

    /// Bytes of each row.
    pub(crate) fn row_bytes(&self) -> impl Fn(usize) -> usize {
        let texts: Vec<&[i32]> = self.arrays.iter().filter_map(text_offsets).collect();
        let fixed = (self.arrays.len() - texts.len()) * 8;
        move |row| {
            let text = |offsets: &&[i32]| (offsets[row + 1] - offsets[row]) as usize;
            fixed + texts.iter().map(text).sum::<usize>()
        }
    }
}

fn text_offsets(array: &ArrayRef) -> Option<&[i32]> {
    let text = array.as_string_opt::<i32>().map(|a| a.value_offsets());
    text.or_else(|| array.as_binary_opt::<i32>().map(|a| a.value_offsets()))
}

/// The typed columns of all parts, in order; `None` if no part has any. A part without columns
/// has only records without a value.
pub(super) fn join(parts: &[Rows]) -> Result<Option<TypedColumns>, RowsError> {
    let Some(first) = parts.iter().find_map(|part| part.columns.as_ref()) else {
        return Ok(None);
    };
    let types: Vec<DataType> = first.arrays.iter().map(|a| a.data_type().clone()).collect();
    for part in parts {
        let fits = match &part.columns {
            Some(columns) => columns.types().eq(first.types()),
            None => part.values.null_count() == part.len(),
        };
        if !fits {
            let wrong = "rows of other columns, or of value bytes, cannot stand behind them";
            return Err(RowsError::Typed(wrong.to_owned()));
        }
    }
    let mut arrays = Vec::with_capacity(types.len());
    for (index, ty) in types.iter().enumerate() {
        let own: Vec<ArrayRef> = parts
            .iter()
            .map(|part| match &part.columns {
                Some(columns) => columns.arrays[index].clone(),
                None => new_null_array(ty, part.len()),
            })
            .collect();
        let own: Vec<&dyn Array> = own.iter().map(|array| array.as_ref()).collect();
        arrays.push(concat(&own).map_err(RowsError::typed)?);
    }
    TypedColumns::new(arrays).map(Some)
}
