//! HTTP triggers: a request becomes an event, a function's result becomes a response (FaaSter pkg/httptrigger).
//!
//! Owns: both shapes, and what of a function's headers may reach the client. Must not know: paths, accounts, sockets.
//! Event: `{"httpMethod","headers","queryStringParameters","body"}`. Result: `{"isBase64Encoded","statusCode","headers",
//! "body"}`; anything else is the body itself.

use std::borrow::Cow;

use base64::Engine as _;
use serde_json::value::RawValue;

use crate::easyfaas::{errors, headers, json, query};

/// What of a client's request goes into its event.
#[derive(Debug)]
pub struct TriggerRequest<'b, H> {
    pub method: &'b [u8],
    /// Without the `?`, as it stood in the request line.
    pub query: Option<&'b [u8]>,
    /// Name and value pairs as received, hop-by-hop ones included.
    pub headers: H,
    pub body: &'b [u8],
}

/// Appends the event. Keys stand in FaaSter's order: members as above, headers and parameters sorted.
///
/// Differs from FaaSter where that loses data: repeated headers are joined with `, ` (FaaSter: the last), and a body
/// that is no UTF-8 comes as base64 with `"isBase64Encoded":true` at the end (FaaSter: replacement characters).
pub fn append_event<'b, H>(out: &mut Vec<u8>, request: TriggerRequest<'b, H>)
where
    H: IntoIterator<Item = (&'b [u8], &'b [u8])>,
{
    out.extend_from_slice(b"{\"httpMethod\":");
    json::append_text(out, request.method);
    out.extend_from_slice(b",\"headers\":");
    let is_bson = append_headers(out, request.headers, request.body.len());
    out.extend_from_slice(b",\"queryStringParameters\":");
    append_parameters(out, request.query);
    out.extend_from_slice(b",\"body\":");
    match (is_bson, std::str::from_utf8(request.body)) {
        (BodyKind::Text, Ok(text)) => json::append(out, text),
        _ => {
            out.push(b'"');
            let encoded = base64::engine::general_purpose::STANDARD.encode(request.body);
            out.extend_from_slice(encoded.as_bytes());
            out.extend_from_slice(b"\",\"isBase64Encoded\":true");
        }
    }
    out.push(b'}');
}

/// What the Content-Type says of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyKind {
    Text,
    /// `application/bson`, the one type that FaaSter encodes.
    Binary,
}

fn append_headers<'b>(
    out: &mut Vec<u8>,
    headers: impl IntoIterator<Item = (&'b [u8], &'b [u8])>,
    body_bytes: usize,
) -> BodyKind {
    let mut kind = BodyKind::Text;
    let mut number = itoa::Buffer::new();
    let mut fields: Vec<(Vec<u8>, &[u8])> = Vec::new();
    for (name, value) in headers {
        let name = canonical_name(name);
        // The body is whole here, whatever its framing was.
        if name == b"Content-Length" || name == b"Transfer-Encoding" {
            continue;
        }
        if name == b"Content-Type" && value == b"application/bson" {
            kind = BodyKind::Binary;
        }
        fields.push((name, value));
    }
    fields.push((b"Content-Length".to_vec(), number.format(body_bytes).as_bytes()));
    // Stable: repeated headers keep their order.
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    out.push(b'{');
    for (index, same) in fields.chunk_by(|a, b| a.0 == b.0).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let name = &same[0].0;
        json::append_text(out, name);
        out.push(b':');
        if let [(_, only)] = same {
            json::append_text(out, only);
        } else {
            let separator: &[u8] = if name == b"Cookie" { b"; " } else { b", " };
            let values: Vec<&[u8]> = same.iter().map(|(_, value)| *value).collect();
            json::append_text(out, &values.join(separator));
        }
    }
    out.push(b'}');
    kind
}

