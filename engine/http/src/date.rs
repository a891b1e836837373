//! The `Date` header's value: IMF-fixdate (RFC 9110 section 5.6.7), formatted once per second.
//!
//! Owns: the calendar arithmetic. Must not know: a clock; the caller passes the seconds.

/// Bytes of an IMF-fixdate, `Sun, 06 Nov 1994 08:49:37 GMT`.
pub const DATE_BYTES: usize = 29;

/// 9999-12-31 23:59:59, the last second that four digits of year can name.
const LAST_SECOND: u64 = 253_402_300_799;
const SECONDS_PER_DAY: u64 = 86_400;
const DAY_NAMES: &[u8; 21] = b"SunMonTueWedThuFriSat";
const MONTH_NAMES: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

/// A formatted date and the second that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateCache {
    unix_s: u64,
    text: [u8; DATE_BYTES],
}

impl DateCache {
    /// The date `unix_s` seconds after 1970-01-01 00:00:00 UTC; beyond the year 9999 it stays at its last second.
    #[must_use]
    pub fn new(unix_s: u64) -> Self {
        let unix_s = unix_s.min(LAST_SECOND);
        Self { unix_s, text: format(unix_s) }
    }

    /// Moves to another second; formats only if it differs.
    pub fn set(&mut self, unix_s: u64) {
        if unix_s.min(LAST_SECOND) != self.unix_s {
            *self = Self::new(unix_s);
        }
    }

    /// The second that the text stands for, since 1970 in UTC.
    #[must_use]
    pub fn unix_s(&self) -> u64 {
        self.unix_s
    }

    /// The value of the header, for example `Sun, 06 Nov 1994 08:49:37 GMT`.
    #[must_use]
    pub fn text(&self) -> &[u8; DATE_BYTES] {
        &self.text
    }
}

fn format(unix_s: u64) -> [u8; DATE_BYTES] {
    let days = unix_s / SECONDS_PER_DAY;
    let second = unix_s % SECONDS_PER_DAY;
    let (year, month, day) = civil_from_days(days);
    let mut text = *b"Sun, 00 Jan 0000 00:00:00 GMT";
    // 1970-01-01 was a Thursday, the fifth name of the table.
    text[0..3].copy_from_slice(name(DAY_NAMES, (days + 4) % 7));
    text[5..7].copy_from_slice(&two_digits(day));
    text[8..11].copy_from_slice(name(MONTH_NAMES, month - 1));
    text[12..14].copy_from_slice(&two_digits(year / 100));
    text[14..16].copy_from_slice(&two_digits(year % 100));
    text[17..19].copy_from_slice(&two_digits(second / 3600));
    text[20..22].copy_from_slice(&two_digits(second / 60 % 60));
    text[23..25].copy_from_slice(&two_digits(second % 60));
    text
}

/// Year, month (1 to 12) and day (1 to 31) of a day since 1970, proleptic Gregorian.
///
/// Counts from 0000-03-01, so that the leap day is the last day of a year (Howard Hinnant, "chrono-compatible
/// low-level date algorithms", `civil_from_days`, for days that are not negative).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

fn name(names: &'static [u8], index: u64) -> &'static [u8] {
    let index = usize::try_from(index).expect("an index into a week or a year fits usize");
    &names[index * 3..index * 3 + 3]
}

fn two_digits(value: u64) -> [u8; 2] {
    let value = u8::try_from(value).expect("two digits of a date are below 100");
    [b'0' + value / 10, b'0' + value % 10]
}

#[cfg(test)]
mod tests {
    use super::{DateCache, civil_from_days};

    #[test]
    fn known_dates() {
        let cases: &[(u64, &str)] = &[
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"), // RFC 9110 section 5.6.7
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        for (unix_s, expected) in cases {
            assert_eq!(std::str::from_utf8(DateCache::new(*unix_s).text()), Ok(*expected), "{unix_s}");
        }
    }

    #[test]
    fn every_day_until_2400_follows_the_one_before() {
        let mut expected = (1970, 1, 1);
        for days in 0..157_000 {
            assert_eq!(civil_from_days(days), expected, "day {days}");
            let (year, month, day) = expected;
            let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
            let last = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == last => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
    }

    #[test]
    fn set_moves_forth_and_back() {
        let mut date = DateCache::new(784_111_777);
        date.set(784_111_777);
        assert_eq!(date, DateCache::new(784_111_777));
        date.set(784_111_778);
        assert_eq!((date.unix_s(), &date.text()[17..25]), (784_111_778, &b"08:49:38"[..]));
        date.set(0);
        assert_eq!(date, DateCache::new(0));
    }
}
