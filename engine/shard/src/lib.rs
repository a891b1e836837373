//! One core's world: connections, functions, instances and queues of a shard, and its event loop.
//!
//! Owns: everything that an invocation touches. A shard shares nothing; it talks by [`mailbox`] messages only.
//! Must not know: tokio, axum, the disk, how a container is made.
#![forbid(unsafe_code)]

mod answer;
pub mod api;
pub mod audit;
mod call;
mod claims;
mod code;
mod commands;
mod connection;
mod death;
mod dispatch;
mod errand;
mod event;
mod event_loop;
mod frames;
pub mod functions;
mod health;
mod ingress;
mod instance;
mod invoke;
mod logs;
pub mod mailbox;
mod outbox;
mod phases;
mod placement;
mod prepared;
mod random;
mod resize;
mod rest;
mod shard;
mod slab;
mod spares;
mod timer;

pub use api::{Command, Notice, Port, ShardConfig, ShardId};
pub use errand::Packet;
pub use mailbox::{CommandSender, MailboxEnd, network};
pub use prepared::{PrepareError, Prepared};
pub use shard::{Parts, Shard};
