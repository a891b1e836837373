//! Talking to funclets: asking for instances, hearing what became of them.
//!
//! Owns: the channel to each funclet and the claims under way. Must not know: how a container is made.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use faaster_function::Deployed;
use faaster_function::code_use::CodeLease;
use faaster_limits::{BOOT_TIMEOUT, PIDS_PER_CONTAINER_MAX, TMP_BYTES_DEFAULT};
use faaster_protocol::frame::LoadMeta;
use faaster_protocol::funclet::{
    Claim, Event, Generation, MESSAGE_BYTES, Placement, Refusal, Request, SlotId, Ticket, ledger_mb,
};
use faaster_sys::ring::{Group, Message, Ring, Sock};
use rustix::io::Errno;

use crate::answer::{Outcome, Refused};
use crate::api::Notice;
use crate::code::Word;
use crate::event::Source;
use crate::functions::key_hash;
use crate::ingress::ns;
use crate::instance::{Cause, Ended, Ending, Instance, State};
use crate::shard::Shard;
use crate::slab::Id;
use crate::timer::Owner;

/// The channel to one funclet.
#[derive(Debug)]
pub(crate) struct FuncletLink {
    sock: Sock,
    /// Tells answers of this funclet's life from those of an earlier one.
    epoch: u32,
}

/// A claim under way.
#[derive(Debug)]
pub(crate) struct Claiming {
    function: u32,
    funclet: u16,
    placement: Placement,
    deployed: Arc<Deployed>,
    asked_ns: u64,
    want: Want,
    lease: CodeLease,
    word: Word,
}

/// Whether the function still waits for a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// It is counted in the function's `starting`.
    Wanted,
    /// It was taken back: not counted, and what still comes of it is ended at once.
    TakenBack,
}

/// A container that a funclet hands over.
#[derive(Debug, Clone, Copy)]
struct Claimed {
    funclet: u16,
    slot: SlotId,
    generation: Generation,
    attach_us: u32,
}

/// MiB of /tmp for a function with so much memory. /tmp is memory of the container: with all of it there, a full /tmp
/// would be out of memory; with half, it is ENOSPC, which a handler can deal with.
pub(crate) fn tmp_mb(memory_mb: u32) -> u32 {
    let most = u32::try_from(TMP_BYTES_DEFAULT >> 20).unwrap_or(u32::MAX);
    (memory_mb / 2).min(most)
}

impl<R: Ring> Shard<R> {
    /// A funclet (re)started.
    pub(crate) fn on_funclet_up(&mut self, funclet: u16, channel: OwnedFd) {
        let at = usize::from(funclet);
        if at >= self.funclets.len() {
            return;
        }
        if self.funclets[at].is_some() {
            self.on_funclet_lost(funclet);
        }
        // Never one that was used: what is left of an earlier channel may still be heard.
        self.funclet_epoch = (self.funclet_epoch + 1) & 0x00ff_ffff;
        let epoch = self.funclet_epoch;
        let sock = self.ring.adopt(channel);
        self.funclets[at] = Some(FuncletLink { sock, epoch });
        self.ring.receive_message(sock, Source::Funclet.token(u32::from(funclet), epoch));
        for index in self.function_indexes() {
            self.consider_starting(index);
            self.keep_least(index);
        }
    }

    fn function_indexes(&self) -> Vec<u32> {
        self.functions
            .iter()
            .filter(|(_, function)| !function.queue.is_empty() || function.deployed.instances_min > 0)
            .map(|(index, _)| index)
            .collect()
    }

    /// A funclet is gone, and all its containers with it.
    fn on_funclet_lost(&mut self, funclet: u16) {
        let Some(link) = self.funclets[usize::from(funclet)].take() else { return };
        self.ring.close(link.sock);
        for id in self.claims.ids() {
            if self.claims.get(id).is_some_and(|claim| claim.funclet == funclet) {
                self.claim_failed(id, Refusal::System);
            }
        }
        for id in self.instances.ids() {
            if self.instances.get(id).is_some_and(|instance| instance.funclet == funclet) {
                self.bury(id);
            }
        }
        let notice = Notice::FuncletLost { shard: self.id, funclet };
        drop((self.sink)(notice));
    }

