//! The header fields that decide where a request ends and what becomes of its connection.
//!
//! Owns: `Host`, `Content-Length`, `Transfer-Encoding`, `Connection`, `Expect`: one pass over the parsed fields.
//! Must not know: any other field. Where the RFC lets a server repair an ambiguous framing, this refuses it: what one
//! server repairs, the proxy in front of it may have read differently, and that is request smuggling.

use crate::parse::{Expectation, Framing, Header, Persistence, Version};
use crate::reject::Reject;
use crate::status::Status;
use crate::target;

/// What the fields say.
pub(crate) struct Fields<'b> {
    pub(crate) host: Option<&'b [u8]>,
    pub(crate) framing: Framing,
    pub(crate) persistence: Persistence,
    pub(crate) expectation: Expectation,
}

/// The fields as far as they have been read.
struct Seen<'b> {
    host: Option<&'b [u8]>,
    content_length: Option<u64>,
    transfer: Transfer,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

/// The list of transfer codings so far, over all `Transfer-Encoding` fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transfer {
    /// No such field.
    Absent,
    /// Codings, none of which is `chunked`.
    Unknown,
    /// `chunked` alone.
    Chunked,
    /// Other codings and then `chunked`.
    UnknownThenChunked,
}

/// Reads the fields of a request (RFC 9112 sections 3.2, 6 and 9.3, RFC 9110 section 10.1.1).
///
/// # Errors
/// 400, 417 or 501, as [`crate::parse::parse`] lists them.
pub(crate) fn read<'b>(headers: &[Header<'b>], version: Version) -> Result<Fields<'b>, Reject> {
    let mut seen = Seen {
        host: None,
        content_length: None,
        transfer: Transfer::Absent,
        close: false,
        keep_alive: false,
        expects_continue: false,
    };
    for header in headers {
        let name = header.name.as_bytes();
        let Some(first) = name.first() else { continue };
        // Length and first letter rule out nearly every other name before any comparison.
        match (name.len(), first | 0x20) {
            (4, b'h') if name.eq_ignore_ascii_case(b"host") => seen.take_host(header.value)?,
            (6, b'e') if name.eq_ignore_ascii_case(b"expect") => seen.take_expect(header.value, version)?,
            (10, b'c') if name.eq_ignore_ascii_case(b"connection") => seen.take_connection(header.value),
            (14, b'c') if name.eq_ignore_ascii_case(b"content-length") => {
                seen.take_content_length(header.value)?
            }
            (17, b't') if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                seen.take_transfer(header.value)?
            }
            _ => {}
        }
    }
    seen.finish(version)
}

impl<'b> Seen<'b> {
    fn take_host(&mut self, value: &'b [u8]) -> Result<(), Reject> {
        if self.host.is_some() {
            return Err(Reject::bad_request("the request has more than one Host header; send exactly one"));
        }
        // An empty value is right for a target without an authority (RFC 9110 section 7.2).
        if !value.is_empty() && !target::is_authority(value) {
            return Err(Reject::bad_request(
                "the Host header is not a host name or address with an optional port",
            ));
        }
        self.host = Some(value);
        Ok(())
    }

    fn take_content_length(&mut self, value: &[u8]) -> Result<(), Reject> {
        if self.content_length.is_some() {
            return Err(Reject::bad_request(
                "the request has more than one Content-Length header; send exactly one",
            ));
        }
        self.content_length = Some(decimal(value).ok_or(Reject::bad_request(
            "the Content-Length header is not one decimal number below 2^64; send the number of bytes of the body",
        ))?);
        Ok(())
    }

    fn take_transfer(&mut self, value: &[u8]) -> Result<(), Reject> {
        for coding in elements(value) {
            let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.transfer = match self.transfer {
                _ if coding.is_empty() => return Err(Reject::bad_request("a transfer coding has no name")),
                Transfer::Chunked | Transfer::UnknownThenChunked => {
                    return Err(Reject::bad_request(
                        "in Transfer-Encoding, chunked must stand once and at the end; send just \"chunked\"",
                    ));
                }
                Transfer::Absent if is_chunked => Transfer::Chunked,
                Transfer::Unknown if is_chunked => Transfer::UnknownThenChunked,
                Transfer::Absent | Transfer::Unknown => Transfer::Unknown,
            };
        }
        Ok(())
    }

    fn take_connection(&mut self, value: &[u8]) {
        for option in elements(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn take_expect(&mut self, value: &[u8], version: Version) -> Result<(), Reject> {
        for expectation in elements(value) {
            if !expectation.eq_ignore_ascii_case(b"100-continue") {
                return Err(Reject::new(
                    Status::EXPECTATION_FAILED,
                    "the Expect header asks for something other than 100-continue; leave it out",
                ));
            }
        }
        // From HTTP/1.0 the expectation must be ignored (RFC 9110 section 10.1.1).
        self.expects_continue = version == Version::Http11;
        Ok(())
    }

    fn finish(self, version: Version) -> Result<Fields<'b>, Reject> {
        if self.host.is_none() && version == Version::Http11 {
            return Err(Reject::bad_request("an HTTP/1.1 request must have a Host header"));
        }
        let framing = self.framing(version)?;
        let persistence = match version {
            _ if self.close => Persistence::Close,
            Version::Http10 if !self.keep_alive => Persistence::Close,
            Version::Http10 | Version::Http11 => Persistence::KeepAlive,
        };
        let expectation = match framing {
            Framing::None | Framing::Length(0) => Expectation::None,
            _ if self.expects_continue => Expectation::Continue,
            _ => Expectation::None,
        };
        Ok(Fields { host: self.host, framing, persistence, expectation })
    }

    fn framing(&self, version: Version) -> Result<Framing, Reject> {
        if self.transfer == Transfer::Absent {
            return Ok(self.content_length.map_or(Framing::None, Framing::Length));
        }
        if self.content_length.is_some() {
            return Err(Reject::bad_request(
                "the request has both Content-Length and Transfer-Encoding; send only one of them",
            ));
        }
        if version == Version::Http10 {
            return Err(Reject::bad_request("HTTP/1.0 has no Transfer-Encoding; send Content-Length"));
        }
        match self.transfer {
            Transfer::Chunked => Ok(Framing::Chunked),
            // The end of the body cannot be found: RFC 9112 section 6.3 demands 400.
            Transfer::Unknown | Transfer::Absent => Err(Reject::bad_request(
                "in Transfer-Encoding, chunked must stand at the end; send just \"chunked\" or a Content-Length",
            )),
            Transfer::UnknownThenChunked => Err(Reject::new(
                Status::NOT_IMPLEMENTED,
                "the only transfer coding that is known here is chunked; send the body without another one",
            )),
        }
    }
}

/// The elements of a comma-separated list without the white space around them; an empty list has one empty element.
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(|element| {
        let start = element.iter().position(|byte| !is_blank(*byte)).unwrap_or(element.len());
        let end = element.iter().rposition(|byte| !is_blank(*byte)).map_or(start, |last| last + 1);
        &element[start..end]
    })
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// `1*DIGIT`, nothing else, below 2^64.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}
