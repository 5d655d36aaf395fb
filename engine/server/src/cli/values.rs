//! Values of flags that are more than a word: positions in a topic, times, sizes.
//!
//! Called by: `args` while parsing, `consume`, `group`, `topic`.
//! Invariants: what parses has one meaning; times are microseconds since the epoch, UTC.
//! Refuses: anything else, with the forms named.

use std::str::FromStr;

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
    chrono::DateTime::parse_from_rfc3339(text)
        .map(|time| From::Time(time.timestamp_micros()))
        .map_err(|_| {
            "write earliest, latest, an offset such as 42, or a time such as 2026-01-31T12:00:00Z"
                .to_string()
        })
}

/// A limit that a topic may have or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<u64>);

const TIME_UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// A time such as `12h` in milliseconds, or `none`.
pub fn parse_time_limit(text: &str) -> Result<Limit, String> {
    let wrong = || "write a time such as 90s, 12h or 14d, or none to keep everything".to_string();
    limit(text, TIME_UNITS).ok_or_else(wrong)
}

/// A size such as `10GiB` in bytes, or `none`.
pub fn parse_size_limit(text: &str) -> Result<Limit, String> {
    let wrong = || "write a size such as 500MiB or 10GiB, or none to keep everything".to_string();
    limit(text, SIZE_UNITS).ok_or_else(wrong)
}

fn limit(text: &str, units: &[(&str, u64)]) -> Option<Limit> {
    if text == "none" {
        return Some(Limit(None));
    }
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    let number: u64 = number.parse().ok()?;
    number.checked_mul(*factor).map(|value| Limit(Some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
