//! Routes: where packets to a subnet go.
//!
//! Owns: the encoding of route requests and answers. Must not know: sockets, what routes are used for.
//! Layout: `struct rtmsg` of include/uapi/linux/rtnetlink.h. Of a route with several next hops only its destination is
//! read, and none can be made.

use std::net::IpAddr;

use crate::address::{AF_UNSPEC, Subnet, family};
use crate::attribute::{Writer, split_body};
use crate::connection::Connection;
use crate::error::NetlinkError;
use crate::link::LinkIndex;
use crate::request::{Protocol, Request};
use crate::wire::{DecodeError, FLAG_CREATE, FLAG_EXCLUSIVE, FLAG_REPLACE};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;

const RTNH_F_ONLINK: u32 = 0x4;
/// A copy that the kernel made for one destination.
const RTM_F_CLONED: u32 = 0x200;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_HOST: u8 = 254;
/// Of a request to remove: whatever scope the route has.
const RT_SCOPE_NOWHERE: u8 = 255;
const RTPROT_STATIC: u8 = 4;

/// Bytes of `struct rtmsg`.
const ROUTE_BYTES: usize = 12;

/// The table that routes are in unless something else is said (`RT_TABLE_MAIN`).
pub const TABLE_MAIN: u32 = 254;
/// The table of the host's own addresses, kept by the kernel (`RT_TABLE_LOCAL`).
pub const TABLE_LOCAL: u32 = 255;

/// What becomes of a packet that a route is for (`RTN_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// It goes on by a link or a gateway.
    Unicast,
    /// It is for this host.
    Local,
    /// It is for all on a link.
    Broadcast,
    /// It is dropped without a word.
    Blackhole,
    /// It is refused: host unreachable.
    Unreachable,
    /// It is refused: forbidden.
    Prohibit,
    /// Something else, by its number.
    Other(u8),
}

impl RouteKind {
    fn number(self) -> u8 {
        match self {
            Self::Unicast => 1,
            Self::Local => 2,
            Self::Broadcast => 3,
            Self::Blackhole => 6,
            Self::Unreachable => 7,
            Self::Prohibit => 8,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Unicast,
            2 => Self::Local,
            3 => Self::Broadcast,
            6 => Self::Blackhole,
            7 => Self::Unreachable,
            8 => Self::Prohibit,
            _ => Self::Other(number),
        }
    }
}

/// Whether a gateway must be known to be on its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// Another route must lead to it.
    Routed(IpAddr),
    /// It is taken to be on the link whatever other routes say (`onlink`).
    OnLink(IpAddr),
}

impl Gateway {
    /// Its address.
    pub fn address(self) -> IpAddr {
        match self {
            Self::Routed(address) | Self::OnLink(address) => address,
        }
    }
}

/// A route.
///
/// ```no_run
/// use faaster_netlink::{Connection, Gateway, LinkName, Protocol, Route, RouteKind};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut connection = Connection::open(Protocol::Route)?;
/// let link = connection.link(LinkName::new("eth0")?)?.ok_or("no such link")?.index;
/// connection.run(&Route::device("10.48.0.1/32".parse()?, link).add())?;
/// // The gateway is on the link, whether or not one of its subnets says so.
/// connection.run(&Route::default_via(Gateway::OnLink("169.254.1.1".parse()?), link).replace())?;
/// connection.run(&Route::dead_end("10.48.0.0/16".parse()?, RouteKind::Unreachable).add())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The packets it is for.
    pub destination: Subnet,
    /// What becomes of them.
    pub kind: RouteKind,
    /// The link they leave by.
    pub link: Option<LinkIndex>,
    /// The router they are given to; without, the destination is on the link itself.
    pub gateway: Option<Gateway>,
    /// The source address of the host's own packets.
    pub source: Option<IpAddr>,
    /// Of several routes to one destination the one with the least number counts. IPv6 makes it 1024 where there is none.
    pub metric: Option<u32>,
    /// The table it is in.
    pub table: u32,
}

impl Route {
    /// A route to addresses that are on the link itself.
    pub fn device(destination: Subnet, link: LinkIndex) -> Self {
        Self {
            destination,
            kind: RouteKind::Unicast,
            link: Some(link),
            gateway: None,
            source: None,
            metric: None,
            table: TABLE_MAIN,
        }
    }

    /// A route to everything of the gateway's family.
    pub fn default_via(gateway: Gateway, link: LinkIndex) -> Self {
        let destination = if gateway.address().is_ipv4() { Subnet::ALL_V4 } else { Subnet::ALL_V6 };
        Self { gateway: Some(gateway), ..Self::device(destination, link) }
    }

    /// A route that drops, or refuses, what it is for.
    pub fn dead_end(destination: Subnet, kind: RouteKind) -> Self {
        Self { destination, kind, link: None, gateway: None, source: None, metric: None, table: TABLE_MAIN }
    }

