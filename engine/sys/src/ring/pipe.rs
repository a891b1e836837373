//! Pipes: the ring waits until there is something in them, this side reads it.
//!
//! Why not a read in the ring: the bytes of a call's log are also taken out of turn (`drain_now`). A read under way
//! that finds its data gone waits again, and after 128 times (APOLL_MAX_RETRY of io_uring/poll.c; before Linux 6.4, where
//! pipes have no FMODE_NOWAIT, always) the kernel gives it to a worker thread, which then takes bytes between our look
//! at the pipe and our read: and that read blocks the shard for ever. A poll takes nothing.
//!
//! Owns: buffers for the bytes. Must not know: whose log it is.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::{Completion, Group, Lease, LeaseKind, Received};

/// Bytes that one read takes.
const READ_BYTES_MAX: usize = 8 * 1024;
/// Empty buffers that are kept.
const BUFFERS_MAX: usize = 16;

/// Empty buffers for what is read.
#[derive(Debug, Default)]
pub(super) struct PipeBuffers(Vec<Vec<u8>>);

impl PipeBuffers {
    /// What a readable pipe holds; `None`: nothing.
    pub(super) fn read(&mut self, pipe: &OwnedFd, group: Group) -> Result<Option<Lease>, Errno> {
        let mut bytes = self.0.pop().unwrap_or_default();
        match take(pipe, &mut bytes, READ_BYTES_MAX) {
            Ok(0) => {
                self.keep(bytes);
                Ok(None)
            }
            Ok(_) => Ok(Some(Lease(LeaseKind::Owned { bytes, group }))),
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn keep(&mut self, mut bytes: Vec<u8>) {
        if self.0.len() < BUFFERS_MAX {
            bytes.clear();
            self.0.push(bytes);
        }
    }
}

/// Whether this brings bytes out of a pipe: no others are in memory of their own.
pub(super) fn is_from_one(completion: &Completion) -> bool {
    matches!(
        completion,
        Completion::Received { received: Received::Data(Lease(LeaseKind::Owned { .. })), .. }
    )
}

/// Appends at most `limit` bytes of what the pipe holds right now; never blocks, for nobody else reads it and no more is
/// asked for than is there.
pub(super) fn take(pipe: &OwnedFd, out: &mut Vec<u8>, limit: usize) -> Result<usize, Errno> {
    let there = usize::try_from(rustix::io::ioctl_fionread(pipe)?).unwrap_or(usize::MAX);
    let length = there.min(limit);
    if length == 0 {
        return Ok(0);
    }
    let start = out.len();
    out.resize(start + length, 0);
    let got = rustix::io::read(pipe, &mut out[start..]);
    out.truncate(start + got.unwrap_or(0));
    got
}