fn append_parameters(out: &mut Vec<u8>, raw: Option<&[u8]>) {
    let decoded =
        |(name, value)| (query::decode(name, query::Plus::Space), query::decode(value, query::Plus::Space));
    let mut parameters: Vec<_> = query::pairs(raw.unwrap_or_default()).map(decoded).collect();
    parameters.sort_by(|a, b| a.0.cmp(&b.0));
    out.push(b'{');
    for (index, same) in parameters.chunk_by(|a, b| a.0 == b.0).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let (name, last) = same.last().expect("chunk_by makes no empty chunk");
        json::append_text(out, name);
        out.push(b':');
        json::append_text(out, last);
    }
    out.push(b'}');
}

/// `x-a` and `X-A` become `X-A`, as FaaSter's HTTP library spells every header.
pub fn canonical_name(name: &[u8]) -> Vec<u8> {
    let mut upper = true;
    name.iter()
        .map(|byte| {
            let spelled = if upper { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() };
            upper = *byte == b'-';
            spelled
        })
        .collect()
}

/// A function's result as an HTTP response.
#[derive(Debug, PartialEq, Eq)]
pub struct TriggerAnswer<'r> {
    pub status: u16,
    /// Whole lines, each with CR LF: Content-Type and what the function gave. Content-Length, Date, Server and
    /// Connection are the shard's.
    pub header_lines: Vec<u8>,
    pub body: Cow<'r, [u8]>,
    pub shape: Shape,
}

/// Whether the result was a response or just a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// An object with a valid `statusCode`: only its own headers go out.
    Proxy,
    /// Anything else: FaaSter adds the headers of a plain invocation.
    Plain,
}

/// Why a function's response cannot be sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TriggerError {
    #[error("function answered with the header name {0:?}, which HTTP does not allow")]
    HeaderName(String),
    #[error("function answered with a value of the header {0:?} that has control characters in it")]
    HeaderValue(String),
}

#[derive(serde::Deserialize)]
struct ProxyResponse<'r> {
    #[serde(rename = "isBase64Encoded", default, borrow)]
    is_base64_encoded: Option<&'r RawValue>,
    #[serde(rename = "statusCode", default, borrow)]
    status_code: Option<&'r RawValue>,
    #[serde(default, borrow)]
    headers: Option<&'r RawValue>,
    #[serde(default, borrow)]
    body: Option<&'r RawValue>,
}

/// Reads a result.
///
/// An object with a `statusCode` of 200 to 599 is a response; another JSON object is `application/json` with status 200;
/// everything else `text/plain`. (A final 1xx would break the client's connection, so it counts as no status.)
///
/// # Errors
/// A header that would split the response or that no client could read. The call is then answered as
/// [`append_bad_response`] says.
pub fn interpret(result: &[u8]) -> Result<TriggerAnswer<'_>, TriggerError> {
    let is_object = result.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if !is_object {
        let is_null = result.trim_ascii() == b"null";
        return Ok(plain(result, if is_null { "application/json" } else { "text/plain" }));
    }
    let Ok(response) = serde_json::from_slice::<ProxyResponse<'_>>(result) else {
        return Ok(plain(result, "text/plain"));
    };
    let status = response.status_code.and_then(|raw| raw.get().parse::<u16>().ok());
    let Some(status) = status.filter(|status| (200..=599).contains(status)) else {
        return Ok(plain(result, "application/json"));
    };
    let Some(body) = body_of(&response) else {
        return Ok(plain(result, "application/json"));
    };
    let mut header_lines = Vec::new();
    let mut has_type = false;
    for (name, value) in header_pairs(response.headers) {
        let line = checked_name(&name)?;
        if is_ours(&line) {
            continue;
        }
        has_type |= line == b"Content-Type";
        append_line(&mut header_lines, &line, checked_value(&name, &value)?);
    }
    // RFC 9110, 15.3.5 and 15.4.5: these two never have a body.
    let body = if matches!(status, 204 | 304) { Cow::Borrowed(&b""[..]) } else { body };
    if !has_type && !body.is_empty() {
        append_line(&mut header_lines, b"Content-Type", headers::TEXT.as_bytes());
    }
    Ok(TriggerAnswer { status, header_lines, body, shape: Shape::Proxy })
}

