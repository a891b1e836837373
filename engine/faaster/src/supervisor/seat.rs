//! A place for a child of the supervisor, whether one runs there or not.
//!
//! Owns: the child and the count of its deaths. Must not know: when a stop is asked for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use faaster_protocol::funclet::LinkMessage;

use super::child::Child;
use super::link::{self, LinkError};
use super::restart::Restarts;
use super::start::Role;

#[derive(Debug)]
pub(crate) struct Seat {
    pub role: Role,
    pub state: SeatState,
    pub restarts: Restarts,
}

#[derive(Debug)]
pub(crate) enum SeatState {
    Empty,
    Running(Child),
    /// To be started again then.
    Waiting(Instant),
}

impl Seat {
    pub(crate) fn new(role: Role) -> Self {
        Self { role, state: SeatState::Empty, restarts: Restarts::default() }
    }

    pub(crate) fn child(&self) -> Option<&Child> {
        if let SeatState::Running(child) = &self.state { Some(child) } else { None }
    }

    /// Nothing is started here any more.
    pub(crate) fn give_up_waiting(&mut self) {
        if matches!(self.state, SeatState::Waiting(_)) {
            self.state = SeatState::Empty;
        }
    }
}

/// Gives an engine and a funclet new sockets to each other: one for each shard, and one for the control thread.
///
/// # Errors
/// One of them does not take its ends.
pub(crate) fn connect(engine: &Child, funclet: &Child, peer: u16, shards: u16) -> Result<(), LinkError> {
    let count = shards + 1;
    let pairs = (0..count).map(|_| link::channel()).collect::<Result<Vec<_>, _>>()?;
    let (here, there): (Vec<OwnedFd>, Vec<OwnedFd>) = pairs.into_iter().unzip();
    fn borrow(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
        fds.iter().map(AsFd::as_fd).collect()
    }
    funclet.tell(LinkMessage::Channels { peer: 0, count }, &borrow(&there))?;
    engine.tell(LinkMessage::Channels { peer, count }, &borrow(&here))
}
