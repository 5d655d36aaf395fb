//! Values while they are written one after the other, and numbers as all codecs write them.
//!
//! Called by `json`, `csv`, `avro`. Invariants: as many values as rows were ended.
//! Refuses: more bytes than one array can hold.

use arrow::array::BinaryArray;
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};

use crate::json::EncodeError;

pub(crate) struct Values {
    rows: usize,
    offsets: Vec<i32>,
    data: Vec<u8>,
}

impl Values {
    pub(crate) fn new(rows: usize, row_bytes_guess: usize) -> Values {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Values {
            rows,
            offsets,
            data: Vec::with_capacity(rows * row_bytes_guess),
        }
    }

    /// What the value of this row is appended to.
    pub(crate) fn data(&mut self) -> &mut Vec<u8> {
        &mut self.data
    }

    pub(crate) fn end_row(&mut self) -> Result<(), EncodeError> {
        let end = i32::try_from(self.data.len()).map_err(|_| EncodeError::TooLarge {
            rows: self.rows,
            bytes_max: i32::MAX as usize,
        })?;
        self.offsets.push(end);
        Ok(())
    }

    pub(crate) fn finish(self) -> BinaryArray {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        BinaryArray::new(offsets, Buffer::from_vec(self.data), None)
    }
}

pub(crate) fn push_int(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The number must be finite.
pub(crate) fn push_float(out: &mut Vec<u8>, number: f64) {
    // whole numbers of up to 15 digits are most floats there are, and quicker as integers
    if number.fract() == 0.0 && number.abs() < 1e15 && (number != 0.0 || number.is_sign_positive())
    {
        push_int(out, number as i64);
        out.extend_from_slice(b".0");
        return;
    }
    out.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
}
