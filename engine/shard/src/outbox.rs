//! What waits to be sent to one peer, in order.
//!
//! Owns: the bytes until they are handed to the ring, and the rest of a short send. One send is under way at a time,
//! so that everything written during a loop turn goes out in one system call. Must not know: who the peer is.

use std::collections::VecDeque;

/// Bytes above which a staging buffer is not kept for reuse.
const KEEP_BYTES_MAX: usize = 64 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Small things are appended here.
    staging: Vec<u8>,
    /// Full buffers that go before what is in `staging`.
    queue: VecDeque<Vec<u8>>,
    /// Bytes in `queue`.
    queued_bytes: usize,
    /// An empty buffer with capacity, for the next staging.
    spare: Vec<u8>,
    sending: Option<Sending>,
}

#[derive(Debug, Clone, Copy)]
struct Sending {
    from: usize,
    bytes: usize,
}

/// A buffer for the ring.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) buffer: Vec<u8>,
    pub(crate) from: usize,
}

impl Outbox {
    /// Where small things are appended.
    pub(crate) fn staging(&mut self) -> &mut Vec<u8> {
        &mut self.staging
    }

    /// Appends a large buffer without copying it.
    pub(crate) fn push_owned(&mut self, buffer: Vec<u8>) {
        if buffer.is_empty() {
            return;
        }
        if buffer.len() <= 1024 {
            self.staging.extend_from_slice(&buffer);
            return;
        }
        if !self.staging.is_empty() {
            let staged = std::mem::take(&mut self.staging);
            self.queued_bytes += staged.len();
            self.queue.push_back(staged);
        }
        self.queued_bytes += buffer.len();
        self.queue.push_back(buffer);
    }

    /// Bytes not yet taken by the kernel.
    pub(crate) fn pending_bytes(&self) -> usize {
        let sending = self.sending.map_or(0, |sending| sending.bytes - sending.from);
        self.staging.len() + self.queued_bytes + sending
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// The next buffer to send, unless one is under way.
    pub(crate) fn next(&mut self) -> Option<Parcel> {
        if self.sending.is_some() {
            return None;
        }
        let buffer = if let Some(buffer) = self.queue.pop_front() {
            self.queued_bytes -= buffer.len();
            buffer
        } else if self.staging.is_empty() {
            return None;
        } else {
            std::mem::replace(&mut self.staging, std::mem::take(&mut self.spare))
        };
        self.sending = Some(Sending { from: 0, bytes: buffer.len() });
        Some(Parcel { buffer, from: 0 })
    }

    /// The kernel took `sent` bytes; answers with the rest of the buffer if there is one.
    pub(crate) fn sent(&mut self, mut buffer: Vec<u8>, sent: usize) -> Option<Parcel> {
        let sending = self.sending.as_mut().expect("a completion without a send");
        assert!(sending.from + sent <= sending.bytes, "the kernel took more than there was");
        sending.from += sent;
        if sending.from < sending.bytes {
            let from = sending.from;
            return Some(Parcel { buffer, from });
        }
        self.sending = None;
        if self.spare.capacity() == 0 && buffer.capacity() <= KEEP_BYTES_MAX {
            buffer.clear();
            self.spare = buffer;
        }
        None
    }

    /// The send failed: nothing more will go out.
    pub(crate) fn abandon(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is appended in whatever way comes out once and in order, under any short sends.
        #[test]
        fn bytes_keep_their_order(pieces in proptest::collection::vec((any::<bool>(), 0usize..5000), 1..30), step in 1usize..4000) {
            let mut outbox = Outbox::default();
            let (mut expected, mut got, mut next) = (Vec::new(), Vec::new(), 0u8);
            let mut under_way = None;
            for (owned, length) in pieces {
                let piece: Vec<u8> = (0..length).map(|_| { next = next.wrapping_add(1); next }).collect();
                expected.extend_from_slice(&piece);
                if owned { outbox.push_owned(piece) } else { outbox.staging().extend_from_slice(&piece) }
                if under_way.is_none() { under_way = outbox.next(); }
                if let Some(Parcel { buffer, from }) = under_way.take() {
                    let sent = step.min(buffer.len() - from);
                    got.extend_from_slice(&buffer[from..from + sent]);
                    under_way = outbox.sent(buffer, sent);
                }
            }
            while let Some(Parcel { buffer, from }) = under_way.take().or_else(|| outbox.next()) {
                let sent = step.min(buffer.len() - from);
                got.extend_from_slice(&buffer[from..from + sent]);
                under_way = outbox.sent(buffer, sent);
            }
            prop_assert_eq!(got, expected);
            prop_assert_eq!(outbox.pending_bytes(), 0);
        }
    }
}
