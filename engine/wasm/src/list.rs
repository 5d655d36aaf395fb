//! Lists over the boundary without a copy in between: lowered from Arrow buffers, lifted as views.
//!
//! Called by: `column`, `number`, `link`.
//! Invariants: a list out is copied once into memory that the guest allocated, also one of nothing: the
//! runtime of componentize-py frees that, too, and no other pointer suits every guest; a list in is a view
//! that lives as long as the call.

use std::mem::MaybeUninit;

use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{ArrowNativeType, ToByteSlice};
use wasmtime::StoreContextMut;
use wasmtime::component::__internal::{
    CanonicalAbiInfo, InstanceType, InterfaceType, LiftContext, LowerContext,
};
use wasmtime::component::{ComponentType, Lift, Lower, WasmList};

use crate::wide::{copy_into, write_floats};

/// A list whose bytes live in an Arrow buffer; lowered like a slice, so with one copy. One that is
/// empty has none: an Arrow buffer costs an allocation even so.
pub(crate) struct List<T: ArrowNativeType>(Option<ScalarBuffer<T>>);

impl<T: ArrowNativeType> List<T> {
    pub(crate) fn empty() -> List<T> {
        List(None)
    }

    fn items(&self) -> &[T] {
        self.0.as_deref().unwrap_or_default()
    }

    /// The same numbers as bytes: the host is little-endian, as WebAssembly is.
    pub(crate) fn packed(self) -> List<u8> {
        List(self.0.map(|numbers| numbers.into_inner().into()))
    }
}

impl<T: ArrowNativeType> From<ScalarBuffer<T>> for List<T> {
    fn from(numbers: ScalarBuffer<T>) -> List<T> {
        List(Some(numbers))
    }
}

// SAFETY: everything is forwarded to `[T]`, wasmtime's own implementation for a list, as
// wasmtime does itself for `Vec<T>` and `Arc<[T]>`; the type adds only who owns the memory.
unsafe impl<T: ArrowNativeType + ComponentType> ComponentType for List<T> {
    type Lower = <[T] as ComponentType>::Lower;
    const ABI: CanonicalAbiInfo = <[T] as ComponentType>::ABI;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> wasmtime::Result<()> {
        <[T] as ComponentType>::typecheck(ty, types)
    }
}

// SAFETY: as above; into memory, `room` is filled to its end.
unsafe impl<T: ArrowNativeType + Lower> Lower for List<T> {
    fn linear_lower_to_flat<U>(
        &self,
        cx: &mut LowerContext<'_, U>,
        ty: InterfaceType,
        dst: &mut MaybeUninit<Self::Lower>,
    ) -> wasmtime::Result<()> {
        <[T] as Lower>::linear_lower_to_flat(self.items(), cx, ty, dst)
    }

    fn linear_lower_to_memory<U>(
        &self,
        cx: &mut LowerContext<'_, U>,
        _: InterfaceType,
        offset: usize,
    ) -> wasmtime::Result<()> {
        let items = self.items();
        copy_into(
            items.to_byte_slice(),
            room::<T, U>(cx, items.len(), offset)?,
        );
        Ok(())
    }
}

/// Memory that the guest allocates for a list of so many, which is told where it is at `offset`. As wasmtime
/// does it for a slice, but with one question for where the guest's memory is.
fn room<'a, T: ComponentType, U>(
    cx: &'a mut LowerContext<'_, U>,
    len: usize,
    offset: usize,
) -> wasmtime::Result<&'a mut [u8]> {
    // what an Arrow buffer holds has a size
    let bytes = len * T::SIZE32;
    let at = cx.realloc(0, 0, T::ALIGN32, bytes)?;
    let (pointer, count) = (u32::try_from(at)?, u32::try_from(len)?);
    let memory = cx.as_slice_mut();
    let place = &mut memory[offset..][..8];
    place[..4].copy_from_slice(&pointer.to_le_bytes());
    place[4..].copy_from_slice(&count.to_le_bytes());
    Ok(&mut memory[at..][..bytes])
}

