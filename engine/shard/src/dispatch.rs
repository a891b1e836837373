//! Which call runs where and when: queues, the choice of an instance, and when to ask for another one.
//!
//! Owns: the rules of DESIGN sections 3 and 4: most recently used first, depth before width, never more cold starts than
//! the queue needs. Must not know: HTTP; how a frame travels once it is in an instance's outbox.

use faaster_limits::{FRAME_EVENT_BYTES_MAX, INSTANCES_PER_SHARD_MAX, QUEUE_PER_FUNCTION_MAX};
use faaster_protocol::frame::{FLAG_MORE, FrameType, HEADER_BYTES, Header, append_invoke_meta};
use faaster_sys::ring::Ring;

use crate::answer::{Outcome, Refused};
use crate::call::{Call, Origin, Place, Style, Tail};
use crate::errand::{Leaving, Packet};
use crate::functions::{Function, Presence};
use crate::ingress::Payload;
use crate::instance::{Cause, Instance, State};
use crate::shard::Shard;
use crate::slab::Id;
use crate::spares::Spares;
use crate::timer::Owner;

/// A queue is looked at this often at least, while something waits in it.
const QUEUE_CHECK_NS_MIN: u64 = 1_000_000;
/// An event that no instance took in this time is dropped and counted: as long as the longest call may run.
const EVENT_PATIENCE_NS: u64 = faaster_limits::TIMEOUT_SECS_MAX as u64 * 1_000_000_000;

impl<R: Ring> Shard<R> {
    /// Runs a call that was admitted on its home shard, or lets it wait.
    pub(crate) fn run_or_queue(&mut self, mut call: Call, event: Payload<'_>) -> Id<Call> {
        let function = self.functions.get(call.function);
        let timeout_ns = function.deployed.timeout_ms * 1_000_000;
        // Nobody waits for an event; it may wait itself until something runs it.
        let patience_ns = if call.style == Style::Event { EVENT_PATIENCE_NS } else { timeout_ns };
        call.deadline_ns = self.now_ns + patience_ns;
        let free = if function.queue.is_empty() { function.most_recent() } else { None };
        if let Some(instance) = free
            && event.as_slice().len() <= FRAME_EVENT_BYTES_MAX
        {
            let id = self.calls.insert(call);
            self.send_call(id, instance, event.as_slice());
            return id;
        }
        let full = function.queue.len() >= QUEUE_PER_FUNCTION_MAX;
        let held = match &event {
            Payload::Borrowed(bytes) => Spares::footprint(bytes.len()),
            Payload::Owned(bytes) => bytes.len(),
        };
        let index = call.function;
        let admitted = !full && self.hold(held);
        if admitted {
            call.held_bytes = held;
            call.event = match event {
                Payload::Borrowed(bytes) => self.spares.copy(bytes),
                Payload::Owned(bytes) => bytes,
            };
        }
        let id = self.calls.insert(call);
        if !admitted {
            self.counters.invocations_throttled_total += 1;
            self.answer(id, Outcome::Refused(Refused::Busy), Payload::Borrowed(b""));
            return id;
        }
        self.functions.get_mut(index).queue.push_back(id);
        if let Some(instance) = free {
            self.pull(instance);
        } else {
            self.consider_starting(index);
        }
        id
    }

