//! The table of rules: what containers reach by mode, that they cannot pretend to be others, and whose address they have
//! in the world.
//!
//! Owns: the table's content and name. Must not know: when it is written. Pure.
//!
//! Nothing in it stands for a single container: links are told by their names' beginning and by their group.
//! ```text
//! before   a source address whose answers would not go back to the same link is dropped (forged)
//! forward  containers do not meet; answers pass; to a container nobody begins; from one: by its link's group to `egress` or `full`, else dropped
//! local    the same for what is meant for this host itself
//! after    containers have the host's address in the world
//! ```
//! A refusal is told (ICMP: prohibited), so that a function fails at once instead of waiting.

use std::net::IpAddr;

use faaster_netlink::nftables::{
    Base, Chain, ChainKind, ConnectionState, Element, Family, Hook, LinkPattern, Name, Policy, Rule, Sense,
    Set, SetKey, SetKind, Table, Transaction, Transport, Verdict,
};
use faaster_netlink::{LinkName, Subnet};
use faaster_protocol::funclet::NetworkMode;

use super::choose::{by_kind, closed_to_all, closed_to_egress};
use super::plan::{LINK_PREFIX, link_prefix};
use super::{NetworkConfig, Opened};
use crate::config::{CGROUP_PREFIX, FuncletConfig, InstanceId, instance_of_cgroup};

/// Priority before connections are tracked (`NF_IP_PRI_RAW`): what is forged leaves no trace there.
const PRIORITY_RAW: i32 = -300;
/// `NF_IP_PRI_FILTER` and `NF_IP_PRI_NAT_SRC`.
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SOURCE_NAT: i32 = 100;

const DNS_PORT: u16 = 53;

/// The group of links whose function has this mode.
pub(crate) fn group_of(mode: NetworkMode) -> u32 {
    // Far from the small numbers that people give.
    const FIRST: u32 = 0x0faa_5700;
    FIRST
        + match mode {
            NetworkMode::None => 0,
            NetworkMode::Egress => 1,
            NetworkMode::Full => 2,
        }
}

/// The table of one funclet, named like its cgroup.
pub(crate) fn table_of(config: &FuncletConfig) -> Table {
    Table::new(Family::Inet, named(&config.cgroup_name()))
}

/// The instance whose table has this name; `None` for other people's.
pub(crate) fn instance_of_table(chain: &Chain) -> Option<InstanceId> {
    (chain.family == Family::Inet).then(|| instance_of_cgroup(&chain.table)).flatten()
}

const _: () = assert!(CGROUP_PREFIX.len() + 8 + 4 <= 128, "a table's name has at most 128 bytes");

fn named(text: &str) -> Name {
    text.parse().expect("names of ours are letters, digits and dashes, beginning with a letter")
}

fn links(prefix: &str) -> LinkPattern {
    LinkPattern::prefix(LinkName::new(prefix).expect("prefixes of ours are short"))
}

/// What the rules depend on beside the settings; when it changes they are written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// Subnets that the host has addresses in.
    pub networks: Vec<Subnet>,
    /// What must not be passed on although we opened the way: nothing once the host passes everything on anyway.
    pub guarded: Opened,
}

/// Names of our chains that packets meet by themselves, by which the table is known to be there.
pub(crate) const BASE_CHAINS: [&str; 4] = ["before", "forward", "local", "after"];

/// A chain without rules whose name says that its engine opened this link, or IPv6: so another engine knows that it was no
/// person, and keeps the way open and guarded when that engine ends.
const MARK_LINK: &str = "opened-";
const MARK_V6: &str = "opened6";

/// What other engines on this host have opened.
pub(crate) fn opened_by_others(chains: &[Chain]) -> Opened {
    let mut opened = Opened::default();
    for chain in chains.iter().filter(|chain| instance_of_table(chain).is_some()) {
        if chain.name == MARK_V6 {
            opened.v6 = true;
        } else if let Some(link) = chain.name.strip_prefix(MARK_LINK) {
            opened.links.push(link.to_owned());
        }
    }
    opened
}

/// Writes a table.
struct Writer<'a> {
    settings: &'a NetworkConfig,
    table: &'a Table,
    own: LinkPattern,
    /// Containers of any engine on this host.
    any: LinkPattern,
    out: Transaction,
}

/// Destination sets, IPv4 and IPv6.
struct Pair(Set, Set);

