//! Structs as rows of typed columns: what `#[derive(rustmq::Row)]` implements, and for which fields.
//!
//! Called by: code that the derive generates, `rt`.
//! Invariants: a struct's fields are the columns, in order; a field that is no `Option` refuses
//! rows where it is null; text and bytes are borrowed from the column.

use std::borrow::Cow;
use std::ops::BitOr;

use crate::batch::Batch;
use crate::column::Column;
pub use crate::fill::BLOCK;
use crate::outbox::Outbox;
use crate::record::Reject;
use crate::time::Timestamp;
use crate::typed::{Bools, Columnar, Field, FieldType, Floats, Ints};

/// A struct that can be read from typed columns. `#[derive(rustmq::Row)]` implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not read from columns",
    note = "put `#[derive(rustmq::Row)]` on it"
)]
pub trait FromColumns<'a>: Sized {
    /// A struct of the columns, with the same fields: `FlightColumns` of `Flight`.
    type Columns: 'a;
    #[doc(hidden)]
    type View: Copy;
    const FIELDS: &'static [Field];
    #[doc(hidden)]
    fn fetch(rows: &Batch) -> Self::Columns;
    #[doc(hidden)]
    fn count(columns: &Self::Columns) -> usize;
    /// The cells of so many rows, for a loop; panics where there are fewer.
    #[doc(hidden)]
    fn view(columns: &'a Self::Columns, rows: usize) -> Self::View;
    /// Whether every cell is present and is what its field holds.
    #[doc(hidden)]
    fn is_full(columns: &Self::Columns) -> bool;
    /// `full`: what `is_full` says.
    #[doc(hidden)]
    fn read(view: Self::View, row: usize, full: bool) -> Result<Self, Reject>;
}

/// Columns of rows that need not be there.
#[doc(hidden)]
pub struct OrNone<C> {
    columns: C,
    /// By row, where not all cells are there.
    is_record: Option<Vec<bool>>,
}

/// A record without a value is `None`. One with a value is a row, whatever its fields are.
impl<'a, T: FromColumns<'a>> FromColumns<'a> for Option<T> {
    type Columns = OrNone<T::Columns>;
    type View = (T::View, Option<&'a [bool]>);
    const FIELDS: &'static [Field] = T::FIELDS;

    fn fetch(rows: &Batch) -> OrNone<T::Columns> {
        let columns = T::fetch(rows);
        // the values, which are large, only where a cell is absent: without a value all are
        let is_record = (!T::is_full(&columns)).then(|| {
            let values = rows.values();
            (0..rows.len())
                .map(|row| values.get(row).is_some())
                .collect()
        });
        OrNone { columns, is_record }
    }

    fn count(columns: &Self::Columns) -> usize {
        T::count(&columns.columns)
    }

    #[inline(always)]
    fn view(columns: &'a Self::Columns, rows: usize) -> Self::View {
        (
            T::view(&columns.columns, rows),
            columns.is_record.as_deref(),
        )
    }

    fn is_full(columns: &Self::Columns) -> bool {
        T::is_full(&columns.columns)
    }

    #[inline(always)]
    fn read((view, is_record): Self::View, row: usize, full: bool) -> Result<Self, Reject> {
        match is_record.is_none_or(|records| records[row]) {
            true => T::read(view, row, full).map(Some),
            false => Ok(None),
        }
    }
}

/// A struct that can be written as typed columns. `#[derive(rustmq::Row)]` implements it.
pub trait ToColumns: Sized {
    /// As of [`FromColumns`].
    type Columns;
    #[doc(hidden)]
    type Fill<'c>;
    const FIELDS: &'static [Field];
    #[doc(hidden)]
    fn columns(rows: usize) -> Self::Columns;
    #[doc(hidden)]
    fn write(self, columns: &mut Self::Columns);
    /// Room for so many rows in columns that have none, for a loop.
    #[doc(hidden)]
    fn fill(columns: &mut Self::Columns, rows: usize) -> Self::Fill<'_>;
    #[doc(hidden)]
    fn put(self, fill: &mut Self::Fill<'_>);
    #[doc(hidden)]
    fn put_block(rows: [Self; BLOCK], fill: &mut Self::Fill<'_>);
    #[doc(hidden)]
    fn set(columns: &Self::Columns, out: &mut Outbox);
}

/// A type that a field of a row may have.
#[diagnostic::on_unimplemented(
    message = "a field of a row cannot be `{Self}`",
    note = "fields are bool, i64, i32, u32, f64, text (&str, String, Cow<str>), bytes (&[u8], \
            Vec<u8>), rustmq::Timestamp, or an Option of one of these"
)]
pub trait Cell<'a>: Sized {
    #[doc(hidden)]
    type Column: Columnar;
    const KIND: FieldType;
    /// Whether it may be absent.
    #[doc(hidden)]
    const NULLABLE: bool = false;
    /// Whether every cell of the column can be read as one.
    #[doc(hidden)]
    fn is_full(column: &Self::Column) -> bool {
        column.is_full()
    }
    /// `full`: what `is_full` says.
    #[doc(hidden)]
    fn read(view: View<'a, Self>, row: usize, full: bool) -> Result<Self, Unfit>;
    #[doc(hidden)]
    fn write(self, column: &mut Self::Column);
    #[doc(hidden)]
    fn put(self, fill: &mut Fill<'_, 'a, Self>);
    #[doc(hidden)]
    #[inline(always)]
    fn put_block(cells: [Self; BLOCK], fill: &mut Fill<'_, 'a, Self>) {
        cells.into_iter().for_each(|cell| cell.put(fill));
    }
    #[doc(hidden)]
    fn put_option(cell: Option<Self>, fill: &mut Fill<'_, 'a, Self>);
    #[doc(hidden)]
    #[inline(always)]
    fn put_options(cells: [Option<Self>; BLOCK], fill: &mut Fill<'_, 'a, Self>) {
        cells
            .into_iter()
            .for_each(|cell| Self::put_option(cell, fill));
    }
}

