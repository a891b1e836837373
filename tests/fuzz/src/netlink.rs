//! Netlink: a datagram is cut into messages and these are read or refused, and what is read can be asked for again.
//!
//! Owns: the check. Must not know: sockets.

use faaster_netlink::nftables::{Chain, Element, Name, Set, SetKey, SetKind, Table, Transaction};
use faaster_netlink::wire::{HEADER_BYTES, Header, Message, Messages};
use faaster_netlink::{
    Attributes, Flow, Link, LinkAddress, LinkName, Neighbour, Route, Socket, SocketProtocol, Subnet,
    decode_answer,
};

/// Reads each message as everything it could be.
pub fn check(data: &[u8]) {
    let mut walked = 0;
    for message in Messages::new(data).flatten() {
        walked += HEADER_BYTES + message.body.len();
        assert_eq!(
            Header::decode(&message.header.encode()),
            Ok(message.header),
            "what is taken is said exactly so"
        );
        check_message(&message, data);
        check_attributes(message.body, 0);
    }
    assert!(walked <= data.len(), "no byte belongs to two messages");
}

fn check_message(message: &Message<'_>, request: &[u8]) {
    let body = message.body;
    if let Ok(Err(error)) = decode_answer(message, "try", request) {
        assert!((1..4096).contains(&error.errno.raw_os_error()), "an error has a number that the kernel has");
        assert!(error.attribute.is_none() || error.offset_bytes.is_some(), "an attribute is somewhere");
    }
    if let Ok(Some(link)) = Link::decode(body) {
        assert!(link.index.get() <= i32::MAX.cast_unsigned() && !link.name.contains('\0'));
        if let Ok(name) = LinkName::new(&link.name) {
            assert_eq!(name.as_str(), link.name);
        }
    }
    if let Ok(Some(address)) = LinkAddress::decode(body) {
        assert!(
            Subnet::new(address.address, address.prefix_bits).is_ok(),
            "a prefix is no longer than its address"
        );
        let _sendable = (address.add(), address.delete());
    }
    if let Ok(Some(route)) = Route::decode(body) {
        check_subnet(route.destination);
        let _sendable = (route.add(), route.replace(), route.delete());
    }
    if let Ok(Some(neighbour)) = Neighbour::decode(body) {
        let _sendable = (neighbour.set(), neighbour.delete());
    }
    if let Ok(Some(flow)) = Flow::decode(body) {
        let _sendable = flow.delete();
    }
    for protocol in [SocketProtocol::Tcp, SocketProtocol::Udp] {
        if let Ok(Some(socket)) = Socket::decode(protocol, body) {
            assert_eq!(socket.local.is_ipv4(), socket.remote.is_ipv4(), "both ends are of one family");
            let _sendable = socket.destroy();
        }
    }
    if let Ok(chain) = Chain::decode(body) {
        // Only a name that nft can read back is sent.
        if let Ok(name) = chain.table.parse::<Name>() {
            assert_eq!(name.as_str(), chain.table);
        }
    }
}

fn check_subnet(subnet: Subnet) {
    assert!(subnet.contains(subnet.first()) && subnet.contains(subnet.last()));
    assert_eq!(subnet.to_string().parse(), Ok(subnet), "what is said is read again");
    let key = if subnet.first().is_ipv4() { SetKey::V4 } else { SetKey::V6 };
    let table = Table::new(faaster_netlink::nftables::Family::Inet, "t".parse().expect("a valid name"));
    let set = Set::new(&table, "s".parse().expect("a valid name"), key, SetKind::Subnets);
    assert_eq!(
        Transaction::new().add_elements(&set, &[Element::Subnet(subnet)]),
        Ok(()),
        "every subnet fits"
    );
}

/// Attributes lie within each other, never over each other.
fn check_attributes(bytes: &[u8], depth: usize) {
    let mut walked = 0;
    for attribute in Attributes::new(bytes).flatten() {
        walked += 4 + attribute.value.len();
        if depth < 4 {
            check_attributes(attribute.value, depth + 1);
        }
    }
    assert!(walked <= bytes.len());
}

/// What a kernel sent.
pub fn seeds() -> Vec<Vec<u8>> {
    let captured = include_str!("../../../netlink/tests/captured.txt");
    let mut seeds: Vec<Vec<u8>> = captured
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| !name.starts_with('#'))
        .map(|(_, hex)| {
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two hexadecimal digits");
            (0..hex.len()).step_by(2).map(byte).collect()
        })
        .collect();
    seeds.push(seeds.concat());
    seeds
}
