//! Values of flags that are more than a word: positions in a topic.
//!
//! Called by: `args` while parsing, `consume`, `group`.
//! Invariants: what parses has one meaning; times are microseconds since the epoch, UTC.
//! Refuses: anything else, with the four forms named.

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
}
