//! One client connection: what it has sent, what it is owed, in which order.
//!
//! Owns: unparsed input, the body being received, the slots of unanswered requests, the outbox.
//! Must not know: functions, instances; who fills a slot.
//!
//! Answers go out in the order of the requests (RFC 9112 section 9.3.2), whoever finishes first: each request takes a
//! slot at the back, an answer for the front slot is written straight to the outbox, any other is kept in its slot.

use std::collections::VecDeque;

use faaster_http::{BodyReader, HeadProgress, Persistence, Version};
use faaster_sys::ring::{Operation, Sock};

use crate::api::Port;
use crate::call::Call;
use crate::outbox::Outbox;
use crate::slab::Id;
use crate::spares::Spares;
use crate::timer::Alarm;

/// What the next bytes from the client are.
#[derive(Debug)]
pub(crate) enum Reading {
    /// The start of a request head.
    Head(HeadProgress),
    /// The body of a request whose head is kept.
    Body(Box<Upload>),
    /// Nothing that matters: an error answer is on its way, and input is dropped until the client closes.
    Lingering,
}

/// A request whose body has not come whole.
#[derive(Debug)]
pub(crate) struct Upload {
    /// Bytes of the head, parsed again when the body is there.
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) reader: BodyReader,
    /// Counted in the shard's held bytes.
    pub(crate) reserved_bytes: usize,
    pub(crate) began_ns: u64,
}

/// Whether a receive is under way; never are there two, which could swap bytes.
///
/// ```text
/// no --armed--> yes --too much is owed--> stopping
/// ^--------------+---last completion---------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiving {
    No,
    Yes(Operation),
    /// It was told to end and may still bring something.
    Stopping,
}

/// One unanswered request.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) persistence: Persistence,
    pub(crate) version: Version,
    pub(crate) body: AnswerBody,
    /// The call that will fill it, if it is one.
    pub(crate) call: Option<Id<Call>>,
    ready: Option<Ready>,
}

/// Whether the answer's body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerBody {
    Sent,
    /// The request was a HEAD.
    Omitted,
}

/// An answer that waits for its turn.
#[derive(Debug)]
struct Ready {
    /// The head, and the body if it is small.
    head: Vec<u8>,
    body: Vec<u8>,
    after: Persistence,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sock: Sock,
    pub(crate) port: Port,
    pub(crate) reading: Reading,
    /// Bytes that came and are not parsed yet.
    pub(crate) input: Vec<u8>,
    pub(crate) outbox: Outbox,
    slots: VecDeque<Slot>,
    /// Sequence number of the front slot.
    front: u64,
    pub(crate) receiving: Receiving,
    /// The client closed its sending side.
    pub(crate) ended: bool,
    /// Close when the outbox is empty.
    pub(crate) closing: bool,
    pub(crate) deadline_ns: u64,
    /// When the head that has begun to come must be there.
    pub(crate) head_deadline_ns: u64,
    pub(crate) alarm: Alarm,
    /// In the list of connections with something to send.
    pub(crate) dirty: bool,
    /// Of the shard's budget: large answers that the client has not taken yet.
    pub(crate) held_bytes: usize,
}

impl Connection {
    pub(crate) fn new(sock: Sock, port: Port, deadline_ns: u64) -> Self {
        Self {
            sock,
            port,
            reading: Reading::Head(HeadProgress::new()),
            input: Vec::new(),
            outbox: Outbox::default(),
            slots: VecDeque::new(),
            front: 0,
            receiving: Receiving::No,
            ended: false,
            closing: false,
            deadline_ns,
            head_deadline_ns: deadline_ns,
            alarm: Alarm::default(),
            dirty: false,
            held_bytes: 0,
        }
    }

    /// What need not be counted any more: all that was, once the client has taken every answer that is ready.
    pub(crate) fn take_unheld(&mut self) -> usize {
        let waiting = self.outbox.pending_bytes() > 0 || self.slots.iter().any(|slot| slot.ready.is_some());
        if waiting { 0 } else { std::mem::take(&mut self.held_bytes) }
    }

    /// Takes a slot for a request; its sequence number names it.
    pub(crate) fn open_slot(&mut self, version: Version, persistence: Persistence, body: AnswerBody) -> u64 {
        self.slots.push_back(Slot { persistence, version, body, call: None, ready: None });
        self.front + self.slots.len() as u64 - 1
    }

    pub(crate) fn slot_mut(&mut self, sequence: u64) -> Option<&mut Slot> {
        let at = usize::try_from(sequence.checked_sub(self.front)?).ok()?;
        self.slots.get_mut(at)
    }

    /// Whether it was held back, or has input that had to wait: to be looked at when something was answered or sent.
    pub(crate) fn may_go_on(&self) -> bool {
        !matches!(self.receiving, Receiving::Yes(_)) || !self.input.is_empty()
    }

    pub(crate) fn unanswered(&self) -> usize {
        self.slots.len()
    }

    /// Calls that this connection waits for.
    pub(crate) fn calls(&self) -> impl Iterator<Item = Id<Call>> {
        self.slots.iter().filter_map(|slot| slot.call)
    }

    /// The first slot whose call is `true` for `which`.
    pub(crate) fn find_call(&self, which: impl Fn(Id<Call>) -> bool) -> Option<u64> {
        let at = self.slots.iter().position(|slot| slot.call.is_some_and(&which))?;
        Some(self.front + at as u64)
    }

    /// Drops the slots from `sequence` on, and all that the client may still send: no answer may follow a missing one.
    /// Returns the calls that nobody waits for any more.
    pub(crate) fn cut_off(&mut self, sequence: u64) -> Vec<Id<Call>> {
        // Nothing is read any more, so the numbers of the dropped slots are not given again.
        self.reading = Reading::Lingering;
        self.input.clear();
        let at = usize::try_from(sequence.saturating_sub(self.front)).unwrap_or(usize::MAX);
        let dropped = self.slots.split_off(at.min(self.slots.len()));
        dropped.into_iter().filter_map(|slot| slot.call).collect()
    }

    /// Where the answer of `sequence` goes: the outbox if it is its turn, else a buffer to hand to [`Self::keep`].
    pub(crate) fn is_turn(&self, sequence: u64) -> bool {
        sequence == self.front && !self.slots.is_empty()
    }

    /// Keeps an answer whose turn has not come.
    pub(crate) fn keep(&mut self, sequence: u64, head: Vec<u8>, body: Vec<u8>, after: Persistence) {
        if let Some(slot) = self.slot_mut(sequence) {
            slot.call = None;
            slot.ready = Some(Ready { head, body, after });
        }
    }

    /// The front answer is in the outbox: lets those behind it follow. `after` is what becomes of the connection.
    pub(crate) fn front_answered(&mut self, mut after: Persistence, spares: &mut Spares) {
        loop {
            self.slots.pop_front();
            self.front += 1;
            if after == Persistence::Close {
                // Nothing may follow; requests behind this one are not answered (RFC 9112 section 9.6).
                self.closing = true;
                self.slots.clear();
                return;
            }
            let Some(ready) = self.slots.front_mut().and_then(|slot| slot.ready.take()) else { return };
            self.outbox.staging().extend_from_slice(&ready.head);
            spares.keep(ready.head);
            self.outbox.push_owned(ready.body);
            after = ready.after;
        }
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
