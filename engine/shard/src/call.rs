//! One invocation, from its admission to its answer.
//!
//! Owns: who asked, what was asked, the event while it waits, the result while it comes in parts.
//! Must not know: how it is dispatched or answered.

use faaster_limits::{REQUEST_ID_BYTES_MAX, RESPONSE_CREDIT_BYTES, RESPONSE_PART_BYTES_MAX};

use crate::api::ShardId;
use crate::connection::Connection;
use crate::instance::Instance;
use crate::phases::Phases;
use crate::slab::Id;

/// The id that a caller gave, or a random UUID (RFC 9562 version 4).
#[derive(Clone, Copy)]
pub(crate) struct RequestId {
    length: u8,
    bytes: [u8; REQUEST_ID_BYTES_MAX],
}

impl RequestId {
    /// Takes the caller's id if it is short, visible ASCII without quotes and backslashes.
    pub(crate) fn given(id: &[u8]) -> Option<Self> {
        let fine = |byte: &u8| byte.is_ascii_graphic() && *byte != b'"' && *byte != b'\\';
        if id.is_empty() || id.len() > REQUEST_ID_BYTES_MAX || !id.iter().all(fine) {
            return None;
        }
        let mut bytes = [0; REQUEST_ID_BYTES_MAX];
        bytes[..id.len()].copy_from_slice(id);
        Some(Self { length: u8::try_from(id.len()).expect("checked above"), bytes })
    }

    /// A UUID of these random bits.
    pub(crate) fn random(high: u64, low: u64) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let high = high & !0xf000 | 0x4000;
        let low = low & !(0xc000 << 48) | 0x8000 << 48;
        let raw = u128::from(high) << 64 | u128::from(low);
        let mut bytes = [0; REQUEST_ID_BYTES_MAX];
        let mut at = 0;
        for (position, byte) in raw.to_be_bytes().into_iter().enumerate() {
            if matches!(position, 4 | 6 | 8 | 10) {
                bytes[at] = b'-';
                at += 1;
            }
            bytes[at] = HEX[usize::from(byte >> 4)];
            bytes[at + 1] = HEX[usize::from(byte & 15)];
            at += 2;
        }
        Self { length: 36, bytes }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    pub(crate) fn empty() -> Self {
        Self { length: 0, bytes: [0; REQUEST_ID_BYTES_MAX] }
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("made of ASCII alone")
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who waits for the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin {
    Client {
        connection: Id<Connection>,
        sequence: u64,
    },
    /// Another shard's call, under its id there.
    Remote {
        shard: ShardId,
        call: u64,
    },
    /// Nobody: an `event` invocation, or the client went away.
    Nobody,
    /// Nobody any more: the answer went out while the result was still coming, which is dropped.
    Answered,
}

/// The shape of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// `POST .../invocations`: the raw result.
    Invoke,
    /// The same with `Log-To-Body: true`: a JSON object around it.
    InvokeLogToBody,
    /// HTTP trigger: the result says status, headers and body.
    Trigger,
    /// `event` invocation: answered at admission, the result is dropped.
    Event,
}

/// Whether the caller wants the log's tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    Unwanted,
    Wanted,
}

/// Where a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In its function's queue.
    Queued,
    Running(Id<Instance>),
    /// On its home shard; this one only holds the client's end.
    Forwarded(ShardId),
}

/// How much of a large result the runtime may send (docs/protocol.md section 5), bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Credit {
    /// Received and not granted again.
    pub(crate) used: usize,
    /// Of `used`: without room in the shard's budget yet.
    pub(crate) unheld: usize,
}

impl Credit {
    /// A part has come; `false` if the runtime had no credit for it.
    pub(crate) fn spend(&mut self, bytes: usize) -> bool {
        self.used += bytes;
        self.used <= RESPONSE_CREDIT_BYTES as usize
    }

    /// What is granted now: nothing before it is worth a frame, so that parts of one byte cost no frame each.
    pub(crate) fn take_grant(&mut self) -> u32 {
        let due = self.used - self.unheld;
        if due < RESPONSE_PART_BYTES_MAX {
            return 0;
        }
        self.used = self.unheld;
        u32::try_from(due).expect("at most RESPONSE_CREDIT_BYTES")
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) origin: Origin,
    pub(crate) style: Style,
    pub(crate) tail: Tail,
    pub(crate) place: Place,
    /// Index into the shard's function table.
    pub(crate) function: u32,
    pub(crate) request_id: RequestId,
    pub(crate) client_context: Option<Vec<u8>>,
    /// The event while the call waits; empty once it is on its way to an instance.
    pub(crate) event: Vec<u8>,
    /// Counted in the shard's held bytes.
    pub(crate) held_bytes: usize,
    /// When the request was complete.
    pub(crate) arrived_ns: u64,
    /// When it went to its instance; 0 before.
    pub(crate) started_ns: u64,
    /// While queued: when it is refused. While running: when it is timed out.
    pub(crate) deadline_ns: u64,
    /// Parts of the result so far.
    pub(crate) result: Vec<u8>,
    pub(crate) credit: Credit,
    /// Its log lines, if wanted.
    pub(crate) log: Vec<u8>,
    /// Of the instance that was started while it waited.
    pub(crate) cold: Option<Box<Phases>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_are_version_4_uuids() {
        let id = RequestId::random(0x0123_4567_89ab_cdef, u64::MAX);
        assert_eq!(id.as_str(), "01234567-89ab-4def-bfff-ffffffffffff");
        assert_eq!(RequestId::random(0, 0).as_str(), "00000000-0000-4000-8000-000000000000");
    }

    #[test]
    fn given_ids_are_taken_only_if_harmless() {
        assert_eq!(RequestId::given(b"abc-1").unwrap().as_str(), "abc-1");
        for bad in [&b""[..], b"a b", b"a\"b", b"a\\b", b"\x80", &[b'a'; 64]] {
            assert!(RequestId::given(bad).is_none(), "{bad:?}");
        }
    }
}