fn plain<'r>(result: &'r [u8], content_type: &str) -> TriggerAnswer<'r> {
    let mut header_lines = Vec::new();
    append_line(&mut header_lines, b"Content-Type", content_type.as_bytes());
    TriggerAnswer { status: 200, header_lines, body: Cow::Borrowed(result), shape: Shape::Plain }
}

/// `None` where the body claims to be base64 and is not.
fn body_of<'r>(response: &ProxyResponse<'r>) -> Option<Cow<'r, [u8]>> {
    let text: Cow<'r, str> = match response.body.map(RawValue::get) {
        None | Some("null") => Cow::Borrowed(""),
        Some(raw) if raw.starts_with('"') => json_text(raw)?,
        // An object or a number: FaaSter refuses the whole response; the text of the value is what was meant.
        Some(raw) => Cow::Borrowed(raw),
    };
    if response.is_base64_encoded.map(RawValue::get) == Some("true") {
        return base64::engine::general_purpose::STANDARD.decode(text.as_bytes()).ok().map(Cow::Owned);
    }
    Some(match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    })
}

/// A JSON string's text, borrowed where it has no escapes.
fn json_text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(raw).ok().map(Cow::Owned)
}

/// Name and value of every header; a value that is no text (a number, a boolean) is its JSON, null is left out.
fn header_pairs(raw: Option<&RawValue>) -> Vec<(String, String)> {
    let Some(raw) = raw else { return Vec::new() };
    let Ok(map) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(raw.get()) else {
        return Vec::new();
    };
    map.into_iter()
        .filter_map(|(name, value)| match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some((name, text)),
            other => Some((name, other.to_string())),
        })
        .collect()
}

/// RFC 9110, 5.6.2: a field name is a token.
fn checked_name(name: &str) -> Result<Vec<u8>, TriggerError> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(TriggerError::HeaderName(name.to_owned()));
    }
    Ok(canonical_name(name.as_bytes()))
}

/// RFC 9110, 5.5: CR, LF and NUL are dangerous, the other controls invalid; a tab is not.
fn checked_value<'v>(name: &str, value: &'v str) -> Result<&'v [u8], TriggerError> {
    if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(TriggerError::HeaderValue(name.to_owned()));
    }
    Ok(value.trim().as_bytes())
}

/// Hop-by-hop headers (RFC 9110, 7.6.1) and those that the shard writes itself.
fn is_ours(name: &[u8]) -> bool {
    const OURS: [&[u8]; 11] = [
        b"Connection",
        b"Keep-Alive",
        b"Proxy-Connection",
        b"Proxy-Authenticate",
        b"Te",
        b"Trailer",
        b"Transfer-Encoding",
        b"Upgrade",
        b"Content-Length",
        b"Date",
        b"Server",
    ];
    OURS.contains(&name)
}

fn append_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Appends the body of the answer when the function failed: status 500, `application/json; charset=utf-8`, and only the
/// message of the error (golden case 143).
pub fn append_function_error(out: &mut Vec<u8>, error: &[u8]) {
    #[derive(serde::Deserialize)]
    struct Message {
        #[serde(rename = "errorMessage")]
        message: String,
    }
    match serde_json::from_slice::<Message>(error) {
        Ok(Message { message }) => errors::append_error_message(out, &message),
        // "Process exited ..." and the like are plain text.
        Err(_) => errors::append_error_message(out, &String::from_utf8_lossy(error)),
    }
}

/// Appends the body of the answer when the engine failed with status 500 or more: FaaSter wraps that body. Says the status.
pub fn append_engine_error(out: &mut Vec<u8>, status: u16, body: &[u8]) -> u16 {
    errors::append(out, errors::ErrorCode::Internal, &String::from_utf8_lossy(body), None);
    status
}

/// Appends the body for a response that cannot be sent. Says the status, 502.
pub fn append_bad_response(out: &mut Vec<u8>, error: &TriggerError) -> u16 {
    errors::append(out, errors::ErrorCode::BadGateway, "function response error", Some(&error.to_string()))
}

#[cfg(test)]
#[path = "trigger_tests.rs"]
mod tests;
