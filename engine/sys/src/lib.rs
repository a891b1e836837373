//! The only unsafe code of the engine: system calls that no safe crate offers, each behind a safe front.
//!
//! Owns: descriptors while a call is made, and the memory that the kernel writes to.
//! Must not know: HTTP, functions, containers' meaning.
#![allow(unsafe_code, reason = "this crate is where the workspace keeps it; every other crate forbids it")]

pub mod affinity;
pub mod alloc_counter;
pub mod child;
pub mod clone3;
pub mod credentials;
mod errno;
pub mod exec;
pub mod fdpass;
pub mod fdtable;
pub mod gauge;
pub mod inherited;
pub mod mount;
pub mod nested;
pub mod pidfd;
// Programs that run in containers are linked with musl, whose message headers differ; they have no ring.
#[cfg(not(target_env = "musl"))]
pub mod ring;
pub mod seccomp;
