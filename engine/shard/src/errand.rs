//! A call on its way to its home shard and back.
//!
//! Owns: the box that travels; it goes back with the answer and is used again, so that crossing allocates nothing new.
//! Must not know: who asked.

use crate::answer::Outcome;
use crate::call::{RequestId, Style, Tail};
use crate::phases::Phases;

/// See the module. The same box is the request on the way there and the answer on the way back.
#[derive(Debug)]
pub struct Errand {
    /// The call's id on the shard that sent it.
    pub(crate) call: u64,
    /// Canonical function key: indexes differ between shards.
    pub(crate) key: Vec<u8>,
    pub(crate) request_id: RequestId,
    pub(crate) style: Style,
    pub(crate) tail: Tail,
    pub(crate) client_context: Option<Vec<u8>>,
    /// There: the event. Back: the result.
    pub(crate) payload: Vec<u8>,
    pub(crate) arrived_ns: u64,
    pub(crate) outcome: Outcome,
    pub(crate) run_ns: u64,
    pub(crate) log: Vec<u8>,
    pub(crate) cold: Option<Box<Phases>>,
}

/// How a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// It closed its sending side: what waits is not begun, what runs is still answered.
    Half,
    /// It is gone, and the call's id with it.
    Gone,
}

/// What shards say to each other.
#[derive(Debug)]
pub enum Packet {
    Invoke(Box<Errand>),
    Answer(Box<Errand>),
    /// The client of this call (its id on the sending shard) is leaving.
    Abandon {
        call: u64,
        leaving: Leaving,
    },
}
