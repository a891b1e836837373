//! A request head, parsed in place.
//!
//! Owns: the request line, the limits of a head, and the rules that `httparse` leaves open (it takes a bare LF as a line
//! end and knows nothing of framing). Must not know: which methods and paths exist.
//!
//! `httparse` finds the pieces with SIMD; then one pass over the parsed fields (`fields`) decides framing, persistence
//! and expectation, and `target` takes the request target apart. Nothing is copied.

#[cfg(test)]
mod tests;

use crate::diagnose;
use crate::fields;
use crate::reject::Reject;
use crate::status::Status;
use crate::target;
use faaster_limits::{EMPTY_LINES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, METHOD_BYTES_MAX, TARGET_BYTES_MAX};
use std::mem::MaybeUninit;

/// A header field: its name (a token, as sent) and its value without the white space around it.
///
/// The value may hold bytes above 0x7f, but no control character except the tab.
pub use httparse::Header;

/// The version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// What becomes of the connection after the answer (RFC 9112 section 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Another request may follow.
    KeepAlive,
    /// The answer is the last one.
    Close,
}

/// What the client waits for before it sends the body (RFC 9110 section 10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Nothing.
    None,
    /// `100 Continue`; only ever said of a request that has a body.
    Continue,
}

/// How the end of the body is found (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// The body has this many bytes, possibly zero.
    Length(u64),
    /// The body is in the chunked coding.
    Chunked,
}

/// The method. Methods are case-sensitive: `get` is [`Method::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// PATCH
    Patch,
    /// OPTIONS
    Options,
    /// Any other token; see [`Head::method_text`].
    Other,
}

impl Method {
    fn of(text: &[u8]) -> Self {
        match text {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"PATCH" => Self::Patch,
            b"OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }
}

/// A complete request head. `'b` is the caller's bytes, `'h` the caller's [`Scratch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'h, 'b> {
    /// The method.
    pub method: Method,
    /// The method as sent.
    pub method_text: &'b [u8],
    /// The request target as sent: ASCII without controls, spaces and `#`.
    pub target: &'b [u8],
    /// The raw path up to `?`, still percent-encoded; begins with `/`, or is `*` for `OPTIONS *`. Of an absolute target
    /// it is the path alone. Dot segments and double slashes are as sent.
    pub path: &'b [u8],
    /// What follows the `?`, raw; `None` without `?`.
    pub query: Option<&'b [u8]>,
    /// Host and port that the request is for: of an absolute target, else of `Host`. Always there in HTTP/1.1,
    /// possibly empty.
    pub host: Option<&'b [u8]>,
    /// The version.
    pub version: Version,
    /// All fields in the order sent.
    pub headers: &'h [Header<'b>],
    /// How the end of the body is found.
    pub framing: Framing,
    /// What the client wants of the connection.
    pub persistence: Persistence,
    /// What the client waits for.
    pub expectation: Expectation,
    /// Bytes that the head takes, with empty lines before it; the body begins here.
    pub bytes: usize,
}

impl<'b> Head<'_, 'b> {
    /// The value of the first field with this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }
}

/// What [`parse`] made of the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'h, 'b> {
    /// No mistake so far, but the head does not end here; call again with more bytes, from the same start. Only ever
    /// said of fewer than `HEAD_BYTES_MAX` bytes.
    Partial,
    /// The head is complete.
    Complete(Head<'h, 'b>),
}

/// Room for the fields of one head. Making one costs nothing: it is not initialized.
#[derive(Debug)]
pub struct Scratch<'b> {
    headers: [MaybeUninit<Header<'b>>; HEADERS_MAX],
}

impl Scratch<'_> {
    /// Room for `HEADERS_MAX` fields, about 3 KiB of stack.
    #[must_use]
    #[inline]
    pub const fn new() -> Self {
        Self { headers: [const { MaybeUninit::uninit() }; HEADERS_MAX] }
    }
}

