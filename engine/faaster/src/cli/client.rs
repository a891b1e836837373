//! HTTP to a running engine.
//!
//! Owns: addresses, headers that every request carries, time limits, and telling a refused connection from a refusal.
//! Must not know: what the answers mean.

use std::fmt::Write as _;
use std::io::Read;
use std::time::Duration;

use ureq::http::{Request, Response};
use ureq::{Agent, Body, SendBody};

use super::error::CliError;

/// Connecting to a machine of ones own takes less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The answer to a request that only looks something up or changes a setting.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// An upload and its unpacking.
pub(crate) const UPLOAD_TIMEOUT: Duration = Duration::from_secs(600);
/// A call may wait in the queue as long as it may run, and both as long as the longest time limit.
pub(crate) const INVOKE_TIMEOUT: Duration =
    Duration::from_secs(2 * faaster_limits::TIMEOUT_SECS_MAX as u64 + 60);
/// Bytes of an answer: above every answer that the engine gives.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Which port of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Controller,
    Registry,
}

/// Where the engine is and who calls it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Target {
    /// Address of the engine's controller
    #[arg(
        long,
        global = true,
        env = "FAASTER_CONTROLLER",
        default_value = "http://127.0.0.1:8001",
        value_name = "URL"
    )]
    pub controller: String,
    /// Address of the engine's function registry
    #[arg(
        long,
        global = true,
        env = "FAASTER_REGISTRY",
        default_value = "http://127.0.0.1:8002",
        value_name = "URL"
    )]
    pub registry: String,
    /// Account to act for; none: the engine's default account
    #[arg(long, global = true, env = "FAASTER_ACCOUNT", value_name = "ACCOUNT")]
    pub account: Option<String>,
}

/// A request to be made.
pub(crate) struct Ask<'a> {
    pub port: Port,
    pub method: &'static str,
    /// Path and query, already encoded.
    pub target: &'a str,
    pub headers: &'a [(&'static str, &'a str)],
    pub patience: Duration,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(port: Port, method: &'static str, target: &'a str) -> Self {
        Self { port, method, target, headers: &[], patience: ANSWER_TIMEOUT }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Vec<u8>,
    pub url: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The answer, unless the engine refused.
    ///
    /// # Errors
    /// The engine's refusal in its own words.
    pub(crate) fn accepted(self) -> Result<Self, CliError> {
        if self.status < 400 { Ok(self) } else { Err(refusal(self.status, &self.body)) }
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn json(&self) -> Result<serde_json::Value, CliError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| CliError::Answer { url: self.url.clone(), reason: error.to_string() })
    }
}

/// Talks to one engine, over connections that stay open.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    target: Target,
}

impl Client {
    pub(crate) fn new(target: Target) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .max_redirects(0)
            // The engine is addressed directly; proxies of the environment are for the world outside.
            .proxy(None)
            .user_agent(concat!("faaster/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into(), target }
    }

    /// # Errors
    /// No answer. A refusal of the engine is an answer.
    pub(crate) fn get(&self, port: Port, target: &str) -> Result<Answer, CliError> {
        self.send(&Ask::new(port, "GET", target), &[])
    }

    /// # Errors
    /// As [`Client::get`].
    pub(crate) fn send(&self, ask: &Ask<'_>, body: &[u8]) -> Result<Answer, CliError> {
        self.send_counted(ask, body, &mut |_| {})
    }

    /// Like [`Client::send`]; calls `sent` with the count of bytes of each part of the body that was handed over.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) fn send_counted(
        &self,
        ask: &Ask<'_>,
        body: &[u8],
        sent: &mut dyn FnMut(u64),
    ) -> Result<Answer, CliError> {
        let (base, option) = match ask.port {
            Port::Controller => (&self.target.controller, "--controller"),
            Port::Registry => (&self.target.registry, "--registry"),
        };
        let url = format!("{}{}", base.trim_end_matches('/'), ask.target);
        let usage =
            |error: ureq::http::Error| CliError::Usage(format!("{url} is no usable address: {error}"));
        let mut request = Request::builder().method(ask.method).uri(&url);
        if let Some(account) = &self.target.account {
            request = request.header("X-easyfaas-Account-Id", account);
        }
        for (name, value) in ask.headers {
            request = request.header(*name, *value);
        }
        let result = if body.is_empty() && matches!(ask.method, "GET" | "DELETE") {
            self.run(request.body(()).map_err(usage)?, ask.patience)
        } else {
            let mut reader = Counted { rest: body, sent };
            let request = request.header("Content-Length", body.len());
            self.run(request.body(SendBody::from_reader(&mut reader)).map_err(usage)?, ask.patience)
        };
        result.and_then(|response| read(response, url.clone())).map_err(|error| explain(error, url, option))
    }

