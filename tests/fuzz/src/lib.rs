//! What must hold for any bytes that reach the engine from outside: clients, runtimes, the other process, uploads.
//!
//! Owns: one `check` for each way in, which panics when a promise is broken, and seeds to start from.
//! Must not know: which fuzzer calls it. `cargo fuzz` does (see README.md), and tests/smoke.rs with plain cargo.
#![forbid(unsafe_code)]

pub mod frames;
pub mod http;
pub mod image;
pub mod messages;
pub mod netlink;
pub mod response;
pub mod trigger;
pub mod zip;

/// One way in.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub check: fn(&[u8]),
    /// Valid input to mutate.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Rounds of the smoke test, fewer where one is slow.
    pub rounds: usize,
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target { name: "http", check: http::check, seeds: http::seeds, rounds: 20_000 },
    Target { name: "frames", check: frames::check, seeds: frames::seeds, rounds: 50_000 },
    Target { name: "messages", check: messages::check, seeds: messages::seeds, rounds: 50_000 },
    Target { name: "netlink", check: netlink::check, seeds: netlink::seeds, rounds: 20_000 },
    Target { name: "response", check: response::check, seeds: response::seeds, rounds: 50_000 },
    Target { name: "trigger", check: trigger::check, seeds: trigger::seeds, rounds: 20_000 },
    Target { name: "image", check: image::check, seeds: image::seeds, rounds: 1_000 },
    Target { name: "zip", check: zip::check, seeds: zip::seeds, rounds: 1_500 },
];

/// Cuts `bytes` at places that `choice` determines; all bytes, in order.
fn pieces(bytes: &[u8], choice: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    let mut state = u32::from(choice) * 2 + 1;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let longest = if choice < 128 { 4 } else { 200 };
        let (piece, after) = rest.split_at((1 + (state >> 16) as usize % longest).min(rest.len()));
        rest = after;
        Some(piece)
    })
}
