//! Messages as a real kernel sent them (captured.txt) are read right; the same messages, damaged, are read or refused.
//!
//! Owns: the expectations. Must not know: sockets; nothing here needs a right.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use faaster_netlink::nftables::{Base, Chain, Family, Hook, Policy};
use faaster_netlink::wire::{FLAG_CAPPED, HEADER_BYTES, KIND_ERROR, Message, Messages};
use faaster_netlink::{
    Flow, Gateway, KernelError, Link, LinkAddress, LinkIndex, LinkState, Neighbour, Route, RouteKind, Socket,
    SocketProtocol, Subnet, TABLE_MAIN, decode_answer,
};
use proptest::prelude::*;
use rustix::io::Errno;

fn all() -> Vec<(&'static str, Vec<u8>)> {
    let lines = include_str!("captured.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, hex) = line.split_once(": ").expect("a name and bytes");
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two hexadecimal digits");
            (name, (0..hex.len()).step_by(2).map(byte).collect())
        })
        .collect()
}

fn bytes(name: &str) -> Vec<u8> {
    all().into_iter().find(|(found, _)| *found == name).expect("captured").1
}

fn with<T>(name: &str, read: impl FnOnce(Message<'_>) -> T) -> T {
    let bytes = bytes(name);
    let mut messages = Messages::new(&bytes);
    let message = messages.next().expect("one message").expect("whole");
    assert!(messages.next().is_none());
    read(message)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("valid")
}

fn net(text: &str) -> Subnet {
    text.parse().expect("valid")
}

fn index(number: u32) -> LinkIndex {
    LinkIndex::new(number).expect("valid")
}

#[test]
fn links() {
    let read =
        |name: &str| with(name, |message| Link::decode(message.body)).expect("readable").expect("a link");
    let near = read("link veth in another namespace");
    assert_eq!((near.name.as_str(), near.kind.as_deref(), near.mtu_bytes), ("fv0", Some("veth"), 1400));
    assert_eq!((near.state, near.carrier, near.loopback), (LinkState::Up, LinkState::Up, false));
    assert_eq!(
        (near.index, near.peer, near.peer_namespace, near.master),
        (index(2), Some(index(2)), Some(0), None)
    );
    let far = read("link eth0 in its namespace");
    let mac = Some([214, 92, 236, 140, 173, 111]);
    assert_eq!((far.name.as_str(), far.mac, far.state), ("eth0", mac, LinkState::Up));
    let lo = read("link lo with counters");
    assert_eq!((lo.index, lo.loopback, lo.mtu_bytes, lo.kind), (index(1), true, 65536, None));
    assert_eq!((lo.statistics.sent_packets, lo.statistics.received_bytes), (1, 128));
}

#[test]
fn addresses() {
    let read = |name: &str| with(name, |message| LinkAddress::decode(message.body)).expect("readable");
    let link = index(3);
    let v4 = LinkAddress { link, address: ip("10.1.2.3"), prefix_bits: 24, peer: None };
    assert_eq!(read("address v4"), Some(v4));
    let peer = LinkAddress { peer: Some(ip("10.9.0.2")), ..LinkAddress::host(link, ip("10.9.0.1")) };
    assert_eq!(read("address v4 with peer"), Some(peer));
    let v6 = LinkAddress { link, address: ip("fd00::7"), prefix_bits: 64, peer: None };
    assert_eq!(read("address v6"), Some(v6));
}

#[test]
fn routes() {
    let read =
        |name: &str| with(name, |message| Route::decode(message.body)).expect("readable").expect("a route");
    let link = index(3);
    let default = Route::default_via(Gateway::OnLink(ip("169.254.1.1")), link);
    assert_eq!(read("route default onlink"), default);
    let elsewhere =
        Route { table: 1000, source: Some(ip("10.0.0.2")), ..Route::device(net("10.5.0.0/16"), link) };
    assert_eq!(read("route in table 1000"), elsewhere);
    assert_eq!(read("route blackhole"), Route::dead_end(net("192.0.2.0/24"), RouteKind::Blackhole));
    let refused =
        Route { metric: Some(7), ..Route::dead_end(net("198.51.100.0/24"), RouteKind::Unreachable) };
    assert_eq!(read("route unreachable with metric"), refused);
    let v6 = read("route v6");
    assert_eq!((v6.destination, v6.table, v6.metric), (net("fd07::/48"), TABLE_MAIN, Some(1024)));
}

#[test]
fn neighbours() {
    let read = |name: &str| with(name, |message| Neighbour::decode(message.body)).expect("readable");
    let v4 = Neighbour::permanent(index(3), ip("169.254.1.1"), [2, 0, 0, 0, 0, 2]);
    assert_eq!(read("neighbour v4"), Some(v4));
    let v6 = Neighbour::permanent(index(3), ip("fe80::1"), [2, 0, 0, 0, 0, 3]);
    assert_eq!(read("neighbour v6"), Some(v6));
}

#[test]
fn answers() {
    let read = |name: &str, request: &[u8]| {
        with(name, |message| decode_answer(&message, "try", request)).expect("readable")
    };
    assert_eq!(read("acknowledgement", &[]), Ok(()));
    assert_eq!(read("end of a listing", &[]), Ok(()));
    let blank = |errno| KernelError {
        what: "try",
        errno,
        text: None,
        offset_bytes: None,
        attribute: None,
        missing: None,
    };
    let text = Some("mtu less than device minimum".to_owned());
    assert_eq!(read("refusal with text", &[]), Err(KernelError { text, ..blank(Errno::INVAL) }));

    // The request that the next two answer: after its header and fixed part, the attributes of a name and of a queue.
    let request = [&[0; 32][..], &[7, 0, 3, 0], b"lo\0\0", &[5, 0, 13, 0, 1, 0, 0, 0]].concat();
    let text = Some("Attribute failed policy validation".to_owned());
    let expected = KernelError { text, offset_bytes: Some(40), attribute: Some(13), ..blank(Errno::RANGE) };
    for name in ["refusal with attribute", "refusal that repeats the request"] {
        assert_eq!(read(name, &request), Err(expected.clone()), "{name}");
        let elsewhere = KernelError { attribute: None, ..expected.clone() };
        assert_eq!(read(name, &request[..40]), Err(elsewhere), "{name}, of a shorter request");
    }
    with("refusal with attribute", |message| assert_ne!(message.header.flags & FLAG_CAPPED, 0));
    with("refusal that repeats the request", |message| assert_eq!(message.header.flags & FLAG_CAPPED, 0));
    let expected = KernelError { offset_bytes: Some(32), ..blank(Errno::NOENT) };
    assert_eq!(read("refusal of nftables", &[]), Err(expected));
}

#[test]
fn chains() {
    let chain = with("chain with a hook", |message| Chain::decode(message.body)).expect("readable");
    assert_eq!((chain.family, chain.table.as_str(), chain.kind.as_str()), (Family::Ipv4, "theirs", "filter"));
    assert_eq!(chain.base, Some(Base { hook: Hook::Forward, priority: 0, policy: Policy::Drop }));
}

#[test]
fn flows() {
    let read =
        |name: &str| with(name, |message| Flow::decode(message.body)).expect("readable").expect("a flow");
    for name in ["flow translated", "flow by address"] {
        let flow = read(name);
        assert_eq!((flow.protocol, flow.original.source), (17, ip("10.48.0.1")));
        assert_eq!((flow.original.destination, flow.reply.source), (ip("198.51.100.1"), ip("198.51.100.1")));
        assert_eq!(flow.reply.destination, ip("198.51.100.2"));
        assert_eq!(flow.original.source_port, flow.reply.destination_port);
    }
}

#[test]
fn sockets() {
    let read = |name: &str, protocol| {
        with(name, |message| Socket::decode(protocol, message.body)).expect("readable").expect("a socket")
    };
    let listening = read("socket tcp listening", SocketProtocol::Tcp);
    assert_eq!((listening.local.ip(), listening.state, listening.remote.port()), (ip("127.0.0.1"), 10, 0));
    let connected = read("socket tcp connected", SocketProtocol::Tcp);
    assert_eq!(
        (connected.local.port(), connected.remote.ip(), connected.state),
        (0x9595, ip("127.0.0.1"), 1)
    );
    let udp = read("socket udp v6", SocketProtocol::Udp);
    assert_eq!((udp.local.ip(), udp.state, udp.user), (ip("::1"), 7, 0));
}

/// What must hold for any bytes: whoever reads them ends, and what is read can be sent back.
fn hold(datagram: &[u8]) {
    for message in Messages::new(datagram).flatten() {
        let body = message.body;
        assert!(HEADER_BYTES + body.len() <= datagram.len());
        if let Ok(Err(error)) = decode_answer(&message, "try", datagram) {
            assert!((1..4096).contains(&error.errno.raw_os_error()));
            assert!(!error.to_string().is_empty());
        }
        if let Ok(Some(link)) = Link::decode(body) {
            assert!(link.index.get() <= i32::MAX.cast_unsigned());
        }
        if let Ok(Some(address)) = LinkAddress::decode(body) {
            assert!(Subnet::new(address.address, address.prefix_bits).is_ok());
            let _sendable = (address.add(), address.delete());
        }
        if let Ok(Some(route)) = Route::decode(body) {
            assert_eq!(route.destination.to_string().parse(), Ok(route.destination));
            let _sendable = (route.add(), route.replace(), route.delete());
        }
        if let Ok(Some(neighbour)) = Neighbour::decode(body) {
            let _sendable = (neighbour.set(), neighbour.delete());
        }
        if let Ok(Some(flow)) = Flow::decode(body) {
            let _sendable = flow.delete();
        }
        if let Ok(Some(socket)) = Socket::decode(SocketProtocol::Tcp, body) {
            let _sendable = socket.destroy();
        }
        let _read = Chain::decode(body);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        hold(&bytes);
    }

    #[test]
    fn any_body_is_read_or_refused(kind in 0_u16..40, flags: u16, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let length = u32::try_from(HEADER_BYTES + body.len()).expect("small");
        let header = faaster_netlink::wire::Header { length, kind, flags, sequence: 1, port: 0 };
        hold(&[&header.encode()[..], &body].concat());
    }

    #[test]
    fn damaged_messages_are_read_or_refused(
        which: prop::sample::Index,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end: prop::sample::Index,
    ) {
        let all = all();
        let mut bytes = all[which.index(all.len())].1.clone();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        hold(&bytes);
        // Cut, with a header that says so.
        bytes.truncate(HEADER_BYTES + end.index(bytes.len() - HEADER_BYTES + 1));
        let length = u32::try_from(bytes.len()).expect("small");
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        hold(&bytes);
    }
}

#[test]
fn an_error_of_no_known_number_is_one_all_the_same() {
    for status in [1_i32, -5000, i32::MIN] {
        let body = [&status.to_ne_bytes()[..], &[0; 16]].concat();
        let header =
            faaster_netlink::wire::Header { length: 36, kind: KIND_ERROR, flags: 0, sequence: 1, port: 0 };
        let answer = decode_answer(&Message { header, body: &body }, "try", &[]).expect("readable");
        assert_eq!(answer.expect_err("not 0").errno, Errno::IO, "{status}");
    }
}
