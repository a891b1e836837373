//! Counting the requests in a stream.
//!
//! Owns: the unfinished request of one connection. Must not know: answers.

use memchr::memmem;

/// Bytes that one connection may hold unread.
const INBOX_BYTES_MAX: usize = 1024 * 1024;

/// A stream that cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotFollowed;

#[derive(Debug, Default)]
pub(super) struct Inbox {
    partial: Vec<u8>,
    /// Bytes of a body that are still to come, beyond those in `partial`.
    body_missing: u64,
    ending: bool,
}

/// What a request's head says.
struct Head {
    bytes: usize,
    body_bytes: u64,
    /// It asks for the connection to be closed after the answer.
    closes: bool,
}

impl Inbox {
    /// Number of requests that these bytes complete.
    pub(super) fn take(&mut self, received: &[u8]) -> Result<usize, NotFollowed> {
        let mut count = 0;
        let mut rest = self.skip_body(received, &mut count);
        while !rest.is_empty() {
            let before = self.partial.len();
            let head = if before == 0 {
                match read_head(rest)? {
                    Some(found) => found,
                    None => return self.keep(rest, count),
                }
            } else {
                self.partial.extend_from_slice(rest);
                if self.partial.len() > INBOX_BYTES_MAX {
                    return Err(NotFollowed);
                }
                match read_head(&self.partial)? {
                    Some(found) => found,
                    None => return Ok(count),
                }
            };
            self.partial.clear();
            self.body_missing = head.body_bytes;
            self.ending |= head.closes;
            rest = &rest[head.bytes - before..];
            if head.body_bytes == 0 {
                count += 1;
            } else {
                rest = self.skip_body(rest, &mut count);
            }
        }
        Ok(count)
    }

    /// Whether a request asked for the connection to be closed.
    pub(super) fn is_ending(&self) -> bool {
        self.ending
    }

    fn keep(&mut self, rest: &[u8], count: usize) -> Result<usize, NotFollowed> {
        self.partial.extend_from_slice(rest);
        Ok(count)
    }

    fn skip_body<'r>(&mut self, rest: &'r [u8], count: &mut usize) -> &'r [u8] {
        if self.body_missing == 0 {
            return rest;
        }
        let used = usize::try_from(self.body_missing).map_or(rest.len(), |missing| missing.min(rest.len()));
        self.body_missing -= used as u64;
        *count += usize::from(self.body_missing == 0);
        &rest[used..]
    }
}

/// Reads the head at the start of the bytes; `None` while it is not whole.
fn read_head(bytes: &[u8]) -> Result<Option<Head>, NotFollowed> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let mut head = Head { bytes: end + 4, body_bytes: 0, closes: false };
    for line in bytes[..end].split(|byte| *byte == b'\n') {
        if !matches!(line.first(), Some(b'c' | b'C')) {
            continue;
        }
        if let Some(value) = value_of(line, b"content-length:") {
            let text = std::str::from_utf8(value).map_err(|_| NotFollowed)?;
            head.body_bytes = text.parse().map_err(|_| NotFollowed)?;
        } else if let Some(value) = value_of(line, b"connection:") {
            head.closes = value.eq_ignore_ascii_case(b"close");
        }
    }
    Ok(Some(head))
}

fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn requests_are_counted_however_they_are_cut(
            bodies in proptest::collection::vec(0usize..50, 1..8),
            cuts in proptest::collection::vec(1usize..80, 1..6),
        ) {
            let mut stream = Vec::new();
            for body in &bodies {
                stream.extend_from_slice(format!("POST / HTTP/1.1\r\ncontent-length: {body}\r\n\r\n").as_bytes());
                stream.extend(std::iter::repeat_n(b'\n', *body));
            }
            let (mut inbox, mut count, mut rest) = (Inbox::default(), 0, stream.as_slice());
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                count += inbox.take(piece).unwrap();
                rest = after;
            }
            prop_assert_eq!(count, bodies.len());
        }
    }

    #[test]
    fn a_length_that_is_no_number_ends_the_connection() {
        assert_eq!(Inbox::default().take(b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"), Err(NotFollowed));
    }
}
