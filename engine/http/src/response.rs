//! Answers: status line and headers, appended to a buffer of the caller.
//!
//! Owns: the spelling of an answer's head, and the check that no header value can break out of its line.
//! Must not know: which answer is right, bodies.
//!
//! An answer is [`start`], headers in any order, [`end_head`], then the body; or, for the common one,
//! [`Template::append_ok`].

use crate::date::{DATE_BYTES, DateCache};
use crate::diagnose::is_token;
use crate::parse::Version;
use crate::status::Status;

/// The value of `Server`.
pub const SERVER: &str = "faaster";

/// Why a header is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The name is empty or has a character that names cannot have.
    #[error("header name is not a token")]
    Name,
    /// The value has CR, LF, NUL or another control character than the tab.
    #[error("header value has a control character")]
    Value,
}

/// Begins an answer: the status line.
///
/// `version` is the answer's: HTTP/1.1 is right for a client of either version (RFC 9110 section 2.5).
pub fn start(out: &mut Vec<u8>, version: Version, status: Status) {
    out.extend_from_slice(match version {
        Version::Http10 => b"HTTP/1.0 ",
        Version::Http11 => b"HTTP/1.1 ",
    });
    out.extend_from_slice(&status.digits());
    out.push(b' ');
    out.extend_from_slice(status.phrase().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends one header.
///
/// # Errors
/// A name or a value that would break the answer; `out` is then as it was.
pub fn header(out: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), HeaderError> {
    if !is_token(name) {
        return Err(HeaderError::Name);
    }
    if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(HeaderError::Value);
    }
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Whether the engine alone may send this header: it frames the answer or speaks for one connection. A function's own
/// value of it must be dropped (RFC 9110 section 7.6.1).
#[must_use]
pub fn is_reserved(name: &[u8]) -> bool {
    const RESERVED: [&[u8]; 8] = [
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ];
    RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
}

/// Appends `Content-Length`, in bytes.
pub fn content_length(out: &mut Vec<u8>, len_bytes: u64) {
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(itoa::Buffer::new().format(len_bytes).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends `Transfer-Encoding: chunked`; only for an answer to HTTP/1.1.
pub fn transfer_chunked(out: &mut Vec<u8>) {
    out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
}

/// Appends `Date`.
pub fn date(out: &mut Vec<u8>, date: &DateCache) {
    out.extend_from_slice(b"Date: ");
    out.extend_from_slice(date.text());
    out.extend_from_slice(b"\r\n");
}

/// Appends `Server`.
pub fn server(out: &mut Vec<u8>) {
    out.extend_from_slice(b"Server: ");
    out.extend_from_slice(SERVER.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends `Connection: close`: this answer is the last one.
pub fn connection_close(out: &mut Vec<u8>) {
    out.extend_from_slice(b"Connection: close\r\n");
}

/// Appends `Connection: keep-alive`, which an HTTP/1.0 client that asked for it needs to see.
pub fn connection_keep_alive(out: &mut Vec<u8>) {
    out.extend_from_slice(b"Connection: keep-alive\r\n");
}

/// Ends the head of an answer.
pub fn end_head(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// Appends the interim answer that lets a client send its body.
pub fn continue_100(out: &mut Vec<u8>) {
    start(out, Version::Http11, Status::CONTINUE);
    end_head(out);
}

/// The head of the common answer, ready to copy: `200 OK` with `Server`, `Date` and `Content-Type`.
#[derive(Clone, Debug)]
pub struct Template {
    head: Vec<u8>,
    date_at: usize,
    date: DateCache,
}

impl Template {
    /// A template for `text/plain; charset=utf-8`.
    #[must_use]
    pub fn new(date: &DateCache) -> Self {
        Self::with_content_type(date, b"text/plain; charset=utf-8").expect("the value is printable")
    }

    /// A template for any content type.
    ///
    /// # Errors
    /// A content type that cannot stand in a header.
    pub fn with_content_type(date: &DateCache, content_type: &[u8]) -> Result<Self, HeaderError> {
        let mut head = Vec::with_capacity(128 + content_type.len());
        start(&mut head, Version::Http11, Status::OK);
        server(&mut head);
        head.extend_from_slice(b"Date: ");
        let date_at = head.len();
        head.extend_from_slice(date.text());
        head.extend_from_slice(b"\r\n");
        header(&mut head, b"Content-Type", content_type)?;
        head.extend_from_slice(b"Content-Length: ");
        Ok(Self { head, date_at, date: *date })
    }

    /// Takes over another second, in place; cheap to call before each answer.
    pub fn refresh(&mut self, date: &DateCache) {
        if date.unix_s() != self.date.unix_s() {
            self.head[self.date_at..self.date_at + DATE_BYTES].copy_from_slice(date.text());
            self.date = *date;
        }
    }

    /// Appends the whole head of a `200 OK` whose body has `body_len_bytes` bytes; the body comes next.
    #[inline]
    pub fn append_ok(&self, out: &mut Vec<u8>, body_len_bytes: u64) {
        self.append_ok_open(out, body_len_bytes);
        end_head(out);
    }

    /// Like [`Template::append_ok`] without the end: more headers may follow, then [`end_head`].
    #[inline]
    pub fn append_ok_open(&self, out: &mut Vec<u8>, body_len_bytes: u64) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(itoa::Buffer::new().format(body_len_bytes).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests;
