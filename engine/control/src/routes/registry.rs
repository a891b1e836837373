//! The function registry's port (FaaSter's stubs, 8002, and what it lacks).

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::routing::get;
use faaster_function::reference::{Qualifier, Reference, ReferenceError, resolve};
use faaster_function::settings::resolve_runtime;
use faaster_function::{AccountId, FunctionRecord, Version, identity};
use faaster_limits::{LIST_PAGE_DEFAULT, LIST_PAGE_MAX};
use faaster_protocol::easyfaas::query::{self, Plus};

use super::allow;
use super::answer::{Reply, change_failed, empty, forbidden, json, missing, registry_failed, text, zip};
use crate::config::Access;
use crate::deploy::{self, Subject};
use crate::node::{Node, ask_registry};
use crate::view;

type Shared = State<Arc<Node>>;

pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/hello", allow(get(hello), "GET, HEAD, OPTIONS"))
        .route("/v1/functions", allow(get(list), "GET, HEAD, OPTIONS"))
        .route(
            "/v1/functions/{name}",
            allow(get(show).post(create).put(update).delete(remove), "DELETE, GET, HEAD, OPTIONS, POST, PUT"),
        )
        .route("/v1/functions/{name}/versions", allow(get(versions), "GET, HEAD, OPTIONS"))
        .route("/v1/functions/{name}/code", allow(get(code), "GET, HEAD, OPTIONS"))
        .route("/v1/runtimes/{name}/configuration", allow(get(configuration), "GET, HEAD, OPTIONS"))
}

async fn hello() -> Reply {
    text(200, "hello controller stubs")
}

/// First value of a query parameter, decoded.
pub(super) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let raw = query::find(query.map(str::as_bytes), name.as_bytes()).filter(|value| !value.is_empty())?;
    Some(String::from_utf8_lossy(&query::decode(raw, Plus::Space)).into_owned())
}

/// Why a request names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    #[error("account header holds no account id")]
    Account,
    #[error(transparent)]
    Pattern(#[from] ReferenceError),
}

impl NameError {
    /// `pattern_status`: FaaSter answers a bad identifier of a create with 500 and of a get with 400.
    pub(super) fn reply(self, pattern_status: u16) -> Reply {
        let status = if self == Self::Account { 400 } else { pattern_status };
        text(status, self.to_string())
    }
}

/// Who calls, and what the path and `?Qualifier=` name. The identifier's own qualifier stands before the parameter.
pub(super) fn named(
    node: &Node,
    headers: &HeaderMap,
    name: &str,
    query: Option<&str>,
) -> Result<(AccountId, Reference), NameError> {
    let caller = node.caller(headers).ok_or(NameError::Account)?;
    let mut reference = resolve(name, &caller)?;
    if reference.qualifier.is_none() {
        reference.qualifier =
            parameter(query, "Qualifier").map(|text| Qualifier::parse(&text)).transpose()?;
    }
    Ok((caller, reference))
}

/// Key of the version that a reference means, `$LATEST` by default. An alias makes a key that no function has.
pub(super) fn key_of(reference: &Reference) -> String {
    let qualifier = reference.qualifier.as_ref().map_or("$LATEST", Qualifier::as_str);
    format!("{}:{}:{qualifier}", reference.account, reference.name)
}

/// The record, if the caller may see it.
async fn visible(
    node: &Node,
    headers: &HeaderMap,
    name: &str,
    query: Option<&str>,
) -> Result<FunctionRecord, Reply> {
    let (caller, reference) = named(node, headers, name, query).map_err(|error| error.reply(400))?;
    let key = key_of(&reference);
    let record = ask_registry(|done| node.registry.get(key.clone(), done)).await;
    let record = record.map_err(|error| registry_failed(&error))?.ok_or_else(|| missing(&key))?;
    if node.config.access == Access::Owner && record.owner != caller {
        return Err(forbidden(record.owner.as_str(), caller.as_str()));
    }
    Ok(record)
}

