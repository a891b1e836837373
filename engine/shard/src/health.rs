//! Whether a runtime that has nothing to do would still answer.
//!
//! Owns: when one is asked, and when its silence is its end. Must not know: what a runtime does with a ping.
//! Only an idle instance is asked, and only one that said that it answers (docs/protocol.md section 11). A call that comes
//! meanwhile is sent behind the ping as always: a runtime answers the ping first, so the call waits for nothing.

use std::time::Duration;

use faaster_protocol::frame::{FrameType, Header};
use faaster_sys::ring::Ring;

use crate::ingress::ns;
use crate::instance::{Ending, Instance, State};
use crate::shard::Shard;
use crate::slab::Id;

/// How often runtimes are asked, and how long they may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HealthRule {
    /// A runtime that was silent for so long is asked.
    pub interval: Duration,
    /// One that has not answered after this is ended.
    pub timeout: Duration,
}

/// What is known of a runtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Health {
    /// It never said that it answers: it is not asked.
    #[default]
    Unasked,
    /// It answered then, or became ready.
    Well { heard_ns: u64 },
    /// A ping is out since then.
    Asked { heard_ns: u64, since_ns: u64 },
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Nothing,
    /// Look again then.
    LookAt(u64),
    Ask,
    /// The shard itself did not come to look when the answer was due; so it may be late for the same reason.
    AllowAgain,
    End,
}

impl Health {
    /// What is due for an instance in `state` that showed a sign of life by its calls at `used_ns`.
    pub(crate) fn step(self, rule: HealthRule, state: State, used_ns: u64, now_ns: u64) -> Step {
        let (interval_ns, timeout_ns) = (ns(rule.interval), ns(rule.timeout));
        match (self, state) {
            (Self::Well { heard_ns }, State::Idle) => match heard_ns.max(used_ns) + interval_ns {
                due_ns if due_ns <= now_ns => Step::Ask,
                due_ns => Step::LookAt(due_ns),
            },
            (Self::Well { .. }, State::Busy) => Step::LookAt(now_ns + interval_ns),
            // One that is to go may still have calls, behind the ping.
            (Self::Asked { since_ns, .. }, State::Idle | State::Busy | State::Draining) => {
                match since_ns + timeout_ns {
                    due_ns if due_ns > now_ns => Step::LookAt(due_ns),
                    due_ns if now_ns - due_ns > timeout_ns / 2 => Step::AllowAgain,
                    _ => Step::End,
                }
            }
            _ => Step::Nothing,
        }
    }

    pub(crate) fn asked(self, now_ns: u64) -> Self {
        match self {
            Self::Unasked => self,
            Self::Well { heard_ns } | Self::Asked { heard_ns, .. } => {
                Self::Asked { heard_ns, since_ns: now_ns }
            }
        }
    }

    /// It answered; `None` if it was not asked.
    pub(crate) fn answered(self, now_ns: u64) -> Option<Self> {
        matches!(self, Self::Asked { .. }).then_some(Self::Well { heard_ns: now_ns })
    }

    pub(crate) fn is_asked(self) -> bool {
        matches!(self, Self::Asked { .. })
    }

    /// When it was heard of last beside its calls; 0 if never.
    pub(crate) fn heard_ns(self) -> u64 {
        match self {
            Self::Unasked => 0,
            Self::Well { heard_ns } | Self::Asked { heard_ns, .. } => heard_ns,
        }
    }
}

