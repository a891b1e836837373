//! Netlink messages as bytes: the header in front of each, and how several lie in one buffer.
//!
//! Owns: the header's encoding and the walk over a buffer. Must not know: what a message is about, sockets.
//! Layout: include/uapi/linux/netlink.h of the kernel; all numbers of a header are in the machine's own byte order.
//!
//! ```
//! use faaster_netlink::wire::{HEADER_BYTES, Header, KIND_DONE, Messages};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let header = Header { length: 20, kind: KIND_DONE, flags: 0, sequence: 7, port: 0 };
//! let datagram = [&header.encode()[..], &0_i32.to_ne_bytes()].concat();
//! let message = Messages::new(&datagram).next().ok_or("one is there")??;
//! assert_eq!((message.header.sequence, message.body.len()), (7, datagram.len() - HEADER_BYTES));
//! # Ok(())
//! # }
//! ```

/// Bytes of a message header, `struct nlmsghdr`.
pub const HEADER_BYTES: usize = 16;

/// `NLM_F_REQUEST`: the message asks for something.
pub const FLAG_REQUEST: u16 = 0x1;
/// `NLM_F_ACK`: answer also when all went well.
pub const FLAG_ACK: u16 = 0x4;
/// `NLM_F_DUMP_INTR`: what is being listed changed meanwhile.
pub const FLAG_DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_DUMP`: list everything that matches.
pub const FLAG_DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`: of a request that makes something: replace what is there.
pub const FLAG_REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`: of a request that makes something: refuse if it is there.
pub const FLAG_EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`: of a request that makes something: make it if it is not there.
pub const FLAG_CREATE: u16 = 0x400;
/// `NLM_F_APPEND`: of a request that makes something: put it behind the others.
pub const FLAG_APPEND: u16 = 0x800;
/// `NLM_F_CAPPED`: of an answer: the request is not repeated in it.
pub const FLAG_CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: of an answer: it ends in attributes of the extended acknowledgement.
pub const FLAG_EXTENDED: u16 = 0x200;

/// `NLMSG_NOOP`: to be skipped.
pub const KIND_NOTHING: u16 = 1;
/// `NLMSG_ERROR`: the answer to a request, an error or an acknowledgement.
pub const KIND_ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a listing.
pub const KIND_DONE: u16 = 3;

/// Why bytes are no netlink message or attribute. The numbers are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A message's header is cut off.
    #[error("a message header of {HEADER_BYTES} bytes is expected where only {left} are left")]
    HeaderCut {
        /// Bytes that are there.
        left: usize,
    },
    /// A message says a length that cannot be.
    #[error("a message says it has {length} bytes where {left} are left")]
    MessageLength {
        /// What the message says.
        length: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// The fixed part of a message is cut off.
    #[error("the fixed part of a {what} message has {length} bytes and should have {expected}")]
    BodyCut {
        /// What the message is about.
        what: &'static str,
        /// Bytes that are there.
        length: usize,
        /// Bytes that should be.
        expected: usize,
    },
    /// An attribute says a length that cannot be.
    #[error("attribute {kind} says it has {length} bytes where {left} are left")]
    AttributeLength {
        /// The attribute's number.
        kind: u16,
        /// What it says, its header included.
        length: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// An attribute holds something else than it should.
    #[error("attribute {kind} has {length} bytes, which is no {expected}")]
    AttributeValue {
        /// The attribute's number.
        kind: u16,
        /// Bytes of its value.
        length: usize,
        /// What the value should be.
        expected: &'static str,
    },
}

/// Rounds up to the four bytes that netlink aligns everything to.
pub(crate) const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// The first `N` bytes, if there are so many.
pub(crate) fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.first_chunk().copied()
}

/// A message's header, `struct nlmsghdr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the whole message, this header included.
    pub length: u32,
    /// What the message is: its meaning depends on the protocol below 16 apart.
    pub kind: u16,
    /// `FLAG_*`.
    pub flags: u16,
    /// The request's number, repeated in its answers.
    pub sequence: u32,
    /// The port of the socket that asked; 0 is the kernel's.
    pub port: u32,
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        bytes[12..].copy_from_slice(&self.port.to_ne_bytes());
        bytes
    }

    /// The header that `bytes` begin with. The length it says is not checked.
    ///
    /// # Errors
    /// [`DecodeError::HeaderCut`] with fewer than [`HEADER_BYTES`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let bytes: [u8; HEADER_BYTES] = array(bytes).ok_or(DecodeError::HeaderCut { left: bytes.len() })?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = bytes;
        Ok(Self {
            length: u32::from_ne_bytes([l0, l1, l2, l3]),
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            port: u32::from_ne_bytes([p0, p1, p2, p3]),
        })
    }
}

/// One message of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its header.
    pub header: Header,
    /// What follows the header, without padding.
    pub body: &'a [u8],
}

/// The messages that lie one behind the other in a buffer. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// The messages of one datagram.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn step(&mut self) -> Result<Message<'a>, DecodeError> {
        let header = Header::decode(self.rest)?;
        let left = self.rest.len();
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        if length < HEADER_BYTES || length > left {
            return Err(DecodeError::MessageLength { length, left });
        }
        let body = &self.rest[HEADER_BYTES..length];
        // The padding of the last message may be missing.
        self.rest = &self.rest[aligned(length).min(left)..];
        Ok(Message { header, body })
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.rest = &[];
        }
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + body.len()).expect("small");
        let header = Header { length, kind, flags: FLAG_REQUEST, sequence: 7, port: 0 };
        let mut bytes = [&header.encode()[..], body].concat();
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    #[test]
    fn walks_padded_messages() {
        let bytes = [message(16, b"abcde"), message(17, b"")].concat();
        let found: Vec<_> = Messages::new(&bytes).map(|message| message.expect("valid")).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].header.kind, found[0].body), (16, &b"abcde"[..]));
        assert_eq!((found[1].header.kind, found[1].body), (17, &b""[..]));
    }

    #[test]
    fn takes_a_last_message_without_padding() {
        let mut bytes = message(16, b"abcde");
        bytes.truncate(HEADER_BYTES + 5);
        assert_eq!(Messages::new(&bytes).next().expect("one").expect("valid").body, b"abcde");
    }

    #[test]
    fn ends_at_a_length_that_cannot_be() {
        for length in [0_u32, 15, 17 + 4, u32::MAX] {
            let mut bytes = message(16, b"");
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            let mut messages = Messages::new(&bytes);
            assert!(matches!(messages.next(), Some(Err(DecodeError::MessageLength { .. }))), "{length}");
            assert!(messages.next().is_none());
        }
    }

    proptest! {
        #[test]
        fn headers_survive_the_round_trip(length: u32, kind: u16, flags: u16, sequence: u32, port: u32) {
            let header = Header { length, kind, flags, sequence, port };
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn any_bytes_are_walked_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let walked: usize = Messages::new(&bytes).filter_map(Result::ok).map(|m| HEADER_BYTES + m.body.len()).sum();
            prop_assert!(walked <= bytes.len());
        }
    }
}