/// The transaction that makes the table what it should be, whatever it was.
pub(crate) fn transaction(
    table: &Table,
    instance: &InstanceId,
    settings: &NetworkConfig,
    surroundings: &Surroundings,
) -> Transaction {
    let (own, any) = (links(&link_prefix(instance)), links(LINK_PREFIX));
    let mut writer = Writer { settings, table, own, any, out: Transaction::new() };
    writer.out.replace_table(table);
    let own_nets: Vec<Subnet> =
        [Some(settings.v4), settings.v6].into_iter().flatten().map(|net| net.0).collect();
    let egress = writer.subnets("egress", closed_to_egress(&surroundings.networks, &own_nets));
    let full = writer.subnets("full", closed_to_all(&own_nets));
    let resolvers = writer.addresses("resolvers", &settings.resolvers);
    writer.before();
    let outwards = [
        (NetworkMode::Egress, writer.outward("egress", &egress, &resolvers)),
        (NetworkMode::Full, writer.outward("full", &full, &resolvers)),
    ];
    let inwards = [
        (NetworkMode::Egress, writer.inward_egress(&resolvers)),
        (NetworkMode::Full, writer.inward_full(&full, &resolvers)),
    ];
    writer.forward(&outwards, &surroundings.guarded);
    writer.local(&inwards);
    writer.after(&own_nets);
    writer.mark(&settings.opened);
    writer.out
}