async fn show(
    State(node): Shared,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Reply {
    match visible(&node, &headers, &name, query.as_deref()).await {
        Ok(record) => text(200, view::function(&record, &node.config.data)),
        Err(reply) => reply,
    }
}

async fn code(
    State(node): Shared,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Reply {
    let record = match visible(&node, &headers, &name, query.as_deref()).await {
        Ok(record) => record,
        Err(reply) => return reply,
    };
    match deploy::read_zip(&node, record.code.sha256).await {
        Ok(bytes) => zip(bytes),
        Err(error) => change_failed(&error),
    }
}

async fn versions(
    State(node): Shared,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Reply {
    let (caller, reference) = match named(&node, &headers, &name, query.as_deref()) {
        Ok(named) => named,
        Err(error) => return error.reply(400),
    };
    let key = key_of(&reference);
    let found = ask_registry(|done| node.registry.versions(reference.account, reference.name, done)).await;
    let records = match found {
        Ok(records) if records.is_empty() => return missing(&key),
        Ok(records) => records,
        Err(error) => return registry_failed(&error),
    };
    if node.config.access == Access::Owner && records.iter().any(|record| record.owner != caller) {
        return forbidden(records[0].owner.as_str(), caller.as_str());
    }
    json(view::listing("Versions", &records, None))
}

async fn list(State(node): Shared, RawQuery(query): RawQuery, headers: HeaderMap) -> Reply {
    let query = query.as_deref();
    let Some(caller) = node.caller(&headers) else {
        return NameError::Account.reply(400);
    };
    let limit = match parameter(query, "MaxItems").map(|text| text.parse::<usize>()) {
        None => LIST_PAGE_DEFAULT,
        // Lambda takes up to 10,000 and answers fewer; so do we.
        Some(Ok(limit @ 1..=10_000)) => limit.min(LIST_PAGE_MAX),
        Some(_) => return text(400, "MaxItems must be a number from 1 to 10000"),
    };
    let marker = parameter(query, "Marker");
    let page = ask_registry(|done| node.registry.list(caller.hash(), marker, limit, done)).await;
    match page {
        Ok(page) => json(view::listing("Functions", &page.records, page.next.as_deref())),
        Err(error) => registry_failed(&error),
    }
}

/// What a change is about. Only the owner's account may be written to.
fn subject(node: &Node, headers: &HeaderMap, name: &str, query: Option<&str>) -> Result<Subject, Refused> {
    let (owner, reference) = named(node, headers, name, query)?;
    if reference.account != owner.hash() {
        return Err(Refused::Foreign { account: reference.account.to_string(), caller: owner.to_string() });
    }
    let version = match reference.qualifier {
        None => None,
        Some(Qualifier::Version(version)) => Some(version),
        Some(Qualifier::Alias(alias)) => return Err(Refused::Alias(alias.into())),
    };
    Ok(Subject { owner, account: reference.account, name: reference.name, version })
}

/// Why a request is about nothing that may be changed.
enum Refused {
    Name(NameError),
    Foreign { account: String, caller: String },
    Alias(String),
}

impl From<NameError> for Refused {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

impl Refused {
    fn reply(self, pattern_status: u16) -> Reply {
        match self {
            Self::Name(error) => error.reply(pattern_status),
            // The BRN has only the hash of the owner; that is all that is known and all that is told.
            Self::Foreign { account, caller } => forbidden(&account, &caller),
            Self::Alias(alias) => text(
                400,
                format!(
                    "{alias:?} is an alias; a function is created, changed and deleted by $LATEST or a number"
                ),
            ),
        }
    }
}

async fn create(
    State(node): Shared,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Reply {
    let subject = match subject(&node, &headers, &name, query.as_deref()) {
        Ok(subject) => subject,
        Err(refused) => return refused.reply(500),
    };
    match deploy::create(&node, subject, body.into()).await {
        Ok(()) => empty(200),
        Err(error) => change_failed(&error),
    }
}

async fn update(
    State(node): Shared,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Reply {
    let subject = match subject(&node, &headers, &name, query.as_deref()) {
        Ok(subject) => subject,
        Err(refused) => return refused.reply(400),
    };
    match deploy::update(&node, subject, body.into()).await {
        Ok(()) => empty(200),
        Err(error) => change_failed(&error),
    }
}

async fn remove(
    State(node): Shared,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Reply {
    let subject = match subject(&node, &headers, &name, query.as_deref()) {
        Ok(subject) => subject,
        Err(refused) => return refused.reply(400),
    };
    let version = subject.version.clone().unwrap_or_else(Version::latest);
    let key = identity::key(&subject.account, &subject.name, &version);
    match deploy::delete(&node, subject).await {
        Ok(0) => missing(&key),
        Ok(_) => empty(200),
        Err(error) => change_failed(&error),
    }
}

/// FaaSter's answer, with what this node really runs.
async fn configuration(State(node): Shared, Path(name): Path<String>) -> Reply {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct View<'a> {
        name: &'a str,
        bin: &'a str,
        path: String,
        args: &'a [String],
    }
    let spec = resolve_runtime(&name, &node.runtimes).and_then(|at| node.runtimes.get(usize::from(at.0)));
    let Some(spec) = spec else {
        // FaaSter's spelling.
        return text(500, format!("invaild runtime {name}"));
    };
    let (bin, args) = spec.argv.split_first().map_or(("", &[][..]), |(bin, args)| (bin.as_str(), args));
    text(200, view::to_json(&View { name: &name, bin, path: spec.folder.display().to_string(), args }))
}
