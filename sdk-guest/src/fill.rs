//! Columns in loops over rows: their cells where they lie, and room for those that are made.
//!
//! Called by: `typed` and `row`, for code that the derive generates.
//! Invariants: what a loop needs of a column is in values of its own and not behind a reference, so
//! that the compiler keeps it in registers and does several rows at once; a column's length is that of
//! what was put into it.
//! Refuses: rows past the end of a view or of the room that was made, by a panic.

use std::mem::MaybeUninit;

use crate::typed::{Bools, Validity, is_present};

/// Rows that a loop makes together where it can.
#[doc(hidden)]
pub const BLOCK: usize = 8;

/// Cells of numbers.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Cells<'c, T> {
    values: &'c [T],
    present: &'c [u8],
}

impl<'c, T: Copy> Cells<'c, T> {
    pub(crate) fn new(values: &'c [T], validity: &'c Validity, rows: usize) -> Cells<'c, T> {
        Cells {
            values: &values[..rows],
            present: &validity.0,
        }
    }

    /// `full`: no row is absent, which the caller has asked.
    #[inline(always)]
    pub(crate) fn get(self, row: usize, full: bool) -> Option<T> {
        let value = self.values[row];
        (full || is_present(self.present, row)).then_some(value)
    }
}

/// Cells of bools, a bit each.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct BitCells<'c> {
    bits: &'c [u8],
    present: &'c [u8],
}

impl<'c> BitCells<'c> {
    pub(crate) fn new(column: &'c Bools, rows: usize) -> BitCells<'c> {
        BitCells {
            bits: &column.values[..rows.div_ceil(8)],
            present: &column.validity.0,
        }
    }

    #[inline(always)]
    pub(crate) fn get(self, row: usize, full: bool) -> Option<bool> {
        let value = self.bits[row / 8] & (1 << (row % 8)) != 0;
        (full || is_present(self.present, row)).then_some(value)
    }
}

/// Room at the end of a list: a value is one store, and the list's length is told once, by `close`.
struct Lane<'c, T> {
    list: &'c mut Vec<T>,
    room: *mut [MaybeUninit<T>],
    len: usize,
}

impl<'c, T: Copy> Lane<'c, T> {
    #[inline(always)]
    fn new(list: &'c mut Vec<T>, rows: usize) -> Lane<'c, T> {
        list.reserve_exact(rows);
        let room: *mut [MaybeUninit<T>] = &mut list.spare_capacity_mut()[..rows];
        Lane { list, room, len: 0 }
    }

    #[inline(always)]
    fn put(&mut self, value: T) {
        // SAFETY: the list's own memory, which it neither moves nor frees while it is lent here
        let room = unsafe { &mut *self.room };
        room[self.len].write(value);
        self.len += 1;
    }

    /// Several at once: one test of the room.
    #[inline(always)]
    fn put_block(&mut self, values: [T; BLOCK]) {
        // SAFETY: as above
        let room = unsafe { &mut *self.room };
        for (place, value) in room[self.len..][..BLOCK].iter_mut().zip(values) {
            place.write(value);
        }
        self.len += BLOCK;
    }

    #[inline(always)]
    fn close(&mut self) {
        let len = self.list.len() + self.len;
        // SAFETY: `put` and `put_block` have written as many after what the list had
        unsafe { self.list.set_len(len) };
        self.len = 0;
    }
}

/// A column of numbers that is being filled. Where rows may be absent, a byte a row says which.
#[doc(hidden)]
pub struct Numbers<'c, T: Copy> {
    values: Lane<'c, T>,
    present: Lane<'c, u8>,
}

impl<'c, T: Copy + Default> Numbers<'c, T> {
    /// Of an empty column.
    #[inline(always)]
    pub(crate) fn new(
        values: &'c mut Vec<T>,
        validity: &'c mut Validity,
        rows: usize,
        nullable: bool,
    ) -> Numbers<'c, T> {
        debug_assert!(values.is_empty() && validity.0.is_empty());
        Numbers {
            values: Lane::new(values, rows),
            present: Lane::new(&mut validity.0, if nullable { rows } else { 0 }),
        }
    }

    #[inline(always)]
    pub(crate) fn put(&mut self, value: T) {
        self.values.put(value);
    }

    #[inline(always)]
    pub(crate) fn put_block(&mut self, values: [T; BLOCK]) {
        self.values.put_block(values);
    }

    /// As `put_option`.
    #[inline(always)]
    pub(crate) fn put_options(&mut self, values: [Option<T>; BLOCK]) {
        self.values.put_block(values.map(Option::unwrap_or_default));
        self.present
            .put_block(values.map(|value| value.is_some().into()));
    }

    /// Of a column made for rows that may be absent.
    #[inline(always)]
    pub(crate) fn put_option(&mut self, value: Option<T>) {
        self.values.put(value.unwrap_or_default());
        self.present.put(value.is_some().into());
    }
}

