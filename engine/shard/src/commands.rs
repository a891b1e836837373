//! What the control thread asks of a shard.
//!
//! Owns: nothing of its own. Must not know: who the control thread is.

use std::sync::Arc;
use std::time::Duration;

use faaster_function::Deployed;
use faaster_http::{Status, Version, response};
use faaster_sys::ring::Ring;

use crate::answer::{Outcome, Refused};
use crate::api::{Command, ControlReply, InstanceReport, Reply, ShardId, ShardReport};
use crate::connection::Reading;
use crate::functions::Presence;
use crate::ingress::Payload;
use crate::instance::State;
use crate::invoke::Seat;
use crate::shard::Shard;
use crate::slab::Id;

impl<R: Ring> Shard<R> {
    /// Takes over what is deployed already, before the shard runs.
    pub(crate) fn know(&mut self, known: &[Arc<Deployed>]) {
        for deployed in known {
            self.functions.deploy(deployed.clone(), self.config.shards);
        }
    }

    pub(crate) fn on_command(&mut self, command: Command) {
        match command {
            Command::Deploy(deployed, reply) => {
                let before = self.functions.find(deployed.key.as_bytes()).map(|(_, it)| it.deployed.clone());
                let index = self.functions.deploy(deployed, self.config.shards);
                self.resize_instances(index, before.as_deref());
                self.retire_old(index);
                self.consider_starting(index);
                self.keep_least(index);
                reply(self.id);
            }
            Command::Remove(key, reply) => {
                self.on_remove(&key);
                reply(self.id);
            }
            Command::Reply(answer) => self.on_control_reply(answer),
            Command::FuncletUp { funclet, channel } => self.on_funclet_up(funclet, channel),
            Command::Invalidate { funclet, slot, reply } => {
                let found = self
                    .instances
                    .iter()
                    .find(|(_, it)| it.funclet == funclet && it.slot.0 == slot && it.state() != State::Gone)
                    .map(|(id, _)| id);
                if let Some(id) = found {
                    self.retire(id);
                }
                reply(found.is_some());
            }
            Command::Report(reply) => reply(self.report()),
            Command::Code(wanted, found) => self.on_code(&wanted, found),
            Command::Drain(reply) => self.on_drain(reply),
        }
    }

    /// Instances of older revisions finish what they run and go.
    fn retire_old(&mut self, index: u32) {
        let function = self.functions.get(index);
        let revision = function.deployed.revision;
        let old = |id: &&Id<_>| self.instances.get(**id).is_some_and(|it| it.deployed.revision != revision);
        let old: Vec<_> = function.instances.iter().filter(old).copied().collect();
        for id in old {
            self.retire(id);
        }
    }

    fn on_remove(&mut self, key: &str) {
        let Some((index, _)) = self.functions.find(key.as_bytes()) else { return };
        self.functions.get_mut(index).presence = Presence::Removed;
        self.fail_queue(index, Outcome::Refused(Refused::Removed), b"");
        for id in self.functions.get(index).instances.clone() {
            self.retire(id);
        }
        self.functions.release_if_unused(index);
    }

    fn on_control_reply(&mut self, reply: ControlReply) {
        self.control_in_flight = self.control_in_flight.saturating_sub(1);
        let to = reply.reply_to;
        let seat = Seat { connection: Id::new(to.connection, to.generation), sequence: to.sequence };
        let status = Status::from_code(reply.status).unwrap_or(Status::INTERNAL_SERVER_ERROR);
        self.put(seat, Payload::Owned(reply.body), |out, length| {
            response::start(out, Version::Http11, status);
            for (name, value) in &reply.headers {
                if !response::is_reserved(name.as_bytes()) {
                    // A header that HTTP does not allow is left out: the router is ours, not a function's.
                    response::header(out, name.as_bytes(), value).ok();
                }
            }
            response::content_length(out, length);
        });
    }

    fn report(&self) -> ShardReport {
        let mut counters = self.counters.clone();
        counters.connections_open = self.connections.len() as u64;
        counters.held_bytes = self.held_bytes as u64;
        let since = |at_ns: u64| Duration::from_nanos(self.now_ns.saturating_sub(at_ns));
        let instances = self
            .instances
            .iter()
            .map(|(_, it)| InstanceReport {
                function: it.deployed.clone(),
                funclet: it.funclet,
                slot: it.slot.0,
                generation: it.generation.0,
                state: it.state().name(),
                in_flight: u32::try_from(it.in_flight.len()).unwrap_or(u32::MAX),
                accepted_total: it.accepted_total,
                failed_total: it.failed_total,
                age: since(it.claimed_ns),
                idle: since(it.last_used_ns),
                load: Duration::from_nanos(it.ready_ns.saturating_sub(it.claimed_ns)),
                phases: it.phases,
            })
            .collect();
        let queued = self
            .functions
            .iter()
            .filter(|(_, function)| !function.queue.is_empty())
            .map(|(_, function)| (function.deployed.key.clone(), function.queue.len()))
            .collect();
        ShardReport { shard: self.id, counters, instances, queued }
    }

    /// Stops accepting; connections that wait for nothing are closed now, the others after their answer.
    fn on_drain(&mut self, reply: Reply<ShardId>) {
        self.draining = Some(reply);
        for (sock, _) in std::mem::take(&mut self.listeners) {
            // The supervisor has it open as well: closing it alone would leave clients waiting in its backlog.
            self.ring.stop_listening(sock);
            self.ring.close(sock);
        }
        for id in self.connections.ids() {
            let idle = self.connections.get(id).is_some_and(|connection| {
                connection.unanswered() == 0
                    && connection.outbox.pending_bytes() == 0
                    && connection.input.is_empty()
                    && matches!(connection.reading, Reading::Head(_))
            });
            if idle {
                self.drop_connection(id);
            }
        }
    }

    /// Calls back once nothing is in flight any more.
    pub(crate) fn report_drained(&mut self) {
        let idle = self.calls.len() == 0
            && self.control_in_flight == 0
            && self.connections.iter().all(|(_, connection)| {
                connection.outbox.pending_bytes() == 0 && !matches!(connection.reading, Reading::Body(_))
            });
        if idle && let Some(reply) = self.draining.take() {
            reply(self.id);
            // Still draining: nothing new is accepted, later answers close their connection.
            self.draining = Some(Box::new(|_| {}));
        }
    }
}
