//! Flows that the kernel tracks: listed, and forgotten by address, of both families and transports.
//!
//! Owns: the tests. Must not know: the encoding. What of flows depends on address translation is in `firewall`.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use faaster_netlink::{Connection, LinkAddress, LinkChange, LinkState, Protocol, VethEnd, create_veth};

use crate::namespaces::{Namespace, name};

/// Longest that a packet between two namespaces of one machine may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);
const TCP: u8 = 6;
const UDP: u8 = 17;
/// The two ends of a link: the host's, which tracks, and two addresses of the far one.
const HOST: [&str; 2] = ["10.7.0.1", "fd00:7::1"];
const KEPT: [&str; 2] = ["10.7.0.2", "fd00:7::2"];
const REUSED: [&str; 2] = ["10.7.0.3", "fd00:7::3"];
/// Any rule that asks for a connection's state makes the namespace track connections.
const TRACKING: &str = "table inet tracking { chain input { type filter hook input priority 0; ct state established,new counter accept; }; }";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("tests use valid addresses")
}

fn join(connection: &mut Connection, link: &str, addresses: &[[&str; 2]]) -> Result<()> {
    connection.run(&LinkChange::new(name(link)).state(LinkState::Up).request())?;
    let index = connection.link(name(link))?.context("made")?.index;
    for address in addresses.iter().flatten() {
        let prefix_bits = if address.contains(':') { 64 } else { 24 };
        connection.run(&LinkAddress { prefix_bits, ..LinkAddress::host(index, ip(address)) }.add())?;
    }
    Ok(())
}

/// A host that tracks connections, and a namespace that is linked to it. `None`, with the reason printed, where this
/// machine cannot.
fn tracked() -> Result<Option<(Namespace, Namespace)>> {
    let (Some(host), Some(far)) = (Namespace::new()?, Namespace::new()?) else { return Ok(None) };
    if let Err(error) = host.output(&["nft", TRACKING]) {
        eprintln!("skipped: connections cannot be tracked here: {error:#}");
        return Ok(None);
    }
    if !std::path::Path::new("/proc/sys/net/netfilter/nf_conntrack_max").exists() {
        eprintln!("skipped: the kernel has no nf_conntrack");
        return Ok(None);
    }
    let mut near = host.connect(Protocol::Route)?;
    near.run(&create_veth(&VethEnd::new(name("up0")), &VethEnd::new(name("eth0")).namespace(far.as_fd())))?;
    join(&mut near, "up0", &[HOST])?;
    join(&mut far.connect(Protocol::Route)?, "eth0", &[KEPT, REUSED])?;
    Ok(Some((host, far)))
}

/// Sends a datagram from an address of the far end to the host, and gets it there.
fn datagram(host: &Namespace, far: &Namespace, from: &str, to: &str) -> Result<()> {
    let server = host.run(|| Ok(UdpSocket::bind((ip(to), 0))?))?;
    server.set_read_timeout(Some(PATIENCE))?;
    let client = far.run(|| Ok(UdpSocket::bind((ip(from), 0))?))?;
    client.send_to(b"x", server.local_addr()?)?;
    server.recv_from(&mut [0; 8])?;
    Ok(())
}

/// A connection from an address of the far end to the host, both ends of it.
fn connection(host: &Namespace, far: &Namespace, from: &str, to: &str) -> Result<(TcpStream, TcpStream)> {
    let listener = host.run(|| Ok(TcpListener::bind((ip(to), 0))?))?;
    let at = listener.local_addr()?;
    let client = far.run(|| {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let family = if at.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let socket = socket(family, SocketType::STREAM, None)?;
        bind(&socket, &SocketAddr::new(ip(from), 0))?;
        connect(&socket, &at)?;
        Ok(TcpStream::from(socket))
    })?;
    let (server, _) = listener.accept()?;
    for end in [&client, &server] {
        end.set_read_timeout(Some(PATIENCE))?;
    }
    Ok((client, server))
}

/// Flows by protocol and by who began them, sorted. Neighbours find each other by ICMPv6, which is none of the tests'.
fn seen(connection: &mut Connection) -> Result<Vec<(u8, IpAddr)>> {
    let flows = connection.flows()?;
    let mut seen: Vec<_> = flows
        .iter()
        .filter(|flow| [TCP, UDP].contains(&flow.protocol))
        .map(|flow| (flow.protocol, flow.original.source))
        .collect();
    seen.sort();
    Ok(seen)
}

#[test]
fn a_reused_address_inherits_no_flow_of_either_family() -> Result<()> {
    let Some((host, far)) = tracked()? else { return Ok(()) };
    let mut netfilter = host.connect(Protocol::Netfilter)?;
    let mut open = Vec::new();
    for (kept, (reused, to)) in KEPT.into_iter().zip(REUSED.into_iter().zip(HOST)) {
        for from in [kept, reused] {
            datagram(&host, &far, from, to)?;
            open.push(connection(&host, &far, from, to)?);
        }
    }
    let of = |addresses: &[[&str; 2]]| {
        let mut all: Vec<_> =
            addresses.iter().flatten().flat_map(|one| [(TCP, ip(one)), (UDP, ip(one))]).collect();
        all.sort();
        all
    };
    assert_eq!(seen(&mut netfilter)?, of(&[KEPT, REUSED]));
    for (number, address) in REUSED.into_iter().enumerate() {
        // ICMPv6 of the address may be among them.
        assert!(netfilter.forget_flows(ip(address))? >= 2, "{address}");
        let left = seen(&mut netfilter)?;
        assert!(!left.iter().any(|(_, source)| *source == ip(address)), "{left:?}");
        assert_eq!(left.len(), 6 - 2 * number, "others' flows are as they were: {left:?}");
    }
    assert_eq!(seen(&mut netfilter)?, of(&[KEPT]));

    // Those that were kept are still those of the connections, which go on.
    for (client, server) in &mut open {
        client.write_all(b"y")?;
        let mut byte = [0];
        server.read_exact(&mut byte)?;
        assert_eq!(&byte, b"y");
    }
    assert!(of(&[KEPT]).iter().all(|flow| seen(&mut netfilter).expect("listed before").contains(flow)));
    Ok(())
}