    /// Sends a call to an instance that has room.
    fn send_call(&mut self, id: Id<Call>, instance_id: Id<Instance>, event: &[u8]) {
        let now_ns = self.now_ns;
        let call = self.calls.get_mut(id).expect("the caller holds it");
        let instance = self.instances.get_mut(instance_id).expect("ready instances are alive");
        assert!(instance.has_room(), "an instance without room was chosen");
        if call.tail == Tail::Wanted && instance.in_flight.is_empty() && instance.accepted_total > 0 {
            // What was printed between calls belongs to no call.
            let (log, function) = (instance.log, instance.deployed.clone());
            self.drain_log_of_nobody(log, function);
        }
        if self.instances.get(instance_id).is_some_and(|instance| instance.accepted_total == 0) {
            self.give_early_log(id, instance_id);
        }
        let call = self.calls.get_mut(id).expect("the caller holds it");
        let instance = self.instances.get_mut(instance_id).expect("ready instances are alive");
        call.place = Place::Running(instance_id);
        call.started_ns = now_ns;
        if instance.ready_ns == now_ns && call.arrived_ns < now_ns {
            call.cold = Some(Box::new(instance.start().seen_from(call.arrived_ns)));
        }
        call.deadline_ns = now_ns + instance.deployed.timeout_ms * 1_000_000;
        instance.in_flight.push(id);
        instance.accepted_total += 1;
        instance.last_used_ns = now_ns;
        instance.go(Cause::CallBegins);
        let first = &event[..event.len().min(FRAME_EVENT_BYTES_MAX)];
        let edited_mb = instance.edited_mb();
        append_invoke(instance.outbox.staging(), id, call, edited_mb, first, event.len());
        if first.len() < event.len() {
            instance.feeding.push_back((id, first.len()));
        }
        let owner = Owner::Instance { index: instance_id.index, generation: instance_id.generation };
        self.timers.arm(&mut instance.alarm, call.deadline_ns, owner);
        if !instance.has_room() {
            let function = instance.function;
            self.functions.get_mut(function).not_ready(instance_id);
        }
        self.mark_instance(instance_id);
    }

    /// Lets waiting calls run on an instance for as long as it has room; then offers it to others.
    pub(crate) fn pull(&mut self, instance_id: Id<Instance>) {
        loop {
            let Some(instance) = self.instances.get(instance_id) else { return };
            let (index, room) = (instance.function, instance.has_room());
            let newest = instance.deployed.revision == self.functions.get(index).deployed.revision;
            if !room || !newest {
                self.functions.get_mut(index).not_ready(instance_id);
                return;
            }
            let function = self.functions.get_mut(index);
            let Some(call) = function.queue.pop_front() else {
                if function.starting > 0 && self.has_its_least(index) {
                    // What was asked for is not needed any more.
                    self.cancel_claims(index);
                }
                let function = self.functions.get_mut(index);
                if !function.ready.contains(&instance_id) {
                    function.ready.push(instance_id);
                }
                return;
            };
            self.begin_queued(call, instance_id);
        }
    }

    fn begin_queued(&mut self, id: Id<Call>, instance: Id<Instance>) {
        let call = self.calls.get_mut(id).expect("queues hold live calls");
        let event = std::mem::take(&mut call.event);
        if event.len() <= FRAME_EVENT_BYTES_MAX {
            let held = std::mem::take(&mut call.held_bytes);
            self.unhold(held);
        }
        self.send_call(id, instance, &event);
        if event.len() > FRAME_EVENT_BYTES_MAX {
            // The rest is fed as the outbox empties; until then the call keeps it.
            self.calls.get_mut(id).expect("sending keeps the call").event = event;
        } else {
            self.spares.keep(event);
        }
    }

    /// Appends the next part of a large event once the outbox has room.
    pub(crate) fn feed(&mut self, instance_id: Id<Instance>) {
        let Some(instance) = self.instances.get_mut(instance_id) else { return };
        if instance.outbox.pending_bytes() > FRAME_EVENT_BYTES_MAX {
            return;
        }
        let Some((id, from)) = instance.feeding.pop_front() else { return };
        let Some(call) = self.calls.get_mut(id) else { return self.feed(instance_id) };
        let to = (from + FRAME_EVENT_BYTES_MAX).min(call.event.len());
        let mut header = Header::new(FrameType::RequestPart, id.to_bits());
        header.body_bytes = u32::try_from(to - from).expect("bounded by FRAME_EVENT_BYTES_MAX");
        header.flags = if to < call.event.len() { FLAG_MORE } else { 0 };
        let out = instance.outbox.staging();
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(&call.event[from..to]);
        if to < call.event.len() {
            instance.feeding.push_back((id, to));
        } else {
            call.event = Vec::new();
            let held = std::mem::take(&mut call.held_bytes);
            self.unhold(held);
        }
        self.mark_instance(instance_id);
    }

