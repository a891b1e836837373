//! The chunked transfer coding (RFC 9112 section 7.1), in and out.
//!
//! Owns: the decoder's state machine and the writers of chunk framing. Must not know: how large a body may be
//! ([`BodyReader`](crate::BodyReader) does), where its bytes go.
//!
//! ```text
//! Size -> Digits -+----------------> SizeLf -> Data -> DataCr -> DataLf -> Size      (a chunk)
//!                 +-> Blank -> Ext -/      \-> Line -> EndLf -> Done                 (the last chunk, size 0)
//!                                               Line -> Name -> Value -> LineLf -> Line   (a trailer)
//! any -> Failed
//! ```

#[cfg(test)]
mod tests;

use crate::diagnose::is_token_byte;
use crate::percent::hex_digit;
use crate::reject::Reject;
use crate::status::Status;
use faaster_limits::{CHUNK_LINE_BYTES_MAX, CHUNK_OVERHEAD_BYTES_MAX, TRAILERS_BYTES_MAX};

/// What the decoder awaits. Sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The first digit of a chunk size.
    Size,
    /// More digits of the size, or its end.
    Digits(u64),
    /// The `;` of an extension after white space, which the RFC tolerates there and nowhere else.
    Blank(u64),
    /// The rest of an extension, which is dropped.
    Ext(u64),
    /// The LF of the size line.
    SizeLf(u64),
    /// This much data of the chunk.
    Data(u64),
    /// The CR after the data.
    DataCr,
    /// The LF after the data.
    DataLf,
    /// A trailer line or the empty line after the last chunk.
    Line,
    /// The rest of a trailer's name and its colon.
    Name,
    /// The rest of a trailer's value, which is dropped.
    Value,
    /// The LF of a trailer line.
    LineLf,
    /// The LF of the empty line.
    EndLf,
    /// Nothing: the body is complete.
    Done,
    /// Nothing: the body is refused.
    Failed(Reject),
}

/// What one step found at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkStep {
    /// All the input was framing: `consumed` is its length. Come again with the bytes that follow.
    NeedMore {
        /// Bytes to drop from the input.
        consumed: usize,
    },
    /// `input[consumed_before..consumed_before + len]` is data of the body, and `len` is not zero. The decoder counts
    /// it as taken: the next step's input begins behind it.
    Data {
        /// Bytes of framing before the data, to drop.
        consumed_before: usize,
        /// Bytes of data, to use.
        len: usize,
    },
    /// The body is complete; what follows in the input is the next request.
    Done {
        /// Bytes to drop from the input.
        consumed: usize,
    },
}

/// Decodes a chunked body that comes in pieces of any size, without copying and without allocating.
///
/// Feed it every byte of the body once and in order, in a loop: `step`, drop what it says, `step` on the rest.
/// [`BodyReader`](crate::BodyReader) is that loop. Extensions and trailers are checked, bounded and dropped.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// Bytes of the framing line under way.
    line_bytes: usize,
    /// Bytes of size lines beyond the fair share of their chunks.
    overhead_bytes: usize,
    /// Bytes of all trailer lines.
    trailers_bytes: usize,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkedDecoder {
    /// A decoder before the first byte of a body.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: State::Size, line_bytes: 0, overhead_bytes: 0, trailers_bytes: 0 }
    }

    /// Reads framing up to the next data, the end of the body or the end of the input.
    ///
    /// # Errors
    /// 400 for any departure from the syntax, for a size of 2^64 or more and for framing without measure; 431 for
    /// trailers over their limits. The decoder then stays failed: each further step is the same error.
    pub fn step(&mut self, input: &[u8]) -> Result<ChunkStep, Reject> {
        let mut consumed = 0;
        loop {
            match self.state {
                State::Done => return Ok(ChunkStep::Done { consumed }),
                State::Failed(reject) => return Err(reject),
                State::Data(left) if consumed < input.len() => {
                    let there = input.len() - consumed;
                    let len = usize::try_from(left).map_or(there, |left| left.min(there));
                    let left = left - len as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                    return Ok(ChunkStep::Data { consumed_before: consumed, len });
                }
                _ => {}
            }
            let Some(byte) = input.get(consumed) else { return Ok(ChunkStep::NeedMore { consumed }) };
            match self.advance(*byte) {
                Ok(state) => self.state = state,
                Err(reject) => {
                    self.state = State::Failed(reject);
                    return Err(reject);
                }
            }
            consumed += 1;
        }
    }

    /// Bytes of the current chunk's data that have not come yet; tells a body that will be too large before it comes.
    ///
    /// Zero until the size line is complete, so that a refusal does not depend on how the bytes were cut.
    #[must_use]
    pub fn chunk_left_bytes(&self) -> u64 {
        match self.state {
            State::Data(left) => left,
            _ => 0,
        }
    }

    /// Takes one byte of framing: counts it, then asks the transition function.
    fn advance(&mut self, byte: u8) -> Result<State, Reject> {
        self.line_bytes += 1;
        let is_trailer = matches!(self.state, State::Line | State::Name | State::Value | State::LineLf);
        if is_trailer {
            self.trailers_bytes += 1;
        }
        if is_trailer && (self.line_bytes > CHUNK_LINE_BYTES_MAX || self.trailers_bytes > TRAILERS_BYTES_MAX)
        {
            return Err(Reject::new(
                Status::HEADER_FIELDS_TOO_LARGE,
                "the trailers of the chunked body are too long",
            ));
        }
        if self.line_bytes > CHUNK_LINE_BYTES_MAX {
            return Err(Reject::bad_request(
                "a chunk-size line of the body is too long; send no chunk extensions",
            ));
        }
        let state = next(self.state, byte)?;
        if let (State::SizeLf(size), State::Data(_) | State::Line) = (self.state, state) {
            self.charge(size)?;
        }
        if byte == b'\n' {
            self.line_bytes = 0;
        }
        Ok(state)
    }

    /// Charges a size line against the data that it announces, so that a body of one-byte chunks with long extensions
    /// cannot make the engine read hundreds of times its limit; chunks that are merely small are fine.
    fn charge(&mut self, size: u64) -> Result<(), Reject> {
        let share = usize::try_from(size).unwrap_or(usize::MAX).saturating_mul(2).saturating_add(16);
        self.overhead_bytes = (self.overhead_bytes + self.line_bytes).saturating_sub(share);
        if self.overhead_bytes > CHUNK_OVERHEAD_BYTES_MAX {
            return Err(Reject::bad_request(
                "the chunked body is more chunk extensions than data; send none",
            ));
        }
        Ok(())
    }
}

