//! One connection of the generator and the life it leads.
//!
//! Owns: its phase, the requests without an answer, the send buffer while the kernel does not have it.
//! Must not know: the ring's queues, histograms, when requests are due.
//!
//! ```text
//!            Opened                  LastAnswer
//!   Closed ----------> Open ----------------------> Ending
//!    ^  ^ \             |                             |
//!    |  |  \ Refused    | Lost                        | Lost (by the server, or by us after a while)
//!    |  |   v           |                             |
//!    |  |  Paused       |                             |
//!    |  +---+ Rested    |                             |
//!    +------------------+-----------------------------+
//! ```

use std::collections::VecDeque;

use faaster_sys::ring::{Sock, Token};

use crate::plan::Phases;
use crate::request::BodyCheck;
use crate::response::{BodyAllowed, ResponseParser};

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No socket; the next request opens one.
    Closed,
    /// Takes requests; it may be connecting still.
    Open,
    /// The last answer came; the server closes first, so that the port waits at its end and not at ours.
    Ending,
    /// It could not be opened and is left alone for a while.
    Paused,
}

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Opened,
    Refused,
    LastAnswer,
    Lost,
    Rested,
}

/// The phase after an event.
///
/// # Panics
/// The event cannot happen in that phase: a defect of this program.
pub(super) fn transition(phase: Phase, event: Event) -> Phase {
    match (phase, event) {
        (Phase::Closed, Event::Opened) => Phase::Open,
        (Phase::Closed, Event::Refused) => Phase::Paused,
        (Phase::Open, Event::LastAnswer) => Phase::Ending,
        (Phase::Open | Phase::Ending, Event::Lost) | (Phase::Paused, Event::Rested) => Phase::Closed,
        _ => panic!("a connection that is {phase:?} cannot meet {event:?}"),
    }
}

/// A request that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) intended_ns: u64,
    pub(super) sent_ns: u64,
}

/// Whether a connection is in the list of those with something to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listed {
    Yes,
    No,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) phase: Phase,
    pub(super) sock: Option<Sock>,
    /// Counts the sockets it has had, so that late news of an earlier one are told apart.
    pub(super) generation: u32,
    pub(super) flights: VecDeque<Flight>,
    /// How many of the flights, from the back, have not been handed to the kernel.
    pub(super) owed: usize,
    /// As many requests as may be pipelined; `None` while the kernel has it.
    pub(super) out: Option<Vec<u8>>,
    /// From where on the kernel sends it.
    pub(super) out_from: usize,
    pub(super) parser: ResponseParser,
    pub(super) check: BodyCheck,
    pub(super) listed: Listed,
    /// Free slots that cannot be used in this phase.
    pub(super) parked: usize,
    /// When it became `Ending`.
    pub(super) ending_since_ns: u64,
    /// Bytes that its present socket has brought.
    pub(super) received_bytes: u64,
}

impl Connection {
    pub(super) fn new(pipeline: usize, allowed: BodyAllowed, phases: Phases) -> Self {
        let parser = ResponseParser::new(allowed);
        Self {
            phase: Phase::Closed,
            sock: None,
            generation: 0,
            flights: VecDeque::with_capacity(pipeline),
            owed: 0,
            out: Some(Vec::new()),
            out_from: 0,
            parser: if phases == Phases::Read { parser.with_phases() } else { parser },
            check: BodyCheck::default(),
            listed: Listed::No,
            parked: 0,
            ending_since_ns: 0,
            received_bytes: 0,
        }
    }

    /// Moves on.
    pub(super) fn meet(&mut self, event: Event) {
        self.phase = transition(self.phase, event);
    }

    /// Begins a new life with `sock`.
    pub(super) fn begin(&mut self, sock: Sock) {
        self.meet(Event::Opened);
        assert!(self.sock.is_none() && self.flights.is_empty(), "a closed connection holds nothing");
        self.sock = Some(sock);
        self.generation = self.generation.wrapping_add(1);
        self.parser.reset();
        self.check = BodyCheck::default();
        self.owed = 0;
        self.received_bytes = 0;
        // The kernel may still have the buffer of the last life; it comes back under the old generation.
        self.out.get_or_insert_default();
    }
}

/// Position in the lower half, generation in the upper.
pub(super) fn token(index: u32, generation: u32) -> Token {
    Token(u64::from(generation) << 32 | u64::from(index))
}

/// The position that a token names, if it is of the connection's present life.
pub(super) fn position(token: Token, connections: &[Connection]) -> Option<u32> {
    let index = u32::try_from(token.0 & 0xffff_ffff).expect("32 bits fit");
    let connection = connections.get(index as usize)?;
    let present = connection.sock.is_some() && u64::from(connection.generation) == token.0 >> 32;
    present.then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_drawn_ways_are_open() {
        use Event::{LastAnswer, Lost, Opened, Refused, Rested};
        use Phase::{Closed, Ending, Open, Paused};
        let drawn = [
            (Closed, Opened, Open),
            (Closed, Refused, Paused),
            (Open, LastAnswer, Ending),
            (Open, Lost, Closed),
            (Ending, Lost, Closed),
            (Paused, Rested, Closed),
        ];
        for phase in [Closed, Open, Ending, Paused] {
            for event in [Opened, Refused, LastAnswer, Lost, Rested] {
                let expected =
                    drawn.iter().find(|(from, by, _)| (*from, *by) == (phase, event)).map(|it| it.2);
                assert_eq!(std::panic::catch_unwind(|| transition(phase, event)).ok(), expected);
            }
        }
    }

    #[test]
    fn tokens_of_an_earlier_life_name_nothing() {
        let new = || Connection::new(1, BodyAllowed::Yes, Phases::Skipped);
        let mut connections = vec![new(), new()];
        connections[1].begin(Sock::Plain(5));
        let first = token(1, connections[1].generation);
        assert_eq!(position(first, &connections), Some(1));
        connections[1].meet(Event::Lost);
        connections[1].sock = None;
        assert_eq!(position(first, &connections), None);
        connections[1].begin(Sock::Plain(5));
        assert_eq!(position(first, &connections), None);
        assert_eq!(position(token(9, 0), &connections), None);
    }
}
