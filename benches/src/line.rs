//! The line of a case. Its form is a contract: people and checks read it.
//!
//! Called by: every benchmark. Invariants: `ratio` is our speed over the baseline's whatever the
//! unit, so a time is turned round; numbers have as many digits as mean something.

use std::fmt::Write;

use crate::median;

/// What a value is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    RecordsPerSecond,
    MebibytesPerSecond,
    MegabytesPerSecond,
    NanosecondsPerRecord,
    Milliseconds,
    BytesPerPartition,
}

impl Unit {
    fn text(self) -> &'static str {
        match self {
            Unit::RecordsPerSecond => "records/s",
            Unit::MebibytesPerSecond => "MiB/s",
            Unit::MegabytesPerSecond => "MB/s",
            Unit::NanosecondsPerRecord => "ns/record",
            Unit::Milliseconds => "ms",
            Unit::BytesPerPartition => "bytes/partition",
        }
    }

    fn less_is_better(self) -> bool {
        matches!(
            self,
            Unit::NanosecondsPerRecord | Unit::Milliseconds | Unit::BytesPerPartition
        )
    }
}

/// One case: what its turns gave.
#[derive(Clone, Debug)]
pub struct Case {
    name: &'static str,
    case: String,
    unit: Unit,
    ours: Vec<f64>,
    baseline: Vec<f64>,
    records: u64,
    fields: Vec<(&'static str, String)>,
}

impl Case {
    pub fn new(name: &'static str, case: impl Into<String>, unit: Unit) -> Case {
        let (ours, baseline, fields) = (Vec::new(), Vec::new(), Vec::new());
        Case {
            name,
            case: case.into(),
            unit,
            ours,
            baseline,
            records: 0,
            fields,
        }
    }

    /// One turn of ours: its value, and the records that came to their end in it.
    pub fn ours(&mut self, value: f64, records: u64) {
        self.ours.push(value);
        self.records += records;
    }

    /// One turn of the baseline.
    pub fn baseline(&mut self, value: f64) {
        self.baseline.push(value);
    }

    /// A further field, printed last.
    pub fn field(&mut self, name: &'static str, value: impl ToString) {
        self.fields.push((name, value.to_string()));
    }

    /// A further field that is a number.
    pub fn number(&mut self, name: &'static str, value: f64) {
        self.fields.push((name, digits(value)));
    }

    /// Ours.
    pub fn value(&self) -> f64 {
        median(&self.ours)
    }

    /// Our speed over the baseline's.
    pub fn ratio(&self) -> Option<f64> {
        if self.baseline.is_empty() {
            return None;
        }
        let (ours, baseline) = (self.value(), median(&self.baseline));
        Some(if self.unit.less_is_better() {
            baseline / ours
        } else {
            ours / baseline
        })
    }

    /// The line.
    pub fn text(&self) -> String {
        let Case {
            name, case, unit, ..
        } = self;
        let value = digits(self.value());
        let mut text = format!("bench {name} {case} value={value} unit={}", unit.text());
        if let Some(ratio) = self.ratio() {
            let baseline = digits(median(&self.baseline));
            let _ = write!(text, " baseline={baseline} ratio={ratio:.2}");
        }
        let _ = write!(text, " runs={} records={}", self.ours.len(), self.records);
        for (name, value) in &self.fields {
            let _ = write!(text, " {name}={value}");
        }
        text
    }

    /// Prints the line on standard output.
    pub fn print(&self) {
        println!("{}", self.text());
    }
}

fn digits(value: f64) -> String {
    let places = match value.abs() {
        value if value < 10.0 => 2,
        value if value < 1000.0 => 1,
        _ => 0,
    };
    format!("{value:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(unit: Unit, ours: &[f64], baseline: &[f64], want: &str) {
        let mut case = Case::new("n", "c-1", unit);
        ours.iter().for_each(|value| case.ours(*value, 10));
        baseline.iter().for_each(|value| case.baseline(*value));
        if baseline.is_empty() {
            case.number("per_sync", 12.345);
        }
        assert_eq!(case.text(), want);
    }

    #[test]
    fn lines() {
        check(
            Unit::RecordsPerSecond,
            &[1000.4, 900.0, 2000.0],
            &[2000.0, 2000.0, 1.0],
            "bench n c-1 value=1000 unit=records/s baseline=2000 ratio=0.50 runs=3 records=30",
        );
        check(
            Unit::NanosecondsPerRecord,
            &[12.34],
            &[11.1],
            "bench n c-1 value=12.3 unit=ns/record baseline=11.1 ratio=0.90 runs=1 records=10",
        );
        check(
            Unit::Milliseconds,
            &[1.5],
            &[],
            "bench n c-1 value=1.50 unit=ms runs=1 records=10 per_sync=12.3",
        );
    }
}
