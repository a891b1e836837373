//! Frames of a runtime: a stream of bytes is cut into frames or refused, and every bound holds.
//!
//! Owns: the check. Must not know: what a frame is about.

use faaster_limits::{FRAME_META_BYTES_MAX, RESPONSE_BYTES_MAX};
use faaster_protocol::frame::{FrameType, HEADER_BYTES, Header, LoadMeta};

/// Walks the stream as a shard does.
pub fn check(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(header)) = Header::decode(rest) {
        assert!(header.meta_bytes as usize <= FRAME_META_BYTES_MAX);
        assert!(header.body_bytes as usize <= RESPONSE_BYTES_MAX);
        assert_eq!(header.encode(), rest[..HEADER_BYTES], "what is taken is said exactly so");
        let total = HEADER_BYTES + header.payload_bytes();
        if rest.len() < total {
            return;
        }
        rest = &rest[total..];
    }
    let refused = Header::decode(rest).is_err();
    assert!(refused || rest.len() < HEADER_BYTES, "a whole header is taken or refused");
}

/// One frame of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for kind in [FrameType::Hello, FrameType::Ready, FrameType::Response, FrameType::Error, FrameType::Log] {
        let mut header = Header::new(kind, 7);
        (header.meta_bytes, header.body_bytes) = (2, 5);
        seeds.push([&header.encode()[..], b"{}hello"].concat());
    }
    let load = LoadMeta {
        function_name: "f",
        function_version: "1",
        brn: "brn",
        handler: "index.handler",
        memory_mb: 128,
        timeout_ms: 1000,
        concurrency: 0,
        user_id: "u",
        env: &Default::default(),
    };
    seeds.push(load.encode_frame());
    seeds.push(seeds.concat());
    seeds
}