    /// Asks for instances if the queue needs them and waiting would take longer than a cold start.
    pub(crate) fn consider_starting(&mut self, index: u32) {
        let Some(function) = self.functions.try_get_mut(index) else { return };
        let Some(front) = function.queue.front() else { return };
        let Some(front) = self.calls.get(*front) else { return };
        let waited_ns = self.now_ns.saturating_sub(front.arrived_ns);
        let frozen = self.count(index, |state| state == State::Frozen);
        let (awake, coming) = (self.serving(index) - frozen, self.count(index, State::is_coming));
        let wanted = starts_wanted(self.functions.get(index), awake, coming, waited_ns);
        let wanted = wanted - self.thaw_some(index, wanted);
        let function = self.functions.get(index);
        let there = self.serving(index) + function.starting as usize;
        let allowed = (function.deployed.instances_max as usize).saturating_sub(there);
        for _ in 0..wanted.min(allowed) {
            if !self.may_claim_one_more() || !self.claim(index) {
                break;
            }
        }
        self.arm_queue(index);
    }

    /// Whether the shard's table has room for another instance.
    pub(crate) fn may_claim_one_more(&self) -> bool {
        self.instances.len() + self.claims.len() < INSTANCES_PER_SHARD_MAX
    }

    /// Instances of the newest revision that take calls now or soon, or would when asked to.
    pub(crate) fn serving(&self, index: u32) -> usize {
        self.count(index, |state| !matches!(state, State::Draining | State::Gone))
    }

    /// Instances of the newest revision in certain states.
    fn count(&self, index: u32, is_meant: impl Fn(State) -> bool) -> usize {
        let function = self.functions.get(index);
        let counts = |id: &&Id<Instance>| {
            self.instances.get(**id).is_some_and(|instance| {
                is_meant(instance.state()) && instance.deployed.revision == function.deployed.revision
            })
        };
        function.instances.iter().filter(counts).count()
    }

    pub(crate) fn arm_queue(&mut self, index: u32) {
        let function = self.functions.get_mut(index);
        let Some(front) = function.queue.front() else { return };
        let Some(front) = self.calls.get(*front) else { return };
        let check_ns = self.now_ns + function.cold_ns.max(QUEUE_CHECK_NS_MIN);
        let at_ns = front.deadline_ns.min(check_ns);
        self.timers.arm(&mut function.alarm, at_ns, Owner::Function { index });
    }

    /// Refuses what waited too long, and looks again whether the queue needs more instances.
    pub(crate) fn on_function_alarm(&mut self, index: u32, fired_ns: u64) {
        let Some(function) = self.functions.try_get_mut(index) else { return };
        if !function.alarm.fired(fired_ns) {
            return;
        }
        let due = |id: &Id<Call>| self.calls.get(*id).is_none_or(|call| call.deadline_ns <= self.now_ns);
        let expired: Vec<_> = self.functions.get(index).queue.iter().copied().filter(due).collect();
        let refused = if self.is_only_loading(index) { Refused::NotReady } else { Refused::Busy };
        for id in expired {
            self.functions.get_mut(index).queue.retain(|queued| *queued != id);
            self.counters.invocations_throttled_total += 1;
            self.answer(id, Outcome::Refused(refused), Payload::Borrowed(b""));
        }
        self.spread_long_runners(index);
        self.consider_starting(index);
        self.keep_least(index);
    }

    /// Whether there are instances and none of them ever came up: then the runtime is to blame, not the load.
    fn is_only_loading(&self, index: u32) -> bool {
        let instances = &self.functions.get(index).instances;
        let came_up = |id: &Id<Instance>| self.instances.get(*id).is_some_and(|it| it.ready_ns != 0);
        !instances.is_empty() && !instances.iter().any(came_up)
    }

    /// Answers everything that waits for a function with the same words.
    pub(crate) fn fail_queue(&mut self, index: u32, outcome: Outcome, body: &[u8]) {
        while let Some(call) = self.functions.get_mut(index).queue.pop_front() {
            self.answer(call, outcome, Payload::Borrowed(body));
        }
    }

    /// Nobody waits for this call any more.
    pub(crate) fn abandon(&mut self, id: Id<Call>) {
        if self.abandon_if_queued(id) {
            return;
        }
        if let Some(call) = self.calls.get_mut(id)
            && matches!(call.place, Place::Running(_))
        {
            // It runs to its end; the answer is dropped.
            call.origin = Origin::Nobody;
            self.counters.invocations_abandoned_total += 1;
        }
    }

