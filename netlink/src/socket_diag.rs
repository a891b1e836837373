//! Sockets of all processes of a namespace: listed, and destroyed under their owners' hands.
//!
//! Owns: the encoding of socket requests and answers. Must not know: netlink's own sockets, why a socket is to be ended.
//! Layout: include/uapi/linux/inet_diag.h. Destroying takes a kernel with `CONFIG_INET_DIAG_DESTROY`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;

use crate::address::{AF_INET, AF_INET6};
use crate::attribute::{Writer, split_body};
use crate::connection::Connection;
use crate::error::NetlinkError;
use crate::request::{Protocol, Request};
use crate::wire::{DecodeError, array};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

/// Bytes of `struct inet_diag_sockid`.
const ID_BYTES: usize = 48;
/// Bytes of `struct inet_diag_msg`.
const SOCKET_BYTES: usize = 72;
/// A socket in any state.
const ALL_STATES: u32 = u32::MAX;

/// A protocol whose sockets are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketProtocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
}

/// A socket.
///
/// ```no_run
/// use faaster_netlink::{Connection, Protocol, SocketProtocol};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut diag = Connection::open(Protocol::SocketDiag)?;
/// for socket in diag.sockets(SocketProtocol::Tcp)? {
///     println!("{} to {} of user {}", socket.local, socket.remote, socket.user);
/// }
/// let ended = diag.destroy_sockets(|socket| socket.remote.ip().is_loopback())?;
/// println!("{ended} sockets are no more");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Its protocol.
    pub protocol: SocketProtocol,
    /// Its own address.
    pub local: SocketAddr,
    /// The other end's, unspecified while there is none.
    pub remote: SocketAddr,
    /// Its state by TCP's numbers (include/net/tcp_states.h): 1 is connected, 6 waits for late packets, 10 listens.
    pub state: u8,
    /// The user that made it, as a number in the namespace of the asking process.
    pub user: u32,
    /// Its number among the system's files; 0 if no process holds it any more.
    pub inode: u32,
    family: u8,
    /// What the kernel knows it by.
    id: [u8; ID_BYTES],
}

impl Socket {
    /// A request to end it: who uses it sees ECONNABORTED.
    pub fn destroy(&self) -> Request<'static> {
        let writer = body(self.family, self.protocol, &self.id);
        Request::new(Protocol::SocketDiag, SOCK_DESTROY, 0, "destroy a socket", writer)
    }

    /// Reads a `SOCK_DIAG_BY_FAMILY` message's body; `None` if it is no socket of IP.
    ///
    /// # Errors
    /// [`DecodeError`] if it cannot be read.
    pub fn decode(protocol: SocketProtocol, body: &[u8]) -> Result<Option<Self>, DecodeError> {
        let (fixed, _) = split_body::<SOCKET_BYTES>("socket", body)?;
        let [family, state, ..] = fixed;
        let id: [u8; ID_BYTES] = array(&fixed[4..]).expect("72 bytes hold 4 and 48");
        let number = |at: usize| u32::from_ne_bytes(array(&fixed[at..]).expect("within 72 bytes"));
        let port = |at: usize| u16::from_be_bytes([id[at], id[at + 1]]);
        let (Some(local), Some(remote)) = (address(family, &id[4..20]), address(family, &id[20..36])) else {
            return Ok(None);
        };
        Ok(Some(Self {
            protocol,
            local: SocketAddr::new(local, port(0)),
            remote: SocketAddr::new(remote, port(2)),
            state,
            user: number(64),
            inode: number(68),
            family,
            id,
        }))
    }
}

/// An address of 16 bytes of which IPv4 uses the first 4.
fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => array::<4>(bytes).map(|bytes| Ipv4Addr::from(bytes).into()),
        AF_INET6 => array::<16>(bytes).map(|bytes| Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

/// `struct inet_diag_req_v2`.
fn body(family: u8, protocol: SocketProtocol, id: &[u8; ID_BYTES]) -> Writer {
    let mut writer = Writer::new();
    writer.fixed(&[family, protocol as u8, 0, 0]).fixed(&ALL_STATES.to_ne_bytes()).fixed(id);
    writer
}

impl Connection {
    /// All sockets of a protocol in the namespace, of both families.
    ///
    /// # Errors
    /// As [`Connection::dump`].
    pub fn sockets(&mut self, protocol: SocketProtocol) -> Result<Vec<Socket>, NetlinkError> {
        let mut sockets = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let writer = body(family, protocol, &[0; ID_BYTES]);
            let request = Request::new(Protocol::SocketDiag, SOCK_DIAG_BY_FAMILY, 0, "list sockets", writer);
            let found = self.dump(&request, |message| Socket::decode(protocol, message.body));
            match found {
                Ok(found) => sockets.extend(found),
                // Without the family, there are none of it.
                Err(error) if family == AF_INET6 && error.kernel_errno() == Some(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sockets)
    }

    /// Destroys the TCP and UDP sockets of the namespace that `wanted` chooses; how many there were.
    ///
    /// # Errors
    /// As [`Connection::dump`] and [`Connection::run`], after all were tried; `EOPNOTSUPP` if the kernel cannot. Sockets
    /// that end meanwhile are none.
    pub fn destroy_sockets(
        &mut self,
        mut wanted: impl FnMut(&Socket) -> bool,
    ) -> Result<usize, NetlinkError> {
        let mut requests = Vec::new();
        for protocol in [SocketProtocol::Tcp, SocketProtocol::Udp] {
            requests
                .extend(self.sockets(protocol)?.iter().filter(|socket| wanted(socket)).map(Socket::destroy));
        }
        let mut destroyed = 0;
        let mut refused = None;
        for outcome in self.run_all(&requests).map_err(|error| error.source)? {
            match outcome {
                Ok(()) => destroyed += 1,
                Err(error) if error.errno == Errno::NOENT => {}
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(destroyed), |error| Err(error.into()))
    }
}
