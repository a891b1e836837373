//! The network of containers that are made for a claim that waits, and of those that are made ahead.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;

use faaster_netlink::{Connection, Protocol};
use faaster_protocol::funclet::{Claim, NetworkMode, Request};
use faaster_sys::clone3::unshare_network;
use faaster_sys::mount::unshare_mounts;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind_recursive, unmount};

use crate::claims::end;
use crate::support::{Instance, Node, Options, can_run, eventually, provided};

fn in_proc(instance: &Instance, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{file}", instance.pid))
}

pub(crate) fn namespace(instance: &Instance) -> PathBuf {
    std::fs::read_link(in_proc(instance, "ns/net")).unwrap()
}

/// Its namespace is its own, its loopback answers, its link has an address.
pub(crate) fn assert_wired(instance: &Instance) {
    let ours = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    assert_ne!(namespace(instance), ours);
    let links = std::fs::read_to_string(in_proc(instance, "net/dev")).unwrap();
    let names: Vec<&str> =
        links.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).collect();
    assert_eq!(names, ["lo", "eth0"], "{links}");
    let addresses = std::fs::read_to_string(in_proc(instance, "net/fib_trie")).unwrap();
    assert!(addresses.contains("127.0.0.1"), "the loopback is down: {addresses}");
    assert!(has_way_out(instance), "no way out");
}

pub(crate) fn has_way_out(instance: &Instance) -> bool {
    let routes = std::fs::read_to_string(in_proc(instance, "net/route")).unwrap();
    routes.lines().any(|line| line.starts_with("eth0\t00000000\t"))
}

/// Its IPv4 address.
pub(crate) fn address(instance: &Instance) -> Ipv4Addr {
    let text = std::fs::read_to_string(in_proc(instance, "net/fib_trie")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut hosts = lines.windows(2).filter(|pair| pair[1].contains("/32 host LOCAL"));
    let found = hosts.find_map(|pair| {
        let address: Ipv4Addr = pair[0].trim().strip_prefix("|-- ")?.parse().ok()?;
        (!address.is_loopback()).then_some(address)
    });
    found.unwrap_or_else(|| panic!("no address: {text}"))
}

/// How many flows the kernel tracks with an address.
fn flows_of(netfilter: &mut Connection, address: Ipv4Addr) -> usize {
    let of = |flow: &IpAddr| *flow == IpAddr::V4(address);
    let flows = netfilter.flows().unwrap();
    flows.iter().filter(|flow| of(&flow.original.source) || of(&flow.reply.source)).count()
}

/// From here on /sys shows the links of the network namespace that this thread is in; the cgroups stay below it.
fn show_own_links() {
    const CGROUPS: &str = "/sys/fs/cgroup";
    let aside = tempfile::tempdir().unwrap();
    unshare_mounts().unwrap();
    mount_bind_recursive(CGROUPS, aside.path()).unwrap();
    mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None).unwrap();
    mount_bind_recursive(aside.path(), CGROUPS).unwrap();
    unmount(aside.path(), UnmountFlags::DETACH).unwrap();
}

/// The groups of the links of all containers, by name.
pub(crate) fn groups() -> Vec<u32> {
    let mut links = Connection::open(Protocol::Route).unwrap().links().unwrap();
    links.sort_by_key(|link| link.index);
    links.iter().filter(|link| link.name.starts_with("faas")).map(|link| link.group).collect()
}

#[test]
fn a_claim_puts_its_link_into_the_group_of_its_mode() {
    if !can_run() {
        return;
    }
    unshare_network().unwrap();
    // First /sys shows the links of another namespace, where the groups of ours cannot be written.
    for own_sysfs in [false, true] {
        if own_sysfs {
            show_own_links();
            assert!(std::fs::exists("/sys/class/net/lo").unwrap());
        }
        let modes = [
            (NetworkMode::None, 0x0faa_5700),
            (NetworkMode::Egress, 0x0faa_5701),
            (NetworkMode::Full, 0x0faa_5702),
        ];
        for (mode, group) in modes {
            let mut node = Node::start(Options {
                pool: 0,
                network: Some(NetworkMode::Egress),
                runtimes: vec![provided()],
                ..Options::default()
            });
            let code = node.code(1, &[("bootstrap", "")]);
            let claim = Claim { network: Some(mode), ..node.engine.claim_request(0, code) };
            let instance = node.engine.claim_with(claim);
            assert_eq!(groups(), [group], "{mode:?}, own sysfs: {own_sysfs}");
            drop(instance);
            assert_eq!(node.stop(), 0);
            // The kernel takes a namespace apart, with its links, some time after its last process.
            eventually("the container's link is gone", || groups().is_empty());
        }
    }
}