impl<R: Ring> Shard<R> {
    /// Does what is due; when to look again (`u64::MAX`: no need), `None` if the instance was ended.
    pub(crate) fn check_health(&mut self, id: Id<Instance>) -> Option<u64> {
        let Some(rule) = self.config.health else { return Some(u64::MAX) };
        let now_ns = self.now_ns;
        let instance = self.instances.get_mut(id)?;
        if instance.kill_sent || instance.channel_ended {
            return Some(u64::MAX);
        }
        let used_ns = instance.last_used_ns.max(instance.since_ns);
        match instance.health.step(rule, instance.state(), used_ns, now_ns) {
            Step::Nothing => Some(u64::MAX),
            Step::LookAt(at_ns) => Some(at_ns),
            Step::Ask => {
                instance.health = instance.health.asked(now_ns);
                instance.outbox.staging().extend_from_slice(&Header::new(FrameType::Ping, 0).encode());
                self.mark_instance(id);
                Some(now_ns + ns(rule.timeout))
            }
            Step::AllowAgain => {
                instance.health = instance.health.asked(now_ns);
                Some(now_ns + ns(rule.timeout))
            }
            Step::End => {
                self.counters.instances_unresponsive_total += 1;
                self.retire_now(id, Ending::Unresponsive);
                self.kill(id);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;
    const RULE: HealthRule =
        HealthRule { interval: Duration::from_secs(10), timeout: Duration::from_secs(4) };
    const WELL: Health = Health::Well { heard_ns: SECOND };
    const ASKED: Health = Health::Asked { heard_ns: SECOND, since_ns: 20 * SECOND };
    const STATES: [State; 8] = [
        State::Loading,
        State::Idle,
        State::Busy,
        State::Freezing,
        State::Frozen,
        State::Thawing,
        State::Draining,
        State::Gone,
    ];

    #[test]
    fn silence_is_asked_about_and_long_silence_is_the_end() {
        let step =
            |health: Health, state, used_s, now_s| health.step(RULE, state, used_s * SECOND, now_s * SECOND);
        assert_eq!(step(WELL, State::Idle, 0, 5), Step::LookAt(11 * SECOND));
        assert_eq!(step(WELL, State::Idle, 4, 11), Step::LookAt(14 * SECOND), "a call was a sign of life");
        assert_eq!(step(WELL, State::Idle, 4, 14), Step::Ask);
        assert_eq!(step(WELL, State::Busy, 4, 99), Step::LookAt(109 * SECOND));
        assert_eq!(step(ASKED, State::Idle, 4, 23), Step::LookAt(24 * SECOND));
        assert_eq!(step(ASKED, State::Busy, 21, 24), Step::End, "the call waits behind the ping");
        assert_eq!(step(ASKED, State::Idle, 4, 27), Step::AllowAgain, "the shard slept itself");
        assert_eq!(ASKED.answered(21 * SECOND), Some(Health::Well { heard_ns: 21 * SECOND }));
        assert_eq!((WELL.answered(1), Health::Unasked.answered(1)), (None, None), "nobody asked");
    }

    fn healths() -> impl Strategy<Value = Health> {
        let times = (0..100 * SECOND, 0..100 * SECOND);
        prop_oneof![
            Just(Health::Unasked),
            times.clone().prop_map(|(heard_ns, _)| Health::Well { heard_ns }),
            times.prop_map(|(heard_ns, more)| Health::Asked { heard_ns, since_ns: heard_ns + more }),
        ]
    }

    proptest! {
        /// Only an idle one is asked, never while a ping is out; only one that was asked at least the time-out ago is ended,
        /// and nobody who never said that it answers.
        #[test]
        fn nobody_is_asked_or_ended_without_reason(
            health in healths(), state in prop::sample::select(&STATES[..]), used in 0..300 * SECOND, now in 0..300 * SECOND
        ) {
            match health.step(RULE, state, used, now) {
                Step::Ask => {
                    prop_assert!(state == State::Idle && !health.is_asked() && health != Health::Unasked);
                    prop_assert!(now >= used + 10 * SECOND && now >= health.heard_ns() + 10 * SECOND);
                }
                Step::End | Step::AllowAgain => {
                    let Health::Asked { since_ns, .. } = health else { panic!("{health:?}") };
                    prop_assert!(now >= since_ns + 4 * SECOND && matches!(state, State::Idle | State::Busy | State::Draining));
                }
                Step::LookAt(at_ns) => prop_assert!(at_ns > now),
                Step::Nothing => {}
            }
        }
    }
}
