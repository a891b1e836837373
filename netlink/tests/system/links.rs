//! Links: made, changed, counted, removed, in this namespace and another.
//!
//! Owns: the tests. Must not know: the encoding.

use std::num::NonZeroU32;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use faaster_netlink::{
    Forwarding, LinkChange, LinkIndex, LinkLocal, LinkState, Protocol, VethEnd, assign_namespace_id,
    create_veth, delete_link,
};
use rustix::io::Errno;

use crate::namespaces::{Namespace, name};

const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 7];
const QUEUES: NonZeroU32 = NonZeroU32::new(3).expect("not 0");

#[test]
fn a_veth_pair_is_born_in_two_namespaces() -> Result<()> {
    let (Some(host), Some(slot)) = (Namespace::new()?, Namespace::new()?) else { return Ok(()) };
    let mut near = host.connect(Protocol::Route)?;
    let mut far = slot.connect(Protocol::Route)?;
    near.run(&create_veth(
        &VethEnd::new(name("fv0")).state(LinkState::Up).mtu_bytes(1400).queues(NonZeroU32::MIN),
        &VethEnd::new(name("eth0")).namespace(slot.as_fd()).mac(MAC).mtu_bytes(1400).queues(QUEUES),
    ))?;
    let eth0 = far.link(name("eth0"))?.context("the far end is in its namespace")?;
    assert_eq!((eth0.mac, eth0.mtu_bytes, eth0.state), (Some(MAC), 1400, LinkState::Down));
    assert_eq!((eth0.sending_queues, eth0.receiving_queues), (QUEUES.get(), QUEUES.get()));
    far.run(&LinkChange::new(eth0.index).state(LinkState::Up).request())?;

    let fv0 = near.link(name("fv0"))?.context("the near end is here")?;
    assert_eq!((fv0.kind.as_deref(), fv0.mtu_bytes, fv0.state), (Some("veth"), 1400, LinkState::Up));
    assert_eq!((fv0.carrier, fv0.loopback), (LinkState::Up, false), "both ends are up");
    assert_eq!((fv0.sending_queues, fv0.receiving_queues), (1, 1));
    assert_eq!(near.link_index(&name("fv0"))?, fv0.index);
    assert_eq!(far.link_index(&name("eth0"))?, eth0.index, "each by its own namespace");
    assert_eq!(fv0.peer, Some(eth0.index));
    assert_eq!(fv0.peer_namespace, near.namespace_id(slot.as_fd())?);
    assert!(fv0.peer_namespace.is_some());
    assert_eq!(near.link(name("eth0"))?, None, "the far end is only there");

    near.run(&delete_link(fv0.index))?;
    assert_eq!(near.link(fv0.index)?, None);
    let none = near.link_index(&name("fv0")).expect_err("it is gone");
    assert_eq!(none.kernel_errno(), Some(Errno::NODEV));
    assert_eq!(far.link(name("eth0"))?, None, "both ends are gone");
    Ok(())
}

#[test]
fn a_link_is_changed_in_every_way() -> Result<()> {
    let (Some(host), Some(other)) = (Namespace::new()?, Namespace::new()?) else { return Ok(()) };
    let mut near = host.connect(Protocol::Route)?;
    near.run(&create_veth(&VethEnd::new(name("a")).group(3), &VethEnd::new(name("b"))))?;
    let a = near.link(name("a"))?.context("made")?;
    assert_eq!((a.state, a.peer_namespace, a.group), (LinkState::Down, None, 3));
    for (forwarding, expected) in [(Forwarding::On, "1\n"), (Forwarding::Off, "0\n")] {
        near.run(&LinkChange::new(a.index).forwarding_v4(forwarding).group(4).request())?;
        assert_eq!(host.output(&["cat", "/proc/sys/net/ipv4/conf/a/forwarding"])?, expected);
    }
    assert_eq!(near.link(a.index)?.context("still there")?.group, 4);
    near.run(&LinkChange::new(a.index).name(name("c")).mac(MAC).mtu_bytes(1280).request())?;
    near.run(&LinkChange::new(name("c")).state(LinkState::Up).request())?;
    let c = near.link(name("c"))?.context("renamed")?;
    assert_eq!((c.index, c.mac, c.mtu_bytes, c.state), (a.index, Some(MAC), 1280, LinkState::Up));
    assert_eq!(c.carrier, LinkState::Down, "the other end is down");

    near.run(&LinkChange::new(name("b")).namespace(other.as_fd()).request())?;
    assert_eq!(near.link(name("b"))?, None);
    let b = other.connect(Protocol::Route)?.link(name("b"))?.context("moved")?;
    assert_eq!(b.state, LinkState::Down);
    Ok(())
}

