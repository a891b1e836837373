//! The network of containers: a routed pair of links each, one table of rules for all.
//!
//! Owns: addresses, links, rules and what the host is set to for them. Must not know: functions, claims, runtimes.
//!
//! No bridge (one ends at 1,024 ports): the host's end of a container's link has a route to the container's one address,
//! the container a default route to a router address that fixed neighbour entries give to the host's end; nobody asks
//! by ARP. What a container may reach is decided by the group that its link is in ([`rules`]), so a claim writes nothing
//! where its function has the node's default mode, and one message where it has another.
//!
//! ```text
//! prepare (supervisor, once)     subnet that nothing uses, reserved; DNS servers; forwarding
//! start (each funclet)           its table; a thread that makes links and looks after table and host
//! birth                          the thread makes the link while the runtime boots; both must be done before a claim
//! end                            the container's namespace goes, and its link with it
//! undo (sweep, also at exit)     tables, reservation, forwarding
//! ```
//! Whatever fails, fails closed: without its table no link is made, and a container without a link has its loopback.

mod choose;
pub mod examine;
mod flows;
mod host;
mod plan;
pub mod prepare;
mod resolver;
mod rules;
mod spare;
mod touched;
mod wirer;
mod wiring;

use std::fmt;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::str::FromStr;

use faaster_netlink::{NetlinkError, Subnet};
use faaster_protocol::funclet::{Generation, NetworkMode, SlotId};
use serde::{Deserialize, Serialize};

pub use choose::ChoiceError;
pub use plan::PlanError;
pub use prepare::{NetworkRequest, PrepareError, Prepared, V6, prepare};

use crate::config::FuncletConfig;
use crate::fault::Faults;
use plan::Plan;
use wirer::Wirer;
pub(crate) use wirer::{Done, Leftover, Promise, Wired};
use wiring::Wiring;
pub(crate) use wiring::{Attached, Inside, WiringError};

/// A subnet as it stands in settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Net(pub Subnet);

