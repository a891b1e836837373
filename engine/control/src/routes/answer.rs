//! Forms of answers.
//!
//! Owns: content types, and which status goes with which failure. Must not know: routes.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use faaster_protocol::easyfaas::{errors, headers};
use faaster_store::code::CodeError;
use faaster_store::registry::RegistryError;

use crate::code_thread::CodeThreadError;
use crate::deploy::ChangeError;

pub(super) type Reply = Response<Body>;

/// Nothing but a status: FaaSter sends no Content-Type with an empty body.
pub(super) fn empty(status: u16) -> Reply {
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply
}

fn with_type(status: u16, kind: &'static str, body: Vec<u8>) -> Reply {
    let mut reply = empty(status);
    if !body.is_empty() {
        reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    *reply.body_mut() = body.into();
    reply
}

/// FaaSter's type for everything, JSON too.
pub(super) fn text(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    with_type(status, headers::TEXT, body.into())
}

/// For routes that are ours.
pub(super) fn json(body: Vec<u8>) -> Reply {
    with_type(200, headers::JSON, body)
}

pub(super) fn zip(body: Vec<u8>) -> Reply {
    with_type(200, "application/zip", body)
}

/// 503 with `Retry-After`: nothing was done, and doing it again will help.
pub(super) fn later(message: &str) -> Reply {
    let mut reply = text(503, message);
    reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    reply
}

/// A caller who does not own the function: FaaSter's answer to a call, here to a look at it.
pub(super) fn forbidden(owner: &str, caller: &str) -> Reply {
    let mut body = Vec::new();
    let status = errors::append_invalid_caller(&mut body, owner, caller);
    text(status, body)
}

/// 404 in the registry's words.
pub(super) fn missing(key: &str) -> Reply {
    text(404, errors::not_found_text(key.as_bytes()))
}

pub(super) fn registry_failed(error: &RegistryError) -> Reply {
    match error {
        RegistryError::Busy => later(&error.to_string()),
        RegistryError::Full | RegistryError::LayersFull | RegistryError::DiskFull { .. } => {
            text(507, chain(error))
        }
        _ => text(500, chain(error)),
    }
}

/// What FaaSter answers with 500 (a body that is no JSON, base64 that is none) stays so; what it lets pass is 400.
pub(super) fn change_failed(error: &ChangeError) -> Reply {
    match error {
        ChangeError::Draft(_) | ChangeError::Base64(_) => text(500, error.to_string()),
        ChangeError::Problems(_) | ChangeError::Code(CodeError::Zip(_)) => text(400, error.to_string()),
        ChangeError::Missing(key) => missing(key),
        ChangeError::Code(CodeError::DiskFull { .. } | CodeError::OverBudget { .. }) => {
            text(507, chain(error))
        }
        ChangeError::Registry(error) => registry_failed(error),
        ChangeError::Thread(CodeThreadError::Busy) | ChangeError::NotNow(_) => later(&error.to_string()),
        _ => text(500, chain(error)),
    }
}

/// An error and its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Transparent errors repeat their source.
        if !out.ends_with(&cause_text) {
            out.push_str(": ");
            out.push_str(&cause_text);
        }
        next = cause.source();
    }
    out
}
