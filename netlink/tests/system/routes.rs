//! Addresses, routes and neighbours of both families.
//!
//! Owns: the tests. Must not know: the encoding.

use std::net::IpAddr;

use anyhow::{Context, Result};
use faaster_netlink::{
    Connection, Gateway, LinkAddress, LinkChange, LinkIndex, LinkLocal, LinkState, Neighbour, Protocol,
    Route, RouteKind, Subnet, TABLE_MAIN, VethEnd, create_veth,
};
use rustix::io::Errno;

use crate::namespaces::{Namespace, name};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("tests use valid addresses")
}

fn net(text: &str) -> Subnet {
    text.parse().expect("tests use valid subnets")
}

/// A namespace with a link that is up, without addresses.
fn with_link() -> Result<Option<(Namespace, Connection, LinkIndex)>> {
    let Some(host) = Namespace::new()? else { return Ok(None) };
    let mut near = host.connect(Protocol::Route)?;
    near.run(&create_veth(&VethEnd::new(name("a")), &VethEnd::new(name("b"))))?;
    for end in ["a", "b"] {
        near.run(&LinkChange::new(name(end)).link_local(LinkLocal::None).request())?;
        near.run(&LinkChange::new(name(end)).state(LinkState::Up).request())?;
    }
    let index = near.link(name("a"))?.context("made")?.index;
    Ok(Some((host, near, index)))
}

fn main_routes(near: &mut Connection) -> Result<Vec<Route>> {
    Ok(near.routes()?.into_iter().filter(|route| route.table == TABLE_MAIN).collect())
}

#[test]
fn addresses_come_and_go() -> Result<()> {
    let Some((host, mut near, link)) = with_link()? else { return Ok(()) };
    let v4 = LinkAddress { link, address: ip("10.1.2.3"), prefix_bits: 24, peer: None };
    let v6 = LinkAddress { link, address: ip("fd00::7"), prefix_bits: 64, peer: None };
    let point = LinkAddress { peer: Some(ip("10.9.0.2")), ..LinkAddress::host(link, ip("10.9.0.1")) };
    for address in [v4, v6, point] {
        near.run(&address.add())?;
    }
    let shown = host.output(&["ip", "-o", "addr", "show", "dev", "a"])?;
    for text in ["inet 10.1.2.3/24 ", "inet 10.9.0.1 peer 10.9.0.2/32 ", "inet6 fd00::7/64 "] {
        assert!(shown.contains(text), "{text} is in {shown}");
    }
    assert!(!shown.contains("tentative"), "an IPv6 address is usable at once: {shown}");
    let mut listed = near.addresses(Some(link))?;
    listed.sort_by_key(|address| address.address);
    assert_eq!(listed, [v4, point, v6]);
    let twice = near.run(&v4.add()).expect_err("it is there");
    assert_eq!(twice.kernel_errno(), Some(Errno::EXIST));
    for address in [v4, v6, point] {
        near.run(&address.delete())?;
    }
    assert_eq!(near.addresses(None)?, []);
    Ok(())
}

#[test]
fn routes_of_every_kind() -> Result<()> {
    let Some((host, mut near, link)) = with_link()? else { return Ok(()) };
    near.run(&LinkAddress::host(link, ip("10.0.0.2")).add())?;
    let device = Route::device(net("10.5.0.0/16"), link);
    let default = Route::default_via(Gateway::OnLink(ip("169.254.1.1")), link);
    let dropped = Route::dead_end(net("192.0.2.0/24"), RouteKind::Blackhole);
    let refused =
        Route { metric: Some(7), ..Route::dead_end(net("198.51.100.0/24"), RouteKind::Unreachable) };
    let v6 = Route { metric: Some(1024), ..Route::device(net("fd07::/48"), link) };
    let elsewhere = Route { table: 1000, source: Some(ip("10.0.0.2")), ..device };
    let all = [device, default, dropped, refused, v6, elsewhere];
    for route in &all {
        near.run(&route.add()).with_context(|| format!("{route:?}"))?;
    }
    let listed = near.routes()?;
    for route in &all {
        assert!(listed.contains(route), "{route:?} is in {listed:#?}");
    }
    let shown = host.output(&["ip", "route"])?;
    assert!(shown.contains("default via 169.254.1.1 dev a proto static onlink"), "{shown}");
    assert!(shown.contains("10.5.0.0/16 dev a proto static scope link"), "{shown}");

    assert_eq!(near.run(&device.add()).expect_err("it is there").kernel_errno(), Some(Errno::EXIST));
    let replaced = Route { source: Some(ip("10.0.0.2")), ..device };
    near.run(&replaced.replace())?;
    let listed = main_routes(&mut near)?;
    assert!(listed.contains(&replaced) && !listed.contains(&device));

    for route in [replaced, default, dropped, refused, v6, elsewhere] {
        near.run(&route.delete()).with_context(|| format!("{route:?}"))?;
    }
    let left = near.routes()?;
    assert!(all.iter().all(|route| !left.contains(route)), "{left:#?}");
    Ok(())
}

#[test]
fn a_default_route_of_ipv6_is_on_the_link_if_told_so() -> Result<()> {
    let Some((_host, mut near, link)) = with_link()? else { return Ok(()) };
    near.run(&LinkAddress::host(link, ip("fd00::2")).add())?;
    let route = Route { metric: Some(1024), ..Route::default_via(Gateway::OnLink(ip("fe80::1")), link) };
    near.run(&route.add())?;
    let listed = near.routes()?;
    assert!(listed.contains(&route), "{listed:#?}");
    Ok(())
}

#[test]
fn neighbours_are_set_and_removed() -> Result<()> {
    let Some((_host, mut near, link)) = with_link()? else { return Ok(()) };
    let first = Neighbour::permanent(link, ip("169.254.1.1"), [2, 0, 0, 0, 0, 1]);
    let other = Neighbour::permanent(link, ip("169.254.1.1"), [2, 0, 0, 0, 0, 2]);
    let v6 = Neighbour::permanent(link, ip("fe80::1"), [2, 0, 0, 0, 0, 3]);
    for neighbour in [first, other, v6] {
        near.run(&neighbour.set())?;
    }
    let mut listed: Vec<_> = near.neighbours()?.into_iter().filter(|entry| entry.permanent).collect();
    listed.sort_by_key(|entry| entry.address);
    assert_eq!(listed, [other, v6], "the second took the first's place");
    near.run(&other.delete())?;
    near.run(&v6.delete())?;
    assert!(near.neighbours()?.iter().all(|entry| !entry.permanent));
    let gone = near.run(&v6.delete()).expect_err("removed");
    assert_eq!(gone.kernel_errno(), Some(Errno::NOENT));
    Ok(())
}
