//! Many requests at once: each has its own outcome, in order.
//!
//! Owns: the tests. Must not know: the encoding.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use faaster_netlink::wire::DecodeError;
use faaster_netlink::{
    LinkAddress, LinkIndex, LinkState, Neighbour, NetlinkError, Protocol, Request, Route, Subnet, VethEnd,
    Writer, create_veth, delete_link,
};
use rustix::io::Errno;

use crate::namespaces::{Namespace, name};

const PAIRS: usize = 200;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

#[test]
fn two_hundred_pairs_and_their_routes() -> Result<()> {
    let (Some(host), Some(slots)) = (Namespace::new()?, Namespace::new()?) else { return Ok(()) };
    let mut near = host.connect(Protocol::Route)?;
    let mut far = slots.connect(Protocol::Route)?;
    let pairs: Vec<_> = (0..PAIRS)
        .map(|number| {
            let end = VethEnd::new(name(&format!("fv{number}"))).state(LinkState::Up);
            create_veth(&end, &VethEnd::new(name(&format!("eth{number}"))).namespace(slots.as_fd()))
        })
        .collect();
    let outcomes = near.run_all(&pairs)?;
    assert_eq!((outcomes.len(), outcomes.iter().filter(|outcome| outcome.is_ok()).count()), (PAIRS, PAIRS));
    assert_eq!(near.links()?.len(), PAIRS + 1, "with lo");
    assert_eq!(far.links()?.len(), PAIRS + 1, "with lo");

    let links = near.links()?;
    let routes: Vec<_> = (0..PAIRS)
        .map(|number| {
            let link = links.iter().find(|link| link.name == format!("fv{number}")).context("made")?;
            let address = Ipv4Addr::from(0x0a30_0000 + u32::try_from(number)?);
            Ok(Route::device(Subnet::host(address.into()), link.index).add())
        })
        .collect::<Result<_>>()?;
    assert!(near.run_all(&routes)?.iter().all(Result::is_ok));
    assert_eq!(near.routes()?.iter().filter(|route| route.destination.prefix_bits() == 32).count(), PAIRS);
    Ok(())
}

#[test]
fn a_numbered_pair_gets_all_it_needs_in_one_send() -> Result<()> {
    let (Some(host), Some(slot)) = (Namespace::new()?, Namespace::new()?) else { return Ok(()) };
    let mut near = host.connect(Protocol::Route)?;
    let index = LinkIndex::new(7001).context("a number")?;
    let address = "10.48.0.1".parse()?;
    let outer = VethEnd::new(name("fv1")).index(index).state(LinkState::Up);
    let inner = VethEnd::new(name("eth0")).index(index).mac(MAC).namespace(slot.as_fd());
    let requests = [
        create_veth(&outer, &inner),
        LinkAddress::host(index, "169.254.1.1".parse()?).add(),
        Route::device(Subnet::host(address), index).add(),
        Neighbour::permanent(index, address, MAC).set(),
        create_veth(&outer, &inner),
    ];
    let outcomes = near.run_all(&requests)?;
    let errors: Vec<_> =
        outcomes.iter().map(|outcome| outcome.as_ref().err().map(|error| error.errno)).collect();
    assert_eq!(errors, [None, None, None, None, Some(Errno::EXIST)]);
    assert_eq!(near.link(index)?.context("made")?.name, "fv1");
    assert_eq!(slot.connect(Protocol::Route)?.link(index)?.context("made")?.name, "eth0");
    let other = create_veth(&VethEnd::new(name("fv2")).index(index), &VethEnd::new(name("fv3")));
    assert_eq!(near.run(&other).expect_err("the number is taken").kernel_errno(), Some(Errno::EXIST));
    Ok(())
}

#[test]
fn each_request_has_its_own_outcome() -> Result<()> {
    let Some(host) = Namespace::new()? else { return Ok(()) };
    let mut near = host.connect(Protocol::Route)?;
    let pair = |a: &str, b: &str| create_veth(&VethEnd::new(name(a)), &VethEnd::new(name(b)));
    let outcomes = near.run_all(&[pair("a", "b"), pair("c", "a"), pair("d", "e"), delete_link(name("x"))])?;
    let errors: Vec<_> =
        outcomes.iter().map(|outcome| outcome.as_ref().err().map(|error| error.errno)).collect();
    assert_eq!(errors, [None, Some(Errno::EXIST), None, Some(Errno::NODEV)]);
    let mut names: Vec<_> = near.links()?.into_iter().map(|link| link.name).collect();
    names.sort();
    assert_eq!(names, ["a", "b", "d", "e", "lo"]);
    Ok(())
}

#[test]
fn a_thousand_refusals_are_all_told() -> Result<()> {
    let Some(host) = Namespace::new()? else { return Ok(()) };
    let mut near = host.connect(Protocol::Route)?;
    let requests = vec![delete_link(name("nothing")); 1000];
    let outcomes = near.run_all(&requests)?;
    assert_eq!(outcomes.len(), 1000);
    for outcome in outcomes {
        assert_eq!(outcome.expect_err("there is nothing").errno, Errno::NODEV);
    }
    Ok(())
}

#[test]
fn nothing_at_all_is_done_at_once() -> Result<()> {
    let Some(host) = Namespace::new()? else { return Ok(()) };
    assert_eq!(host.connect(Protocol::Route)?.run_all(&[])?, []);
    Ok(())
}

#[test]
fn a_listing_that_was_given_up_is_not_taken_for_the_next() -> Result<()> {
    let Some(host) = Namespace::new()? else { return Ok(()) };
    let mut near = host.connect(Protocol::Route)?;
    let pairs: Vec<_> = (0..60)
        .map(|number| {
            let end = |side: &str| VethEnd::new(name(&format!("{side}{number}")));
            create_veth(&end("a"), &end("b"))
        })
        .collect();
    assert!(near.run_all(&pairs)?.iter().all(Result::is_ok));
    // Links, many datagrams of them, of which only the first is read.
    let mut body = Writer::new();
    body.fixed(&[0; 16]);
    let request = Request::new(Protocol::Route, 18, 0, "list links in vain", body);
    let error = near.dump::<()>(&request, |_| Err(DecodeError::HeaderCut { left: 0 })).expect_err("given up");
    assert!(matches!(error, NetlinkError::Decode { what: "list links in vain", .. }), "{error}");
    assert_eq!(near.links()?.len(), 2 * 60 + 1, "with lo");
    near.dump::<()>(&request, |_| Err(DecodeError::HeaderCut { left: 0 })).expect_err("given up");
    assert_eq!(near.run_all(&[delete_link(name("a0")), delete_link(name("none"))])?.len(), 2);
    assert_eq!(near.links()?.len(), 2 * 59 + 1, "with lo");
    Ok(())
}
