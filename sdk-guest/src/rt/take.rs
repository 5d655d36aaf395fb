//! How the first parameter of a module's function is made of a row.
//!
//! Which way it is taken is decided by its type, when the module is compiled: bytes and text as they
//! are, a struct with `#[derive(rustmq::Row)]` from typed columns, all else from JSON.
//!
//! Called by: code of the attributes: `(&Taking::of(..)).way()`, which finds the columns first,
//! because JSON's trait needs one more reference.

use std::marker::PhantomData;

use serde::Deserialize;

use crate::batch::{Batch, Context};
use crate::column::Column;
use crate::record::{Failure, Reject};
use crate::row::FromColumns;

/// The type of a parameter.
pub struct Taking<T>(PhantomData<fn() -> T>);

impl<T> Taking<T> {
    /// Of a function that is only looked at.
    pub fn of<R>(_: impl FnOnce(T) -> R) -> Taking<T> {
        Taking(PhantomData)
    }
}

pub trait TakeColumns<T> {
    fn way(&self) -> RowTake<T>;
}

impl<'a, T: FromColumns<'a>> TakeColumns<T> for Taking<T> {
    fn way(&self) -> RowTake<T> {
        RowTake(PhantomData)
    }
}

pub trait TakeJson<T> {
    fn way(&self) -> JsonTake<T>;
}

impl<T> TakeJson<T> for &Taking<T> {
    fn way(&self) -> JsonTake<T> {
        JsonTake(PhantomData)
    }
}

/// From typed columns.
pub struct RowTake<T>(PhantomData<fn() -> T>);

impl<'a, T: FromColumns<'a>> RowTake<T> {
    /// Says which fields every input must bring.
    pub fn select(&self, context: &Context) -> Result<(), Failure> {
        (0..context.inputs().len()).try_for_each(|input| context.select(input as u16, T::FIELDS))
    }

    pub fn fetch(&self, rows: &Batch) -> T::Columns {
        T::fetch(rows)
    }

    /// How many rows, without a question to the host.
    pub fn count(&self, columns: &T::Columns, _: &Batch) -> usize {
        T::count(columns)
    }

    #[inline(always)]
    pub fn view(&self, columns: &'a T::Columns, rows: usize) -> T::View {
        T::view(columns, rows)
    }

    pub fn is_full(&self, columns: &T::Columns) -> bool {
        T::is_full(columns)
    }

    #[inline(always)]
    pub fn read(&self, view: T::View, row: usize, full: bool) -> Result<T, Reject> {
        T::read(view, row, full)
    }

    /// Of an `Option`: its columns know which records have a value.
    #[inline(always)]
    pub fn read_option(&self, view: T::View, row: usize, full: bool) -> Result<T, Reject> {
        self.read(view, row, full)
    }
}

/// What all have in common that read the values as bytes.
macro_rules! of_values {
    () => {
        pub fn select(&self, _: &Context) -> Result<(), Failure> {
            Ok(())
        }

        pub fn fetch<'r>(&self, rows: &'r Batch) -> &'r Column {
            rows.values()
        }

        pub fn count(&self, _: &Column, rows: &Batch) -> usize {
            rows.len()
        }

        pub fn view<'r>(&self, values: &&'r Column, _: usize) -> &'r Column {
            values
        }

        /// Nothing that a loop could make use of.
        pub fn is_full(&self, _: &Column) -> bool {
            false
        }
    };
}

/// From JSON.
pub struct JsonTake<T>(PhantomData<fn() -> T>);

impl<T> JsonTake<T> {
    of_values!();

    #[inline]
    pub fn read<'a>(&self, values: &'a Column, row: usize, _: bool) -> Result<T, Reject>
    where
        T: Deserialize<'a>,
    {
        let value = bytes(values.get(row))?;
        serde_json::from_slice(value).map_err(|e| Reject::new("json", e))
    }
}

impl<U> JsonTake<Option<U>> {
    /// A record without a value is `None`.
    pub fn read_option<'a>(
        &self,
        values: &'a Column,
        row: usize,
        _: bool,
    ) -> Result<Option<U>, Reject>
    where
        U: Deserialize<'a>,
    {
        let read = |value| serde_json::from_slice(value).map_err(|e| Reject::new("json", e));
        values.get(row).map(read).transpose()
    }
}

/// As it is.
pub struct RawTake;

impl RawTake {
    of_values!();

    #[inline]
    pub fn read<'a>(&self, values: &'a Column, row: usize, _: bool) -> Option<&'a [u8]> {
        values.get(row)
    }
}

/// Takes a value as it is.
#[inline]
pub fn bytes(value: Option<&[u8]>) -> Result<&[u8], Reject> {
    value.ok_or_else(|| Reject::new("no-value", "the record has no value"))
}

/// Takes a value as text, or that there is none.
pub fn text_or_none(value: Option<&[u8]>) -> Result<Option<&str>, Reject> {
    value.map(|value| text(Some(value))).transpose()
}

/// Takes a value as text.
pub fn text(value: Option<&[u8]>) -> Result<&str, Reject> {
    std::str::from_utf8(bytes(value)?)
        .map_err(|e| Reject::new("utf-8", format!("the value is not UTF-8: {e}")))
}