impl FromStr for Net {
    type Err = faaster_netlink::SubnetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl TryFrom<String> for Net {
    type Error = faaster_netlink::SubnetError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Net> for String {
    fn from(net: Net) -> Self {
        net.to_string()
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What was switched on so that the host passes containers' packets on; nothing where it did before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Links whose IPv4 packets may go on.
    pub links: Vec<String>,
    /// `net.ipv6.conf.all.forwarding`.
    pub v6: bool,
}

/// What all containers of a run have in common; settled once, by [`prepare`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// Of functions that name none.
    pub mode: NetworkMode,
    /// IPv4.
    pub v4: Net,
    /// `None`: containers have no IPv6.
    pub v6: Option<Net>,
    /// Bytes of the largest packet.
    pub mtu_bytes: u32,
    /// DNS servers, reached on port 53 wherever they are.
    pub resolvers: Vec<IpAddr>,
    /// The containers' /etc/resolv.conf.
    pub resolv_conf: String,
    /// TCP ports of this host that no mode opens: the engine's own.
    pub closed_ports: Vec<u16>,
    pub opened: Opened,
}

/// Why containers have no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("the rules cannot be set: is nf_tables there, with nat, fib, masq and reject?")]
    Rules(#[from] faaster_netlink::nftables::CommitError),
    #[error("our own network namespace cannot be opened")]
    Namespace(#[source] rustix::io::Errno),
    #[error("flows of an earlier run's containers cannot be forgotten")]
    Flows(#[source] WiringError),
    #[error("the thread that makes links cannot be started")]
    Thread(#[source] std::io::Error),
}

/// How far a container's link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// It has its loopback alone.
    None,
    /// It is being made; the runtime may have booted meanwhile.
    Coming {
        booted: bool,
    },
    There(Wire),
}

/// A link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wire {
    /// The host's end.
    pub link: faaster_netlink::LinkIndex,
    /// In whose group it is.
    pub mode: NetworkMode,
    /// The life of its slot that it was made for, which its name and its addresses come from.
    pub made_for: Generation,
}

/// A funclet's network.
#[derive(Debug)]
pub(crate) struct Network {
    mode: NetworkMode,
    plan: Plan,
    wirer: Wirer,
    /// For the claims that need a message of their own; it makes links where the thread makes none.
    wiring: Wiring,
}

impl Network {
    /// Sets the rules and starts the thread. Before the funclet moves into its own mount namespace, so that the thread stays
    /// in the host's.
    ///
    /// # Errors
    /// Why there is no network; containers have their loopback then.
    pub(crate) fn start(
        config: &FuncletConfig,
        settings: &NetworkConfig,
        faults: &Faults,
    ) -> Result<Self, NetworkError> {
        let v6 = settings.v6.map(|net| net.0);
        let parts = (config.index, config.count);
        let plan = Plan::new(settings.v4.0, v6, &config.instance, parts, config.slots_max)?;
        let wiring = Wiring::open(settings, plan.clone())?;
        let wirer = Wirer::start(config, settings, plan.clone(), faults)?;
        Ok(Self { mode: settings.mode, plan, wirer, wiring })
    }

    /// Readable when [`Self::take_done`] has something.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.wirer.descriptor()
    }

    /// Has a link made to a container's namespace. `false`: too many wait for theirs.
    pub(crate) fn order(
        &self,
        slot: SlotId,
        generation: Generation,
        namespace: std::os::fd::OwnedFd,
    ) -> bool {
        let place = self.plan.place(slot.0, generation.0);
        self.wirer.order(wirer::Order { slot, generation, place, namespace, mode: self.mode })
    }

    /// Has a network namespace made, and linked, for a container that is about to be born.
    pub(crate) fn commission(&self, slot: SlotId, generation: Generation) -> Option<Promise> {
        if self.mode == NetworkMode::None {
            return None;
        }
        let place = self.plan.place(slot.0, generation.0);
        self.wirer.commission((slot, generation), place, self.mode)
    }

    /// What the thread has made since it was last asked.
    pub(crate) fn take_done(&mut self) -> Vec<Done> {
        self.wirer.take()
    }

    /// Whether containers are born without a link, which a function that wants one gets at its claim.
    pub(crate) fn wires_at_claims(&self) -> bool {
        self.mode == NetworkMode::None
    }

    /// The mode of a function that asks for `asked`.
    pub(crate) fn mode_of(&self, asked: Option<NetworkMode>) -> NetworkMode {
        asked.unwrap_or(self.mode)
    }

    /// Takes the rules away; at the end, when no container is left.
    ///
    /// # Errors
    /// What the kernel refused; the sweep tries again.
    pub(crate) fn remove_rules(&mut self, config: &FuncletConfig) -> Result<(), NetworkError> {
        let mut transaction = faaster_netlink::nftables::Transaction::new();
        transaction.remove_table(&rules::table_of(config));
        Ok(self.wiring.netfilter()?.commit(&transaction)?)
    }

    /// Has the network of a container that is dead looked at, for the next one that may have it. `false`: it is the kernel's
    /// to take apart.
    pub(crate) fn hand_on(&self, leftover: Leftover) -> bool {
        leftover.wire.mode == self.mode && self.wirer.examine(leftover)
    }

    /// Makes a link at once: for a function that wants one on a node whose default is none.
    ///
    /// # Errors
    /// The step that failed; nothing of the link is left.
    pub(crate) fn wire_now(
        &mut self,
        slot: SlotId,
        generation: Generation,
        namespace: BorrowedFd<'_>,
        mode: NetworkMode,
    ) -> Result<Attached, WiringError> {
        let place = self.plan.place(slot.0, generation.0);
        self.wiring.wire(&place, namespace, mode)
    }

    /// Puts a link into the group of another mode; for `none` the container loses its addresses, too.
    ///
    /// # Errors
    /// What the kernel refused; the link may be in either group, so the container must end.
    pub(crate) fn regroup(
        &mut self,
        (slot, wire): (SlotId, Wire),
        inside: Option<Box<Inside>>,
        mode: NetworkMode,
    ) -> Result<(), WiringError> {
        let place = self.plan.place(slot.0, wire.made_for.0);
        self.wiring.regroup(&place.name, wire.link, mode)?;
        match (mode, inside) {
            (NetworkMode::None, Some(mut inside)) => inside.remove_addresses(&place),
            _ => Ok(()),
        }
    }
}
