//! The life of an instance as its shard sees it (DESIGN section 6), and its one transition function.
//!
//! ```text
//! loading --ready--> idle <--last call done-- busy
//!    |                | \--call begins------->  |
//!    |                |                         |
//!    +----drain-------+-----------drain---------+--> draining --died--> gone
//!    any --died--> gone
//! ```
//! An instance is not frozen yet. Must not know: why something happens.

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The container is claimed, the runtime loads the handler.
    Loading,
    /// Ready, nothing in flight.
    Idle,
    /// At least one call in flight.
    Busy,
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
            (Self::Loading | Self::Idle | Self::Busy | Self::Draining, Cause::Drain) => Self::Draining,
            (Self::Gone, Cause::CallEnds { .. }) => Self::Gone,
            (Self::Loading | Self::Idle | Self::Busy | Self::Draining, Cause::Died) => Self::Gone,
            (state, cause) => panic!("an instance that is {state:?} cannot see {cause:?}"),
        }
    }

    /// As `faaster instances` shows it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Idle => "idle",
            Self::Busy => "busy",
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
        use Cause::{CallBegins, CallEnds, Died, Drain, Ready};
        use State::{Busy, Draining, Gone, Idle, Loading};
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
        ] {
            assert_eq!(from.after(cause), to, "{from:?} {cause:?}");
        }
    }

    #[test]
    #[should_panic(expected = "cannot see")]
    fn a_draining_instance_gets_no_call() {
        let _ = State::Draining.after(Cause::CallBegins);
    }
}