#[test]
fn no_address_comes_up_by_itself_where_that_is_off() -> Result<()> {
    let Some(host) = Namespace::new()? else { return Ok(()) };
    let mut near = host.connect(Protocol::Route)?;
    if !near.links()?.iter().any(|link| link.loopback) || !std::path::Path::new("/proc/sys/net/ipv6").exists()
    {
        eprintln!("skipped: this kernel has no IPv6");
        return Ok(());
    }
    near.run(&create_veth(&VethEnd::new(name("a")), &VethEnd::new(name("b"))))?;
    near.run(&LinkChange::new(name("a")).link_local(LinkLocal::None).request())?;
    for end in ["a", "b"] {
        near.run(&LinkChange::new(name(end)).state(LinkState::Up).request())?;
    }
    let count = |of: &str, near: &mut faaster_netlink::Connection| -> Result<usize> {
        let index = near.link(name(of))?.context("made")?.index;
        Ok(near.addresses(Some(index))?.len())
    };
    assert_eq!((count("a", &mut near)?, count("b", &mut near)?), (0, 1));
    Ok(())
}

#[test]
fn counters_count() -> Result<()> {
    let Some(host) = Namespace::new()? else { return Ok(()) };
    let mut near = host.connect(Protocol::Route)?;
    let lo = near.links()?.into_iter().find(|link| link.loopback).context("there is always lo")?;
    assert_eq!((lo.name.as_str(), lo.statistics.sent_packets), ("lo", 0));
    near.run(&LinkChange::new(lo.index).state(LinkState::Up).request())?;
    host.run(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        socket.send_to(&[7; 100], socket.local_addr()?)?;
        Ok(())
    })?;
    let counted = near.link(lo.index)?.context("there is always lo")?.statistics;
    assert_eq!((counted.sent_packets, counted.received_packets), (1, 1));
    assert_eq!((counted.sent_bytes, counted.received_bytes), (128, 128), "with its IP and UDP headers");
    Ok(())
}

#[test]
fn a_namespace_is_given_an_id_once() -> Result<()> {
    let (Some(host), Some(other)) = (Namespace::new()?, Namespace::new()?) else { return Ok(()) };
    let mut near = host.connect(Protocol::Route)?;
    assert_eq!(near.namespace_id(other.as_fd())?, None);
    near.run(&assign_namespace_id(other.as_fd()))?;
    assert!(near.namespace_id(other.as_fd())?.is_some_and(|id| id >= 0));
    let again = near.run(&assign_namespace_id(other.as_fd())).expect_err("it has one");
    assert_eq!(again.kernel_errno(), Some(Errno::EXIST));
    Ok(())
}

#[test]
fn a_link_that_is_not_there_is_none() -> Result<()> {
    let Some(host) = Namespace::new()? else { return Ok(()) };
    let mut near = host.connect(Protocol::Route)?;
    assert_eq!(near.link(name("nothing"))?, None);
    assert_eq!(near.link(LinkIndex::new(999).context("a number")?)?, None);
    let gone = near.run(&delete_link(name("nothing"))).expect_err("nothing to remove");
    assert_eq!(gone.kernel_errno(), Some(Errno::NODEV));
    Ok(())
}
