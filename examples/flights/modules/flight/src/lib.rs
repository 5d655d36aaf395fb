//! What a flight is: the row as the airline reported it, and the row as we want to ask about it.
//!
//! Called by the modules `tidy` and `tidy-v2`, to which both rows are typed columns, and by a
//! benchmark, to which they are JSON; plain Rust, tested with plain `cargo test`.
//! Refuses a row that lacks a needed field or whose number, month or hour makes no sense: the
//! caller turns the fault into a dead letter. "NA" and the empty string mean "not known".

use rustmq::{Row, Timestamp};
use serde::{Deserialize, Serialize};

/// A row of `flights.csv`: every field is text but the number of the line.
#[derive(Debug, Deserialize, Row)]
pub struct RawFlight<'a> {
    pub row: i64,
    pub month: &'a str,
    pub dep_time: &'a str,
    pub dep_delay: &'a str,
    pub arr_delay: &'a str,
    pub carrier: &'a str,
    pub flight: &'a str,
    pub tailnum: &'a str,
    pub origin: &'a str,
    pub dest: &'a str,
    pub distance: &'a str,
    pub minute: &'a str,
    pub time_hour: &'a str,
}

/// A flight with types: what was missing is null, what was local is UTC.
#[derive(Debug, Serialize, Row, PartialEq)]
pub struct Flight<'a> {
    /// Line of the source, so that order and completeness can be checked at the other end.
    pub row: i64,
    /// Version of the module that made this row.
    pub tidy: i64,
    pub carrier: &'a str,
    pub flight: i64,
    pub tailnum: Option<&'a str>,
    pub origin: &'a str,
    pub dest: &'a str,
    /// Month of the scheduled departure at the airport, 1 to 12.
    pub month: i64,
    pub cancelled: bool,
    /// Scheduled and real departure, UTC.
    pub sched_dep: Timestamp,
    pub dep: Option<Timestamp>,
    /// Minutes late at departure and arrival; negative is early.
    pub dep_delay: Option<f64>,
    pub arr_delay: Option<f64>,
    /// Minutes made up in the air; from version 2 on.
    pub gain: Option<f64>,
    /// Miles.
    pub distance: f64,
}

/// Why a row cannot become a flight.
#[derive(Debug, PartialEq)]
pub struct Fault {
    pub code: &'static str,
    pub message: String,
}

/// Types one row; `tidy` is the version of the module that asks.
pub fn tidy<'a>(raw: &RawFlight<'a>, tidy: i64) -> Result<Flight<'a>, Fault> {
    let sched_dep = scheduled(raw.time_hour, number("minute", raw.minute)?)?;
    let dep_delay = number_or_null("dep_delay", raw.dep_delay)?;
    let month = number("month", raw.month)?;
    if !(1..=12).contains(&month) {
        return Err(fault("range", format!("month is {month}, not 1 to 12")));
    }
    Ok(Flight {
        row: raw.row,
        tidy,
        carrier: text("carrier", raw.carrier)?,
        flight: number("flight", raw.flight)?,
        tailnum: known(raw.tailnum),
        origin: text("origin", raw.origin)?,
        dest: text("dest", raw.dest)?,
        month,
        cancelled: known(raw.dep_time).is_none(),
        sched_dep,
        dep: dep_delay.map(|minutes| sched_dep.plus_minutes(minutes)),
        dep_delay: dep_delay.map(|d| d as f64),
        arr_delay: number_or_null("arr_delay", raw.arr_delay)?.map(|d| d as f64),
        gain: None,
        distance: number("distance", raw.distance)? as f64,
    })
}

/// `time_hour` is the hour of the scheduled departure, already in UTC.
fn scheduled(time_hour: &str, minute: i64) -> Result<Timestamp, Fault> {
    let hour: Timestamp = time_hour
        .parse()
        .map_err(|e| fault("time", format!("time_hour: {e}")))?;
    if !(0..60).contains(&minute) {
        return Err(fault("range", format!("minute is {minute}, not 0 to 59")));
    }
    Ok(hour.plus_minutes(minute))
}

fn known(text: &str) -> Option<&str> {
    (!text.is_empty() && text != "NA").then_some(text)
}

fn text<'a>(name: &str, value: &'a str) -> Result<&'a str, Fault> {
    known(value).ok_or_else(|| fault("missing", format!("{name} is missing")))
}

fn number(name: &str, value: &str) -> Result<i64, Fault> {
    number_or_null(name, value)?.ok_or_else(|| fault("missing", format!("{name} is missing")))
}

fn number_or_null(name: &str, value: &str) -> Result<Option<i64>, Fault> {
    let parse = |v: &str| {
        v.parse()
            .map_err(|_| fault("number", format!("{name} is {v:?}, not a whole number")))
    };
    known(value).map(parse).transpose()
}

fn fault(code: &'static str, message: String) -> Fault {
    Fault { code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> RawFlight<'static> {
        RawFlight {
            row: 7,
            month: "12",
            dep_time: "1",
            dep_delay: "2",
            arr_delay: "-3",
            carrier: "UA",
            flight: "1545",
            tailnum: "NA",
            origin: "EWR",
            dest: "IAH",
            distance: "1400",
            minute: "59",
            time_hour: "2014-01-01T04:00:00Z",
        }
    }

    #[test]
    fn local_times_become_utc_and_missing_values_become_null() {
        let row = raw();
        let flight = tidy(&row, 1).unwrap();
        assert_eq!(flight.sched_dep, "2014-01-01T04:59:00Z".parse().unwrap());
        assert_eq!(flight.dep, "2014-01-01T05:01:00Z".parse().ok());
        assert_eq!((flight.tailnum, flight.month), (None, 12));
    }

    #[test]
    fn a_flight_that_never_left_is_cancelled() {
        let never = RawFlight {
            dep_time: "NA",
            dep_delay: "NA",
            ..raw()
        };
        let flight = tidy(&never, 1).unwrap();
        assert_eq!(
            (flight.cancelled, flight.dep, flight.dep_delay),
            (true, None, None)
        );
    }

    #[test]
    fn nonsense_is_refused_with_its_name() {
        let month = tidy(
            &RawFlight {
                month: "13",
                ..raw()
            },
            1,
        )
        .unwrap_err();
        assert_eq!(month.message, "month is 13, not 1 to 12");
        let delay = tidy(
            &RawFlight {
                dep_delay: "late",
                ..raw()
            },
            1,
        )
        .unwrap_err();
        assert_eq!(delay.message, "dep_delay is \"late\", not a whole number");
    }
}
