//! Dates as services write them.

/// Days before the first of each month, in a year that is no leap year.
const DAYS_BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

const SECONDS_OF_A_DAY: i64 = 24 * 60 * 60;

/// The first second of the year 10000, which has no place in four digits.
const END: i64 = 253_402_300_800;

/// Reads a date and time of RFC 3339 as seconds since 1970; also the form of IBM Cloud's IAM, which has
/// no seconds and no colon in its zone: `2027-01-01T00:00+0000`.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (date, rest) = text.trim().split_at_checked(10)?;
    let time = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, zone) = time.split_at(time.find(['Z', 'z', '+', '-'])?);
    Some(day(date)? * SECONDS_OF_A_DAY + second_of_day(clock)? - offset(zone)?)
}

/// Returns the time as IAM wants it, in UTC; `None` for one before 1970 or after 9999.
pub(crate) fn iam(seconds: i64) -> Option<String> {
    if !(0..END).contains(&seconds) {
        return None;
    }
    let (day, second) = (seconds / SECONDS_OF_A_DAY, seconds % SECONDS_OF_A_DAY);
    // No year is longer than 366 days, so the search begins at the year itself or before it.
    let year = (1970 + day / 366..).take_while(|&year| first_of(year, 1) <= day).last()?;
    let month = (1..=12).rev().find(|&month| first_of(year, month) <= day)?;
    let day_of_month = day - first_of(year, month) + 1;
    let (hour, minute) = (second / 3600, second / 60 % 60);
    Some(format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}+0000"))
}

/// Returns a count of seconds without its fraction, if it is a time that can be written.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked, and fractions are dropped")]
pub(crate) fn whole_seconds(seconds: f64) -> Option<i64> {
    (1.0..253_402_300_800.0).contains(&seconds).then_some(seconds as i64)
}

fn day(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let (year, month, day) =
        (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day) && parts.next().is_none();
    is_date.then(|| first_of(year, month) + day - 1)
}

/// Fractions of a second are left out.
fn second_of_day(clock: &str) -> Option<i64> {
    let clock = clock.split('.').next()?;
    let mut parts = clock.split(':');
    let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let second = parts.next().map_or(Some(0), |part| digits(part, 2))?;
    // A leap second has the number 60.
    let is_time = hour < 24 && minute < 60 && second <= 60 && parts.next().is_none();
    is_time.then_some(hour * 3600 + minute * 60 + second)
}

fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, rest) = zone.split_at_checked(1)?;
    let (hour, minute) = rest.split_at_checked(2)?;
    let minute = minute.strip_prefix(':').unwrap_or(minute);
    let seconds = digits(hour, 2)? * 3600 + digits(minute, 2)? * 60;
    Some(if sign == "-" { -seconds } else { seconds })
}

fn digits(text: &str, len: usize) -> Option<i64> {
    let is_number = text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Returns the days from 1970 to the first of this month.
fn first_of(year: i64, month: i64) -> i64 {
    let leap_years_until = |year: i64| year / 4 - year / 100 + year / 400;
    let is_leap = leap_years_until(year) > leap_years_until(year - 1);
    let before = usize::try_from(month - 1).ok().and_then(|at| DAYS_BEFORE.get(at)).copied();
    let years = 365 * (year - 1970) + leap_years_until(year - 1) - leap_years_until(1969);
    years + before.unwrap_or_default() + i64::from(is_leap && month > 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_rfc_3339_and_as_iam_writes_them() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2027-01-01T00:00+0000", 1_798_761_600),
            ("2024-02-29t12:30:15.75z", 1_709_209_815),
            ("2024-12-31 23:59:60+00:00", 1_735_689_600),
            ("2026-11-24T15:00:00+05:30", 1_795_512_600),
            ("2026-11-24T04:00-05:30", 1_795_512_600),
            ("2000-03-01T00:00Z", 951_868_800),
        ] {
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for bad in [
            "",
            "2027-01-01",
            "2027-01-01T00:00",
            "2027-13-01T00:00Z",
            "2027-00-01T00:00Z",
            "2027-01-32T00:00Z",
            "2027-01-01T24:00Z",
            "2027-01-01T00:60Z",
            "2027-01-01T00:00:00:00Z",
            "2027-01-01T00:00+1",
            "27-01-01-xT00:00Z",
            "2027-1--1T00:00Z",
            "äääääT00:00Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(iam(1_709_209_815).as_deref(), Some("2024-02-29T12:30+0000"));
        for day in 0..366 * 40 {
            let seconds = day * SECONDS_OF_A_DAY + 13 * 3600;
            assert_eq!(iam(seconds).as_deref().and_then(parse), Some(seconds));
        }
        assert_eq!(iam(END - 1).as_deref(), Some("9999-12-31T23:59+0000"));
        assert_eq!((iam(-1), iam(END)), (None, None));
    }
}