impl Writer<'_> {
    fn base(&mut self, name: &str, kind: ChainKind, hook: Hook, priority: i32) -> Chain {
        let chain =
            Chain::base(self.table, &named(name), kind, Base { hook, priority, policy: Policy::Accept });
        self.out.add_chain(&chain);
        chain
    }

    fn chain(&mut self, name: &str) -> (Chain, Name) {
        let name = named(name);
        let chain = Chain::new(self.table, &name);
        self.out.add_chain(&chain);
        (chain, name)
    }

    fn set(&mut self, name: &str, key: SetKey, kind: SetKind, elements: &[Element]) -> Set {
        let set = Set::new(self.table, named(name), key, kind);
        self.out.add_set(&set);
        self.out.add_elements(&set, elements).expect("elements are split by their kind");
        set
    }

    fn subnets(&mut self, name: &str, subnets: Vec<Subnet>) -> Pair {
        let (v4, v6) = by_kind(subnets);
        let elements = |subnets: Vec<Subnet>| subnets.into_iter().map(Element::Subnet).collect::<Vec<_>>();
        Pair(
            self.set(&format!("{name}4"), SetKey::V4, SetKind::Subnets, &elements(v4)),
            self.set(&format!("{name}6"), SetKey::V6, SetKind::Subnets, &elements(v6)),
        )
    }

    fn addresses(&mut self, name: &str, addresses: &[IpAddr]) -> Pair {
        let (mut v4, mut v6): (Vec<IpAddr>, Vec<IpAddr>) =
            addresses.iter().copied().partition(IpAddr::is_ipv4);
        // An element that comes twice is refused.
        for list in [&mut v4, &mut v6] {
            list.sort();
            list.dedup();
        }
        let elements = |list: Vec<IpAddr>| list.into_iter().map(Element::Address).collect::<Vec<_>>();
        Pair(
            self.set(&format!("{name}4"), SetKey::V4, SetKind::Values, &elements(v4)),
            self.set(&format!("{name}6"), SetKey::V6, SetKind::Values, &elements(v6)),
        )
    }

    fn out_of_own(&self) -> Rule {
        Rule::new().link_in(&self.own, Sense::Is)
    }

    fn before(&mut self) {
        let chain = self.base("before", ChainKind::Filter, Hook::Prerouting, PRIORITY_RAW);
        let forged =
            self.out_of_own().source_is_reached_by_link_in(Sense::IsNot).count().verdict(&Verdict::Drop);
        self.out.add_rule(&chain, &forged.comment("forged source"));
    }

    /// The configured servers are reached on their port wherever they are.
    fn accept_dns(&mut self, chain: &Chain, Pair(v4, v6): &Pair) {
        for set in [v4, v6] {
            for transport in [Transport::Udp, Transport::Tcp] {
                let rule = Rule::new().destination_in(set, Sense::Is).destination_port(transport, DNS_PORT);
                self.out.add_rule(chain, &rule.verdict(&Verdict::Accept));
            }
        }
    }

    fn refuse(&mut self, chain: &Chain, Pair(v4, v6): &Pair) {
        for set in [v4, v6] {
            self.out.add_rule(chain, &Rule::new().destination_in(set, Sense::Is).count().reject());
        }
    }

    fn outward(&mut self, name: &str, closed: &Pair, resolvers: &Pair) -> Name {
        let (chain, name) = self.chain(name);
        self.accept_dns(&chain, resolvers);
        self.refuse(&chain, closed);
        self.out.add_rule(&chain, &Rule::new().verdict(&Verdict::Accept));
        name
    }

    fn inward_egress(&mut self, resolvers: &Pair) -> Name {
        let (chain, name) = self.chain("egress-local");
        self.accept_dns(&chain, resolvers);
        self.out.add_rule(&chain, &Rule::new().count().reject().comment("services of this host"));
        name
    }

    fn inward_full(&mut self, closed: &Pair, resolvers: &Pair) -> Name {
        let (chain, name) = self.chain("full-local");
        self.accept_dns(&chain, resolvers);
        for port in &self.settings.closed_ports {
            let rule = Rule::new().destination_port(Transport::Tcp, *port).count().reject();
            self.out.add_rule(&chain, &rule.comment("the engine itself"));
        }
        self.refuse(&chain, closed);
        self.out.add_rule(&chain, &Rule::new().verdict(&Verdict::Accept));
        name
    }

    fn by_group(&mut self, chain: &Chain, targets: &[(NetworkMode, Name)]) {
        for (mode, target) in targets {
            let rule = self.out_of_own().link_group_in(group_of(*mode), Sense::Is);
            self.out.add_rule(chain, &rule.verdict(&Verdict::Goto(target.clone())));
        }
        let rest = self.out_of_own().count().verdict(&Verdict::Drop);
        self.out.add_rule(chain, &rest.comment("mode none"));
    }

    fn forward(&mut self, outwards: &[(NetworkMode, Name)], guarded: &Opened) {
        let chain = self.base("forward", ChainKind::Filter, Hook::Forward, PRIORITY_FILTER);
        // Before the answers: also what began while somebody had flushed the rules ends here.
        let meeting = self.out_of_own().link_out(&self.any, Sense::Is).count().reject();
        self.out.add_rule(&chain, &meeting.comment("containers do not meet"));
        let answers = Rule::new().connection(ConnectionState::EstablishedOrRelated);
        self.out.add_rule(&chain, &answers.verdict(&Verdict::Accept));
        let inwards = Rule::new().link_out(&self.own, Sense::Is).count().verdict(&Verdict::Drop);
        self.out.add_rule(&chain, &inwards.comment("nobody begins with a container"));
        self.by_group(&chain, outwards);
        // We opened the way for containers alone.
        for link in &guarded.links {
            let Ok(link) = LinkName::new(link) else { continue };
            let rule = Rule::new()
                .source(Subnet::ALL_V4, Sense::Is)
                .link_in(&LinkPattern::Name(link), Sense::Is)
                .link_out(&self.any, Sense::IsNot);
            let rule = rule.count().verdict(&Verdict::Drop).comment("this host is no router");
            self.out.add_rule(&chain, &rule);
        }
        if guarded.v6 {
            let rule = Rule::new()
                .source(Subnet::ALL_V6, Sense::Is)
                .link_in(&self.any, Sense::IsNot)
                .link_out(&self.any, Sense::IsNot);
            let rule = rule.count().verdict(&Verdict::Drop).comment("this host is no router");
            self.out.add_rule(&chain, &rule);
        }
    }

    fn local(&mut self, inwards: &[(NetworkMode, Name)]) {
        let chain = self.base("local", ChainKind::Filter, Hook::Input, PRIORITY_FILTER);
        let answers = self.out_of_own().connection(ConnectionState::EstablishedOrRelated);
        self.out.add_rule(&chain, &answers.verdict(&Verdict::Accept));
        self.by_group(&chain, inwards);
    }

    fn mark(&mut self, opened: &Opened) {
        let links = opened.links.iter().map(|link| format!("{MARK_LINK}{link}"));
        for name in links.chain(opened.v6.then(|| MARK_V6.to_owned())) {
            // A link's name may hold what a chain's may not; then the link has no mark.
            if let Ok(name) = name.parse() {
                self.out.add_chain(&Chain::new(self.table, &name));
            }
        }
    }

    fn after(&mut self, own: &[Subnet]) {
        let chain = self.base("after", ChainKind::Nat, Hook::Postrouting, PRIORITY_SOURCE_NAT);
        for subnet in own {
            let rule = Rule::new().source(*subnet, Sense::Is).link_out(&self.any, Sense::IsNot).masquerade();
            self.out.add_rule(&chain, &rule);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_other_engines_are_read_and_nobody_elses() {
        let chain = |table: &str, name: &str| Chain {
            family: Family::Inet,
            table: table.into(),
            name: name.into(),
            base: None,
            kind: String::new(),
        };
        let ours = "faaster-0123abcd-0";
        let chains = [
            chain(ours, "opened-eth0"),
            chain(ours, "forward"),
            chain("theirs", "opened-eth1"),
            chain(ours, "opened6"),
        ];
        let expected = Opened { links: vec!["eth0".into()], v6: true };
        assert_eq!(opened_by_others(&chains), expected);
        assert_eq!(opened_by_others(&chains[1..3]), Opened::default());
    }

    #[test]
    fn groups_differ() {
        let groups = NetworkMode::ALL.map(group_of);
        assert!(groups.iter().all(|group| groups.iter().filter(|other| *other == group).count() == 1));
        assert!(groups.iter().all(|group| i32::try_from(*group).is_ok()), "the kernel's type is int");
    }
}
