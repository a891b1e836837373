//! What the node keeps on disk: the registry of functions and their code.
//!
//! Owns: `data/registry.redb`, `data/code/`. Must not know: HTTP, shards, async runtimes. Everything blocks: callers use the
//! journal thread (made here) and a thread for code.
//! Nothing that was acknowledged is lost by kill -9 at any point; leftovers of an interrupted step are swept at open.
#![forbid(unsafe_code)]

pub mod code;
pub mod pack;
pub mod registry;
pub mod zip;

pub use code::CodeStore;
pub use registry::Registry;
