//! What `faaster doctor` says of the network: tried rather than asked, and nothing of it stays.
//!
//! Owns: one check for each thing that a container's network needs. Must not know: who asks.

use faaster_netlink::nftables::{
    Base, Chain, ChainKind, Family, Hook, Policy, Rule, Sense, Table, Transaction,
};
use faaster_netlink::{Connection, LinkName, NetlinkError, Protocol, VethEnd, create_veth, delete_link};

use super::choose::choose;
use super::host::{self, Host};
use super::prepare::{NetworkRequest, V6, no_servers, resolve};
use super::wirer::foreign_drops;
use crate::notice::with_causes;
use crate::probe::{Check, Outcome};

/// Tries everything.
pub fn examine(request: &NetworkRequest) -> Vec<Check> {
    let mut checks = vec![check("network links", links()), check("network rules", rules())];
    match Connection::open(Protocol::Route).and_then(|mut connection| Host::read(&mut connection)) {
        Ok(host) => {
            checks.extend([
                check("network subnet", subnet(request, &host)),
                check("network forwarding", forwarding()),
                check("network ipv6", ipv6(request, &host)),
            ]);
        }
        Err(error) => checks.push(check("network subnet", Outcome::Degraded(with_causes(&error)))),
    }
    checks.push(check("network dns", dns(request)));
    checks.extend(foreign().into_iter().map(|sentence| check("network policy", Outcome::Degraded(sentence))));
    checks
}

fn check(name: &str, outcome: Outcome) -> Check {
    Check { name: name.to_owned(), outcome }
}

fn links() -> Outcome {
    match try_links() {
        Ok(()) => Outcome::Ok("veth pairs can be made".to_owned()),
        Err(error) => Outcome::Degraded(format!(
            "functions have their loopback alone: {}; this needs CAP_NET_ADMIN and the kernel module veth",
            with_causes(&error)
        )),
    }
}

fn try_links() -> Result<(), NetlinkError> {
    let mut connection = Connection::open(Protocol::Route)?;
    let id = rustix::process::getpid().as_raw_nonzero();
    let end = |side: &str| LinkName::new(&format!("fsp{id}{side}")).expect("a pid has at most 7 digits");
    connection.run(&create_veth(&VethEnd::new(end("a")), &VethEnd::new(end("b"))))?;
    connection.run(&delete_link(end("a")))
}

fn rules() -> Outcome {
    match try_rules() {
        Ok(()) => Outcome::Ok("nftables with nat, fib, masquerade and reject".to_owned()),
        Err(error) => Outcome::Degraded(format!(
            "functions have their loopback alone: {error}; this needs CAP_NET_ADMIN and nf_tables with nft_chain_nat, nft_fib_inet, \
             nft_masq, nft_reject_inet and nft_ct"
        )),
    }
}

/// Makes and removes a table in one transaction: it never is.
fn try_rules() -> Result<(), String> {
    let name = format!("faaster-probe-{}", rustix::process::getpid().as_raw_nonzero());
    let table = Table::new(Family::Inet, name.parse().expect("letters, digits and dashes"));
    let base = |hook, priority| Base { hook, priority, policy: Policy::Accept };
    let named = |text: &str| text.parse().expect("a name");
    let filter = Chain::base(&table, &named("filter"), ChainKind::Filter, base(Hook::Forward, 0));
    let nat = Chain::base(&table, &named("nat"), ChainKind::Nat, base(Hook::Postrouting, 100));
    let mut transaction = Transaction::new();
    transaction.add_table(&table);
    transaction.add_chain(&filter);
    transaction.add_chain(&nat);
    transaction.add_rule(&filter, &Rule::new().source_is_reached_by_link_in(Sense::IsNot).count().reject());
    transaction.add_rule(&nat, &Rule::new().masquerade());
    transaction.delete_table(&table);
    let mut connection = Connection::open(Protocol::Netfilter).map_err(|error| with_causes(&error))?;
    connection.commit(&transaction).map_err(|error| with_causes(&error))
}

fn subnet(request: &NetworkRequest, host: &Host) -> Outcome {
    match choose(request.subnet.map(|net| net.0), &host.taken()) {
        Ok(choice) => Outcome::Ok(choice.subnet.to_string()),
        Err(error) => Outcome::Missing(error.to_string()),
    }
}

fn forwarding() -> Outcome {
    let path = "/proc/sys/net/ipv4/ip_forward";
    if host::forwards_v4() {
        return Outcome::Ok("this host passes IPv4 packets on".to_owned());
    }
    // Opened for writing, not written.
    match std::fs::OpenOptions::new().write(true).open(path) {
        Ok(_) => {
            Outcome::Ok("this host passes no packets on; the engine lets it do so for containers".to_owned())
        }
        Err(error) => Outcome::Degraded(format!(
            "functions cannot reach the world: {path} is 0 and cannot be set ({error}); set net.ipv4.ip_forward=1 on the host \
             (docker run --sysctl net.ipv4.ip_forward=1)"
        )),
    }
}

fn ipv6(request: &NetworkRequest, host: &Host) -> Outcome {
    if request.v6 == V6::Off {
        Outcome::Ok("off, as configured".to_owned())
    } else if !host::has_v6() || !host.has_default_v6() {
        Outcome::Ok("none: this host has no IPv6 default route".to_owned())
    } else if !host::forwards_v6() && host::forwarding_loses_v6() {
        Outcome::Degraded(
            "none: the default route comes from a router's advertisements, which a host that passes packets on no longer heeds; \
             set net.ipv6.conf.<link>.accept_ra=2"
                .to_owned(),
        )
    } else {
        Outcome::Ok("containers have it, with the host's address in the world".to_owned())
    }
}

fn dns(request: &NetworkRequest) -> Outcome {
    let found = resolve(&request.dns, None);
    if found.servers.is_empty() {
        return Outcome::Degraded(no_servers());
    }
    let servers: Vec<String> = found.servers.iter().map(ToString::to_string).collect();
    Outcome::Ok(format!("{} (from {})", servers.join(", "), found.source))
}

fn foreign() -> Vec<String> {
    let chains = Connection::open(Protocol::Netfilter).and_then(|mut connection| connection.chains());
    let mut told = foreign_drops(&chains.unwrap_or_default());
    let legacy = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if legacy.lines().any(|table| table == "filter") {
        told.push(
            "iptables-legacy has a filter table, whose policy cannot be seen from here: if functions do not reach the world, \
             see `iptables-legacy -S FORWARD`"
                .to_owned(),
        );
    }
    told
}