    /// Whether a call waits in a queue of this shard.
    pub(crate) fn waits(&self, id: Id<Call>) -> bool {
        self.calls.get(id).is_some_and(|call| call.place == Place::Queued)
    }

    /// Lets the home shard know that the client of a forwarded call closed its sending side.
    pub(crate) fn tell_half_closed(&mut self, id: Id<Call>) {
        if let Some(Call { place: Place::Forwarded(home), .. }) = self.calls.get(id) {
            let home = *home;
            self.send_packet(home, Packet::Abandon { call: id.to_bits(), leaving: Leaving::Half });
        }
    }

    /// Takes a call out of its queue, here or on its home shard. `false`: it runs.
    pub(crate) fn abandon_if_queued(&mut self, id: Id<Call>) -> bool {
        let Some(call) = self.calls.get(id) else { return true };
        match call.place {
            Place::Running(_) => false,
            Place::Queued => {
                let index = call.function;
                self.functions.get_mut(index).queue.retain(|queued| *queued != id);
                self.forget(id);
                self.counters.invocations_abandoned_total += 1;
                true
            }
            Place::Forwarded(home) => {
                // The answer that still comes finds no call and is dropped.
                self.send_packet(home, Packet::Abandon { call: id.to_bits(), leaving: Leaving::Gone });
                self.forget(id);
                true
            }
        }
    }

    /// Removes a call and what it holds.
    pub(crate) fn forget(&mut self, id: Id<Call>) -> Option<Call> {
        let mut call = self.calls.remove(id)?;
        let held = std::mem::take(&mut call.held_bytes);
        self.unhold(held);
        self.spares.keep(std::mem::take(&mut call.event));
        if matches!(call.origin, Origin::Nobody) && call.style == Style::Event {
            self.async_queued -= 1;
        }
        Some(call)
    }

    /// An instance came to life or has room again.
    pub(crate) fn offer(&mut self, instance: Id<Instance>) {
        self.pull(instance);
    }

    /// Whether the function still exists for callers.
    pub(crate) fn is_deployed(&self, index: u32) -> bool {
        self.functions.get(index).presence == Presence::Deployed
    }
}

/// How many more instances to ask for.
fn starts_wanted(function: &Function, serving: usize, loading: usize, waited_ns: u64) -> usize {
    let slots = function.deployed.concurrency.slots() as usize;
    let queued = function.queue.len();
    let starting = function.starting as usize;
    let allowed = (function.deployed.instances_max as usize).saturating_sub(serving + starting);
    // What is coming already will take this much of the queue.
    let coming = starting + loading;
    let needed = queued.div_ceil(slots).saturating_sub(coming).min(allowed);
    if needed == 0 {
        return 0;
    }
    if serving + starting == 0 {
        return 1;
    }
    let expected_ns = function.expected_wait_ns(serving.max(1)).max(waited_ns);
    if expected_ns <= function.cold_ns {
        return 0;
    }
    // Enough lanes that the queue is gone after about one cold start.
    let service_ns = function.service_ns.max(waited_ns).max(1);
    let lanes = (queued as u64 * service_ns).div_ceil(function.cold_ns.max(1));
    let instances = usize::try_from(lanes).unwrap_or(usize::MAX).div_ceil(slots);
    needed.min(instances.saturating_sub(coming).max(1))
}

/// Appends an `invoke` frame with the first bytes of an event of `event_bytes`.
fn append_invoke(
    out: &mut Vec<u8>,
    id: Id<Call>,
    call: &Call,
    edited_mb: Option<u32>,
    first: &[u8],
    event_bytes: usize,
) {
    let at = out.len();
    out.resize(at + HEADER_BYTES, 0);
    let meta = append_invoke_meta(out, call.request_id.as_bytes(), call.client_context.as_deref(), edited_mb);
    let mut header = Header::new(FrameType::Invoke, id.to_bits());
    header.deadline_ns = call.deadline_ns;
    header.meta_bytes = u32::try_from(meta).expect("bounded by the head limit");
    header.body_bytes = u32::try_from(first.len()).expect("bounded by FRAME_EVENT_BYTES_MAX");
    header.flags = if first.len() < event_bytes { FLAG_MORE } else { 0 };
    out[at..at + HEADER_BYTES].copy_from_slice(&header.encode());
    out.extend_from_slice(first);
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
