//! Values of flags that are more than a word: positions in a topic, times, sizes.
//!
//! Called by: `args` while parsing, `consume`, `group`, `produce`, `topic`.
//! Invariants: what parses has one meaning; times are microseconds since the epoch, UTC.
//! Refuses: anything else, with the forms named.

use std::str::FromStr;
use std::time::Duration;

use crate::config::keys::{parse_bytes, parse_millis};

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Earliest,
    Latest,
    Offset(u64),
    /// microseconds since the epoch
    Time(i64),
}

/// `earliest`, `latest`, an offset, or an RFC 3339 time.
pub fn parse_from(text: &str) -> Result<From, String> {
    match text {
        "earliest" => return Ok(From::Earliest),
        "latest" => return Ok(From::Latest),
        _ => {}
    }
    if let Ok(offset) = u64::from_str(text) {
        return Ok(From::Offset(offset));
    }
    parse_moment(text).map(From::Time).map_err(|_| {
        "write earliest, latest, an offset such as 42, or a time such as 2026-01-31T12:00:00Z"
            .to_string()
    })
}

/// An RFC 3339 time in microseconds since the epoch.
pub fn parse_moment(text: &str) -> Result<i64, String> {
    chrono::DateTime::parse_from_rfc3339(text)
        .map(|time| time.timestamp_micros())
        .map_err(|_| "write a time such as 2026-01-31T12:00:00Z".to_string())
}

/// A limit that a topic may have or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<u64>);

/// A time such as `12h` in milliseconds, or `none`.
pub fn parse_time_limit(text: &str) -> Result<Limit, String> {
    let wrong = || "write a time such as 90s, 12h or 14d, or none to keep everything".to_string();
    limit(text, parse_millis).ok_or_else(wrong)
}

/// A size such as `10GiB` in bytes, or `none`.
pub fn parse_size_limit(text: &str) -> Result<Limit, String> {
    let wrong = || "write a size such as 500MiB or 10GiB, or none to keep everything".to_string();
    limit(text, parse_bytes).ok_or_else(wrong)
}

fn limit(text: &str, parse: fn(&str) -> Option<u64>) -> Option<Limit> {
    if text == "none" {
        return Some(Limit(None));
    }
    with_unit(text, parse).map(|value| Limit(Some(value)))
}

/// A time such as `30s`.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    with_unit(text, parse_millis)
        .map(Duration::from_millis)
        .ok_or_else(|| "write a number with ms, s, m, h or d, such as 30s".to_string())
}

/// On a command line a number alone could mean anything.
fn with_unit(text: &str, parse: fn(&str) -> Option<u64>) -> Option<u64> {
    let has_unit = text.ends_with(|last: char| last.is_ascii_alphabetic());
    parse(text).filter(|_| has_unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_time("0s"), Ok(Duration::ZERO));
        for wrong in ["", "5", "s", "-1s", "1.5s", "5 parsecs", "99999999999999d"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_four_forms() {
        assert_eq!(parse_from("earliest"), Ok(From::Earliest));
        assert_eq!(parse_from("latest"), Ok(From::Latest));
        assert_eq!(parse_from("42"), Ok(From::Offset(42)));
        assert_eq!(
            parse_from("1970-01-01T00:00:01Z"),
            Ok(From::Time(1_000_000))
        );
        assert_eq!(
            parse_from("1970-01-01T01:00:00.000001+01:00"),
            Ok(From::Time(1))
        );
        assert_eq!(parse_moment("1970-01-01T00:00:01Z"), Ok(1_000_000));
        assert!(parse_moment("42").unwrap_err().starts_with("write a time"));
        for wrong in ["", "-1", "yesterday", "1970-01-01", "Latest"] {
            assert!(
                parse_from(wrong).unwrap_err().starts_with("write earliest"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn limits() {
        assert_eq!(parse_time_limit("90s"), Ok(Limit(Some(90_000))));
        assert_eq!(parse_time_limit("14 d"), Ok(Limit(Some(1_209_600_000))));
        assert_eq!(parse_time_limit("none"), Ok(Limit(None)));
        assert_eq!(parse_size_limit("10GiB"), Ok(Limit(Some(10 << 30))));
        for wrong in ["", "10", "-1s", "s", "1w", "99999999999999999999d", "None"] {
            let refused = parse_time_limit(wrong).unwrap_err();
            assert!(refused.starts_with("write a time"), "{wrong}");
            assert!(parse_size_limit(wrong).is_err(), "{wrong}");
        }
    }
}
