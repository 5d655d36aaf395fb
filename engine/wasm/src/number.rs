//! Columns of fixed width over the boundary: bools, integers and times, floats.
//!
//! Called by: `link`.
//! Invariants: as for byte strings: one copy outward and one inward; a column of a guest has as
//! many numbers as rows are expected. Bits and numbers of absent rows mean nothing. A float of a
//! guest that is infinite or no number is null, as it is where rows are written.
//! Refuses: with a message that names the column and both counts.

use std::fmt::Display;
use std::sync::Arc;

use arrow::array::TimestampMicrosecondArray;
use arrow::array::cast::AsArray;
use arrow::array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array};
use arrow::buffer::{BooleanBuffer, Buffer, ScalarBuffer};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Lower, WasmList};

use crate::column::{nulls, validity};
use crate::error::bad;
use crate::list::{FloatList, FloatsOf, List};
use crate::wide::{copied_buffer, copy_floats};

/// `record bools`
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct BoolsOut {
    values: List<u8>,
    validity: List<u8>,
}

/// `record ints`
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct IntsOut {
    values: List<i64>,
    validity: List<u8>,
}

/// `record floats`
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct FloatsOut {
    values: FloatsOf,
    validity: List<u8>,
}

/// `record numbers` of `packed`
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct NumbersOut {
    values: List<u8>,
    validity: List<u8>,
}

impl BoolsOut {
    pub(crate) fn new(array: &BooleanArray) -> BoolsOut {
        let bits = array.values().sliced();
        let bits = bits.slice_with_length(0, array.len().div_ceil(8));
        BoolsOut {
            values: ScalarBuffer::<u8>::from(bits).into(),
            validity: validity(array.nulls()),
        }
    }
}

impl IntsOut {
    /// Of integers or times; `None` for any other column.
    pub(crate) fn new(array: &ArrayRef) -> Option<IntsOut> {
        let values = match array.as_primitive_opt::<Int64Type>() {
            Some(ints) => ints.values(),
            None => array
                .as_primitive_opt::<TimestampMicrosecondType>()?
                .values(),
        };
        Some(IntsOut {
            values: values.clone().into(),
            validity: validity(array.nulls()),
        })
    }

    pub(crate) fn packed(self) -> NumbersOut {
        NumbersOut {
            values: self.values.packed(),
            validity: self.validity,
        }
    }
}

impl FloatsOut {
    /// Of floats; integers become floats. `None` for any other column.
    pub(crate) fn new(array: &ArrayRef) -> Option<FloatsOut> {
        let values = match array.as_primitive_opt::<Float64Type>() {
            Some(floats) => FloatsOf::Floats(floats.values().clone()),
            None => FloatsOf::Ints(array.as_primitive_opt::<Int64Type>()?.values().clone()),
        };
        Some(FloatsOut {
            values,
            validity: validity(array.nulls()),
        })
    }

