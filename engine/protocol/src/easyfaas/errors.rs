//! FaaSter's error bodies: `{"Code","Cause","Message","Status","Type","Backtrace"}`, and the plain ones of functions.
//!
//! Owns: codes, sentences, statuses and field order (FaaSter pkg/error). Must not know: which headers go with a body,
//! except that it says which of the two kinds of answer an error is.

use serde::{Serialize, Serializer};

use super::{brn, json, route::RouteError};

/// `Code` of an error body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    ResourceNotFound,
    InvalidParameterValue,
    InvalidRequestContent,
    Validation,
    UnrecognizedClient,
    InvalidInvokeCaller,
    AccountProblem,
    TooManyRequests,
    InvalidRuntime,
    Service,
    NotImplemented,
    RequestTimeout,
    /// HTTP trigger.
    InvalidRequest,
    /// HTTP trigger; FaaSter writes it `NotFountException`.
    NotFount,
    /// HTTP trigger.
    Internal,
    /// HTTP trigger.
    BadGateway,
}

impl ErrorCode {
    /// HTTP status of the answer and of the body.
    pub fn status(self) -> u16 {
        match self {
            Self::RequestTimeout => 200,
            Self::InvalidParameterValue
            | Self::InvalidRequestContent
            | Self::Validation
            | Self::InvalidRequest => 400,
            Self::UnrecognizedClient | Self::InvalidInvokeCaller | Self::AccountProblem => 403,
            Self::ResourceNotFound | Self::NotFount => 404,
            Self::TooManyRequests => 429,
            Self::Service | Self::NotImplemented | Self::Internal => 500,
            Self::InvalidRuntime | Self::BadGateway => 502,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::ResourceNotFound => "ResourceNotFoundException",
            Self::InvalidParameterValue => "InvalidParameterValueException",
            Self::InvalidRequestContent => "InvalidRequestContentException",
            Self::Validation => "ValidationException",
            Self::UnrecognizedClient => "UnrecognizedClientException",
            Self::InvalidInvokeCaller => "InvalidInvokeCallerException",
            Self::AccountProblem => "AccountProblemException",
            Self::TooManyRequests => "TooManyRequestsException",
            Self::InvalidRuntime => "InvalidRuntimeException",
            Self::Service => "ServiceException",
            Self::NotImplemented => "NotImplementedException",
            Self::RequestTimeout => "RequestTimeoutException",
            Self::InvalidRequest => "InvalidRequestException",
            Self::NotFount => "NotFountException",
            Self::Internal => "InternalException",
            Self::BadGateway => "BadGatewayException",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::ResourceNotFound => "The resource specified in the request does not exist",
            Self::InvalidParameterValue => "One of the parameters in the request is invalid",
            Self::InvalidRequestContent => "The request body could not be parsed as JSON",
            Self::Validation => "Validation exception",
            Self::UnrecognizedClient => "Access Denied",
            Self::InvalidInvokeCaller => "Invalid caller id",
            Self::AccountProblem => "There is a problem with your account",
            Self::TooManyRequests => "Too many requests",
            Self::InvalidRuntime => "The runtime or runtime version specified is not supported",
            Self::Service => "Service encountered an internal error",
            Self::NotImplemented => "this method is not implemented",
            Self::RequestTimeout => "Task timed out",
            Self::InvalidRequest => "Invalid Request",
            Self::NotFount => "Not Found",
            Self::Internal => "Internal Error",
            Self::BadGateway => "Bad Gateway",
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "Code")]
    code: &'static str,
    #[serde(rename = "Cause", skip_serializing_if = "str::is_empty")]
    cause: &'a str,
    #[serde(rename = "Message")]
    message: &'static str,
    #[serde(rename = "Status")]
    status: u16,
    #[serde(rename = "Type", skip_serializing_if = "str::is_empty")]
    kind: &'static str,
    #[serde(rename = "Backtrace", skip_serializing_if = "Option::is_none", serialize_with = "one_message")]
    backtrace: Option<&'a str>,
}

fn one_message<S: Serializer>(message: &Option<&str>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Entry<'a> {
        #[serde(rename = "Message")]
        message: &'a str,
    }
    [Entry { message: message.unwrap_or_default() }].serialize(serializer)
}

/// Appends the body of an error; an empty `cause` and a missing `backtrace` are left out. Says the HTTP status.
pub fn append(out: &mut Vec<u8>, code: ErrorCode, cause: &str, backtrace: Option<&str>) -> u16 {
    let status = code.status();
    let kind = match status {
        400..=499 => "User",
        500..=599 => "Server",
        _ => "",
    };
    json::append(out, &Body { code: code.name(), cause, message: code.message(), status, kind, backtrace });
    status
}

