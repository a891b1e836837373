//! Empty buffers that wait for their next use, so that a busy shard asks the allocator for nothing.
//!
//! Owns: a bounded stock of small buffers, all of one capacity, and of uploads with their own. What is larger is made
//! and freed as it comes. Must not know: what buffers are used for.

use faaster_limits::{SPARE_BUFFER_BYTES, SPARE_BUFFERS_MAX, SPARE_UPLOADS_MAX};

use crate::connection::Upload;

/// See the module.
#[derive(Debug)]
pub(crate) struct Spares {
    buffers: Vec<Vec<u8>>,
    #[expect(clippy::vec_box, reason = "the boxes themselves are used again")]
    uploads: Vec<Box<Upload>>,
}

impl Spares {
    pub(crate) fn new() -> Self {
        Self {
            buffers: Vec::with_capacity(SPARE_BUFFERS_MAX),
            uploads: Vec::with_capacity(SPARE_UPLOADS_MAX),
        }
    }

    /// An empty buffer with room for [`SPARE_BUFFER_BYTES`].
    pub(crate) fn buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_else(|| Vec::with_capacity(SPARE_BUFFER_BYTES))
    }

    /// A copy of `bytes`; see [`Self::footprint`].
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        if bytes.len() > SPARE_BUFFER_BYTES {
            return bytes.to_vec();
        }
        let mut buffer = self.buffer();
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// Bytes of memory that a copy of so many bytes takes.
    pub(crate) fn footprint(bytes: usize) -> usize {
        bytes.max(SPARE_BUFFER_BYTES)
    }

    /// Takes back a buffer that is not needed any more, whatever is in it.
    pub(crate) fn keep(&mut self, mut buffer: Vec<u8>) {
        // Not larger ones: a stock of those would hold on to a lot of memory for nothing.
        let fits = (SPARE_BUFFER_BYTES..=2 * SPARE_BUFFER_BYTES).contains(&buffer.capacity());
        if fits && self.buffers.len() < SPARE_BUFFERS_MAX {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }

    /// An upload that was used before; all but its empty buffers is to be set anew.
    pub(crate) fn upload(&mut self) -> Option<Box<Upload>> {
        self.uploads.pop()
    }

    pub(crate) fn keep_upload(&mut self, mut upload: Box<Upload>) {
        let small = upload.head.capacity() + upload.body.capacity() <= 4 * SPARE_BUFFER_BYTES;
        if small && self.uploads.len() < SPARE_UPLOADS_MAX {
            upload.head.clear();
            upload.body.clear();
            self.uploads.push(upload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fitting_buffers_are_kept_and_they_come_back_empty() {
        let mut spares = Spares::new();
        spares.keep(Vec::new());
        spares.keep(Vec::with_capacity(SPARE_BUFFER_BYTES - 1));
        spares.keep(Vec::with_capacity(64 * SPARE_BUFFER_BYTES));
        assert!(spares.buffers.is_empty());
        let first = spares.copy(b"abc");
        let address = first.as_ptr();
        assert_eq!(first, b"abc");
        spares.keep(first);
        let again = spares.buffer();
        assert_eq!((again.len(), again.as_ptr()), (0, address));
        let large = vec![1; SPARE_BUFFER_BYTES + 1];
        assert_eq!(spares.copy(&large), large);
        for _ in 0..SPARE_BUFFERS_MAX + 1 {
            spares.keep(Vec::with_capacity(SPARE_BUFFER_BYTES));
        }
        assert_eq!(spares.buffers.len(), SPARE_BUFFERS_MAX);
    }
}
