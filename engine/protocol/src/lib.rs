//! Wire formats: what the engine says to runtimes, to funclets and to callers.
//!
//! Owns: encodings only. Must not know: sockets, rings, time, files; every function is bytes in, values out, or back.
#![forbid(unsafe_code)]

pub mod easyfaas;
pub mod frame;
pub mod funclet;
pub mod trigger;
