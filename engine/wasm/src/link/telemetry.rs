//! The host's side of `wit/telemetry.wit`.
//!
//! Called by: `link`. Invariants: those of `link`; lists are bounded before they are read.
//! Refuses: ids that were not given out, more told in one call than its bound.

use tracing::Level;
use wasmtime::Result;
use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower, WasmList, WasmStr};

use super::{Cx, State, text};
use crate::error::{bad, over};
use crate::guest::Failure;
use crate::limits::{HISTOGRAM_BOUNDS_MAX, LOG_VALUES_MAX, TOLD_MAX};
use crate::list::FloatList;
use crate::telemetry::{self, Metric};

#[derive(ComponentType, Lift, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "lifted from what a guest says, not made by name")]
enum LogLevel {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Level {
        match level {
            LogLevel::Trace => Level::TRACE,
            LogLevel::Debug => Level::DEBUG,
            LogLevel::Info => Level::INFO,
            LogLevel::Warn => Level::WARN,
            LogLevel::Error => Level::ERROR,
        }
    }
}

type LogArgs = (LogLevel, WasmStr, WasmList<WasmStr>);

pub(super) fn log(interface: &mut LinkerInstance<'_, State>) -> Result<()> {
    interface.func_wrap("enabled", |_: Cx<'_>, (level,): (LogLevel,)| {
        Ok((telemetry::enabled(level.into()),))
    })?;
    interface.func_wrap(
        "log",
        |mut cx: Cx<'_>, (level, message, values): LogArgs| {
            if values.len() > LOG_VALUES_MAX {
                return over("names and values in one line of log", LOG_VALUES_MAX);
            }
            let message = text(&cx, &message)?;
            let list: Vec<WasmStr> = values.iter(&mut cx)?.collect::<Result<_>>()?;
            let values: Vec<String> = list.iter().map(|v| text(&cx, v)).collect::<Result<_>>()?;
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let (state, level) = (cx.data_mut(), Level::from(level));
            if level == Level::ERROR && state.lent.is_none() {
                state.outbox.overhear(&message);
            }
            state.telemetry.log(level, &message, &values);
            Ok(())
        },
    )
}

fn answer(registered: std::result::Result<u32, String>) -> std::result::Result<u32, Failure> {
    registered.map_err(|message| Failure {
        code: "metric".into(),
        message,
    })
}

pub(super) fn metrics(interface: &mut LinkerInstance<'_, State>) -> Result<()> {
    interface.func_wrap("counter", |mut cx: Cx<'_>, (name,): (WasmStr,)| {
        let name = text(&cx, &name)?;
        let telemetry = &mut cx.data_mut().telemetry;
        Ok((answer(
            telemetry.register(&name, Metric::Counter { value: 0 }),
        ),))
    })?;
    interface.func_wrap(
        "histogram",
        |mut cx: Cx<'_>, (name, bounds): (WasmStr, FloatList)| {
            if bounds.len() > HISTOGRAM_BOUNDS_MAX {
                return over("bounds of a histogram", HISTOGRAM_BOUNDS_MAX);
            }
            let name = text(&cx, &name)?;
            let bounds = bounds
                .bits(&cx)
                .iter()
                .map(|b| f64::from_bits(*b))
                .collect();
            let telemetry = &mut cx.data_mut().telemetry;
            let made = telemetry::histogram(bounds);
            Ok((answer(
                made.and_then(|metric| telemetry.register(&name, metric)),
            ),))
        },
    )?;
    interface.func_wrap(
        "add",
        |mut cx: Cx<'_>, (ids, amounts): (WasmList<u32>, WasmList<u64>)| {
            if ids.len() != amounts.len() {
                let (ids, amounts) = (ids.len(), amounts.len());
                return bad(format!("add: {ids} counters and {amounts} amounts"));
            }
            may_tell(&cx, ids.len())?;
            let told = ids.as_le_slice(&cx).iter().zip(amounts.as_le_slice(&cx));
            let told: Vec<(u32, u64)> = told.map(|(id, amount)| (*id, *amount)).collect();
            for (id, amount) in told {
                known(&cx, "add", id)?;
                cx.data_mut().telemetry.add(id, amount);
            }
            Ok(())
        },
    )?;
    interface.func_wrap(
        "observe",
        |mut cx: Cx<'_>, (id, values): (u32, FloatList)| {
            may_tell(&cx, values.len() + 1)?;
            known(&cx, "observe", id)?;
            let values = values
                .bits(&cx)
                .iter()
                .map(|b| f64::from_bits(*b))
                .collect();
            cx.data_mut().telemetry.observe(id, values);
            Ok(())
        },
    )
}

fn known(cx: &Cx<'_>, call: &str, id: u32) -> Result<()> {
    match cx.data().telemetry.knows(id) {
        true => Ok(()),
        false => bad(format!("{call}: no metric has the id {id}")),
    }
}

fn may_tell(cx: &Cx<'_>, more: usize) -> Result<()> {
    match cx.data().telemetry.may_tell(more) {
        true => Ok(()),
        false => over("additions and observed values in one call", TOLD_MAX),
    }
}
