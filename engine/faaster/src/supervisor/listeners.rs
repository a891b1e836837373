//! The engine's listening sockets: one per shard and address, all on one port by `SO_REUSEPORT`.
//!
//! Owns: binding, and who is told when a port is taken. The sockets stay open here while the engine is restarted,
//! so no client is refused then. Must not know: what is spoken on them.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_reuseaddr, set_socket_reuseport, set_tcp_nodelay};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with};

use super::holder;
use crate::clock::{Deadline, wait_readable};

/// Connections that may wait to be accepted, per socket; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Listeners of an engine that was killed linger this long at most (measured: 5 to 15 ms).
const LINGER: Duration = Duration::from_millis(500);
/// Between two tries to bind.
const RETRY: Duration = Duration::from_millis(10);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("cannot listen on {address}: the port is taken by {}", holder::describe(.holders))]
    Taken { address: SocketAddr, holders: Vec<holder::Holder> },
    #[error("cannot listen on {address}: this machine has no such address")]
    NoAddress { address: SocketAddr },
    #[error("cannot listen on {address}: {step}: {source}")]
    System { address: SocketAddr, step: &'static str, source: Errno },
}

/// The sockets of one address.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// With the port that the kernel chose where 0 was asked for.
    pub address: SocketAddr,
    /// One per shard.
    pub sockets: Vec<OwnedFd>,
}

/// How a socket shares its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Exclusive,
    Shared,
}

/// Binds `count` sockets to one address.
///
/// # Errors
/// Who holds the port, or what the kernel refused.
pub(crate) fn open(address: SocketAddr, count: u16) -> Result<Listeners, ListenError> {
    // With SO_REUSEPORT alone a second engine of the same user would silently share the port with the first.
    if address.port() != 0 {
        drop(bind_patiently(address, Sharing::Exclusive)?);
    }
    let first = bind_patiently(address, Sharing::Shared)?;
    let system = |step| move |source| ListenError::System { address, step, source };
    let name = getsockname(&first).map_err(system("getsockname"))?;
    let bound = SocketAddr::try_from(name).map_err(|_| system("getsockname")(Errno::AFNOSUPPORT))?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(bind_patiently(bound, Sharing::Shared)?);
    }
    for socket in &sockets {
        listen(socket, BACKLOG).map_err(system("listen"))?;
    }
    Ok(Listeners { address: bound, sockets })
}

fn bind_patiently(address: SocketAddr, sharing: Sharing) -> Result<OwnedFd, ListenError> {
    let deadline = Deadline::after(LINGER);
    loop {
        match bind_once(address, sharing) {
            Err(ListenError::System { source: Errno::ADDRINUSE, .. }) if !deadline.passed() => {
                let wait = wait_readable(&[], RETRY);
                wait.map_err(|source| ListenError::System { address, step: "poll", source })?;
            }
            Err(ListenError::System { source: Errno::ADDRINUSE, .. }) => {
                return Err(ListenError::Taken { address, holders: holder::of_port(address.port()) });
            }
            Err(ListenError::System { source: Errno::ADDRNOTAVAIL, .. }) => {
                return Err(ListenError::NoAddress { address });
            }
            result => return result,
        }
    }
}

fn bind_once(address: SocketAddr, sharing: Sharing) -> Result<OwnedFd, ListenError> {
    let system = |step| move |source| ListenError::System { address, step, source };
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket =
        socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(system("socket"))?;
    // Connections of an earlier engine in TIME_WAIT are no obstacle.
    set_socket_reuseaddr(&socket, true).map_err(system("SO_REUSEADDR"))?;
    if sharing == Sharing::Shared {
        set_socket_reuseport(&socket, true).map_err(system("SO_REUSEPORT"))?;
        // Inherited by accepted sockets, so that no shard needs a system call for it.
        set_tcp_nodelay(&socket, true).map_err(system("TCP_NODELAY"))?;
    }
    bind(&socket, &address).map_err(system("bind"))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn all_sockets_share_the_port_that_the_kernel_chose() {
        let listeners = open("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_eq!(listeners.sockets.len(), 3);
        assert_ne!(listeners.address.port(), 0);
        for socket in &listeners.sockets {
            let name = SocketAddr::try_from(getsockname(socket).unwrap()).unwrap();
            assert_eq!(name, listeners.address);
        }
    }

    #[test]
    fn a_taken_port_names_its_holder() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = open(other.local_addr().unwrap(), 1).unwrap_err();
        let ListenError::Taken { holders, .. } = &error else { panic!("{error}") };
        assert_eq!(holders[0].pid, std::process::id());
        assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
    }

    #[test]
    fn another_engine_does_not_share_our_port() {
        let first = open("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        assert!(matches!(open(first.address, 2), Err(ListenError::Taken { .. })));
    }

    #[test]
    fn a_foreign_address_is_named() {
        let error = open("192.0.2.1:0".parse().unwrap(), 1).unwrap_err();
        assert!(matches!(error, ListenError::NoAddress { .. }), "{error}");
    }
}
