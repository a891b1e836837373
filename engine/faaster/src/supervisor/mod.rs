//! `faaster serve`: starts engine and funclets, keeps them alive, ends them.
//!
//! Owns: the listening sockets, the instance's lock and directory, the children. Invariants: one thread; root; reads
//! nothing from the network; whatever it made is gone when it has ended, and what a killed one left is swept at the
//! next start. Must not know: functions, HTTP, how a container is made.

pub(crate) mod child;
pub(crate) mod data;
pub(crate) mod holder;
pub(crate) mod inherited;
mod instance;
pub(crate) mod link;
mod listeners;
pub(crate) mod network;
mod notify;
mod orphans;
mod phase;
pub(crate) mod requirements;
mod restart;
mod seat;
pub(crate) mod serve;
pub(crate) mod start;
mod watch;
