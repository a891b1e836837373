//! The container side: makes containers, gives them code and limits, watches them, ends them, removes what is left.
//!
//! Owns: namespaces, cgroups, mounts and processes of functions. Must not know: HTTP, functions' code, tokio.
//! Everything that the engine asks is checked again here; this process is root, the engine is not trusted.
#![forbid(unsafe_code)]

mod aside;
mod attach;
mod backoff;
mod birth;
mod cgroup;
mod channel;
mod claims;
mod code;
pub mod config;
mod container;
mod demand;
mod fault;
mod forks;
mod funclet;
mod hello;
mod ledger;
mod life;
mod link;
pub mod network;
mod notice;
mod poller;
mod pool;
pub mod probe;
mod reclaim;
mod resize;
mod reuse;
mod room;
mod rootfs;
mod serve;
mod slots;
mod stock;
mod stuck;
pub mod sweep;
mod timers;

pub use config::{FuncletConfig, InstanceId};
pub use funclet::{ExitReason, FuncletError, run};
pub use probe::{Check, Outcome, probe};
pub use sweep::{SweepConfig, SweepError, SweepReport, sweep};
