//! Columns of byte strings over the boundary: from Arrow buffers into guest memory, and back.
//!
//! Called by: `link`.
//! Invariants: outward, a list is copied once, straight from the Arrow buffer into the guest;
//! inward, offsets are checked (count, first, order, end) before a byte is taken, and copied once.
//! Refuses: with a message that names the column and the row at fault.

use std::borrow::Cow;
use std::fmt::Display;

use arrow::array::types::ByteArrayType;
use arrow::array::{Array, ArrayRef, BinaryArray, GenericByteArray, StringArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::ArrowNativeType;
use std::sync::Arc;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Lower, WasmList};

use crate::error::bad;
use crate::list::List;
use crate::wide::{copied_buffer, copied_list};

/// `record column` of `types` on its way into a guest.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct ColumnOut {
    offsets: List<u32>,
    data: List<u8>,
    validity: List<u8>,
}

/// `record column` of `packed`.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct PackedColumnOut {
    offsets: List<u8>,
    data: List<u8>,
    validity: List<u8>,
}

impl ColumnOut {
    pub(crate) fn new<T: ByteArrayType<Offset = i32>>(array: &GenericByteArray<T>) -> ColumnOut {
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
            offsets: own.into(),
            data: ScalarBuffer::<u8>::from(bytes).into(),
            validity: validity(array.nulls()),
        }
    }

    /// A column of `len` rows of which none is present.
    pub(crate) fn absent(len: usize) -> ColumnOut {
        ColumnOut {
            offsets: ScalarBuffer::from(vec![0u32; len + 1]).into(),
            data: List::empty(),
            validity: ScalarBuffer::<u8>::from(vec![0u8; len.div_ceil(8)]).into(),
        }
    }

    pub(crate) fn packed(self) -> PackedColumnOut {
        PackedColumnOut {
            offsets: self.offsets.packed(),
            data: self.data,
            validity: self.validity,
        }
    }
}

/// Validity as it crosses: empty while every row is present.
pub(crate) fn validity(nulls: Option<&NullBuffer>) -> List<u8> {
    match nulls {
        Some(nulls) if nulls.null_count() > 0 => {
            let bits = nulls.inner().sliced();
            ScalarBuffer::<u8>::from(bits.slice_with_length(0, nulls.len().div_ceil(8))).into()
        }
        _ => List::empty(),
    }
}

/// `record column` on its way out: three views of guest memory, alive during the call.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct ColumnIn {
    offsets: WasmList<u32>,
    data: WasmList<u8>,
    validity: WasmList<u8>,
}

/// The same from `packed`.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct PackedColumnIn {
    offsets: WasmList<u8>,
    data: WasmList<u8>,
    validity: WasmList<u8>,
}

/// A column of byte strings that a guest hands over.
pub(crate) trait GuestColumn {
    /// Rows that it says it has.
    fn rows(&self) -> usize;

    /// Bytes the host will hold for it.
    fn bytes(&self) -> usize;

    /// Offsets, data and validity where they lie.
    fn view<'a, T: 'static>(&self, store: &'a StoreContextMut<'_, T>)
    -> wasmtime::Result<View<'a>>;

    /// Copies the column out of the guest; `rows` rows are expected.
    fn take<T: 'static>(
        &self,
        store: &StoreContextMut<'_, T>,
        what: impl Display + Copy,
        rows: usize,
    ) -> wasmtime::Result<BinaryArray> {
        let (offsets, data, nulls) = self.view(store)?.parts(what, rows)?;
        BinaryArray::try_new(offsets, data, nulls).or_else(|e| bad(format!("{what}: {e}")))
    }

    /// As `take`, of text.
    fn take_text<T: 'static>(
        &self,
        store: &StoreContextMut<'_, T>,
        what: impl Display + Copy,
        rows: usize,
    ) -> wasmtime::Result<ArrayRef> {
        let (offsets, data, nulls) = self.view(store)?.parts(what, rows)?;
        match StringArray::try_new(offsets, data, nulls) {
            Ok(array) => Ok(Arc::new(array)),
            Err(error) => bad(format!("{what}: not UTF-8: {error}")),
        }
    }
}

impl GuestColumn for ColumnIn {
    fn rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    fn bytes(&self) -> usize {
        self.offsets.len() * 4 + self.data.len() + self.validity.len()
    }

    fn view<'a, T: 'static>(
        &self,
        store: &'a StoreContextMut<'_, T>,
    ) -> wasmtime::Result<View<'a>> {
        Ok(View {
            offsets: Cow::Borrowed(self.offsets.as_le_slice(store)),
            data: self.data.as_le_slice(store),
            validity: self.validity.as_le_slice(store),
        })
    }
}

impl GuestColumn for PackedColumnIn {
    fn rows(&self) -> usize {
        (self.offsets.len() / 4).saturating_sub(1)
    }

    fn bytes(&self) -> usize {
        self.offsets.len() + self.data.len() + self.validity.len()
    }

    fn view<'a, T: 'static>(
        &self,
        store: &'a StoreContextMut<'_, T>,
    ) -> wasmtime::Result<View<'a>> {
        Ok(View {
            offsets: Cow::Owned(unpacked("offsets", self.offsets.as_le_slice(store))?),
            data: self.data.as_le_slice(store),
            validity: self.validity.as_le_slice(store),
        })
    }
}

/// Row numbers, offsets or times from their bytes.
pub(crate) fn unpacked<T: ArrowNativeType>(what: &str, bytes: &[u8]) -> wasmtime::Result<Vec<T>> {
    let (len, size) = (bytes.len(), size_of::<T>());
    match len % size {
        0 => Ok(copied_list(bytes)),
        _ => bad(format!(
            "{what}: {len} bytes are no whole numbers of {size} bytes"
        )),
    }
}

/// A guest's column where it lies.
pub(crate) struct View<'a> {
    offsets: Cow<'a, [u32]>,
    data: &'a [u8],
    validity: &'a [u8],
}

type Parts = (OffsetBuffer<i32>, Buffer, Option<NullBuffer>);

impl View<'_> {
    fn parts(&self, what: impl Display + Copy, rows: usize) -> wasmtime::Result<Parts> {
        check_offsets(what, &self.offsets, self.data.len(), rows)?;
        let nulls = nulls(what, self.validity, rows)?;
        let offsets = ScalarBuffer::<i32>::from(copied_buffer(&self.offsets[..]));
        Ok((OffsetBuffer::new(offsets), copied_buffer(self.data), nulls))
    }
}

/// Validity as it came, checked.
pub(crate) fn nulls(
    what: impl Display,
    bits: &[u8],
    rows: usize,
) -> wasmtime::Result<Option<NullBuffer>> {
    if bits.is_empty() {
        return Ok(None);
    }
    if bits.len() != rows.div_ceil(8) {
        return bad(format!(
            "{what}: validity has {} bytes, {rows} rows need {}",
            bits.len(),
            rows.div_ceil(8)
        ));
    }
    let bits = BooleanBuffer::new(copied_buffer(bits), 0, rows);
    Ok(Some(NullBuffer::new(bits)).filter(|nulls| nulls.null_count() > 0))
}

pub(crate) fn check_offsets(
    what: impl Display,
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
