//! What calls take, seen from a client on the same machine: one connection, one call after the other.
//!
//! Owns: a minimal HTTP client, so that what is measured is the engine. Must not know: how functions are deployed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::super::error::CliError;

/// An example answers within this, or something is wrong.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an example's answer, head and body.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Figures of one function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Measured {
    pub function: String,
    pub answer: String,
    pub cold_us: u64,
    pub warm_median_us: u64,
    pub warm_p99_us: u64,
    pub warm_calls: usize,
}

/// Calls a function that has never been called, then `warm_calls` times more.
///
/// # Errors
/// A call fails.
pub(crate) fn measure(controller: &str, function: &str, warm_calls: usize) -> Result<Measured, CliError> {
    assert!(warm_calls > 0, "a median needs a call");
    let authority = controller.trim_start_matches("http://");
    let mut connection = Connection::open(controller, authority, function)?;
    let (cold_us, answer) = connection.call()?;
    let mut warm_us = Vec::with_capacity(warm_calls);
    for _ in 0..warm_calls {
        warm_us.push(connection.call()?.0);
    }
    warm_us.sort_unstable();
    Ok(Measured {
        function: function.to_owned(),
        answer: String::from_utf8_lossy(&answer).into_owned(),
        cold_us,
        warm_median_us: warm_us[warm_calls / 2],
        warm_p99_us: warm_us[(warm_calls * 99 / 100).min(warm_calls - 1)],
        warm_calls,
    })
}

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    url: String,
}

impl Connection {
    fn open(controller: &str, authority: &str, function: &str) -> Result<Self, CliError> {
        let target = format!("/v1/functions/{function}/invocations?Qualifier=%24LATEST");
        let url = format!("{controller}{target}");
        let fail = |error: std::io::Error| CliError::Local(format!("cannot call {url}: {error}"));
        let stream = TcpStream::connect(authority).map_err(fail)?;
        stream.set_nodelay(true).map_err(fail)?;
        stream.set_read_timeout(Some(CALL_TIMEOUT)).map_err(fail)?;
        stream.set_write_timeout(Some(CALL_TIMEOUT)).map_err(fail)?;
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        Ok(Self { stream, request: request.into_bytes(), url })
    }

    /// One call: its microseconds and its answer.
    fn call(&mut self) -> Result<(u64, Vec<u8>), CliError> {
        let begin = Instant::now();
        let answer =
            self.exchange().map_err(|error| CliError::Local(format!("cannot call {}: {error}", self.url)))?;
        let us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        match parse(&answer) {
            Parsed::Whole { status: 200, failed: false, body } => Ok((us, body)),
            Parsed::Whole { status, body, .. } => Err(CliError::Local(format!(
                "the example at {} failed (HTTP {status}): {}",
                self.url,
                String::from_utf8_lossy(&body)
            ))),
            Parsed::Partial => Err(CliError::Answer {
                url: self.url.clone(),
                reason: "the connection ended in the middle".to_owned(),
            }),
        }
    }

    fn exchange(&mut self) -> std::io::Result<Vec<u8>> {
        self.stream.write_all(&self.request)?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while answer.len() < ANSWER_BYTES_MAX && matches!(parse(&answer), Parsed::Partial) {
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            answer.extend_from_slice(&buffer[..count]);
        }
        Ok(answer)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Whole { status: u16, failed: bool, body: Vec<u8> },
    Partial,
}

/// An answer with a Content-Length, which is what the engine gives.
fn parse(answer: &[u8]) -> Parsed {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Parsed::Partial };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let field =
        |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    let length: usize = field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    match answer[end + 4..].get(..length) {
        Some(body) => Parsed::Whole {
            status,
            failed: field("x-easyfaas-function-error").is_some(),
            body: body.to_vec(),
        },
        None => Parsed::Partial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_whole_when_their_length_says_so() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(parse(text), Parsed::Whole { status: 200, failed: false, body: b"hello".to_vec() });
        for cut in 0..text.len() {
            assert_eq!(parse(&text[..cut]), Parsed::Partial, "{cut}");
        }
    }

    #[test]
    fn a_function_error_is_seen() {
        let text = b"HTTP/1.1 200 OK\r\nX-Easyfaas-Function-Error: Unhandled\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(parse(text), Parsed::Whole { status: 200, failed: true, body: vec![] });
    }
}
