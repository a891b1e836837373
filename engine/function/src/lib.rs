//! What a function is: its identity, its versions, its settings, and the rules that they must keep.
//!
//! Owns: the types that the registry stores and the shards run. Must not know: files, sockets, HTTP, containers.
#![forbid(unsafe_code)]

pub mod code_use;
pub mod deployed;
pub mod draft;
pub mod identity;
pub mod layer;
pub mod record;
pub mod reference;
pub mod runtime;
pub mod settings;

pub use deployed::Deployed;
pub use identity::{AccountHash, AccountId, FunctionName, Version};
pub use record::FunctionRecord;
pub use runtime::{CallsAtOnce, RuntimeSpec};
