//! What a typed value means: durations, sizes, switches, numbers.
//!
//! Owns: the spelling of values. Must not know: which setting a value is for, beyond the bounds that it is given.

use std::time::Duration;

/// # Errors
/// A sentence on what is expected.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// A whole number within bounds, both included.
///
/// # Errors
/// A sentence on what is expected.
pub(crate) fn number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let range = || format!("must be a whole number from {least} to {most}");
    text.parse().ok().filter(|number| (least..=most).contains(number)).ok_or_else(range)
}

/// `500ms`, `30s`, `5m` or `2h`, at most `most`.
///
/// # Errors
/// A sentence on what is expected.
pub(crate) fn duration(text: &str, most: Duration) -> Result<Duration, String> {
    let expected = || "must be a duration such as 500ms, 30s, 5m or 2h".to_owned();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let count: u64 = text[..digits].parse().map_err(|_| expected())?;
    let unit_ms: u64 = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(expected()),
    };
    let duration = count.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(expected)?;
    if duration > most { Err(format!("must not be longer than {}s", most.as_secs())) } else { Ok(duration) }
}

/// How a [`duration`] is written.
pub(crate) fn show_duration(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

/// `512MiB`, `2GiB` (also `512M`, `2G`), a count of bytes, or `80%` of `whole_bytes`.
///
/// # Errors
/// A sentence on what is expected.
pub(crate) fn size(text: &str, whole_bytes: u64) -> Result<u64, String> {
    let expected = || "must be a size such as 512MiB, 2GiB or 80%".to_owned();
    if let Some(percent) = text.strip_suffix('%') {
        let percent: u64 = percent.parse().map_err(|_| expected())?;
        return if (1..=100).contains(&percent) {
            Ok(whole_bytes / 100 * percent)
        } else {
            Err("must be 1% to 100% of the machine's memory".to_owned())
        };
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let count: u64 = text[..digits].parse().map_err(|_| expected())?;
    let shift = match &text[digits..] {
        "" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return Err(expected()),
    };
    count.checked_mul(1 << shift).ok_or_else(expected)
}

/// How a [`size`] is written, to the nearest MiB.
pub(crate) fn show_size(bytes: u64) -> String {
    format!("{}MiB", bytes >> 20)
}

/// A factor from 1 to 100, with or without decimals.
///
/// # Errors
/// A sentence on what is expected.
pub(crate) fn factor(text: &str) -> Result<f64, String> {
    let expected = || "must be a number from 1 to 100".to_owned();
    text.parse().ok().filter(|factor| (1.0..=100.0).contains(factor)).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        let most = Duration::from_secs(3600);
        assert_eq!(duration("500ms", most), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5m", most), Ok(Duration::from_secs(300)));
        for bad in ["", "5", "s", "-1s", "1.5s", "2h", "99999999999999999h", "1 s"] {
            assert!(duration(bad, most).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_bytes_binary_units_or_a_part() {
        assert_eq!(size("512MiB", 0), Ok(512 << 20));
        assert_eq!(size("2G", 0), Ok(2 << 30));
        assert_eq!(size("123", 0), Ok(123));
        assert_eq!(size("80%", 1000), Ok(800));
        for bad in ["", "MiB", "0%", "101%", "1TB", "99999999999999999999G", "-5M"] {
            assert!(size(bad, 1000).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_and_factors_keep_their_bounds() {
        assert_eq!(number("64", 1, 64), Ok(64));
        assert!(number("65", 1, 64).is_err() && number("0", 1, 64).is_err() && number("x", 0, 1).is_err());
        assert_eq!(factor("1.5"), Ok(1.5));
        assert!(factor("NaN").is_err() && factor("0.5").is_err() && factor("101").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,12}") {
            drop((duration(&text, Duration::MAX), size(&text, u64::MAX), factor(&text), number(&text, 0, 9)));
        }
    }
}
