//! The socket between the supervisor and a child: records with descriptors.
//!
//! Owns: sending and receiving them. Must not know: what they mean (that is [`faaster_protocol::funclet::LinkMessage`]
//! and [`super::start`]).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use faaster_sys::fdpass::{recv_with_fds, send_with_fds};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::clock::{Deadline, wait_readable};

/// Bytes of one record.
pub(crate) const RECORD_BYTES_MAX: usize = 4096;
/// Descriptors of one record: a channel for each shard and one for the control thread.
pub(crate) const RECORD_FDS_MAX: usize = faaster_limits::SHARDS_MAX + 1;
const _: () = assert!(RECORD_FDS_MAX <= faaster_sys::fdpass::FDS_PER_MESSAGE_MAX);

/// Why nothing could be said or heard.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("cannot make a socket pair: {0}")]
    Pair(#[source] Errno),
    #[error("cannot send to the other process: {0}")]
    Send(#[source] Errno),
    #[error("cannot receive from the other process: {0}")]
    Receive(#[source] Errno),
    #[error("the other process is gone")]
    Gone,
    #[error("the other process said nothing for {}s", .0.as_secs())]
    Silent(Duration),
}

/// One record.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Both ends of a link: `SOCK_SEQPACKET`, non-blocking, closed on exec.
///
/// # Errors
/// [`LinkError::Pair`].
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), LinkError> {
    socket_pair(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
}

/// Both ends of a channel between engine and funclet: `SOCK_SEQPACKET`, closed on exec. Blocking, because a ring
/// does not wait for a descriptor that says it must not be waited for; the funclet sets its end as it likes.
///
/// # Errors
/// [`LinkError::Pair`].
pub(crate) fn channel() -> Result<(OwnedFd, OwnedFd), LinkError> {
    socket_pair(SocketFlags::CLOEXEC)
}

fn socket_pair(flags: SocketFlags) -> Result<(OwnedFd, OwnedFd), LinkError> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(LinkError::Pair)
}

/// Sends one record without waiting.
///
/// # Errors
/// [`LinkError::Send`]; a full socket is an error too, for a child that reads nothing is of no use.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
    send_with_fds(socket, bytes, fds).map_err(LinkError::Send)?;
    Ok(())
}

/// Receives one record without waiting; `None` if there is none yet.
///
/// # Errors
/// [`LinkError::Gone`] at the end of the link, [`LinkError::Receive`].
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Result<Option<Record>, LinkError> {
    let mut bytes = vec![0; RECORD_BYTES_MAX];
    match recv_with_fds(socket, &mut bytes) {
        Ok(received) if received.bytes == 0 => Err(LinkError::Gone),
        Ok(received) => {
            bytes.truncate(received.bytes);
            Ok(Some(Record { bytes, fds: received.fds }))
        }
        Err(Errno::AGAIN) => Ok(None),
        Err(Errno::CONNRESET) => Err(LinkError::Gone),
        Err(errno) => Err(LinkError::Receive(errno)),
    }
}

/// Receives one record, waiting for it.
///
/// # Errors
/// As [`receive`], and [`LinkError::Silent`] after `patience`.
pub(crate) fn receive_blocking(socket: BorrowedFd<'_>, patience: Duration) -> Result<Record, LinkError> {
    let deadline = Deadline::after(patience);
    loop {
        if let Some(record) = receive(socket)? {
            return Ok(record);
        }
        let left = deadline.left().ok_or(LinkError::Silent(patience))?;
        wait_readable(&[socket.as_fd()], left).map_err(LinkError::Receive)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_carry_bytes_and_descriptors() {
        let (here, there) = pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        send(here.as_fd(), b"hello", &[file.as_fd(), file.as_fd()]).unwrap();
        send(here.as_fd(), b"again", &[]).unwrap();
        let Record { bytes, fds } = receive_blocking(there.as_fd(), Duration::from_secs(5)).unwrap();
        assert_eq!((bytes.as_slice(), fds.len()), (&b"hello"[..], 2));
        let Record { bytes, fds } = receive(there.as_fd()).unwrap().unwrap();
        assert_eq!((bytes.as_slice(), fds.len()), (&b"again"[..], 0));
        assert!(receive(there.as_fd()).unwrap().is_none());
        drop(here);
        assert!(matches!(receive(there.as_fd()), Err(LinkError::Gone)));
    }

    #[test]
    fn the_most_descriptors_fit_in_one_record() {
        let (here, there) = pair().unwrap();
        let fds = vec![here.as_fd(); RECORD_FDS_MAX];
        send(here.as_fd(), b"x", &fds).unwrap();
        assert_eq!(receive(there.as_fd()).unwrap().unwrap().fds.len(), RECORD_FDS_MAX);
    }

    #[test]
    fn silence_has_an_end() {
        let (_here, there) = pair().unwrap();
        let patience = Duration::from_millis(20);
        assert!(matches!(receive_blocking(there.as_fd(), patience), Err(LinkError::Silent(_))));
    }
}
