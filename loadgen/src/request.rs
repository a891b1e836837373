//! The bytes of a request, and what its answer must be.
//!
//! Owns: nothing. Must not know: connections, time.

use std::sync::Arc;

use crate::response::{Answer, BodyAllowed};
use crate::target::Target;

/// What can be wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the method {0:?} is not a word of upper-case letters")]
    Method(String),
    #[error("the header {0:?} is not of the form `Name: value`")]
    Header(String),
    #[error("the header {0} is written by loadgen itself: leave it out")]
    Framing(String),
    #[error("the status {0:?} is neither a number from 200 to 599 nor a class like 2xx")]
    Status(String),
}

/// Whether a connection serves more than one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    On,
    Off,
}

/// Parts of a request as the user gave them.
#[derive(Debug, Clone)]
pub struct RequestParts {
    pub method: String,
    /// `Name: value` each.
    pub headers: Vec<String>,
    pub body: Vec<u8>,
    pub keep_alive: KeepAlive,
}

/// A request, ready to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    pub bytes: Arc<[u8]>,
    pub answer_body: BodyAllowed,
}

impl Request {
    /// Writes a request out.
    ///
    /// # Errors
    /// A part that cannot be sent.
    pub fn build(target: &Target, parts: &RequestParts) -> Result<Self, RequestError> {
        let method = &parts.method;
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(RequestError::Method(method.clone()));
        }
        let mut head = format!("{method} {} HTTP/1.1\r\n", target.path);
        let mut has_host = false;
        for line in &parts.headers {
            let (name, value) = checked_header(line)?;
            has_host |= name.eq_ignore_ascii_case("host");
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !has_host {
            head.push_str(&format!("Host: {}\r\n", target.host));
        }
        if parts.keep_alive == KeepAlive::Off {
            head.push_str("Connection: close\r\n");
        }
        // RFC 9110 section 8.6: a method that expects content says so even when there is none.
        if !parts.body.is_empty() || matches!(method.as_str(), "POST" | "PUT" | "PATCH") {
            head.push_str(&format!("Content-Length: {}\r\n", parts.body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&parts.body);
        let answer_body = if method == "HEAD" { BodyAllowed::No } else { BodyAllowed::Yes };
        Ok(Self { bytes: bytes.into(), answer_body })
    }
}

fn checked_header(line: &str) -> Result<(&str, &str), RequestError> {
    let refuse = || RequestError::Header(line.to_owned());
    let (name, value) = line.split_once(':').ok_or_else(refuse)?;
    let value = value.trim();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty()
        || !name.bytes().all(is_token)
        || value.bytes().any(|byte| byte < b' ' && byte != b'\t')
    {
        return Err(refuse());
    }
    for own in ["content-length", "transfer-encoding", "connection"] {
        if name.eq_ignore_ascii_case(own) {
            return Err(RequestError::Framing(name.to_owned()));
        }
    }
    Ok((name, value))
}

/// What an answer must be to count as one.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// Bit n stands for status 200 + n.
    statuses: [u64; 7],
    /// The whole body, where it is checked.
    pub body: Option<Arc<[u8]>>,
}

impl Expectation {
    /// `statuses` is a list like `200,404` or `2xx`.
    ///
    /// # Errors
    /// A status that is none.
    pub fn new(statuses: &str, body: Option<Vec<u8>>) -> Result<Self, RequestError> {
        let mut bits = [0; 7];
        for text in statuses.split(',').map(str::trim) {
            let refuse = || RequestError::Status(text.to_owned());
            let range = match text.strip_suffix("xx") {
                Some(class) => {
                    let class: u16 = class.parse().map_err(|_| refuse())?;
                    class.saturating_mul(100)..=class.saturating_mul(100).saturating_add(99)
                }
                None => {
                    let status: u16 = text.parse().map_err(|_| refuse())?;
                    status..=status
                }
            };
            if !(200..=599).contains(range.start()) {
                return Err(refuse());
            }
            range.for_each(|status| bits[usize::from(status - 200) / 64] |= 1 << ((status - 200) % 64));
        }
        Ok(Self { statuses: bits, body: body.map(Into::into) })
    }

