//! The frame codec of docs/protocol.md, engine side.
//!
//! Owns: header layout, checks, and the meta objects of each frame type.
//! Must not know: how frames travel, which invocation an id stands for.

use faaster_limits::{FRAME_META_BYTES_MAX, RESPONSE_BYTES_MAX};
use serde::Serialize;

/// Bytes of a frame header.
pub const HEADER_BYTES: usize = 64;
/// "FAS" and the protocol version, little-endian.
pub const MAGIC: u32 = u32::from_le_bytes([0x46, 0x41, 0x53, 0x01]);
/// More parts of this body follow.
pub const FLAG_MORE: u16 = 1;
/// The text of a `log` frame came from standard error.
pub const FLAG_STDERR: u16 = 2;

const FLAGS_ALL: u16 = FLAG_MORE | FLAG_STDERR;

/// What a frame is; the numbers are those of docs/protocol.md section 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum FrameType {
    Hello = 1,
    Load = 2,
    Ready = 3,
    Invoke = 4,
    RequestPart = 5,
    Response = 6,
    Window = 7,
    Cancel = 8,
    Error = 9,
    Log = 10,
    Shutdown = 11,
    Ping = 12,
    Pong = 13,
}

impl FrameType {
    fn from_wire(value: u16) -> Option<Self> {
        Some(match value {
            1 => Self::Hello,
            2 => Self::Load,
            3 => Self::Ready,
            4 => Self::Invoke,
            5 => Self::RequestPart,
            6 => Self::Response,
            7 => Self::Window,
            8 => Self::Cancel,
            9 => Self::Error,
            10 => Self::Log,
            11 => Self::Shutdown,
            12 => Self::Ping,
            13 => Self::Pong,
            _ => return None,
        })
    }
}

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: FrameType,
    pub flags: u16,
    /// Unique per channel; 0 where the frame is about no invocation.
    pub invocation: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`; 0 = none.
    pub deadline_ns: u64,
    pub meta_bytes: u32,
    pub body_bytes: u32,
    /// Bytes granted; only in `window`.
    pub credit_bytes: u32,
}

impl Header {
    /// A header about `invocation` with empty meta and body.
    pub fn new(kind: FrameType, invocation: u64) -> Self {
        Self { kind, flags: 0, invocation, deadline_ns: 0, meta_bytes: 0, body_bytes: 0, credit_bytes: 0 }
    }

    /// Bytes that follow the header.
    pub fn payload_bytes(&self) -> usize {
        self.meta_bytes as usize + self.body_bytes as usize
    }

    /// Whether parts follow.
    pub fn has_more(&self) -> bool {
        self.flags & FLAG_MORE != 0
    }

    /// The 64 bytes on the wire.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0u8; HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..6].copy_from_slice(&(self.kind as u16).to_le_bytes());
        out[6..8].copy_from_slice(&self.flags.to_le_bytes());
        out[8..16].copy_from_slice(&self.invocation.to_le_bytes());
        out[16..24].copy_from_slice(&self.deadline_ns.to_le_bytes());
        out[24..28].copy_from_slice(&self.meta_bytes.to_le_bytes());
        out[28..32].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[32..36].copy_from_slice(&self.credit_bytes.to_le_bytes());
        out
    }

    /// Reads and checks the header at the start of `bytes`; `None` while fewer than 64 bytes are there.
    ///
    /// # Errors
    /// The rule of docs/protocol.md section 2 that the frame breaks.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some((head, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let magic = read_u32(head, 0);
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let wire_type = u16::from_le_bytes([head[4], head[5]]);
        let kind = FrameType::from_wire(wire_type).ok_or(FrameError::Type(wire_type))?;
        let header = Self {
            kind,
            flags: u16::from_le_bytes([head[6], head[7]]),
            invocation: read_u64(head, 8),
            deadline_ns: read_u64(head, 16),
            meta_bytes: read_u32(head, 24),
            body_bytes: read_u32(head, 28),
            credit_bytes: read_u32(head, 32),
        };
        if header.flags & !FLAGS_ALL != 0 {
            return Err(FrameError::Flags(header.flags));
        }
        if header.meta_bytes as usize > FRAME_META_BYTES_MAX {
            return Err(FrameError::Meta(header.meta_bytes));
        }
        if header.body_bytes as usize > RESPONSE_BYTES_MAX {
            return Err(FrameError::Body(header.body_bytes));
        }
        if head[36..].iter().any(|byte| *byte != 0) {
            return Err(FrameError::Reserved);
        }
        Ok(Some(header))
    }
}

fn read_u32(head: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

fn read_u64(head: &[u8; HEADER_BYTES], at: usize) -> u64 {
    let mut raw = [0u8; 8];
    raw.copy_from_slice(&head[at..at + 8]);
    u64::from_le_bytes(raw)
}

/// The rule that a runtime's frame broke; its instance is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame starts with {0:#010x}, not with the protocol's magic")]
    Magic(u32),
    #[error("frame type {0} is unknown")]
    Type(u16),
    #[error("frame flags {0:#06x} hold unknown bits")]
    Flags(u16),
    #[error("frame meta of {0} bytes is over the limit")]
    Meta(u32),
    #[error("frame body of {0} bytes is over the limit")]
    Body(u32),
    #[error("reserved bytes of a frame are not zero")]
    Reserved,
}

/// The meta object of a `load` frame (docs/protocol.md section 4).
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadMeta<'a> {
    pub function_name: &'a str,
    pub function_version: &'a str,
    pub brn: &'a str,
    pub handler: &'a str,
    #[serde(rename = "memoryMB")]
    pub memory_mb: u32,
    pub timeout_ms: u64,
    pub concurrency: u32,
    pub user_id: &'a str,
    pub env: &'a std::collections::BTreeMap<String, String>,
}

impl LoadMeta<'_> {
    /// The whole `load` frame.
    pub fn encode_frame(&self) -> Vec<u8> {
        let meta = serde_json::to_vec(self).expect("strings and numbers always serialise");
        let mut header = Header::new(FrameType::Load, 0);
        header.meta_bytes =
            u32::try_from(meta.len()).expect("environment and names are bounded far below 4 GiB");
        let mut frame = Vec::with_capacity(HEADER_BYTES + meta.len());
        frame.extend_from_slice(&header.encode());
        frame.extend_from_slice(&meta);
        frame
    }
}

/// What a runtime says of itself in `hello`.
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub struct HelloMeta {
    pub protocol: u32,
    #[serde(default)]
    pub runtime: String,
    #[serde(default)]
    pub features: Vec<String>,
}

/// What a runtime says of itself in `ready`.
#[derive(Debug, Default, serde::Deserialize)]
struct ReadyMeta {
    #[serde(default)]
    features: Vec<String>,
}

/// Whether the meta object of a `ready` frame promises an answer to each `ping`. What is no such object promises nothing.
pub fn promises_pong(meta: &[u8]) -> bool {
    let meta: ReadyMeta = serde_json::from_slice(meta).unwrap_or_default();
    meta.features.iter().any(|feature| feature == "ping")
}

/// Appends the meta object of an `invoke` frame; `client_context` is JSON as the caller sent it, already checked, and
/// `memory_mb` there only if it is another than at the load.
/// Returns how many bytes were appended. The request id must hold no character that JSON escapes.
pub fn append_invoke_meta(
    out: &mut Vec<u8>,
    request_id: &[u8],
    client_context: Option<&[u8]>,
    memory_mb: Option<u32>,
) -> usize {
    debug_assert!(request_id.iter().all(|b| (0x20..0x7f).contains(b) && *b != b'"' && *b != b'\\'));
    let before = out.len();
    out.extend_from_slice(b"{\"requestId\":\"");
    out.extend_from_slice(request_id);
    out.push(b'"');
    if let Some(json) = client_context {
        out.extend_from_slice(b",\"clientContext\":");
        out.extend_from_slice(json);
    }
    if let Some(memory_mb) = memory_mb {
        out.extend_from_slice(b",\"memoryMB\":");
        out.extend_from_slice(itoa::Buffer::new().format(memory_mb).as_bytes());
    }
    out.push(b'}');
    out.len() - before
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Header {
        Header {
            kind: FrameType::Response,
            flags: FLAG_MORE,
            invocation: 7,
            deadline_ns: u64::MAX,
            meta_bytes: 2,
            body_bytes: 65_536,
            credit_bytes: 9,
        }
    }

    #[test]
    fn header_survives_the_wire() {
        let bytes = sample().encode();
        assert_eq!(Header::decode(&bytes), Ok(Some(sample())));
        assert_eq!(Header::decode(&bytes[..63]), Ok(None));
    }

    #[test]
    fn each_broken_rule_has_its_name() {
        let with = |at: usize, value: u8| {
            let mut bytes = sample().encode();
            bytes[at] = value;
            Header::decode(&bytes)
        };
        assert!(matches!(with(0, 0), Err(FrameError::Magic(_))));
        assert_eq!(with(4, 0), Err(FrameError::Type(0)));
        assert_eq!(with(4, 14), Err(FrameError::Type(14)));
        assert!(matches!(with(7, 1), Err(FrameError::Flags(_))));
        assert!(matches!(with(27, 1), Err(FrameError::Meta(_))));
        assert!(matches!(with(31, 1), Err(FrameError::Body(_))));
        assert_eq!(with(63, 1), Err(FrameError::Reserved));
        assert_eq!(with(36, 1), Err(FrameError::Reserved));
    }

    #[test]
    fn only_who_says_so_promises_a_pong() {
        for (meta, promises) in [
            (r#"{"features":["concurrent","ping"],"more":1}"#, true),
            (r#"{"features":[]}"#, false),
            ("{}", false),
            ("", false),
            (r#"["ping"]"#, false),
            (r#"{"features":"ping"}"#, false),
        ] {
            assert_eq!(promises_pong(meta.as_bytes()), promises, "{meta}");
        }
    }

    #[test]
    fn invoke_meta_is_json() {
        let mut out = Vec::new();
        let n = append_invoke_meta(&mut out, b"abc-1", Some(br#"{"custom":{"a":1}}"#), Some(256));
        assert_eq!(n, out.len());
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["requestId"], "abc-1");
        assert_eq!(value["clientContext"]["custom"]["a"], 1);
        assert_eq!(value["memoryMB"], 256);
        out.clear();
        append_invoke_meta(&mut out, b"abc-1", None, None);
        assert_eq!(out, br#"{"requestId":"abc-1"}"#);
    }

    proptest! {
        #[test]
        fn decode_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Header::decode(&bytes).ok();
        }

        #[test]
        fn what_decodes_encodes_to_itself(mut bytes in proptest::collection::vec(any::<u8>(), 36), kind in 1u16..=13) {
            bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
            bytes[4..6].copy_from_slice(&kind.to_le_bytes());
            bytes[6] &= 3; bytes[7] = 0; bytes[26] = 0; bytes[27] = 0; bytes[30] &= 0x3f; bytes[31] = 0;
            bytes.resize(HEADER_BYTES, 0);
            let header = Header::decode(&bytes).unwrap().unwrap();
            prop_assert_eq!(&header.encode()[..], &bytes[..]);
        }
    }
}
