//! What a module tells about itself: lines in the server's log, counters, histograms.
//!
//! ```
//! # extern crate rustmq_sdk as rustmq;
//! use rustmq::{Counter, Histogram};
//!
//! static LATE: Counter = Counter::new("late");
//! static MINUTES: Histogram = Histogram::new("minutes", &[15.0, 60.0, 240.0]);
//!
//! #[rustmq::filter]
//! fn late(minutes: f64) -> bool {
//!     MINUTES.observe(minutes);
//!     if minutes > 240.0 {
//!         rustmq::warn!(minutes = minutes; "very late");
//!     }
//!     let late = minutes > 15.0;
//!     LATE.add(u64::from(late));
//!     late
//! }
//!
//! let out = rustmq::testing::run::<late>(["20", "300", "1"]);
//! assert_eq!(out.counters["late"], 2);
//! assert_eq!(out.histograms["minutes"], [20.0, 300.0, 1.0]);
//! assert_eq!(out.log, [(rustmq::Level::Warn, "very late minutes=300".to_string())]);
//! ```
//!
//! Called by: guests.
//! Invariants: numbers are collected during a call and told once, at its end; what a call that
//! fails added does not count.

use crate::sys;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Whether the server keeps lines of this level.
pub fn log_enabled(level: Level) -> bool {
    sys::telemetry::enabled(level)
}

/// A line for the server's log, with names and values beside it. The macros [`info!`](crate::info)
/// and the like ask first whether it is kept.
pub fn log(level: Level, message: &str, values: &[(&str, &str)]) {
    sys::telemetry::log(level, message, values);
}

/// A number that only grows, summed up over all lanes in `rustmq pipeline describe`. A `static`.
#[derive(Debug)]
pub struct Counter {
    pub(crate) name: &'static str,
    #[cfg_attr(
        not(target_family = "wasm"),
        expect(dead_code, reason = "a test tells at once")
    )]
    pub(crate) told: sys::telemetry::Told<u64>,
}

impl Counter {
    /// `name` is `[a-z][a-z0-9_]*`.
    pub const fn new(name: &'static str) -> Counter {
        Counter {
            name,
            told: sys::telemetry::Told::new(),
        }
    }

    #[inline]
    pub fn add(&'static self, amount: u64) {
        if amount > 0 {
            sys::telemetry::add(self, amount);
        }
    }
}

/// The spread of many values. A `static`.
#[derive(Debug)]
pub struct Histogram {
    pub(crate) name: &'static str,
    #[cfg_attr(
        not(target_family = "wasm"),
        expect(dead_code, reason = "a test keeps the values")
    )]
    pub(crate) bounds: &'static [f64],
    #[cfg_attr(
        not(target_family = "wasm"),
        expect(dead_code, reason = "a test tells at once")
    )]
    pub(crate) told: sys::telemetry::Told<f64>,
}

impl Histogram {
    /// `bounds` are the buckets' upper ones, ascending; a last bucket takes what is above.
    pub const fn new(name: &'static str, bounds: &'static [f64]) -> Histogram {
        Histogram {
            name,
            bounds,
            told: sys::telemetry::Told::new(),
        }
    }

    #[inline]
    pub fn observe(&'static self, value: f64) {
        sys::telemetry::observe(self, value);
    }
}

/// `log!(Level::Info, "text {x}")`, or with values beside it: `log!(Level::Info, name = x; "text")`.
#[macro_export]
macro_rules! log {
    ($level:expr, $($name:ident = $value:expr),+ ; $($text:tt)+) => {{
        let level = $level;
        if $crate::log_enabled(level) {
            let values = [$((stringify!($name), $value.to_string())),+];
            let values = values.each_ref().map(|(name, value)| (*name, value.as_str()));
            $crate::log(level, &format!($($text)+), &values);
        }
    }};
    ($level:expr, $($text:tt)+) => {{
        let level = $level;
        if $crate::log_enabled(level) {
            $crate::log(level, &format!($($text)+), &[]);
        }
    }};
}

/// A line at level `trace`; see [`log!`](crate::log!).
#[macro_export]
macro_rules! trace {
    ($($line:tt)+) => { $crate::log!($crate::Level::Trace, $($line)+) };
}

/// A line at level `debug`; see [`log!`](crate::log!).
#[macro_export]
macro_rules! debug {
    ($($line:tt)+) => { $crate::log!($crate::Level::Debug, $($line)+) };
}

/// A line at level `info`; see [`log!`](crate::log!).
#[macro_export]
macro_rules! info {
    ($($line:tt)+) => { $crate::log!($crate::Level::Info, $($line)+) };
}

/// A line at level `warn`; see [`log!`](crate::log!).
#[macro_export]
macro_rules! warn {
    ($($line:tt)+) => { $crate::log!($crate::Level::Warn, $($line)+) };
}

/// A line at level `error`; see [`log!`](crate::log!).
#[macro_export]
macro_rules! error {
    ($($line:tt)+) => { $crate::log!($crate::Level::Error, $($line)+) };
}
