//! What the host has: its networks, its default routes, and whether it passes packets on.
//!
//! Owns: the reading of these and the sysctls that are changed. Must not know: what is decided from them.

use std::path::{Path, PathBuf};

use faaster_netlink::{Connection, Link, LinkIndex, NetlinkError, Route, RouteKind, Subnet, TABLE_MAIN};

use super::plan::LINK_PREFIX;

/// Bytes of the largest packet that a link must take for IPv6 (RFC 8200, section 5); on a lesser one the kernel has none.
pub(crate) const MTU_V6_MIN: u32 = 1280;

const FORWARD_V4: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARD_V6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// A switch of the kernel that cannot be set.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {path}: {source}")]
pub(crate) struct SwitchError {
    pub path: PathBuf,
    pub source: std::io::Error,
}

/// The host as it was found.
#[derive(Debug)]
pub(crate) struct Host {
    routes: Vec<Route>,
    links: Vec<Link>,
    /// Link and subnet of each address; an address alone is a subnet of one.
    addresses: Vec<(LinkIndex, Subnet)>,
}

impl Host {
    /// # Errors
    /// The kernel does not say.
    pub(crate) fn read(connection: &mut Connection) -> Result<Self, NetlinkError> {
        Ok(Self {
            routes: connection.routes()?,
            links: connection.links()?,
            addresses: addresses(connection)?,
        })
    }

    /// Everything that a new subnet must keep out of.
    pub(crate) fn taken(&self) -> Vec<Subnet> {
        let routed = self.routes.iter().map(|route| route.destination);
        routed.chain(self.addresses.iter().map(|(_, subnet)| *subnet)).collect()
    }

    fn default_routes(&self, all: Subnet) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(move |route| {
            route.destination == all && route.table == TABLE_MAIN && route.kind == RouteKind::Unicast
        })
    }

    pub(crate) fn has_default_v6(&self) -> bool {
        self.default_routes(Subnet::ALL_V6).next().is_some()
    }

    /// The least MTU of the links that lead to the world.
    pub(crate) fn mtu_bytes(&self) -> Option<u32> {
        let indexes = self.default_routes(Subnet::ALL_V4).filter_map(|route| route.link);
        indexes.filter_map(|index| self.link(index)).map(|link| link.mtu_bytes).min()
    }

    fn link(&self, index: LinkIndex) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// Names of the links that answers to containers come in by: those with an IPv4 address, and those to the world.
    pub(crate) fn outer_links(&self) -> Vec<String> {
        let with_address =
            self.addresses.iter().filter(|(_, subnet)| subnet.first().is_ipv4()).map(|(link, _)| *link);
        let to_world = self.default_routes(Subnet::ALL_V4).filter_map(|route| route.link);
        let mut names: Vec<String> = with_address
            .chain(to_world)
            .filter_map(|index| self.link(index))
            .filter(|link| !link.loopback && !link.name.starts_with(LINK_PREFIX))
            .map(|link| link.name.clone())
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

fn addresses(connection: &mut Connection) -> Result<Vec<(LinkIndex, Subnet)>, NetlinkError> {
    let found = connection.addresses(None)?;
    // With a peer, the subnet is the peer's.
    let subnet = |address: &faaster_netlink::LinkAddress| {
        Subnet::new(address.peer.unwrap_or(address.address), address.prefix_bits).ok()
    };
    Ok(found.iter().filter_map(|address| Some((address.link, subnet(address)?))).collect())
}

/// Subnets that the host has an address in.
///
/// # Errors
/// The kernel does not say.
pub(crate) fn networks(connection: &mut Connection) -> Result<Vec<Subnet>, NetlinkError> {
    let mut networks: Vec<Subnet> = addresses(connection)?.into_iter().map(|(_, subnet)| subnet).collect();
    networks.sort_by_key(|subnet| (subnet.first(), subnet.prefix_bits()));
    networks.dedup();
    Ok(networks)
}

fn is_on(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| !matches!(text.trim(), "" | "0"))
}

fn set(path: PathBuf, on: bool) -> Result<(), SwitchError> {
    std::fs::write(&path, if on { "1" } else { "0" }).map_err(|source| SwitchError { path, source })
}

/// Whether the host passes IPv4 packets on between all its links.
pub(crate) fn forwards_v4() -> bool {
    is_on(Path::new(FORWARD_V4))
}

/// Whether the host passes IPv6 packets on.
pub(crate) fn forwards_v6() -> bool {
    is_on(Path::new(FORWARD_V6))
}

/// Whether the kernel has IPv6 at all.
pub(crate) fn has_v6() -> bool {
    Path::new(FORWARD_V6).exists()
}

pub(crate) fn set_forwards_v6(on: bool) -> Result<(), SwitchError> {
    set(PathBuf::from(FORWARD_V6), on)
}

fn link_switch(link: &str) -> PathBuf {
    PathBuf::from(format!("/proc/sys/net/ipv4/conf/{link}/forwarding"))
}

/// Whether IPv4 packets that come in by this link may go on.
pub(crate) fn link_forwards(link: &str) -> bool {
    is_on(&link_switch(link))
}

pub(crate) fn set_link_forwards(link: &str, on: bool) -> Result<(), SwitchError> {
    set(link_switch(link), on)
}

/// Whether the IPv6 default route came with a router's advertisement and would be lost if this host became a router:
/// then the kernel heeds no more of them, unless `accept_ra` of the link is 2.
pub(crate) fn forwarding_loses_v6() -> bool {
    let routes = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let accepts_anyway = |link: &str| {
        let path = format!("/proc/sys/net/ipv6/conf/{link}/accept_ra");
        std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "2")
    };
    advertised_defaults(&routes).any(|link| !accepts_anyway(link))
}

/// Links of the default routes that a router advertised (net/ipv6/route.c, rt6_fill_node's older twin: destination, its
/// length, source, its length, next hop, metric, two counters, flags, link).
fn advertised_defaults(routes: &str) -> impl Iterator<Item = &str> {
    const RTF_DEFAULT_ADVERTISED: u32 = 0x0001_0000 | 0x0004_0000;
    routes.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, length, .., flags, link] = fields[..] else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        (length == "00" && flags & RTF_DEFAULT_ADVERTISED == RTF_DEFAULT_ADVERTISED).then_some(link)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertised_default_route_is_told_from_a_set_one() {
        let zeros = "0".repeat(32);
        let line = |flags: &str, link: &str| {
            format!(
                "{zeros} 00 {zeros} 00 fe800000000000000000000000000001 00000400 00000001 00000000 {flags}     {link}\n"
            )
        };
        let text = line("00450003", "eth0") + &line("00000003", "eth1") + &line("00200200", "lo");
        assert_eq!(advertised_defaults(&text).collect::<Vec<_>>(), ["eth0"]);
        assert_eq!(advertised_defaults("").count(), 0);
    }
}
