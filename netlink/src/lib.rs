//! Linux networking over netlink: links, addresses, routes, neighbours, nftables, socket destruction, flows.
//!
//! Owns: the encoding of requests and answers, one socket per [`Connection`]. Must not know: what the network is for; it
//! starts no thread and no process, keeps no state of the kernel's, and has no unsafe code.
//!
//! # How it is used
//! Open a [`Connection`] to a [`Protocol`], make [`Request`]s, carry them out one by one ([`Connection::run`]) or many
//! with one system call ([`Connection::run_all`]), each with an outcome of its own. Listings are methods of the
//! connection.
//!
//! ```no_run
//! use std::os::fd::AsFd;
//! use faaster_netlink::{
//!     Connection, LinkAddress, LinkIndex, LinkState, Protocol, Route, Subnet, VethEnd, create_veth,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut host = Connection::open(Protocol::Route)?;
//! let container = std::fs::File::open("/proc/4711/ns/net")?;
//! // A number of our own choice, so that all the rest can go with the first send.
//! let index = LinkIndex::new(10_001).expect("a number");
//! let outcomes = host.run_all(&[
//!     create_veth(
//!         &VethEnd::new("slot1".parse()?).index(index).state(LinkState::Up),
//!         &VethEnd::new("eth0".parse()?).namespace(container.as_fd()),
//!     ),
//!     LinkAddress::host(index, "169.254.1.1".parse()?).add(),
//!     Route::device(Subnet::host("10.48.0.1".parse()?), index).add(),
//! ])?;
//! for outcome in outcomes {
//!     outcome?;
//! }
//! for link in host.links()? {
//!     println!("{}: {} bytes sent", link.name, link.statistics.sent_bytes);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Namespaces
//! A netlink socket belongs for ever to the network namespace in which it was opened. So a connection to another
//! namespace is opened on a thread that has entered it (`setns`, the caller's business: it is the thread's state, and this
//! crate touches none), or made of a socket that was opened there ([`Connection::adopt`]). It can then be used on any
//! thread. Where a request concerns a second namespace ([`VethEnd::namespace`], [`LinkChange::namespace`]), that one is
//! given as a descriptor, which the request borrows. The kernel wants the rights (CAP_NET_ADMIN over the namespace) of both
//! who opened the socket and who sends.
//!
//! # Errors
//! A refusal of the kernel's is a [`KernelError`]: what was asked, the errno, the kernel's own words, and which
//! attribute of the request it points at (`NETLINK_EXT_ACK`). Every wait ends at a deadline
//! ([`Connection::set_timeout`]).
//!
//! ```
//! use faaster_netlink::{LinkName, Subnet};
//!
//! let error = "10.0.0.0/33".parse::<Subnet>().unwrap_err();
//! assert_eq!(error.to_string(), "10.0.0.0/33 is no subnet: an address of its kind has 32 bits");
//! assert!(LinkName::new("a name with spaces").is_err());
//! ```
//!
//! # Why not a crate that is there
//! Looked at in 2026: `neli` 0.7.5 gives its socket away only as a number, so that no safe code can wait for it with a
//! deadline; it sets no `NETLINK_CAP_ACK`, sends one message at a time, and subtracts lengths that the other side says
//! without a check. `rtnetlink` is asynchronous and wants a task per connection. For nftables, `rustables` is under the
//! GPL, `nftnl` needs C libraries, `nftables` runs the tool nft. What is here is small because it has only what is needed.
//! `netlink-sys` (of the rust-netlink project) opens the socket and sets its options, and rustix does the rest.
#![forbid(unsafe_code)]

mod address;
mod attribute;
mod connection;
mod conntrack;
mod error;
mod link;
mod namespace;
mod neighbour;
mod netfilter;
pub mod nftables;
mod request;
mod route;
mod socket_diag;
pub mod wire;

pub use address::{LinkAddress, Subnet, SubnetError};
pub use attribute::{Attribute, Attributes, VALUE_BYTES_MAX, Writer, split_body};
pub use connection::{BatchError, Connection};
pub use conntrack::{Direction, Flow};
pub use error::{KernelError, NetlinkError, decode_answer};
pub use link::{
    Forwarding, Link, LinkChange, LinkId, LinkIndex, LinkLocal, LinkName, LinkNameError, LinkState,
    LinkStatistics, Mac, VethEnd, create_veth, delete_link,
};
pub use namespace::assign_namespace_id;
pub use neighbour::Neighbour;
pub use request::{Protocol, Request};
pub use route::{Gateway, Route, RouteKind, TABLE_LOCAL, TABLE_MAIN};
pub use socket_diag::{Socket, SocketProtocol};
