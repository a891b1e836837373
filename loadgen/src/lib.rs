//! loadgen: a load generator for HTTP/1.1 whose numbers can be trusted, or that says why they cannot.
//!
//! Owns: everything between the command line and the printed result. Must not know: the engine that it often measures.
//!
//! One thread per core, each with an io_uring of its own, its own connections and its own part of a schedule that is
//! settled before the first send. Threads share nothing; once a second they hand their histograms to the main thread.
//!
//! # Why the ring is that of engine/sys
//! The load generator could have had a ring of its own, which would leave it free of the engine's. It uses the engine's
//! safe front ([`faaster_sys::ring`]) all the same: unsafe code has one home in this workspace, and the ring there owns
//! memory and descriptors of every operation, which is what is hard about it. What is shared is a way to call the kernel,
//! not a measure of anything: a fault in it would show against nginx and wrk, with which this tool is compared. Two
//! things are the tool's own. Connections are opened with plain connect(2) on non-blocking sockets and then adopted: a
//! send on a socket that is still connecting waits inside the kernel, so the ring needs no operation for it. And
//! [`faaster_sys::ring::Uring::poll`] was added for it, so that a thread can spin before a send is due without a system
//! call, and without missing an answer that comes meanwhile.
#![forbid(unsafe_code)]

pub mod bounds;
pub mod cold;
pub mod comparison;
pub mod cpu;
pub mod environment;
pub mod gates;
pub mod hgrm;
pub mod null_server;
pub mod options;
pub mod plan;
pub mod preset;
pub mod report;
pub mod request;
pub mod response;
pub mod result;
pub mod ring;
pub mod run;
pub mod schedule;
pub mod selftest;
pub mod session;
pub mod sign;
pub mod stats;
pub mod sweep;
pub mod tally;
pub mod target;
pub mod template;
pub mod text;
pub mod worker;
