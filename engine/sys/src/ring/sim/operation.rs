//! One operation of a simulated ring.
//!
//! Owns: what was asked, and completions that were made but not delivered. Must not know: wires, buffers.

use std::collections::VecDeque;

use rustix::io::Errno;

use super::super::{Armed, Completion, Group, Received, Sock, Token};
use super::wire::WireId;

/// What was asked.
#[derive(Debug)]
pub(super) enum Kind {
    Accept,
    Receive(Group),
    Read(Group),
    Message,
    Send { buffer: Vec<u8>, from: usize },
    Bell,
}

/// Where an operation is in its life.
///
/// ```text
/// queued --submitted--> live --(last completion made)--> over --(delivered)--> (removed)
///                        | \--cancel, late--> stopping --time--^
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Queued,
    Live,
    /// Cancelled, but works until then.
    Stopping {
        at_ns: u64,
    },
    /// Its last completion is made.
    Over,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) token: Token,
    pub(super) kind: Kind,
    pub(super) sock: Sock,
    /// `None`: a real descriptor (the doorbell).
    pub(super) wire: Option<WireId>,
    pub(super) stage: Stage,
    /// Does nothing before this time.
    pub(super) not_before_ns: u64,
    pub(super) ready: VecDeque<Completion>,
}

impl Op {
    pub(super) fn new(token: Token, kind: Kind, sock: Sock) -> Self {
        Self { token, kind, sock, wire: None, stage: Stage::Queued, not_before_ns: 0, ready: VecDeque::new() }
    }

    pub(super) fn is_working(&self) -> bool {
        matches!(self.stage, Stage::Live | Stage::Stopping { .. })
    }

    /// Makes the last completion of an operation that fails.
    pub(super) fn fail(&mut self, errno: Errno) {
        let token = self.token;
        let completion = match &mut self.kind {
            Kind::Accept => Completion::Accepted { token, result: Err(errno), armed: Armed::No },
            Kind::Receive(_) | Kind::Read(_) => {
                Completion::Received { token, received: Received::Failed(errno), armed: Armed::No }
            }
            Kind::Message => Completion::Message { token, result: Err(errno) },
            Kind::Send { buffer, .. } => {
                Completion::Sent { token, result: Err(errno), buffer: std::mem::take(buffer) }
            }
            Kind::Bell => Completion::Rung { token },
        };
        self.finish(completion);
    }

    /// Adds the last completion.
    pub(super) fn finish(&mut self, completion: Completion) {
        assert!(self.stage != Stage::Over, "an operation ends once");
        self.ready.push_back(completion);
        self.stage = Stage::Over;
    }

    /// Adds a completion; the operation goes on if it is `Armed::Yes`.
    pub(super) fn complete(&mut self, completion: Completion, armed: Armed) {
        match armed {
            Armed::Yes => self.ready.push_back(completion),
            Armed::No => self.finish(completion),
        }
    }
}
