//! The host's side of `wit/state.wit`.
//!
//! Called by: `link`, `packed_state`.
//! Invariants: those of `link`; keys are counted before one is looked up, and what is read is bounded, so
//! that no call takes long.
//! Refuses: calls outside a batch, keys that are absent, more than the limits of `state`.

use arrow::array::{Array, BinaryArray, BinaryBuilder};
use wasmtime::Result;
use wasmtime::component::{ComponentType, LinkerInstance, Lower, WasmList};

use super::{Cx, State};
use crate::column::{ColumnIn, ColumnOut, GuestColumn};
use crate::error::{bad, over};
use crate::limits::{STATE_KEYS_MAX, STATE_READ_BYTES_MAX};
use crate::state::{Keyed, Scanned};

#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct Entries {
    pub(super) keys: ColumnOut,
    pub(super) values: ColumnOut,
}

impl Entries {
    pub(crate) fn new(found: &Scanned) -> Entries {
        let column = |rows: &[Vec<u8>]| ColumnOut::new(&BinaryArray::from_iter_values(rows));
        Entries {
            keys: column(&found.keys),
            values: column(&found.values),
        }
    }
}

type PutArgs = (ColumnIn, ColumnIn);
pub(super) type ScanArgs = (WasmList<u8>, Option<WasmList<u8>>, u32);

pub(super) fn state(interface: &mut LinkerInstance<'_, State>) -> Result<()> {
    interface.func_wrap("get", |mut cx: Cx<'_>, (keys,): (ColumnIn,)| {
        Ok((get(&mut cx, &keys)?,))
    })?;
    interface.func_wrap("put", |mut cx: Cx<'_>, (keys, values): PutArgs| {
        put(&mut cx, &keys, &values)
    })?;
    interface.func_wrap("delete", |mut cx: Cx<'_>, (keys,): (ColumnIn,)| {
        delete(&mut cx, &keys)
    })?;
    interface.func_wrap("scan", |mut cx: Cx<'_>, range: ScanArgs| {
        Ok((scan(&mut cx, range)?,))
    })
}

pub(super) fn get(cx: &mut Cx<'_>, keys: &impl GuestColumn) -> Result<ColumnOut> {
    let keys = keys_of(cx, "get", keys)?;
    let keyed = keyed(cx, "get")?;
    let (mut values, mut bytes) = (BinaryBuilder::with_capacity(keys.len(), 0), 0);
    for key in keys.iter().flatten() {
        let value = keyed.get(key);
        bytes += value.map_or(0, <[u8]>::len);
        if bytes > STATE_READ_BYTES_MAX {
            return over(
                "bytes read from the state in one call",
                STATE_READ_BYTES_MAX,
            );
        }
        values.append_option(value);
    }
    Ok(ColumnOut::new(&values.finish()))
}

pub(super) fn put(
    cx: &mut Cx<'_>,
    keys: &impl GuestColumn,
    values: &impl GuestColumn,
) -> Result<()> {
    let keys = keys_of(cx, "put", keys)?;
    let values = values.take(cx, "put: values", keys.len())?;
    let keyed = keyed(cx, "put")?;
    for (row, key) in keys.iter().flatten().enumerate() {
        let value = values.is_valid(row).then(|| values.value(row));
        keyed.put(key, value)?;
    }
    Ok(())
}

pub(super) fn delete(cx: &mut Cx<'_>, keys: &impl GuestColumn) -> Result<()> {
    let keys = keys_of(cx, "delete", keys)?;
    let keyed = keyed(cx, "delete")?;
    keys.iter()
        .flatten()
        .try_for_each(|key| keyed.put(key, None))
}

pub(super) fn scan(cx: &mut Cx<'_>, (prefix, after, most): ScanArgs) -> Result<Entries> {
    let prefix = prefix.as_le_slice(&*cx).to_vec();
    let after = after.map(|after| after.as_le_slice(&*cx).to_vec());
    let found = keyed(cx, "scan")?.scan(&prefix, after.as_deref(), most);
    Ok(Entries::new(&found))
}

/// The keys of a call, all of them there.
pub(super) fn keys_of(cx: &Cx<'_>, call: &str, keys: &impl GuestColumn) -> Result<BinaryArray> {
    let count = keys.rows();
    if count > STATE_KEYS_MAX {
        return over("keys in one call about the state", STATE_KEYS_MAX);
    }
    let keys = keys.take(cx, &format!("{call}: keys"), count)?;
    if keys.null_count() > 0 {
        return bad(format!("{call}: a key is absent"));
    }
    Ok(keys)
}

pub(super) fn keyed<'a>(cx: &'a mut Cx<'_>, call: &str) -> Result<&'a mut Keyed> {
    match &mut cx.data_mut().keyed {
        Some(keyed) => Ok(keyed),
        None => bad(format!("{call}: there is no state outside of a batch")),
    }
}
