//! Connection tracking: the flows that the kernel remembers, listed and forgotten by address.
//!
//! Owns: the encoding of flow requests and answers. Must not know: sockets, why a flow is to be forgotten.
//! Layout: include/uapi/linux/netfilter/nfnetlink_conntrack.h.
//!
//! An address that is given to another owner must not inherit flows: by them the firewall would let packets of the old
//! owner's partners through to the new one.

use std::net::IpAddr;

use rustix::io::Errno;

use crate::address::{AF_INET, AF_UNSPEC, family};
use crate::attribute::Attribute;
use crate::connection::Connection;
use crate::error::NetlinkError;
use crate::netfilter::{self, Subsystem};
use crate::request::{Protocol, Request};
use crate::wire::DecodeError;

const IPCTNL_MSG_CT_GET: u8 = 1;
const IPCTNL_MSG_CT_DELETE: u8 = 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// `CTA_FILTER_FLAG(CTA_IP_SRC)` of the kernel's own nf_internals.h.
const FILTER_SOURCE: u32 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// One direction of a flow, as its packets say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    /// Where they come from.
    pub source: IpAddr,
    /// Where they go.
    pub destination: IpAddr,
    /// The port they come from; 0 for protocols without ports.
    pub source_port: u16,
    /// The port they go to; 0 for protocols without ports.
    pub destination_port: u16,
}

/// A flow that the kernel remembers.
///
/// ```no_run
/// use faaster_netlink::{Connection, Protocol};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut netfilter = Connection::open(Protocol::Netfilter)?;
/// for flow in netfilter.flows()? {
///     println!("{} to {}", flow.original.source, flow.original.destination);
/// }
/// // Before the address gets another owner.
/// let forgotten = netfilter.forget_flows("10.48.0.1".parse()?)?;
/// println!("{forgotten} flows are forgotten");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The number of its protocol in IP headers, 6 for TCP say.
    pub protocol: u8,
    /// The way of its first packet.
    pub original: Direction,
    /// The way of the answers as they come; unlike `original` turned around where addresses are translated.
    pub reply: Direction,
    /// Tells it from another with the same addresses at another time.
    id: Option<u32>,
    zone: Option<u16>,
    /// The original direction as the kernel wrote it, by which it finds the flow again.
    tuple: Vec<u8>,
}

/// Which direction's source an address is looked for in.
#[derive(Debug, Clone, Copy)]
enum Side {
    Original,
    Reply,
}

impl Flow {
    /// A request to forget the flow.
    pub fn delete(&self) -> Request<'static> {
        let mut writer = netfilter::body(family(self.original.source), 0);
        writer.nested(CTA_TUPLE_ORIG, |tuple| {
            tuple.fixed(&self.tuple);
        });
        if let Some(id) = self.id {
            writer.be32(CTA_ID, id);
        }
        if let Some(zone) = self.zone {
            writer.be16(CTA_ZONE, zone);
        }
        let kind = netfilter::kind(Subsystem::Conntrack, IPCTNL_MSG_CT_DELETE);
        Request::new(Protocol::Netfilter, kind, 0, "forget a flow", writer)
    }

    /// Reads an `IPCTNL_MSG_CT_NEW` message's body; `None` if it is no flow of IP.
    ///
    /// # Errors
    /// [`DecodeError`] if it cannot be read.
    pub fn decode(body: &[u8]) -> Result<Option<Self>, DecodeError> {
        let (_, attributes) = netfilter::split("flow", body)?;
        let (mut original, mut reply, mut id, mut zone) = (None, None, None, None);
        let mut tuple = Vec::new();
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                CTA_TUPLE_ORIG => {
                    original = decode_tuple(&attribute)?;
                    tuple = attribute.value.to_vec();
                }
                CTA_TUPLE_REPLY => reply = decode_tuple(&attribute)?,
                CTA_ID => id = Some(attribute.be32()?),
                CTA_ZONE => zone = Some(attribute.be16()?),
                _ => {}
            }
        }
        let (Some((protocol, original)), Some((_, reply))) = (original, reply) else { return Ok(None) };
        Ok(Some(Self { protocol, original, reply, id, zone, tuple }))
    }

    fn is_of(&self, address: IpAddr) -> bool {
        self.original.source == address || self.reply.source == address
    }
}

