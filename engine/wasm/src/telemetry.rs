//! What modules tell about themselves: lines for the server's log, counters, histograms.
//!
//! Called by: `link::telemetry` (fills it), `guest` (keeps what a good call added), pipelines (reads
//! [`Metrics`] for the status).
//! Invariants: a line is at most [`LOG_LINE_BYTES_MAX`] and has no control characters; lines above
//! the bytes per second are counted, and the count is logged; what a call adds to a metric counts
//! when the call returned ok; names and buckets are bounded.
//! Refuses: names that are none, too many metrics, bounds that do not ascend.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tracing::Level;

use crate::limits::{
    HISTOGRAM_BOUNDS_MAX, LOG_LINE_BYTES_BESIDE, LOG_LINE_BYTES_MAX, Limits, METRIC_NAME_BYTES_MAX,
    TOLD_MAX,
};
use crate::outbox::cut;

/// Whose module it is, as the log says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    pub pipeline: String,
    pub node: String,
    /// The lane: its input partition.
    pub lane: u32,
}

/// Numbers of a module in one lane, and what it may still log. Cheap to clone; clones are the same
/// numbers, so that they outlive an instance.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    numbers: Mutex<BTreeMap<String, Metric>>,
    log: Mutex<Budget>,
}

/// One number, or the spread of many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Metric {
    Counter {
        value: u64,
    },
    Histogram {
        /// Upper bounds of the buckets but the last.
        bounds: Vec<f64>,
        /// One more than bounds: a value is in the first bucket whose bound is not below it.
        counts: Vec<u64>,
        count: u64,
        sum: f64,
    },
}

impl Metrics {
    /// All of them, by name.
    pub fn read(&self) -> BTreeMap<String, Metric> {
        self.lock().clone()
    }

