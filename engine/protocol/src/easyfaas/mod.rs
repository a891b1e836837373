//! FaaSter's dialect on the wire: identifiers, headers, errors and log tails, spelled as the real one spells them.
//!
//! Owns: the exact bytes (recorded answers of FaaSter 1.0 are their source; tests/golden holds the record).
//! Must not know: which shard runs a call, how a function is stored. Writers append to a `Vec<u8>` and readers borrow
//! from the request, so that a warm call allocates nothing here.

pub mod account;
pub mod brn;
pub mod errors;
pub mod headers;
pub mod json;
pub mod query;
pub mod route;
pub mod tail;
