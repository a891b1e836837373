//! Against the real kernel, each test in network namespaces of its own.
//!
//! Owns: the list of test modules. Must not know: what they test. They need root, and say so where they have to skip.
#![forbid(unsafe_code)]

#[path = "system/batches.rs"]
mod batches;
#[path = "system/errors.rs"]
mod errors;
#[path = "system/firewall.rs"]
mod firewall;
#[path = "system/flows.rs"]
mod flows;
#[path = "system/links.rs"]
mod links;
#[path = "system/namespaces.rs"]
mod namespaces;
#[path = "system/routes.rs"]
mod routes;
#[path = "system/sockets.rs"]
mod sockets;
