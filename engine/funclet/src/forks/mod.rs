//! Fork servers: processes that have booted and primed once, whose children become the runtimes of containers.
//!
//! Owns: the life of each, and which containers wait for a child. Must not know: what a child does to come in; that is
//! the runtime's own (docs/protocol.md section 10).
//!
//! ```text
//! absent -> booting -> ready -> absent (dead, or renewed)        booting -> absent (dead)        absent -> hopeless
//! ```

pub(crate) mod birth;
mod serve;

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::OwnedFd;

use faaster_function::RuntimeSpec;
use faaster_limits::{FORK_ORDERS_MAX, FORK_SERVER_TRIES_MAX, FORKS_PER_SERVER_MAX};
use faaster_protocol::funclet::{Generation, SlotId};
use faaster_sys::exec::CStringArray;

use crate::backoff::Backoff;
use crate::birth::{c_strings, environment_of};
use crate::cgroup::Group;
use crate::timers::{Nanos, TimerId};

/// Where a fork server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Absent,
    /// Its process is there and primes itself.
    Booting,
    /// It takes orders.
    Ready,
    /// It has failed so often that containers boot by themselves from now on.
    Hopeless,
}

/// What happens to a fork server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Born,
    /// It said so.
    Ready,
    /// It has ended, whoever wanted that.
    Ended,
    GivenUp,
}

/// The state after a change; `None` where the change cannot happen.
pub(crate) fn next(state: State, change: Change) -> Option<State> {
    match (state, change) {
        (State::Absent, Change::Born) => Some(State::Booting),
        (State::Booting, Change::Ready) => Some(State::Ready),
        (State::Booting | State::Ready, Change::Ended) => Some(State::Absent),
        (State::Absent, Change::GivenUp) => Some(State::Hopeless),
        _ => None,
    }
}

/// The fork server of one runtime.
#[derive(Debug)]
pub(crate) struct ForkServer {
    state: State,
    /// Since its first birth: the user namespace that it is root of, and the groups that it runs in. Both stay when it is
    /// renewed, for containers made for the old one are the new one's as well.
    place: Option<Place>,
    live: Option<Live>,
    backoff: Backoff,
    /// Containers that a child is wanted for, the first first.
    wanted: VecDeque<(SlotId, Generation)>,
    program: CString,
    arguments: CStringArray,
    environment: CStringArray,
    /// Children of one process.
    forks_max: u32,
}

#[derive(Debug)]
struct Place {
    namespace: OwnedFd,
    group: Group,
}

#[derive(Debug)]
struct Live {
    born: birth::BornServer,
    /// Of its boot.
    timer: Option<TimerId>,
    forks: u32,
    /// Those of them that it has made.
    taken: u32,
    /// Orders that it has not taken yet.
    under_way: usize,
}

impl ForkServer {
    /// Of a runtime that has one; nothing runs yet.
    pub(crate) fn of(runtime: &RuntimeSpec) -> Option<Self> {
        let program = runtime.fork_server.first()?;
        Some(Self {
            state: State::Absent,
            place: None,
            live: None,
            backoff: Backoff::default(),
            wanted: VecDeque::new(),
            program: CString::new(program.as_str()).expect("the configuration's check refuses zero bytes"),
            arguments: c_strings(runtime.fork_server.iter().cloned()),
            environment: environment_of(runtime),
            forks_max: runtime.forks.unwrap_or(FORKS_PER_SERVER_MAX).clamp(1, FORKS_PER_SERVER_MAX),
        })
    }

    /// Makes the change.
    ///
    /// # Panics
    /// When it is not legal: a mistake of the funclet's.
    fn apply(&mut self, change: Change) {
        let before = self.state;
        self.state =
            next(before, change).unwrap_or_else(|| panic!("a {before:?} fork server cannot be {change:?}"));
    }

    /// Whether containers are made for it.
    pub(crate) fn is_usable(&self, now: Nanos) -> bool {
        match self.state {
            State::Booting | State::Ready => true,
            State::Absent => self.backoff.blocked_until(now).is_none(),
            State::Hopeless => false,
        }
    }

    /// Whether one is to be started: containers wait for it, and it may be tried.
    pub(crate) fn is_due(&self, now: Nanos) -> bool {
        self.state == State::Absent && !self.wanted.is_empty() && self.is_usable(now)
    }

    /// It has had its tries.
    fn is_worn_out(&self) -> bool {
        self.backoff.failures() >= FORK_SERVER_TRIES_MAX
    }

    /// Whether it may be given an order.
    fn has_room(&self) -> bool {
        let room = |live: &Live| live.under_way < FORK_ORDERS_MAX && live.forks < self.forks_max;
        self.state == State::Ready && self.live.as_ref().is_some_and(room)
    }

    /// Whether a child that it was asked for is not in its cgroups yet.
    pub(crate) fn is_at_work(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.under_way > 0)
    }

    /// Whether it has made so many children that another is to take its place, and all of them are on their way.
    fn is_spent(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.forks >= self.forks_max && live.under_way == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 4] = [State::Absent, State::Booting, State::Ready, State::Hopeless];

    #[test]
    fn a_server_lives_dies_and_lives_again() {
        let mut state = State::Absent;
        for (change, expected) in [
            (Change::Born, State::Booting),
            (Change::Ready, State::Ready),
            (Change::Ended, State::Absent),
            (Change::Born, State::Booting),
            (Change::Ended, State::Absent),
            (Change::GivenUp, State::Hopeless),
        ] {
            state = next(state, change).unwrap();
            assert_eq!(state, expected);
        }
    }

    #[test]
    fn only_a_booted_one_takes_orders_and_hope_does_not_return() {
        let ready: Vec<State> =
            STATES.into_iter().filter(|state| next(*state, Change::Ready).is_some()).collect();
        assert_eq!(ready, [State::Booting]);
        for change in [Change::Born, Change::Ready, Change::Ended, Change::GivenUp] {
            assert_eq!(next(State::Hopeless, change), None);
        }
    }
}