    /// Adds to a counter of the host's own; a dot in its name keeps it apart from a module's.
    pub(crate) fn count(&self, name: &str, amount: u64) {
        let mut numbers = self.lock();
        let zero = Metric::Counter { value: 0 };
        if let Metric::Counter { value } = numbers.entry(name.to_owned()).or_insert(zero) {
            *value = value.saturating_add(amount);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Metric>> {
        // plain numbers: whole even if a writer panicked
        let numbers = self.0.numbers.lock();
        numbers.unwrap_or_else(PoisonError::into_inner)
    }

    fn may_log(&self, bytes: u64, per_s: u64, now: Instant) -> Taken {
        let budget = self.0.log.lock();
        let mut budget = budget.unwrap_or_else(PoisonError::into_inner);
        budget.take(bytes, per_s, now)
    }
}

impl Metric {
    /// Adds another lane's numbers; those of another shape are left out.
    pub fn merge(&mut self, other: &Metric) {
        match (self, other) {
            (Metric::Counter { value }, Metric::Counter { value: more }) => {
                *value = value.saturating_add(*more);
            }
            (
                Metric::Histogram {
                    bounds,
                    counts,
                    count,
                    sum,
                },
                Metric::Histogram {
                    bounds: same,
                    counts: more,
                    count: others,
                    sum: added,
                },
            ) if bounds == same => {
                for (count, more) in counts.iter_mut().zip(more) {
                    *count = count.saturating_add(*more);
                }
                *count = count.saturating_add(*others);
                *sum = finite(*sum + added);
            }
            _ => {}
        }
    }

    fn like(&self, other: &Metric) -> bool {
        match (self, other) {
            (Metric::Counter { .. }, Metric::Counter { .. }) => true,
            (Metric::Histogram { bounds, .. }, Metric::Histogram { bounds: same, .. }) => {
                bounds == same
            }
            _ => false,
        }
    }

    fn observe(&mut self, value: f64) {
        let Metric::Histogram {
            bounds,
            counts,
            count,
            sum,
        } = self
        else {
            return;
        };
        if !value.is_finite() {
            return;
        }
        let bucket = bounds.partition_point(|bound| *bound < value);
        counts[bucket] = counts[bucket].saturating_add(1);
        *count = count.saturating_add(1);
        *sum = finite(*sum + value);
    }
}

/// The nearest number that can be written as JSON.
fn finite(sum: f64) -> f64 {
    sum.clamp(f64::MIN, f64::MAX)
}

/// What one instance tells.
#[derive(Debug)]
pub(crate) struct Telemetry {
    labels: Labels,
    metrics: Metrics,
    metrics_max: usize,
    /// By id.
    names: Vec<String>,
    /// What the running call added, by id.
    pending: Vec<(u32, Addition)>,
    /// Additions and values in there.
    told: usize,
    log_bytes_per_s: u64,
}

#[derive(Debug)]
enum Addition {
    Added(u64),
    Observed(Vec<f64>),
}

impl Telemetry {
    pub(crate) fn new(labels: Labels, metrics: Metrics, limits: &Limits) -> Telemetry {
        Telemetry {
            labels,
            metrics,
            metrics_max: limits.metrics,
            names: Vec::new(),
            pending: Vec::new(),
            told: 0,
            log_bytes_per_s: limits.log_bytes_per_s,
        }
    }

    /// Logs a line, if its level is kept and not too many were logged lately.
    pub(crate) fn log(&mut self, level: Level, message: &str, values: &[&str]) {
        if !enabled(level) {
            return;
        }
        let mut line = String::new();
        plain(message, &mut line);
        for pair in values.chunks(2) {
            line.push(' ');
            plain(pair[0], &mut line);
            line.push('=');
            plain(pair.get(1).copied().unwrap_or_default(), &mut line);
        }
        let line = cut(&line, LOG_LINE_BYTES_MAX);
        let bytes = line.len() as u64 + LOG_LINE_BYTES_BESIDE;
        let (per_s, now) = (self.log_bytes_per_s, Instant::now());
        let taken = self.metrics.may_log(bytes, per_s, now);
        let Labels {
            pipeline,
            node,
            lane,
        } = &self.labels;
        if let Some(dropped) = taken.dropped {
            tracing::warn!(
                target: TARGET, pipeline, node, lane, dropped,
                "lines above the rate were left out"
            );
        }
        if !taken.granted {
            return;
        }
        match level {
            Level::TRACE => tracing::trace!(target: TARGET, pipeline, node, lane, "{line}"),
            Level::DEBUG => tracing::debug!(target: TARGET, pipeline, node, lane, "{line}"),
            Level::INFO => tracing::info!(target: TARGET, pipeline, node, lane, "{line}"),
            Level::WARN => tracing::warn!(target: TARGET, pipeline, node, lane, "{line}"),
            _ => tracing::error!(target: TARGET, pipeline, node, lane, "{line}"),
        }
    }

    /// The id of a metric, which is made if it is not there.
    pub(crate) fn register(&mut self, name: &str, metric: Metric) -> Result<u32, String> {
        if !is_name(name) {
            return Err(format!(
                "a metric's name is `[a-z][a-z0-9_]*` of at most {METRIC_NAME_BYTES_MAX} bytes, not {:?}",
                cut(name, METRIC_NAME_BYTES_MAX)
            ));
        }
        let mut known = self.metrics.lock();
        match known.get(name) {
            Some(there) if there.like(&metric) => {}
            // the module was changed: its numbers begin anew
            Some(_) => drop(known.insert(name.to_owned(), metric)),
            None if own(&known) >= self.metrics_max => {
                let most = self.metrics_max;
                return Err(format!(
                    "a module has at most {most} metrics; raise limits.metrics if right"
                ));
            }
            None => drop(known.insert(name.to_owned(), metric)),
        }
        if let Some(id) = self.names.iter().position(|n| n == name) {
            return Ok(id as u32);
        }
        self.names.push(name.to_owned());
        Ok(self.names.len() as u32 - 1)
    }

    /// Whether there is a metric of that id.
    pub(crate) fn knows(&self, id: u32) -> bool {
        (id as usize) < self.names.len()
    }

    /// Whether the running call may tell so much more.
    pub(crate) fn may_tell(&self, more: usize) -> bool {
        self.told.saturating_add(more) <= TOLD_MAX
    }

    pub(crate) fn add(&mut self, id: u32, amount: u64) {
        self.told += 1;
        self.pending.push((id, Addition::Added(amount)));
    }

    pub(crate) fn observe(&mut self, id: u32, values: Vec<f64>) {
        self.told += values.len() + 1;
        self.pending.push((id, Addition::Observed(values)));
    }

    /// The call returned ok: what it added counts.
    pub(crate) fn keep(&mut self) {
        self.told = 0;
        if self.pending.is_empty() {
            return;
        }
        let mut metrics = self.metrics.lock();
        for (id, told) in self.pending.drain(..) {
            let Some(metric) = metrics.get_mut(&self.names[id as usize]) else {
                continue;
            };
            match (metric, told) {
                (Metric::Counter { value }, Addition::Added(amount)) => {
                    *value = value.saturating_add(amount);
                }
                (histogram, Addition::Observed(values)) => {
                    values
                        .into_iter()
                        .for_each(|value| histogram.observe(value));
                }
                _ => {}
            }
        }
    }

    /// The call failed: it never happened.
    pub(crate) fn forget(&mut self) {
        self.told = 0;
        self.pending.clear();
    }
}

/// Those that the module made.
fn own(known: &BTreeMap<String, Metric>) -> usize {
    known.keys().filter(|name| is_name(name)).count()
}

/// Under which the server's log has lines of modules.
const TARGET: &str = "rustmq::module";

/// Whether the server's log keeps lines of modules at this level.
pub(crate) fn enabled(level: Level) -> bool {
    match level {
        Level::TRACE => tracing::enabled!(target: TARGET, Level::TRACE),
        Level::DEBUG => tracing::enabled!(target: TARGET, Level::DEBUG),
        Level::INFO => tracing::enabled!(target: TARGET, Level::INFO),
        Level::WARN => tracing::enabled!(target: TARGET, Level::WARN),
        _ => tracing::enabled!(target: TARGET, Level::ERROR),
    }
}

/// Upper bounds of a histogram, as a module gives them.
pub(crate) fn histogram(bounds: Vec<f64>) -> Result<Metric, String> {
    if bounds.is_empty() || bounds.len() > HISTOGRAM_BOUNDS_MAX {
        let len = bounds.len();
        return Err(format!(
            "a histogram has 1 to {HISTOGRAM_BOUNDS_MAX} bounds, not {len}"
        ));
    }
    let ascend = bounds.windows(2).all(|pair| pair[0] < pair[1]);
    if !ascend || bounds.iter().any(|bound| !bound.is_finite()) {
        return Err("a histogram's bounds are finite and ascend".into());
    }
    Ok(Metric::Histogram {
        counts: vec![0; bounds.len() + 1],
        bounds,
        count: 0,
        sum: 0.0,
    })
}

fn is_name(name: &str) -> bool {
    let mut letters = name.bytes();
    name.len() <= METRIC_NAME_BYTES_MAX
        && letters.next().is_some_and(|b| b.is_ascii_lowercase())
        && letters.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Text without control characters, which could forge lines or steer a terminal.
fn plain(text: &str, out: &mut String) {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    out.extend(text.chars().take(LOG_LINE_BYTES_MAX).map(visible));
}

/// Bytes of log a second: a bucket that holds one second's worth.
#[derive(Debug, Default)]
struct Budget {
    left: u64,
    at: Option<Instant>,
    dropped: u64,
}

struct Taken {
    granted: bool,
    /// Lines that were not, since the last that was.
    dropped: Option<u64>,
}

impl Budget {
    fn take(&mut self, bytes: u64, per_s: u64, now: Instant) -> Taken {
        let earned = match self.at {
            None => per_s,
            Some(at) => {
                let passed = now.saturating_duration_since(at);
                (passed.as_secs_f64() * per_s as f64) as u64
            }
        };
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(per_s);
            self.at = Some(now);
        }
        if bytes > self.left {
            self.dropped += 1;
            return Taken {
                granted: false,
                dropped: None,
            };
        }
        self.left -= bytes;
        let dropped = std::mem::take(&mut self.dropped);
        Taken {
            granted: true,
            dropped: (dropped > 0).then_some(dropped),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_budget_fills_with_time() {
        let (start, mut budget) = (Instant::now(), Budget::default());
        let mut check = |ms: u64, bytes: u64, want: (bool, Option<u64>)| {
            let taken = budget.take(bytes, 100, start + Duration::from_millis(ms));
            assert_eq!((taken.granted, taken.dropped), want, "at {ms} ms");
        };
        check(0, 60, (true, None));
        check(1, 60, (false, None));
        check(2, 40, (true, Some(1)));
        check(3, 1, (false, None));
        check(500, 49, (true, Some(1)));
        check(9000, 100, (true, None));
        check(9000, 101, (false, None));
    }

    #[test]
    fn instances_share_a_budget_and_a_level_that_is_off_takes_none() {
        let (now, metrics) = (Instant::now(), Metrics::default());
        let limits = Limits {
            log_bytes_per_s: 200,
            ..Limits::default()
        };
        let mut telemetry = Telemetry::new(Labels::default(), metrics.clone(), &limits);
        // nobody listens here
        telemetry.log(Level::TRACE, "x", &[]);
        assert!(metrics.may_log(200, 200, now).granted);
        assert!(!telemetry.metrics.may_log(1, 200, now).granted);
    }

    #[test]
    fn names_bounds_and_buckets() {
        for (name, good) in [
            ("rows_late2", true),
            ("", false),
            ("2x", false),
            ("a-b", false),
        ] {
            assert_eq!(is_name(name), good, "{name}");
        }
        assert!(!is_name(&"a".repeat(METRIC_NAME_BYTES_MAX + 1)));
        for bounds in [vec![], vec![1.0, 1.0], vec![f64::NAN], vec![0.0; 100]] {
            assert!(histogram(bounds).is_err());
        }
        let mut metric = histogram(vec![1.0, 2.0]).expect("they ascend");
        [0.5, 1.0, 1.5, 9.0, f64::NAN, f64::INFINITY]
            .into_iter()
            .for_each(|value| metric.observe(value));
        [f64::MAX, f64::MAX]
            .into_iter()
            .for_each(|value| metric.observe(value));
        metric.merge(&metric.clone());
        let Metric::Histogram {
            counts, count, sum, ..
        } = metric
        else {
            panic!("a histogram");
        };
        assert_eq!((counts, count, sum), (vec![4, 2, 6], 12, f64::MAX));
    }

    #[test]
    fn metrics_are_bounded_and_one_of_another_shape_begins_anew() {
        let metrics = Metrics::default();
        let limits = Limits::default();
        let mut telemetry = Telemetry::new(Labels::default(), metrics.clone(), &limits);
        let counter = Metric::Counter { value: 0 };
        for number in 0..limits.metrics {
            let id = telemetry.register(&format!("m{number}"), counter.clone());
            assert_eq!(id, Ok(number as u32));
        }
        assert!(telemetry.register("more", counter.clone()).is_err());
        assert_eq!(
            telemetry.register("m7", counter),
            Ok(7),
            "the same name again"
        );
        telemetry.add(7, 5);
        telemetry.add(7, u64::MAX);
        telemetry.keep();
        assert_eq!(metrics.read()["m7"], Metric::Counter { value: u64::MAX });
        let spread = histogram(vec![1.0]).expect("it ascends");
        assert_eq!(telemetry.register("m7", spread.clone()), Ok(7));
        assert_eq!(metrics.read()["m7"], spread);
    }

    #[test]
    fn lines_are_plain() {
        let mut line = String::new();
        plain("a\nb\u{1b}[31m\u{0}c", &mut line);
        assert_eq!(line, "a b [31m c");
    }
}
