//! Which moments of a run count.
//!
//! Owns: the boundaries. Must not know: connections.

use std::time::Duration;

use crate::plan::{Extent, Plan};

/// Boundaries in nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First send of the warm-up.
    pub begin_ns: u64,
    /// From here on it counts.
    pub measure_ns: u64,
    /// Up to here; `None` where requests are counted.
    pub stop_ns: Option<u64>,
}

pub(super) const SECOND_NS: u64 = 1_000_000_000;

impl Window {
    /// The run that begins at `begin_ns`.
    pub fn new(plan: &Plan, begin_ns: u64) -> Self {
        let measure_ns = begin_ns + nanoseconds(plan.warm_up);
        let stop_ns = match plan.extent {
            Extent::Time(duration) => Some(measure_ns + nanoseconds(duration)),
            Extent::Count(_) => None,
        };
        Self { begin_ns, measure_ns, stop_ns }
    }

    /// Whether a moment counts.
    pub(super) fn holds(&self, at_ns: u64) -> bool {
        at_ns >= self.measure_ns && self.stop_ns.is_none_or(|stop| at_ns < stop)
    }

    /// Whether the moment is past the end.
    pub(super) fn is_past(&self, at_ns: u64) -> bool {
        self.stop_ns.is_some_and(|stop| at_ns >= stop)
    }

    /// End of second `index`, as long as that is not the last one, which lasts until everything is done.
    pub(super) fn end_of_second(&self, index: u32) -> Option<u64> {
        let end = self.measure_ns + (u64::from(index) + 1) * SECOND_NS;
        self.stop_ns.is_none_or(|stop| end < stop).then_some(end)
    }
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_second_has_no_end_of_its_own() {
        let window = Window { begin_ns: 5, measure_ns: 10, stop_ns: Some(10 + 2 * SECOND_NS + 1) };
        assert_eq!(window.end_of_second(0), Some(10 + SECOND_NS));
        assert_eq!(window.end_of_second(1), Some(10 + 2 * SECOND_NS));
        assert_eq!(window.end_of_second(2), None);
        assert!(!window.holds(9) && window.holds(10) && !window.holds(10 + 2 * SECOND_NS + 1));
        assert!(Window { stop_ns: None, ..window }.holds(u64::MAX));
    }
}
