//! Columns over the boundary: Arrow buffers into guest memory with one copy, and back.
//!
//! Called by: `link`.
//! Invariants: outward, a list is copied once, straight from the Arrow buffer into the guest;
//! inward, offsets are checked (count, first, order, end) before a byte is taken, and copied once.
//! Refuses: with a message that names the column and the row at fault.

use std::mem::MaybeUninit;

use arrow::array::{Array, BinaryArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::ArrowNativeType;
use wasmtime::StoreContextMut;
use wasmtime::component::__internal::{
    CanonicalAbiInfo, InstanceType, InterfaceType, LowerContext,
};
use wasmtime::component::{ComponentType, Lift, Lower, WasmList};

use crate::error::bad;

/// A list whose bytes live in an Arrow buffer; lowered like a slice, so with one copy.
pub(crate) struct List<T: ArrowNativeType>(pub(crate) ScalarBuffer<T>);

// SAFETY: everything is forwarded to `[T]`, wasmtime's own implementation for a list, as
// wasmtime does itself for `Vec<T>` and `Arc<[T]>`; the type adds only who owns the memory.
unsafe impl<T: ArrowNativeType + ComponentType> ComponentType for List<T> {
    type Lower = <[T] as ComponentType>::Lower;
    const ABI: CanonicalAbiInfo = <[T] as ComponentType>::ABI;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> wasmtime::Result<()> {
        <[T] as ComponentType>::typecheck(ty, types)
    }
}

// SAFETY: as above: `[T]` does the lowering.
unsafe impl<T: ArrowNativeType + Lower> Lower for List<T> {
    fn linear_lower_to_flat<U>(
        &self,
        cx: &mut LowerContext<'_, U>,
        ty: InterfaceType,
        dst: &mut MaybeUninit<Self::Lower>,
    ) -> wasmtime::Result<()> {
        <[T] as Lower>::linear_lower_to_flat(&self.0, cx, ty, dst)
    }

    fn linear_lower_to_memory<U>(
        &self,
        cx: &mut LowerContext<'_, U>,
        ty: InterfaceType,
        offset: usize,
    ) -> wasmtime::Result<()> {
        <[T] as Lower>::linear_lower_to_memory(&self.0, cx, ty, offset)
    }
}

/// `record column` on its way into a guest.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct ColumnOut {
    offsets: List<u32>,
    data: List<u8>,
    validity: List<u8>,
}

/// `record column` on its way out: three views of guest memory, alive during the call.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct ColumnIn {
    offsets: WasmList<u32>,
    data: WasmList<u8>,
    validity: WasmList<u8>,
}

impl ColumnOut {
    pub(crate) fn new(array: &BinaryArray) -> ColumnOut {
        let offsets = array.offsets();
        let (first, last) = (offsets[0].as_usize(), offsets[array.len()].as_usize());
        let own = if first == 0 {
            let inner = offsets.inner();
            // the same 4-byte numbers: Arrow's offsets are never negative
            ScalarBuffer::<u32>::new(inner.inner().clone(), 0, inner.len())
        } else {
            offsets
                .iter()
                .map(|o| (o.as_usize() - first) as u32)
                .collect()
        };
        let bytes = array.values().slice_with_length(first, last - first);
        ColumnOut {
            offsets: List(own),
            data: List(ScalarBuffer::from(bytes)),
            validity: List(validity(array)),
        }
    }

    /// A column of `len` rows of which none is present.
    pub(crate) fn absent(len: usize) -> ColumnOut {
        ColumnOut {
            offsets: List(ScalarBuffer::from(vec![0u32; len + 1])),
            data: List(ScalarBuffer::from(Vec::<u8>::new())),
            validity: List(ScalarBuffer::from(vec![0u8; len.div_ceil(8)])),
        }
    }
}

fn validity(array: &BinaryArray) -> ScalarBuffer<u8> {
    match array.nulls() {
        Some(nulls) if nulls.null_count() > 0 => {
            let bits = nulls.inner().sliced();
            ScalarBuffer::from(bits.slice_with_length(0, array.len().div_ceil(8)))
        }
        _ => ScalarBuffer::from(Vec::<u8>::new()),
    }
}

impl ColumnIn {
    /// Bytes the host will hold for it.
    pub(crate) fn bytes(&self) -> usize {
        self.offsets.len() * 4 + self.data.len() + self.validity.len()
    }

    /// Copies the column out of the guest; `rows` rows are expected.
    pub(crate) fn take<T: 'static>(
        &self,
        store: &StoreContextMut<'_, T>,
        what: &str,
        rows: usize,
    ) -> wasmtime::Result<BinaryArray> {
        let data = self.data.as_le_slice(store);
        let offsets = self.offsets.as_le_slice(store);
        check_offsets(what, offsets, data.len(), rows)?;
        let nulls = match self.validity.as_le_slice(store) {
            [] => None,
            bits if bits.len() == rows.div_ceil(8) => {
                let bits = BooleanBuffer::new(Buffer::from(bits), 0, rows);
                Some(NullBuffer::new(bits)).filter(|nulls| nulls.null_count() > 0)
            }
            bits => {
                return bad(format!(
                    "{what}: validity has {} bytes, {rows} rows need {}",
                    bits.len(),
                    rows.div_ceil(8)
                ));
            }
        };
        let offsets = ScalarBuffer::<i32>::from(Buffer::from_slice_ref(offsets));
        let offsets = OffsetBuffer::new(offsets);
        BinaryArray::try_new(offsets, Buffer::from(data), nulls)
            .or_else(|e| bad(format!("{what}: {e}")))
    }
}

pub(crate) fn check_offsets(
    what: &str,
    offsets: &[u32],
    data: usize,
    rows: usize,
) -> wasmtime::Result<()> {
    if offsets.len() != rows + 1 {
        return bad(format!(
            "{what}: {} offsets for {rows} rows, there must be one more than rows",
            offsets.len()
        ));
    }
    if offsets[0] != 0 {
        return bad(format!(
            "{what}: the first offset is {}, it must be 0",
            offsets[0]
        ));
    }
    if data > i32::MAX as usize {
        return bad(format!(
            "{what}: {data} bytes in one column, at most {}",
            i32::MAX
        ));
    }
    if offsets[rows] as usize != data {
        return bad(format!(
            "{what}: the last offset is {}, but there are {data} bytes",
            offsets[rows]
        ));
    }
    // whole-column question first: it vectorises; the row is looked for only when there is one
    if offsets
        .windows(2)
        .fold(false, |bad, pair| bad | (pair[0] > pair[1]))
    {
        let row = offsets
            .windows(2)
            .position(|pair| pair[0] > pair[1])
            .unwrap_or(0);
        return bad(format!(
            "{what}: offsets of row {row} go backwards ({} then {})",
            offsets[row],
            offsets[row + 1]
        ));
    }
    Ok(())
}
