//! The reading side of a connection: when a head is worth parsing, and which bytes are its body.
//!
//! Owns: progress through one head ([`HeadProgress`]) and through one body ([`BodyReader`]). Must not know: sockets,
//! deadlines, pipelines; the order of requests and answers is the shard's.

use crate::body::{ChunkStep, ChunkedDecoder};
use crate::parse::Framing;
use crate::reject::Reject;
use crate::status::Status;
use faaster_limits::HEAD_BYTES_MAX;

/// Whether it is worth calling [`parse`](crate::parse()) on the bytes at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Parse: the head may be complete, or so much came that a mistake should be found now.
    Parse,
    /// Wait for more bytes.
    Wait,
}

/// Tells when to parse a head that comes in many small pieces.
///
/// [`parse`](crate::parse()) begins at the first byte each time: a head of 64 KiB in pieces of one byte would cost two
/// gigabytes of parsing. This looks at each new byte once and says `Parse` when an empty line came or the bytes have
/// doubled, which makes the whole cost linear. Make a new one for each head.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadProgress {
    seen_bytes: usize,
    next_attempt_bytes: usize,
}

impl HeadProgress {
    /// Before the first byte of a head.
    #[must_use]
    pub const fn new() -> Self {
        Self { seen_bytes: 0, next_attempt_bytes: 0 }
    }

    /// Looks at all the bytes of the head so far: those of the last call and what came since.
    pub fn observe(&mut self, bytes: &[u8]) -> Attempt {
        let due = bytes.len() >= self.next_attempt_bytes || has_empty_line(bytes, self.seen_bytes);
        self.seen_bytes = bytes.len();
        if !due {
            return Attempt::Wait;
        }
        self.next_attempt_bytes = (bytes.len() * 2).min(HEAD_BYTES_MAX);
        Attempt::Parse
    }
}

/// Whether an LF at or after `from` ends an empty line, be it LF alone: such a head is refused, and at once.
fn has_empty_line(bytes: &[u8], from: usize) -> bool {
    let new = bytes.get(from..).unwrap_or_default();
    memchr::memchr_iter(b'\n', new).any(|at| {
        let before = &bytes[..from + at];
        before.ends_with(b"\n") || before.ends_with(b"\n\r")
    })
}

/// What [`BodyReader::feed`] made of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Bytes of the input that belong to the body. All of it unless `done`; then the next request begins here.
    pub consumed: usize,
    /// Whether the body is complete.
    pub done: bool,
}

/// Reads one body, of either framing, in pieces of any size, and holds it to a limit.
#[derive(Clone, Debug)]
pub struct BodyReader {
    kind: Kind,
    received_bytes: u64,
    limit_bytes: u64,
}

#[derive(Clone, Debug)]
enum Kind {
    /// This many bytes are still to come.
    Length(u64),
    Chunked(ChunkedDecoder),
}

const TOO_LARGE: Reject =
    Reject::new(Status::CONTENT_TOO_LARGE, "the request body is larger than is allowed here; send less");

impl BodyReader {
    /// A reader before the first byte of a body that may have `limit_bytes` bytes of data.
    ///
    /// # Errors
    /// 413 if `Content-Length` already says more.
    pub fn new(framing: Framing, limit_bytes: u64) -> Result<Self, Reject> {
        let kind = match framing {
            Framing::None => Kind::Length(0),
            Framing::Length(length) if length > limit_bytes => return Err(TOO_LARGE),
            Framing::Length(length) => Kind::Length(length),
            Framing::Chunked => Kind::Chunked(ChunkedDecoder::new()),
        };
        Ok(Self { kind, received_bytes: 0, limit_bytes })
    }

    /// Takes the next bytes of the connection; passes the data among them to `sink`, in order and in place.
    ///
    /// A body without bytes is done at the first call, also with empty input. After it is done, nothing is consumed.
    ///
    /// # Errors
    /// 413 as soon as the limit is known to be crossed, 400 or 431 for broken chunks. The reader then stays failed.
    /// Data that `sink` got before is not to be used.
    pub fn feed(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) -> Result<Fed, Reject> {
        match &mut self.kind {
            Kind::Length(left) => {
                let len = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                if len > 0 {
                    sink(&input[..len]);
                }
                *left -= len as u64;
                self.received_bytes += len as u64;
                Ok(Fed { consumed: len, done: *left == 0 })
            }
            Kind::Chunked(decoder) => {
                feed_chunked(decoder, &mut self.received_bytes, self.limit_bytes, input, sink)
            }
        }
    }

    /// Bytes of data so far, without framing.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Bytes of the whole body if they are known before it ends; at most the limit, so it may be used to reserve room.
    #[must_use]
    pub fn length_bytes(&self) -> Option<u64> {
        match self.kind {
            Kind::Length(left) => Some(self.received_bytes + left),
            Kind::Chunked(_) => None,
        }
    }
}

fn feed_chunked(
    decoder: &mut ChunkedDecoder,
    received_bytes: &mut u64,
    limit_bytes: u64,
    input: &[u8],
    sink: &mut impl FnMut(&[u8]),
) -> Result<Fed, Reject> {
    let mut consumed = 0;
    loop {
        let step = decoder.step(&input[consumed..])?;
        let data = match step {
            ChunkStep::Data { consumed_before, len } => {
                consumed += consumed_before;
                &input[consumed..consumed + len]
            }
            ChunkStep::NeedMore { .. } | ChunkStep::Done { .. } => &[],
        };
        // What the current chunk announces counts before it is there. The sum never shrinks: over the limit it stays so.
        *received_bytes += data.len() as u64;
        if received_bytes.saturating_add(decoder.chunk_left_bytes()) > limit_bytes {
            return Err(TOO_LARGE);
        }
        match step {
            ChunkStep::Data { len, .. } => {
                sink(data);
                consumed += len;
            }
            ChunkStep::NeedMore { consumed: framing } => {
                return Ok(Fed { consumed: consumed + framing, done: false });
            }
            ChunkStep::Done { consumed: framing } => {
                return Ok(Fed { consumed: consumed + framing, done: true });
            }
        }
    }
}

#[cfg(test)]
mod tests;
