//! Lists over the boundary without a copy in between: lowered from Arrow buffers, lifted as views.
//!
//! Called by: `column`, `number`, `link`.
//! Invariants: a list out is copied once, by wasmtime, into memory that the guest allocated; a list
//! in is a view that lives as long as the call.

use std::mem::MaybeUninit;

use arrow::buffer::ScalarBuffer;
use arrow::datatypes::ArrowNativeType;
use wasmtime::StoreContextMut;
use wasmtime::component::__internal::{
    CanonicalAbiInfo, InstanceType, InterfaceType, LiftContext, LowerContext,
};
use wasmtime::component::{ComponentType, Lift, Lower, WasmList};

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
