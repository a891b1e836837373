//! The life of one container as a state machine.
//!
//! Owns: the states and which change is legal. Must not know: system calls.
//!
//! ```text
//! creating -> cold -> warming -> warm <-> frozen        any but dead -> draining -> dead        any -> dead (crash)
//! ```

use faaster_protocol::funclet::SlotState;

/// Where a container stands (DESIGN section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Being made, or its runtime is booting.
    Creating,
    /// Ready for a claim; no user code.
    Cold,
    /// Being given code and limits for a claim.
    Warming,
    /// Handed to the engine.
    Warm,
    /// The engine has it, and its processes are stopped.
    Frozen,
    /// Told to end.
    Draining,
    /// Every process of it is gone.
    Dead,
}

/// What happens to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Its runtime said that it can be claimed.
    Booted,
    /// A claim took it.
    Taken,
    /// The engine has its channel.
    Handed,
    /// Its processes were stopped.
    Frozen,
    /// They were let go on.
    Thawed,
    /// SIGKILL was sent.
    Killed,
    /// Its init has ended.
    Died,
}

/// The state after a change; `None` where the change cannot happen.
pub(crate) fn next(state: State, change: Change) -> Option<State> {
    use State as S;
    match (state, change) {
        (S::Creating, Change::Booted) => Some(S::Cold),
        (S::Cold, Change::Taken) => Some(S::Warming),
        (S::Warming, Change::Handed) => Some(S::Warm),
        (S::Warm, Change::Frozen) => Some(S::Frozen),
        (S::Frozen, Change::Thawed) => Some(S::Warm),
        (S::Creating | S::Cold | S::Warming | S::Warm | S::Frozen, Change::Killed) => Some(S::Draining),
        (S::Creating | S::Cold | S::Warming | S::Warm | S::Frozen | S::Draining, Change::Died) => {
            Some(S::Dead)
        }
        _ => None,
    }
}

impl State {
    /// Makes the change.
    ///
    /// # Panics
    /// When it is not legal: a mistake of the funclet, after which nothing that it believes can be trusted.
    pub(crate) fn apply(&mut self, change: Change) {
        let before = *self;
        *self = next(before, change).unwrap_or_else(|| panic!("a {before:?} container cannot be {change:?}"));
    }

    /// The name on the wire.
    pub(crate) fn on_wire(self) -> SlotState {
        match self {
            Self::Creating => SlotState::Creating,
            Self::Cold => SlotState::Cold,
            Self::Warming => SlotState::Warming,
            Self::Warm => SlotState::Warm,
            Self::Frozen => SlotState::Frozen,
            Self::Draining => SlotState::Draining,
            Self::Dead => SlotState::Dead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 7] = [
        State::Creating,
        State::Cold,
        State::Warming,
        State::Warm,
        State::Frozen,
        State::Draining,
        State::Dead,
    ];
    const CHANGES: [Change; 7] = [
        Change::Booted,
        Change::Taken,
        Change::Handed,
        Change::Frozen,
        Change::Thawed,
        Change::Killed,
        Change::Died,
    ];

    #[test]
    fn a_life_goes_through_all_states() {
        let mut state = State::Creating;
        let states = [
            State::Cold,
            State::Warming,
            State::Warm,
            State::Frozen,
            State::Warm,
            State::Draining,
            State::Dead,
        ];
        for (change, expected) in CHANGES.into_iter().zip(states) {
            state.apply(change);
            assert_eq!(state, expected);
        }
    }

    #[test]
    fn dead_is_for_good_and_everything_can_die() {
        for change in CHANGES {
            assert_eq!(next(State::Dead, change), None);
        }
        for state in STATES.into_iter().filter(|state| *state != State::Dead) {
            assert_eq!(next(state, Change::Died), Some(State::Dead));
        }
    }

    #[test]
    fn user_code_enters_by_a_cold_container_only() {
        let entrances: Vec<State> =
            STATES.into_iter().filter(|state| next(*state, Change::Taken).is_some()).collect();
        assert_eq!(entrances, [State::Cold]);
        assert!(
            STATES
                .into_iter()
                .all(|state| next(state, Change::Booted) != Some(State::Cold) || state == State::Creating)
        );
    }

    #[test]
    #[should_panic(expected = "cannot be Taken")]
    fn an_illegal_change_stops_the_funclet() {
        State::Warm.apply(Change::Taken);
    }
}