    /// Asks for an instance. `false`: there is no funclet to ask right now, or its code has to be brought back first.
    pub(crate) fn claim(&mut self, index: u32) -> bool {
        let count = self.funclets.len();
        let function = self.functions.get(index);
        let deployed = function.deployed.clone();
        // A function belongs to one funclet by its hash.
        let funclet = usize::try_from(key_hash(deployed.key.as_bytes()) >> 32).unwrap_or(0) % count;
        let Some(link) = &self.funclets[funclet] else { return false };
        let sock = link.sock;
        let epoch = link.epoch;
        let funclet = u16::try_from(funclet).expect("at most FUNCLETS_MAX");
        let Some((lease, word)) = self.lease_code(index) else { return false };
        let placement = self.first_placement(self.functions.get(index));
        let id = self.claims.insert(Claiming {
            function: index,
            funclet,
            placement,
            deployed: deployed.clone(),
            asked_ns: self.now_ns,
            want: Want::Wanted,
            lease,
            word,
        });
        let claim = Claim {
            ticket: Ticket(id.to_bits()),
            runtime: deployed.runtime,
            placement,
            code: deployed.code,
            account_tag: deployed.account_tag,
            function_tag: deployed.function_tag,
            memory_mb: deployed.memory_mb,
            pids_max: PIDS_PER_CONTAINER_MAX,
            tmp_mb: tmp_mb(deployed.memory_mb),
            deadline_ns: self.now_ns + deployed.timeout_ms * 1_000_000,
            network: deployed.network_mode,
            layers: deployed.layers,
        };
        self.functions.get_mut(index).starting += 1;
        self.counters.cold_starts_total += 1;
        self.tell(sock, funclet, epoch, &Request::Claim(claim));
        true
    }

    /// Takes back the claims of a function that are under way.
    pub(crate) fn cancel_claims(&mut self, index: u32) {
        for id in self.claims.ids() {
            let Some(claiming) = self.claims.get_mut(id) else { continue };
            if claiming.function == index && claiming.want == Want::Wanted {
                claiming.want = Want::TakenBack;
                let funclet = claiming.funclet;
                self.functions.get_mut(index).starting -= 1;
                self.ask_funclet(funclet, &Request::CancelClaim { ticket: Ticket(id.to_bits()) });
            }
        }
    }

    fn tell(&mut self, sock: Sock, funclet: u16, epoch: u32, request: &Request) {
        let token = Source::FuncletSend.token(u32::from(funclet), epoch);
        self.ring.send(sock, request.encode().to_vec(), 0, token);
    }

