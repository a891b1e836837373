//! What is to happen when, on `CLOCK_MONOTONIC`.
//!
//! Owns: the order of deadlines. Must not know: what a timer is for.

use std::collections::BTreeMap;
use std::time::Duration;

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Nanos(pub u64);

impl Nanos {
    /// Now.
    pub(crate) fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let (seconds, nanos) =
            (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
        Self(seconds * 1_000_000_000 + nanos)
    }

    /// Later by this much.
    #[must_use]
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` to this; zero if it is not earlier.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Names a timer, to take it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerId {
    due: Nanos,
    sequence: u64,
}

/// Timers with something to say when they are due. Whoever takes one back keeps their number bounded.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    pending: BTreeMap<TimerId, T>,
    sequence: u64,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { pending: BTreeMap::new(), sequence: 0 }
    }
}

impl<T> Timers<T> {
    /// Starts one.
    pub(crate) fn add(&mut self, due: Nanos, what: T) -> TimerId {
        self.sequence += 1;
        let id = TimerId { due, sequence: self.sequence };
        self.pending.insert(id, what);
        id
    }

    /// Takes one back; one that has fired already is no matter.
    pub(crate) fn cancel(&mut self, id: TimerId) {
        self.pending.remove(&id);
    }

    /// The next one that is due, oldest first.
    pub(crate) fn pop_due(&mut self, now: Nanos) -> Option<T> {
        let (id, _) = self.pending.first_key_value()?;
        if id.due > now {
            return None;
        }
        self.pending.pop_first().map(|(_, what)| what)
    }

    /// When the next one is due.
    pub(crate) fn next_due(&self) -> Option<Nanos> {
        self.pending.first_key_value().map(|(id, _)| id.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_and_only_when_due() {
        let mut timers = Timers::default();
        timers.add(Nanos(20), "b");
        let cancelled = timers.add(Nanos(5), "x");
        timers.add(Nanos(10), "a");
        timers.add(Nanos(20), "c");
        timers.cancel(cancelled);
        assert_eq!(timers.next_due(), Some(Nanos(10)));
        assert_eq!(timers.pop_due(Nanos(9)), None);
        assert_eq!(
            [timers.pop_due(Nanos(20)), timers.pop_due(Nanos(20)), timers.pop_due(Nanos(20))],
            [Some("a"), Some("b"), Some("c")]
        );
        assert_eq!(timers.pop_due(Nanos(99)), None);
        timers.cancel(cancelled);
    }
}