type View<'a, T> = <<T as Cell<'a>>::Column as Columnar>::View<'a>;
type Fill<'c, 'a, T> = <<T as Cell<'a>>::Column as Columnar>::Fill<'c>;

/// Why a cell is not what the field wants.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    Null,
    Range(i64),
}

impl<'a, T: Cell<'a>> Cell<'a> for Option<T> {
    type Column = T::Column;
    const KIND: FieldType = T::KIND;
    const NULLABLE: bool = true;

    fn is_full(column: &Self::Column) -> bool {
        T::is_full(column)
    }

    #[inline(always)]
    fn read(view: View<'a, T>, row: usize, full: bool) -> Result<Option<T>, Unfit> {
        match T::read(view, row, full) {
            Ok(value) => Ok(Some(value)),
            Err(Unfit::Null) => Ok(None),
            Err(other) => Err(other),
        }
    }

    #[inline(always)]
    fn write(self, column: &mut Self::Column) {
        match self {
            Some(value) => value.write(column),
            None => column.push_null(),
        }
    }

    #[inline(always)]
    fn put(self, fill: &mut Fill<'_, 'a, T>) {
        T::put_option(self, fill);
    }

    #[inline(always)]
    fn put_block(cells: [Option<T>; BLOCK], fill: &mut Fill<'_, 'a, T>) {
        T::put_options(cells, fill);
    }

    #[inline(always)]
    fn put_option(cell: Option<Option<T>>, fill: &mut Fill<'_, 'a, T>) {
        T::put_option(cell.flatten(), fill);
    }
}

/// Cells of fixed width: of which column, how they are read and written, and, where a number of the column
/// may be more than fits, the bits that it has in excess.
macro_rules! fixed {
    ($(
        $ty:ty, $column:ty, $kind:ident, |$from:ident| $read:expr, |$to:ident| $write:expr
        $(, $excess:expr)?;
    )*) => {$(
        impl<'a> Cell<'a> for $ty {
            type Column = $column;
            const KIND: FieldType = FieldType::$kind;

            $(fn is_full(column: &$column) -> bool {
                column.is_full() && all_bits::<16, _, _>(column.values(), |n| $excess(*n)) == 0
            })?

            #[inline(always)]
            fn read(view: View<'a, $ty>, row: usize, full: bool) -> Result<$ty, Unfit> {
                let $from = view.get(row, full).ok_or(Unfit::Null)?;
                $(if !full && $excess($from) != 0 {
                    return Err(Unfit::Range($from));
                })?
                Ok($read)
            }

            #[inline(always)]
            fn write(self, column: &mut $column) {
                let $to = self;
                column.push(Some($write));
            }

            #[inline(always)]
            fn put(self, fill: &mut Fill<'_, 'a, $ty>) {
                let $to = self;
                fill.put($write);
            }

            #[inline(always)]
            fn put_block(cells: [$ty; BLOCK], fill: &mut Fill<'_, 'a, $ty>) {
                fill.put_block(cells.map(|$to| $write));
            }

            #[inline(always)]
            fn put_option(cell: Option<$ty>, fill: &mut Fill<'_, 'a, $ty>) {
                fill.put_option(cell.map(|$to| $write));
            }

            #[inline(always)]
            fn put_options(cells: [Option<$ty>; BLOCK], fill: &mut Fill<'_, 'a, $ty>) {
                fill.put_options(cells.map(|cell| cell.map(|$to| $write)));
            }
        }
    )*};
}

fixed! {
    bool, Bools, Bool, |b| b, |b| b;
    i64, Ints, Int64, |n| n, |n| n;
    i32, Ints, Int64, |n| n as i32, |n| n.into(), |n: i64| n.wrapping_add(1 << 31) >> 32;
    u32, Ints, Int64, |n| n as u32, |n| n.into(), |n: i64| n >> 32;
    f64, Floats, Float64, |n| n, |n| n;
    Timestamp, Ints, Timestamp, |n| Timestamp::from_micros(n), |t| t.micros();
}

