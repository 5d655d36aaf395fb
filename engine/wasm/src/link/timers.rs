//! The host's side of `wit/timers.wit`.
//!
//! Called by: `link`, `packed_state`. Invariants and refusals: those of `link::state`.

use arrow::array::Array;
use arrow::datatypes::ToByteSlice;
use wasmtime::Result;
use wasmtime::component::{LinkerInstance, WasmList};

use super::state::{keyed, keys_of};
use super::{Cx, State};
use crate::column::{ColumnIn, GuestColumn};
use crate::error::bad;
use crate::wide::copied_list;

type Args = (ColumnIn, WasmList<i64>);

pub(super) fn timers(interface: &mut LinkerInstance<'_, State>) -> Result<()> {
    interface.func_wrap("set", |mut cx: Cx<'_>, (keys, times): Args| {
        let times = |cx: &Cx<'_>| Ok(copied_list(times.as_le_slice(cx).to_byte_slice()));
        each(&mut cx, "set", &keys, times, true)
    })?;
    interface.func_wrap("clear", |mut cx: Cx<'_>, (keys, times): Args| {
        let times = |cx: &Cx<'_>| Ok(copied_list(times.as_le_slice(cx).to_byte_slice()));
        each(&mut cx, "clear", &keys, times, false)
    })
}

/// Sets or clears a timer of each key; the times are copied once the keys are counted.
pub(super) fn each(
    cx: &mut Cx<'_>,
    call: &str,
    keys: &impl GuestColumn,
    times: impl FnOnce(&Cx<'_>) -> Result<Vec<i64>>,
    set: bool,
) -> Result<()> {
    let keys = keys_of(cx, call, keys)?;
    let times = times(cx)?;
    if times.len() != keys.len() {
        let (times, keys) = (times.len(), keys.len());
        return bad(format!("{call}: {times} times for {keys} keys"));
    }
    let keyed = keyed(cx, call)?;
    for (key, time) in keys.iter().flatten().zip(times) {
        match set {
            true => keyed.set_timer(key, time)?,
            false => keyed.clear_timer(key, time)?,
        }
    }
    Ok(())
}
