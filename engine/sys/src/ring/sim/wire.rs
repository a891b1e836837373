//! What stands between the engine and a peer that the test plays: listeners, streams, pipes, record sockets.
//!
//! Owns: bytes and records on their way, and who has closed what. Must not know: operations, completions, time.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags};

/// Names one wire of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WireId(pub(super) usize);

/// What a wire is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Listener,
    /// A TCP connection or an AF_UNIX stream.
    Stream,
    /// From the peer to the engine only.
    Pipe,
    /// AF_UNIX SOCK_SEQPACKET.
    Records,
}

/// One record and the descriptors beside it.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) bytes: VecDeque<u8>,
    pub(super) records: VecDeque<Record>,
    /// Nothing will be added; what is there can still be read.
    pub(super) ended: bool,
    /// Ended by a reset: once what is there is read, reading and writing fail.
    pub(super) reset: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) kind: Kind,
    /// From the peer to the engine.
    pub(super) inward: Flow,
    /// From the engine to the peer.
    pub(super) outward: Flow,
    /// Bytes that `outward` holds at most, as a socket's send buffer does.
    pub(super) window_bytes: usize,
    /// Connections that wait to be accepted.
    pub(super) backlog: VecDeque<WireId>,
    pub(super) peer_closed: bool,
    pub(super) engine_closed: bool,
    pub(super) adopted: bool,
    /// Hears of it when the engine drops a descriptor that it never adopted.
    pub(super) guard: Option<OwnedFd>,
}

/// What the peer can still expect from the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerView {
    Open,
    /// All that the engine sent was read, and it closed its side.
    Ended,
    /// The connection was reset.
    Reset,
}

/// Bytes of a socket's send buffer, unless the test says less.
const WINDOW_BYTES: usize = 256 * 1024;

impl Wire {
    pub(super) fn new(kind: Kind, guard: Option<OwnedFd>) -> Self {
        Self {
            kind,
            inward: Flow::default(),
            outward: Flow::default(),
            window_bytes: WINDOW_BYTES,
            backlog: VecDeque::new(),
            peer_closed: false,
            engine_closed: false,
            adopted: false,
            guard,
        }
    }

    /// The engine's descriptor is closed. A stream with unread input is reset, as TCP and AF_UNIX do.
    pub(super) fn close_engine_side(&mut self) {
        self.engine_closed = true;
        if self.kind == Kind::Stream && !self.inward.bytes.is_empty() {
            self.outward.reset = true;
        }
        self.outward.ended = true;
    }

    /// The peer's descriptor is closed.
    pub(super) fn close_peer_side(&mut self, reset: bool) {
        self.peer_closed = true;
        self.inward.ended = true;
        // Closing with unread input is a reset whatever the dice say.
        if self.kind == Kind::Stream && (reset || !self.outward.bytes.is_empty()) {
            self.inward.reset = true;
        }
        self.outward.bytes.clear();
        self.outward.records.clear();
    }

    pub(super) fn peer_view(&self) -> PeerView {
        // Linux lets a reader have what had arrived before the reset.
        let unread = !self.outward.bytes.is_empty() || !self.outward.records.is_empty();
        match (unread, self.outward.reset, self.outward.ended) {
            (true, ..) | (false, false, false) => PeerView::Open,
            (false, true, _) => PeerView::Reset,
            (false, false, true) => PeerView::Ended,
        }
    }

    /// Looks whether the engine dropped the descriptor instead of adopting it.
    pub(super) fn notice_drop(&mut self) {
        if self.adopted || self.engine_closed {
            return;
        }
        let Some(guard) = &self.guard else { return };
        let mut poll = [PollFd::new(guard, PollFlags::empty())];
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        let hung_up = rustix::event::poll(&mut poll, Some(&now)).is_ok_and(|ready| ready == 1);
        if hung_up && poll[0].revents().contains(PollFlags::HUP) {
            self.close_engine_side();
        }
    }
}
