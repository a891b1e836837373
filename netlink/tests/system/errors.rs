//! Errors say what was asked, why it was refused, and where the kernel points; waits end.
//!
//! Owns: the tests. Must not know: the encoding beyond what it takes to ask for something wrong.

use std::time::Duration;

use anyhow::Result;
use faaster_netlink::wire::{Header, KIND_DONE, KIND_NOTHING};
use faaster_netlink::{
    Gateway, LinkChange, NetlinkError, Protocol, Request, Route, VethEnd, Writer, create_veth,
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
