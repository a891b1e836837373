//! A language runtime as data: `runtimes/*/runtime.toml` after its interpreter was looked up.
//!
//! Owns: the shape and the matching of FaaSter's runtime names. Must not know: how a runtime is booted.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// When the runtime's process is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// Booted and primed before any function is known.
    Pooled,
    /// Executed at claim; it is the function's own `bootstrap`.
    Exec,
}

/// `runtime.toml` as typed; runtimes/README.md explains every key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeToml {
    pub name: String,
    pub names: Vec<String>,
    pub kind: RuntimeKind,
    #[serde(default)]
    pub interpreters: Vec<PathBuf>,
    #[serde(default)]
    pub version: Vec<String>,
    pub argv: Vec<String>,
    /// Command line of a process whose children become this runtime; none: each container boots its own.
    #[serde(default)]
    pub fork_server: Vec<String>,
    /// Children after which another fork server takes its place.
    #[serde(default)]
    pub forks: Option<u32>,
    /// Modules that a process loads before a function is known.
    #[serde(default)]
    pub imports: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    pub pool: u32,
    #[serde(default)]
    pub example: Option<String>,
    #[serde(default)]
    pub default_handler: Option<String>,
    #[serde(default)]
    pub default_code: Option<PathBuf>,
    #[serde(default)]
    pub calls: CallsAtOnce,
    /// What its containers see as /, unless the engine's settings say otherwise: `host`, the name of an imported root
    /// file system, or a directory.
    #[serde(default)]
    pub rootfs: Option<String>,
}

/// A runtime that this node can run: its interpreter is installed. Its position in the node's list is its
/// [`faaster_protocol::funclet::RuntimeIndex`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RuntimeSpec {
    pub name: String,
    /// Function runtime names that it answers to; `*` at the end matches any rest.
    pub names: Vec<String>,
    pub kind: RuntimeKind,
    /// First line of what the version command said; empty if there is none.
    pub version: String,
    /// Host folder that holds the bootstrap; mounted read-only at /var/runtime.
    pub folder: PathBuf,
    /// Command line inside the container, `{interpreter}` already replaced.
    pub argv: Vec<String>,
    /// Same of its fork server; empty: it has none.
    #[serde(default)]
    pub fork_server: Vec<String>,
    /// Children after which another takes its place; `None`: [`faaster_limits::FORKS_PER_SERVER_MAX`].
    #[serde(default)]
    pub forks: Option<u32>,
    pub env: BTreeMap<String, String>,
    /// Prepared containers to keep.
    pub pool: u32,
    pub default_handler: String,
    /// Folder with the code that a create without `Code` gets.
    pub default_code: Option<PathBuf>,
    pub calls: CallsAtOnce,
    /// The tree that its containers have as their root; `None`: the host's own programs and libraries.
    #[serde(default)]
    pub rootfs: Option<PathBuf>,
}

/// How many calls an instance of a runtime can take at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallsAtOnce {
    /// As many as the function's `PodConcurrentQuota` says.
    #[default]
    ByQuota,
    /// One, whatever the function says.
    One,
}

impl RuntimeSpec {
    /// Whether a function whose `Runtime` is `asked` runs on this.
    pub fn answers_to(&self, asked: &str) -> bool {
        self.names.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => asked.starts_with(prefix),
            None => asked == pattern,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_whole_or_by_prefix() {
        let spec = RuntimeSpec {
            name: "python3".into(),
            names: vec!["python3*".into(), "python".into()],
            kind: RuntimeKind::Pooled,
            version: String::new(),
            folder: PathBuf::new(),
            argv: vec![],
            fork_server: vec![],
            forks: None,
            env: BTreeMap::new(),
            pool: 1,
            default_handler: String::new(),
            default_code: None,
            calls: CallsAtOnce::ByQuota,
            rootfs: None,
        };
        for (asked, expected) in
            [("python3", true), ("python3.6", true), ("python", true), ("python2.7", false), ("pytho", false)]
        {
            assert_eq!(spec.answers_to(asked), expected, "{asked}");
        }
    }
}
