//! Layers on the registry's port, under AWS's paths and member names.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::get;
use base64::Engine as _;
use faaster_function::layer::{LayerRecord, parse_version};
use faaster_function::{AccountHash, FunctionName};
use serde_json::{Value, json as object};

use super::allow;
use super::answer::{Reply, change_failed, empty, json, registry_failed, text};
use crate::layers;
use crate::node::{Node, ask_registry};
use crate::stamp::rfc3339;
use crate::view::to_json;

type Shared = State<Arc<Node>>;

pub(super) fn router() -> Router<Arc<Node>> {
    const READ: &str = "GET, HEAD, OPTIONS";
    Router::new()
        .route("/v1/layers", allow(get(list), READ))
        .route("/v1/layers/{name}/versions", allow(get(versions).post(publish), "GET, HEAD, OPTIONS, POST"))
        .route(
            "/v1/layers/{name}/versions/{version}",
            allow(get(show).delete(remove), "DELETE, GET, HEAD, OPTIONS"),
        )
}

/// A caller sees and changes the layers of its own account only.
fn account(node: &Node, headers: &HeaderMap) -> Result<AccountHash, Reply> {
    let caller = node.caller(headers);
    caller.map(|caller| caller.hash()).ok_or_else(|| text(400, "account header holds no account id"))
}

fn named(text_name: &str) -> Result<FunctionName, Reply> {
    FunctionName::parse(text_name)
        .map_err(|_| text(400, "layer name must have 1 to 140 characters of a-z, A-Z, 0-9, - and _"))
}

fn numbered(version: &str) -> Result<u64, Reply> {
    parse_version(version).ok_or_else(|| text(400, "layer version must be a number from 1"))
}

fn missing(name: &FunctionName, version: u64) -> Reply {
    text(404, format!("not found layer {name}:{version}"))
}

fn view(record: &LayerRecord) -> Value {
    let base = record.brn();
    let (layer_arn, _) = base.rsplit_once(':').expect("a version is behind it");
    object!({
        "LayerArn": layer_arn,
        "LayerVersionArn": base,
        "Version": record.version,
        "Description": record.description,
        "CreatedDate": rfc3339(record.created_secs),
        "Content": {
            "CodeSha256": base64::engine::general_purpose::STANDARD.encode(record.code.sha256.0),
            "CodeSize": record.code.bytes,
        },
    })
}

async fn publish(
    State(node): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Reply, Reply> {
    let (account, name) = (account(&node, &headers)?, named(&name)?);
    let record = layers::publish(&node, account, name, body.into()).await;
    Ok(json(to_json(&view(&record.map_err(|error| change_failed(&error))?))))
}

/// Each layer with its newest version.
async fn list(State(node): Shared, headers: HeaderMap) -> Result<Reply, Reply> {
    let account = account(&node, &headers)?;
    let records = ask_registry(|done| node.registry.layers(Some((account, None)), done)).await;
    let mut newest: BTreeMap<String, LayerRecord> = BTreeMap::new();
    // In order of version: the last one stays.
    for record in records.map_err(|error| registry_failed(&error))? {
        newest.insert(record.name.to_string(), record);
    }
    let shown: Vec<Value> = newest
        .values()
        .map(|record| object!({ "LayerName": record.name.as_str(), "LatestMatchingVersion": view(record) }))
        .collect();
    Ok(json(to_json(&object!({ "Layers": shown }))))
}

/// The newest first, as AWS lists them.
async fn versions(State(node): Shared, Path(name): Path<String>, headers: HeaderMap) -> Result<Reply, Reply> {
    let (account, name) = (account(&node, &headers)?, named(&name)?);
    let records = ask_registry(|done| node.registry.layers(Some((account, Some(name))), done)).await;
    let records = records.map_err(|error| registry_failed(&error))?;
    let shown: Vec<Value> = records.iter().rev().map(view).collect();
    Ok(json(to_json(&object!({ "LayerVersions": shown }))))
}

async fn show(
    State(node): Shared,
    Path((name, version)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Reply, Reply> {
    let (account, name, version) = (account(&node, &headers)?, named(&name)?, numbered(&version)?);
    let record = ask_registry(|done| node.registry.layer(&account, &name, version, done)).await;
    let record = record.map_err(|error| registry_failed(&error))?.ok_or_else(|| missing(&name, version))?;
    Ok(json(to_json(&view(&record))))
}

async fn remove(
    State(node): Shared,
    Path((name, version)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Reply, Reply> {
    let (account, name, version) = (account(&node, &headers)?, named(&name)?, numbered(&version)?);
    match layers::delete(&node, account, name.clone(), version).await {
        Ok(true) => Ok(empty(200)),
        Ok(false) => Err(missing(&name, version)),
        Err(error) => Err(change_failed(&error)),
    }
}
