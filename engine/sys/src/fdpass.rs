//! Messages with descriptors beside them, over a unix socket (SCM_RIGHTS).
//!
//! Owns: nothing; received descriptors belong to the caller, close-on-exec. Must not know: what the bytes mean.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Descriptors that one message can carry; the kernel's SCM_MAX_FD (include/net/scm.h) is 253.
pub const FDS_PER_MESSAGE_MAX: usize = 128;

const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE_MAX));

/// What one receive brought.
#[derive(Debug)]
pub struct Received {
    /// Bytes at the start of the caller's buffer; 0 on a stream or record socket means the other end has closed.
    pub bytes: usize,
    pub fds: Vec<OwnedFd>,
}

/// Sends bytes and copies of descriptors in one message, without SIGPIPE.
///
/// # Errors
/// sendmsg(2)'s: EAGAIN when a non-blocking socket is full, EPIPE when the other end is gone;
/// EINVAL for more than [`FDS_PER_MESSAGE_MAX`] descriptors or for descriptors without a byte beside them.
pub fn send_with_fds(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    if fds.len() > FDS_PER_MESSAGE_MAX || bytes.is_empty() {
        return Err(Errno::INVAL);
    }
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    let socket = socket.as_fd();
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    })
}

/// Receives one message and the descriptors beside it.
///
/// # Errors
/// recvmsg(2)'s: EAGAIN when there is none on a non-blocking socket; EMSGSIZE when bytes or descriptors did not fit,
/// in which case those that did are closed.
pub fn recv_with_fds(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received, Errno> {
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let socket = socket.as_fd();
    let message = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = ancillary {
            fds.extend(rights);
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    Ok(Received { bytes: message.bytes, fds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    fn pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
        rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
            .unwrap()
    }

    #[test]
    fn descriptors_arrive_and_are_the_same_object() {
        let (a, b) = pair(SocketType::SEQPACKET);
        let (read, write) = rustix::pipe::pipe().unwrap();
        send_with_fds(&a, b"hello", &[write.as_fd(), a.as_fd()]).unwrap();
        drop(write);
        let mut buffer = [0; 64];
        let got = recv_with_fds(&b, &mut buffer).unwrap();
        assert_eq!((&buffer[..got.bytes], got.fds.len()), (&b"hello"[..], 2));
        rustix::io::write(&got.fds[0], b"x").unwrap();
        let mut one = [0; 8];
        assert_eq!(rustix::io::read(&read, &mut one), Ok(1));
        assert!(rustix::io::fcntl_getfd(&got.fds[0]).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn an_empty_socket_a_closed_one_and_a_long_message_are_told_apart() {
        let (a, b) = pair(SocketType::SEQPACKET);
        let mut buffer = [0; 4];
        assert_eq!(recv_with_fds(&b, &mut buffer).unwrap_err(), Errno::AGAIN);
        send_with_fds(&a, b"too long", &[]).unwrap();
        assert_eq!(recv_with_fds(&b, &mut buffer).unwrap_err(), Errno::MSGSIZE);
        drop(a);
        assert_eq!(recv_with_fds(&b, &mut buffer).unwrap().bytes, 0);
        assert_eq!(send_with_fds(&b, b"x", &[]), Err(Errno::PIPE));
    }

    #[test]
    fn more_descriptors_than_the_bound_are_refused() {
        let (a, _b) = pair(SocketType::STREAM);
        let many = vec![a.as_fd(); FDS_PER_MESSAGE_MAX + 1];
        assert_eq!(send_with_fds(&a, b"x", &many), Err(Errno::INVAL));
        assert_eq!(send_with_fds(&a, b"", &[]), Err(Errno::INVAL));
    }

    #[test]
    fn the_bound_itself_is_carried() {
        let (a, b) = pair(SocketType::SEQPACKET);
        let many = vec![a.as_fd(); FDS_PER_MESSAGE_MAX];
        send_with_fds(&a, b"x", &many).unwrap();
        assert_eq!(recv_with_fds(&b, &mut [0; 8]).unwrap().fds.len(), FDS_PER_MESSAGE_MAX);
    }
}
