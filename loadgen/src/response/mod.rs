//! HTTP/1.1 responses, cut out of a stream that may hold anything (RFC 9112).
//!
//! Owns: what is known of the response under way, and its unfinished line or head. Must not know: sockets, time, which
//! request the response belongs to. Reads hostile bytes: every length is bounded, and what RFC 9112 calls an error is one.

mod head;
#[cfg(test)]
mod tests;
pub mod timing;

use std::time::Duration;

use head::{BodyRule, Head, Parsed};

use crate::bounds::{CHUNK_LINE_BYTES_MAX, HEAD_BYTES_MAX, INTERIM_MAX, TRAILER_BYTES_MAX};

/// What is wrong with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("the status line is not HTTP/1")]
    StatusLine,
    #[error("a header line has no name")]
    HeaderLine,
    #[error("content-length is not one number")]
    ContentLength,
    #[error("both content-length and transfer-encoding are given")]
    TwoLengths,
    #[error("the head is longer than {HEAD_BYTES_MAX} bytes")]
    HeadTooLong,
    #[error("a chunk size is not a hexadecimal number")]
    ChunkSize,
    #[error("a chunk is longer than its size says")]
    ChunkEnd,
    #[error("the trailers are longer than {TRAILER_BYTES_MAX} bytes")]
    TrailersTooLong,
    #[error("more than {INTERIM_MAX} interim responses")]
    InterimTooMany,
    #[error("the server changed the protocol")]
    Upgrade,
    #[error("the connection ended within a response")]
    Truncated,
}

/// Whether the connection can take another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    KeepAlive,
    Close,
}

/// Whether the method lets a response have a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyAllowed {
    Yes,
    /// HEAD: lengths are told, but nothing follows.
    No,
}

/// Whether a head says that the function behind the server failed; the status is 200 even then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionError {
    None,
    Told,
}

/// A complete response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Without framing.
    pub body_bytes: u64,
    pub persistence: Persistence,
    pub function_error: FunctionError,
}

/// What [`ResponseParser::feed`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Bytes used; all of them unless `answer` is there.
    pub consumed: usize,
    pub answer: Option<Answer>,
}

/// Where in a response the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// This many body bytes are missing.
    Length(u64),
    UntilClose,
    ChunkSize,
    /// This many bytes of the chunk are missing.
    ChunkData(u64),
    ChunkEnd,
    Trailers,
}

/// One connection's parser; good for one response after the other.
#[derive(Debug)]
pub struct ResponseParser {
    state: State,
    allowed: BodyAllowed,
    /// Head or line that is not complete yet.
    partial: Vec<u8>,
    answer: Answer,
    interim: usize,
    trailer_bytes: usize,
    /// What the last head told of the time inside of the server, where that is wanted.
    phases: Option<Vec<(String, Duration)>>,
}

const NOTHING_YET: Answer = Answer {
    status: 0,
    body_bytes: 0,
    persistence: Persistence::KeepAlive,
    function_error: FunctionError::None,
};

impl ResponseParser {
    /// A parser for answers to one method.
    pub fn new(allowed: BodyAllowed) -> Self {
        Self {
            state: State::Head,
            allowed,
            partial: Vec::new(),
            answer: NOTHING_YET,
            interim: 0,
            trailer_bytes: 0,
            phases: None,
        }
    }

    /// The same, reading what heads tell of the time inside of the server ([`timing`]).
    #[must_use]
    pub fn with_phases(self) -> Self {
        Self { phases: Some(Vec::new()), ..self }
    }

