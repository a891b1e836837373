//! What the engine asks: claims, kills, placement, descriptions.
//!
//! Owns: the way of a claim through bounds, ledger and lists. Must not know: how a container is made or given code.

use faaster_limits::{CLAIM_WAIT_MAX, POOL_REFILL_QUIET, POOL_REFILL_REST};
use faaster_protocol::funclet::{
    Claim, ClaimSource, Event, Generation, NodeInfo, Refusal, Request, RuntimeIndex, SlotId, SlotInfo,
};
use rustix::io::Errno;

use crate::cgroup::Running;
use crate::channel::{ChannelId, Incoming};
use crate::claims::{self, Waiting, WaitingId, WaitsFor};
use crate::container::{Change, State};
use crate::demand::Happening;
use crate::fault::FaultPoint;
use crate::funclet::{Freezing, Funclet, FuncletError, Timer};
use crate::ledger::{Answer, share_bytes};
use crate::notice::{notice, with_causes};
use crate::pool;
use crate::reuse::Account;
use crate::slots::Ending;
use crate::timers::Nanos;

/// Requests taken from one channel before the others have their turn.
const REQUESTS_PER_TURN_MAX: usize = 32;
/// Containers described in one turn of the loop.
const DESCRIBED_PER_TURN_MAX: usize = 16;
/// Descriptions under way.
const DESCRIPTIONS_MAX: usize = 64;

/// A [`Request::Describe`] under way.
#[derive(Debug)]
pub(crate) struct Description {
    channel: ChannelId,
    /// Still to be described.
    slots: Vec<(SlotId, Generation)>,
}

impl Funclet {
    pub(crate) fn on_channel(&mut self, channel: ChannelId) -> Result<(), FuncletError> {
        let flushed = self.channels.flush(channel);
        self.after_send(channel, flushed);
        for _ in 0..REQUESTS_PER_TURN_MAX {
            match self.channels.receive(channel) {
                Incoming::Request(request) => self.on_request(channel, request)?,
                Incoming::Nothing => break,
                Incoming::Closed => {
                    self.lose_channel(channel);
                    break;
                }
                Incoming::Broken(error) => {
                    notice(&self.config, &format!("an engine channel is closed: {error}"));
                    self.lose_channel(channel);
                    break;
                }
            }
        }
        Ok(())
    }

    fn on_request(&mut self, channel: ChannelId, request: Request) -> Result<(), FuncletError> {
        match request {
            Request::Claim(claim) => return self.on_claim(channel, claim),
            Request::CancelClaim { ticket } => {
                if let Some((waiting, what)) = self.waiting.take_ticket(channel, ticket) {
                    self.forget_waiting(&waiting, what);
                    self.refuse(&waiting, Refusal::Cancelled, None);
                }
            }
            Request::Kill { slot, generation } => {
                if self.has_leased(channel, slot, generation) {
                    self.end(slot, generation, Ending::Wanted);
                } else {
                    self.counters.ignored += 1;
                }
            }
            Request::Place { slot, generation, placement } => {
                let core_is_ours = claims::is_placement_ours(placement, &self.config.all_cores);
                if core_is_ours && self.has_leased(channel, slot, generation) {
                    self.place(slot, generation, placement);
                } else {
                    self.counters.ignored += 1;
                }
            }
            Request::Describe => self.describe(channel),
            Request::Freeze { slot, generation } => {
                self.set_running(channel, slot, generation, Running::Stopped)
            }
            Request::Thaw { slot, generation } => self.set_running(channel, slot, generation, Running::Yes),
            Request::Resize { slot, generation, size } => self.on_resize(channel, slot, generation, size),
        }
        Ok(())
    }

    /// Whether a container is in this life of its slot, and claimed by the engine behind the channel.
    fn has_leased(&self, channel: ChannelId, slot: SlotId, generation: Generation) -> bool {
        let lease = self.slots.peek(slot, generation).and_then(|container| container.lease);
        lease.is_some_and(|lease| self.channels.are_of_one_engine(channel, lease.channel))
    }