    fn run(
        &self,
        request: Request<impl ureq::AsSendBody>,
        patience: Duration,
    ) -> Result<Response<Body>, ureq::Error> {
        let request = self.agent.configure_request(request).timeout_global(Some(patience)).build();
        self.agent.run(request)
    }
}

fn read(response: Response<Body>, url: String) -> Result<Answer, ureq::Error> {
    let (head, mut body) = response.into_parts();
    let body = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, url })
}

/// Puts what went wrong into the words of somebody who wants to reach an engine.
fn explain(error: ureq::Error, url: String, option: &'static str) -> CliError {
    match error {
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            CliError::Unreachable { url, reason: "no answer to the connection".to_owned(), option }
        }
        ureq::Error::Timeout(_) => CliError::Slow { url },
        ureq::Error::BadUri(reason) => CliError::Usage(format!("{url} is no usable address: {reason}")),
        ureq::Error::Http(error) => CliError::Usage(format!("{url} is no usable address: {error}")),
        ureq::Error::TlsRequired => CliError::Usage(format!("{url}: the engine speaks http, not https")),
        ureq::Error::Io(error) => CliError::Unreachable { url, reason: error.to_string(), option },
        ureq::Error::Protocol(error) => CliError::Answer { url, reason: error.to_string() },
        error => CliError::Unreachable { url, reason: error.to_string(), option },
    }
}

/// The message of a refusal: of FaaSter's error object, or the text as it is.
fn refusal(status: u16, body: &[u8]) -> CliError {
    let text = String::from_utf8_lossy(body);
    let object: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = object
        .as_ref()
        .and_then(|object| {
            let field =
                |name| object.get(name).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty());
            field("Message")
                .or_else(|| field("Cause"))
                .or_else(|| field("errorMessage"))
                .or_else(|| field("Code"))
        })
        .map_or_else(|| text.trim().to_owned(), str::to_owned);
    let message =
        if message.is_empty() { "the engine refused without saying why".to_owned() } else { message };
    if status == 404 { CliError::NotFound(message) } else { CliError::Refused { status, message } }
}

/// A body that tells how much of it is gone.
struct Counted<'a> {
    rest: &'a [u8],
    sent: &'a mut dyn FnMut(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.rest.read(buffer)?;
        (self.sent)(count as u64);
        Ok(count)
    }
}

/// A path segment or query value: everything but letters, digits and `-._~:` is percent-encoded.
pub(crate) fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string cannot fail");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_for_a_path() {
        assert_eq!(encode("a-b_c.9"), "a-b_c.9");
        assert_eq!(encode("brn:x:$LATEST"), "brn:x:%24LATEST");
        assert_eq!(encode("a/b ü?"), "a%2Fb%20%C3%BC%3F");
    }

    #[test]
    fn refusals_keep_the_words_of_the_engine() {
        let text = |status, body: &[u8]| refusal(status, body).to_string();
        assert_eq!(text(400, b"{\"Code\":\"X\",\"Message\":\"no zip\"}"), "no zip (HTTP 400)");
        assert_eq!(
            text(429, b"{\"Code\":\"X\",\"Cause\":\"empty runtime\",\"Message\":\"\"}"),
            "empty runtime (HTTP 429)"
        );
        assert_eq!(text(500, b"plain words\n"), "plain words (HTTP 500)");
        assert_eq!(text(503, b""), "the engine refused without saying why (HTTP 503)");
        assert_eq!(refusal(404, b"not found function x").outcome(), crate::exit::Outcome::NotFound);
    }

    #[test]
    fn a_closed_port_is_told_apart_from_a_refusal() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let target = Target {
            controller: format!("http://127.0.0.1:{port}"),
            registry: "nonsense".to_owned(),
            account: None,
        };
        let client = Client::new(target);
        let error = client.get(Port::Controller, "/healthz").unwrap_err();
        assert!(matches!(error, CliError::Unreachable { option: "--controller", .. }), "{error}");
        let error = client.get(Port::Registry, "/healthz").unwrap_err();
        assert!(matches!(error, CliError::Usage(_)), "{error}");
    }
}