/// A `list<f64>` for a guest. Integers become floats on their way, each the nearest.
pub(crate) enum FloatsOf {
    Floats(ScalarBuffer<f64>),
    Ints(ScalarBuffer<i64>),
}

impl FloatsOf {
    pub(crate) fn into_floats(self) -> ScalarBuffer<f64> {
        match self {
            FloatsOf::Floats(floats) => floats,
            FloatsOf::Ints(ints) => converted(&ints).into(),
        }
    }
}

fn converted(ints: &[i64]) -> Vec<f64> {
    ints.iter().map(|n| *n as f64).collect()
}

// SAFETY: the type is checked as the list of f64 that it is lowered as.
unsafe impl ComponentType for FloatsOf {
    type Lower = <[f64] as ComponentType>::Lower;
    const ABI: CanonicalAbiInfo = <[f64] as ComponentType>::ABI;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> wasmtime::Result<()> {
        <[f64] as ComponentType>::typecheck(ty, types)
    }
}

// SAFETY: as above; into memory, `room` is filled to its end.
unsafe impl Lower for FloatsOf {
    fn linear_lower_to_flat<U>(
        &self,
        cx: &mut LowerContext<'_, U>,
        ty: InterfaceType,
        dst: &mut MaybeUninit<Self::Lower>,
    ) -> wasmtime::Result<()> {
        match self {
            FloatsOf::Floats(floats) => <[f64] as Lower>::linear_lower_to_flat(floats, cx, ty, dst),
            FloatsOf::Ints(ints) => {
                <[f64] as Lower>::linear_lower_to_flat(&converted(ints), cx, ty, dst)
            }
        }
    }

    fn linear_lower_to_memory<U>(
        &self,
        cx: &mut LowerContext<'_, U>,
        _: InterfaceType,
        offset: usize,
    ) -> wasmtime::Result<()> {
        match self {
            FloatsOf::Floats(floats) => {
                let room = room::<f64, U>(cx, floats.len(), offset)?;
                copy_into(floats.to_byte_slice(), room);
            }
            FloatsOf::Ints(ints) => {
                write_floats(ints, room::<f64, U>(cx, ints.len(), offset)?);
            }
        }
        Ok(())
    }
}

/// A `list<f64>` of a guest. wasmtime gives views of integer lists only: this is one of `u64`,
/// which has the same size and alignment, checked against the type that it really has.
pub(crate) struct FloatList(WasmList<u64>);

impl FloatList {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The bits of the numbers.
    pub(crate) fn bits<'a, T: 'static>(&self, store: &'a StoreContextMut<'_, T>) -> &'a [u64] {
        self.0.as_le_slice(store)
    }
}

// SAFETY: the type is checked as the list of f64 that it is; a list is a pointer pair whatever it
// holds, and f64 and u64 are alike in size and alignment.
unsafe impl ComponentType for FloatList {
    type Lower = <[f64] as ComponentType>::Lower;
    const ABI: CanonicalAbiInfo = <[f64] as ComponentType>::ABI;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> wasmtime::Result<()> {
        <[f64] as ComponentType>::typecheck(ty, types)
    }
}

// SAFETY: as above: the pointer pair is lifted by wasmtime's own list.
unsafe impl Lift for FloatList {
    fn linear_lift_from_flat(
        cx: &mut LiftContext<'_>,
        ty: InterfaceType,
        src: &Self::Lower,
    ) -> wasmtime::Result<Self> {
        <WasmList<u64> as Lift>::linear_lift_from_flat(cx, ty, src).map(FloatList)
    }

    fn linear_lift_from_memory(
        cx: &mut LiftContext<'_>,
        ty: InterfaceType,
        bytes: &[u8],
    ) -> wasmtime::Result<Self> {
        <WasmList<u64> as Lift>::linear_lift_from_memory(cx, ty, bytes).map(FloatList)
    }
}