    /// Stops or continues a container that this channel has claimed, and says how it is afterwards.
    fn set_running(&mut self, channel: ChannelId, id: SlotId, generation: Generation, running: Running) {
        let lease = self.slots.peek(id, generation).and_then(|container| container.lease);
        if lease.is_none_or(|lease| lease.channel != channel) {
            self.counters.ignored += 1;
            return;
        }
        let [asked, done, told] = match running {
            Running::Stopped => [FaultPoint::FreezeAsked, FaultPoint::FreezeDone, FaultPoint::FreezeTold],
            Running::Yes => [FaultPoint::ThawAsked, FaultPoint::ThawDone, FaultPoint::ThawTold],
        };
        self.faults.at(asked);
        let container = self.slots.live(id, generation).expect("it has a lease");
        let change = match (container.state, running) {
            (State::Warm, Running::Stopped) => Some(Change::Frozen),
            (State::Frozen, Running::Yes) => Some(Change::Thawed),
            (State::Warm | State::Frozen, _) => None,
            _ => return,
        };
        if let Some(change) = change {
            if let (Some(reclaimer), Running::Yes) = (&mut self.reclaimer, running) {
                reclaimer.stop(id, generation);
            }
            match self.cgroups.set_running(&container.group, running) {
                Ok(()) => {
                    container.state.apply(change);
                    if let (Some(reclaimer), Running::Stopped) = (&mut self.reclaimer, running)
                        && let Some(files) = self.cgroups.reclaim_files(&container.group)
                    {
                        reclaimer.begin(id, generation, files);
                    }
                }
                Err(error) if running == Running::Yes => {
                    notice(&self.config, &with_causes(&error));
                    // It can never answer again.
                    return self.end(id, generation, Ending::Wanted);
                }
                Err(error) if self.freezing == Freezing::NotRefused => {
                    self.freezing = Freezing::Refused;
                    let text = format!("{}; this is said once", with_causes(&error));
                    notice(&self.config, &text);
                }
                Err(_) => {}
            }
        }
        self.faults.at(done);
        let container = self.slots.peek(id, generation).expect("looked at above");
        let (slot, frozen) = (id, container.state == State::Frozen);
        let event =
            if frozen { Event::Frozen { slot, generation } } else { Event::Thawed { slot, generation } };
        self.tell(channel, &event);
        self.faults.at(told);
    }

    fn on_claim(&mut self, channel: ChannelId, claim: Claim) -> Result<(), FuncletError> {
        self.faults.at(FaultPoint::ClaimReceived);
        let now = Nanos::now();
        self.counters.claims += 1;
        self.waiting_sequence += 1;
        let id = WaitingId(self.waiting_sequence);
        let waiting = Waiting { channel, claim, arrived: now, id, timer: None };
        if !claims::is_within_bounds(&claim, self.config.runtimes.len(), &self.config.all_cores) {
            self.refuse(&waiting, Refusal::Invalid, None);
        } else if !self.rate.admit(now) {
            self.refuse(&waiting, Refusal::Rate, None);
        } else if claim.deadline_ns <= now.0 {
            self.refuse(&waiting, Refusal::Deadline, None);
        } else {
            match self.ledger.mark(share_bytes(claim.memory_mb)) {
                Answer::Never => self.refuse(&waiting, Refusal::Memory, None),
                Answer::Marked => self.seek_container(waiting)?,
                Answer::Short => self.wait_for_memory(waiting),
            }
        }
        Ok(())
    }

    fn wait_for_memory(&mut self, mut waiting: Waiting) {
        if self.waiting.is_full() {
            self.refuse(&waiting, Refusal::Memory, None);
            return;
        }
        waiting.timer = Some(self.claim_timer(&waiting));
        self.waiting.push_for_memory(waiting);
        self.ask_for_room();
    }

    fn claim_timer(&mut self, waiting: &Waiting) -> crate::timers::TimerId {
        let deadline = Nanos(waiting.claim.deadline_ns).min(waiting.arrived.after(CLAIM_WAIT_MAX));
        self.timers.add(deadline, Timer::Claim(waiting.id))
    }