/// The bits that any of the items has: without an early end and by blocks, so that several are looked at at
/// once.
fn all_bits<const AT_ONCE: usize, T, B: Default + BitOr<Output = B>>(
    items: &[T],
    bits: impl Fn(&T) -> B,
) -> B {
    let of = |all: B, items: &[T]| items.iter().fold(all, |all, item| all | bits(item));
    let (blocks, rest) = items.as_chunks::<AT_ONCE>();
    let all = blocks
        .iter()
        .fold(B::default(), |all, block| all | of(B::default(), block));
    of(all, rest)
}

macro_rules! borrowed {
    ($($ty:ty, $column:ty, $kind:ident, |$from:ident| $read:expr, |$to:ident| $write:expr;)*) => {$(
        impl<'a> Cell<'a> for $ty {
            type Column = $column;
            const KIND: FieldType = FieldType::$kind;

            #[inline(always)]
            fn read(view: View<'a, $ty>, row: usize, _: bool) -> Result<$ty, Unfit> {
                let $from = view.get(row).ok_or(Unfit::Null)?;
                Ok($read)
            }

            #[inline(always)]
            fn write(self, column: &mut $column) {
                let $to = &self;
                column.push(Some($write));
            }

            #[inline(always)]
            fn put(self, fill: &mut Fill<'_, 'a, $ty>) {
                self.write(fill);
            }

            #[inline(always)]
            fn put_option(cell: Option<$ty>, fill: &mut Fill<'_, 'a, $ty>) {
                match cell {
                    Some(cell) => cell.write(fill),
                    None => fill.push_null(),
                }
            }
        }
    )*};
}

borrowed! {
    &'a str, Texts, String, |t| t, |t| t;
    String, Texts, String, |t| t.to_owned(), |t| t;
    Cow<'a, str>, Texts, String, |t| Cow::Borrowed(t), |t| t;
    &'a [u8], Column, Bytes, |b| b, |b| b;
    Vec<u8>, Column, Bytes, |b| b.to_vec(), |b| b;
    Cow<'a, [u8]>, Column, Bytes, |b| Cow::Borrowed(b), |b| b;
}

/// A column of text: byte strings of which each was seen to be UTF-8.
#[derive(Debug, Default)]
pub struct Texts(Column);

impl Texts {
    pub fn new() -> Texts {
        Texts::default()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A row; `None` when it is absent. Panics past the end.
    #[inline(always)]
    pub fn get(&self, row: usize) -> Option<&str> {
        // SAFETY: every row was checked when the column was fetched, or pushed as text
        self.0
            .get(row)
            .map(|bytes| unsafe { std::str::from_utf8_unchecked(bytes) })
    }

    #[inline(always)]
    pub fn push(&mut self, text: Option<&str>) {
        self.0.push(text.map(str::as_bytes));
    }

    /// Panics where a row is not UTF-8, which no column of strings has.
    fn checked(column: Column) -> Texts {
        let is_ascii = all_bits::<64, _, _>(column.bytes(), |byte| *byte) < 0x80;
        if !is_ascii {
            for row in column.iter().flatten() {
                assert!(std::str::from_utf8(row).is_ok(), "a text that is not UTF-8");
            }
        }
        Texts(column)
    }
}

impl Columnar for Texts {
    fn fetch(rows: &Batch, column: u16) -> Texts {
        Texts::checked(rows.bytes(column))
    }

    fn set(&self, out: &mut Outbox, column: u16) {
        out.set_bytes(column, &self.0);
    }

    fn reserve(&mut self, rows: usize) {
        self.0.reserve(rows);
    }

    #[inline(always)]
    fn push_null(&mut self) {
        self.0.push(None);
    }

    fn is_full(&self) -> bool {
        self.0.is_full()
    }

    fn rows(&self) -> usize {
        self.len()
    }

    type View<'c> = &'c Texts;

    #[inline(always)]
    fn view(&self, rows: usize) -> &Texts {
        self.0.view(rows);
        self
    }

    type Fill<'c> = &'c mut Texts;

    #[inline(always)]
    fn fill(&mut self, rows: usize, _: bool) -> &mut Texts {
        self.reserve(rows);
        self
    }
}

/// Reads a field of a row for the derive.
#[doc(hidden)]
#[inline(always)]
pub fn cell<'a, T: Cell<'a>>(
    view: View<'a, T>,
    row: usize,
    full: bool,
    name: &'static str,
) -> Result<T, Reject> {
    T::read(view, row, full).map_err(|unfit| unfit.reject(name))
}

impl Unfit {
    #[cold]
    fn reject(self, name: &str) -> Reject {
        match self {
            Unfit::Null => Reject::new("null", format!("field `{name}` is null")),
            Unfit::Range(number) => {
                let text = format!("field `{name}` is {number}, which its type cannot hold");
                Reject::new("range", text)
            }
        }
    }
}

/// Makes room in an output's column for the derive.
#[doc(hidden)]
pub fn room<C: Columnar>(rows: usize) -> C {
    let mut column = C::default();
    column.reserve(rows);
    column
}
