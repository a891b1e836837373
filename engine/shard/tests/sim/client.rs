//! A client played by the test: sends requests in pieces, reads answers, holds each against what may come.
//!
//! Owns: one connection, its requests to come and those unanswered. Must not know: the shard, functions' instances.

use std::collections::VecDeque;

use faaster_limits::PIPELINE_DEPTH_MAX;
use faaster_sys::ring::sim::{Dice, PeerView, SimHandle, WireId};

use crate::judge::{Answer, Asked, Trouble, judge};

/// A request ready to be sent.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) asked: Asked,
    pub(crate) wire: Vec<u8>,
    /// Bytes of the head, if the client waits for `100 Continue` behind it.
    pub(crate) pause_at: Option<usize>,
    /// The answer to it closes the connection.
    pub(crate) last: bool,
    /// The answer has no body (HEAD).
    pub(crate) bodiless: bool,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} of {} bytes, pause at {:?}", self.asked, self.wire.len(), self.pause_at)
    }
}

/// How a client treats its connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Habits {
    /// Requests unanswered at once.
    pub(crate) depth: usize,
    /// Longest pause between two requests and between the pieces of one.
    pub(crate) pause_ns_max: u64,
    /// Chance, of 1,000, that a piece is less than the rest of the request.
    pub(crate) in_pieces: u16,
    /// Bytes that it reads at a time; 0: all at once.
    pub(crate) reads: usize,
    pub(crate) leaves: Leaves,
}

/// How the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// After its last answer.
    WhenDone,
    /// At this time, whatever is under way.
    At(u64),
    /// It ends its sending side at this time and reads on.
    HalfAt(u64),
}

#[derive(Debug)]
struct Unanswered {
    request: Request,
    sent_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) wire: WireId,
    habits: Habits,
    to_send: VecDeque<Request>,
    /// The request being sent and how much of it is out.
    sending: Option<(Request, usize)>,
    unanswered: VecDeque<Unanswered>,
    inbox: Vec<u8>,
    pub(crate) state: State,
    /// Requests answered.
    pub(crate) answered: usize,
    /// The engine has said that it will close.
    last_answered: bool,
    /// When it looks again.
    pub(crate) step_ns: u64,
}

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// Its sending side is closed.
    HalfClosed,
    Closed,
}

impl Client {
    pub(crate) fn new(wire: WireId, habits: Habits, requests: VecDeque<Request>, step_ns: u64) -> Self {
        Self {
            wire,
            habits,
            to_send: requests,
            sending: None,
            unanswered: VecDeque::new(),
            inbox: Vec::new(),
            state: State::Open,
            answered: 0,
            last_answered: false,
            step_ns,
        }
    }

    /// One step of its own accord: leaves, or sends the next piece.
    pub(crate) fn step(&mut self, sim: &SimHandle, dice: &mut Dice) {
        let now_ns = sim.now_ns();
        self.step_ns = u64::MAX;
        match (self.state, self.habits.leaves) {
            (State::Closed, _) => return,
            (_, Leaves::At(at_ns)) if now_ns >= at_ns => {
                self.close(sim);
                return;
            }
            (State::Open, Leaves::HalfAt(at_ns)) if now_ns >= at_ns => {
                self.state = State::HalfClosed;
                self.to_send.clear();
                self.sending = None;
                sim.shutdown(self.wire);
                return;
            }
            _ => {}
        }
        if let Leaves::At(at_ns) | Leaves::HalfAt(at_ns) = self.habits.leaves
            && self.state == State::Open
        {
            self.step_ns = at_ns;
        }
        if self.state == State::Open && self.send_piece(sim, dice) {
            self.step_ns = self.step_ns.min(now_ns + dice.below(self.habits.pause_ns_max + 1));
        }
    }

    /// Sends something if it may; whether it can go on without an answer.
    fn send_piece(&mut self, sim: &SimHandle, dice: &mut Dice) -> bool {
        if self.sending.is_none() {
            if self.unanswered.len() >= self.habits.depth {
                return false;
            }
            let Some(next) = self.to_send.pop_front() else { return false };
            self.sending = Some((next, 0));
        }
        let (request, from) = self.sending.as_mut().expect("set above");
        let until = match request.pause_at {
            // It waits for the interim answer now.
            Some(pause_at) if *from == pause_at => return false,
            Some(pause_at) if *from < pause_at => pause_at,
            _ => request.wire.len(),
        };
        let rest = until - *from;
        let count = if dice.chance(self.habits.in_pieces) { 1 + dice.index(rest) } else { rest };
        sim.send(self.wire, &request.wire[*from..*from + count]);
        *from += count;
        if *from == request.wire.len() {
            let (request, _) = self.sending.take().expect("it is being sent");
            self.unanswered.push_back(Unanswered { request, sent_ns: sim.now_ns() });
        }
        true
    }

