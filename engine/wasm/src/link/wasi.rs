//! The host's side of what it has of WASI 0.2: clocks and randomness, which Rust's own library asks for as
//! soon as a module for `wasm32-wasip2` makes a `HashMap`.
//!
//! Called by: `host`, for a component that imports them. Invariants: those of `ambient`; all else of WASI
//! stays a stub that traps, waiting for a clock included.
//! Refuses: too many random bytes at once.

use std::time::Duration;

use wasmtime::Result;
use wasmtime::component::{ComponentType, Linker, Lower};

use super::{Cx, State};

/// Interfaces that are provided, of versions 0.2.
const PROVIDED: [&str; 5] = [
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
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
    interface(name).is_some()
}

fn interface(name: &str) -> Option<&'static str> {
    let (interface, version) = name.split_once('@')?;
    let known = PROVIDED.into_iter().find(|known| *known == interface);
    known.filter(|_| version.starts_with("0.2."))
}

/// Links one of them, under the name that the component has for it.
pub(crate) fn provide(linker: &mut Linker<State>, name: &str) -> Result<()> {
    match interface(name) {
        Some("wasi:clocks/monotonic-clock") => monotonic_clock(linker, name),
        Some("wasi:clocks/wall-clock") => wall_clock(linker, name),
        Some("wasi:random/insecure-seed") => seed(linker, name),
        Some("wasi:random/insecure") => {
            let functions = ("get-insecure-random-bytes", "get-insecure-random-u64");
            random(linker, name, functions)
        }
        Some(_) => random(linker, name, ("get-random-bytes", "get-random-u64")),
        None => Ok(()),
    }
}

fn wall_clock(linker: &mut Linker<State>, name: &str) -> Result<()> {
    let mut clock = linker.instance(name)?;
    clock.func_wrap("now", |cx: Cx<'_>, (): ()| {
        let state = cx.data();
        let now = state.surroundings.wall(|| latest(state));
        Ok((Datetime::from(now),))
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
    seed.func_wrap("insecure-seed", |cx: Cx<'_>, (): ()| {
        Ok((cx.data().surroundings.seed()?,))
    })
}

fn random(linker: &mut Linker<State>, name: &str, (bytes, u64): (&str, &str)) -> Result<()> {
    let mut random = linker.instance(name)?;
    random.func_wrap(bytes, |mut cx: Cx<'_>, (count,): (u64,)| {
        let first = first(cx.data());
        Ok((cx.data_mut().surroundings.random(count, first)?,))
    })?;
    random.func_wrap(u64, |mut cx: Cx<'_>, (): ()| {
        let first = first(cx.data());
        Ok((cx.data_mut().surroundings.random_u64(first)?,))
    })
}

/// First offset of the batch at work.
fn first(state: &State) -> Option<u64> {
    state.lent.as_ref()?.batch.offsets.first().copied()
}

/// Latest event time of the batch at work.
fn latest(state: &State) -> Option<i64> {
    let rows = &state.lent.as_ref()?.batch.rows;
    rows.timestamps.iter().copied().max()
}
