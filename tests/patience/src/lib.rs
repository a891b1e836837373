//! How long tests wait for something before they say that it hangs.
//!
//! Owns: the factor by which a slow machine's tests wait longer: `FAASTER_TEST_TIME_FACTOR`, which tests/vm/run measures.
//! Must not know: what is waited for. tests/support/wait.py is the same for the Python tests.
#![forbid(unsafe_code)]

use std::sync::LazyLock;
use std::time::Duration;

const VARIABLE: &str = "FAASTER_TEST_TIME_FACTOR";

static FACTOR: LazyLock<u32> = LazyLock::new(|| std::env::var(VARIABLE).map_or(1, |text| parse(&text)));

/// What is ample on an ordinary machine, made ample for this one.
#[must_use]
pub fn patience(ordinary: Duration) -> Duration {
    ordinary * *FACTOR
}

fn parse(text: &str) -> u32 {
    let factor = text.parse().unwrap_or_else(|_| panic!("{VARIABLE} is a whole number, not {text:?}"));
    assert!(factor >= 1, "{VARIABLE} is 1 or more");
    factor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_is_a_whole_number_from_1() {
        assert_eq!(parse("18"), 18);
        for wrong in ["", "0", "-1", "1.5", "fast"] {
            assert!(std::panic::catch_unwind(|| parse(wrong)).is_err(), "{wrong}");
        }
    }
}
