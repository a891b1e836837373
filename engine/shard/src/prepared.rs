//! A shard's ring and listeners, made while the process is still root.
//!
//! Owns: them, until the shard's thread takes over. Must not know: how privileges are dropped.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use faaster_function::Deployed;
use faaster_function::code_use::CodeUses;
use faaster_limits::{
    CLIENT_BUFFER_BYTES, CLIENT_BUFFERS, INSTANCE_BUFFER_BYTES, INSTANCE_BUFFERS, RING_COMPLETIONS,
    RING_ENTRIES,
};
use faaster_sys::ring::{GroupSize, Ring, RingError, RingRefusal, Uring, UringConfig};

use crate::api::{Port, ShardConfig, ShardId, Sink};
use crate::errand::Packet;
use crate::mailbox::MailboxEnd;
use crate::shard::{Parts, Shard};

/// See the module.
#[derive(Debug)]
pub struct Prepared {
    id: ShardId,
    config: ShardConfig,
    ring: Uring,
    listeners: Vec<(Port, OwnedFd)>,
}

/// Why a shard cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error("shard {shard} has no ring: {source}", shard = shard.0)]
    Ring { shard: ShardId, source: RingRefusal },
    #[error("shard {shard} cannot use core {core}", shard = shard.0)]
    Core { shard: ShardId, core: u16, source: io::Error },
    #[error("shard {shard} lost its ring", shard = shard.0)]
    Lost { shard: ShardId, source: RingError },
    #[error("shard {shard} has no doorbell", shard = shard.0)]
    Bell { shard: ShardId, source: io::Error },
}

impl Prepared {
    /// Makes the ring. To be called before privileges are dropped: afterwards no ring can be made.
    ///
    /// # Errors
    /// The kernel's refusal in words.
    pub fn new(
        id: ShardId,
        config: &ShardConfig,
        listeners: Vec<(Port, OwnedFd)>,
    ) -> Result<Self, PrepareError> {
        let connections = u32::try_from(config.connections_max).unwrap_or(u32::MAX);
        let sizes = UringConfig {
            entries: RING_ENTRIES,
            completions: RING_COMPLETIONS,
            client_buffers: GroupSize { count: CLIENT_BUFFERS, bytes: CLIENT_BUFFER_BYTES },
            instance_buffers: GroupSize { count: INSTANCE_BUFFERS, bytes: INSTANCE_BUFFER_BYTES },
            // One more than connections, so that the one too many can be accepted and closed.
            direct_descriptors: connections.saturating_add(1),
        };
        let ring = Uring::prepare(&sizes).map_err(|source| PrepareError::Ring { shard: id, source })?;
        Ok(Self { id, config: config.clone(), ring, listeners })
    }

    /// Pins the calling thread to `core` and runs the shard on it; comes back only with an error. The shard knows the
    /// functions in `known` before it takes its first connection.
    ///
    /// # Errors
    /// The core is not there, or the ring is lost.
    pub fn run(
        mut self,
        core: u16,
        mailbox: MailboxEnd<Packet>,
        sink: Sink,
        seed: [u64; 2],
        code_uses: Arc<CodeUses>,
        known: &[Arc<Deployed>],
    ) -> Result<std::convert::Infallible, PrepareError> {
        let shard = self.id;
        faaster_sys::affinity::pin_to(core).map_err(|errno| PrepareError::Core {
            shard,
            core,
            source: errno.into(),
        })?;
        self.ring.enable().map_err(|source| PrepareError::Lost { shard, source })?;
        let bell = mailbox.bell().map_err(|source| PrepareError::Bell { shard, source })?;
        let bell = self.ring.adopt(bell);
        let listeners = self.listeners.into_iter().map(|(port, fd)| (self.ring.adopt(fd), port)).collect();
        let parts = Parts { id: shard, core, config: self.config, mailbox, sink, code_uses, seed };
        let mut running = Shard::new(self.ring, parts, listeners, bell);
        running.know(known);
        running.run().map_err(|source| PrepareError::Lost { shard, source })
    }
}