    pub(crate) fn packed(self) -> NumbersOut {
        NumbersOut {
            values: List::from(self.values.into_floats()).packed(),
            validity: self.validity,
        }
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct BoolsIn {
    values: WasmList<u8>,
    validity: WasmList<u8>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct IntsIn {
    values: WasmList<i64>,
    validity: WasmList<u8>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct FloatsIn {
    values: FloatList,
    validity: WasmList<u8>,
}

/// Integers or floats as their bytes.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct NumbersIn {
    values: WasmList<u8>,
    validity: WasmList<u8>,
}

/// A column of fixed width that a guest hands over.
pub(crate) trait GuestNumbers {
    /// Bytes the host will hold for it.
    fn bytes(&self) -> usize;

    /// Numbers and validity where they lie.
    fn view<'a, T: 'static>(&self, store: &'a StoreContextMut<'_, T>) -> (Numbers<'a>, &'a [u8]);
}

/// Numbers of a guest where they lie.
#[derive(Clone, Copy)]
pub(crate) enum Numbers<'a> {
    Bits(&'a [u8]),
    /// The bits of floats.
    Words(&'a [u64]),
    Ints(&'a [i64]),
    Packed(&'a [u8]),
}

/// What a column of fixed width is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Bool,
    Int,
    Time,
    Float,
}

/// Copies a column out of the guest; `rows` rows are expected.
pub(crate) fn take<T: 'static>(
    numbers: &impl GuestNumbers,
    store: &StoreContextMut<'_, T>,
    what: impl Display + Copy,
    width: Width,
    rows: usize,
) -> wasmtime::Result<ArrayRef> {
    let (values, bits) = numbers.view(store);
    let nulls = nulls(what, bits, rows)?;
    let mut are_finite = false;
    let buffer = match values {
        Numbers::Bits(bits) if bits.len() == rows.div_ceil(8) => copied_buffer(bits),
        Numbers::Words(words) if words.len() == rows => {
            let copy;
            (copy, are_finite) = copied_floats(words);
            Buffer::from_vec(copy)
        }
        Numbers::Ints(ints) if ints.len() == rows => copied_buffer(ints),
        Numbers::Packed(bytes) if bytes.len() == rows * 8 => copied_buffer(bytes),
        other => return bad(format!("{what}: {} for {rows} rows", other.count())),
    };
    Ok(match width {
        Width::Bool => Arc::new(BooleanArray::new(
            BooleanBuffer::new(buffer, 0, rows),
            nulls,
        )),
        Width::Int => Arc::new(Int64Array::new(buffer.into(), nulls)),
        Width::Time => {
            let times = TimestampMicrosecondArray::new(buffer.into(), nulls);
            Arc::new(times.with_timezone("UTC"))
        }
        Width::Float => {
            let floats = Float64Array::new(buffer.into(), nulls);
            Arc::new(match are_finite {
                true => floats,
                false => codec::finite(floats),
            })
        }
    })
}

/// A copy of floats, and whether all are finite: looked at on their way.
fn copied_floats(floats: &[u64]) -> (Vec<u64>, bool) {
    let mut copy = Vec::with_capacity(floats.len());
    let are_finite = copy_floats(floats, &mut copy.spare_capacity_mut()[..floats.len()]);
    // SAFETY: each was written
    unsafe { copy.set_len(floats.len()) };
    (copy, are_finite)
}

impl Numbers<'_> {
    fn count(self) -> String {
        match self {
            Numbers::Bits(bits) => format!("{} bytes of bits", bits.len()),
            Numbers::Words(words) => format!("{} values", words.len()),
            Numbers::Ints(ints) => format!("{} values", ints.len()),
            Numbers::Packed(bytes) => format!("{} bytes of values", bytes.len()),
        }
    }
}

impl GuestNumbers for BoolsIn {
    fn bytes(&self) -> usize {
        self.values.len() + self.validity.len()
    }

    fn view<'a, T: 'static>(&self, store: &'a StoreContextMut<'_, T>) -> (Numbers<'a>, &'a [u8]) {
        let values = self.values.as_le_slice(store);
        (Numbers::Bits(values), self.validity.as_le_slice(store))
    }
}

impl GuestNumbers for IntsIn {
    fn bytes(&self) -> usize {
        self.values.len() * 8 + self.validity.len()
    }

    fn view<'a, T: 'static>(&self, store: &'a StoreContextMut<'_, T>) -> (Numbers<'a>, &'a [u8]) {
        let values = self.values.as_le_slice(store);
        (Numbers::Ints(values), self.validity.as_le_slice(store))
    }
}

impl GuestNumbers for FloatsIn {
    fn bytes(&self) -> usize {
        self.values.len() * 8 + self.validity.len()
    }

    fn view<'a, T: 'static>(&self, store: &'a StoreContextMut<'_, T>) -> (Numbers<'a>, &'a [u8]) {
        let values = self.values.bits(store);
        (Numbers::Words(values), self.validity.as_le_slice(store))
    }
}

impl GuestNumbers for NumbersIn {
    fn bytes(&self) -> usize {
        self.values.len() + self.validity.len()
    }

    fn view<'a, T: 'static>(&self, store: &'a StoreContextMut<'_, T>) -> (Numbers<'a>, &'a [u8]) {
        let values = self.values.as_le_slice(store);
        (Numbers::Packed(values), self.validity.as_le_slice(store))
    }
}