    /// What the last complete response's head told of them.
    pub fn take_phases(&mut self) -> Vec<(String, Duration)> {
        self.phases.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Forgets a response under way: for a new connection.
    pub fn reset(&mut self) {
        self.state = State::Head;
        self.partial.clear();
        self.answer = NOTHING_YET;
        (self.interim, self.trailer_bytes) = (0, 0);
    }

    /// Whether a response has begun.
    pub fn is_under_way(&self) -> bool {
        self.state != State::Head || !self.partial.is_empty() || self.interim > 0
    }

    /// Reads on; body bytes go to `sink` in order. Stops after one complete response.
    ///
    /// # Errors
    /// The connection is of no more use.
    pub fn feed(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) -> Result<Fed, ParseError> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            if rest.is_empty() {
                return Ok(Fed { consumed: at, answer: None });
            }
            let (used, complete) = match self.state {
                State::Head => self.on_head(rest)?,
                State::Length(missing) => {
                    let (used, missing) = self.on_data(rest, missing, sink);
                    self.state = State::Length(missing);
                    (used, missing == 0)
                }
                State::UntilClose => {
                    let (used, _) = self.on_data(rest, u64::MAX, sink);
                    (used, false)
                }
                State::ChunkSize => (self.on_chunk_size(rest)?, false),
                State::ChunkData(missing) => {
                    let (used, missing) = self.on_data(rest, missing, sink);
                    self.state = if missing == 0 { State::ChunkEnd } else { State::ChunkData(missing) };
                    (used, false)
                }
                State::ChunkEnd => (self.on_chunk_end(rest)?, false),
                State::Trailers => self.on_trailer(rest)?,
            };
            at += used;
            if complete {
                return Ok(Fed { consumed: at, answer: Some(self.finish()) });
            }
        }
    }

    /// The connection ended: the response that this completes, if any.
    ///
    /// # Errors
    /// [`ParseError::Truncated`] when a response had begun that does not end with the connection.
    pub fn end(&mut self) -> Result<Option<Answer>, ParseError> {
        match self.state {
            State::UntilClose => Ok(Some(self.finish())),
            _ if self.is_under_way() => Err(ParseError::Truncated),
            _ => Ok(None),
        }
    }

    fn finish(&mut self) -> Answer {
        let answer = self.answer;
        self.reset();
        answer
    }

    /// Bytes used, and whether the response is complete with its head.
    fn on_head(&mut self, rest: &[u8]) -> Result<(usize, bool), ParseError> {
        if self.partial.is_empty()
            && let Parsed::Complete(head) = head::parse(rest)?
        {
            self.note_phases(&rest[..head.bytes]);
            return Ok((head.bytes, self.begin(&head)?));
        }
        let before = self.partial.len();
        let room = HEAD_BYTES_MAX - before;
        self.partial.extend_from_slice(&rest[..rest.len().min(room)]);
        // The end may lie across the pieces: look again at the last three bytes.
        if !head::has_end(&self.partial[before.saturating_sub(3)..]) {
            if self.partial.len() == HEAD_BYTES_MAX {
                return Err(ParseError::HeadTooLong);
            }
            head::check_start(&self.partial)?;
            return Ok((rest.len(), false));
        }
        let partial = std::mem::take(&mut self.partial);
        let Parsed::Complete(head) = head::parse(&partial)? else { return Err(ParseError::HeaderLine) };
        self.note_phases(&partial[..head.bytes]);
        let complete = self.begin(&head)?;
        // A head of pieces is rare: its memory goes, so that idle connections stay small.
        Ok((head.bytes - before, complete))
    }

    fn note_phases(&mut self, head: &[u8]) {
        if let Some(phases) = &mut self.phases {
            *phases = timing::phases_of(head);
        }
    }

    fn begin(&mut self, head: &Head) -> Result<bool, ParseError> {
        if head.status == 101 {
            return Err(ParseError::Upgrade);
        }
        if head.status < 200 {
            self.interim += 1;
            return if self.interim > INTERIM_MAX { Err(ParseError::InterimTooMany) } else { Ok(false) };
        }
        let Head { status, persistence, function_error, .. } = *head;
        self.answer = Answer { status, body_bytes: 0, persistence, function_error };
        if self.allowed == BodyAllowed::No || head.status == 204 || head.status == 304 {
            return Ok(true);
        }
        match head.body {
            BodyRule::Length(0) => return Ok(true),
            BodyRule::Length(bytes) => self.state = State::Length(bytes),
            BodyRule::Chunked => self.state = State::ChunkSize,
            BodyRule::UntilClose => {
                self.answer.persistence = Persistence::Close;
                self.state = State::UntilClose;
            }
        }
        Ok(false)
    }

    /// Bytes used, and how many are missing then.
    fn on_data(&mut self, rest: &[u8], missing: u64, sink: &mut impl FnMut(&[u8])) -> (usize, u64) {
        let used = usize::try_from(missing).map_or(rest.len(), |missing| missing.min(rest.len()));
        sink(&rest[..used]);
        self.answer.body_bytes = self.answer.body_bytes.saturating_add(used as u64);
        (used, missing - used as u64)
    }

    fn on_chunk_size(&mut self, rest: &[u8]) -> Result<usize, ParseError> {
        let (used, size) = self.line(rest, ParseError::ChunkSize, CHUNK_LINE_BYTES_MAX, chunk_size)?;
        match size {
            None => {}
            Some(0) => self.state = State::Trailers,
            Some(bytes) => self.state = State::ChunkData(bytes),
        }
        Ok(used)
    }

    fn on_chunk_end(&mut self, rest: &[u8]) -> Result<usize, ParseError> {
        let empty = |line: &[u8]| if line.is_empty() { Ok(()) } else { Err(ParseError::ChunkEnd) };
        let (used, done) = self.line(rest, ParseError::ChunkEnd, 2, empty)?;
        if done.is_some() {
            self.state = State::ChunkSize;
        }
        Ok(used)
    }

    fn on_trailer(&mut self, rest: &[u8]) -> Result<(usize, bool), ParseError> {
        let left = TRAILER_BYTES_MAX - self.trailer_bytes;
        let (used, last) = self.line(rest, ParseError::TrailersTooLong, left, |line| Ok(line.is_empty()))?;
        self.trailer_bytes += used;
        if self.trailer_bytes >= TRAILER_BYTES_MAX {
            return Err(ParseError::TrailersTooLong);
        }
        Ok((used, last == Some(true)))
    }

    /// Reads a line of at most `bytes_max` with its end; hands it to `parse` without its end once it is complete.
    fn line<T>(
        &mut self,
        rest: &[u8],
        too_long: ParseError,
        bytes_max: usize,
        parse: impl FnOnce(&[u8]) -> Result<T, ParseError>,
    ) -> Result<(usize, Option<T>), ParseError> {
        let end = memchr::memchr(b'\n', rest);
        let used = end.map_or(rest.len(), |end| end + 1);
        if self.partial.len() + used > bytes_max {
            return Err(too_long);
        }
        if end.is_none() {
            self.partial.extend_from_slice(rest);
            return Ok((used, None));
        }
        let parsed = if self.partial.is_empty() {
            parse(head::trim_end(&rest[..used]))
        } else {
            self.partial.extend_from_slice(&rest[..used]);
            parse(head::trim_end(&self.partial))
        };
        self.partial.clear();
        Ok((used, Some(parsed?)))
    }
}

/// Reads `1*HEXDIG [ chunk-ext ]` (RFC 9112 section 7.1).
fn chunk_size(line: &[u8]) -> Result<u64, ParseError> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let after = line[digits..].trim_ascii_start();
    if digits == 0 || digits > 15 || !matches!(after.first(), None | Some(b';')) {
        return Err(ParseError::ChunkSize);
    }
    let text = std::str::from_utf8(&line[..digits]).map_err(|_| ParseError::ChunkSize)?;
    u64::from_str_radix(text, 16).map_err(|_| ParseError::ChunkSize)
}
