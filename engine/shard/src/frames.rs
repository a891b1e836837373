//! What runtimes say: frames in, and the end of instances.
//!
//! Owns: putting frames together from buffers, checking that they fit the instance's state, deadlines of instances.
//! Must not know: HTTP; answers leave through [`Shard::answer`].

use faaster_limits::{
    INSTANCE_SEND_BYTES_MAX, LOG_FRAME_BYTES_MAX, LOG_TAIL_BYTES_MAX, RESPONSE_BYTES_MAX,
    RESPONSE_PART_BYTES_MAX, RUNTIME_FRAME_BYTES_MAX,
};
use faaster_protocol::frame::{FrameType, HEADER_BYTES, Header, promises_pong};
use faaster_sys::ring::{Armed, Group, Received, Ring};
use rustix::io::Errno;

use crate::answer::Outcome;
use crate::call::{Call, Origin, Tail};
use crate::event::Source;
use crate::health::Health;
use crate::ingress::Payload;
use crate::instance::{Cause, Ending, Instance, State};
use crate::shard::Shard;
use crate::slab::Id;

/// After its container was told to end, or its channel closed, the other half of the news is waited for this long.
const END_NS_MAX: u64 = 1_000_000_000;
/// A retired instance gets this long to exit by itself before it is killed.
const DISMISS_NS: u64 = 200_000_000;

impl<R: Ring> Shard<R> {
    pub(crate) fn on_instance_received(&mut self, id: Id<Instance>, received: Received, armed: Armed) {
        match received {
            Received::Data(lease) => {
                self.on_instance_bytes(id, &lease);
                self.give_back(lease);
            }
            Received::Failed(Errno::NOBUFS) => {
                self.counters.buffers_exhausted_total += 1;
                self.starved_instances.push(id);
                return;
            }
            Received::End | Received::Failed(_) => return self.on_channel_end(id),
        }
        if armed == Armed::No {
            self.rearm_instance(id);
        }
    }

    pub(crate) fn rearm_instance(&mut self, id: Id<Instance>) {
        if let Some(instance) = self.instances.get(id)
            && !instance.channel_ended
        {
            let channel = instance.channel;
            self.ring.receive(channel, Group::Instance, Source::InstanceReceive.of(id));
        }
    }

