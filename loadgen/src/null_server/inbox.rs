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
}

impl Inbox {
    /// Number of requests that these bytes complete.
    pub(super) fn take(&mut self, received: &[u8]) -> Result<usize, NotFollowed> {
        let mut count = 0;
        let mut rest = self.skip_body(received, &mut count);
        while !rest.is_empty() {
            let before = self.partial.len();
            let (head_bytes, body_bytes) = if before == 0 {
                match head(rest)? {
                    Some(found) => found,
                    None => return self.keep(rest, count),
                }
            } else {
                self.partial.extend_from_slice(rest);
                if self.partial.len() > INBOX_BYTES_MAX {
                    return Err(NotFollowed);
                }
                match head(&self.partial)? {
                    Some(found) => found,
                    None => return Ok(count),
                }
            };
            self.partial.clear();
            self.body_missing = body_bytes;
            rest = &rest[head_bytes - before..];
            if body_bytes == 0 {
                count += 1;
            } else {
                rest = self.skip_body(rest, &mut count);
            }
        }
        Ok(count)
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

/// Bytes of the head and of the body behind it; `None` while the head is not whole.
fn head(bytes: &[u8]) -> Result<Option<(usize, u64)>, NotFollowed> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let mut body_bytes = 0;
    for line in bytes[..end].split(|byte| *byte == b'\n') {
        if !matches!(line.first(), Some(b'c' | b'C')) {
            continue;
        }
        let Some((name, value)) = line.split_at_checked(15) else { continue };
        if name.eq_ignore_ascii_case(b"content-length:") {
            let text = std::str::from_utf8(value).map_err(|_| NotFollowed)?;
            body_bytes = text.trim().parse().map_err(|_| NotFollowed)?;
        }
    }
    Ok(Some((end + 4, body_bytes)))
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
