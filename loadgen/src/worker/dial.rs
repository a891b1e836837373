//! Opening connections: sockets that never block.
//!
//! Owns: nothing. Must not know: rings, requests. A socket that is still connecting is handed on as it is: the kernel
//! holds back what is sent on it until it is connected, and answers a refusal to that send.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};

use crate::bounds::{CONNECTS_AT_ONCE, RECONNECT_PAUSE};
use crate::target::Address;

/// A connection that cannot be opened before the start.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {address}: is the server running there?")]
pub struct DialError {
    address: Address,
    source: Errno,
}

/// Starts a connection; it may be under way still.
///
/// # Errors
/// socket(2)'s and connect(2)'s; AGAIN when a unix listener's backlog is full.
pub(super) fn dial(address: &Address) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, result) = match address {
        Address::Tcp(address) => {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = socket_with(family, SocketType::STREAM, flags, None)?;
            // A request leaves at once, not when the last one has been acknowledged.
            sockopt::set_tcp_nodelay(&socket, true)?;
            let result = connect(&socket, address);
            (socket, result)
        }
        Address::Unix(path) => {
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            let result = connect(&socket, &SocketAddrUnix::new(path.as_path())?);
            (socket, result)
        }
    };
    match result {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Opens connections and waits until they stand.
///
/// # Errors
/// The first that could not be opened within the time-out.
pub(super) fn dial_all(
    address: &Address,
    count: usize,
    timeout: Duration,
) -> Result<Vec<OwnedFd>, DialError> {
    let refuse = |source| DialError { address: address.clone(), source };
    let mut sockets: Vec<OwnedFd> = Vec::with_capacity(count);
    while sockets.len() < count {
        let until = Instant::now() + timeout;
        let begun = sockets.len();
        for _ in 0..(count - begun).min(CONNECTS_AT_ONCE) {
            sockets.push(dial_patiently(address, until).map_err(refuse)?);
        }
        for socket in &sockets[begun..] {
            wait_connected(socket, until).map_err(refuse)?;
        }
    }
    Ok(sockets)
}

fn dial_patiently(address: &Address, until: Instant) -> Result<OwnedFd, Errno> {
    loop {
        match dial(address) {
            Err(Errno::AGAIN) if Instant::now() < until => {
                poll(&mut [], Some(&timespec(RECONNECT_PAUSE)))?;
            }
            other => return other,
        }
    }
}

fn wait_connected(socket: &OwnedFd, until: Instant) -> Result<(), Errno> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT)];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Ok(_) => return sockopt::socket_error(socket)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).expect("time-outs are bounded far below the range")
}
