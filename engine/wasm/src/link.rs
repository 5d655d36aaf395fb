//! The host's side of `wit/data.wit`: context, batch and outbox as host-owned resources.
//!
//! Called by: `host` (one linker an engine).
//! Invariants: columns cross with one copy; lists from a guest are read where they lie, during the
//! call; no function blocks, none leaves the process.
//! Refuses: a resource outside the call it was lent for, text that is not UTF-8, bad indices.

use arrow::array::BinaryArray;
use arrow::buffer::ScalarBuffer;
use model::rows::Rows;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceType, WasmList, WasmStr};
use wasmtime::{Engine, Result};

use crate::column::{ColumnIn, ColumnOut, List};
use crate::deadline::Clock;
use crate::error::bad;
use crate::guest::OpenContext;
use crate::limits::Limiter;
use crate::outbox::Outbox;
use crate::world::{DATA, TYPES};

/// Phantom types of the three resources; at most one of each is alive, so the number says nothing.
pub(crate) enum ContextHandle {}
pub(crate) enum BatchHandle {}
pub(crate) enum OutboxHandle {}

/// The batch that a call works on.
pub(crate) struct Lent {
    pub(crate) rows: Rows,
    pub(crate) offsets: ScalarBuffer<u64>,
    pub(crate) input: u16,
    pub(crate) watermark: i64,
}

/// What belongs to one store.
pub(crate) struct State {
    pub(crate) limiter: Limiter,
    pub(crate) clock: Clock,
    pub(crate) context: OpenContext,
    pub(crate) opening: bool,
    pub(crate) lent: Option<Lent>,
    pub(crate) outbox: Outbox,
}

type Cx<'a> = StoreContextMut<'a, State>;

pub(crate) fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    linker.instance(TYPES)?;
    let mut data = linker.instance(DATA)?;
    context(&mut data)?;
    batch(&mut data)?;
    outbox_rows(&mut data)?;
    outbox_refusals(&mut data)?;
    Ok(linker)
}

fn opening<'a>(cx: &'a Cx<'_>) -> Result<&'a OpenContext> {
    let state = cx.data();
    if !state.opening {
        return bad("the context is used outside `open`".into());
    }
    Ok(&state.context)
}

fn lent<'a>(cx: &'a Cx<'_>) -> Result<&'a Lent> {
    match &cx.data().lent {
        Some(lent) => Ok(lent),
        None => bad("the batch is used outside `process`".into()),
    }
}

fn outbox<'a>(cx: &'a mut Cx<'_>) -> Result<&'a mut Outbox> {
    let state = cx.data_mut();
    if state.lent.is_none() {
        return bad("the outbox is used outside `process`".into());
    }
    Ok(&mut state.outbox)
}

type This<T> = Resource<T>;

fn context(data: &mut LinkerInstance<'_, State>) -> Result<()> {
    data.resource("context", ResourceType::host::<ContextHandle>(), |_, _| {
        Ok(())
    })?;
    data.func_wrap(
        "[method]context.params",
        |cx: Cx<'_>, (_,): (This<ContextHandle>,)| Ok((opening(&cx)?.params.clone(),)),
    )?;
    data.func_wrap(
        "[method]context.inputs",
        |cx: Cx<'_>, (_,): (This<ContextHandle>,)| Ok((opening(&cx)?.inputs.clone(),)),
    )?;
    data.func_wrap(
        "[method]context.outputs",
        |cx: Cx<'_>, (_,): (This<ContextHandle>,)| Ok((opening(&cx)?.outputs.clone(),)),
    )?;
    data.func_wrap(
        "[method]context.partition",
        |cx: Cx<'_>, (_,): (This<ContextHandle>,)| Ok((opening(&cx)?.partition,)),
    )
}

fn batch(data: &mut LinkerInstance<'_, State>) -> Result<()> {
    data.resource("batch", ResourceType::host::<BatchHandle>(), |_, _| Ok(()))?;
    data.func_wrap(
        "[method]batch.len",
        |cx: Cx<'_>, (_,): (This<BatchHandle>,)| Ok((lent(&cx)?.rows.len() as u32,)),
    )?;
    data.func_wrap(
        "[method]batch.input",
        |cx: Cx<'_>, (_,): (This<BatchHandle>,)| Ok((lent(&cx)?.input,)),
    )?;
    data.func_wrap(
        "[method]batch.keys",
        |cx: Cx<'_>, (_,): (This<BatchHandle>,)| Ok((ColumnOut::new(&lent(&cx)?.rows.keys),)),
    )?;
    data.func_wrap(
        "[method]batch.values",
        |cx: Cx<'_>, (_,): (This<BatchHandle>,)| Ok((ColumnOut::new(&lent(&cx)?.rows.values),)),
    )?;
    data.func_wrap(
        "[method]batch.event-times",
        |cx: Cx<'_>, (_,): (This<BatchHandle>,)| Ok((List(lent(&cx)?.rows.timestamps.clone()),)),
    )?;
    data.func_wrap(
        "[method]batch.offsets",
        |cx: Cx<'_>, (_,): (This<BatchHandle>,)| Ok((List(lent(&cx)?.offsets.clone()),)),
    )?;
    data.func_wrap(
        "[method]batch.header",
        |cx: Cx<'_>, (_, name): (This<BatchHandle>, WasmStr)| {
            let rows = &lent(&cx)?.rows;
            if rows.headers.is_none() {
                return Ok((ColumnOut::absent(rows.len()),));
            }
            let column: BinaryArray = rows.header(&name.to_str(&cx)?);
            Ok((ColumnOut::new(&column),))
        },
    )?;
    data.func_wrap(
        "[method]batch.watermark",
        |cx: Cx<'_>, (_,): (This<BatchHandle>,)| Ok((lent(&cx)?.watermark,)),
    )
}

type ForwardArgs = (This<OutboxHandle>, u16, WasmList<u32>);
type EmitArgs = (This<OutboxHandle>, u16, WasmList<u32>, ColumnIn, ColumnIn);

fn outbox_rows(data: &mut LinkerInstance<'_, State>) -> Result<()> {
    data.resource(
        "outbox",
        ResourceType::host::<OutboxHandle>(),
        |_, _| Ok(()),
    )?;
    data.func_wrap(
        "[method]outbox.forward",
        |mut cx: Cx<'_>, (_, port, rows): ForwardArgs| {
            outbox(&mut cx)?.charge(rows.len() * 4)?;
            let out = &cx.data().outbox;
            out.port("forward", port)?;
            let rows = out.rows("forward", rows.as_le_slice(&cx))?;
            outbox(&mut cx)?.forward(port, rows);
            Ok(())
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
            outbox(&mut cx)?.emit(port, parents, keys, values);
            Ok(())
        },
    )?;
    data.func_wrap(
        "[method]outbox.set-event-times",
        |mut cx: Cx<'_>, (_, times): (This<OutboxHandle>, WasmList<i64>)| {
            outbox(&mut cx)?.charge(times.len() * 8)?;
            // a copy, because the store is lent to the list and to the outbox at once
            let times = times.as_le_slice(&cx).to_vec();
            outbox(&mut cx)?.event_times(&times)
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

fn outbox_refusals(data: &mut LinkerInstance<'_, State>) -> Result<()> {
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

/// Text of a guest, cut to what is kept of a message.
fn text(cx: &Cx<'_>, text: &WasmStr) -> Result<String> {
    match text.to_str(cx) {
        Ok(text) => Ok(crate::outbox::cut(&text, crate::limits::MESSAGE_BYTES_MAX)),
        Err(error) => bad(format!("text that is not UTF-8: {error}")),
    }
}