#[test]
fn nobody_inherits_the_flows_of_an_address() {
    if !can_run() {
        return;
    }
    unshare_network().unwrap();
    // Six addresses for two slots: each is given a second time after three lives of its slot.
    let mut node = Node::start(Options {
        pool: 0,
        network: Some(NetworkMode::Egress),
        subnet: Some("10.77.13.0/29".parse().unwrap()),
        slots_max: 2,
        runtimes: vec![provided()],
        ..Options::default()
    });
    let code = node.code(1, &[("bootstrap", "")]);
    let mut netfilter = Connection::open(Protocol::Netfilter).unwrap();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let stays = node.engine.claim(0, code);
    let stays_at = address(&stays);
    socket.send_to(b"x", (stays_at, 9)).unwrap();
    assert_eq!(flows_of(&mut netfilter, stays_at), 1);
    let mut given = HashSet::new();
    let mut again = 0;
    for _ in 0..10 {
        let instance = node.engine.claim(0, code);
        let at = address(&instance);
        again += usize::from(!given.insert(at));
        assert_eq!(flows_of(&mut netfilter, at), 0, "{at} has an earlier container's flow");
        socket.send_to(b"x", (at, 9)).unwrap();
        assert_eq!(flows_of(&mut netfilter, at), 1);
        node.engine.kill(&instance);
        end(&mut node.engine, &instance);
    }
    assert_eq!((given.len(), again), (3, 7));
    assert_eq!(flows_of(&mut netfilter, stays_at), 1, "a living container keeps its flows");
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_container_made_for_a_claim_has_a_network_as_a_pooled_one_has() {
    if !can_run() {
        return;
    }
    // Links and rules are nobody else's then; the funclet is made by this thread.
    unshare_network().unwrap();
    for pool in [0, 1] {
        let mut node = Node::start(Options {
            pool,
            network: Some(NetworkMode::Egress),
            runtimes: vec![provided()],
            ..Options::default()
        });
        let code = node.code(1, &[("bootstrap", "")]);
        let mut instances = Vec::new();
        for _ in 0..3 {
            let instance = node.engine.claim(0, code);
            assert_wired(&instance);
            instances.push(instance);
        }
        // Claims that come together: for all but one the thread that makes links has no time to make namespaces.
        let claims: Vec<_> = (0..4).map(|_| node.engine.claim_request(0, code)).collect();
        claims.iter().for_each(|claim| node.engine.send(&Request::Claim(*claim)));
        for claim in claims {
            instances.push(node.engine.expect_claimed(claim.ticket));
        }
        for (at, instance) in instances.iter().enumerate() {
            assert_wired(instance);
            let others = instances.iter().skip(at + 1);
            assert!(others.into_iter().all(|other| namespace(other) != namespace(instance)));
        }
        assert_eq!(node.stop(), 0);
    }
}

/// Network namespaces that a process holds open, its own aside.
pub(crate) fn held_namespaces(pid: u32) -> HashSet<PathBuf> {
    let own = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    targets.filter(|target| *target != own && target.to_string_lossy().starts_with("net:[")).collect()
}

#[test]
fn a_namespace_is_ready_for_the_next_claim_that_waits_for_its_container() {
    if !can_run() {
        return;
    }
    if rustix::thread::sched_getaffinity(None).unwrap().count() < 2 {
        eprintln!("skipped: with one processor namespaces are not made beside their containers");
        return;
    }
    unshare_network().unwrap();
    let mut node = Node::start(Options {
        pool: 0,
        network: Some(NetworkMode::Egress),
        runtimes: vec![provided()],
        ..Options::default()
    });
    let code = node.code(1, &[("bootstrap", "")]);
    let funclet = node.funclet_pid();
    assert_eq!(held_namespaces(funclet), HashSet::new(), "nobody has wanted one");
    let mut instances = vec![node.engine.claim(0, code)];
    // Whether a claim's namespace is made ahead is for the funclet's threads to say: one that is late makes its own.
    let mut is_used = false;
    for _ in 0..10 {
        let used: HashSet<PathBuf> = instances.iter().map(namespace).collect();
        eventually("the next namespace is there", || held_namespaces(funclet).difference(&used).count() == 1);
        let ready: HashSet<PathBuf> = held_namespaces(funclet).difference(&used).cloned().collect();
        let instance = node.engine.claim(0, code);
        assert_wired(&instance);
        is_used |= ready.contains(&namespace(&instance));
        assert!(!used.contains(&namespace(&instance)), "nobody has had it");
        instances.push(instance);
        if is_used {
            break;
        }
    }
    assert!(is_used, "a claim gets the namespace that is ready");
    assert_eq!(node.stop(), 0);
}
