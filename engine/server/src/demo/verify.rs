//! Holds what came out against the truth: every row once, in order, on the right topic.
//!
//! Called by `demo::run` after the lanes have caught up. Pure: records and answers in,
//! differences out; an empty list means that the demo may say `ok`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::truth::{Delay, Truth};

/// The topics that the routed flights end on.
pub const OUTPUTS: [&str; 3] = ["on_time", "delayed", "cancelled"];

/// What the check needs of a routed flight.
#[derive(Debug, Deserialize)]
struct Routed {
    row: u64,
    tidy: u8,
}

/// The records of the output topics as they are read back, partition by partition.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Rows in offset order, per topic and partition, with the module version that made each.
    partitions: BTreeMap<(String, u32), Vec<(u64, u8)>>,
    unreadable: u64,
    pub dead: u64,
}

impl Outputs {
    pub fn add(&mut self, topic: &str, partition: u32, value: &[u8]) {
        match serde_json::from_slice::<Routed>(value) {
            Ok(flight) => {
                let rows = self
                    .partitions
                    .entry((topic.to_owned(), partition))
                    .or_default();
                rows.push((flight.row, flight.tidy));
            }
            Err(_) => self.unreadable += 1,
        }
    }

    pub fn count(&self, topic: &str) -> u64 {
        let of_topic = self
            .partitions
            .iter()
            .filter(|((name, _), _)| name == topic);
        of_topic.map(|(_, rows)| rows.len() as u64).sum()
    }

    /// Flights made by each version of the module.
    pub fn by_version(&self, version: u8) -> u64 {
        let all = self.partitions.values().flatten();
        all.filter(|(_, tidy)| *tidy == version).count() as u64
    }

    /// Per partition: the last row that version 1 made and the first of version 2. Rows of all
    /// topics together, since a lane writes to all of them.
    pub fn handovers(&self) -> Vec<(u32, u64, u64)> {
        let mut seen: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for ((_, partition), rows) in &self.partitions {
            let (last_old, first_new) = seen.entry(*partition).or_insert((0, u64::MAX));
            for (row, tidy) in rows {
                match tidy {
                    1 => *last_old = (*last_old).max(*row),
                    _ => *first_new = (*first_new).min(*row),
                }
            }
        }
        seen.into_iter()
            .map(|(partition, (old, new))| (partition, old, new))
            .collect()
    }

    /// Everything that is not as it must be.
    pub fn differences(&self, truth: &Truth, broken: u64) -> Vec<String> {
        let mut found = Vec::new();
        let expected = [truth.on_time, truth.delayed, truth.cancelled];
        for (topic, expected) in OUTPUTS.into_iter().zip(expected) {
            differ(
                &mut found,
                &format!("flights on {topic}"),
                expected,
                self.count(topic),
            );
        }
        differ(&mut found, "dead letters", broken, self.dead);
        differ(
            &mut found,
            "records that are not flights",
            0,
            self.unreadable,
        );
        self.each_row_once(truth, &mut found);
        self.in_order(&mut found);
        found
    }

    fn each_row_once(&self, truth: &Truth, found: &mut Vec<String>) {
        let mut rows: Vec<u64> = self
            .partitions
            .values()
            .flatten()
            .map(|(row, _)| *row)
            .collect();
        let total = rows.len();
        rows.sort_unstable();
        rows.dedup();
        differ(
            found,
            "rows that came twice",
            0,
            (total - rows.len()) as u64,
        );
        let expected = truth.flights - truth.filtered;
        differ(found, "different rows", expected, rows.len() as u64);
    }

    /// A plane's flights stay on one partition, so rows only grow within a partition of a topic,
    /// and once a lane runs version 2 it never goes back.
    fn in_order(&self, found: &mut Vec<String>) {
        for ((topic, partition), rows) in &self.partitions {
            let place = format!("{topic}/{partition}");
            let backward = rows.windows(2).filter(|w| w[0].0 >= w[1].0).count();
            differ(
                found,
                &format!("rows out of order on {place}"),
                0,
                backward as u64,
            );
            let returns = rows.windows(2).filter(|w| w[0].1 > w[1].1).count();
            differ(
                found,
                &format!("returns to version 1 on {place}"),
                0,
                returns as u64,
            );
        }
    }
}

fn differ(found: &mut Vec<String>, what: &str, expected: u64, got: u64) {
    if expected != got {
        found.push(format!("{what}: expected {expected}, found {got}"));
    }
}

