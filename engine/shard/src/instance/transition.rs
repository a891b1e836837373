//! The life of an instance as its shard sees it (DESIGN section 6), and its one transition function.
//!
//! ```text
//! loading --ready--> idle <--last call done-- busy
//!    |                | \--call begins------->  |
//!    |                |                         |
//!    +----drain-------+-----------drain---------+--> draining --died--> gone
//!
//! idle --freeze--> freezing --frozen--> frozen --thaw--> thawing --thawed--> idle
//!                  freezing --thawed--> idle   (it could not be frozen)
//! freezing, frozen, thawing --drain--> draining
//!    any --died--> gone
//! ```
//! Must not know: why something happens.

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The container is claimed, the runtime loads the handler.
    Loading,
    /// Ready, nothing in flight.
    Idle,
    /// At least one call in flight.
    Busy,
    /// The funclet was asked to stop its processes.
    Freezing,
    /// Its processes are stopped.
    Frozen,
    /// The funclet was asked to let them go on.
    Thawing,
    /// Takes no new calls; will be ended.
    Draining,
    /// Its container ended.
    Gone,
}

/// What happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The runtime sent `ready`.
    Ready,
    /// A call was sent to it.
    CallBegins,
    /// A call ended and so many are left.
    CallEnds { left: usize },
    /// Its processes are to be stopped.
    Freeze,
    /// They are.
    Frozen,
    /// They are to go on.
    Thaw,
    /// They do.
    Thawed,
    /// It must take no new call.
    Drain,
    /// Its process tree ended.
    Died,
}

impl State {
    /// The state after `cause`.
    ///
    /// # Panics
    /// On a pair that the diagram does not have: a defect of the shard, not of the instance.
    pub(crate) fn after(self, cause: Cause) -> Self {
        match (self, cause) {
            (Self::Loading, Cause::Ready) => Self::Idle,
            (Self::Idle | Self::Busy, Cause::CallBegins) => Self::Busy,
            (Self::Busy, Cause::CallEnds { left: 0 }) => Self::Idle,
            (Self::Busy, Cause::CallEnds { .. }) => Self::Busy,
            (Self::Draining, Cause::CallEnds { .. }) => Self::Draining,
            (Self::Idle, Cause::Freeze) => Self::Freezing,
            (Self::Freezing, Cause::Frozen) => Self::Frozen,
            (Self::Frozen, Cause::Thaw) => Self::Thawing,
            (Self::Freezing | Self::Thawing, Cause::Thawed) => Self::Idle,
            (Self::Gone, Cause::CallEnds { .. }) => Self::Gone,
            (state, Cause::Drain) if state != Self::Gone => Self::Draining,
            (state, Cause::Died) if state != Self::Gone => Self::Gone,
            (state, cause) => panic!("an instance that is {state:?} cannot see {cause:?}"),
        }
    }

    /// Whether it will take its share of the queue, but not yet.
    pub(crate) fn is_coming(self) -> bool {
        matches!(self, Self::Loading | Self::Freezing | Self::Thawing)
    }

    /// As `faaster instances` shows it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Freezing => "freezing",
            Self::Frozen => "frozen",
            Self::Thawing => "thawing",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, State};

    #[test]
    fn the_diagram_holds() {
        use Cause::{CallBegins, CallEnds, Died, Drain, Freeze, Ready, Thaw, Thawed};
        use State::{Busy, Draining, Freezing, Frozen, Gone, Idle, Loading, Thawing};
        for (from, cause, to) in [
            (Loading, Ready, Idle),
            (Idle, CallBegins, Busy),
            (Busy, CallBegins, Busy),
            (Busy, CallEnds { left: 1 }, Busy),
            (Busy, CallEnds { left: 0 }, Idle),
            (Busy, Drain, Draining),
            (Draining, CallEnds { left: 0 }, Draining),
            (Draining, Died, Gone),
            (Loading, Died, Gone),
            (Gone, CallEnds { left: 3 }, Gone),
            (Idle, Freeze, Freezing),
            (Freezing, Cause::Frozen, Frozen),
            (Freezing, Thawed, Idle),
            (Frozen, Thaw, Thawing),
            (Thawing, Thawed, Idle),
            (Freezing, Drain, Draining),
            (Frozen, Drain, Draining),
            (Thawing, Died, Gone),
        ] {
            assert_eq!(from.after(cause), to, "{from:?} {cause:?}");
        }
    }

    #[test]
    fn only_what_is_idle_is_frozen_and_only_what_runs_gets_calls() {
        use State::{Busy, Draining, Freezing, Frozen, Gone, Idle, Loading, Thawing};
        for state in [Loading, Idle, Busy, Freezing, Frozen, Thawing, Draining, Gone] {
            let follows = |cause| std::panic::catch_unwind(|| state.after(cause)).is_ok();
            assert_eq!(follows(Cause::Freeze), state == Idle, "{state:?}");
            assert_eq!(follows(Cause::CallBegins), matches!(state, Idle | Busy), "{state:?}");
        }
    }

    #[test]
    #[should_panic(expected = "cannot see")]
    fn a_draining_instance_gets_no_call() {
        let _ = State::Draining.after(Cause::CallBegins);
    }
}
