//! Why a request is refused: a status and one sentence.
//!
//! Owns: the value that every parser of this crate fails with. Must not know: how an answer is written.

use crate::status::Status;

/// A request that is refused because of its syntax, its framing or its size.
///
/// The connection cannot be used any further: answer, close the sending side, linger, close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {reason}", status.code())]
pub struct Reject {
    /// The status of the answer.
    pub status: Status,
    /// One sentence for the answer's body that says what was wrong and what to do.
    pub reason: &'static str,
}

impl Reject {
    /// A refusal with any status.
    #[must_use]
    pub const fn new(status: Status, reason: &'static str) -> Self {
        Self { status, reason }
    }

    /// A refusal with 400 Bad Request.
    #[must_use]
    pub const fn bad_request(reason: &'static str) -> Self {
        Self::new(Status::BAD_REQUEST, reason)
    }
}
