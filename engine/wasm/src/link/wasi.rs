//! The host's side of what it has of WASI 0.2: clocks and randomness, which Rust's own library asks for as
//! soon as a module for `wasm32-wasip2` makes a `HashMap`.
//!
//! Called by: `host`, for a component that imports them. Invariants: those of `ambient`; all else of WASI
//! stays a stub that traps, waiting for a clock included.
//! Refuses: too many random bytes at once.

use std::time::Duration;

use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{Component, ComponentType, Linker, Lower, ResourceType};
use wasmtime::{Engine, Error, Result};

use super::{Cx, Lent, State};
use crate::ambient::Draw;

/// Interfaces that are provided, of versions 0.2, and their functions.
const PROVIDED: [(&str, &[&str]); 5] = [
    ("wasi:clocks/monotonic-clock", &["now", "resolution"]),
    ("wasi:clocks/wall-clock", &["now", "resolution"]),
    (
        "wasi:random/insecure",
        &["get-insecure-random-bytes", "get-insecure-random-u64"],
    ),
    ("wasi:random/insecure-seed", &["insecure-seed"]),
    (
        "wasi:random/random",
        &["get-random-bytes", "get-random-u64"],
    ),
];

/// `record datetime`
#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

impl From<Duration> for Datetime {
    fn from(since_1970: Duration) -> Datetime {
        Datetime {
            seconds: since_1970.as_secs(),
            nanoseconds: since_1970.subsec_nanos(),
        }
    }
}

/// Whether an import is provided.
pub(crate) fn provides(name: &str) -> bool {
    provided(name).is_some()
}

fn provided(name: &str) -> Option<(&'static str, &'static [&'static str])> {
    let (interface, version) = name.split_once('@')?;
    let known = PROVIDED.into_iter().find(|(known, _)| *known == interface);
    known.filter(|_| version.starts_with("0.2."))
}

/// Links all that a component names of WASI, under the names that it has for it. What is not WASI's is left
/// alone: a stub under an older version's name would stand before the interface of ours that serves it.
pub(crate) fn link(linker: &mut Linker<State>, component: &Component) -> Result<()> {
    let engine = component.engine();
    for (name, import) in component.component_type().imports(engine) {
        if let (ComponentItem::ComponentInstance(interface), true) =
            (import.ty, name.starts_with("wasi:"))
        {
            provide(linker, name)?;
            deny(linker, engine, name, &interface)?;
        }
    }
    Ok(())
}

fn provide(linker: &mut Linker<State>, name: &str) -> Result<()> {
    match provided(name) {
        Some(("wasi:clocks/monotonic-clock", _)) => monotonic_clock(linker, name),
        Some(("wasi:clocks/wall-clock", _)) => wall_clock(linker, name),
        Some((_, [bytes, u64])) => random(linker, name, (bytes, u64)),
        Some(_) => seed(linker, name),
        None => Ok(()),
    }
}

/// Stubs that trap, for the functions that are not provided.
fn deny(
    linker: &mut Linker<State>,
    engine: &Engine,
    name: &str,
    interface: &ComponentInstance,
) -> Result<()> {
    let provided = provided(name).map_or(&[][..], |(_, functions)| functions);
    let mut instance = linker.instance(name)?;
    for (function, export) in interface.exports(engine) {
        match export.ty {
            ComponentItem::ComponentFunc(_) if !provided.contains(&function) => {
                let import = format!("{name}#{function}");
                // in wasmtime's words for what nobody defined, which `guest` knows
                let denied = move || Error::msg(format!("unknown import: `{import}`"));
                instance.func_new(function, move |_, _, _, _| Err(denied()))?;
            }
            ComponentItem::Resource(_) => {
                instance.resource(function, ResourceType::host::<()>(), |_, _| Ok(()))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn wall_clock(linker: &mut Linker<State>, name: &str) -> Result<()> {
    let mut clock = linker.instance(name)?;
    clock.func_wrap("now", |mut cx: Cx<'_>, (): ()| {
        let State {
            surroundings, lent, ..
        } = cx.data_mut();
        let rows = lent.as_ref().map(|lent| &lent.batch.rows.timestamps[..]);
        Ok((Datetime::from(surroundings.wall(rows.unwrap_or_default())),))
    })?;
    clock.func_wrap("resolution", |cx: Cx<'_>, (): ()| {
        Ok((Datetime::from(cx.data().surroundings.resolution()),))
    })
}

fn monotonic_clock(linker: &mut Linker<State>, name: &str) -> Result<()> {
    let mut clock = linker.instance(name)?;
    clock.func_wrap("now", |mut cx: Cx<'_>, (): ()| {
        Ok((cx.data_mut().surroundings.monotonic().as_nanos() as u64,))
    })?;
    clock.func_wrap("resolution", |cx: Cx<'_>, (): ()| {
        Ok((cx.data().surroundings.resolution().as_nanos() as u64,))
    })
}

fn seed(linker: &mut Linker<State>, name: &str) -> Result<()> {
    let mut seed = linker.instance(name)?;
    seed.func_wrap("insecure-seed", |mut cx: Cx<'_>, (): ()| {
        Ok((cx.data_mut().surroundings.seed()?,))
    })
}

fn random(linker: &mut Linker<State>, name: &str, (bytes, u64): (&str, &str)) -> Result<()> {
    let mut random = linker.instance(name)?;
    random.func_wrap(bytes, |mut cx: Cx<'_>, (count,): (u64,)| {
        let State {
            surroundings, lent, ..
        } = cx.data_mut();
        Ok((surroundings.random(count, || draw(lent.as_ref()))?,))
    })?;
    random.func_wrap(u64, |mut cx: Cx<'_>, (): ()| {
        let State {
            surroundings, lent, ..
        } = cx.data_mut();
        Ok((surroundings.random_u64(|| draw(lent.as_ref()))?,))
    })
}

/// What the call at work is known by.
fn draw(lent: Option<&Lent>) -> Draw {
    let Some(lent) = lent else {
        return Draw::default();
    };
    let rows = &lent.batch.rows;
    Draw {
        input: Some(lent.input),
        offset: lent.batch.offsets.first().copied(),
        time: rows.timestamps.first().copied(),
        key: rows.keys.iter().next().flatten().map(<[u8]>::to_vec),
    }
}
