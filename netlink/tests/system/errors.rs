//! Errors say what was asked, why it was refused, and where the kernel points; waits end.
//!
//! Owns: the tests. Must not know: the encoding beyond what it takes to ask for something wrong.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Result;
use faaster_netlink::wire::{Header, KIND_DONE, KIND_NOTHING};
use faaster_netlink::{
    Connection, Gateway, LinkAddress, LinkChange, LinkState, NetlinkError, Protocol, Request, Route, VethEnd,
    Writer, create_veth, delete_link,
};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SendFlags, SocketType};

use crate::namespaces::{Namespace, name};

#[test]
fn the_kernels_own_words_are_in_the_error() -> Result<()> {
    let Some(host) = Namespace::new()? else { return Ok(()) };
    let mut near = host.connect(Protocol::Route)?;
    near.run(&create_veth(&VethEnd::new(name("a")), &VethEnd::new(name("b"))))?;
    let link = near.link(name("a"))?.expect("made").index;
    let lost = near.run(&Route::default_via(Gateway::Routed("10.0.0.1".parse()?), link).add());
    let NetlinkError::Kernel(error) = lost.expect_err("no route to it") else { panic!("a refusal") };
    assert_eq!((error.what, error.errno), ("add a route", Errno::NETUNREACH));
    assert_eq!(error.text.as_deref(), Some("Nexthop has invalid gateway"));
    let small = near.run(&LinkChange::new(link).mtu_bytes(1).request()).expect_err("too small");
    let text = small.to_string();
    assert_eq!(
        text,
        "the kernel refused to change a link: Invalid argument (os error 22): mtu less than device minimum"
    );
    Ok(())
}

#[test]
fn the_attribute_that_is_wrong_is_named() -> Result<()> {
    let Some(host) = Namespace::new()? else { return Ok(()) };
    let mut near = host.connect(Protocol::Route)?;
    let mut writer = Writer::new();
    // IFLA_TXQLEN (13) has 4 bytes and not 1.
    writer.fixed(&[0; 16]).text(3, "lo").u8(13, 1);
    let error = near.run(&Request::new(Protocol::Route, 19, 0, "set a queue's length", writer));
    let NetlinkError::Kernel(error) = error.expect_err("of the wrong size") else { panic!("a refusal") };
    assert_eq!(error.errno, Errno::RANGE);
    assert_eq!((error.attribute, error.offset_bytes), (Some(13), Some(16 + 16 + 8)));
    let text = error.to_string();
    assert!(text.ends_with(" (attribute 13 at byte 40 of the request)"), "{text}");
    Ok(())
}

#[test]
fn a_wait_for_what_does_not_come_ends() -> Result<()> {
    let Some(host) = Namespace::new()? else { return Ok(()) };
    let mut near = host.connect(Protocol::Route)?;
    near.set_timeout(Duration::from_millis(30));
    // The kernel passes over a message of this kind and answers nothing.
    let request = Request::new(Protocol::Route, KIND_NOTHING, 0, "wait in vain", Writer::new());
    let error = near.dump(&request, |_| Ok(Some(()))).expect_err("there is no answer");
    assert!(matches!(error, NetlinkError::Deadline { what: "wait in vain", .. }), "{error}");
    assert_eq!(error.to_string(), "the kernel did not answer a request to wait in vain within 30 ms");
    assert!(!near.links()?.is_empty(), "the connection is as good as before");
    Ok(())
}

#[test]
fn a_request_goes_only_where_it_belongs() -> Result<()> {
    let Some(host) = Namespace::new()? else { return Ok(()) };
    let mut diag = host.connect(Protocol::SocketDiag)?;
    let request = create_veth(&VethEnd::new(name("a")), &VethEnd::new(name("b")));
    let error = diag.run_all(&[request.clone(), request]).expect_err("not for it");
    assert_eq!(error.outcomes, [None, None]);
    assert_eq!(
        error.source.to_string(),
        "a request to create a veth pair is for NETLINK_ROUTE and was given to a connection to NETLINK_SOCK_DIAG"
    );
    Ok(())
}

#[test]
fn only_the_kernels_word_counts() -> Result<()> {
    let Some(host) = Namespace::new()? else { return Ok(()) };
    let mut near = host.connect(Protocol::Route)?;
    let port = SocketAddrNetlink::try_from(rustix::net::getsockname(&near)?)?;
    // Another process says, as the answer to the question that comes next, that there are no links.
    host.run(|| {
        let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
        let forged = Header { length: 20, kind: KIND_DONE, flags: 0, sequence: 1, port: port.pid() };
        let forged = [&forged.encode()[..], &[0; 4]].concat();
        assert_eq!(rustix::net::sendto(&socket, &forged, SendFlags::empty(), &port)?, forged.len());
        Ok(())
    })?;
    assert_eq!(near.links()?.len(), 1, "there is lo");
    Ok(())
}

/// A socket with no option set, made elsewhere.
fn bare_socket(host: &Namespace) -> Result<OwnedFd> {
    host.run(|| {
        let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(socket)
    })
}

#[test]
fn a_socket_is_taken_over_as_it_is() -> Result<()> {
    let Some(host) = Namespace::new()? else { return Ok(()) };
    let mut near = Connection::adopt(bare_socket(&host)?, Protocol::Route);
    near.run(&create_veth(&VethEnd::new(name("a")), &VethEnd::new(name("b"))))?;
    assert_eq!(near.links()?.len(), 3, "with lo");
    let small = near.run(&LinkChange::new(name("a")).mtu_bytes(1).request()).expect_err("too small");
    assert_eq!(small.to_string(), "the kernel refused to change a link: Invalid argument (os error 22)");
    let lo = near.link(name("lo"))?.expect("always there").index;
    let a = near.link(name("a"))?.expect("made").index;
    near.run(&LinkChange::new(lo).state(LinkState::Up).request())?;
    near.run(&LinkAddress::host(a, "10.0.0.1".parse()?).add())?;
    // Such a socket's listings are not filtered by the kernel.
    assert!(near.addresses(Some(a))?.iter().all(|address| address.link == a));
    assert!(near.addresses(None)?.iter().any(|address| address.link == lo));
    Ok(())
}

#[test]
fn what_was_answered_before_answers_were_lost_is_told() -> Result<()> {
    let Some(host) = Namespace::new()? else { return Ok(()) };
    let socket = bare_socket(&host)?;
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1)?;
    let mut near = Connection::adopt(socket, Protocol::Route);
    let requests = vec![delete_link(name("nothing")); 50];
    let error = near.run_all(&requests).expect_err("so many answers have no room");
    assert!(matches!(error.source, NetlinkError::Overrun), "{error:?}");
    let known = error.outcomes.iter().take_while(|outcome| outcome.is_some()).count();
    assert!((1..50).contains(&known), "{error:?}");
    for outcome in &error.outcomes[..known] {
        let refusal =
            outcome.as_ref().and_then(|outcome| outcome.as_ref().err()).expect("known, and refused");
        assert_eq!(refusal.errno, Errno::NODEV);
    }
    assert!(error.outcomes[known..].iter().all(Option::is_none));
    assert_eq!(error.to_string(), format!("{known} of 50 requests were answered, then no more"));
    let one = near.run(&requests[0]).expect_err("there is nothing");
    assert_eq!(one.kernel_errno(), Some(Errno::NODEV), "the connection is as good as before");
    Ok(())
}
