//! When a process that died is started again, and when not any more.
//!
//! Owns: the count of quick deaths. Must not know: processes, clocks.

use std::time::Duration;

/// A process that lived this long was well: its next death is the first again.
pub(crate) const WELL_AFTER: Duration = Duration::from_secs(30);
/// Deaths in a row, each sooner than [`WELL_AFTER`], after which the engine gives up.
pub(crate) const QUICK_DEATHS_MAX: u32 = 8;
/// Wait after the second death in a row; doubles with each more.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Longest wait.
const DELAY_MAX: Duration = Duration::from_secs(5);

/// What to do about a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    RestartAfter(Duration),
    GiveUp,
}

/// Deaths of one child.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Restarts {
    quick_deaths: u32,
}

impl Restarts {
    /// The child died after it had lived for `lived`.
    pub(crate) fn on_death(&mut self, lived: Duration) -> Decision {
        if lived >= WELL_AFTER {
            self.quick_deaths = 0;
        }
        self.quick_deaths += 1;
        assert!(self.quick_deaths <= QUICK_DEATHS_MAX, "nothing is restarted after giving up");
        match self.quick_deaths {
            QUICK_DEATHS_MAX => Decision::GiveUp,
            // The first death costs no time: what was in flight is lost anyway, what comes next must not be.
            1 => Decision::RestartAfter(Duration::ZERO),
            deaths => Decision::RestartAfter((FIRST_DELAY * 2_u32.pow(deaths - 2)).min(DELAY_MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_end() {
        let mut restarts = Restarts::default();
        let mut delays = Vec::new();
        while let Decision::RestartAfter(delay) = restarts.on_death(Duration::from_secs(1)) {
            delays.push(delay.as_millis());
        }
        assert_eq!(delays, [0, 100, 200, 400, 800, 1600, 3200]);
    }

    #[test]
    fn a_long_life_forgives() {
        let mut restarts = Restarts::default();
        for _ in 0..100 {
            assert_eq!(restarts.on_death(WELL_AFTER), Decision::RestartAfter(Duration::ZERO));
        }
    }
}
