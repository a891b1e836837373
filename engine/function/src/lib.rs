//! What a function is: its identity, its versions, its settings, and the rules that they must keep.
//!
//! Owns: the types that the registry stores and the shards run. Must not know: files, sockets, HTTP, containers.
#![forbid(unsafe_code)]

pub mod deployed;
pub mod runtime;

pub use deployed::Deployed;
pub use runtime::RuntimeSpec;
