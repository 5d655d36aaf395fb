//! Times as text: RFC 3339, UTC, microseconds.
//!
//! Called by: `record`, listings, the HTTP door.
//! Invariants: six digits after the point always, so that lines sort as text.
//! Refuses: what RFC 3339 cannot say (years outside 0 to 9999) is printed as the number.

use chrono::{DateTime, SecondsFormat, Utc};

/// `2013-01-01T10:15:00.000000Z` from microseconds since the epoch.
pub fn rfc3339_us(time_us: i64) -> String {
    match DateTime::<Utc>::from_timestamp_micros(time_us) {
        Some(time) if (0..=9999).contains(&chrono::Datelike::year(&time)) => {
            time.to_rfc3339_opts(SecondsFormat::Micros, true)
        }
        _ => time_us.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let check = |time_us, expect: &str| assert_eq!(rfc3339_us(time_us), expect);
        check(0, "1970-01-01T00:00:00.000000Z");
        check(1_357_035_300_000_001, "2013-01-01T10:15:00.000001Z");
        check(-1, "1969-12-31T23:59:59.999999Z");
        check(i64::MAX, "9223372036854775807");
        check(i64::MIN, "-9223372036854775808");
    }
}