impl<T: Copy> Drop for Numbers<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.values.close();
        self.present.close();
        pack_validity(self.present.list);
    }
}

/// A column of bools that is being filled, by a byte a row.
#[doc(hidden)]
pub struct Bits<'c> {
    values: Lane<'c, u8>,
    present: Lane<'c, u8>,
    rows: &'c mut usize,
}

impl<'c> Bits<'c> {
    /// Of an empty column.
    #[inline(always)]
    pub(crate) fn new(column: &'c mut Bools, rows: usize, nullable: bool) -> Bits<'c> {
        debug_assert!(column.values.is_empty() && column.validity.0.is_empty());
        Bits {
            values: Lane::new(&mut column.values, rows),
            present: Lane::new(&mut column.validity.0, if nullable { rows } else { 0 }),
            rows: &mut column.len,
        }
    }

    #[inline(always)]
    pub(crate) fn put(&mut self, value: bool) {
        self.values.put(value.into());
    }

    #[inline(always)]
    pub(crate) fn put_block(&mut self, values: [bool; BLOCK]) {
        self.values.put_block(values.map(u8::from));
    }

    /// As `put_option`.
    #[inline(always)]
    pub(crate) fn put_options(&mut self, values: [Option<bool>; BLOCK]) {
        let bits = values.map(|value| value.unwrap_or_default().into());
        self.values.put_block(bits);
        self.present
            .put_block(values.map(|value| value.is_some().into()));
    }

    /// Of a column made for rows that may be absent.
    #[inline(always)]
    pub(crate) fn put_option(&mut self, value: Option<bool>) {
        self.values.put(value.unwrap_or_default().into());
        self.present.put(value.is_some().into());
    }
}

impl Drop for Bits<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.values.close();
        self.present.close();
        *self.rows = self.values.list.len();
        pack(self.values.list);
        pack_validity(self.present.list);
    }
}

/// Validity of a byte a row becomes one of a bit; none where every row is present.
fn pack_validity(bytes: &mut Vec<u8>) {
    match bytes.iter().fold(1, |all, byte| all & byte) {
        1 => bytes.clear(),
        _ => pack(bytes),
    }
}

/// Bytes of 0 and 1 become bits, least significant first.
fn pack(bytes: &mut Vec<u8>) {
    let rows = bytes.len();
    for at in 0..rows.div_ceil(8) {
        let from = at * 8;
        let count = (rows - from).min(8);
        let mut eight = [0; 8];
        eight[..count].copy_from_slice(&bytes[from..from + count]);
        // byte i is moved to bit i of the highest byte
        let moved = u64::from_le_bytes(eight).wrapping_mul(0x0102_0408_1020_4080);
        bytes[at] = (moved >> 56) as u8;
    }
    bytes.truncate(rows.div_ceil(8));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::typed::{Columnar, Floats, Ints};

    /// Filled is the same as pushed, whichever rows are absent.
    #[test]
    fn a_filled_column_is_one_of_pushed_rows() {
        for (rows, absent) in (0..70).flat_map(|rows| [(rows, 1), (rows, 3), (rows, 100)]) {
            let present = |row: usize| (row % absent != absent - 1).then_some(row);
            let (mut ints, mut floats, mut bools) = (Ints::new(), Floats::new(), Bools::new());
            let (mut filled, mut fill_floats, mut fill_bools) =
                (Ints::new(), Floats::new(), Bools::new());
            let mut int_room = filled.fill(rows, true);
            let mut float_room = fill_floats.fill(rows, false);
            let mut bool_room = fill_bools.fill(rows, true);
            let int = |row| present(row).map(|n| n as i64);
            let bool = |row| present(row).map(|n| n % 3 == 0);
            for row in 0..rows {
                ints.push(int(row));
                floats.push(Some(row as f64));
                bools.push(bool(row));
            }
            // some alone, then blocks, then those that are left
            let (alone, mut row) = (rows.min(absent), 0);
            while row < rows {
                if row >= alone && rows - row >= BLOCK {
                    int_room.put_options(std::array::from_fn(|at| int(row + at)));
                    float_room.put_block(std::array::from_fn(|at| (row + at) as f64));
                    bool_room.put_options(std::array::from_fn(|at| bool(row + at)));
                    row += BLOCK;
                    continue;
                }
                int_room.put_option(int(row));
                float_room.put(row as f64);
                bool_room.put_option(bool(row));
                row += 1;
            }
            drop((int_room, float_room, bool_room));
            assert_eq!((ints, floats, bools), (filled, fill_floats, fill_bools));
        }
    }

    #[test]
    #[should_panic(expected = "out of bounds")]
    fn room_has_an_end() {
        let mut column = Floats::new();
        let mut room = column.fill(1, false);
        room.put(1.0);
        room.put(2.0);
    }
}