    fn writer(&self, scope: u8, protocol: u8) -> Writer {
        let onlink = matches!(self.gateway, Some(Gateway::OnLink(_)));
        let mut header = [0; ROUTE_BYTES];
        header[0] = family(self.destination.first());
        header[1] = self.destination.prefix_bits();
        // Tables above 255 stand only in the attribute.
        header[4] = u8::try_from(self.table).unwrap_or(0);
        header[5] = protocol;
        header[6] = scope;
        header[7] = self.kind.number();
        header[8..].copy_from_slice(&if onlink { RTNH_F_ONLINK } else { 0 }.to_ne_bytes());
        let mut writer = Writer::new();
        writer.fixed(&header).u32(RTA_TABLE, self.table);
        if self.destination.prefix_bits() > 0 {
            writer.ip(RTA_DST, self.destination.first());
        }
        if let Some(link) = self.link {
            writer.u32(RTA_OIF, link.get());
        }
        if let Some(gateway) = self.gateway {
            writer.ip(RTA_GATEWAY, gateway.address());
        }
        if let Some(source) = self.source {
            writer.ip(RTA_PREFSRC, source);
        }
        if let Some(metric) = self.metric {
            writer.u32(RTA_PRIORITY, metric);
        }
        writer
    }

    fn scope(&self) -> u8 {
        match (self.kind, self.gateway) {
            (RouteKind::Local, _) => RT_SCOPE_HOST,
            (RouteKind::Unicast | RouteKind::Broadcast, None) => RT_SCOPE_LINK,
            _ => RT_SCOPE_UNIVERSE,
        }
    }

    /// A request to add the route; refused (`EEXIST`) if there is one to the same destination with the same metric.
    pub fn add(&self) -> Request<'static> {
        let body = self.writer(self.scope(), RTPROT_STATIC);
        Request::new(Protocol::Route, RTM_NEWROUTE, FLAG_CREATE | FLAG_EXCLUSIVE, "add a route", body)
    }

    /// A request to add the route in place of one to the same destination with the same metric.
    pub fn replace(&self) -> Request<'static> {
        let body = self.writer(self.scope(), RTPROT_STATIC);
        Request::new(Protocol::Route, RTM_NEWROUTE, FLAG_CREATE | FLAG_REPLACE, "replace a route", body)
    }

    /// A request to remove the route, whoever made it.
    pub fn delete(&self) -> Request<'static> {
        Request::new(Protocol::Route, RTM_DELROUTE, 0, "remove a route", self.writer(RT_SCOPE_NOWHERE, 0))
    }

    /// Reads an `RTM_NEWROUTE` message's body; `None` if it is of another family than IP, or a copy for one
    /// destination.
    ///
    /// # Errors
    /// [`DecodeError`] if it cannot be read.
    pub fn decode(body: &[u8]) -> Result<Option<Self>, DecodeError> {
        let (fixed, attributes) = split_body::<ROUTE_BYTES>("route", body)?;
        let [found_family, prefix_bits, _, _, table, _, _, kind, f0, f1, f2, f3] = fixed;
        let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
        let all = match found_family {
            _ if flags & RTM_F_CLONED != 0 => return Ok(None),
            crate::address::AF_INET => Subnet::ALL_V4,
            crate::address::AF_INET6 => Subnet::ALL_V6,
            _ => return Ok(None),
        };
        let mut route = Self::dead_end(all, RouteKind::from_number(kind));
        route.table = u32::from(table);
        let mut destination = all.first();
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                RTA_DST => destination = attribute.ip()?,
                RTA_OIF => route.link = LinkIndex::new(attribute.u32()?),
                RTA_GATEWAY if flags & RTNH_F_ONLINK != 0 => {
                    route.gateway = Some(Gateway::OnLink(attribute.ip()?));
                }
                RTA_GATEWAY => route.gateway = Some(Gateway::Routed(attribute.ip()?)),
                RTA_PREFSRC => route.source = Some(attribute.ip()?),
                RTA_PRIORITY => route.metric = Some(attribute.u32()?),
                RTA_TABLE => route.table = attribute.u32()?,
                _ => {}
            }
        }
        if family(destination) != found_family {
            return Ok(None);
        }
        Ok(Subnet::new(destination, prefix_bits).ok().map(|destination| Self { destination, ..route }))
    }
}

impl Connection {
    /// All routes of the namespace, of every table and both families.
    ///
    /// # Errors
    /// As [`Connection::dump`].
    pub fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let mut header = [0; ROUTE_BYTES];
        header[0] = AF_UNSPEC;
        let mut writer = Writer::new();
        writer.fixed(&header);
        let request = Request::new(Protocol::Route, RTM_GETROUTE, 0, "list routes", writer);
        self.dump(&request, |message| {
            if message.header.kind == RTM_NEWROUTE { Route::decode(message.body) } else { Ok(None) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::bits;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_asked_for_is_read_back(
            to: IpAddr,
            prefix_bits in 0_u8..=128,
            kind in 0_u8..12,
            link: Option<u32>,
            gateway: Option<(IpAddr, bool)>,
            source: Option<IpAddr>,
            metric: Option<u32>,
            table in 1_u32..,
        ) {
            let route = Route {
                destination: Subnet::new(to, prefix_bits.min(bits(to))).expect("at most as many"),
                kind: RouteKind::from_number(kind),
                link: link.and_then(LinkIndex::new),
                gateway: gateway.map(|(to, onlink)| if onlink { Gateway::OnLink(to) } else { Gateway::Routed(to) }),
                source,
                metric,
                table,
            };
            for request in [route.add(), route.replace(), route.delete()] {
                prop_assert_eq!(Route::decode(&request.body), Ok(Some(route)));
            }
        }
    }
}
