//! The ring of a thread, as generator and null server use it.
//!
//! Owns: its sizes. Must not know: which of the two it is for.

use faaster_sys::ring::{GroupSize, RingError, RingRefusal, Uring, UringConfig};

use crate::bounds::{RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS, RING_COMPLETIONS, RING_ENTRIES};

/// Why a thread has no ring.
#[derive(Debug, thiserror::Error)]
pub enum NoRing {
    #[error("cannot make a ring")]
    Refused(#[source] RingRefusal),
    #[error("the ring failed")]
    Lost(#[from] RingError),
}

/// A ring that works for the calling thread; it can accept so many connections as direct descriptors.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn ring_of_this_thread(direct_descriptors: u32) -> Result<Uring, NoRing> {
    let mut ring = Uring::prepare(&UringConfig {
        entries: RING_ENTRIES,
        completions: RING_COMPLETIONS,
        client_buffers: GroupSize { count: RECEIVE_BUFFERS, bytes: RECEIVE_BUFFER_BYTES },
        // There are no instances here.
        instance_buffers: GroupSize { count: 1, bytes: 1 },
        direct_descriptors,
    })
    .map_err(NoRing::Refused)?;
    ring.enable()?;
    Ok(ring)
}
