//! What other threads may say to a shard and hear from it.
//!
//! Owns: the message types. Must not know: how the loop handles them, or that the control thread runs on tokio.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use faaster_function::Deployed;
use faaster_function::code_use::CodeLease;

pub use crate::health::HealthRule;
pub use crate::phases::Phases;

/// Position of a shard, 0..N-1; also the index of its core among the node's shard cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// Which of the two ports a request came in on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// 8001: FaaSter's controller, invocations and HTTP triggers.
    Controller,
    /// 8002: FaaSter's function registry.
    Registry,
}

/// Where an answer of the control thread has to go; opaque outside of the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTo {
    pub shard: ShardId,
    pub(crate) connection: u32,
    pub(crate) generation: u32,
    pub(crate) sequence: u64,
}

/// A parsed request that is not an invocation.
#[derive(Debug)]
pub struct ControlRequest {
    pub reply_to: ReplyTo,
    pub port: Port,
    /// As it stood in the request line.
    pub method: String,
    /// Path and query as they stood in the request line, still percent-encoded.
    pub target: String,
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body, moved, not copied.
    pub body: Vec<u8>,
}

/// The control thread's answer.
#[derive(Debug)]
pub struct ControlReply {
    pub reply_to: ReplyTo,
    pub status: u16,
    /// Without Content-Length, Date, Server and Connection: the shard writes those.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

/// Lines that an instance printed, on their way to the function's log.
#[derive(Debug)]
pub struct LogChunk {
    pub function: Arc<Deployed>,
    /// Empty where the lines belong to no invocation.
    pub request_id: String,
    pub text: Vec<u8>,
}

/// One instance, for `faaster instances` and `GET /v1/runtimes`.
#[derive(Debug, Clone)]
pub struct InstanceReport {
    pub function: Arc<Deployed>,
    pub funclet: u16,
    pub slot: u32,
    pub generation: u32,
    /// `loading`, `idle`, `busy`, `freezing`, `frozen`, `thawing`, `draining`.
    pub state: &'static str,
    pub in_flight: u32,
    pub accepted_total: u64,
    pub failed_total: u64,
    /// Since its container was claimed.
    pub age: Duration,
    /// Since its last call began or ended.
    pub idle: Duration,
    /// Claim to `ready`.
    pub load: Duration,
    /// How it came to its first answer; `None` before, and where no caller waited for it.
    pub phases: Option<Phases>,
}

/// Counters of one shard since its start; every refusal has one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    pub connections_total: u64,
    pub connections_open: u64,
    pub connections_refused_total: u64,
    pub requests_total: u64,
    pub requests_rejected_total: u64,
    pub invocations_total: u64,
    pub invocations_forwarded_total: u64,
    pub invocations_failed_total: u64,
    pub invocations_timed_out_total: u64,
    pub invocations_throttled_total: u64,
    pub invocations_abandoned_total: u64,
    pub async_accepted_total: u64,
    pub async_refused_total: u64,
    pub cold_starts_total: u64,
    pub instances_lost_total: u64,
    pub instances_frozen_total: u64,
    pub instances_unresponsive_total: u64,
    pub mailbox_full_total: u64,
    pub log_bytes_dropped_total: u64,
    pub buffers_exhausted_total: u64,
    pub answers_refused_total: u64,
    pub held_bytes: u64,
}

/// What a shard says when asked.
#[derive(Debug, Clone)]
pub struct ShardReport {
    pub shard: ShardId,
    pub counters: Counters,
    pub instances: Vec<InstanceReport>,
    /// Calls waiting for an instance, by function key, only those above 0.
    pub queued: Vec<(Box<str>, usize)>,
}

/// Called once with the answer, on the shard's thread: must not block.
pub type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// Control thread to shard.
pub enum Command {
    /// From now on calls to this key run this revision; instances of older ones finish and go.
    Deploy(Arc<Deployed>, Reply<ShardId>),
    /// The key is gone; queued calls are answered as missing.
    Remove(Box<str>, Reply<ShardId>),
    Reply(ControlReply),
    /// A funclet (re)started; this is the shard's channel to it.
    FuncletUp {
        funclet: u16,
        channel: OwnedFd,
    },
    /// Mark the instance abnormal: it finishes what it runs and goes. Answers whether it was here.
    Invalidate {
        funclet: u16,
        slot: u32,
        reply: Reply<bool>,
    },
    Report(Reply<ShardReport>),
    /// The answer to [`Notice::CodeWanted`].
    Code(Arc<Deployed>, Result<CodeLease, CodeAbsent>),
    /// Stop accepting; finish what is in flight; then call back. Connections without a request are closed.
    Drain(Reply<ShardId>),
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Deploy(..) => "Deploy",
            Self::Remove(..) => "Remove",
            Self::Reply(_) => "Reply",
            Self::FuncletUp { .. } => "FuncletUp",
            Self::Invalidate { .. } => "Invalidate",
            Self::Report(_) => "Report",
            Self::Code(..) => "Code",
            Self::Drain(_) => "Drain",
        })
    }
}

/// Why a function's code is not there and cannot be brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeAbsent {
    /// Code that is in use leaves no room for it on disk.
    NoRoom,
    /// It is lost, or cannot be read.
    Missing,
}

/// Shard to control thread; handed to a [`Sink`].
#[derive(Debug)]
pub enum Notice {
    Request(ControlRequest),
    Log(LogChunk),
    /// Calls wait for this function, and its code is not on disk, unpacked; [`Command::Code`] is the answer.
    CodeWanted {
        shard: ShardId,
        function: Arc<Deployed>,
    },
    /// A funclet's channel to this shard closed.
    FuncletLost {
        shard: ShardId,
        funclet: u16,
    },
}

/// How a shard hands a notice over without blocking; gives it back when the receiver is full.
pub type Sink = Box<dyn Fn(Notice) -> Result<(), Notice> + Send>;

/// Settings of all shards of an engine.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct ShardConfig {
    pub connections_max: usize,
    /// Account that stands for a caller who names none.
    pub default_account: String,
    /// FaaSter's simple-auth: the caller's account must own the function.
    pub simple_auth: bool,
    /// HTTP trigger paths `/{userID}/{function}[/{version}]` are served.
    pub http_trigger: bool,
    /// An instance idle for longer is ended.
    pub max_runtime_idle: Duration,
    /// An instance idle for so long has its processes stopped until the next call; `None`: never.
    pub freeze_after: Option<Duration>,
    /// Idle instances are asked whether they still answer; `None`: never.
    pub health: Option<HealthRule>,
    /// Instances stay on their home shard's core, or may run anywhere.
    pub placement: InstancePlacement,
    /// Refused or waiting calls say this in Retry-After.
    pub retry_after_secs: u32,
    /// Node-wide instance count is divided among funclets; this many there are.
    pub funclets: u16,
    pub shards: u16,
}

/// Where instances run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstancePlacement {
    HomeCore,
    Free,
}