/// The transition for one byte of framing. Pure; `Data`, `Done` and `Failed` take no framing and do not come here.
fn next(state: State, byte: u8) -> Result<State, Reject> {
    let next = match (state, byte) {
        (State::Size, _) => State::Digits(push_digit(0, byte)?),
        (State::Digits(size) | State::Ext(size), b'\r') => State::SizeLf(size),
        (State::Digits(size) | State::Blank(size), b';') => State::Ext(size),
        (State::Digits(size) | State::Blank(size), b' ' | b'\t') => State::Blank(size),
        (State::Digits(size), _) => State::Digits(push_digit(size, byte)?),
        (State::Ext(size), _) if is_value_byte(byte) => State::Ext(size),
        (State::SizeLf(0), b'\n') => State::Line,
        (State::SizeLf(size), b'\n') => State::Data(size),
        (State::DataCr, b'\r') => State::DataLf,
        (State::DataLf, b'\n') => State::Size,
        (State::Line, b'\r') => State::EndLf,
        (State::EndLf, b'\n') => State::Done,
        (State::Line | State::Name, _) if is_token_byte(byte) => State::Name,
        (State::Name, b':') => State::Value,
        (State::Value, b'\r') => State::LineLf,
        (State::Value, _) if is_value_byte(byte) => State::Value,
        (State::LineLf, b'\n') => State::Line,
        (State::Data(_) | State::Done | State::Failed(_), _) => unreachable!("these states take no framing"),
        (State::DataCr | State::DataLf, _) => {
            return Err(Reject::bad_request(
                "a chunk of the body is not followed by CR LF; its size is wrong",
            ));
        }
        (State::Line | State::Name | State::Value | State::LineLf | State::EndLf, _) => {
            return Err(Reject::bad_request("a trailer line of the chunked body is malformed"));
        }
        (State::Blank(_) | State::Ext(_) | State::SizeLf(_), _) => {
            return Err(Reject::bad_request("a chunk-size line of the body is malformed"));
        }
    };
    Ok(next)
}

fn push_digit(size: u64, byte: u8) -> Result<u64, Reject> {
    let digit =
        hex_digit(byte).ok_or(Reject::bad_request("a chunk size of the body is not a hexadecimal number"))?;
    if size >> 60 != 0 {
        return Err(Reject::bad_request("a chunk size of the body is 2^64 or more"));
    }
    Ok(size << 4 | u64::from(digit))
}

/// What may stand in a value or an extension: tab, printable ASCII, bytes above it.
fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Appends the size line of a chunk. Then come its `len_bytes` bytes, then [`write_chunk_end`].
///
/// # Panics
/// If `len_bytes` is 0: such a chunk would end the body. Skip an empty piece.
pub fn write_chunk_head(out: &mut Vec<u8>, len_bytes: usize) {
    assert!(len_bytes > 0, "an empty chunk ends the body");
    let digits = (usize::BITS - len_bytes.leading_zeros()).div_ceil(4);
    for index in (0..digits).rev() {
        out.push(b"0123456789abcdef"[len_bytes >> (4 * index) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the line end that follows the data of a chunk.
pub fn write_chunk_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk: the body is complete, without trailers.
pub fn write_last_chunk(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n\r\n");
}
