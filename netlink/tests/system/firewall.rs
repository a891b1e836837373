//! nftables: a whole rule set that isolates slots, made and removed at once; what it lets through and what not.
//!
//! Owns: the rule set of the tests, packets that try it. Must not know: the encoding.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use faaster_netlink::nftables::{
    Base, Chain, ChainKind, CommitError, ConnectionState, Element, Family, Hook, LinkPattern, Name, Policy,
    Rule, Sense, Set, SetKey, SetKind, Table, Transaction, Transport, Verdict,
};
use faaster_netlink::{
    Connection, Gateway, LinkAddress, LinkChange, LinkState, Protocol, Route, Subnet, VethEnd, create_veth,
};
use rustix::io::Errno;

use crate::namespaces::{Namespace, name};

/// Longest that a packet between two namespaces of one machine may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Somebody else's rules, which must stay as they are.
const FOREIGN: &str = "table ip theirs {
	set blocked {
		type ipv4_addr
		elements = { 192.0.2.7 }
	}

	chain forward {
		type filter hook forward priority filter; policy drop;
		ip saddr @blocked drop
		counter packets 0 bytes 0 accept
	}
}
";

fn named(text: &str) -> Name {
    text.parse().expect("tests use valid names")
}

fn net(text: &str) -> Subnet {
    text.parse().expect("tests use valid subnets")
}

fn slots() -> LinkPattern {
    LinkPattern::prefix(name("fv"))
}

fn base(table: &Table, chain: &str, kind: ChainKind, hook: Hook, priority: i32) -> Chain {
    Chain::base(table, &named(chain), kind, Base { hook, priority, policy: Policy::Accept })
}

/// What a node of functions needs.
struct RuleSet {
    table: Table,
    owned: Set,
    private: Set,
    transaction: Transaction,
}

fn rule_set() -> Result<RuleSet> {
    let table = Table::new(Family::Inet, named("faaster"));
    let owned = Set::new(&table, named("owned"), SetKey::LinkAndV4, SetKind::Values);
    let private = Set::new(&table, named("private"), SetKey::V4, SetKind::Subnets);
    let modes = Set::new(&table, named("modes"), SetKey::Link, SetKind::Verdicts);
    let egress = Chain::new(&table, &named("egress"));
    let forward = base(&table, "forward", ChainKind::Filter, Hook::Forward, 0);
    let input = base(&table, "input", ChainKind::Filter, Hook::Input, 0);
    let post = base(&table, "post", ChainKind::Nat, Hook::Postrouting, 100);

    let mut all = Transaction::new();
    all.replace_table(&table);
    for set in [&owned, &private, &modes] {
        all.add_set(set);
    }
    for chain in [&egress, &forward, &input, &post] {
        all.add_chain(chain);
    }
    all.add_elements(
        &private,
        &["10.0.0.0/8", "169.254.0.0/16", "240.0.0.0/4"].map(|text| Element::Subnet(net(text))),
    )?;
    let from_slot = || Rule::new().link_in(&slots(), Sense::Is);
    all.add_rule(&egress, &Rule::new().destination_in(&private, Sense::Is).count().reject());
    all.add_rule(&egress, &Rule::new().verdict(&Verdict::Accept));
    all.add_rule(
        &forward,
        &from_slot().link_in_and_source_in(&owned, Sense::IsNot).count().verdict(&Verdict::Drop),
    );
    all.add_rule(
        &forward,
        &from_slot().source_is_reached_by_link_in(Sense::IsNot).count().verdict(&Verdict::Drop),
    );
    let established = Rule::new().connection(ConnectionState::EstablishedOrRelated);
    all.add_rule(&forward, &established.clone().verdict(&Verdict::Accept));
    all.add_rule(
        &forward,
        &from_slot()
            .link_out(&slots(), Sense::Is)
            .count()
            .verdict(&Verdict::Drop)
            .comment("slots do not meet"),
    );
    all.add_rule(&forward, &Rule::new().verdict_by_link_in(&modes));
    all.add_rule(&forward, &from_slot().verdict(&Verdict::Drop));
    all.add_rule(&input, &established.verdict(&Verdict::Accept));
    all.add_rule(&input, &from_slot().destination_is_local(Sense::Is).count().verdict(&Verdict::Drop));
    let from = Rule::new().source(net("10.48.0.0/16"), Sense::Is);
    all.add_rule(&post, &from.link_out(&slots(), Sense::IsNot).masquerade());
    all.add_elements(&modes, &[Element::LinkVerdict(name("fv1"), Verdict::Jump(named("egress")))])?;
    all.add_elements(&owned, &[Element::LinkAndAddress(name("fv1"), "10.48.0.1".parse()?)])?;
    Ok(RuleSet { table, owned, private, transaction: all })
}