/// 404 for a key that no function has (golden case 48).
pub fn append_not_found(out: &mut Vec<u8>, key: &[u8]) -> u16 {
    let trace = not_found_text(key);
    append(out, ErrorCode::ResourceNotFound, "get function from data storer failed", Some(&trace))
}

/// `not found function <BRN>`: the registry's plain answer, and the backtrace of the controller's.
pub fn not_found_text(key: &[u8]) -> String {
    let mut parts = key.splitn(2, |byte| *byte == b':').map(String::from_utf8_lossy);
    let (hash, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("not found function brn:cloud:faas:bj:{hash}:function:{rest}")
}

/// 403 for a caller who does not own the function (golden case 46).
pub fn append_invalid_caller(out: &mut Vec<u8>, owner: &str, caller: &str) -> u16 {
    append(out, ErrorCode::InvalidInvokeCaller, &format!("owner id {owner} caller id {caller}"), None)
}

/// 429 when no instance could be had in time (golden case 121).
pub fn append_no_capacity(out: &mut Vec<u8>) -> u16 {
    append(out, ErrorCode::TooManyRequests, "empty runtime", None)
}

/// 500 with what went wrong inside.
pub fn append_internal(out: &mut Vec<u8>, what: &str) -> u16 {
    append(out, ErrorCode::Service, "", Some(what))
}

/// Whether an error answer carries `X-Easyfaas-Request-Id` and `X-Easyfaas-Function-Error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// It does: the call had begun.
    Marked,
    /// It does not (golden case 53).
    Bare,
}

/// The answer to an identifier that names no function: HTTP status and whether it is marked.
/// A missing qualifier is HTTP 500 around a body that says 400, as in FaaSter.
pub fn append_route_error(out: &mut Vec<u8>, error: RouteError) -> (u16, Marks) {
    let status = match error {
        RouteError::MissingQualifier => {
            append(out, ErrorCode::InvalidParameterValue, "missing query parameter Qualifier", None);
            return (500, Marks::Bare);
        }
        RouteError::InvalidQualifier => {
            append(out, ErrorCode::InvalidParameterValue, "invalid function qualifier", None)
        }
        RouteError::InvalidBrn => append(out, ErrorCode::InvalidParameterValue, "invalid brn", None),
        RouteError::InvalidPrefix => append_internal(out, "brn: invalid prefix"),
        RouteError::NotEnoughSections => append_internal(out, "brn: not enough sections"),
        RouteError::Pattern => append_internal(out, brn::PATTERN_MESSAGE),
    };
    (status, Marks::Marked)
}

/// `{"errorMessage":"..."}`
pub fn append_error_message(out: &mut Vec<u8>, message: &str) {
    out.extend_from_slice(br#"{"errorMessage":"#);
    json::append(out, message);
    out.push(b'}');
}

/// The function ran longer than its timeout (golden case 103). Whole seconds, as the setting is.
pub fn append_timed_out(out: &mut Vec<u8>, request_id: &str, timeout_ms: u64) {
    let seconds = timeout_ms.div_ceil(1000);
    append_error_message(out, &format!("{request_id} Task timed out after {seconds} seconds"));
}

/// The runtime did not come up (golden case 151).
pub fn append_not_ready(out: &mut Vec<u8>, request_id: &str, runtime_id: &str) {
    append_error_message(out, &format!("{request_id} wait runtime error: runtime {runtime_id} not ready"));
}

/// The process ended before it answered (golden case 107: text, not JSON).
pub fn append_exited(out: &mut Vec<u8>, request_id: &str) {
    out.extend_from_slice(
        format!("RequestID: {request_id} Process exited before completing request").as_bytes(),
    );
}

/// The kernel killed the process for memory. FaaSter says no more than [`append_exited`]; ours goes on to name the cause.
pub fn append_out_of_memory(out: &mut Vec<u8>, request_id: &str, memory_mb: u32) {
    append_exited(out, request_id);
    out.extend_from_slice(format!(": out of memory, its limit is {memory_mb} MB").as_bytes());
}

/// The result is larger than an answer may be (the Lambda contract's sentence and type).
pub fn append_response_too_large(out: &mut Vec<u8>, bytes: usize, bytes_max: usize) {
    out.extend_from_slice(
        format!(
            "{{\"errorMessage\":\"Response payload size ({bytes} bytes) exceeded maximum allowed payload size \
             ({bytes_max} bytes).\",\"errorType\":\"Function.ResponseSizeTooLarge\"}}"
        )
        .as_bytes(),
    );
}

#[cfg(test)]
#[path = "errors_tests.rs"]
mod tests;
