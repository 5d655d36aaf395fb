//! Columns of numbers, as they cross the boundary, and what a field may be.
//!
//! Called by: `batch` and `row` (read), `rt` and authors of [`crate::Module`] (build).
//! Invariants: a column has a value for every row, present or not; validity is empty while every
//! row is present.

use crate::batch::Batch;
use crate::column::Column;
use crate::fill::{BitCells, Bits, Cells, Numbers};
use crate::outbox::Outbox;

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FieldType {
    Bool,
    Int64,
    Float64,
    String,
    Bytes,
    Timestamp,
}

/// A field that a module reads or sets as a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: std::borrow::Cow<'static, str>,
    pub kind: FieldType,
}

impl Field {
    pub const fn new(name: &'static str, kind: FieldType) -> Field {
        Field {
            name: std::borrow::Cow::Borrowed(name),
            kind,
        }
    }
}

/// A column that can be fetched from a batch and set on an emit.
pub trait Columnar: Default + 'static {
    /// Fetches a selected column; one call of the host.
    fn fetch(rows: &Batch, column: u16) -> Self;

    /// Sets a declared column of the last emit; one call of the host.
    fn set(&self, out: &mut Outbox, column: u16);

    /// Room for rows.
    fn reserve(&mut self, rows: usize);

    fn push_null(&mut self);

    /// Whether every row is present.
    fn is_full(&self) -> bool;

    /// How many rows.
    #[doc(hidden)]
    fn rows(&self) -> usize;

    #[doc(hidden)]
    type View<'c>: Copy;
    /// The cells of so many rows; panics where there are fewer.
    #[doc(hidden)]
    fn view(&self, rows: usize) -> Self::View<'_>;

    #[doc(hidden)]
    type Fill<'c>;
    /// Room for so many rows of an empty column; `nullable` where they may be absent.
    #[doc(hidden)]
    fn fill(&mut self, rows: usize, nullable: bool) -> Self::Fill<'_>;
}

/// Which rows are present. Empty while all are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Validity(pub(crate) Vec<u8>);

impl Validity {
    #[inline]
    pub(crate) fn is_present(&self, row: usize) -> bool {
        is_present(&self.0, row)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn bits(&self) -> Option<&[u8]> {
        (!self.is_full()).then_some(&self.0)
    }

    /// Row number `row` comes next.
    #[inline]
    pub(crate) fn push(&mut self, row: usize, present: bool) {
        if present && self.0.is_empty() {
            return;
        }
        self.push_slowly(row, present);
    }

    fn push_slowly(&mut self, row: usize, present: bool) {
        if self.0.is_empty() {
            // the first absent row: all before it were present
            self.0 = vec![0xff; row / 8];
            self.0.push(((1u16 << (row % 8)) - 1) as u8);
        } else if row.is_multiple_of(8) {
            self.0.push(0);
        }
        if present {
            self.0[row / 8] |= 1 << (row % 8);
        }
    }
}

#[inline(always)]
pub(crate) fn is_present(validity: &[u8], row: usize) -> bool {
    validity.is_empty() || validity[row / 8] & (1 << (row % 8)) != 0
}

/// A column of integers, or of times in microseconds since the epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ints {
    pub(crate) values: Vec<i64>,
    pub(crate) validity: Validity,
}

/// A column of floats.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Floats {
    pub(crate) values: Vec<f64>,
    pub(crate) validity: Validity,
}

macro_rules! numbers {
    ($name:ident, $number:ty, $fetch:ident, $set:ident) => {
        impl $name {
            pub fn new() -> $name {
                $name::default()
            }

            pub fn len(&self) -> usize {
                self.values.len()
            }

            pub fn is_empty(&self) -> bool {
                self.values.is_empty()
            }

            /// The values of all rows; those of absent rows mean nothing.
            pub fn values(&self) -> &[$number] {
                &self.values
            }

            /// Which rows are present, a bit each, least significant first; `None` while all are.
            pub fn validity(&self) -> Option<&[u8]> {
                self.validity.bits()
            }

            /// A row; `None` when it is absent. Panics past the end.
            #[inline]
            pub fn get(&self, row: usize) -> Option<$number> {
                let value = self.values[row];
                self.validity.is_present(row).then_some(value)
            }

            #[inline]
            pub fn push(&mut self, value: Option<$number>) {
                self.validity.push(self.values.len(), value.is_some());
                self.values.push(value.unwrap_or_default());
            }
        }

        impl Columnar for $name {
            fn fetch(rows: &Batch, column: u16) -> $name {
                rows.$fetch(column)
            }

            fn set(&self, out: &mut Outbox, column: u16) {
                out.$set(column, self);
            }

            fn reserve(&mut self, rows: usize) {
                self.values.reserve(rows);
            }

            #[inline]
            fn push_null(&mut self) {
                self.push(None);
            }

            fn is_full(&self) -> bool {
                self.validity.is_full()
            }

            fn rows(&self) -> usize {
                self.len()
            }

            type View<'c> = Cells<'c, $number>;

            #[inline(always)]
            fn view(&self, rows: usize) -> Cells<'_, $number> {
                Cells::new(&self.values, &self.validity, rows)
            }

            type Fill<'c> = Numbers<'c, $number>;

            #[inline(always)]
            fn fill(&mut self, rows: usize, nullable: bool) -> Numbers<'_, $number> {
                Numbers::new(&mut self.values, &mut self.validity, rows, nullable)
            }
        }

        impl From<Vec<$number>> for $name {
            fn from(values: Vec<$number>) -> $name {
                $name {
                    values,
                    validity: Validity::default(),
                }
            }
        }
    };
}

