//! Instants as the log has them, and as people name them.

use std::fmt;

const DAY: i64 = 86_400;
/// First and last second that four digits of a year can show.
const YEARS: (i64, i64) = (-62_167_219_200, 253_402_300_799);

/// Returns the RFC 3339 form, in UTC, of `seconds` since 1970.
pub fn rfc3339(seconds: i64) -> String {
    let seconds = seconds.clamp(YEARS.0, YEARS.1);
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let time = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A point in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So many seconds before now.
    Ago(i64),
    /// In seconds since 1970.
    At(i64),
}

/// What is no point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTime;

impl fmt::Display for NoTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("give a time such as 2026-11-24T03:30:05Z or 2026-11-24, in UTC, or how long ago: 90s, 5m, 12h, 7d")
    }
}

impl std::error::Error for NoTime {}

impl Since {
    /// Returns the point in seconds since 1970.
    pub fn from(self, now: i64) -> i64 {
        match self {
            Self::Ago(seconds) => now.saturating_sub(seconds),
            Self::At(seconds) => seconds,
        }
    }
}

impl std::str::FromStr for Since {
    type Err = NoTime;

    fn from_str(text: &str) -> Result<Self, NoTime> {
        ago(text).map(Self::Ago).or_else(|| instant(text).map(Self::At)).ok_or(NoTime)
    }
}

fn ago(text: &str) -> Option<i64> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", DAY)];
    let (number, seconds) =
        units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    digits(number, 1..=9)?.checked_mul(*seconds)
}

/// Reads `2026-11-24` or `2026-11-24T03:30:05Z`, with or without a fraction, which does not count.
fn instant(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00Z"));
    let [year, month, day] = parts(date, '-', [4, 2, 2])?;
    let time = time.strip_suffix(['Z', 'z'])?;
    let [hour, minute, second] = parts(time.split('.').next()?, ':', [2, 2, 2])?;
    let fits =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    fits.then(|| days(year, month, day) * DAY + hour * 3600 + minute * 60 + second)
}

fn parts(text: &str, between: char, lens: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(between);
    let mut numbers = [0; 3];
    for (number, len) in numbers.iter_mut().zip(lens) {
        *number = digits(parts.next()?, len..=len)?;
    }
    parts.next().is_none().then_some(numbers)
}

fn digits(text: &str, len: std::ops::RangeInclusive<usize>) -> Option<i64> {
    let all = len.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| all)
}

/// Returns year, month and day. Counted in eras of 400 years whose years begin in March, so that a leap day
/// is the last of its year.
fn date(days_since_1970: i64) -> (i64, i64, i64) {
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The reverse of [`date`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for seconds in [0, 951_782_400, 1_772_323_199, 1_795_491_005, 4_107_542_400] {
            assert_eq!(rfc3339(seconds).parse(), Ok(Since::At(seconds)), "{}", rfc3339(seconds));
        }
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
    }

    #[test]
    fn a_day_and_a_time_ago_are_points_in_time() {
        assert_eq!("2000-02-29".parse(), Ok(Since::At(951_782_400)));
        assert_eq!("2000-02-29 00:00:01.5Z".parse(), Ok(Since::At(951_782_401)));
        assert_eq!("90s".parse(), Ok(Since::Ago(90)));
        assert_eq!(Since::Ago(60).from(100), 40);
        for wrong in ["", "s", "-5m", "yesterday", "2000-2-29", "2000-13-01", "2000-02-29T00:00", "24:00"] {
            assert_eq!(wrong.parse::<Since>(), Err(NoTime), "{wrong}");
        }
    }
}
