//! One deployed version of a function, as the shards run it.
//!
//! Owns: the shape. Immutable once made: a redeploy makes a new one with a new revision.
//! Must not know: where it is stored, which instances run it.

use std::collections::BTreeMap;

use faaster_protocol::funclet::{CodeHash, NetworkMode, RuntimeIndex};
use serde::{Deserialize, Serialize};

/// Everything that an invocation needs to know of its function. Shared by all shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// `<md5 of account>:<name>:<version>`, the key that shards route by; `$LATEST` stands unencoded.
    pub key: Box<str>,
    /// Full BRN with version: `brn:cloud:faas:bj:<md5 of account>:function:<name>:<version>`.
    pub brn: Box<str>,
    pub name: Box<str>,
    /// `$LATEST` or a number.
    pub version: Box<str>,
    /// Account id of the owner as it comes in the account header (not hashed).
    pub owner: Box<str>,
    pub handler: Box<str>,
    /// Resolved runtime of this node.
    pub runtime: RuntimeIndex,
    pub code: CodeHash,
    /// Unique per deployed code; changes with every deploy that changes the code.
    pub commit_id: Box<str>,
    /// Grows with every deploy of the key; a call runs on an instance of the newest revision.
    pub revision: u64,
    pub memory_mb: u32,
    pub timeout_ms: u64,
    pub concurrency: Concurrency,
    /// Instances at most, on all shards together.
    pub instances_max: u32,
    /// Instances that are kept ready whether anybody calls or not.
    pub instances_min: u32,
    pub env: BTreeMap<String, String>,
    /// What it may reach; `None`: the node's default.
    pub network_mode: Option<NetworkMode>,
    /// The package that it sees at /opt.
    pub layers: Option<CodeHash>,
    /// Stable hash of `key` and `revision`; names the function in funclet messages.
    pub function_tag: u64,
    /// Stable hash of the owner.
    pub account_tag: u64,
}

impl Deployed {
    /// Whether this is `before` with another memory and nothing else: then its instances can go on.
    pub fn differs_in_memory_alone(&self, before: &Self) -> bool {
        let Self { memory_mb, revision, function_tag, .. } = *self;
        memory_mb != before.memory_mb && *self == Self { memory_mb, revision, function_tag, ..before.clone() }
    }
}

/// FaaSter's `PodConcurrentQuota`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Concurrency {
    /// One invocation at a time in an instance (quota 0).
    Exclusive,
    /// So many at once.
    Shared(u32),
}

impl Concurrency {
    /// Invocations that one instance takes at once; at least 1.
    pub fn slots(self) -> u32 {
        match self {
            Self::Exclusive => 1,
            Self::Shared(quota) => quota.max(1),
        }
    }

    /// The number that create and get carry.
    pub fn quota(self) -> u32 {
        match self {
            Self::Exclusive => 0,
            Self::Shared(quota) => quota,
        }
    }
}
