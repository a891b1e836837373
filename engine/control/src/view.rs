//! A function as FaaSter shows it: the meta object of its quick start, member for member, nulls included.
//!
//! Owns: member names and order (aws-sdk-go v1.23's structs with FaaSter's additions). Must not know: routes.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use faaster_function::FunctionRecord;
use faaster_function::layer::{LayerUse, layer_brn};
use faaster_protocol::easyfaas::json;
use serde::Serialize;

use crate::stamp::rfc3339;

/// `{}`
#[derive(Debug, Serialize)]
struct Nothing {}

/// Always null: settings that FaaSter shows and does not have.
type Null = Option<()>;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Function<'r> {
    code: Code,
    concurrency: Concurrency,
    configuration: Configuration<'r>,
    log_config: LogConfig,
    tags: Nothing,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Code {
    #[serde(rename = "_")]
    structure: Nothing,
    location: String,
    repository_type: &'static str,
    log_type: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Concurrency {
    #[serde(rename = "_")]
    structure: Nothing,
    reserved_concurrent_executions: Null,
    account_reserved_sum: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct LogConfig {
    log_type: &'static str,
    bos_dir: &'static str,
    params: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Environment<'r> {
    #[serde(rename = "_")]
    structure: Nothing,
    error: Null,
    variables: Option<&'r BTreeMap<String, String>>,
}

/// As in AWS's answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct LayerView {
    arn: String,
    code_size: u64,
}

impl LayerView {
    fn new(record: &FunctionRecord, layer: &LayerUse) -> Self {
        Self { arn: layer_brn(&record.account, &layer.name, layer.version), code_size: layer.code.bytes }
    }
}

/// The part that listings show.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Configuration<'r> {
    #[serde(rename = "_")]
    structure: Nothing,
    code_sha256: String,
    code_size: u64,
    dead_letter_config: Null,
    description: Option<&'r str>,
    environment: Environment<'r>,
    function_arn: String,
    function_name: &'r str,
    handler: &'r str,
    #[serde(rename = "KMSKeyArn")]
    kms_key_arn: Null,
    last_modified: String,
    layers: Option<Vec<LayerView>>,
    master_arn: Null,
    memory_size: u32,
    revision_id: Null,
    role: Null,
    runtime: &'r str,
    timeout: u32,
    tracing_config: Null,
    version: &'r str,
    vpc_config: Null,
    commit_id: &'r str,
    uid: &'r str,
    #[serde(skip_serializing_if = "is_zero")]
    pod_concurrent_quota: u32,
    /// Ours; only where it was set, so that FaaSter's shape stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_instances: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_instances: Option<u32>,
    /// Likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    network_mode: Option<&'static str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl<'r> Configuration<'r> {
    pub(crate) fn new(record: &'r FunctionRecord) -> Self {
        let settings = &record.settings;
        Self {
            structure: Nothing {},
            code_sha256: base64::engine::general_purpose::STANDARD.encode(record.code.sha256.0),
            code_size: record.code.bytes,
            dead_letter_config: None,
            description: settings.description.as_deref(),
            environment: Environment {
                structure: Nothing {},
                error: None,
                variables: Some(&settings.environment).filter(|variables| !variables.is_empty()),
            },
            function_arn: record.brn(),
            function_name: record.name.as_str(),
            handler: &settings.handler,
            kms_key_arn: None,
            last_modified: rfc3339(record.modified_secs),
            layers: settings
                .layers
                .as_ref()
                .map(|layers| layers.list.iter().map(|it| LayerView::new(record, it)).collect()),
            master_arn: None,
            memory_size: settings.memory_mb,
            revision_id: None,
            role: None,
            runtime: &settings.runtime,
            timeout: settings.timeout_secs,
            tracing_config: None,
            version: record.version.as_str(),
            vpc_config: None,
            commit_id: &record.commit_id,
            uid: record.owner.as_str(),
            pod_concurrent_quota: settings.concurrency.quota(),
            max_instances: settings.instances_max,
            min_instances: settings.instances_min,
            network_mode: settings.network_mode.map(faaster_protocol::funclet::NetworkMode::name),
        }
    }
}

/// The body of a get. `Location` is where this node really keeps the zip.
pub(crate) fn function(record: &FunctionRecord, data: &Path) -> Vec<u8> {
    let zip = data.join("code").join(format!("{}.zip", record.code.sha256));
    let function = Function {
        code: Code {
            structure: Nothing {},
            location: zip.display().to_string(),
            repository_type: "filesystem",
            log_type: "",
        },
        concurrency: Concurrency {
            structure: Nothing {},
            reserved_concurrent_executions: None,
            account_reserved_sum: 0,
        },
        configuration: Configuration::new(record),
        log_config: LogConfig { log_type: "", bos_dir: "", params: "" },
        tags: Nothing {},
    };
    to_json(&function)
}

/// A page of functions, or all versions of one: `{"Functions":[...],"NextMarker":"..."}`.
pub(crate) fn listing(name: &'static str, records: &[FunctionRecord], next: Option<&str>) -> Vec<u8> {
    let mut members: BTreeMap<&str, serde_json::Value> = BTreeMap::new();
    let shown: Vec<Configuration<'_>> = records.iter().map(Configuration::new).collect();
    let shown = serde_json::to_value(shown).expect("strings and numbers always serialise");
    members.insert(name, shown);
    if let Some(next) = next {
        members.insert("NextMarker", next.into());
    }
    to_json(&members)
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    json::append(&mut out, value);
    out
}