/// An answer of `questions::BY_CARRIER_MONTH`.
#[derive(Debug, Deserialize)]
pub struct CarrierMonth {
    pub carrier: String,
    pub month: i64,
    pub flights: u64,
    pub mean_delay: Option<f64>,
}

/// An answer of `questions::BY_HOUR`.
#[derive(Debug, Deserialize)]
pub struct AirportHour {
    pub origin: String,
    pub hour: String,
    pub flights: u64,
    pub mean_delay: Option<f64>,
    pub wind: Option<f64>,
}

/// Differences between SQL's answer and the truth, carrier by carrier and month by month.
pub fn carrier_months(answer: &[CarrierMonth], truth: &Truth) -> Vec<String> {
    let mut found = Vec::new();
    let expected = truth.by_carrier_month.len() as u64;
    differ(&mut found, "carrier months", expected, answer.len() as u64);
    for row in answer {
        let key = (row.carrier.clone(), row.month);
        let delay = truth
            .by_carrier_month
            .get(&key)
            .copied()
            .unwrap_or_default();
        let place = format!("{} in month {}", row.carrier, row.month);
        compare(&mut found, &place, &delay, row.flights, row.mean_delay);
    }
    found
}

/// Differences between SQL's answer and the truth, airport by airport and hour by hour.
pub fn airport_hours(answer: &[AirportHour], truth: &Truth) -> Vec<String> {
    let mut found = Vec::new();
    differ(
        &mut found,
        "airport hours",
        truth.by_hour.len() as u64,
        answer.len() as u64,
    );
    for row in answer {
        let hour = row.hour.get(..13).unwrap_or_default().replace(' ', "T");
        let place = format!("{} at {hour}", row.origin);
        let expected = truth
            .by_hour
            .get(&(row.origin.clone(), hour))
            .copied()
            .unwrap_or_default();
        compare(
            &mut found,
            &place,
            &expected.delay,
            row.flights,
            row.mean_delay,
        );
        let wind =
            (expected.wind_known > 0).then(|| expected.wind_sum / expected.wind_known as f64);
        if !same(wind, row.wind) {
            found.push(format!(
                "wind at {place}: expected {wind:?}, found {:?}",
                row.wind
            ));
        }
    }
    found
}

fn compare(found: &mut Vec<String>, place: &str, delay: &Delay, flights: u64, mean: Option<f64>) {
    differ(
        found,
        &format!("flights of {place}"),
        delay.flights,
        flights,
    );
    if !same(delay.mean(), mean) {
        let expected = delay.mean();
        found.push(format!(
            "mean delay of {place}: expected {expected:?}, found {mean:?}"
        ));
    }
}

/// Means agree to nine digits: both sides add the same numbers, in another order.
fn same(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(1.0),
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth() -> Truth {
        Truth {
            flights: 4,
            filtered: 1,
            on_time: 2,
            delayed: 1,
            ..Truth::default()
        }
    }

    fn check(rows: &[(&str, u64, u8)]) -> Vec<String> {
        let mut outputs = Outputs::default();
        for (topic, row, tidy) in rows {
            let value = format!("{{\"row\":{row},\"tidy\":{tidy}}}");
            outputs.add(topic, 0, value.as_bytes());
        }
        outputs.differences(&truth(), 0)
    }

    #[test]
    fn what_agrees_has_no_differences() {
        let found = check(&[("on_time", 1, 1), ("on_time", 3, 2), ("delayed", 2, 1)]);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn a_lost_row_is_named() {
        let found = check(&[("on_time", 1, 1), ("delayed", 2, 1)]);
        assert_eq!(found[0], "flights on on_time: expected 2, found 1");
    }

    #[test]
    fn a_doubled_row_is_named() {
        let found = check(&[("on_time", 1, 1), ("on_time", 1, 1), ("delayed", 2, 1)]);
        assert!(found.contains(&"rows that came twice: expected 0, found 1".to_owned()));
    }

    #[test]
    fn disorder_and_a_return_to_the_old_version_are_named() {
        let found = check(&[("on_time", 3, 2), ("on_time", 1, 1), ("delayed", 2, 1)]);
        assert!(
            found
                .iter()
                .any(|d| d.starts_with("rows out of order on on_time/0"))
        );
        assert!(
            found
                .iter()
                .any(|d| d.starts_with("returns to version 1 on on_time/0"))
        );
    }
}
