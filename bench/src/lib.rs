//! What the baseline servers of the benchmark share: cutting requests out of a byte stream, and the one answer.
//!
//! Owns: the answer's bytes and the least HTTP that a keep-alive baseline needs.
//! Must not know: sockets, rings, which baseline it serves. It is a stopwatch's counterweight, not a web server: it
//! checks what it relies on and nothing else, so that a baseline is as cheap as its I/O allows.
#![forbid(unsafe_code)]

use memchr::memmem;

/// What every baseline answers; the runner compares the body with what the engine's functions return.
pub const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello world!";

/// Bytes that one connection may hold unread; the runner's requests are far smaller.
pub const INBOX_BYTES: usize = 64 * 1024;

const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";

/// Why a baseline closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("request is larger than {INBOX_BYTES} bytes")]
    TooLarge,
    #[error("content-length is not a number")]
    Length,
    #[error("chunked bodies are not spoken by the baselines")]
    Chunked,
}

/// One connection's unread bytes.
#[derive(Debug)]
pub struct Inbox {
    bytes: Box<[u8]>,
    filled: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { bytes: vec![0; INBOX_BYTES].into_boxed_slice(), filled: 0 }
    }
}

impl Inbox {
    /// The same for bytes that were received elsewhere: whole requests are counted where they stand, and only a rest is
    /// copied.
    ///
    /// # Errors
    /// The connection has to be closed: see [`RequestError`].
    pub fn take_from(&mut self, received: &[u8]) -> Result<usize, RequestError> {
        let (mut rest, mut count) = (received, 0);
        while self.filled == 0
            && let Some(length) = request_bytes(rest)?
        {
            rest = &rest[length..];
            count += 1;
        }
        if rest.is_empty() {
            return Ok(count);
        }
        let room = self.spare().get_mut(..rest.len()).ok_or(RequestError::TooLarge)?;
        room.copy_from_slice(rest);
        Ok(count + self.take_requests(rest.len())?)
    }

    /// Where the next read goes. Never empty: [`Inbox::take_requests`] refuses a request that would fill it.
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// Counts `read` bytes of [`Inbox::spare`] as received, takes out all whole requests and returns their number.
    ///
    /// # Errors
    /// The connection has to be closed: see [`RequestError`].
    pub fn take_requests(&mut self, read: usize) -> Result<usize, RequestError> {
        self.filled += read;
        assert!(self.filled <= self.bytes.len(), "a read cannot return more than it was given room for");
        let (mut at, mut count) = (0, 0);
        while let Some(length) = request_bytes(&self.bytes[at..self.filled])? {
            at += length;
            count += 1;
        }
        self.bytes.copy_within(at..self.filled, 0);
        self.filled -= at;
        if self.filled == self.bytes.len() { Err(RequestError::TooLarge) } else { Ok(count) }
    }
}

/// Length of the whole request at the start of `bytes`, head and body; `None` while some of it is missing.
///
/// # Errors
/// Its body's length cannot be known.
pub fn request_bytes(bytes: &[u8]) -> Result<Option<usize>, RequestError> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let mut body_bytes = 0;
    for line in bytes[..end].split(|byte| *byte == b'\n') {
        // Most lines are told apart by their first letter, without a look at the rest.
        match line.first() {
            Some(b'c' | b'C') if starts_with(line, CONTENT_LENGTH) => {
                body_bytes = number(&line[CONTENT_LENGTH.len()..])?
            }
            Some(b't' | b'T') if starts_with(line, TRANSFER_ENCODING) => return Err(RequestError::Chunked),
            _ => {}
        }
    }
    let whole = end + 4 + body_bytes;
    if whole > INBOX_BYTES {
        Err(RequestError::TooLarge)
    } else {
        Ok((whole <= bytes.len()).then_some(whole))
    }
}

fn starts_with(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

fn number(text: &[u8]) -> Result<usize, RequestError> {
    let digits = text.trim_ascii();
    if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(RequestError::Length);
    }
    Ok(digits.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POST: &[u8] = b"POST /f HTTP/1.1\r\nHost: a\r\ncontent-Length: 2\r\n\r\n{}";
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn bodies_count() {
        assert_eq!(request_bytes(POST), Ok(Some(POST.len())));
        assert_eq!(request_bytes(GET), Ok(Some(GET.len())));
        assert_eq!(request_bytes(&POST[..POST.len() - 1]), Ok(None));
    }

    #[test]
    fn what_cannot_be_framed_is_refused() {
        assert_eq!(request_bytes(b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"), Err(RequestError::Length));
        assert_eq!(request_bytes(b"POST / HTTP/1.1\r\nContent-Length:\r\n\r\n"), Err(RequestError::Length));
        assert_eq!(
            request_bytes(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Err(RequestError::Chunked)
        );
        assert_eq!(
            request_bytes(b"POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n"),
            Err(RequestError::TooLarge)
        );
    }

    #[test]
    fn an_endless_head_is_refused() {
        let mut inbox = Inbox::default();
        inbox.spare().fill(b'a');
        assert_eq!(inbox.take_requests(INBOX_BYTES), Err(RequestError::TooLarge));
    }

    #[test]
    fn the_answer_says_its_own_length() {
        let text = std::str::from_utf8(ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    }

    proptest! {
        #[test]
        fn requests_are_counted_however_the_stream_is_cut(
            kinds in proptest::collection::vec(any::<bool>(), 0..20),
            cuts in proptest::collection::vec(1usize..40, 1..200),
        ) {
            let stream: Vec<u8> = kinds.iter().flat_map(|post| if *post { POST } else { GET }).copied().collect();
            let (mut inbox, mut rest, mut count) = (Inbox::default(), &stream[..], 0);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                inbox.spare()[..now.len()].copy_from_slice(now);
                count += inbox.take_requests(now.len()).unwrap();
                rest = later;
            }
            prop_assert_eq!(count, kinds.len());
        }

        #[test]
        fn bytes_received_elsewhere_count_the_same(
            kinds in proptest::collection::vec(any::<bool>(), 0..20),
            cuts in proptest::collection::vec(1usize..200, 1..50),
        ) {
            let stream: Vec<u8> = kinds.iter().flat_map(|post| if *post { POST } else { GET }).copied().collect();
            let (mut inbox, mut rest, mut count) = (Inbox::default(), &stream[..], 0);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                count += inbox.take_from(now).unwrap();
                rest = later;
            }
            prop_assert_eq!(count, kinds.len());
        }

        #[test]
        fn no_bytes_make_it_panic_or_reach_past_their_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Some(length)) = request_bytes(&bytes) { prop_assert!(length <= bytes.len()); }
        }
    }
}
