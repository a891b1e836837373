//! Pauses between tries to boot a runtime that does not boot.
//!
//! Owns: the count of failures in a row. Must not know: why it failed.

use faaster_limits::{BOOT_BACKOFF_MAX, BOOT_BACKOFF_MIN};

use crate::timers::Nanos;

/// One runtime's.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Backoff {
    failures: u32,
    not_before: Option<Nanos>,
}

impl Backoff {
    /// One more failure: the pause doubles, up to [`BOOT_BACKOFF_MAX`].
    pub(crate) fn failed(&mut self, now: Nanos) {
        let pause = BOOT_BACKOFF_MIN.saturating_mul(1 << self.failures.min(20)).min(BOOT_BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now.after(pause));
    }

    /// It booted.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// When the next try may be, if not now.
    pub(crate) fn blocked_until(&self, now: Nanos) -> Option<Nanos> {
        self.not_before.filter(|until| *until > now)
    }

    /// Failures since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_end_with_a_success() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.blocked_until(Nanos(0)), None);
        let mut before = std::time::Duration::ZERO;
        for _ in 0..40 {
            backoff.failed(Nanos(0));
            let pause = backoff.blocked_until(Nanos(0)).unwrap().since(Nanos(0));
            assert!(pause >= before && pause <= BOOT_BACKOFF_MAX);
            before = pause;
        }
        assert_eq!(before, BOOT_BACKOFF_MAX);
        assert_eq!(backoff.blocked_until(Nanos(0).after(BOOT_BACKOFF_MAX)), None);
        backoff.succeeded();
        assert_eq!((backoff.failures(), backoff.blocked_until(Nanos(0))), (0, None));
    }
}