    /// The claim's memory is marked: gives it a cold container, or lets it wait for one that is being made.
    pub(crate) fn seek_container(&mut self, mut waiting: Waiting) -> Result<(), FuncletError> {
        self.faults.at(FaultPoint::ClaimMarked);
        let runtime = usize::from(waiting.claim.runtime.0);
        self.on_demand(runtime, Happening::Claimed);
        self.reuse.heard_of(Account(waiting.claim.account_tag), Nanos::now());
        // Those that wait already do so because nothing prepared is for them.
        if let Some((id, generation)) = self.find_cold(runtime, Account(waiting.claim.account_tag)) {
            return self.serve_claim(waiting, id, generation, ClaimSource::Pool);
        }
        let refusal = if self.waiting.is_full() {
            Some(Refusal::Slots)
        } else if self.pools[runtime].is_hopeless(Nanos::now()) {
            Some(Refusal::Boot)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.forget_waiting(&waiting, WaitsFor::Container);
            self.refuse(&waiting, refusal, None);
            return Ok(());
        }
        if waiting.timer.is_none() {
            waiting.timer = Some(self.claim_timer(&waiting));
        }
        self.waiting.push_for_container(waiting);
        if let Some((id, generation)) = self.pools[runtime].oldest() {
            // It is another account's, and holds the place of one that this claim could have.
            self.end(id, generation, Ending::Evicted);
        }
        if let (Some(warmth), Some(_)) = (&self.warmth, &self.fork_servers[runtime]) {
            warmth.keep(Nanos::now());
        }
        self.faults.at(FaultPoint::ClaimWaiting);
        self.hurry();
        if self.slots_missing() > 0 {
            // Every slot is taken: the claim waits for one to end, cold ones and idle ones first.
            self.look_for_room();
        }
        Ok(())
    }

    /// A prepared container whose network an account may have.
    fn find_cold(&self, runtime: usize, account: Account) -> Option<(SlotId, Generation)> {
        self.pools[runtime].peek(|id, generation| {
            self.slots.peek(id, generation).is_some_and(|container| container.past.suits(account))
        })
    }

    /// Hands a cold container to a claim; a claim that fails is refused here.
    pub(crate) fn serve_claim(
        &mut self,
        waiting: Waiting,
        id: SlotId,
        generation: Generation,
        source: ClaimSource,
    ) -> Result<(), FuncletError> {
        if let Some(timer) = waiting.timer {
            self.timers.cancel(timer);
        }
        self.let_pass(Nanos::now());
        match self.attach(&waiting, id, generation, source)? {
            Ok(()) => {
                self.ledger.settle(share_bytes(waiting.claim.memory_mb));
                let now = Nanos::now();
                self.quiet_until = now.after(POOL_REFILL_QUIET);
                self.rest_until = now.after(POOL_REFILL_REST);
                self.keep_room(self.quiet_until);
            }
            Err((refusal, errno)) => {
                self.ledger.unmark(share_bytes(waiting.claim.memory_mb));
                self.refuse(&waiting, refusal, errno);
                self.memory_returned = true;
            }
        }
        Ok(())
    }

    /// Memory has come back: serves claims in order, as far as it goes.
    pub(crate) fn serve_waiting_for_memory(&mut self) -> Result<(), FuncletError> {
        self.memory_returned = false;
        self.set_targets();
        while let Some(first) = self.waiting.first_for_memory() {
            if self.ledger.mark(share_bytes(first.claim.memory_mb)) != Answer::Marked {
                break;
            }
            let waiting = self.waiting.pop_for_memory().expect("the first is there");
            self.seek_container(waiting)?;
        }
        if self.waiting.first_for_memory().is_some() {
            // What was asked for is not more than could be served at a time.
            self.ask_for_room();
        }
        Ok(())
    }

    /// Takes back what a claim that waited had been promised.
    pub(crate) fn forget_waiting(&mut self, waiting: &Waiting, what: WaitsFor) {
        if let Some(timer) = waiting.timer {
            self.timers.cancel(timer);
        }
        if what == WaitsFor::Container {
            self.ledger.unmark(share_bytes(waiting.claim.memory_mb));
            self.on_demand(usize::from(waiting.claim.runtime.0), Happening::GivenUp);
            self.memory_returned = true;
        }
    }

