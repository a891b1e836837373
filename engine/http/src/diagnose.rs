//! Why `httparse` refused a head, in one sentence.
//!
//! Owns: the cold path from a parse error to a [`Reject`]. Must not know: a head that is in order.

use crate::reject::Reject;
use crate::status::Status;

/// A line that does not end with CRLF.
pub(crate) const BARE_LINE_END: Reject = Reject::bad_request(
    "a line of the request head does not end with CR LF; a CR or an LF never stands alone",
);

const BAD_VERSION: Reject =
    Reject::bad_request("the request line does not end with an HTTP version; send HTTP/1.1");

/// The shape of a version; `d` is any digit.
const VERSION_SHAPE: &[u8; 8] = b"HTTP/d.d";

/// The refusal for an error of `httparse` in `window`, which begins with the request line.
#[cold]
pub(crate) fn reject(error: httparse::Error, window: &[u8], has_method: bool) -> Reject {
    match error {
        httparse::Error::TooManyHeaders => {
            Reject::new(Status::HEADER_FIELDS_TOO_LARGE, "the request has more than 96 headers; send fewer")
        }
        httparse::Error::Version => version(window),
        httparse::Error::Token if !has_method => {
            Reject::bad_request("the request does not begin with a method; this port speaks plain HTTP/1.1")
        }
        httparse::Error::Token => {
            Reject::bad_request("the request target is empty or has a character that must be percent-encoded")
        }
        httparse::Error::HeaderName => header_name(window),
        httparse::Error::HeaderValue => Reject::bad_request(
            "a header value has a control character; only printable characters and tabs may be sent",
        ),
        httparse::Error::NewLine | httparse::Error::Status => BARE_LINE_END,
    }
}

const _: () = assert!(faaster_limits::HEADERS_MAX == 96, "the sentence above names the limit");

/// Whether the bytes after the target can still become a version of the right shape: `HTTP/2` is refused as `HTTP/2.0`
/// is, with 505, only once it is there, so that the refusal does not hang on how the bytes were cut.
#[cold]
pub(crate) fn may_become_version(window: &[u8]) -> bool {
    let rest = after_target(window);
    rest.len() < VERSION_SHAPE.len() && has_version_shape(rest)
}

fn version(window: &[u8]) -> Reject {
    let rest = after_target(window);
    let line = rest.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    if line.len() == VERSION_SHAPE.len() && has_version_shape(line) {
        return Reject::new(
            Status::VERSION_NOT_SUPPORTED,
            "this server speaks HTTP/1.1 and HTTP/1.0; send the request as HTTP/1.1",
        );
    }
    BAD_VERSION
}

/// Whether `text` is a version or the beginning of one.
fn has_version_shape(text: &[u8]) -> bool {
    text.len() <= VERSION_SHAPE.len()
        && text
            .iter()
            .zip(VERSION_SHAPE)
            .all(|(byte, shape)| byte == shape || (*shape == b'd' && byte.is_ascii_digit()))
}

fn after_target(window: &[u8]) -> &[u8] {
    window.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default()
}

/// Finds the first line whose name is wrong and says how.
fn header_name(window: &[u8]) -> Reject {
    for line in window.split(|byte| *byte == b'\n').skip(1) {
        let colon = memchr::memchr(b':', line);
        let reason = match (line.first(), colon) {
            (Some(b' ' | b'\t'), _) => {
                "a header line begins with white space; folded headers are obsolete, send one line"
            }
            (_, Some(0)) => "a header has no name before its colon",
            (_, Some(at)) if matches!(line[at - 1], b' ' | b'\t') => {
                "white space stands between a header name and its colon"
            }
            (_, Some(at)) if is_token(&line[..at]) => continue,
            (_, Some(_)) => "a header name has a character that is not allowed in names",
            (_, None) => "a header line has no colon",
        };
        return Reject::bad_request(reason);
    }
    Reject::bad_request("a header name is not valid")
}

/// Whether these bytes are a token (RFC 9110 section 5.6.2), as methods and header names must be.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

/// Whether this byte may stand in a token.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