const EXPECTED: &str = "table inet faaster {
	set owned {
		type ifname . ipv4_addr
		elements = { \"fv1\" . 10.48.0.1 }
	}

	set private {
		type ipv4_addr
		flags interval
		elements = { 10.0.0.0/8, 169.254.0.0/16,
			     240.0.0.0/4 }
	}

	map modes {
		type ifname : verdict
		elements = { \"fv1\" : jump egress }
	}

	chain egress {
		ip daddr @private counter packets 0 bytes 0 reject with icmpx admin-prohibited
		accept
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname \"fv*\" iifname . ip saddr != @owned counter packets 0 bytes 0 drop
		iifname \"fv*\" fib saddr . iif oif missing counter packets 0 bytes 0 drop
		ct state established,related accept
		iifname \"fv*\" oifname \"fv*\" counter packets 0 bytes 0 drop comment \"slots do not meet\"
		iifname vmap @modes
		iifname \"fv*\" drop
	}

	chain input {
		type filter hook input priority filter; policy accept;
		ct state established,related accept
		iifname \"fv*\" fib daddr type local counter packets 0 bytes 0 drop
	}

	chain post {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.48.0.0/16 oifname != \"fv*\" masquerade
	}
}
";

fn rules(host: &Namespace) -> Result<String> {
    host.output(&["nft", "list", "ruleset"])
}

/// A namespace with somebody else's rules in it; none where there is no tool to make and show them.
fn with_foreign_rules() -> Result<Option<(Namespace, Connection)>> {
    let Some(host) = Namespace::new()? else { return Ok(None) };
    if std::process::Command::new("nft").arg("--version").output().is_err() {
        eprintln!("skipped: the tool nft is not installed");
        return Ok(None);
    }
    host.output(&["nft", FOREIGN])?;
    assert_eq!(rules(&host)?, FOREIGN);
    let connection = host.connect(Protocol::Netfilter)?;
    Ok(Some((host, connection)))
}

#[test]
fn a_rule_set_comes_and_goes_and_leaves_others_alone() -> Result<()> {
    let Some((host, mut nft)) = with_foreign_rules()? else { return Ok(()) };
    let ours = rule_set()?;
    nft.commit(&ours.transaction)?;
    assert_eq!(rules(&host)?, format!("{FOREIGN}{EXPECTED}"));
    // Once more: what was there is replaced.
    nft.commit(&ours.transaction)?;
    assert!(rules(&host)?.ends_with(EXPECTED));
    let mut removal = Transaction::new();
    removal.remove_table(&ours.table);
    nft.commit(&removal)?;
    assert_eq!(rules(&host)?, FOREIGN);
    nft.commit(&removal).context("it may be gone already")?;
    Ok(())
}

#[test]
fn a_refused_command_leaves_all_as_it_was() -> Result<()> {
    let Some((host, mut nft)) = with_foreign_rules()? else { return Ok(()) };
    let ours = rule_set()?;
    let mut bad = ours.transaction.clone();
    let nowhere = Chain::new(&ours.table, &named("nowhere"));
    bad.add_rule(&nowhere, &Rule::new().verdict(&Verdict::Accept));
    bad.add_chain(&Chain::new(&ours.table, &named("late")));
    let error = nft.commit(&bad).expect_err("there is no such chain");
    let CommitError::Refused { number, commands, source } = error else { panic!("{error:?}") };
    assert_eq!((commands - number, source.what, source.errno), (1, "add a rule", Errno::NOENT));
    assert_eq!(source.attribute, Some(2), "the chain's name");
    assert_eq!(rules(&host)?, FOREIGN);
    nft.commit(&ours.transaction).context("the connection is as good as before")?;
    Ok(())
}

#[test]
fn many_refusals_at_once_are_one_error() -> Result<()> {
    let Some((_host, mut nft)) = with_foreign_rules()? else { return Ok(()) };
    let table = Table::new(Family::Inet, named("missing"));
    let mut bad = Transaction::new();
    for _ in 0..1500 {
        bad.delete_table(&table);
    }
    // Twice: the refusals that nobody read must not take the room of the next.
    for _ in 0..2 {
        let error = nft.commit(&bad).expect_err("there is no such table");
        assert!(matches!(error, CommitError::Refused { number: 1, commands: 1500, .. }), "{error:?}");
    }
    assert!(nft.chains()?.iter().any(|chain| chain.table == "theirs"), "the connection is as good as before");
    Ok(())
}

#[test]
fn elements_come_and_go_by_the_thousand() -> Result<()> {
    let Some((host, mut nft)) = with_foreign_rules()? else { return Ok(()) };
    let ours = rule_set()?;
    nft.commit(&ours.transaction)?;
    let elements: Vec<_> = (0..3000_u32)
        .map(|number| {
            let address = std::net::Ipv4Addr::from(0x0a31_0000 + number);
            Element::LinkAndAddress(name(&format!("fv{}", number + 2)), address.into())
        })
        .collect();
    let mut adding = Transaction::new();
    adding.add_elements(&ours.owned, &elements)?;
    nft.commit(&adding)?;
    assert!(rules(&host)?.contains("\"fv3001\" . 10.49.11.183"));
    let mut removing = Transaction::new();
    removing.delete_elements(&ours.owned, &elements)?;
    nft.commit(&removing)?;
    assert!(rules(&host)?.ends_with(EXPECTED));
    let twice = nft.commit(&removing).expect_err("they are gone");
    assert!(matches!(twice, CommitError::Refused { number: 1, .. }), "{twice:?}");

    let mut wrong = Transaction::new();
    let error =
        wrong.add_elements(&ours.private, &[Element::Address("10.0.0.1".parse()?)]).expect_err("no subnet");
    assert_eq!(
        error.to_string(),
        "Address(10.0.0.1) does not fit into the set private, which has Subnets of V4"
    );
    nft.commit(&wrong).context("it changes nothing")?;
    Ok(())
}

#[test]
fn other_peoples_chains_are_seen() -> Result<()> {
    let Some((_host, mut nft)) = with_foreign_rules()? else { return Ok(()) };
    let chains = nft.chains()?;
    assert_eq!(chains.len(), 1);
    assert_eq!(
        (chains[0].family, chains[0].table.as_str(), chains[0].name.as_str()),
        (Family::Ipv4, "theirs", "forward")
    );
    assert_eq!(chains[0].base, Some(Base { hook: Hook::Forward, priority: 0, policy: Policy::Drop }));
    Ok(())
}

#[test]
fn every_kind_of_rule_is_what_nft_reads() -> Result<()> {
    let Some((host, mut nft)) = with_foreign_rules()? else { return Ok(()) };
    let table = Table::new(Family::Inet, named("kinds"));
    let v6 = Set::new(&table, named("v6"), SetKey::V6, SetKind::Subnets);
    let links = Set::new(&table, named("links"), SetKey::LinkAndV6, SetKind::Values);
    let sink = Chain::new(&table, &named("sink"));
    let chain = Chain::new(&table, &named("all"));
    let mut all = Transaction::new();
    all.add_table(&table);
    all.add_set(&v6);
    all.add_set(&links);
    all.add_chain(&sink);
    all.add_chain(&chain);
    all.add_elements(&v6, &[Element::Subnet(net("fe80::/10")), Element::Subnet(net("ff00::/8"))])?;
    all.add_elements(&links, &[Element::LinkAndAddress(name("fv1"), "fd00::1".parse()?)])?;
    let rules_and_texts = [
        (Rule::new().source(net("fd00::/8"), Sense::IsNot), "ip6 saddr != fd00::/8"),
        (Rule::new().destination(net("10.1.2.3/32"), Sense::Is), "ip daddr 10.1.2.3"),
        (Rule::new().destination(net("10.1.2.0/23"), Sense::IsNot), "ip daddr != 10.1.2.0/23"),
        (Rule::new().source_in(&v6, Sense::IsNot), "ip6 saddr != @v6"),
        (Rule::new().link_in_and_source_in(&links, Sense::Is), "iifname . ip6 saddr @links"),
        (Rule::new().link_in(&LinkPattern::Name(name("eth0")), Sense::IsNot), "iifname != \"eth0\""),
        (Rule::new().mark(7, Sense::Is), "meta mark 0x00000007"),
        (Rule::new().link_group_in(77, Sense::Is), "iifgroup 77"),
        (Rule::new().destination_port(Transport::Udp, 53), "udp dport 53"),
        (Rule::new().connection(ConnectionState::Invalid), "ct state invalid"),
        (Rule::new().connection(ConnectionState::New), "ct state new"),
        (Rule::new().source_is_reached_by_link_in(Sense::Is), "fib saddr . iif oif exists"),
        (Rule::new().destination_is_local(Sense::IsNot), "fib daddr type != local"),
    ];
    for (rule, _) in &rules_and_texts {
        all.add_rule(&chain, &rule.clone().verdict(&Verdict::Goto(named("sink"))));
    }
    all.add_rule(&chain, &Rule::new().verdict(&Verdict::Return));
    nft.commit(&all)?;
    let listed = rules(&host)?;
    for (_, text) in &rules_and_texts {
        assert!(listed.contains(&format!("\t\t{text} goto sink\n")), "{text} is in {listed}");
    }
    assert!(listed.contains("elements = { fe80::/10,\n\t\t\t     ff00::/8 }"), "{listed}");
    assert!(listed.contains("\"fv1\" . fd00::1") && listed.contains("\t\treturn\n"), "{listed}");
    all = Transaction::new();
    all.flush_chain(&chain);
    nft.commit(&all)?;
    assert!(!rules(&host)?.contains("goto sink"));
    Ok(())
}

/// A host with two slots and a world behind it, as the engine lays them out.
struct Network {
    host: Namespace,
    slots: [Namespace; 2],
    world: Namespace,
    nft: Connection,
}

const SLOTS: [&str; 2] = ["10.48.0.1", "10.48.0.2"];
const WORLD: &str = "198.51.100.1";
const HOST: &str = "198.51.100.2";
/// An address of the world's that functions may not reach.
const PRIVATE: &str = "10.99.0.1";

fn up(connection: &mut Connection, link: &str) -> Result<faaster_netlink::LinkIndex> {
    connection.run(&LinkChange::new(name(link)).state(LinkState::Up).request())?;
    Ok(connection.link(name(link))?.context("just changed")?.index)
}

fn network() -> Result<Option<Network>> {
    let Some((host, nft)) = with_foreign_rules()? else { return Ok(None) };
    host.output(&["nft", "delete", "table", "ip", "theirs"])?;
    let spaces = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
    let (Some(first), Some(second), Some(world)) = spaces else { return Ok(None) };
    let mut near = host.connect(Protocol::Route)?;
    let router = "169.254.1.1".parse::<IpAddr>()?;
    for (number, slot) in [&first, &second].into_iter().enumerate() {
        let outer = format!("fv{}", number + 1);
        let inner = VethEnd::new(name("eth0")).namespace(slot.as_fd());
        near.run(&create_veth(&VethEnd::new(name(&outer)).state(LinkState::Up), &inner))?;
        let outer = near.link(name(&outer))?.context("made")?;
        near.run(&LinkAddress::host(outer.index, router).add())?;
        near.run(&Route::device(Subnet::host(SLOTS[number].parse()?), outer.index).add())?;
        let mut inside = slot.connect(Protocol::Route)?;
        let eth0 = up(&mut inside, "eth0")?;
        inside.run(&LinkAddress::host(eth0, SLOTS[number].parse()?).add())?;
        inside.run(&Route::default_via(Gateway::OnLink(router), eth0).add())?;
    }
    let far = VethEnd::new(name("eth0")).namespace(world.as_fd());
    near.run(&create_veth(&VethEnd::new(name("up0")), &far))?;
    let up0 = up(&mut near, "up0")?;
    near.run(&LinkAddress { prefix_bits: 24, ..LinkAddress::host(up0, HOST.parse()?) }.add())?;
    near.run(&Route::default_via(Gateway::Routed(WORLD.parse()?), up0).add())?;
    let mut outside = world.connect(Protocol::Route)?;
    let eth0 = up(&mut outside, "eth0")?;
    outside.run(&LinkAddress { prefix_bits: 24, ..LinkAddress::host(eth0, WORLD.parse()?) }.add())?;
    outside.run(&LinkAddress::host(eth0, PRIVATE.parse()?).add())?;
    host.output(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done"])?;
    Ok(Some(Network { host, slots: [first, second], world, nft }))
}

fn bind(space: &Namespace, address: &str) -> Result<UdpSocket> {
    space.run(|| {
        let socket = UdpSocket::bind((address.parse::<IpAddr>()?, 0)).context(address.to_owned())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    })
}

fn receive(socket: &UdpSocket) -> Result<(String, SocketAddr)> {
    let mut bytes = [0; 100];
    let (length, from) = socket.recv_from(&mut bytes)?;
    Ok((String::from_utf8_lossy(&bytes[..length]).into_owned(), from))
}

/// Waits until the rule that holds `text` has counted a packet.
fn counted(host: &Namespace, text: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listed = rules(host)?;
        let line = listed.lines().find(|line| line.contains(text)).context("the rule is there")?;
        if !line.contains("packets 0 ") {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "nothing was counted by {line}");
    }
}

#[test]
fn the_rule_set_holds_what_it_promises() -> Result<()> {
    let Some(mut net) = network()? else { return Ok(()) };
    let ours = rule_set()?;
    net.nft.commit(&ours.transaction)?;
    let world = bind(&net.world, WORLD)?;
    let target = world.local_addr()?;
    let slot = bind(&net.slots[0], SLOTS[0])?;

    slot.send_to(b"out", target)?;
    let (text, from) = receive(&world)?;
    assert_eq!((text.as_str(), from.ip().to_string().as_str()), ("out", HOST), "with the host's address");
    world.send_to(b"back", from)?;
    assert_eq!(receive(&slot)?, ("back".to_owned(), target));

    // A forged source, which the slot can give itself: dropped on its way out.
    let mut inside = net.slots[0].connect(Protocol::Route)?;
    let eth0 = inside.link(name("eth0"))?.context("made")?.index;
    inside.run(&LinkAddress::host(eth0, "10.48.0.77".parse()?).add())?;
    bind(&net.slots[0], "10.48.0.77")?.send_to(b"forged", target)?;
    counted(&net.host, "!= @owned")?;
    // The same source where the set knows it: the route back does not lead there.
    let mut adding = Transaction::new();
    adding.add_elements(&ours.owned, &[Element::LinkAndAddress(name("fv1"), "10.48.0.77".parse()?)])?;
    net.nft.commit(&adding)?;
    bind(&net.slots[0], "10.48.0.77")?.send_to(b"forged", target)?;
    counted(&net.host, "oif missing")?;

    // The other slot, the host itself, a private address.
    let other = bind(&net.slots[1], SLOTS[1])?;
    slot.send_to(b"meet", other.local_addr()?)?;
    counted(&net.host, "slots do not meet")?;
    let service = bind(&net.host, HOST)?;
    slot.send_to(b"host", service.local_addr()?)?;
    counted(&net.host, "type local")?;
    let hidden = bind(&net.world, PRIVATE)?;
    let asking = bind(&net.slots[0], SLOTS[0])?;
    asking.connect(hidden.local_addr()?)?;
    asking.send(b"private")?;
    counted(&net.host, "daddr @private")?;
    let refused = receive(&asking).expect_err("the refusal is told");
    assert_eq!(refused.downcast::<std::io::Error>()?.raw_os_error(), Some(Errno::HOSTUNREACH.raw_os_error()));

    // The last to come is the first to arrive: nothing of the above got through.
    slot.send_to(b"last", target)?;
    assert_eq!(receive(&world)?.0, "last");
    for socket in [&other, &service, &hidden] {
        socket.set_nonblocking(true)?;
        receive(socket).expect_err("nothing came");
    }
    Ok(())
}

#[test]
fn flows_of_an_address_are_forgotten() -> Result<()> {
    let Some(mut net) = network()? else { return Ok(()) };
    net.nft.commit(&rule_set()?.transaction)?;
    let mut adding = Transaction::new();
    let ours = rule_set()?;
    adding.add_elements(&ours.owned, &[Element::LinkAndAddress(name("fv2"), SLOTS[1].parse()?)])?;
    net.nft.commit(&adding)?;
    let world = bind(&net.world, WORLD)?;
    let first = bind(&net.slots[0], SLOTS[0])?;
    for socket in [&first, &bind(&net.slots[0], SLOTS[0])?] {
        socket.send_to(b"out", world.local_addr()?)?;
        receive(&world)?;
    }
    // From the host to the slots: the slot is the one that answers.
    for slot in [&first, &bind(&net.slots[1], SLOTS[1])?] {
        bind(&net.host, HOST)?.send_to(b"in", slot.local_addr()?)?;
        receive(slot)?;
    }
    let flows = net.nft.flows()?;
    assert_eq!(flows.len(), 4, "{flows:#?}");
    let translated =
        flows.iter().find(|flow| flow.original.source_port == first.local_addr().map_or(0, |at| at.port()));
    let translated = translated.context("the first slot's")?;
    assert_eq!((translated.protocol, translated.original.source.to_string().as_str()), (17, SLOTS[0]));
    assert_eq!(translated.original.destination, world.local_addr()?.ip());
    assert_eq!(translated.reply.destination.to_string(), HOST);

    assert_eq!(net.nft.forget_flows(SLOTS[0].parse()?)?, 3);
    let left = net.nft.flows()?;
    assert_eq!(left.len(), 1, "{left:#?}");
    assert_eq!(left[0].original.destination.to_string(), SLOTS[1]);
    assert_eq!(net.nft.forget_flows(SLOTS[0].parse()?)?, 0);
    assert_eq!(net.nft.forget_flows("fd00::1".parse()?)?, 0);
    Ok(())
}
