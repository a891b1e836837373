//! A network namespace that is ready before a claim waits for it.
//!
//! Owns: when there is one. Must not know: how it is made, what it is given to.
//!
//! To make one takes as long as all else that comes before a container's process. Where a claim has waited for its
//! container, another will; so one is made when the first has its own, and kept while such claims come. There is never
//! more than one: it costs kernel memory, and nobody has used it, so it is anybody's.

use std::time::Instant;

use faaster_limits::{NETWORK_SPARE_AFTER, NETWORK_SPARE_FOR};

/// One thing, or none.
#[derive(Debug)]
pub(super) struct Spare<T> {
    kept: Option<T>,
    /// When it is to be made.
    due: Option<Instant>,
    /// When something was last wanted.
    wanted: Option<Instant>,
}

impl<T> Spare<T> {
    pub(super) fn none() -> Self {
        Self { kept: None, due: None, wanted: None }
    }

    /// What there is, for somebody who wants it now.
    pub(super) fn take(&mut self, now: Instant) -> Option<T> {
        self.wanted = Some(now);
        self.due = Some(now + NETWORK_SPARE_AFTER);
        self.kept.take()
    }

    /// When [`Self::is_due`] is to be asked next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether one is to be made now, which is then up to the caller.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now).is_some() && self.kept.is_none()
    }

    pub(super) fn put(&mut self, fresh: T) {
        self.kept = Some(fresh);
    }

    /// Lets go of what nobody has wanted for long.
    pub(super) fn age(&mut self, now: Instant) {
        if self.wanted.is_none_or(|wanted| now.duration_since(wanted) >= NETWORK_SPARE_FOR) {
            self.kept = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_made_after_each_that_was_wanted_and_kept_while_such_come() {
        let begin = Instant::now();
        let mut spare = Spare::none();
        assert!(!spare.is_due(begin), "nobody has wanted one");
        assert_eq!(spare.take(begin), None);
        let due = spare.due().expect("the next is to be made");
        assert!(!spare.is_due(begin));
        assert!(spare.is_due(due));
        assert!(!spare.is_due(due), "it is said once");
        spare.put('a');
        spare.age(begin + NETWORK_SPARE_FOR / 2);
        assert_eq!(spare.take(begin + NETWORK_SPARE_FOR / 2), Some('a'));
        assert!(spare.is_due(begin + NETWORK_SPARE_FOR), "another for the next");
        spare.put('b');
        spare.age(begin + NETWORK_SPARE_FOR);
        spare.age(begin + NETWORK_SPARE_FOR * 3 / 2);
        assert_eq!(spare.take(begin + NETWORK_SPARE_FOR * 2), None, "it was let go");
    }

    #[test]
    fn there_is_one_at_most() {
        let begin = Instant::now();
        let mut spare = Spare::none();
        spare.take(begin);
        spare.put('a');
        assert!(!spare.is_due(begin + NETWORK_SPARE_AFTER), "there is one");
    }
}