    fn on_instance_bytes(&mut self, id: Id<Instance>, bytes: &[u8]) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        if matches!(instance.ending, Ending::Broken) {
            // Its end is under way; nothing that it says until then counts.
            return;
        }
        if instance.partial.is_empty() {
            let used = self.take_frames(id, bytes);
            if let Some(instance) = self.instances.get_mut(id) {
                instance.partial.extend_from_slice(&bytes[used..]);
            }
        } else {
            let mut partial = std::mem::take(&mut instance.partial);
            partial.extend_from_slice(bytes);
            let used = self.take_frames(id, &partial);
            if let Some(instance) = self.instances.get_mut(id) {
                partial.drain(..used);
                instance.partial = partial;
            }
        }
        self.offer(id);
    }

    /// Handles all complete frames; answers with how many bytes they were.
    fn take_frames(&mut self, id: Id<Instance>, bytes: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            match Header::decode(rest) {
                Ok(None) => return used,
                Ok(Some(header)) => {
                    if header.body_bytes as usize > body_bytes_max(header.kind) {
                        self.break_off(id);
                        return bytes.len();
                    }
                    let total = HEADER_BYTES + header.payload_bytes();
                    if rest.len() < total {
                        return used;
                    }
                    let meta_end = HEADER_BYTES + header.meta_bytes as usize;
                    if self
                        .on_frame(id, &header, &rest[HEADER_BYTES..meta_end], &rest[meta_end..total])
                        .is_err()
                    {
                        self.break_off(id);
                        return bytes.len();
                    }
                    used += total;
                }
                Err(_) => {
                    self.break_off(id);
                    return bytes.len();
                }
            }
        }
    }

    /// The runtime broke the protocol: the instance ends, its neighbours never notice.
    fn break_off(&mut self, id: Id<Instance>) {
        self.retire_now(id, Ending::Broken);
        self.kill(id);
    }

    pub(crate) fn retire_now(&mut self, id: Id<Instance>, ending: Ending) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        match (instance.ending, ending) {
            // What becomes of a retired one is nothing to those who wait for its successor.
            (Ending::NotYet, _) | (Ending::Retired, Ending::TimedOut) => instance.ending = ending,
            _ => {}
        }
        if !matches!(instance.state(), State::Draining | State::Gone) {
            instance.go(Cause::Drain);
            let index = instance.function;
            self.functions.get_mut(index).not_ready(id);
        }
    }

    fn on_frame(
        &mut self,
        id: Id<Instance>,
        header: &Header,
        meta: &[u8],
        body: &[u8],
    ) -> Result<(), Violation> {
        let instance = self.instances.get(id).ok_or(Violation)?;
        let call = Id::<Call>::from_bits(header.invocation);
        match header.kind {
            FrameType::Hello if instance.state() == State::Loading => Ok(()),
            FrameType::Ready if instance.state() == State::Loading => {
                self.on_ready(id, meta);
                Ok(())
            }
            FrameType::Ready if instance.state() == State::Draining => Ok(()),
            FrameType::Pong => {
                let well = instance.health.answered(self.now_ns).ok_or(Violation)?;
                self.instances.get_mut(id).expect("got above").health = well;
                Ok(())
            }
            FrameType::Error if header.invocation == 0 => {
                self.on_load_error(id, body);
                Ok(())
            }
            FrameType::Response => self.on_response(id, call, header, body),
            FrameType::Error => self.on_call_error(id, call, body),
            FrameType::Log => {
                self.on_log_frame(id, call, body);
                Ok(())
            }
            _ => Err(Violation),
        }
    }

    fn on_ready(&mut self, id: Id<Instance>, meta: &[u8]) {
        let now_ns = self.now_ns;
        let instance = self.instances.get_mut(id).expect("the frame came from it");
        instance.go(Cause::Ready);
        instance.ready_ns = now_ns;
        instance.last_used_ns = now_ns;
        instance.since_ns = now_ns;
        if promises_pong(meta) {
            instance.health = Health::Well { heard_ns: now_ns };
        }
        let (index, took_ns) = (instance.function, now_ns.saturating_sub(instance.claimed_ns));
        self.functions.get_mut(index).saw_cold_start(took_ns);
        self.arm_idle(id);
    }

    /// The handler could not be loaded: everybody who waits for this code hears why.
    fn on_load_error(&mut self, id: Id<Instance>, body: &[u8]) {
        let Some(instance) = self.instances.get(id) else { return };
        if instance.state() != State::Loading {
            // It says that it is about to end: it still answers what it has, and gets nothing new.
            self.retire_now(id, Ending::Dying);
            if self.instances.get(id).is_some_and(|instance| instance.in_flight.is_empty()) {
                self.dismiss(id);
            }
            return;
        }
        let index = instance.function;
        self.collect_log(id);
        self.retire_now(id, Ending::LoadFailed);
        self.kill(id);
        let function = self.functions.get(index);
        if function.ready.is_empty() {
            self.counters.invocations_failed_total += function.queue.len() as u64;
            self.fail_queue(index, Outcome::FunctionError, body);
        }
    }

    fn on_response(
        &mut self,
        id: Id<Instance>,
        call_id: Id<Call>,
        header: &Header,
        body: &[u8],
    ) -> Result<(), Violation> {
        if !self.owns(id, call_id) {
            return Err(Violation);
        }
        let Some(call) = self.calls.get_mut(call_id) else {
            // It was answered at its deadline; the late result is dropped.
            if !header.has_more() {
                self.call_left(id, call_id, 0);
            }
            return Ok(());
        };
        if !matches!(call.origin, Origin::Answered) && call.result.len() + body.len() > RESPONSE_BYTES_MAX {
            self.counters.invocations_failed_total += 1;
            let text = too_large();
            self.answer_early(call_id, Outcome::FunctionError, Payload::Borrowed(text.as_bytes()));
        }
        let call = self.calls.get_mut(call_id).expect("an early answer keeps the call");
        let in_parts = header.has_more() || call.credit.used > 0;
        if in_parts && (body.len() > RESPONSE_PART_BYTES_MAX || !call.credit.spend(body.len())) {
            return Err(Violation);
        }
        if header.has_more() {
            if body.is_empty() {
                return Err(Violation);
            }
            self.on_result_part(id, call_id, body);
            return Ok(());
        }
        let took_ns = self.now_ns.saturating_sub(call.started_ns);
        let collected = std::mem::take(&mut call.result);
        let wants_tail = call.tail == Tail::Wanted;
        if wants_tail {
            self.collect_log(id);
        }
        self.call_left(id, call_id, took_ns);
        if collected.is_empty() {
            self.answer(call_id, Outcome::Success, Payload::Borrowed(body));
        } else {
            let mut whole = collected;
            whole.extend_from_slice(body);
            self.answer(call_id, Outcome::Success, Payload::Owned(whole));
        }
        Ok(())
    }

    fn on_call_error(&mut self, id: Id<Instance>, call_id: Id<Call>, body: &[u8]) -> Result<(), Violation> {
        if !self.owns(id, call_id) {
            return Err(Violation);
        }
        let Some(call) = self.calls.get(call_id) else {
            self.call_left(id, call_id, 0);
            return Ok(());
        };
        let took_ns = self.now_ns.saturating_sub(call.started_ns);
        if call.tail == Tail::Wanted {
            self.collect_log(id);
        }
        if let Some(instance) = self.instances.get_mut(id) {
            instance.failed_total += 1;
        }
        self.call_left(id, call_id, took_ns);
        self.counters.invocations_failed_total += 1;
        self.answer(call_id, Outcome::FunctionError, Payload::Borrowed(body));
        Ok(())
    }

    fn owns(&self, id: Id<Instance>, call: Id<Call>) -> bool {
        self.instances.get(id).is_some_and(|instance| instance.in_flight.contains(&call))
    }

    /// A call is off the instance; `took_ns` 0 where its time says nothing.
    fn call_left(&mut self, id: Id<Instance>, call: Id<Call>, took_ns: u64) {
        let now_ns = self.now_ns;
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.forget_call(call);
        instance.last_used_ns = now_ns;
        let (index, state) = (instance.function, instance.state());
        if took_ns > 0 {
            self.functions.get_mut(index).saw_service(took_ns);
            self.place_by_service(id);
        }
        if state == State::Draining
            && self.instances.get(id).is_some_and(|instance| instance.in_flight.is_empty())
        {
            self.dismiss(id);
        }
    }

    /// Holds a part of a large result and lets the runtime send more, now or once the shard has room again. What nobody
    /// waits for is let through, so that the instance comes free.
    fn on_result_part(&mut self, id: Id<Instance>, call_id: Id<Call>, body: &[u8]) {
        let call = self.calls.get(call_id).expect("the caller holds it");
        if !matches!(call.origin, Origin::Answered) {
            let room = self.hold(body.len());
            let call = self.calls.get_mut(call_id).expect("the caller holds it");
            call.result.extend_from_slice(body);
            if room {
                call.held_bytes += body.len();
            } else {
                if call.credit.unheld == 0 {
                    self.owed_grants.push_back((id, call_id));
                }
                call.credit.unheld += body.len();
            }
        }
        self.grant(id, call_id);
    }

    /// Holds and grants what had to wait for room.
    pub(crate) fn pay_grants(&mut self) {
        while let Some((id, call_id)) = self.owed_grants.front().copied() {
            let unheld = self.calls.get(call_id).map_or(0, |call| call.credit.unheld);
            if !self.hold(unheld) {
                return;
            }
            self.owed_grants.pop_front();
            if let Some(call) = self.calls.get_mut(call_id) {
                call.held_bytes += unheld;
                call.credit.unheld = 0;
                self.grant(id, call_id);
            }
        }
    }

    /// Sends a `window` if one is due. A runtime that does not read what it is sent gets no more of them.
    fn grant(&mut self, id: Id<Instance>, call_id: Id<Call>) {
        let (Some(call), Some(instance)) = (self.calls.get_mut(call_id), self.instances.get_mut(id)) else {
            return;
        };
        if instance.outbox.pending_bytes() >= INSTANCE_SEND_BYTES_MAX {
            instance.grants_wait = true;
            return;
        }
        let bytes = call.credit.take_grant();
        if bytes > 0 {
            let mut header = Header::new(FrameType::Window, call_id.to_bits());
            header.credit_bytes = bytes;
            instance.outbox.staging().extend_from_slice(&header.encode());
            self.mark_instance(id);
        }
    }

    /// The runtime has read on: grants that waited for it go out.
    pub(crate) fn go_on_granting(&mut self, id: Id<Instance>) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        if std::mem::take(&mut instance.grants_wait) {
            for call in instance.in_flight.clone() {
                self.grant(id, call);
            }
        }
    }

    /// Nothing is left to do for a retired instance: it may exit by itself, else it is killed. Said once: whatever it
    /// does from now on, its time does not begin anew.
    pub(crate) fn dismiss(&mut self, id: Id<Instance>) {
        let kill_at_ns = self.now_ns + DISMISS_NS;
        let Some(instance) = self.instances.get_mut(id) else { return };
        if instance.ending == Ending::TimedOut {
            self.kill(id);
            return;
        }
        if std::mem::replace(&mut instance.dismissed, true) {
            return;
        }
        instance.kill_at_ns = kill_at_ns;
        let header = Header::new(FrameType::Shutdown, 0);
        instance.outbox.staging().extend_from_slice(&header.encode());
        self.mark_instance(id);
        self.arm_instance(id, kill_at_ns);
    }

    pub(crate) fn on_instance_alarm(&mut self, id: Id<Instance>, fired_ns: u64) {
        let now_ns = self.now_ns;
        let Some(instance) = self.instances.get_mut(id) else { return };
        if !instance.alarm.fired(fired_ns) {
            return;
        }
        let due = |at_ns: u64| at_ns != 0 && at_ns <= now_ns;
        if instance.kill_sent || instance.channel_ended {
            if due(instance.kill_at_ns) {
                self.bury(id);
                return;
            }
        } else if instance.kill_at_ns != 0 && due(instance.kill_at_ns) {
            self.kill(id);
            return;
        } else if instance.patience_ends_ns().is_some_and(due) {
            self.retire_now(id, Ending::NotReady);
            self.kill(id);
            return;
        }
        self.expire_calls(id);
        self.rest_or_retire(id);
    }

    /// Answers calls whose deadline passed (DESIGN section 4).
    fn expire_calls(&mut self, id: Id<Instance>) {
        let Some(instance) = self.instances.get(id) else { return };
        if instance.kill_sent {
            return;
        }
        let exclusive = instance.deployed.concurrency.slots() == 1;
        let expired: Vec<_> = instance
            .in_flight
            .iter()
            .copied()
            .filter(|call| self.calls.get(*call).is_some_and(|call| call.deadline_ns <= self.now_ns))
            .collect();
        if expired.is_empty() {
            return;
        }
        self.retire_now(id, Ending::TimedOut);
        if exclusive {
            // Killed first, answered when it is dead: no side effects after a time-out.
            self.kill(id);
            return;
        }
        for call in expired {
            let header = Header::new(FrameType::Cancel, call.to_bits());
            if let Some(instance) = self.instances.get_mut(id) {
                instance.failed_total += 1;
                instance.outbox.staging().extend_from_slice(&header.encode());
            }
            self.mark_instance(id);
            self.answer_timed_out(call);
        }
        // Its neighbours get as long as a fresh call would, then it goes.
        if let Some(instance) = self.instances.get_mut(id)
            && instance.kill_at_ns == 0
        {
            instance.kill_at_ns = self.now_ns + instance.deployed.timeout_ms * 1_000_000;
        }
    }

    fn on_channel_end(&mut self, id: Id<Instance>) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.channel_ended = true;
        if instance.end.is_some() {
            self.bury(id);
            return;
        }
        self.retire_now(id, Ending::NotYet);
        // A runtime that closes its channel is of no use; its exit, if it was one, is told by the funclet at once.
        self.expect_end(id);
    }

    /// Sets the time after which the instance is buried with or without the other half of the news.
    pub(crate) fn expect_end(&mut self, id: Id<Instance>) {
        let at_ns = self.now_ns + END_NS_MAX;
        if let Some(instance) = self.instances.get_mut(id) {
            instance.kill_at_ns = at_ns;
        }
        self.arm_instance(id, at_ns);
    }

    pub(crate) fn answer_timed_out(&mut self, id: Id<Call>) {
        let Some(call) = self.calls.get(id) else { return };
        let secs = self.functions.get(call.function).deployed.timeout_ms / 1000;
        let text = format!(
            "{{\"errorMessage\":\"{} Task timed out after {secs} seconds\"}}",
            call.request_id.as_str()
        );
        self.counters.invocations_timed_out_total += 1;
        self.answer(id, Outcome::FunctionError, Payload::Borrowed(text.as_bytes()));
    }

    fn on_log_frame(&mut self, id: Id<Instance>, call: Id<Call>, text: &[u8]) {
        let Some(instance) = self.instances.get(id) else { return };
        let function = instance.deployed.clone();
        // What is said of a call that is not this instance's is kept as said of none.
        let own = instance.in_flight.contains(&call);
        let mut request_id = String::new();
        if let Some(call) = self.calls.get_mut(call).filter(|_| own) {
            request_id.push_str(call.request_id.as_str());
            keep_tail(call, text);
        }
        self.log(function, request_id, text.to_vec());
    }
}

/// Bounds of what a runtime sends: nothing larger is even waited for.
fn body_bytes_max(kind: FrameType) -> usize {
    if kind == FrameType::Log { LOG_FRAME_BYTES_MAX } else { RUNTIME_FRAME_BYTES_MAX }
}

/// Adds to what a log tail returns: the first bytes, as FaaSter does.
pub(crate) fn keep_tail(call: &mut Call, text: &[u8]) {
    if call.tail == Tail::Wanted {
        let room = LOG_TAIL_BYTES_MAX.saturating_sub(call.log.len());
        call.log.extend_from_slice(&text[..text.len().min(room)]);
    }
}

/// The frame does not fit the instance's state.
struct Violation;

fn too_large() -> String {
    format!(
        "{{\"errorMessage\":\"the result is larger than {RESPONSE_BYTES_MAX} bytes\",\
         \"errorType\":\"Function.ResponseSizeTooLarge\"}}"
    )
}
