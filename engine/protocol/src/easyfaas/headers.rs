//! The request headers that mean something to an invocation, in both families, found in one pass.
//!
//! Owns: their names and precedence (`X-easyfaas-*` before `X-Bce-*`, header before query, first of a kind before later
//! ones). Must not know: how a head is parsed, or what a value leads to.

use faaster_limits::{ACCOUNT_ID_BYTES_MAX, REQUEST_ID_BYTES_MAX};

use super::query;

/// Names of response headers, in the spelling that FaaSter emits.
pub const REQUEST_ID: &str = "X-Easyfaas-Request-Id";
/// Milliseconds with three decimals; see [`super::tail::append_exec_time`].
pub const EXEC_TIME: &str = "X-Easyfaas-Function-Exectime";
/// Its only value is [`UNHANDLED`].
pub const FUNCTION_ERROR: &str = "X-Easyfaas-Function-Error";
/// The function, or the engine on its behalf, failed.
pub const UNHANDLED: &str = "Unhandled";
/// Base64 of a log tail.
pub const LOG_RESULT: &str = "X-Bce-Log-Result";
/// Content-Type of every answer with a body that names no other.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// Content-Type of a [`super::tail::append_log_body`] answer.
pub const JSON: &str = "application/json; charset=utf-8";

/// `X-easyfaas-Invoke-Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InvokeType {
    /// Synchronous. Also what FaaSter takes an unknown word for.
    #[default]
    Common,
    /// Asynchronous.
    Event,
    /// The function's HTTP server answers.
    Stream,
    /// Synchronous, on behalf of a message queue.
    Mqhub,
}

/// `X-easyfaas-Faas-Trigger`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TriggerType {
    #[default]
    Generic,
    Http,
    Crontab,
    Kafka,
    Vscode,
}

impl TriggerType {
    /// The word in headers and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Http => "faas-http-trigger",
            Self::Crontab => "faas-crontab-trigger",
            Self::Kafka => "kafka",
            Self::Vscode => "vscode",
        }
    }
}

/// `Log-Type`, or `?logType=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogType {
    #[default]
    None,
    /// The call's log comes back with the answer.
    Tail,
}

/// `Log-To-Body: true`, or `?logToBody=true`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogToBody {
    #[default]
    No,
    /// The answer is a JSON object with the result as text.
    Yes,
}

/// What the headers and the query of an invocation say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallHeaders<'b> {
    /// As it came, not hashed. `None`: absent, empty or longer than an account id may be.
    pub account: Option<&'b [u8]>,
    /// The caller's own id for the call: visible ASCII, bounded. `None`: make one.
    pub request_id: Option<&'b [u8]>,
    pub invoke_type: InvokeType,
    pub trigger: TriggerType,
    pub log_type: LogType,
    pub log_to_body: LogToBody,
    /// Base64 of a JSON object.
    pub client_context: Option<&'b [u8]>,
    pub content_type: Option<&'b [u8]>,
}

/// A value with the rank of the header that it came in: less is stronger.
#[derive(Debug, Clone, Copy, Default)]
struct Ranked<'b>(Option<(u8, &'b [u8])>);

impl<'b> Ranked<'b> {
    fn offer(&mut self, rank: u8, value: &'b [u8]) {
        if !value.is_empty() && self.0.is_none_or(|(held, _)| rank < held) {
            self.0 = Some((rank, value));
        }
    }

    fn value(self) -> Option<&'b [u8]> {
        self.0.map(|(_, value)| value)
    }
}

#[derive(Debug, Default)]
struct Found<'b> {
    account: Ranked<'b>,
    request_id: Ranked<'b>,
    invoke_type: Ranked<'b>,
    trigger: Ranked<'b>,
    log_type: Ranked<'b>,
    log_to_body: Ranked<'b>,
    client_context: Ranked<'b>,
    content_type: Ranked<'b>,
}

