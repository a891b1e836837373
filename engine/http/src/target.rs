//! The request target in its four forms (RFC 9112 section 3.2), and the syntax of a host.
//!
//! Owns: the cut into authority, path and query. Must not know: what a path means, percent-encoding.

use crate::parse::Method;
use crate::reject::Reject;
use crate::status::Status;
use std::net::Ipv6Addr;

/// The parts of a target, raw.
pub(crate) struct Target<'b> {
    pub(crate) path: &'b [u8],
    pub(crate) query: Option<&'b [u8]>,
    /// Host and port of an absolute target, which then stand for `Host`.
    pub(crate) authority: Option<&'b [u8]>,
}

/// Takes a target apart. It has no controls, no space and at least one byte: `httparse` has seen to that.
///
/// # Errors
/// 400 for a form that is not right for the method, 501 for CONNECT.
pub(crate) fn read<'b>(method: Method, method_text: &[u8], target: &'b [u8]) -> Result<Target<'b>, Reject> {
    if !target.is_ascii() {
        return Err(Reject::bad_request(
            "the request target has bytes that are not ASCII; percent-encode them",
        ));
    }
    if method == Method::Other && method_text == b"CONNECT" {
        return Err(connect(target));
    }
    match target {
        [b'/', ..] => cut(target, None),
        [b'*'] if method == Method::Options => Ok(Target { path: target, query: None, authority: None }),
        [b'*', ..] => Err(Reject::bad_request("the request target * is for the method OPTIONS alone")),
        _ => absolute(target),
    }
}

/// Cuts an origin-form at its `?`.
fn cut<'b>(target: &'b [u8], authority: Option<&'b [u8]>) -> Result<Target<'b>, Reject> {
    let (path, query) = match memchr::memchr2(b'?', b'#', target) {
        None => (target, None),
        Some(at) => (&target[..at], target[at..].strip_prefix(b"?")),
    };
    let has_fragment = match query {
        Some(query) => memchr::memchr(b'#', query).is_some(),
        None => path.len() < target.len(),
    };
    if has_fragment {
        return Err(Reject::bad_request(
            "the request target has a fragment; leave out the # and what follows, or send %23",
        ));
    }
    let path = if path.is_empty() { &b"/"[..] } else { path };
    Ok(Target { path, query, authority })
}

/// `http://host:port/path?query`, which every server must accept (RFC 9112 section 3.2.2).
fn absolute(target: &[u8]) -> Result<Target<'_>, Reject> {
    let scheme_bytes = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .map(<[u8]>::len)
        .ok_or(Reject::bad_request(
            "the request target is neither a path that begins with / nor an http:// address",
        ))?;
    let rest = &target[scheme_bytes..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, path_and_query) = rest.split_at(end);
    if !is_authority(authority) {
        return Err(Reject::bad_request("the host in the request target is not a host name or address"));
    }
    cut(path_and_query, Some(authority))
}

fn connect(target: &[u8]) -> Reject {
    if is_authority(target) && memchr::memrchr(b':', target).is_some() {
        Reject::new(Status::NOT_IMPLEMENTED, "this server is no proxy; the method CONNECT is not known here")
    } else {
        Reject::bad_request("the target of CONNECT is not a host and a port")
    }
}

/// Whether this is `uri-host [ ":" port ]` with a host that is not empty (RFC 3986 section 3.2.2); user information
/// is refused.
pub(crate) fn is_authority(text: &[u8]) -> bool {
    if let [b'[', rest @ ..] = text {
        let Some(end) = memchr::memchr(b']', rest) else { return false };
        return is_ipv6(&rest[..end]) && is_port_part(&rest[end + 1..]);
    }
    let end = memchr::memchr(b':', text).unwrap_or(text.len());
    let (host, port_part) = text.split_at(end);
    !host.is_empty() && is_reg_name(host) && is_port_part(port_part)
}

fn is_ipv6(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// Nothing, or a colon and a decimal number up to 65535, possibly without digits.
fn is_port_part(text: &[u8]) -> bool {
    match text {
        [] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5
                && digits.iter().all(u8::is_ascii_digit)
                && digits.iter().fold(0_u32, |value, digit| value * 10 + u32::from(digit - b'0')) <= 65_535
        }
        _ => false,
    }
}

/// A registered name or an IPv4 address: unreserved characters, sub-delimiters and escapes. The comma is left out: two
/// hosts that a proxy joined are not one host.
fn is_reg_name(host: &[u8]) -> bool {
    let mut rest = host;
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
            _ if REG_NAME_BYTES[usize::from(*first)] => after,
            _ => return false,
        };
    }
    true
}

/// Which bytes stand for themselves in a registered name.
static REG_NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 0x80 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b';'
                    | b'='
            );
        byte += 1;
    }
    table
};
