//! A function's settings: defaults, bounds, and the judgement of a draft.
//!
//! Owns: every rule that a create or an update must keep. Must not know: where settings are stored, what a zip holds.

use std::collections::BTreeMap;
use std::fmt;

use faaster_limits::{
    CONCURRENCY_MAX, DESCRIPTION_BYTES_MAX, ENVIRONMENT_BYTES_MAX, HANDLER_BYTES_MAX,
    INSTANCES_PER_FUNCTION_MAX, MEMORY_MB_MAX, MEMORY_MB_MIN, TIMEOUT_SECS_DEFAULT, TIMEOUT_SECS_MAX,
};
use faaster_protocol::funclet::{NetworkMode, RuntimeIndex};
use serde::{Deserialize, Serialize};

use crate::deployed::Concurrency;
use crate::draft::Draft;
use crate::identity::Version;
use crate::layer::Layers;
use crate::runtime::RuntimeSpec;

/// FaaSter's default runtime.
pub const RUNTIME_DEFAULT: &str = "nodejs8.5";
/// FaaSter's default handler.
pub const HANDLER_DEFAULT: &str = "index.handler";

/// What a version of a function was created with, in bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    #[serde(default)]
    pub description: Option<String>,
    /// As asked for; which runtime that is depends on the node.
    pub runtime: String,
    pub handler: String,
    pub timeout_secs: u32,
    pub memory_mb: u32,
    pub concurrency: Concurrency,
    /// `None`: the node's bound.
    #[serde(default)]
    pub instances_max: Option<u32>,
    /// Kept ready whether anybody calls or not; `None`: 0.
    #[serde(default)]
    pub instances_min: Option<u32>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// What it may reach; `None`: the node's default.
    #[serde(default)]
    pub network_mode: Option<NetworkMode>,
    /// What it sees at /opt; `None`: nothing.
    #[serde(default)]
    pub layers: Option<Layers>,
}

/// All that is wrong with a request, for one answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Notes one more.
    pub fn push(&mut self, problem: String) {
        self.0.push(problem);
    }

    /// `value` if there is none.
    ///
    /// # Errors
    /// These problems.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl From<String> for Problems {
    fn from(problem: String) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for Problems {}

/// The version that a draft names, if any.
///
/// # Errors
/// It is no version.
pub fn version_of(draft: &Draft<'_>, problems: &mut Problems) -> Option<Version> {
    let text = draft.version.as_deref()?;
    Version::parse(text).map_err(|error| problems.push(format!("{error}, not {text:?}"))).ok()
}

/// Settings of a new function: what the draft leaves open is FaaSter's default, and 0 counts as open.
pub fn for_create(draft: &Draft<'_>, runtimes: &[RuntimeSpec], problems: &mut Problems) -> Settings {
    let runtime = draft.runtime.clone().unwrap_or_else(|| RUNTIME_DEFAULT.to_owned());
    let spec = checked_runtime(&runtime, runtimes, problems);
    let handler = draft.handler.clone().unwrap_or_else(|| default_handler(spec));
    let base = Settings {
        description: None,
        runtime,
        handler,
        timeout_secs: TIMEOUT_SECS_DEFAULT,
        memory_mb: MEMORY_MB_MIN,
        concurrency: Concurrency::Exclusive,
        instances_max: None,
        instances_min: None,
        environment: BTreeMap::new(),
        network_mode: None,
        layers: None,
    };
    with_draft(base, draft, problems)
}

/// Settings after an update: what the draft leaves open stays.
pub fn for_update(
    current: &Settings,
    draft: &Draft<'_>,
    runtimes: &[RuntimeSpec],
    problems: &mut Problems,
) -> Settings {
    let mut base = current.clone();
    if let Some(runtime) = &draft.runtime {
        checked_runtime(runtime, runtimes, problems);
        base.runtime.clone_from(runtime);
    }
    if let Some(handler) = &draft.handler {
        base.handler.clone_from(handler);
    }
    with_draft(base, draft, problems)
}

/// Which of the node's runtimes a function's `Runtime` means: one that has the very name, else the longest `name*`.
pub fn resolve_runtime(asked: &str, runtimes: &[RuntimeSpec]) -> Option<RuntimeIndex> {
    let rank = |spec: &RuntimeSpec| {
        spec.names
            .iter()
            .filter_map(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => asked.starts_with(prefix).then_some(prefix.len()),
                None => (asked == pattern).then_some(usize::MAX),
            })
            .max()
    };
    // The first of equals: the node's order is the operator's.
    let best = runtimes.iter().enumerate().filter_map(|(at, spec)| Some((rank(spec)?, at)));
    let (_, at) = best.max_by_key(|(rank, at)| (*rank, std::cmp::Reverse(*at)))?;
    u16::try_from(at).ok().map(RuntimeIndex)
}

