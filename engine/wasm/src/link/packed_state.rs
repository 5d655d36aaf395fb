//! The host's side of `wit/packed-state.wit`: the lists of `state` and `timers` as little-endian bytes.
//!
//! Called by: `link`.
//! Invariants and refusals: each function does what its namesake does, with the same checks.

use wasmtime::Result;
use wasmtime::component::{ComponentType, LinkerInstance, Lower, WasmList};

use super::state::{Entries, ScanArgs, delete, get, put, scan};
use super::timers::each;
use super::{Cx, State};
use crate::column::{PackedColumnIn, PackedColumnOut, unpacked};

#[derive(ComponentType, Lower)]
#[component(record)]
struct PackedEntries {
    keys: PackedColumnOut,
    values: PackedColumnOut,
}

impl Entries {
    fn packed(self) -> PackedEntries {
        PackedEntries {
            keys: self.keys.packed(),
            values: self.values.packed(),
        }
    }
}

type PutArgs = (PackedColumnIn, PackedColumnIn);
type TimerArgs = (PackedColumnIn, WasmList<u8>);

pub(super) fn state(interface: &mut LinkerInstance<'_, State>) -> Result<()> {
    interface.func_wrap("get", |mut cx: Cx<'_>, (keys,): (PackedColumnIn,)| {
        Ok((get(&mut cx, &keys)?.packed(),))
    })?;
    interface.func_wrap("put", |mut cx: Cx<'_>, (keys, values): PutArgs| {
        put(&mut cx, &keys, &values)
    })?;
    interface.func_wrap("delete", |mut cx: Cx<'_>, (keys,): (PackedColumnIn,)| {
        delete(&mut cx, &keys)
    })?;
    interface.func_wrap("scan", |mut cx: Cx<'_>, range: ScanArgs| {
        Ok((scan(&mut cx, range)?.packed(),))
    })?;
    interface.func_wrap("set-timers", |mut cx: Cx<'_>, (keys, times): TimerArgs| {
        let times = |cx: &Cx<'_>| unpacked("set-timers", times.as_le_slice(cx));
        each(&mut cx, "set-timers", &keys, times, true)
    })?;
    interface.func_wrap(
        "clear-timers",
        |mut cx: Cx<'_>, (keys, times): TimerArgs| {
            let times = |cx: &Cx<'_>| unpacked("clear-timers", times.as_le_slice(cx));
            each(&mut cx, "clear-timers", &keys, times, false)
        },
    )
}
