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
use crate::funclet::{Funclet, FuncletError};
use crate::network::{Inside, Link, NetworkError, Promise, Wired, WiringError};
use crate::notice::{notice, with_causes};

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
        if born_with == BornWith::Nothing && network.wires_at_claims() {
            return;
        }
        if let Some(container) = self.slots.live(id, generation) {
            container.link = Link::Coming { booted: false };
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

    /// Links are there, or have come to nothing.
    pub(crate) fn on_wired(&mut self) -> Result<(), FuncletError> {
        let wired = self.network.as_mut().map(crate::network::Network::take_wired).unwrap_or_default();
        for Wired { slot, generation, outcome } in wired {
            // One that has ended meanwhile takes its link with it.
            let Some(container) = self.slots.live(slot, generation) else { continue };
            let Link::Coming { booted } = container.link else { continue };
            self.faults.at(FaultPoint::CreateLinked);
            match outcome {
                Ok(attached) => {
                    container.link = Link::There(attached.link, attached.mode);
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
            Link::There(_, mode) if mode == wanted => Ok(Ok(())),
            Link::There(link, _) => match network.regroup((id, generation), link, inside, wanted) {
                Ok(()) => {
                    container.link = Link::There(link, wanted);
                    Ok(Ok(()))
                }
                Err(error) => {
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
                    Ok(attached) => container.link = Link::There(attached.link, wanted),
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
