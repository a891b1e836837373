//! What instances print, on its way to the function's log and to log tails.
//!
//! Owns: reading log pipes. Must not know: where logs are kept.

use std::sync::Arc;

use faaster_function::Deployed;
use faaster_limits::{LOG_RING_BYTES_MAX, LOG_TAIL_BYTES_MAX};
use faaster_sys::ring::{Group, Received, Ring, Sock};
use rustix::io::Errno;

use crate::api::{LogChunk, Notice};
use crate::call::{Call, Tail};
use crate::event::Source;
use crate::frames::keep_tail;
use crate::instance::Instance;
use crate::shard::Shard;
use crate::slab::Id;

impl<R: Ring> Shard<R> {
    /// Asks for the next bytes of an instance's log pipe.
    pub(crate) fn read_log(&mut self, id: Id<Instance>) {
        if let Some(instance) = self.instances.get_mut(id)
            && !instance.log_reading
        {
            instance.log_reading = true;
            let log = instance.log;
            self.ring.read(log, Group::Instance, Source::InstanceLog.of(id));
        }
    }

    pub(crate) fn on_log_received(&mut self, id: Id<Instance>, received: Received) {
        if let Some(instance) = self.instances.get_mut(id) {
            instance.log_reading = false;
        }
        match received {
            Received::Data(lease) => {
                self.on_log_bytes(id, &lease);
                self.give_back(lease);
                self.read_log(id);
            }
            Received::Failed(Errno::NOBUFS) => {
                self.counters.buffers_exhausted_total += 1;
                self.starved_logs.push(id);
            }
            // The instance closed both ends of its output; it may live on without.
            Received::End | Received::Failed(_) => {}
        }
    }

    fn on_log_bytes(&mut self, id: Id<Instance>, bytes: &[u8]) {
        let Some(instance) = self.instances.get(id) else { return };
        let function = instance.deployed.clone();
        let only_call = match instance.in_flight[..] {
            [call] if instance.deployed.concurrency.slots() == 1 => Some(call),
            _ => None,
        };
        if instance.accepted_total == 0 {
            let instance = self.instances.get_mut(id).expect("got above");
            let room = LOG_TAIL_BYTES_MAX.saturating_sub(instance.early_log.len());
            instance.early_log.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        let mut request_id = String::new();
        if let Some(call) = only_call.and_then(|call| self.calls.get_mut(call)) {
            request_id.push_str(call.request_id.as_str());
            keep_tail(call, bytes);
        }
        self.log(function, request_id, bytes.to_vec());
    }

    /// Takes what an instance has printed up to now: a runtime flushes before it answers, so at its answer this is
    /// all that the call printed.
    pub(crate) fn collect_log(&mut self, id: Id<Instance>) {
        let Some(instance) = self.instances.get(id) else { return };
        let log = instance.log;
        let mut text = Vec::new();
        self.ring.drain_now(log, &mut text, LOG_RING_BYTES_MAX);
        if !text.is_empty() {
            self.on_log_bytes(id, &text);
        }
    }

    /// What an instance printed while it loaded belongs to its first call (docs/protocol.md section 4).
    pub(crate) fn give_early_log(&mut self, call: Id<Call>, id: Id<Instance>) {
        if self.calls.get(call).is_some_and(|call| call.tail == Tail::Wanted) {
            self.collect_log(id);
        }
        let Some(instance) = self.instances.get_mut(id) else { return };
        let early = std::mem::take(&mut instance.early_log);
        if let Some(call) = self.calls.get_mut(call) {
            keep_tail(call, &early);
        }
    }

    pub(crate) fn drain_log_of_nobody(&mut self, log: Sock, function: Arc<Deployed>) {
        let mut text = Vec::new();
        self.ring.drain_now(log, &mut text, LOG_RING_BYTES_MAX);
        if !text.is_empty() {
            self.log(function, String::new(), text);
        }
    }

    /// Hands lines over; those that the control thread has no room for are counted and dropped.
    pub(crate) fn log(&mut self, function: Arc<Deployed>, request_id: String, text: Vec<u8>) {
        let bytes = text.len() as u64;
        if (self.sink)(Notice::Log(LogChunk { function, request_id, text })).is_err() {
            self.counters.log_bytes_dropped_total += bytes;
        }
    }
}