    /// Whether the status is one of those expected.
    pub fn takes(&self, answer: &Answer) -> bool {
        let at = usize::from(answer.status.saturating_sub(200));
        answer.status >= 200 && self.statuses.get(at / 64).is_some_and(|bits| bits >> (at % 64) & 1 == 1)
    }
}

/// Compares a body with the expected one while it comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BodyCheck {
    seen: usize,
    differs: bool,
}

impl BodyCheck {
    /// The next bytes of the body.
    pub fn take(&mut self, expected: &[u8], data: &[u8]) {
        let end = self.seen.saturating_add(data.len());
        self.differs |= expected.get(self.seen..end) != Some(data);
        self.seen = end;
    }

    /// Whether the body was the expected one, whole; ready for the next then.
    pub fn finish(&mut self, expected: &[u8]) -> bool {
        let Self { seen, differs } = std::mem::take(self);
        !differs && seen == expected.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::Persistence;

    fn build(parts: &RequestParts) -> Result<String, RequestError> {
        let target = Target::parse("http://127.0.0.1:8080/p?q").unwrap();
        Request::build(&target, parts).map(|it| String::from_utf8(it.bytes.to_vec()).unwrap())
    }

    fn parts() -> RequestParts {
        RequestParts {
            method: "GET".into(),
            headers: Vec::new(),
            body: Vec::new(),
            keep_alive: KeepAlive::On,
        }
    }

    #[test]
    fn requests_are_written_whole() {
        assert_eq!(build(&parts()).unwrap(), "GET /p?q HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n");
        let post = RequestParts {
            method: "POST".into(),
            headers: vec!["Host: other".into(), "X-A:  1 ".into()],
            body: b"hello".to_vec(),
            keep_alive: KeepAlive::Off,
        };
        let wanted = "POST /p?q HTTP/1.1\r\nHost: other\r\nX-A: 1\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(build(&post).unwrap(), wanted);
    }

    #[test]
    fn parts_that_would_break_a_request_are_refused() {
        for header in ["no colon", ": x", "a b: c", "x: 1\r\nEvil: 2"] {
            let refused = build(&RequestParts { headers: vec![header.into()], ..parts() });
            assert_eq!(refused, Err(RequestError::Header(header.into())));
        }
        let refused = build(&RequestParts { headers: vec!["Content-Length: 1".into()], ..parts() });
        assert_eq!(refused, Err(RequestError::Framing("Content-Length".into())));
        let refused = build(&RequestParts { method: "get x".into(), ..parts() });
        assert_eq!(refused, Err(RequestError::Method("get x".into())));
    }

    #[test]
    fn statuses_are_single_or_classes() {
        let answer = |status| Answer { status, body_bytes: 0, persistence: Persistence::KeepAlive };
        let expected = Expectation::new("2xx, 404,599", None).unwrap();
        for (status, taken) in
            [(200, true), (299, true), (300, false), (404, true), (405, false), (599, true), (199, false)]
        {
            assert_eq!(expected.takes(&answer(status)), taken, "{status}");
        }
        for text in ["", "xx", "1xx", "600", "2x", "200,"] {
            assert!(Expectation::new(text, None).is_err(), "{text:?}");
        }
    }

    #[test]
    fn bodies_are_compared_in_pieces_and_to_the_end() {
        let verdict = |pieces: &[&[u8]]| {
            let mut check = BodyCheck::default();
            pieces.iter().for_each(|piece| check.take(b"hello", piece));
            let verdict = check.finish(b"hello");
            assert_eq!(check, BodyCheck::default());
            verdict
        };
        assert!(verdict(&[b"hello"]));
        assert!(verdict(&[b"he", b"", b"llo"]));
        for wrong in [&[&b"hell"[..]][..], &[b"hello", b"x"], &[b"jello"], &[], &[b"he", b"lko"]] {
            assert!(!verdict(wrong), "{wrong:?}");
        }
    }
}