    /// Reads what came. Whether anything did.
    pub(crate) fn poll(&mut self, sim: &SimHandle, trouble: &Trouble) -> bool {
        if self.state == State::Closed {
            return false;
        }
        let limit = if self.habits.reads == 0 { usize::MAX } else { self.habits.reads };
        let new = sim.take(self.wire, limit);
        let progressed = !new.is_empty();
        self.inbox.extend(new);
        if progressed && self.habits.reads > 0 {
            self.step_ns = self.step_ns.min(sim.now_ns() + 10_000);
        }
        while self.take_answer(sim, trouble) {}
        if sim.peer_view(self.wire) != PeerView::Open && self.state != State::Closed {
            self.on_closed_by_engine(sim);
            return true;
        }
        progressed
    }

    fn take_answer(&mut self, sim: &SimHandle, trouble: &Trouble) -> bool {
        let Some(head_end) = find(&self.inbox, b"\r\n\r\n") else { return false };
        let head = String::from_utf8(self.inbox[..head_end + 4].to_vec()).expect("heads are text");
        let status: u16 = head[9..12].parse().expect("a status");
        if status == 100 {
            self.inbox.drain(..head_end + 4);
            if self.state == State::HalfClosed {
                // It came too late: the request was given up.
                return true;
            }
            let (request, from) = self.sending.as_mut().expect("an interim answer to a request under way");
            assert_eq!(request.pause_at, Some(*from), "an interim answer that nobody asked for");
            assert!(self.unanswered.is_empty(), "an interim answer overtook an answer");
            request.pause_at = None;
            self.step_ns = sim.now_ns();
            return true;
        }
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .expect("every answer has a length")
            .parse()
            .expect("a number");
        if self.unanswered.is_empty()
            && let Some((Request { asked: Asked::Malformed, .. }, _)) = &self.sending
        {
            // The engine need not read on to see that this is no HTTP.
            let (request, _) = self.sending.take().expect("just seen");
            self.unanswered.push_back(Unanswered { request, sent_ns: sim.now_ns() });
        }
        let front = self.unanswered.front().unwrap_or_else(|| {
            let sending =
                self.sending.as_ref().map(|(it, from)| (&it.asked, *from, it.pause_at, it.wire.len()));
            panic!("an answer to nothing: {head} (sending {sending:?}, {:?})", self.habits)
        });
        let body_bytes = if front.request.bodiless { 0 } else { length };
        if self.inbox.len() < head_end + 4 + body_bytes {
            return false;
        }
        let body = self.inbox[head_end + 4..head_end + 4 + body_bytes].to_vec();
        self.inbox.drain(..head_end + 4 + body_bytes);
        let Unanswered { request, sent_ns } = self.unanswered.pop_front().expect("looked at above");
        // What the client itself holds up says nothing about the engine.
        let prompt = self.habits.reads == 0 && self.habits.depth < PIPELINE_DEPTH_MAX;
        let took_ns = prompt.then(|| sim.now_ns() - sent_ns);
        let answer = Answer { status, head, body, took_ns };
        if let Err(wrong) = judge(&request.asked, &answer, trouble) {
            panic!("{:?} got {status}: {wrong}\n{}\n{trouble:?}", request.asked, answer.head);
        }
        self.answered += 1;
        if request.last {
            self.last_answered = true;
            assert!(answer.head.contains("\r\nConnection: close\r\n"), "{}", answer.head);
        }
        self.step_ns = self.step_ns.min(sim.now_ns());
        true
    }

    fn on_closed_by_engine(&mut self, sim: &SimHandle) {
        let text = String::from_utf8_lossy(&self.inbox);
        assert!(self.inbox.is_empty(), "the connection ended inside an answer: {text} {self:#?}");
        let may_close = self.state == State::HalfClosed || self.is_done();
        assert!(may_close, "the engine closed: {:?} {self:#?}", sim.peer_view(self.wire));
        self.close(sim);
    }

    pub(crate) fn close(&mut self, sim: &SimHandle) {
        if self.state != State::Closed {
            self.state = State::Closed;
            sim.close(self.wire);
        }
    }

    /// Whether it has all it asked for.
    pub(crate) fn is_done(&self) -> bool {
        let waits = !self.to_send.is_empty() || self.sending.is_some() || !self.unanswered.is_empty();
        self.state == State::Closed || !waits
    }

    /// Whether the engine has no reason to keep the connection open.
    pub(crate) fn should_be_closed(&self) -> bool {
        self.state == State::HalfClosed || self.last_answered
    }

    /// What it still waits for, for the report of a failure.
    pub(crate) fn waits_for(&self) -> Option<&Asked> {
        self.unanswered.front().map(|it| &it.request.asked).or(self.sending.as_ref().map(|it| &it.0.asked))
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
