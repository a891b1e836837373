//! The HTTP/1.1 server-side codec: bytes to requests, answers to bytes.
//!
//! Owns: the syntax and the framing of HTTP/1.1 (RFC 9110, RFC 9112) and every refusal that follows from them.
//! Must not know: sockets, rings, clocks, routes, functions. It does no I/O, reads no time and, on the path of a
//! request, allocates nothing: requests are views into the caller's bytes, answers are appended to the caller's
//! buffer, the time is passed in.
//!
//! Reading order: [`mod@parse`] (a request head), [`connection`] (when to parse, and bodies that come in pieces),
//! [`body`] (the chunked coding), [`response`] with [`date`] and [`status`] (answers), [`percent`] (paths, queries).
//!
//! Every [`Reject`] means the same to the caller: answer with its status and reason, `Connection: close`, and read no
//! further request from this connection, because where the next one begins is no longer known.
#![forbid(unsafe_code)]

pub mod body;
pub mod connection;
pub mod date;
mod diagnose;
mod fields;
pub mod parse;
pub mod percent;
pub mod reject;
pub mod response;
pub mod status;
mod target;

pub use body::{ChunkStep, ChunkedDecoder, write_chunk_end, write_chunk_head, write_last_chunk};
pub use connection::{Attempt, BodyReader, Fed, HeadProgress};
pub use date::DateCache;
pub use parse::{Expectation, Framing, Head, Header, Method, Parsed, Persistence, Scratch, Version, parse};
pub use reject::Reject;
pub use response::{HeaderError, Template};
pub use status::Status;