impl<'b> Found<'b> {
    fn take(&mut self, name: &'b [u8], value: &'b [u8]) {
        const EASYFAAS: u8 = 0;
        const FOREIGN: u8 = 1;
        let is = |expected: &str| name.eq_ignore_ascii_case(expected.as_bytes());
        // Most headers of a request are none of ours: length and first letter drop them without a comparison.
        let (slot, rank) = match (name.len(), name.first().map(u8::to_ascii_lowercase)) {
            (21, Some(b'x')) if is("X-easyfaas-Account-Id") => (&mut self.account, EASYFAAS),
            (21, Some(b'x')) if is("X-easyfaas-Request-Id") => (&mut self.request_id, EASYFAAS),
            (22, Some(b'x')) if is("X-easyfaas-Invoke-Type") => (&mut self.invoke_type, EASYFAAS),
            (23, Some(b'x')) if is("X-easyfaas-Faas-Trigger") => (&mut self.trigger, EASYFAAS),
            (25, Some(b'x')) if is("X-easyfaas-Client-Context") => (&mut self.client_context, EASYFAAS),
            (16, Some(b'x')) if is("X-Bce-Account-Id") => (&mut self.account, FOREIGN),
            (16, Some(b'x')) if is("X-Bce-Request-Id") => (&mut self.request_id, FOREIGN),
            (17, Some(b'x')) if is("X-Bce-Invoke-Type") => (&mut self.invoke_type, FOREIGN),
            (18, Some(b'x')) if is("X-Bce-Faas-Trigger") => (&mut self.trigger, FOREIGN),
            (20, Some(b'x')) if is("X-Bce-Client-Context") => (&mut self.client_context, FOREIGN),
            (20, Some(b'x')) if is("X-Amz-Client-Context") => (&mut self.client_context, FOREIGN),
            (8, Some(b'l')) if is("Log-Type") => (&mut self.log_type, EASYFAAS),
            (11, Some(b'l')) if is("Log-To-Body") => (&mut self.log_to_body, EASYFAAS),
            (12, Some(b'c')) if is("Content-Type") => (&mut self.content_type, EASYFAAS),
            _ => return,
        };
        slot.offer(rank, value);
    }
}

impl<'b> CallHeaders<'b> {
    /// Reads the headers of a request and its query (without the `?`).
    pub fn classify(
        headers: impl IntoIterator<Item = (&'b [u8], &'b [u8])>,
        query: Option<&'b [u8]>,
    ) -> Self {
        let mut found = Found::default();
        for (name, value) in headers {
            found.take(name, value);
        }
        let request_id = found.request_id.value().filter(|id| is_request_id(id));
        let log_type = found.log_type.value().and_then(log_type_word);
        let in_query = || query::find(query, b"logType").and_then(log_type_word);
        let to_body =
            found.log_to_body.value() == Some(b"true") || query::find(query, b"logToBody") == Some(b"true");
        Self {
            account: found.account.value().filter(|account| account.len() <= ACCOUNT_ID_BYTES_MAX),
            request_id,
            invoke_type: found.invoke_type.value().map(invoke_type_word).unwrap_or_default(),
            trigger: found.trigger.value().map(trigger_word).unwrap_or_default(),
            log_type: log_type.or_else(in_query).unwrap_or_default(),
            log_to_body: if to_body { LogToBody::Yes } else { LogToBody::No },
            client_context: found.client_context.value(),
            content_type: found.content_type.value(),
        }
    }
}

/// The account of a request on the control API: the same two headers, the same precedence.
pub fn account<'b>(headers: impl IntoIterator<Item = (&'b [u8], &'b [u8])>) -> Option<&'b [u8]> {
    CallHeaders::classify(headers, None).account
}

/// A caller's id goes into logs, headers and error bodies: anything but visible ASCII is replaced by an id of ours.
fn is_request_id(id: &[u8]) -> bool {
    id.len() <= REQUEST_ID_BYTES_MAX && id.iter().all(u8::is_ascii_graphic)
}

fn invoke_type_word(word: &[u8]) -> InvokeType {
    [("event", InvokeType::Event), ("stream", InvokeType::Stream), ("mqhub", InvokeType::Mqhub)]
        .into_iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()))
        .map_or(InvokeType::Common, |(_, kind)| kind)
}

fn trigger_word(word: &[u8]) -> TriggerType {
    [TriggerType::Http, TriggerType::Crontab, TriggerType::Kafka, TriggerType::Vscode]
        .into_iter()
        .find(|trigger| word.eq_ignore_ascii_case(trigger.name().as_bytes()))
        .unwrap_or_default()
}

/// `None` for a word that is neither: then the query may still say something.
fn log_type_word(word: &[u8]) -> Option<LogType> {
    if word.eq_ignore_ascii_case(b"tail") {
        Some(LogType::Tail)
    } else if word.eq_ignore_ascii_case(b"none") {
        Some(LogType::None)
    } else {
        None
    }
}

/// Why a client context cannot be handed to the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("client context must be a base64-encoded JSON object")]
pub struct ClientContextError;

/// Appends the decoded client context, for the frame's meta object.
///
/// # Errors
/// It is not base64, or not a JSON object; then `out` is as it was.
pub fn append_client_context(out: &mut Vec<u8>, header: &[u8]) -> Result<(), ClientContextError> {
    use base64::Engine as _;
    let start = out.len();
    let json = base64::engine::general_purpose::STANDARD.decode(header).map_err(|_| ClientContextError)?;
    let object: std::collections::BTreeMap<&str, &serde_json::value::RawValue> =
        serde_json::from_slice(&json).map_err(|_| ClientContextError)?;
    // Written anew, so that no whitespace or duplicate of the caller gets into the frame.
    serde_json::to_writer(&mut *out, &object).map_err(|_| {
        out.truncate(start);
        ClientContextError
    })
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
