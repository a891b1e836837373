//! Networks of ended containers: who gets them, and who does not.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;

use faaster_protocol::funclet::{Claim, CodeHash, NetworkMode, Request};
use faaster_sys::clone3::unshare_network;

use crate::claims::end;
use crate::links::{address, assert_wired, groups, has_way_out, held_namespaces, namespace};
use crate::support::{Instance, Node, Options, can_run, eventually, provided};

/// The address of every network that was seen, its namespace, and the account that had it. The subnet has more addresses
/// than any of these tests makes networks, so each network that is new has one that is new.
#[derive(Debug, Default)]
struct Seen(HashMap<Ipv4Addr, (PathBuf, u64)>);

impl Seen {
    /// The account that had an instance's network before.
    fn note(&mut self, instance: &Instance, account: u64) -> Option<u64> {
        let found = namespace(instance);
        let (before, account) = self.0.insert(address(instance), (found.clone(), account))?;
        assert_eq!(before, found, "an address stays with its namespace");
        Some(account)
    }
}

fn start(pool: u32) -> (Node, CodeHash) {
    // Links and rules are nobody else's then.
    unshare_network().unwrap();
    let node = Node::start(Options {
        pool,
        network: Some(NetworkMode::Egress),
        runtimes: vec![provided()],
        ..Options::default()
    });
    let code = node.code(1, &[("bootstrap", "")]);
    (node, code)
}

fn claim(node: &mut Node, code: CodeHash, account: u64, network: Option<NetworkMode>) -> Instance {
    let claim = Claim { account_tag: account, network, ..node.engine.claim_request(0, code) };
    node.engine.claim_with(claim)
}

fn finish(node: &mut Node, instance: &Instance) {
    node.engine.kill(instance);
    end(&mut node.engine, instance);
}

#[test]
fn an_accounts_next_container_gets_a_network_of_its_last() {
    if !can_run() {
        return;
    }
    for pool in [0, 2] {
        let (mut node, code) = start(pool);
        let mut seen = Seen::default();
        let mut again = 0;
        eventually("three networks are used again", || {
            let instance = claim(&mut node, code, 1, None);
            assert_wired(&instance);
            again += usize::from(seen.note(&instance, 1).is_some());
            finish(&mut node, &instance);
            again == 3
        });
        assert_eq!(node.stop(), 0);
    }
}

#[test]
fn a_network_goes_to_no_other_account() {
    if !can_run() {
        return;
    }
    for pool in [0, 2] {
        let (mut node, code) = start(pool);
        let mut seen = Seen::default();
        let mut next_of = |node: &mut Node, account| {
            let instance = claim(node, code, account, None);
            assert_wired(&instance);
            let before = seen.note(&instance, account);
            assert!(before.is_none_or(|before| before == account), "account {account} has one of {before:?}");
            finish(node, &instance);
            before.is_some()
        };
        // First one alone, whose networks are kept and given to prepared containers; then both.
        eventually("a network is used again", || next_of(&mut node, 1));
        for round in 0..20 {
            next_of(&mut node, 2 - round % 2);
        }
        // Together, and whatever is prepared or being made is one's: all are served.
        let claims: Vec<Claim> = (1..=8)
            .map(|at| Claim { account_tag: 1 + at % 4, ..node.engine.claim_request(0, code) })
            .collect();
        claims.iter().for_each(|claim| node.engine.send(&Request::Claim(*claim)));
        for _ in &claims {
            let (instance, ticket) = node.engine.expect_any_claimed();
            let claim = claims.iter().find(|claim| claim.ticket == ticket).unwrap();
            let before = seen.note(&instance, claim.account_tag);
            assert!(
                before.is_none_or(|before| before == claim.account_tag),
                "{claim:?} has one of {before:?}"
            );
        }
        assert_eq!(node.stop(), 0);
    }
}

#[test]
fn a_network_that_packets_have_come_through_is_not_used_again() {
    if !can_run() {
        return;
    }
    let (mut node, code) = start(0);
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let mut seen = Seen::default();
    for _ in 0..10 {
        let instance = claim(&mut node, code, 1, None);
        assert_eq!(seen.note(&instance, 1), None);
        socket.send_to(b"x", (address(&instance), 9)).unwrap();
        finish(&mut node, &instance);
    }
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_function_without_network_has_none_in_one_that_was_used_before() {
    if !can_run() {
        return;
    }
    let (mut node, code) = start(0);
    let mut last = VecDeque::new();
    eventually("a function without network gets a network that was used", || {
        let instance = claim(&mut node, code, 1, None);
        assert!(has_way_out(&instance));
        // Held, so that its number stays its own; few, for a funclet is started with low numbers of descriptors.
        let file = File::open(format!("/proc/{}/ns/net", instance.pid)).unwrap();
        last.push_front((namespace(&instance), file));
        last.truncate(8);
        finish(&mut node, &instance);
        let without = claim(&mut node, code, 1, Some(NetworkMode::None));
        assert!(!has_way_out(&without));
        let is_again = last.iter().any(|(before, _)| *before == namespace(&without));
        finish(&mut node, &without);
        is_again
    });
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_network_that_nobody_gets_goes() {
    if !can_run() {
        return;
    }
    let (mut node, code) = start(0);
    let funclet = node.funclet_pid();
    let instances: Vec<Instance> = (0..3).map(|_| claim(&mut node, code, 1, None)).collect();
    let had: HashSet<PathBuf> = instances.iter().map(namespace).collect();
    assert!(had.is_subset(&held_namespaces(funclet)));
    instances.iter().for_each(|instance| finish(&mut node, instance));
    eventually("all are let go", || held_namespaces(funclet).is_disjoint(&had));
    eventually("the links are gone", || groups().is_empty());
    assert_eq!(node.stop(), 0);
}
