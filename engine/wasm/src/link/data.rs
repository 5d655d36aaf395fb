//! The host's side of `wit/data.wit`: what every module works with.
//!
//! Called by: `link`. Invariants and refusals: those of `link`.

use arrow::datatypes::ToByteSlice;
use wasmtime::Result;
use wasmtime::component::{LinkerInstance, ResourceType, WasmList, WasmStr};

use super::{
    BatchHandle, ContextHandle, Cx, OutboxHandle, State, This, header, lent, names, offsets,
    opening, outbox, text, values,
};
use crate::column::{ColumnIn, ColumnOut, GuestColumn};
use crate::list::List;
use crate::wide::copied_list;

/// The types of the three resources. Interfaces that use them have them too: a guest with stubs of
/// WASI gets stubs for all that it names and the linker does not, types included.
pub(super) fn resources(interface: &mut LinkerInstance<'_, State>) -> Result<()> {
    for (name, ty) in [
        ("context", ResourceType::host::<ContextHandle>()),
        ("batch", ResourceType::host::<BatchHandle>()),
        ("outbox", ResourceType::host::<OutboxHandle>()),
    ] {
        interface.resource(name, ty, |_, _| Ok(()))?;
    }
    Ok(())
}

pub(super) fn context(data: &mut LinkerInstance<'_, State>) -> Result<()> {
    data.func_wrap(
        "[method]context.params",
        |cx: Cx<'_>, (_,): (This<ContextHandle>,)| Ok((opening(&cx)?.params.clone(),)),
    )?;
    data.func_wrap(
        "[method]context.inputs",
        |cx: Cx<'_>, (_,): (This<ContextHandle>,)| Ok((names(&opening(&cx)?.inputs),)),
    )?;
    data.func_wrap(
        "[method]context.outputs",
        |cx: Cx<'_>, (_,): (This<ContextHandle>,)| Ok((names(&opening(&cx)?.outputs),)),
    )?;
    data.func_wrap(
        "[method]context.partition",
        |cx: Cx<'_>, (_,): (This<ContextHandle>,)| Ok((opening(&cx)?.partition,)),
    )
}

pub(super) fn batch(data: &mut LinkerInstance<'_, State>) -> Result<()> {
    data.func_wrap(
        "[method]batch.len",
        |cx: Cx<'_>, (_,): (This<BatchHandle>,)| Ok((lent(&cx)?.batch.rows.len() as u32,)),
    )?;
    data.func_wrap(
        "[method]batch.input",
        |cx: Cx<'_>, (_,): (This<BatchHandle>,)| Ok((lent(&cx)?.input,)),
    )?;
    data.func_wrap(
        "[method]batch.keys",
        |cx: Cx<'_>, (_,): (This<BatchHandle>,)| Ok((ColumnOut::new(&lent(&cx)?.batch.rows.keys),)),
    )?;
    data.func_wrap(
        "[method]batch.values",
        |mut cx: Cx<'_>, (_,): (This<BatchHandle>,)| Ok((ColumnOut::new(values(&mut cx)?),)),
    )?;
    data.func_wrap(
        "[method]batch.event-times",
        |cx: Cx<'_>, (_,): (This<BatchHandle>,)| {
            Ok((List::from(lent(&cx)?.batch.rows.timestamps.clone()),))
        },
    )?;
    data.func_wrap(
        "[method]batch.offsets",
        |cx: Cx<'_>, (_,): (This<BatchHandle>,)| Ok((List::from(offsets(&cx)?),)),
    )?;
    data.func_wrap(
        "[method]batch.header",
        |cx: Cx<'_>, (_, name): (This<BatchHandle>, WasmStr)| Ok((header(&cx, &name)?,)),
    )?;
    data.func_wrap(
        "[method]batch.watermark",
        |cx: Cx<'_>, (_,): (This<BatchHandle>,)| Ok((lent(&cx)?.watermark,)),
    )
}

type ForwardArgs = (This<OutboxHandle>, u16, WasmList<u32>);
type EmitArgs = (This<OutboxHandle>, u16, WasmList<u32>, ColumnIn, ColumnIn);

pub(super) fn outbox_rows(data: &mut LinkerInstance<'_, State>) -> Result<()> {
    data.func_wrap(
        "[method]outbox.forward",
        |mut cx: Cx<'_>, (_, port, rows): ForwardArgs| {
            outbox(&mut cx)?.charge(rows.len() * 4)?;
            let out = &cx.data().outbox;
            out.port("forward", port)?;
            let rows = out.rows("forward", rows.as_le_slice(&cx))?;
            outbox(&mut cx)?.forward(port, rows)
        },
    )?;
    data.func_wrap(
        "[method]outbox.emit",
        |mut cx: Cx<'_>, (_, port, parents, keys, values): EmitArgs| {
            outbox(&mut cx)?.charge(parents.len() * 4 + keys.bytes() + values.bytes())?;
            let out = &cx.data().outbox;
            out.port("emit", port)?;
            let parents = out.rows("emit", parents.as_le_slice(&cx))?;
            let keys = keys.take(&cx, "emit: keys", parents.len())?;
            let values = values.take(&cx, "emit: values", parents.len())?;
            outbox(&mut cx)?.emit(port, parents, keys, values)
        },
    )?;
    data.func_wrap(
        "[method]outbox.set-event-times",
        |mut cx: Cx<'_>, (_, times): (This<OutboxHandle>, WasmList<i64>)| {
            outbox(&mut cx)?.charge(times.len() * 8)?;
            // a copy, because the store is lent to the list and to the outbox at once
            let times = copied_list(times.as_le_slice(&cx).to_byte_slice());
            outbox(&mut cx)?.event_times(times)
        },
    )?;
    data.func_wrap(
        "[method]outbox.set-header",
        |mut cx: Cx<'_>, (_, name, column): (This<OutboxHandle>, WasmStr, ColumnIn)| {
            outbox(&mut cx)?.charge(column.bytes())?;
            let rows = cx.data().outbox.last_rows("set-header")?;
            let column = column.take(&cx, "set-header", rows)?;
            let name = text(&cx, &name)?;
            outbox(&mut cx)?.header(&name, column)
        },
    )
}

type RejectArgs = (This<OutboxHandle>, WasmList<u32>, WasmStr, WasmStr);
type RetryArgs = (This<OutboxHandle>, WasmList<u32>, u32, WasmStr, WasmStr);

pub(super) fn outbox_refusals(data: &mut LinkerInstance<'_, State>) -> Result<()> {
    data.func_wrap(
        "[method]outbox.reject",
        |mut cx: Cx<'_>, (_, rows, code, message): RejectArgs| {
            let (code, message) = (text(&cx, &code)?, text(&cx, &message)?);
            outbox(&mut cx)?.charge(rows.len() * 4 + code.len() + message.len())?;
            let rows = cx.data().outbox.rows("reject", rows.as_le_slice(&cx))?;
            outbox(&mut cx)?.reject(rows, &code, &message);
            Ok(())
        },
    )?;
    data.func_wrap(
        "[method]outbox.retry",
        |mut cx: Cx<'_>, (_, rows, after_ms, code, message): RetryArgs| {
            let (code, message) = (text(&cx, &code)?, text(&cx, &message)?);
            outbox(&mut cx)?.charge(rows.len() * 4 + code.len() + message.len())?;
            let rows = cx.data().outbox.rows("retry", rows.as_le_slice(&cx))?;
            outbox(&mut cx)?.retry(rows, after_ms, &code, &message);
            Ok(())
        },
    )
}
