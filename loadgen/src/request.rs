//! The bytes of a request, and what its answer must be.
//!
//! Owns: nothing. Must not know: connections, time.

use std::sync::Arc;

use crate::response::{Answer, BodyAllowed, FunctionError};
use crate::sign::{Ahead, Claim, Identity, Material, SigningEffort};
use crate::target::Target;
use crate::template::{Source, Template, TemplateError, push_number};

/// What can be wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the method {0:?} is not a word of upper-case letters")]
    Method(String),
    #[error("the header {0:?} is not of the form `Name: value`")]
    Header(String),
    #[error("the header {0} is written by loadgen itself: leave it out")]
    Framing(String),
    #[error(transparent)]
    Template(#[from] TemplateError),
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
    pub placeholders: Placeholders,
    /// Who signs them, where that is asked for.
    pub identity: Option<Identity>,
}

/// Whether a thread's requests differ from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sameness {
    Same,
    Varied,
}

/// Whether `{{...}}` in path, headers and body stands for numbers (see [`crate::template`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholders {
    Replaced,
    Kept,
}

/// A request, ready to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    form: Form,
    pub answer_body: BodyAllowed,
}

#[derive(Debug, Clone)]
enum Form {
    /// The same bytes every time.
    Fixed(Arc<[u8]>),
    Varied(Arc<Varied>),
    Signed(Arc<Varied>, Identity),
}

#[derive(Debug)]
struct Varied {
    head: Template,
    body: Template,
    length: Length,
}

impl Varied {
    fn sameness(&self) -> Sameness {
        if self.head.is_fixed() && self.body.is_fixed() { Sameness::Same } else { Sameness::Varied }
    }

    fn render(&self, source: &mut Source, out: &mut Material) {
        self.body.write(source, &mut out.body);
        self.head.write(source, &mut out.head);
    }
}

/// Whether a request tells its body's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Told,
    Untold,
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
        let expects_content = matches!(method.as_str(), "POST" | "PUT" | "PATCH");
        let length = if parts.body.is_empty() && !expects_content { Length::Untold } else { Length::Told };
        let answer_body = if method == "HEAD" { BodyAllowed::No } else { BodyAllowed::Yes };
        let template = |text: &[u8]| match parts.placeholders {
            Placeholders::Replaced => Template::parse(text),
            Placeholders::Kept => Ok(Template::literal(text)),
        };
        let varied = Varied { head: template(head.as_bytes())?, body: template(&parts.body)?, length };
        if let Some(identity) = &parts.identity {
            return Ok(Self { form: Form::Signed(Arc::new(varied), identity.clone()), answer_body });
        }
        if varied.sameness() == Sameness::Varied {
            return Ok(Self { form: Form::Varied(Arc::new(varied)), answer_body });
        }
        let mut bytes = head.into_bytes();
        end_head(&mut bytes, length, parts.body.len());
        bytes.extend_from_slice(&parts.body);
        Ok(Self { form: Form::Fixed(bytes.into()), answer_body })
    }

    /// One of the requests.
    pub fn example(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        RequestWriter::new(self.clone(), Source::new(0, 0, 1)).fill(&mut bytes, 1, 1);
        bytes
    }
}