numbers!(Ints, i64, ints, set_ints);
numbers!(Floats, f64, floats, set_floats);

/// A column of bools, a bit each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bools {
    pub(crate) values: Vec<u8>,
    pub(crate) len: usize,
    pub(crate) validity: Validity,
}

impl Bools {
    pub fn new() -> Bools {
        Bools::default()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A row; `None` when it is absent. Panics past the end.
    #[inline]
    pub fn get(&self, row: usize) -> Option<bool> {
        let value = self.values[row / 8] & (1 << (row % 8)) != 0;
        self.validity.is_present(row).then_some(value)
    }

    #[inline]
    pub fn push(&mut self, value: Option<bool>) {
        let row = self.len;
        if row.is_multiple_of(8) {
            self.values.push(0);
        }
        self.validity.push(row, value.is_some());
        self.values[row / 8] |= u8::from(value.unwrap_or_default()) << (row % 8);
        self.len += 1;
    }
}

impl Columnar for Bools {
    fn fetch(rows: &Batch, column: u16) -> Bools {
        rows.bools(column)
    }

    fn set(&self, out: &mut Outbox, column: u16) {
        out.set_bools(column, self);
    }

    fn reserve(&mut self, rows: usize) {
        self.values.reserve(rows.div_ceil(8));
    }

    #[inline]
    fn push_null(&mut self) {
        self.push(None);
    }

    fn is_full(&self) -> bool {
        self.validity.is_full()
    }

    fn rows(&self) -> usize {
        self.len()
    }

    type View<'c> = BitCells<'c>;

    #[inline(always)]
    fn view(&self, rows: usize) -> BitCells<'_> {
        BitCells::new(self, rows)
    }

    type Fill<'c> = Bits<'c>;

    #[inline(always)]
    fn fill(&mut self, rows: usize, nullable: bool) -> Bits<'_> {
        Bits::new(self, rows, nullable)
    }
}

impl Columnar for Column {
    fn fetch(rows: &Batch, column: u16) -> Column {
        rows.bytes(column)
    }

    fn set(&self, out: &mut Outbox, column: u16) {
        out.set_bytes(column, self);
    }

    fn reserve(&mut self, rows: usize) {
        self.offsets.reserve(rows);
        self.data.reserve(rows * 8);
    }

    #[inline]
    fn push_null(&mut self) {
        self.push(None);
    }

    fn is_full(&self) -> bool {
        self.validity.is_full()
    }

    fn rows(&self) -> usize {
        self.len()
    }

    type View<'c> = &'c Column;

    #[inline(always)]
    fn view(&self, rows: usize) -> &Column {
        assert!(
            rows <= self.len(),
            "{rows} rows of a column of {}",
            self.len()
        );
        self
    }

    type Fill<'c> = &'c mut Column;

    #[inline(always)]
    fn fill(&mut self, rows: usize, _: bool) -> &mut Column {
        self.reserve(rows);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_pushed() {
        for absent in 1..20 {
            let (mut ints, mut floats, mut bools) = (Ints::new(), Floats::new(), Bools::new());
            let present = |row: usize| (row % absent != absent - 1).then_some(row);
            for row in 0..40 {
                ints.push(present(row).map(|row| row as i64));
                floats.push(present(row).map(|row| row as f64));
                bools.push(present(row).map(|row| row % 3 == 0));
            }
            for row in 0..40 {
                assert_eq!(ints.get(row), present(row).map(|row| row as i64));
                assert_eq!(floats.get(row), present(row).map(|row| row as f64));
                assert_eq!(bools.get(row), present(row).map(|row| row % 3 == 0));
            }
        }
    }
}
