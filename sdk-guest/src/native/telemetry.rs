//! Telemetry of a test: kept by its thread until the harness takes it.
//!
//! Called by: `telemetry`, `testing`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use crate::telemetry::{Counter, Histogram, Level};

const NAME_BYTES_MAX: usize = 64;

/// Nothing is held back: a test tells at once.
#[derive(Debug)]
pub struct Told<T>(PhantomData<fn() -> T>);

impl<T> Told<T> {
    pub(crate) const fn new() -> Told<T> {
        Told(PhantomData)
    }
}

#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) log: Vec<(Level, String)>,
    pub(crate) counters: BTreeMap<String, u64>,
    pub(crate) histograms: BTreeMap<String, Vec<f64>>,
}

thread_local! {
    static HEARD: RefCell<Heard> = RefCell::default();
}

/// All that was told on this thread since the last time.
pub(crate) fn take() -> Heard {
    HEARD.take()
}

pub(crate) fn enabled(_: Level) -> bool {
    true
}

pub(crate) fn log(level: Level, message: &str, values: &[(&str, &str)]) {
    let mut line = message.to_owned();
    for (name, value) in values {
        line.push_str(&format!(" {name}={value}"));
    }
    HEARD.with_borrow_mut(|heard| heard.log.push((level, line)));
}

/// The host's rule, which refuses a component with such a metric.
fn checked(name: &'static str) -> &'static str {
    let mut letters = name.bytes();
    let is_name = name.len() <= NAME_BYTES_MAX
        && letters.next().is_some_and(|b| b.is_ascii_lowercase())
        && letters.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    assert!(
        is_name,
        "a metric's name is `[a-z][a-z0-9_]*` of at most {NAME_BYTES_MAX} bytes, not {name:?}"
    );
    name
}

pub(crate) fn add(counter: &'static Counter, amount: u64) {
    HEARD.with_borrow_mut(|heard| {
        *heard
            .counters
            .entry(checked(counter.name).to_owned())
            .or_default() += amount;
    });
}

pub(crate) fn observe(histogram: &'static Histogram, value: f64) {
    HEARD.with_borrow_mut(|heard| {
        let values = heard.histograms.entry(checked(histogram.name).to_owned());
        values.or_default().push(value);
    });
}
