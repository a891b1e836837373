//! Linux networking over netlink.
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
    Link, LinkChange, LinkId, LinkIndex, LinkLocal, LinkName, LinkNameError, LinkState, LinkStatistics, Mac,
    VethEnd, create_veth, delete_link,
};
pub use namespace::assign_namespace_id;
pub use neighbour::Neighbour;
pub use request::{Protocol, Request};
pub use route::{Gateway, Route, RouteKind, TABLE_LOCAL, TABLE_MAIN};
pub use socket_diag::{Socket, SocketProtocol};
