//! One request to the kernel, ready to be numbered and sent, alone or with others.
//!
//! Owns: the request's kind, flags and body. Must not know: sockets, answers.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;

use crate::attribute::Writer;
use crate::wire::{FLAG_ACK, FLAG_REQUEST, HEADER_BYTES, Header, aligned};

/// A subsystem of the kernel that is spoken to over netlink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `NETLINK_ROUTE`: links, addresses, routes, neighbours, namespaces.
    Route,
    /// `NETLINK_NETFILTER`: nftables and connection tracking.
    Netfilter,
    /// `NETLINK_SOCK_DIAG`: sockets of all processes.
    SocketDiag,
}

impl Protocol {
    pub(crate) fn number(self) -> isize {
        match self {
            Self::Route => netlink_sys::protocols::NETLINK_ROUTE,
            Self::Netfilter => netlink_sys::protocols::NETLINK_NETFILTER,
            Self::SocketDiag => netlink_sys::protocols::NETLINK_SOCK_DIAG,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Route => "NETLINK_ROUTE",
            Self::Netfilter => "NETLINK_NETFILTER",
            Self::SocketDiag => "NETLINK_SOCK_DIAG",
        })
    }
}

/// One request. Descriptors that its body names by number stay open as long as it lives (`'fd`).
///
/// ```no_run
/// use faaster_netlink::{Connection, Protocol, Request, Writer};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // RTM_NEWNSID by hand, as an example of what could also be something that this crate does not know.
/// let namespace = std::fs::File::open("/proc/4711/ns/net")?;
/// let mut body = Writer::new();
/// body.fixed(&[0; 4]).i32(1, -1).u32(3, std::os::fd::AsRawFd::as_raw_fd(&namespace).try_into()?);
/// let request = Request::new(Protocol::Route, 88, 0, "number a namespace", body);
/// Connection::open(Protocol::Route)?.run(&request)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'fd> {
    pub(crate) protocol: Protocol,
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) what: &'static str,
    pub(crate) body: Vec<u8>,
    descriptors: PhantomData<BorrowedFd<'fd>>,
}

impl<'fd> Request<'fd> {
    /// A request of any kind, for what this crate has no function for. `flags` are those beside `FLAG_REQUEST` and
    /// `FLAG_ACK`; `what` says in an error what was asked: "the kernel refused to {what}". Descriptors that the body
    /// names must outlive the request; this crate's own functions see to it by `'fd`.
    pub fn new(protocol: Protocol, kind: u16, flags: u16, what: &'static str, body: Writer) -> Self {
        Self { protocol, kind, flags, what, body: body.into_bytes(), descriptors: PhantomData }
    }

    /// What it asks, in words.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// The subsystem it is for.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Bytes of its message, padding included.
    pub(crate) fn message_bytes(&self) -> usize {
        aligned(HEADER_BYTES + self.body.len())
    }

    /// Adds its message to `bytes`, with an answer wanted in any case.
    pub(crate) fn encode(&self, sequence: u32, bytes: &mut Vec<u8>) {
        self.encode_as(FLAG_REQUEST | FLAG_ACK | self.flags, sequence, bytes);
    }

    /// Adds its message to `bytes` with exactly these flags.
    pub(crate) fn encode_as(&self, flags: u16, sequence: u32, bytes: &mut Vec<u8>) {
        let length = u32::try_from(HEADER_BYTES + self.body.len()).expect("bodies are far below 4 GiB");
        bytes.extend(Header { length, kind: self.kind, flags, sequence, port: 0 }.encode());
        bytes.extend_from_slice(&self.body);
        bytes.resize(aligned(bytes.len()), 0);
    }
}