    pub(crate) fn on_claim_deadline(&mut self, id: WaitingId) {
        if let Some((waiting, what)) = self.waiting.take(|waiting| waiting.id == id) {
            self.forget_waiting(&waiting, what);
            let refusal = match what {
                WaitsFor::Memory => Refusal::Memory,
                WaitsFor::Container => Refusal::Deadline,
            };
            self.refuse(&waiting, refusal, None);
        }
    }

    pub(crate) fn refuse(&mut self, waiting: &Waiting, refusal: Refusal, errno: Option<Errno>) {
        self.counters.refused += 1;
        let errno = errno.and_then(|errno| u16::try_from(errno.raw_os_error()).ok()).unwrap_or(0);
        self.tell(waiting.channel, &Event::Refused { ticket: waiting.claim.ticket, refusal, errno });
    }

    /// Notes down what is to be described; it is done in portions, for each container costs some reads.
    fn describe(&mut self, channel: ChannelId) {
        if self.descriptions.len() >= DESCRIPTIONS_MAX {
            notice(&self.config, "the engine asks for more descriptions than can be given; one is left out");
            return;
        }
        let slots = self.slots.all_live().map(|(id, generation, _)| (id, generation)).collect();
        self.descriptions.push_back(Description { channel, slots });
    }

    /// One portion of the oldest description.
    pub(crate) fn describe_some(&mut self) {
        let Some(Description { channel, mut slots }) = self.descriptions.pop_front() else { return };
        let portion = slots.split_off(slots.len().saturating_sub(DESCRIBED_PER_TURN_MAX));
        for (id, generation) in portion {
            if let Some(info) = self.slot_info(id, generation) {
                self.tell(channel, &Event::Slot(info));
            }
        }
        if slots.is_empty() {
            for info in self.pool_infos() {
                self.tell(channel, &Event::Pool(info));
            }
            let node = Event::Node(self.node_info());
            self.tell(channel, &node);
        } else {
            self.descriptions.push_front(Description { channel, slots });
        }
    }

    pub(crate) fn tell(&mut self, channel: ChannelId, event: &Event) {
        let sent = self.channels.send(channel, event, Vec::new());
        self.after_send(channel, sent);
    }

    fn slot_info(&self, id: SlotId, generation: Generation) -> Option<SlotInfo> {
        let container = self.slots.peek(id, generation)?;
        let usage = self.cgroups.usage(&container.group);
        let lease = container.lease;
        Some(SlotInfo {
            slot: id,
            generation,
            state: container.state.on_wire(),
            runtime: RuntimeIndex(u16::try_from(container.runtime).unwrap_or(u16::MAX)),
            function_tag: lease.map_or(0, |lease| lease.claim.function_tag),
            account_tag: lease.map_or(0, |lease| lease.claim.account_tag),
            pid: container.pid.get().unsigned_abs(),
            memory_mb: lease.map_or(0, |lease| lease.claim.memory_mb),
            memory_used_bytes: usage.memory_bytes,
            cpu_used_us: usage.cpu_us,
            created_ns: container.created.0,
            claimed_ns: lease.map_or(0, |lease| lease.since.0),
        })
    }

    fn node_info(&self) -> NodeInfo {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        NodeInfo {
            memory_capacity_bytes: self.config.memory_bytes,
            memory_allocatable_bytes: self.ledger.allocatable(),
            memory_used_bytes: self.ledger.used(),
            memory_marked_bytes: self.ledger.marked(),
            slots_total: count(self.slots.len()),
            slots_cold: count(self.pools.iter().map(pool::Pool::cold_count).sum()),
            slots_claimed: count(self.slots.all_live().filter(|(_, _, c)| c.lease.is_some()).count()),
            slots_quarantined: count(self.slots.quarantined_count()),
            claims_total: self.counters.claims,
            claims_refused_total: self.counters.refused,
            requests_ignored_total: self.counters.ignored,
        }
    }
}