fn end_head(out: &mut Vec<u8>, length: Length, body_bytes: usize) {
    if length == Length::Told {
        out.extend_from_slice(b"Content-Length: ");
        push_number(out, body_bytes as u64);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes one thread's requests.
#[derive(Debug)]
pub struct RequestWriter {
    request: Request,
    source: Source,
    body: Vec<u8>,
    /// Where requests are signed.
    ahead: Option<Ahead>,
}

impl RequestWriter {
    /// A writer whose numbers come from `source`.
    pub fn new(request: Request, source: Source) -> Self {
        let ahead = match &request.form {
            Form::Fixed(_) | Form::Varied(_) => None,
            Form::Signed(varied, identity) => Some(Ahead::new(identity.clone(), varied.sameness())),
        };
        Self { request, source, body: Vec::new(), ahead }
    }

    /// Whether there is a request to make ahead, when there is time.
    pub fn is_short(&self) -> bool {
        self.ahead.as_ref().is_some_and(Ahead::is_short)
    }

    /// Makes a request ahead.
    pub fn make_one(&mut self) {
        if let (Some(ahead), Form::Signed(varied, _)) = (&mut self.ahead, &self.request.form) {
            ahead.make_one(&mut |out| varied.render(&mut self.source, out));
        }
    }

    /// One more request is due.
    pub fn claim(&mut self) -> Claim {
        match (&mut self.ahead, &self.request.form) {
            (Some(ahead), Form::Signed(varied, _)) => {
                ahead.claim(&mut |out| varied.render(&mut self.source, out))
            }
            _ => Claim::Ready,
        }
    }

    /// So many requests that were due will not go out.
    pub fn unclaim(&mut self, count: usize) {
        if let Some(ahead) = &mut self.ahead {
            ahead.unclaim(count);
        }
    }

    /// Signs anew what would soon be too old; to be called now and then.
    pub fn renew(&mut self) {
        if let Some(ahead) = &mut self.ahead {
            ahead.renew();
        }
    }

    /// What signing took so far, where requests are signed.
    pub fn signing(&self) -> Option<SigningEffort> {
        self.ahead.as_ref().map(Ahead::effort)
    }

    /// Puts `count` requests into a connection's buffer and says from where on they are to be sent. `most` is the
    /// largest count that this buffer will ever see; what it holds is kept where it can be used again.
    pub fn fill(&mut self, buffer: &mut Vec<u8>, count: usize, most: usize) -> usize {
        assert!(count <= most);
        match &self.request.form {
            Form::Fixed(bytes) => {
                if buffer.is_empty() {
                    *buffer = bytes.repeat(most);
                }
                // It holds as many as fit the pipeline; the last ones of them are as good as any.
                buffer.len() - count * bytes.len()
            }
            Form::Varied(varied) => {
                buffer.clear();
                for _ in 0..count {
                    self.body.clear();
                    varied.body.write(&mut self.source, &mut self.body);
                    varied.head.write(&mut self.source, buffer);
                    end_head(buffer, varied.length, self.body.len());
                    buffer.extend_from_slice(&self.body);
                }
                0
            }
            Form::Signed(varied, _) => {
                buffer.clear();
                let ahead = self.ahead.as_mut().expect("made with the writer of a signed request");
                for _ in 0..count {
                    ahead.next(&mut |out| varied.render(&mut self.source, out), &mut |head, body| {
                        buffer.extend_from_slice(head);
                        end_head(buffer, varied.length, body.len());
                        buffer.extend_from_slice(body);
                    });
                }
                0
            }
        }
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
    pub function_errors: FunctionErrors,
}

/// Whether an answer with a good status that says that the function failed has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionErrors {
    Counted,
    Ignored,
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
        let (body, function_errors) = (body.map(Into::into), FunctionErrors::Ignored);
        Ok(Self { statuses: bits, body, function_errors })
    }

    /// The same, with answers of functions: they fail with status 200.
    #[must_use]
    pub fn of_functions(self) -> Self {
        Self { function_errors: FunctionErrors::Counted, ..self }
    }

    /// Whether the answer is a function's error.
    pub fn sees_function_error(&self, answer: &Answer) -> bool {
        self.function_errors == FunctionErrors::Counted && answer.function_error == FunctionError::Told
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
        Request::build(&target, parts).map(|it| String::from_utf8(it.example()).unwrap())
    }

    fn parts() -> RequestParts {
        RequestParts {
            method: "GET".into(),
            headers: Vec::new(),
            body: Vec::new(),
            keep_alive: KeepAlive::On,
            placeholders: Placeholders::Kept,
            identity: None,
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
            placeholders: Placeholders::Kept,
            identity: None,
        };
        let wanted = "POST /p?q HTTP/1.1\r\nHost: other\r\nX-A: 1\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(build(&post).unwrap(), wanted);
    }

    #[test]
    fn varied_requests_tell_their_own_length() {
        let target = Target::parse("http://127.0.0.1:8080/f{{counter}}").unwrap();
        let varied = RequestParts {
            method: "POST".into(),
            headers: vec!["X-N: {{counter}}".into()],
            body: b"{{counter}}{{counter}}{\"a\":{}}".to_vec(),
            keep_alive: KeepAlive::On,
            placeholders: Placeholders::Replaced,
            identity: None,
        };
        let request = Request::build(&target, &varied).unwrap();
        let mut writer = RequestWriter::new(request, Source::new(1, 0, 1));
        let mut buffer = Vec::new();
        // The body comes first.
        let request = |path: u64, number: u64, body: &str| {
            let length = body.len();
            format!(
                "POST /f{path} HTTP/1.1\r\nX-N: {number}\r\nHost: 127.0.0.1:8080\r\nContent-Length: {length}\r\n\r\n{body}"
            )
        };
        assert_eq!(writer.fill(&mut buffer, 2, 3), 0);
        let wanted = request(2, 3, "01{\"a\":{}}") + &request(6, 7, "45{\"a\":{}}");
        assert_eq!(String::from_utf8(buffer.clone()).unwrap(), wanted);
        assert_eq!(writer.fill(&mut buffer, 1, 3), 0);
        assert_eq!(String::from_utf8(buffer).unwrap(), request(10, 11, "89{\"a\":{}}"));
        let kept = RequestParts { placeholders: Placeholders::Kept, ..varied };
        let text = String::from_utf8(Request::build(&target, &kept).unwrap().example()).unwrap();
        assert!(text.starts_with("POST /f{{counter}} "), "{text}");
    }

    #[test]
    fn fixed_requests_fill_a_buffer_once() {
        let target = Target::parse("http://127.0.0.1:8080/").unwrap();
        let request = Request::build(&target, &parts()).unwrap();
        let one = request.example();
        let mut writer = RequestWriter::new(request, Source::new(1, 0, 1));
        let mut buffer = Vec::new();
        let from = writer.fill(&mut buffer, 2, 3);
        assert_eq!(buffer[from..], one.repeat(2));
        let from = writer.fill(&mut buffer, 3, 3);
        assert_eq!((from, buffer), (0, one.repeat(3)));
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
        let (persistence, function_error) = (Persistence::KeepAlive, FunctionError::Told);
        let answer = |status| Answer { status, body_bytes: 0, persistence, function_error };
        let expected = Expectation::new("2xx, 404,599", None).unwrap();
        for (status, taken) in
            [(200, true), (299, true), (300, false), (404, true), (405, false), (599, true), (199, false)]
        {
            assert_eq!(expected.takes(&answer(status)), taken, "{status}");
        }
        assert!(
            !expected.sees_function_error(&answer(200)),
            "a header of that name may mean anything elsewhere"
        );
        assert!(expected.of_functions().sees_function_error(&answer(200)));
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
