//! Durations and instants as people write and read them.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

const UNITS: [(char, u64); 3] = [('h', 3600), ('m', 60), ('s', 1)];

/// Reads `90` (seconds), `90s`, `5m` or `1h30m`: each unit at most once, the largest first.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (mut total, mut number, mut units) = (0_u64, None::<u64>, UNITS.iter());
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit.into())?);
        } else {
            let (_, seconds) = units.find(|(unit, _)| *unit == c)?;
            total = total.checked_add(number.take()?.checked_mul(*seconds)?)?;
        }
    }
    match number {
        None => (!text.is_empty()).then_some(Duration::from_secs(total)),
        Some(seconds) => (units.len() == UNITS.len()).then_some(Duration::from_secs(seconds)),
    }
}

/// Returns `ms` in whole seconds as `parse_duration` reads it.
pub(crate) fn spell_duration(ms: u64) -> String {
    let mut rest = ms / 1000;
    let mut text = String::new();
    for (unit, seconds) in UNITS {
        if rest >= seconds || (text.is_empty() && seconds == 1) {
            // Writing to a string cannot fail.
            write!(text, "{}{unit}", rest / seconds).unwrap_or_default();
            rest %= seconds;
        }
    }
    text
}

/// Returns the wall clock's time in seconds since 1970, as far as it is not before that.
#[expect(
    clippy::disallowed_methods,
    reason = "the agent tells when things end, not how soon; what hangs on it is a line for people, no decision"
)]
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// First and last second that four digits of a year can show.
const YEARS: (i64, i64) = (-62_167_219_200, 253_402_300_799);

/// Returns the RFC 3339 form, in UTC, of `seconds` since 1970.
pub(crate) fn rfc3339(seconds: i64) -> String {
    let seconds = seconds.clamp(YEARS.0, YEARS.1);
    let (year, month, day) = civil_date(seconds.div_euclid(86_400));
    let time = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Returns year, month and day, counting in eras of 400 years whose years begin in March, so that
/// a leap day is the last of its year.
fn civil_date(days_since_1970: i64) -> (i64, i64, i64) {
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_documented() {
        for (text, seconds) in
            [("0", 0), ("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("2h1s", 7201)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_not_a_duration() {
        for text in
            ["", "m", "1x", "1h30", "30m1h", "5m5m", "-1", "1.5h", " 1", "1 h", "99999999999999999999"]
        {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
        assert_eq!(parse_duration(&format!("{}h", u64::MAX)), None);
    }

    #[test]
    fn spelled_duration_is_read_back() {
        for (ms, text) in
            [(0, "0s"), (999, "0s"), (6000, "6s"), (5_400_000, "1h30m"), (43_164_000, "11h59m24s")]
        {
            assert_eq!(spell_duration(ms), text);
            assert_eq!(parse_duration(text), Some(Duration::from_secs(ms / 1000)));
        }
    }

    #[test]
    fn times_are_rfc3339_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_772_323_199, "2026-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (i64::MAX, "9999-12-31T23:59:59Z"),
            (i64::MIN, "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
