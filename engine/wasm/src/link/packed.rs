//! The host's side of `wit/packed.wit`: the lists of `data`, `columns` and `lookup` as little-endian bytes.
//!
//! Called by: `link`. Invariants: each function does what its namesake does, with the same checks;
//! this host is little-endian, so outward only the type of a list changes.

use wasmtime::Result;
use wasmtime::component::{LinkerInstance, WasmList, WasmStr};

use super::columns::{Setter, bytes, emit, floats, ints, set_bytes, set_keys, set_numbers};
use super::lookup::get as lookup;
use super::{
    BatchHandle, Cx, OutboxHandle, State, This, header, lent, offsets, outbox as outbox_of, text,
    values,
};
use crate::column::{ColumnOut, GuestColumn, PackedColumnIn, unpacked};
use crate::list::List;
use crate::number::NumbersIn;

type ColumnArgs = (This<BatchHandle>, u16);
type LookupArgs = (u32, PackedColumnIn);

pub(super) fn batch(interface: &mut LinkerInstance<'_, State>) -> Result<()> {
    interface.func_wrap("keys", |cx: Cx<'_>, (_,): (This<BatchHandle>,)| {
        Ok((ColumnOut::new(&lent(&cx)?.batch.rows.keys).packed(),))
    })?;
    interface.func_wrap("values", |mut cx: Cx<'_>, (_,): (This<BatchHandle>,)| {
        Ok((ColumnOut::new(values(&mut cx)?).packed(),))
    })?;
    interface.func_wrap("event-times", |cx: Cx<'_>, (_,): (This<BatchHandle>,)| {
        Ok((List::from(lent(&cx)?.batch.rows.timestamps.clone()).packed(),))
    })?;
    interface.func_wrap("offsets", |cx: Cx<'_>, (_,): (This<BatchHandle>,)| {
        Ok((List::from(offsets(&cx)?).packed(),))
    })?;
    interface.func_wrap(
        "header",
        |cx: Cx<'_>, (_, name): (This<BatchHandle>, WasmStr)| Ok((header(&cx, &name)?.packed(),)),
    )?;
    interface.func_wrap("get-ints", |cx: Cx<'_>, (_, column): ColumnArgs| {
        Ok((ints(&cx, column)?.packed(),))
    })?;
    interface.func_wrap("get-floats", |cx: Cx<'_>, (_, column): ColumnArgs| {
        Ok((floats(&cx, column)?.packed(),))
    })?;
    interface.func_wrap("lookup", |cx: Cx<'_>, (table, keys): LookupArgs| {
        Ok((lookup(&cx, table, &keys)?.packed(),))
    })?;
    interface.func_wrap("get-bytes", |cx: Cx<'_>, (_, column): ColumnArgs| {
        Ok((bytes(&cx, column)?.packed(),))
    })
}

/// Row numbers of the batch, charged and checked.
fn rows(cx: &mut Cx<'_>, call: &str, rows: &WasmList<u8>, beside: usize) -> Result<Vec<u32>> {
    outbox_of(cx)?.charge(rows.len() + beside)?;
    let numbers = unpacked(call, rows.as_le_slice(&*cx))?;
    cx.data().outbox.rows(call, &numbers)
}

type ForwardArgs = (This<OutboxHandle>, u16, WasmList<u8>);
type EmitArgs = (
    This<OutboxHandle>,
    u16,
    WasmList<u8>,
    PackedColumnIn,
    PackedColumnIn,
);
type RejectArgs = (This<OutboxHandle>, WasmList<u8>, WasmStr, WasmStr);
type RetryArgs = (This<OutboxHandle>, WasmList<u8>, u32, WasmStr, WasmStr);

