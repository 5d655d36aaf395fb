//! The host's side of `wit/`: context, batch and outbox as host-owned resources, one file an
//! interface.
//!
//! - `data` rows as bytes; `columns` rows as typed columns; `packed` both for languages that box
//! - `telemetry` log and metrics; `state` and `timers` what is kept from batch to batch, `packed_state`
//!   both for languages that box; `http` requests to other services; `lookup` tables of the node
//! - `wasi` clocks and randomness, which are not of our contract
//!
//! Called by: `host` (one linker an engine).
//! Invariants: columns cross with one copy; lists from a guest are read where they lie, during the
//! call; no function blocks and none leaves the process, but for `http`.
//! Refuses: a resource outside the call it was lent for, text that is not UTF-8, bad indices.

mod columns;
mod data;
mod http;
mod lookup;
mod packed;
mod packed_state;
mod state;
mod telemetry;
mod timers;
pub(crate) mod wasi;

use std::sync::Arc;

pub(crate) use state::Entries;

use arrow::array::{ArrayRef, BinaryArray};
use arrow::buffer::ScalarBuffer;
use model::schema::Field;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, WasmStr};
use wasmtime::{Engine, Result};

use crate::ambient::Surroundings;
use crate::column::ColumnOut;
use crate::deadline::Clock;
use crate::error::bad;
use crate::fields::Fields;
use crate::guest::{Batch, Edge, OpenContext};
use crate::http::Http;
use crate::limits::Limiter;
use crate::outbox::Outbox;
use crate::state::Keyed;
use crate::telemetry::Telemetry;
use crate::world::{
    COLUMNS, DATA, HTTP, LOOKUP, PACKED, PACKED_STATE, STATE, TELEMETRY, TIMERS, TYPES,
};

/// Phantom types of the three resources; at most one of each is alive, so the number says nothing.
pub(crate) enum ContextHandle {}
pub(crate) enum BatchHandle {}
pub(crate) enum OutboxHandle {}

/// The batch that a call works on.
pub(crate) struct Lent {
    pub(crate) batch: Arc<Batch>,
    /// The values of a batch that came without, once they were asked for.
    pub(crate) written: Option<BinaryArray>,
    /// Where in the batch the columns are that the module selected, in its order.
    pub(crate) columns: Arc<[usize]>,
    pub(crate) input: u16,
    pub(crate) watermark: i64,
}

/// What belongs to one store.
pub(crate) struct State {
    pub(crate) limiter: Limiter,
    pub(crate) clock: Clock,
    pub(crate) surroundings: Surroundings,
    pub(crate) context: OpenContext,
    pub(crate) opening: bool,
    pub(crate) fields: Fields,
    pub(crate) telemetry: Telemetry,
    pub(crate) lent: Option<Lent>,
    pub(crate) outbox: Outbox,
    /// While a call runs, where the module keeps state.
    pub(crate) keyed: Option<Keyed>,
    pub(crate) http: Http,
}

type Cx<'a> = StoreContextMut<'a, State>;
type This<T> = Resource<T>;

pub(crate) fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    linker.instance(TYPES)?;
    let mut data = linker.instance(DATA)?;
    data::resources(&mut data)?;
    data::context(&mut data)?;
    data::batch(&mut data)?;
    data::outbox_rows(&mut data)?;
    data::outbox_refusals(&mut data)?;
    let mut columns = linker.instance(COLUMNS)?;
    data::resources(&mut columns)?;
    columns::open(&mut columns)?;
    columns::batch(&mut columns)?;
    columns::outbox(&mut columns)?;
    let mut packed = linker.instance(PACKED)?;
    data::resources(&mut packed)?;
    packed::batch(&mut packed)?;
    packed::outbox(&mut packed)?;
    packed::outbox_columns(&mut packed)?;
    let mut telemetry = linker.instance(TELEMETRY)?;
    telemetry::log(&mut telemetry)?;
    telemetry::metrics(&mut telemetry)?;
    state::state(&mut linker.instance(STATE)?)?;
    timers::timers(&mut linker.instance(TIMERS)?)?;
    packed_state::state(&mut linker.instance(PACKED_STATE)?)?;
    http::http(&mut linker.instance(HTTP)?)?;
    lookup::lookup(&mut linker.instance(LOOKUP)?)?;
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

fn names(edges: &[Edge]) -> Vec<String> {
    edges.iter().map(|edge| edge.name.clone()).collect()
}

/// The values, written now if columns alone held them.
fn values<'a>(cx: &'a mut Cx<'_>) -> Result<&'a BinaryArray> {
    let Some(lent) = &mut cx.data_mut().lent else {
        return bad("the batch is used outside `process`".into());
    };
    let values = &lent.batch.rows.values;
    match (
        &lent.batch.unwritten,
        &lent.batch.columns,
        &mut lent.written,
    ) {
        (Some(format), Some(columns), written @ None) => {
            let made = format.values(columns, values);
            let made = made.or_else(|e| bad(format!("the values cannot be written: {e}")))?;
            Ok(written.insert(made))
        }
        (.., written) => Ok(written.as_ref().unwrap_or(values)),
    }
}

fn offsets(cx: &Cx<'_>) -> Result<ScalarBuffer<u64>> {
    Ok(lent(cx)?.batch.offsets.clone())
}

fn header(cx: &Cx<'_>, name: &WasmStr) -> Result<ColumnOut> {
    let rows = &lent(cx)?.batch.rows;
    if rows.headers.is_none() {
        return Ok(ColumnOut::absent(rows.len()));
    }
    let column: BinaryArray = rows.header(&name.to_str(cx)?);
    Ok(ColumnOut::new(&column))
}

/// A column that the module selected, and as what.
fn selected<'a>(cx: &'a Cx<'_>, call: &str, column: u16) -> Result<(&'a ArrayRef, &'a Field)> {
    let lent = lent(cx)?;
    let fields = cx.data().fields.selected(lent.input);
    let at = usize::from(column);
    let columns = lent.batch.columns.as_ref();
    match (columns.zip(lent.columns.get(at)), fields.get(at)) {
        (Some((columns, place)), Some(field)) => Ok((columns.column(*place), field)),
        _ => bad(format!(
            "{call}: column {column}, but the module selected {} of input {}",
            fields.len(),
            lent.input
        )),
    }
}

/// Text of a guest, cut to what is kept of a message.
fn text(cx: &Cx<'_>, text: &WasmStr) -> Result<String> {
    match text.to_str(cx) {
        Ok(text) => Ok(crate::outbox::cut(&text, crate::limits::MESSAGE_BYTES_MAX)),
        Err(error) => bad(format!("text that is not UTF-8: {error}")),
    }
}