fn decode_tuple(tuple: &Attribute<'_>) -> Result<Option<(u8, Direction)>, DecodeError> {
    let (mut source, mut destination) = (None, None);
    let (mut protocol, mut source_port, mut destination_port) = (0, 0, 0);
    for part in tuple.attributes() {
        let part = part?;
        for value in part.attributes() {
            let value = value?;
            match (part.kind, value.kind) {
                (CTA_TUPLE_IP, CTA_IP_V4_SRC | CTA_IP_V6_SRC) => source = Some(value.ip()?),
                (CTA_TUPLE_IP, CTA_IP_V4_DST | CTA_IP_V6_DST) => destination = Some(value.ip()?),
                (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => protocol = value.u8()?,
                (CTA_TUPLE_PROTO, CTA_PROTO_SRC_PORT) => source_port = value.be16()?,
                (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => destination_port = value.be16()?,
                _ => {}
            }
        }
    }
    let (Some(source), Some(destination)) = (source, destination) else { return Ok(None) };
    Ok(Some((protocol, Direction { source, destination, source_port, destination_port })))
}

/// A request to list flows whose packets come from `address` on one side.
fn list_by_source(address: IpAddr, side: Side) -> Request<'static> {
    let family = family(address);
    let mut writer = netfilter::body(family, 0);
    let tuple = match side {
        Side::Original => CTA_TUPLE_ORIG,
        Side::Reply => CTA_TUPLE_REPLY,
    };
    writer.nested(tuple, |tuple| {
        tuple.nested(CTA_TUPLE_IP, |ip| {
            ip.ip(if family == AF_INET { CTA_IP_V4_SRC } else { CTA_IP_V6_SRC }, address);
        });
    });
    writer.nested(CTA_FILTER, |filter| {
        let (original, reply) = match side {
            Side::Original => (FILTER_SOURCE, 0),
            Side::Reply => (0, FILTER_SOURCE),
        };
        filter.u32(CTA_FILTER_ORIG_FLAGS, original).u32(CTA_FILTER_REPLY_FLAGS, reply);
    });
    let kind = netfilter::kind(Subsystem::Conntrack, IPCTNL_MSG_CT_GET);
    Request::new(Protocol::Netfilter, kind, 0, "list flows by address", writer)
}

impl Connection {
    /// All flows of the namespace.
    ///
    /// # Errors
    /// As [`Connection::dump`].
    pub fn flows(&mut self) -> Result<Vec<Flow>, NetlinkError> {
        self.flows_where(|_| true)
    }

    /// The flows of the namespace that `is_wanted`; the others take no room. The kernel lists all of them.
    ///
    /// # Errors
    /// As [`Connection::dump`].
    pub fn flows_where(
        &mut self,
        mut is_wanted: impl FnMut(&Flow) -> bool,
    ) -> Result<Vec<Flow>, NetlinkError> {
        let kind = netfilter::kind(Subsystem::Conntrack, IPCTNL_MSG_CT_GET);
        let body = netfilter::body(AF_UNSPEC, 0);
        let request = Request::new(Protocol::Netfilter, kind, 0, "list flows", body);
        self.dump(&request, |message| Ok(Flow::decode(message.body)?.filter(|flow| is_wanted(flow))))
    }

    /// Forgets all flows that `address` began or is the one that answers in; how many there were. The kernel looks
    /// through all flows of the namespace for them, twice.
    ///
    /// # Errors
    /// As [`Connection::dump`] and [`Connection::run`]; flows that end meanwhile are none.
    pub fn forget_flows(&mut self, address: IpAddr) -> Result<usize, NetlinkError> {
        let mut forgotten = 0;
        for side in [Side::Original, Side::Reply] {
            let flows = self.dump(&list_by_source(address, side), |message| Flow::decode(message.body))?;
            // A kernel that does not know the filter lists everything.
            let requests: Vec<_> =
                flows.iter().filter(|flow| flow.is_of(address)).map(Flow::delete).collect();
            for outcome in self.run_all(&requests).map_err(|error| error.source)? {
                match outcome {
                    Ok(()) => forgotten += 1,
                    Err(error) if error.errno == Errno::NOENT => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(forgotten)
    }
}
