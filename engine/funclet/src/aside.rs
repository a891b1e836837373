//! Boots that stand aside while a claimed container comes to its first answer.
//!
//! Owns: which do, and for how long at most. Must not know: how a container is made to stand aside.

use faaster_limits::BOOT_ASIDE_MAX;
use faaster_protocol::funclet::{Generation, SlotId};

use crate::timers::Nanos;

/// See the module.
#[derive(Debug)]
pub(crate) struct Aside {
    boots: Vec<(SlotId, Generation)>,
    alarm: Alarm,
    /// When the first of them did.
    since: Nanos,
    /// Before that none may: they had stood aside for as long as they may.
    rest_until: Nanos,
}

/// Whether a timer is under way for [`Aside::judge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alarm {
    Set,
    /// Whoever is told this sets it.
    Wanted,
}

/// What is to be done about those that stand aside.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing before this time.
    Wait(Nanos),
    /// These compete again.
    Return(Vec<(SlotId, Generation)>),
}

impl Aside {
    pub(crate) fn new() -> Self {
        Self { boots: Vec::new(), alarm: Alarm::Wanted, since: Nanos(0), rest_until: Nanos(0) }
    }

    /// Whether boots may be asked to stand aside now.
    pub(crate) fn may_begin(&self, now: Nanos) -> bool {
        now >= self.rest_until
    }

    /// One more does.
    #[must_use]
    pub(crate) fn add(&mut self, id: SlotId, generation: Generation, now: Nanos) -> Alarm {
        if self.boots.is_empty() {
            self.since = now;
        }
        self.boots.push((id, generation));
        std::mem::replace(&mut self.alarm, Alarm::Set)
    }

    pub(crate) fn contains(&self, id: SlotId, generation: Generation) -> bool {
        self.boots.contains(&(id, generation))
    }

    /// It need not any more; whether it did.
    pub(crate) fn leave(&mut self, id: SlotId, generation: Generation) -> bool {
        let before = self.boots.len();
        self.boots.retain(|boot| *boot != (id, generation));
        self.boots.len() < before
    }

    /// All that do; they need not any more.
    pub(crate) fn take(&mut self) -> Vec<(SlotId, Generation)> {
        std::mem::take(&mut self.boots)
    }

    /// The alarm went off; `quiet_until` is when the latest claim will have had its time.
    pub(crate) fn judge(&mut self, now: Nanos, quiet_until: Nanos) -> Verdict {
        let latest = self.since.after(BOOT_ASIDE_MAX);
        let due = quiet_until.min(latest);
        if now < due && !self.boots.is_empty() {
            return Verdict::Wait(due);
        }
        self.alarm = Alarm::Wanted;
        if now < quiet_until && !self.boots.is_empty() {
            // Claim follows upon claim: without a rest, pools would never fill where the processors are never free.
            self.rest_until = now.after(BOOT_ASIDE_MAX);
        }
        Verdict::Return(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: (SlotId, Generation) = (SlotId(3), Generation(1));
    const OTHER: (SlotId, Generation) = (SlotId(4), Generation(1));

    fn at(milliseconds: u64) -> Nanos {
        Nanos(1_000_000_000 + milliseconds * 1_000_000)
    }

    #[test]
    fn boots_return_when_the_claims_have_had_their_time() {
        let mut aside = Aside::new();
        assert!(aside.may_begin(at(0)));
        assert_eq!(aside.add(BOOT.0, BOOT.1, at(0)), Alarm::Wanted);
        assert_eq!(aside.add(OTHER.0, OTHER.1, at(1)), Alarm::Set);
        assert!(aside.contains(BOOT.0, BOOT.1));
        assert!(aside.leave(OTHER.0, OTHER.1) && !aside.leave(OTHER.0, OTHER.1));
        assert_eq!(aside.add(OTHER.0, OTHER.1, at(2)), Alarm::Set);
        assert_eq!(aside.judge(at(4), at(10)), Verdict::Wait(at(10)));
        assert_eq!(aside.judge(at(10), at(18)), Verdict::Wait(at(18)));
        assert_eq!(aside.judge(at(18), at(18)), Verdict::Return(vec![BOOT, OTHER]));
        assert!(!aside.contains(BOOT.0, BOOT.1) && aside.may_begin(at(18)));
    }

    #[test]
    fn claim_upon_claim_leaves_them_half_of_the_time() {
        let most = u64::try_from(BOOT_ASIDE_MAX.as_millis()).unwrap();
        let mut aside = Aside::new();
        assert_eq!(aside.add(BOOT.0, BOOT.1, at(0)), Alarm::Wanted);
        assert_eq!(aside.judge(at(most - 1), at(most + 5)), Verdict::Wait(at(most)));
        assert_eq!(aside.judge(at(most), at(most + 5)), Verdict::Return(vec![BOOT]));
        assert!(!aside.may_begin(at(2 * most - 1)) && aside.may_begin(at(2 * most)));
    }

    #[test]
    fn an_alarm_without_anybody_is_the_end_of_it() {
        let mut aside = Aside::new();
        assert_eq!(aside.add(BOOT.0, BOOT.1, at(0)), Alarm::Wanted);
        assert_eq!(aside.take(), [BOOT]);
        assert_eq!(aside.judge(at(3), at(10)), Verdict::Return(vec![]));
        assert!(aside.may_begin(at(3)));
        assert_eq!(aside.add(BOOT.0, BOOT.1, at(4)), Alarm::Wanted);
    }
}
