//! RFC 3339 times and microseconds since the epoch, UTC, in both directions.
//!
//! Called by the JSON codec, and by whoever prints or reads a record's time.
//! Accepts `2013-01-01T05:17:00Z`, a fraction of 1 to 9 digits (cut to microseconds, not
//! rounded), `+01:00` and the like, and a space or lower-case letters for `T` and `Z`.
//! Refuses: a missing zone, leap seconds, days that do not exist.

/// Times this module can write: years 0000 to 9999.
pub const MICROS_MIN: i64 = -62_167_219_200_000_000;
/// The last microsecond of year 9999.
pub const MICROS_MAX: i64 = 253_402_300_799_999_999;

const DAY_SECONDS: i64 = 86_400;
const SECOND_MICROS: i64 = 1_000_000;

/// Reads an RFC 3339 time; `None` where the text is not one.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let b = text.as_bytes();
    if b.len() < 20 || b[4] != b'-' || b[7] != b'-' || b[13] != b':' || b[16] != b':' {
        return None;
    }
    if !matches!(b[10], b'T' | b't' | b' ') {
        return None;
    }
    let (year, month, day) = (digits(&b[0..4])?, digits(&b[5..7])?, digits(&b[8..10])?);
    let (hour, minute, second) = (
        digits(&b[11..13])?,
        digits(&b[14..16])?,
        digits(&b[17..19])?,
    );
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (micros, rest) = fraction(&b[19..])?;
    let zone = zone_seconds(rest)?;
    let days = days_from_civil(year, month, day);
    let seconds = days * DAY_SECONDS + hour * 3600 + minute * 60 + second - zone;
    Some(seconds * SECOND_MICROS + micros)
}

/// Appends the time with microseconds and `Z`. False, with nothing written, for a time outside
/// the years 0000 to 9999, which RFC 3339 cannot say.
pub fn format_rfc3339(micros: i64, out: &mut Vec<u8>) -> bool {
    if !(MICROS_MIN..=MICROS_MAX).contains(&micros) {
        return false;
    }
    let seconds = micros.div_euclid(SECOND_MICROS);
    let (year, month, day) = civil_from_days(seconds.div_euclid(DAY_SECONDS));
    let of_day = seconds.rem_euclid(DAY_SECONDS);
    let micros = micros.rem_euclid(SECOND_MICROS);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    for (at, number) in [
        (0, year / 100),
        (2, year % 100),
        (5, month),
        (8, day),
        (11, of_day / 3600),
        (14, of_day / 60 % 60),
        (17, of_day % 60),
        (20, micros / 10_000),
        (22, micros / 100 % 100),
        (24, micros % 100),
    ] {
        text[at] = b'0' + (number / 10) as u8;
        text[at + 1] = b'0' + (number % 10) as u8;
    }
    out.extend_from_slice(&text);
    true
}

/// The time as text; the bare number of microseconds where RFC 3339 has no form for it.
pub fn rfc3339(micros: i64) -> String {
    let mut out = Vec::with_capacity(27);
    if !format_rfc3339(micros, &mut out) {
        return micros.to_string();
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn digits(bytes: &[u8]) -> Option<i64> {
    let mut number = 0;
    for b in bytes {
        if !b.is_ascii_digit() {
            return None;
        }
        number = number * 10 + i64::from(b - b'0');
    }
    Some(number)
}

/// Reads `.ddd` if there is one: microseconds, and what follows.
fn fraction(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', rest)) = bytes.split_first() else {
        return Some((0, bytes));
    };
    let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if len == 0 || len > 9 {
        return None;
    }
    let kept = len.min(6);
    let micros = digits(&rest[..kept])? * 10_i64.pow(6 - kept as u32);
    Some((micros, &rest[len..]))
}

fn zone_seconds(bytes: &[u8]) -> Option<i64> {
    match bytes {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3600 + minutes * 60;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Hinnant's algorithm: years begin
/// in March, so that the leap day is the last of its year).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * of_era + of_era / 4 - of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &str) {
        let found = parse_rfc3339(text).map_or("none".to_string(), rfc3339);
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn reads_and_refuses() {
        check("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z");
        check("2013-01-01T05:17:00-05:00", "2013-01-01T10:17:00.000000Z");
        check(
            "2000-02-29 23:59:59.1234567z",
            "2000-02-29T23:59:59.123456Z",
        );
        check("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59.500000Z");
        check("0000-01-01T00:00:00Z", "0000-01-01T00:00:00.000000Z");
        check("2013-02-29T00:00:00Z", "none");
        check("2013-01-01T00:00:60Z", "none");
        check("2013-01-01T00:00:00", "none");
        check("2013-01-01", "none");
        check("2013-01-01T00:00:00.Z", "none");
        check("2013-01-01T00:00:00+1:00", "none");
        check("\u{661}\u{662}13-01-01T00:00:00Z", "none");
    }

    proptest! {
        #[test]
        fn round_trip(micros in MICROS_MIN..=MICROS_MAX) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(micros)), Some(micros));
        }
    }
}