pub(super) fn outbox(interface: &mut LinkerInstance<'_, State>) -> Result<()> {
    interface.func_wrap("forward", |mut cx: Cx<'_>, (_, port, list): ForwardArgs| {
        outbox_of(&mut cx)?.port("forward", port)?;
        let rows = rows(&mut cx, "forward", &list, 0)?;
        outbox_of(&mut cx)?.forward(port, rows)
    })?;
    interface.func_wrap(
        "emit",
        |mut cx: Cx<'_>, (_, port, list, keys, values): EmitArgs| {
            outbox_of(&mut cx)?.port("emit", port)?;
            let parents = rows(&mut cx, "emit", &list, keys.bytes() + values.bytes())?;
            let keys = keys.take(&cx, "emit: keys", parents.len())?;
            let values = values.take(&cx, "emit: values", parents.len())?;
            outbox_of(&mut cx)?.emit(port, parents, keys, values)
        },
    )?;
    interface.func_wrap(
        "set-event-times",
        |mut cx: Cx<'_>, (_, times): (This<OutboxHandle>, WasmList<u8>)| {
            outbox_of(&mut cx)?.charge(times.len())?;
            let times = unpacked("set-event-times", times.as_le_slice(&cx))?;
            outbox_of(&mut cx)?.event_times(times)
        },
    )?;
    interface.func_wrap(
        "set-header",
        |mut cx: Cx<'_>, (_, name, column): (This<OutboxHandle>, WasmStr, PackedColumnIn)| {
            outbox_of(&mut cx)?.charge(column.bytes())?;
            let rows = cx.data().outbox.last_rows("set-header")?;
            let column = column.take(&cx, "set-header", rows)?;
            let name = text(&cx, &name)?;
            outbox_of(&mut cx)?.header(&name, column)
        },
    )?;
    interface.func_wrap(
        "reject",
        |mut cx: Cx<'_>, (_, list, code, message): RejectArgs| {
            let (code, message) = (text(&cx, &code)?, text(&cx, &message)?);
            let rows = rows(&mut cx, "reject", &list, code.len() + message.len())?;
            outbox_of(&mut cx)?.reject(rows, &code, &message);
            Ok(())
        },
    )?;
    interface.func_wrap(
        "retry",
        |mut cx: Cx<'_>, (_, list, after_ms, code, message): RetryArgs| {
            let (code, message) = (text(&cx, &code)?, text(&cx, &message)?);
            let rows = rows(&mut cx, "retry", &list, code.len() + message.len())?;
            outbox_of(&mut cx)?.retry(rows, after_ms, &code, &message);
            Ok(())
        },
    )
}

type EmitColumnsArgs = (This<OutboxHandle>, u16, Option<WasmList<u8>>);

pub(super) fn outbox_columns(interface: &mut LinkerInstance<'_, State>) -> Result<()> {
    interface.func_wrap(
        "emit-columns",
        |mut cx: Cx<'_>, (_, port, parents): EmitColumnsArgs| {
            let parents = match parents {
                None => None,
                Some(list) => Some(rows(&mut cx, "emit-columns", &list, 0)?),
            };
            emit(&mut cx, port, parents)
        },
    )?;
    interface.func_wrap(
        "set-keys",
        |mut cx: Cx<'_>, (_, keys): (This<OutboxHandle>, PackedColumnIn)| set_keys(&mut cx, &keys),
    )?;
    interface.func_wrap(
        "set-ints",
        |mut cx: Cx<'_>, (_, column, values): (This<OutboxHandle>, u16, NumbersIn)| {
            set_numbers(&mut cx, Setter::Ints, column, &values)
        },
    )?;
    interface.func_wrap(
        "set-floats",
        |mut cx: Cx<'_>, (_, column, values): (This<OutboxHandle>, u16, NumbersIn)| {
            set_numbers(&mut cx, Setter::Floats, column, &values)
        },
    )?;
    interface.func_wrap(
        "set-bytes",
        |mut cx: Cx<'_>, (_, column, values): (This<OutboxHandle>, u16, PackedColumnIn)| {
            set_bytes(&mut cx, column, &values)
        },
    )
}
