//! A container's link, from its birth to its claim.
//!
//! Owns: when a link is ordered, waited for and put into its function's mode. Must not know: how links are made
//! ([`crate::network`]).
//!
//! The link is made while the runtime boots; a container is claimable when both are done. A claim finds the link in the
//! node's default mode, and only one that wants another touches it.

use std::os::fd::AsFd;

use faaster_protocol::funclet::{Claim, Generation, NetworkMode, SlotId};
use rustix::io::Errno;

use crate::birth::{BornWith, Entrance};
use crate::fault::{FaultPoint, Faults};
use crate::funclet::{Funclet, FuncletError, Timer};
use crate::network::{
    Attached, Done, Inside, Leftover, Link, NetworkError, Promise, Wire, Wired, WiringError,
};
use crate::notice::{notice, with_causes};
use crate::reuse::{Inheritance, Kind};
use crate::slots::Container;
use crate::stuck::Dying;
use crate::timers::Nanos;

impl Funclet {
    /// Has the network of a container made, link and all, beside the rest of it, when a claim waits for it: it takes as
    /// long as the rest. A fork server's child could not enter a namespace that does not belong to the server's user
    /// namespace.
    pub(crate) fn commission_link(
        &self,
        runtime: usize,
        entrance: Entrance<'_>,
        id: SlotId,
        generation: Generation,
    ) -> Option<Promise> {
        if matches!(entrance, Entrance::ForkServer { .. }) || self.waiting.count_for_container(runtime) == 0 {
            return None;
        }
        self.network.as_ref()?.commission(id, generation)
    }

    /// A container is just born: whether it is to have a link.
    pub(crate) fn expect_link(&mut self, id: SlotId, generation: Generation, born_with: BornWith) {
        let Some(network) = &self.network else { return };
        let is_coming = match born_with {
            BornWith::Nothing => !network.wires_at_claims(),
            BornWith::LinkComing => true,
            BornWith::LinkThere => false,
        };
        if is_coming && let Some(container) = self.slots.live(id, generation) {
            container.link = Link::Coming { booted: false };
        }
    }

    /// The network of an earlier container for the next one of a runtime, whose slot is then the next to be used.
    pub(crate) fn inherit(&mut self, runtime: usize, now: Nanos) -> Option<Inheritance> {
        let lineage = self.entrance(runtime, SlotId(0), now).lineage();
        let slots = &mut self.slots;
        self.reuse.take(Kind { runtime, lineage }, now, |slot| slots.prefer(slot))
    }

    /// A container is just born, perhaps with the network of an earlier one.
    pub(crate) fn settle_network(
        &mut self,
        id: SlotId,
        generation: Generation,
        inheritance: Option<Inheritance>,
    ) {
        let Some((Inheritance { wire, namespace, inside, past }, container)) =
            inheritance.zip(self.slots.live(id, generation))
        else {
            return;
        };
        container.link = Link::There(wire);
        container.namespace = Some(namespace);
        container.past = past;
        if let Some(unclaimed) = &mut container.unclaimed {
            unclaimed.inside = Some(inside);
        }
    }

    /// A container is dead: its network may be for another.
    pub(crate) fn hand_on_network(&mut self, id: SlotId, generation: Generation, container: &mut Container) {
        let (Some(network), Link::There(wire)) = (&self.network, container.link) else { return };
        let Some(namespace) = container.namespace.take() else { return };
        let is_wanted = !self.is_stopping() && container.dying == Dying::InTime;
        if is_wanted && network.hand_on(Leftover { slot: id, generation, wire, namespace }) {
            let kind = Kind { runtime: container.runtime, lineage: container.lineage };
            self.reuse.examining(id, generation, kind, container.past);
        }
    }

    fn keep_network(&mut self, leftover: Leftover, inside: Box<Inside>) {
        let now = Nanos::now();
        self.reuse.keep(leftover, inside, self.waiting.len(), now);
        self.let_networks_go(now);
    }

    /// Those that nobody has had for long.
    pub(crate) fn let_networks_go(&mut self, now: Nanos) {
        let due = self.reuse.age(self.waiting.len(), now);
        if self.networks_timer.is_none_or(|at| at <= now) {
            self.networks_timer = due;
            if let Some(due) = due {
                self.timers.add(due, Timer::Networks);
            }
        }
    }

