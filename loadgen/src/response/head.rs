//! The head of a response: status line and the three headers that say how the body ends (RFC 9112 sections 4 to 6).
//!
//! Owns: nothing. Must not know: that heads come in pieces; it is asked again with all of one.

use memchr::memchr;

use super::{FunctionError, ParseError, Persistence};

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyRule {
    Length(u64),
    Chunked,
    UntilClose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) body: BodyRule,
    pub(super) persistence: Persistence,
    pub(super) function_error: FunctionError,
    /// With the empty line.
    pub(super) bytes: usize,
}

pub(super) enum Parsed {
    Complete(Head),
    Partial,
}

const STATUS_LINE: &[u8] = b"HTTP/1.";
/// FaaSter's and Lambda's word for a function that failed.
const FUNCTION_ERROR: [&[u8]; 2] = [b"x-easyfaas-function-error", b"x-amz-function-error"];

/// Whether what has come so far can be a response, so that a server of another protocol is noticed at once.
pub(super) fn check_start(bytes: &[u8]) -> Result<(), ParseError> {
    let length = bytes.len().min(STATUS_LINE.len());
    if bytes[..length] == STATUS_LINE[..length] { Ok(()) } else { Err(ParseError::StatusLine) }
}

/// Whether an empty line is in there.
pub(super) fn has_end(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes)
        .any(|at| bytes[at + 1..].starts_with(b"\n") || bytes[at + 1..].starts_with(b"\r\n"))
}

/// Without the line's end.
pub(super) fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Reads a head that begins with the first byte.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, ParseError> {
    let Some(end) = memchr(b'\n', bytes) else { return Ok(Parsed::Partial) };
    let (status, mut persistence) = status_line(trim_end(&bytes[..=end]))?;
    let (mut length, mut coding) = (None, None);
    let mut function_error = FunctionError::None;
    let mut at = end + 1;
    loop {
        let Some(end) = memchr(b'\n', &bytes[at..]) else { return Ok(Parsed::Partial) };
        let line = trim_end(&bytes[at..=at + end]);
        at += end + 1;
        match line.first() {
            None => break,
            Some(b'c' | b'C') => {
                if let Some(value) = value_of(line, b"content-length") {
                    let bytes = content_length(value)?;
                    if length.is_some_and(|other| other != bytes) {
                        return Err(ParseError::ContentLength);
                    }
                    length = Some(bytes);
                } else if let Some(value) = value_of(line, b"connection") {
                    persistence = connection(value).unwrap_or(persistence);
                } else {
                    check_name(line)?;
                }
            }
            Some(b't' | b'T') => match value_of(line, b"transfer-encoding") {
                Some(value) => coding = Some(transfer_coding(value)),
                None => check_name(line)?,
            },
            Some(b'x' | b'X') => {
                check_name(line)?;
                if FUNCTION_ERROR.iter().any(|name| value_of(line, name).is_some()) {
                    function_error = FunctionError::Told;
                }
            }
            Some(_) => check_name(line)?,
        }
    }
    let body = match (length, coding) {
        (Some(_), Some(_)) => return Err(ParseError::TwoLengths),
        (Some(length), None) => BodyRule::Length(length),
        (None, Some(coding)) => coding,
        (None, None) => BodyRule::UntilClose,
    };
    Ok(Parsed::Complete(Head { status, body, persistence, function_error, bytes: at }))
}

/// Reads `HTTP/1.1 200 OK`; the reason may be missing.
fn status_line(line: &[u8]) -> Result<(u16, Persistence), ParseError> {
    let rest = line.strip_prefix(STATUS_LINE).ok_or(ParseError::StatusLine)?;
    let (persistence, digits) = match rest {
        [b'0', b' ', digits @ ..] => (Persistence::Close, digits),
        [b'1', b' ', digits @ ..] => (Persistence::KeepAlive, digits),
        _ => return Err(ParseError::StatusLine),
    };
    let (code, after) = digits.split_at_checked(3).ok_or(ParseError::StatusLine)?;
    if !code.iter().all(u8::is_ascii_digit) || !matches!(after.first(), None | Some(b' ')) {
        return Err(ParseError::StatusLine);
    }
    let status = code.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    if (100..=599).contains(&status) { Ok((status, persistence)) } else { Err(ParseError::StatusLine) }
}

fn check_name(line: &[u8]) -> Result<(), ParseError> {
    // Folded lines begin with a space and are an error outside of message/http (RFC 9112 section 5.2).
    match memchr(b':', line) {
        Some(at) if at > 0 && line[0] > b' ' && line[at - 1] > b' ' => Ok(()),
        _ => Err(ParseError::HeaderLine),
    }
}

pub(super) fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn content_length(value: &[u8]) -> Result<u64, ParseError> {
    // 18 digits cannot overflow, and nobody has sent more.
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(ParseError::ContentLength);
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// The last coding decides; anything but chunked ends with the connection (RFC 9112 section 6.3).
fn transfer_coding(value: &[u8]) -> BodyRule {
    let last = value.rsplit(|byte| *byte == b',').next().unwrap_or(value).trim_ascii();
    if last.eq_ignore_ascii_case(b"chunked") { BodyRule::Chunked } else { BodyRule::UntilClose }
}

fn connection(value: &[u8]) -> Option<Persistence> {
    let mut tokens = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    if tokens.clone().any(|token| token.eq_ignore_ascii_case(b"close")) {
        return Some(Persistence::Close);
    }
    tokens.any(|token| token.eq_ignore_ascii_case(b"keep-alive")).then_some(Persistence::KeepAlive)
}