    /// Ends an instance's container; [`Event::Ended`] follows.
    pub(crate) fn kill(&mut self, id: Id<Instance>) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        if instance.kill_sent {
            return;
        }
        instance.kill_sent = true;
        let (slot, generation, funclet) = (instance.slot, instance.generation, instance.funclet);
        self.kill_slot(funclet, slot, generation);
        // The end is waited for, but not for ever: a stuck process must not hold its callers.
        self.expect_end(id);
    }

    fn kill_slot(&mut self, funclet: u16, slot: SlotId, generation: Generation) {
        self.ask_funclet(funclet, &Request::Kill { slot, generation });
    }

    /// Sends a request to a funclet; one that is gone has no containers left to ask about.
    pub(crate) fn ask_funclet(&mut self, funclet: u16, request: &Request) {
        if let Some(link) = &self.funclets[usize::from(funclet)] {
            let (sock, epoch) = (link.sock, link.epoch);
            self.tell(sock, funclet, epoch, request);
        }
    }

    pub(crate) fn on_funclet_message(
        &mut self,
        funclet: u32,
        epoch: u32,
        result: Result<Option<Box<Message>>, Errno>,
    ) {
        let at = usize::try_from(funclet).expect("an index");
        let current = self.funclets.get(at).and_then(Option::as_ref).is_some_and(|link| link.epoch == epoch);
        if !current {
            return;
        }
        let funclet = u16::try_from(funclet).expect("at most FUNCLETS_MAX");
        match result {
            Ok(Some(message)) => {
                let link = self.funclets[at].as_ref().expect("checked above");
                let token = Source::Funclet.token(u32::from(funclet), epoch);
                self.ring.receive_message(link.sock, token);
                // A funclet of the same build sends nothing else; a broken one is treated as lost.
                match Event::decode(&message.bytes[..message.length]) {
                    Ok(event) => self.on_funclet_event(funclet, event, message.descriptors),
                    Err(_) => self.on_funclet_lost(funclet),
                }
            }
            Ok(None) | Err(_) => self.on_funclet_lost(funclet),
        }
    }

    fn on_funclet_event(&mut self, funclet: u16, event: Event, descriptors: Vec<OwnedFd>) {
        match event {
            Event::Claimed { ticket, slot, generation, attach_us, .. } => {
                let container = Claimed { funclet, slot, generation, attach_us };
                self.on_claimed(Id::from_bits(ticket.0), container, descriptors);
            }
            Event::Refused { ticket, refusal, .. } => self.claim_failed(Id::from_bits(ticket.0), refusal),
            Event::Ended { slot, generation, end, memory_peak_bytes, memory_limit_bytes, .. } => {
                let ended = Ended { end, memory_peak_bytes, memory_limit_bytes };
                self.on_ended(funclet, slot, generation, ended);
            }
            Event::Shortage { memory_mb } => self.make_room(funclet, memory_mb),
            Event::Frozen { slot, generation } => self.on_frozen(funclet, slot, generation),
            Event::Thawed { slot, generation } => self.on_thawed(funclet, slot, generation),
            Event::NotResized { slot, generation } => self.on_not_resized(funclet, slot, generation),
            // Only the control thread asks for these.
            Event::Slot(_) | Event::Pool(_) | Event::Node(_) => {}
        }
    }

    fn on_claimed(&mut self, claim: Id<Claiming>, container: Claimed, descriptors: Vec<OwnedFd>) {
        let Claimed { funclet, slot, generation, attach_us } = container;
        let claiming = match self.claims.remove(claim) {
            Some(claiming) if claiming.want == Want::Wanted => claiming,
            _ => return self.kill_slot(funclet, slot, generation),
        };
        let index = claiming.function;
        self.functions.get_mut(index).starting -= 1;
        let newest = self.functions.get(index).deployed.revision == claiming.deployed.revision;
        // A stopping engine still runs what it has taken in.
        let needed = self.draining.is_none() || !self.functions.get(index).queue.is_empty();
        let wanted = newest && self.is_deployed(index) && needed;
        let mut descriptors = descriptors.into_iter();
        let (Some(channel), Some(log), true) = (descriptors.next(), descriptors.next(), wanted) else {
            self.kill_slot(funclet, slot, generation);
            self.functions.release_if_unused(index);
            // It may have stood where the newest revision needs one.
            self.consider_starting(index);
            self.keep_least(index);
            return;
        };
        let (channel, log) = (self.ring.adopt(channel), self.ring.adopt(log));
        let deployed = claiming.deployed;
        let frame = load_frame(&deployed);
        let mut instance = Instance::new(
            index,
            deployed,
            funclet,
            slot,
            generation,
            claiming.placement,
            channel,
            log,
            self.now_ns,
        );
        instance.asked_ns = claiming.asked_ns;
        instance.attach_ns = u64::from(attach_us) * 1000;
        instance.outbox.push_owned(frame);
        instance.gauge = descriptors.next();
        instance.lease = Some(claiming.lease);
        let id = self.instances.insert(instance);
        self.functions.get_mut(index).instances.push(id);
        self.ring.receive(channel, Group::Instance, Source::InstanceReceive.of(id));
        self.read_log(id);
        self.arm_instance(id, self.now_ns + ns(BOOT_TIMEOUT));
        self.mark_instance(id);
    }

    fn claim_failed(&mut self, claim: Id<Claiming>, refusal: Refusal) {
        let claiming = match self.claims.remove(claim) {
            Some(claiming) if claiming.want == Want::Wanted => claiming,
            _ => return,
        };
        let index = claiming.function;
        let function = self.functions.get_mut(index);
        function.starting -= 1;
        let alone = function.starting == 0 && function.instances.is_empty();
        let refused = match refusal {
            // The funclet is being restarted: the queue waits for it.
            Refusal::System if self.funclets[usize::from(claiming.funclet)].is_none() => {
                self.functions.release_if_unused(index);
                return;
            }
            // It may be better soon: the queue waits, each call to its own deadline, and asks again.
            Refusal::Slots | Refusal::Rate | Refusal::Deadline | Refusal::Cancelled => {
                self.arm_queue(index);
                self.keep_least_later(index);
                self.functions.release_if_unused(index);
                return;
            }
            Refusal::Code if claiming.word == Word::Assumed => {
                return self.miss_code(index, &claiming.deployed);
            }
            Refusal::Memory => Refused::Busy,
            Refusal::Boot => Refused::NotReady,
            Refusal::Code => Refused::CodeMissing,
            Refusal::Invalid | Refusal::System => Refused::NotReady,
        };
        self.keep_least_later(index);
        if alone {
            self.counters.invocations_throttled_total += self.functions.get(index).queue.len() as u64;
            self.fail_queue(index, Outcome::Refused(refused), b"");
        }
        self.functions.release_if_unused(index);
    }

    fn on_ended(&mut self, funclet: u16, slot: SlotId, generation: Generation, ended: Ended) {
        let Some(id) = self.instance_in(funclet, slot, generation) else { return };
        let instance = self.instances.get_mut(id).expect("found above");
        instance.end = Some(ended);
        instance.kill_sent = true;
        if instance.channel_ended {
            self.bury(id);
        } else {
            // What it sent before its end is still in the socket; the end of file follows it.
            self.expect_end(id);
        }
    }

    /// The instance whose container is in this slot.
    pub(crate) fn instance_in(
        &self,
        funclet: u16,
        slot: SlotId,
        generation: Generation,
    ) -> Option<Id<Instance>> {
        let is_it = |it: &Instance| it.funclet == funclet && it.slot == slot && it.generation == generation;
        self.instances.iter().find(|(_, instance)| is_it(instance)).map(|(id, _)| id)
    }

    /// The node is short of memory: ends idle instances, least recently used first. The funclet says it again for as long as
    /// it is, so what comes from those that are ending already counts.
    fn make_room(&mut self, funclet: u16, memory_mb: u32) {
        let mut freed_mb: u32 = self
            .instances
            .iter()
            .filter(|(_, instance)| instance.funclet == funclet && instance.kill_sent)
            .map(|(_, instance)| ledger_mb(instance.deployed.memory_mb))
            .sum();
        if freed_mb >= memory_mb {
            return;
        }
        let mut idle: Vec<_> = self
            .instances
            .iter()
            .filter(|(id, instance)| {
                let rests = matches!(instance.state(), State::Idle | State::Freezing | State::Frozen);
                instance.funclet == funclet && rests && !self.is_kept(*id)
            })
            .map(|(id, instance)| (instance.last_used_ns, id, ledger_mb(instance.deployed.memory_mb)))
            .collect();
        idle.sort_by_key(|(used_ns, ..)| *used_ns);
        for (_, id, instance_mb) in idle {
            if freed_mb >= memory_mb {
                return;
            }
            freed_mb += instance_mb;
            self.retire(id);
            self.kill(id);
        }
    }

    /// Takes an instance out of service; it finishes what it runs.
    pub(crate) fn retire(&mut self, id: Id<Instance>) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        if matches!(instance.state(), State::Draining | State::Gone) {
            return;
        }
        instance.ending = Ending::Retired;
        if matches!(instance.state(), State::Freezing | State::Frozen) {
            // So that it hears that it may exit.
            let thaw = Request::Thaw { slot: instance.slot, generation: instance.generation };
            let funclet = instance.funclet;
            self.ask_funclet(funclet, &thaw);
        }
        let instance = self.instances.get_mut(id).expect("got above");
        instance.go(Cause::Drain);
        let (index, empty) = (instance.function, instance.in_flight.is_empty());
        self.functions.get_mut(index).not_ready(id);
        if empty {
            self.dismiss(id);
        }
    }

    pub(crate) fn arm_instance(&mut self, id: Id<Instance>, at_ns: u64) {
        if let Some(instance) = self.instances.get_mut(id) {
            let owner = Owner::Instance { index: id.index, generation: id.generation };
            self.timers.arm(&mut instance.alarm, at_ns, owner);
        }
    }
}

fn load_frame(deployed: &Deployed) -> Vec<u8> {
    LoadMeta {
        function_name: &deployed.name,
        function_version: &deployed.version,
        brn: &deployed.brn,
        handler: &deployed.handler,
        memory_mb: deployed.memory_mb,
        timeout_ms: deployed.timeout_ms,
        concurrency: deployed.concurrency.quota(),
        user_id: &deployed.owner,
        env: &deployed.env,
    }
    .encode_frame()
}

const _: () = assert!(MESSAGE_BYTES <= faaster_sys::ring::MESSAGE_BYTES_MAX);