impl Default for Scratch<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// Parses the head at the start of `bytes` (RFC 9112 sections 2 to 3 and 5 to 7).
///
/// Each call begins at the first byte again; a caller whose head comes in many small pieces asks
/// [`HeadProgress`](crate::HeadProgress) when a call is worth it. Whatever the pieces, the outcome is the same.
///
/// # Errors
/// * 400 malformed, ambiguous framing, bad or missing `Host`
/// * 414 target over `TARGET_BYTES_MAX`, also while the request line is incomplete
/// * 417 an expectation other than `100-continue`
/// * 431 head over `HEAD_BYTES_MAX` or more than `HEADERS_MAX` fields, also while incomplete
/// * 501 a transfer coding before `chunked`, CONNECT, a method over `METHOD_BYTES_MAX`
/// * 505 a version other than HTTP/1.0 and HTTP/1.1
pub fn parse<'h, 'b>(bytes: &'b [u8], scratch: &'h mut Scratch<'b>) -> Result<Parsed<'h, 'b>, Reject> {
    let empty_bytes = skip_empty_lines(bytes)?;
    let window = &bytes[empty_bytes..bytes.len().min(HEAD_BYTES_MAX)];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(window, &mut scratch.headers) {
        Ok(httparse::Status::Complete(len)) => {
            complete(&window[..len], request, empty_bytes).map(Parsed::Complete)
        }
        Ok(httparse::Status::Partial) => partial(window, &request, empty_bytes),
        Err(httparse::Error::Version) if diagnose::may_become_version(window) => {
            partial(window, &request, empty_bytes)
        }
        Err(error) => Err(diagnose::reject(error, window, request.method.is_some())),
    }
}

/// Bytes of the empty lines before the request line, which RFC 9112 section 2.2 asks to skip (old clients send one after
/// a body).
fn skip_empty_lines(bytes: &[u8]) -> Result<usize, Reject> {
    let mut skipped = 0;
    loop {
        match &bytes[skipped..] {
            [b'\r', b'\n', ..] if skipped == 2 * EMPTY_LINES_MAX => {
                return Err(Reject::bad_request("too many empty lines before the request line"));
            }
            [b'\r', b'\n', ..] => skipped += 2,
            [b'\n', ..] => return Err(diagnose::BARE_LINE_END),
            _ => return Ok(skipped),
        }
    }
}

fn partial<'h, 'b>(
    window: &[u8],
    request: &httparse::Request<'_, '_>,
    empty_bytes: usize,
) -> Result<Parsed<'h, 'b>, Reject> {
    // A piece that is not complete has at least the bytes that are there.
    let method_bytes = request.method.map_or(window.len(), str::len);
    let target_bytes = request.path.map_or(window.len().saturating_sub(method_bytes + 1), str::len);
    check_request_line(method_bytes, target_bytes)?;
    if empty_bytes + window.len() >= HEAD_BYTES_MAX {
        return Err(Reject::new(
            Status::HEADER_FIELDS_TOO_LARGE,
            "the request line and the headers have more than 65536 bytes; send fewer or shorter headers",
        ));
    }
    Ok(Parsed::Partial)
}

fn check_request_line(method_bytes: usize, target_bytes: usize) -> Result<(), Reject> {
    if method_bytes > METHOD_BYTES_MAX {
        return Err(Reject::new(
            Status::NOT_IMPLEMENTED,
            "the method has more than 32 bytes; no such method exists",
        ));
    }
    if target_bytes > TARGET_BYTES_MAX {
        return Err(Reject::new(
            Status::URI_TOO_LONG,
            "the request target has more than 8192 bytes; send the data in the body",
        ));
    }
    Ok(())
}

// The sentences above name the limits.
const _: () = assert!(HEAD_BYTES_MAX == 65_536 && TARGET_BYTES_MAX == 8192 && METHOD_BYTES_MAX == 32);

fn complete<'h, 'b>(
    head: &'b [u8],
    request: httparse::Request<'h, 'b>,
    empty_bytes: usize,
) -> Result<Head<'h, 'b>, Reject> {
    let method_text = request.method.expect("httparse sets the method of a complete request").as_bytes();
    let target = request.path.expect("httparse sets the path of a complete request").as_bytes();
    let headers: &'h [Header<'b>] = request.headers;
    check_request_line(method_text.len(), target.len())?;
    // httparse takes LF for CRLF, but lets no CR pass that is not followed by LF: if there are as many CR as lines
    // (the request line, the fields, the empty line), then every line ends with CRLF.
    if memchr::memchr_iter(b'\r', head).count() != headers.len() + 2 {
        return Err(diagnose::BARE_LINE_END);
    }
    let version = match request.version {
        Some(0) => Version::Http10,
        _ => Version::Http11,
    };
    let method = Method::of(method_text);
    let fields = fields::read(headers, version)?;
    let target_parts = target::read(method, method_text, target)?;
    Ok(Head {
        method,
        method_text,
        target,
        path: target_parts.path,
        query: target_parts.query,
        host: target_parts.authority.or(fields.host),
        version,
        headers,
        framing: fields.framing,
        persistence: fields.persistence,
        expectation: fields.expectation,
        bytes: empty_bytes + head.len(),
    })
}