/// `runtime "x" is not available on this node; it has: nodejs* (v20.19.2), python3* (Python 3.11.2)`
pub fn unknown_runtime(asked: &str, runtimes: &[RuntimeSpec]) -> String {
    let mut there: Vec<String> = Vec::new();
    for spec in runtimes {
        let version = if spec.version.is_empty() { String::new() } else { format!(" ({})", spec.version) };
        there.push(format!("{}{version}", spec.names.join(" or ")));
    }
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    format!("Runtime {asked:?} is not available on this node; it has: {there}")
}

fn checked_runtime<'r>(
    asked: &str,
    runtimes: &'r [RuntimeSpec],
    problems: &mut Problems,
) -> Option<&'r RuntimeSpec> {
    let found = resolve_runtime(asked, runtimes);
    if found.is_none() {
        problems.push(unknown_runtime(asked, runtimes));
    }
    found.and_then(|index| runtimes.get(usize::from(index.0)))
}

fn default_handler(spec: Option<&RuntimeSpec>) -> String {
    match spec {
        Some(spec) if !spec.default_handler.is_empty() => spec.default_handler.clone(),
        _ => HANDLER_DEFAULT.to_owned(),
    }
}

fn with_draft(mut settings: Settings, draft: &Draft<'_>, problems: &mut Problems) -> Settings {
    if let Some(description) = &draft.description {
        if description.len() > DESCRIPTION_BYTES_MAX {
            problems.push(format!(
                "Description must have at most {DESCRIPTION_BYTES_MAX} bytes, not {}",
                description.len()
            ));
        }
        settings.description = Some(description.clone()).filter(|text| !text.is_empty());
    }
    let handler = &settings.handler;
    if handler.is_empty() || handler.len() > HANDLER_BYTES_MAX || handler.chars().any(char::is_control) {
        problems.push(format!("Handler must have 1 to {HANDLER_BYTES_MAX} printable bytes, not {handler:?}"));
    }
    let mut bounded =
        |name: &str, unit: &str, asked: Option<i64>, least: u32, most: u32, target: &mut u32| {
            let Some(asked) = asked else { return };
            match u32::try_from(asked).ok().filter(|value| (least..=most).contains(value)) {
                Some(value) => *target = value,
                None => problems.push(format!("{name} must be from {least} to {most}{unit}, not {asked}")),
            }
        };
    let given = |asked: Option<i64>| asked.filter(|value| *value != 0);
    bounded(
        "Timeout",
        " seconds",
        given(draft.timeout_secs),
        1,
        TIMEOUT_SECS_MAX,
        &mut settings.timeout_secs,
    );
    bounded(
        "MemorySize",
        " MB",
        given(draft.memory_mb),
        MEMORY_MB_MIN,
        MEMORY_MB_MAX,
        &mut settings.memory_mb,
    );
    let mut quota = settings.concurrency.quota();
    bounded("PodConcurrentQuota", "", draft.concurrency, 0, CONCURRENCY_MAX, &mut quota);
    settings.concurrency = if quota == 0 { Concurrency::Exclusive } else { Concurrency::Shared(quota) };
    if draft.instances_max.is_some() {
        let mut instances = 1;
        bounded("MaxInstances", "", draft.instances_max, 1, INSTANCES_PER_FUNCTION_MAX, &mut instances);
        settings.instances_max = Some(instances);
    }
    if draft.instances_min.is_some() {
        let mut instances = 0;
        bounded("MinInstances", "", draft.instances_min, 0, INSTANCES_PER_FUNCTION_MAX, &mut instances);
        settings.instances_min = Some(instances);
    }
    if let (Some(least), Some(most)) = (settings.instances_min, settings.instances_max)
        && least > most
    {
        problems.push(format!("MinInstances must not be above MaxInstances, {most}, and is {least}"));
    }
    if let Some(environment) = &draft.environment {
        check_environment(environment, problems);
        settings.environment.clone_from(environment);
    }
    if let Some(asked) = &draft.network_mode {
        settings.network_mode = network_mode(asked, problems);
    }
    settings
}

/// Empty means the node's default again.
fn network_mode(asked: &str, problems: &mut Problems) -> Option<NetworkMode> {
    let found = NetworkMode::named(asked);
    if found.is_none() && !asked.is_empty() {
        let names = NetworkMode::ALL.map(NetworkMode::name).join(", ");
        problems.push(format!("NetworkMode must be one of {names}, not {asked:?}"));
    }
    found
}

fn check_environment(environment: &BTreeMap<String, String>, problems: &mut Problems) {
    let bytes: usize = environment.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ENVIRONMENT_BYTES_MAX {
        problems.push(format!(
            "Environment variables must have at most {ENVIRONMENT_BYTES_MAX} bytes of names and values together, not {bytes}"
        ));
    }
    for (name, value) in environment {
        let mut bytes = name.bytes();
        let starts_well = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
        if !starts_well || !bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            problems.push(format!("Environment variable {name:?} must match [A-Za-z_][A-Za-z0-9_]*"));
        } else if name.starts_with("FAASTER_") {
            problems.push(format!(
                "Environment variable {name} is reserved: names with FAASTER_ are the engine's"
            ));
        }
        if value.contains('\0') {
            problems.push(format!("Environment variable {name} must not hold a NUL byte"));
        }
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
