//! The host's side of `wit/lookup.wit`.
//!
//! Called by: `link`; `packed` for its twin. Invariants: those of `link`; keys are counted before one is
//! looked up and values as they are found, so that no call takes long.
//! Refuses: tables that the node does not declare, calls outside a batch, more than its limits.

use arrow::array::BinaryBuilder;
use wasmtime::Result;
use wasmtime::component::{LinkerInstance, WasmStr};

use super::{Cx, State, text};
use crate::column::{ColumnIn, ColumnOut, GuestColumn};
use crate::error::{bad, over};
use crate::limits::{LOOKUP_KEYS_MAX, LOOKUP_READ_BYTES_MAX};

pub(super) fn lookup(interface: &mut LinkerInstance<'_, State>) -> Result<()> {
    interface.func_wrap("table", |cx: Cx<'_>, (name,): (WasmStr,)| {
        let name = text(&cx, &name)?;
        Ok((cx.data().context.lookups.number(&name),))
    })?;
    interface.func_wrap("get", |cx: Cx<'_>, (table, keys): (u32, ColumnIn)| {
        Ok((get(&cx, table, &keys)?,))
    })
}

/// The values of many keys at once; an absent key has none.
pub(super) fn get(cx: &Cx<'_>, number: u32, keys: &impl GuestColumn) -> Result<ColumnOut> {
    let count = keys.rows();
    if count > LOOKUP_KEYS_MAX {
        return over("keys in one lookup", LOOKUP_KEYS_MAX);
    }
    let table = cx.data().context.lookups.table("get", number);
    let table = table.or_else(bad)?;
    let keys = keys.take(cx, "get: keys", count)?;
    let (mut values, mut bytes) = (BinaryBuilder::with_capacity(count, 0), 0);
    let reading = table.reading();
    for key in &keys {
        let value = key.and_then(|key| reading.get(key));
        bytes += value.map_or(0, <[u8]>::len);
        if bytes > LOOKUP_READ_BYTES_MAX {
            return over("bytes found in one lookup", LOOKUP_READ_BYTES_MAX);
        }
        values.append_option(value);
    }
    Ok(ColumnOut::new(&values.finish()))
}
