//! The safe front of io_uring: what a shard may ask of the kernel, and what it hears back.
//!
//! Owns: the [`Ring`] trait, behind which the real ring ([`Uring`]) and the simulated one ([`sim::Sim`]) stand.
//! A ring owns every descriptor given to it and every byte the kernel may still write or read, so that no caller
//! can free memory under an operation. Must not know: HTTP, frames, what a token stands for.

mod buffers;
mod inflight;
mod pipe;
mod probe;
pub mod sim;
mod uring;

use std::ops::Deref;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use rustix::io::Errno;

pub use buffers::GroupSize;
pub use probe::{RingFeatures, RingRefusal, probe};
pub use uring::{Uring, UringConfig};

/// The caller's own name for an operation; comes back in its completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// A descriptor that the ring owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sock {
    /// Position in the ring's table of direct descriptors.
    Direct(u32),
    /// An ordinary descriptor.
    Plain(RawFd),
}

/// Which provided buffers an operation fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Group {
    /// Client connections.
    Client = 0,
    /// Instances: channels and log pipes. Apart, so that a flood of clients cannot starve them.
    Instance = 1,
}

/// Number of provided buffer groups.
pub const GROUPS: usize = 2;

/// An operation under way, so that it can be stopped. Stopping one that is over does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation(pub(crate) u64);

/// Whether a multishot operation goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Armed {
    Yes,
    /// This was its last completion: ask again.
    No,
}

/// A filled provided buffer, lent by the ring. Give it back with [`Ring::give_back`]: one that is merely dropped is lost
/// to its group (never unsound).
#[derive(Debug)]
#[must_use = "a lease that is not given back is lost to its buffer group"]
pub struct Lease(pub(crate) LeaseKind);

#[derive(Debug)]
pub(crate) enum LeaseKind {
    /// Bytes inside the ring's own mapping, which lives for the rest of the process.
    Mapped { bytes: &'static [u8], group: Group, index: u16 },
    /// Bytes of their own, counted as the group's in the simulation.
    Owned { bytes: Vec<u8>, group: Group },
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            LeaseKind::Mapped { bytes, .. } => bytes,
            LeaseKind::Owned { bytes, .. } => bytes,
        }
    }
}

/// A record from a funclet: its bytes and the descriptors beside it.
#[derive(Debug)]
pub struct Message {
    /// First `length` bytes are the record.
    pub bytes: [u8; MESSAGE_BYTES_MAX],
    pub length: usize,
    pub descriptors: Vec<OwnedFd>,
}

/// Bytes of the longest record that [`Ring::receive_message`] takes.
pub const MESSAGE_BYTES_MAX: usize = 192;
/// Descriptors beside one record.
pub const MESSAGE_DESCRIPTORS_MAX: usize = 4;

/// What a receive brought.
#[derive(Debug)]
pub enum Received {
    Data(Lease),
    /// The peer closed its side.
    End,
    /// `NOBUFS` means that the group was empty: ask again once buffers were given back.
    Failed(Errno),
}

/// One thing that happened.
#[derive(Debug)]
pub enum Completion {
    Accepted {
        token: Token,
        result: Result<Sock, Errno>,
        armed: Armed,
    },
    Received {
        token: Token,
        received: Received,
        armed: Armed,
    },
    /// `buffer` is the sender's again, whole; `result` is how many bytes from the given start went out.
    Sent {
        token: Token,
        result: Result<usize, Errno>,
        buffer: Vec<u8>,
    },
    /// `Ok(None)`: the peer closed its side.
    Message {
        token: Token,
        result: Result<Option<Box<Message>>, Errno>,
    },
    /// The doorbell rang.
    Rung {
        token: Token,
    },
}

/// Why the loop cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    #[error("io_uring_enter failed")]
    Enter(#[source] std::io::Error),
    #[error("enabling the ring on its thread failed")]
    Enable(#[source] std::io::Error),
}

/// What a shard may ask of the kernel. Every operation is queued and goes out with the next [`Ring::wait`].
pub trait Ring {
    /// Accepts connections until told otherwise ([`Completion::Accepted`] each).
    fn accept(&mut self, listener: Sock, token: Token);
    /// Takes over a descriptor.
    fn adopt(&mut self, descriptor: OwnedFd) -> Sock;
    /// Receives into provided buffers until told otherwise.
    fn receive(&mut self, sock: Sock, group: Group, token: Token) -> Operation;
    /// Ends a receive; its last completion still comes.
    fn stop(&mut self, operation: Operation);
    /// Reads a pipe once, as soon as something is in it ([`Completion::Received`], always [`Armed::No`]).
    fn read(&mut self, pipe: Sock, group: Group, token: Token);
    /// Receives one record with descriptors.
    fn receive_message(&mut self, sock: Sock, token: Token);
    /// Sends `buffer[from..]`; fewer bytes than that may go out.
    fn send(&mut self, sock: Sock, buffer: Vec<u8>, from: usize, token: Token);
    /// Waits until the eventfd is written, once.
    fn listen_bell(&mut self, bell: Sock, token: Token);
    /// Ends a listening socket for all who have it open: connections to it are refused from now on.
    fn stop_listening(&mut self, listener: Sock);
    /// Tells the peer that nothing more will be sent.
    fn shutdown_write(&mut self, sock: Sock);
    /// Cancels what is under way on `sock` and closes it.
    fn close(&mut self, sock: Sock);
    /// Moves what a pipe holds right now into `out`, at most `limit` bytes; never blocks. Returns how many.
    fn drain_now(&mut self, pipe: Sock, out: &mut Vec<u8>, limit: usize) -> usize;
    /// Makes a lent buffer available again.
    fn give_back(&mut self, lease: Lease);
    /// Submits what is queued and waits until something happened or `timeout` passed (`None`: no limit), then
    /// appends all that happened to `out`. What was read from pipes stands before all else: a runtime flushes its log
    /// before it answers, and the kernel does not keep the order (Linux 6.1 turns that of one wake-up round).
    ///
    /// # Errors
    /// The ring is unusable; the process should end.
    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> Result<(), RingError>;
    /// Nanoseconds of `CLOCK_MONOTONIC`, or of the simulated clock.
    fn now_ns(&self) -> u64;
    /// Seconds since 1970, for the Date header.
    fn unix_secs(&self) -> u64;
}
