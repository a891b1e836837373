//! Times and ids in the forms that answers have.
//!
//! Owns: RFC 3339 in UTC, random UUIDs. Must not know: what they stand for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Since 1970; zero if the clock is before that.
pub(crate) fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `2026-11-22T12:05:38Z`
pub(crate) fn rfc3339(unix_secs: u64) -> String {
    let (year, month, day) = civil(unix_secs / 86_400);
    let second = unix_secs % 86_400;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// `2026-11-22T12:05:36.312106298Z`, as Go's time marshals.
pub(crate) fn rfc3339_nano(since_1970: Duration) -> String {
    let whole = rfc3339(since_1970.as_secs());
    let fraction = format!(".{:09}", since_1970.subsec_nanos());
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{}{fraction}Z", whole.trim_end_matches('Z'))
}

/// Year, month, day of a day since 1970-01-01 (proleptic Gregorian; Hinnant's days-from-civil, inverted).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// A random UUID (RFC 9562, version 4).
pub(crate) fn uuid() -> String {
    let mut bytes = [0_u8; 16];
    // Blocks only before the kernel's generator is seeded, once after boot; 16 bytes are never cut short.
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    if filled.is_err() {
        bytes = unix_now().as_nanos().to_le_bytes();
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(rfc3339(1_795_349_138), "2026-11-22T12:05:38Z");
        assert_eq!(rfc3339(4_102_444_799), "2099-12-31T23:59:59Z");
        assert_eq!(rfc3339_nano(Duration::new(1_795_349_136, 312_106_298)), "2026-11-22T12:05:36.312106298Z");
        assert_eq!(rfc3339_nano(Duration::new(0, 500_000_000)), "1970-01-01T00:00:00.5Z");
        assert_eq!(rfc3339_nano(Duration::ZERO), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn uuids_differ_and_have_their_form() {
        let (one, two) = (uuid(), uuid());
        assert_ne!(one, two);
        assert_eq!((one.len(), &one[14..15]), (36, "4"));
        assert!(matches!(one.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
    }
}
