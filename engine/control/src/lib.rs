//! The control API: everything on the two ports that is not an invocation.
//!
//! Owns: the control thread's loop, the routers, the orders that go to shards, and what they report.
//! Must not know: HTTP parsing (the shards do it), containers, how a function runs. One thread on tokio's current-thread
//! runtime; what is heavy (zips) goes to the code thread, what flushes to the journal thread.
//!
//! Answers in FaaSter's dialect are FaaSter's to the byte; routes that FaaSter lacks answer `application/json`, member
//! names in the same style. A reply to HEAD holds the body of the GET: the shard sends its length only.
#![forbid(unsafe_code)]

mod code_room;
mod code_thread;
mod config;
mod deploy;
mod funclets;
mod layers;
mod log_thread;
mod logs;
mod node;
mod overview;
mod routes;
mod run;
mod shards;
mod stamp;
mod view;

pub use config::{Access, ControlCommand, ControlConfig, OperatorLog, Parts, Store, StoreError};
pub use run::{ControlError, run};
pub use shards::Shards;

#[cfg(test)]
mod tests;
