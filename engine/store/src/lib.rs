//! What the node keeps on disk: the registry of functions, their code and their logs.
//!
//! Owns: `data/registry.redb`, `data/code/`, `data/logs/`. Must not know: HTTP, shards, async runtimes. Everything blocks: callers use the
//! journal thread (made here), a thread for code and one for logs.
//! Nothing that was acknowledged is lost by kill -9 at any point; leftovers of an interrupted step are swept at open.
#![forbid(unsafe_code)]

pub mod code;
pub mod log;
pub mod pack;
pub mod registry;
mod tree;
pub mod zip;

pub use code::CodeStore;
pub use log::LogStore;
pub use registry::Registry;