    /// A container is in a network namespace of its own: has a link made to it.
    pub(crate) fn order_link(&mut self, id: SlotId, generation: Generation) -> Result<(), FuncletError> {
        let (Some(network), Some(container)) = (&mut self.network, self.slots.live(id, generation)) else {
            return Ok(());
        };
        let Link::Coming { booted } = container.link else { return Ok(()) };
        let namespace = self.nursery.network_namespace(container.pid);
        let lack = match namespace.map(|namespace| network.order(id, generation, namespace)) {
            Ok(true) => return Ok(()),
            Ok(false) => "too many links wait to be made".to_owned(),
            Err(errno) => format!("its namespace cannot be opened: {errno}"),
        };
        container.link = Link::None;
        notice(&self.config, &format!("a container gets no network: {lack}"));
        if booted { self.become_cold(id, generation) } else { Ok(()) }
    }

    /// The network's thread has done something.
    pub(crate) fn on_network(&mut self) -> Result<(), FuncletError> {
        let all = self.network.as_mut().map(crate::network::Network::take_done).unwrap_or_default();
        let mut wired = Vec::new();
        for done in all {
            match done {
                Done::Wired(one) => wired.push(*one),
                Done::Untouched(leftover, inside) => self.keep_network(leftover, inside),
            }
        }
        self.on_wired(wired)
    }

    /// Links are there, or have come to nothing.
    fn on_wired(&mut self, wired: Vec<Wired>) -> Result<(), FuncletError> {
        for Wired { slot, generation, outcome, namespace } in wired {
            // One that has ended meanwhile takes its link with it.
            let Some(container) = self.slots.live(slot, generation) else { continue };
            let Link::Coming { booted } = container.link else { continue };
            self.faults.at(FaultPoint::CreateLinked);
            match outcome {
                Ok(attached) => {
                    let Attached { link, mode, .. } = attached;
                    container.link = Link::There(Wire { link, mode, made_for: generation });
                    container.namespace = namespace;
                    if let Some(unclaimed) = &mut container.unclaimed {
                        unclaimed.inside = Some(Box::new(attached.inside));
                    }
                }
                Err(error @ WiringError::Loopback(_)) => {
                    self.fail_boot(slot, generation, &with_causes(&error));
                    continue;
                }
                Err(error) => {
                    container.link = Link::None;
                    notice(&self.config, &format!("a container gets no network: {}", with_causes(&error)));
                }
            }
            if booted {
                self.become_cold(slot, generation)?;
            }
        }
        Ok(())
    }

    /// Gives a container's link the mode that a claim asks for. The inner error refuses the claim: the link may be more open
    /// than the function wants.
    pub(crate) fn set_mode(
        &mut self,
        claim: &Claim,
        id: SlotId,
        generation: Generation,
        inside: Option<Box<Inside>>,
    ) -> Result<Result<(), Errno>, FuncletError> {
        let Some(network) = &mut self.network else { return Ok(Ok(())) };
        let container = self.slots.live(id, generation).expect("it is being claimed");
        let wanted = network.mode_of(claim.network);
        match container.link {
            Link::There(wire) if wire.mode == wanted => Ok(Ok(())),
            Link::There(wire) => match network.regroup((id, wire), inside, wanted) {
                Ok(()) => {
                    container.link = Link::There(Wire { mode: wanted, ..wire });
                    Ok(Ok(()))
                }
                Err(error) => {
                    // Half changed as it may be, it is not for others.
                    container.namespace = None;
                    notice(&self.config, &format!("a claim fails: {}", with_causes(&error)));
                    Ok(Err(error.errno()))
                }
            },
            Link::None if wanted != NetworkMode::None && network.wires_at_claims() => {
                let made = match self.nursery.network_namespace(container.pid) {
                    Ok(namespace) => network.wire_now(id, generation, namespace.as_fd(), wanted),
                    Err(errno) => Err(WiringError::Enter(errno)),
                };
                match made {
                    Ok(Attached { link, .. }) => {
                        container.link = Link::There(Wire { link, mode: wanted, made_for: generation });
                    }
                    Err(WiringError::Lost(errno)) => return Err(FuncletError::LostNamespace(errno)),
                    Err(error) => {
                        notice(
                            &self.config,
                            &format!("a container gets no network: {}", with_causes(&error)),
                        );
                    }
                }
                Ok(Ok(()))
            }
            Link::None => Ok(Ok(())),
            Link::Coming { .. } => unreachable!("a container is claimable once its link is there"),
        }
    }
}

/// The funclet's network, or, with a notice, none.
pub(crate) fn start_network(
    config: &crate::config::FuncletConfig,
    faults: &Faults,
) -> Option<crate::network::Network> {
    let settings = config.network.as_ref()?;
    let told = |error: &NetworkError| {
        let text = format!("containers have their loopback alone: {}", with_causes(error));
        notice(config, &text);
    };
    crate::network::Network::start(config, settings, faults).inspect_err(told).ok()
}
