//! The loop: wait, handle everything that happened, send everything that is due, wait again.
//!
//! Owns: the order in which one turn does things. One system call per turn as a rule (docs/architecture.md lists the
//! exceptions): sends queued in a turn go out with the wait that ends it. Must not know: what the handlers do.

use std::time::Duration;

use faaster_sys::ring::{Completion, Ring, RingError};

use crate::connection::Connection;
use crate::event::Source;
use crate::instance::Instance;
use crate::outbox::Parcel;
use crate::shard::Shard;
use crate::slab::Id;
use crate::timer::Owner;

/// Messages of other threads that one turn takes, so that clients get their turn as well.
const MESSAGES_PER_TURN_MAX: usize = 256;

impl<R: Ring> Shard<R> {
    /// Runs for ever on the calling thread.
    ///
    /// # Errors
    /// The ring is unusable; the engine must be restarted.
    pub fn run(mut self) -> Result<std::convert::Infallible, RingError> {
        self.begin();
        loop {
            self.turn(None)?;
        }
    }

    /// Arms the listeners and the doorbell.
    pub fn begin(&mut self) {
        for listener in 0..self.listeners.len() {
            self.listen(u32::try_from(listener).expect("a handful of listeners"));
        }
        self.ring.listen_bell(self.bell, Source::Bell.token(0, 0));
    }

    /// One turn; `patience` bounds the wait beside the shard's own deadlines.
    ///
    /// # Errors
    /// See [`Shard::run`].
    pub fn turn(&mut self, patience: Option<Duration>) -> Result<(), RingError> {
        let timeout = self.timeout(patience);
        let mut completions = std::mem::take(&mut self.completions);
        let waited = self.ring.wait(timeout, &mut completions);
        self.mailbox.awake();
        self.now_ns = self.ring.now_ns();
        self.refresh_date();
        for completion in completions.drain(..) {
            self.on_completion(completion);
        }
        self.completions = completions;
        waited?;
        self.take_messages();
        self.fire_timers();
        self.go_on();
        self.flush();
        if self.draining.is_some() {
            self.report_drained();
        }
        Ok(())
    }

    pub(crate) fn timeout(&mut self, patience: Option<Duration>) -> Option<Duration> {
        if !self.unsent.is_empty() {
            // The other shard's lane was full: it is awake and emptying it.
            return Some(Duration::from_micros(50));
        }
        // A connection that was found at the end of the last turn to be readable again is work, too.
        if !self.resumable.is_empty() || !self.mailbox.prepare_sleep() {
            return Some(Duration::ZERO);
        }
        let until_timer = self.timers.next_ns().map(|at_ns| {
            let now_ns = self.ring.now_ns();
            Duration::from_nanos(at_ns.saturating_sub(now_ns))
        });
        match (until_timer, patience) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        }
    }

    fn refresh_date(&mut self) {
        let unix_secs = self.ring.unix_secs();
        if unix_secs != self.date.unix_s() {
            self.date.set(unix_secs);
            if let Some(template) = &mut self.template {
                template.refresh(&self.date);
            }
        }
    }

    fn on_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Accepted { token, result, armed } => {
                let (_, listener, _) = Source::parse(token);
                if (listener as usize) < self.listeners.len() {
                    self.on_accepted(listener, result, armed);
                } else if let Ok(sock) = result {
                    // The listener was closed by a drain.
                    self.ring.close(sock);
                }
            }
            Completion::Received { token, received, armed } => {
                let (source, index, generation) = Source::parse(token);
                match source {
                    Source::ClientReceive => {
                        self.on_client_received(Id::new(index, generation), received, armed);
                    }
                    Source::InstanceReceive => {
                        self.on_instance_received(Id::new(index, generation), received, armed);
                    }
                    Source::InstanceLog => self.on_log_received(Id::new(index, generation), received),
                    other => unreachable!("{other:?} does not receive"),
                }
            }
            Completion::Sent { token, result, buffer } => {
                let (source, index, generation) = Source::parse(token);
                match source {
                    Source::ClientSend => {
                        self.on_client_sent(Id::new(index, generation), result.ok(), buffer)
                    }
                    Source::InstanceSend => {
                        self.on_instance_sent(Id::new(index, generation), result.ok(), buffer)
                    }
                    // A funclet that does not take a request is found by its closed channel.
                    Source::FuncletSend => {}
                    other => unreachable!("{other:?} does not send"),
                }
            }
            Completion::Message { token, result } => {
                let (_, funclet, epoch) = Source::parse(token);
                self.on_funclet_message(funclet, epoch, result);
            }
            Completion::Rung { .. } => self.ring.listen_bell(self.bell, Source::Bell.token(0, 0)),
        }
    }

    fn on_client_sent(&mut self, id: Id<Connection>, sent: Option<usize>, buffer: Vec<u8>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(sent) = sent else { return self.drop_connection(id) };
        if let Some(Parcel { buffer, from }) = connection.outbox.sent(buffer, sent) {
            let sock = connection.sock;
            self.ring.send(sock, buffer, from, Source::ClientSend.of(id));
        } else {
            if connection.held_bytes > 0 {
                let taken = connection.take_unheld();
                self.unhold(taken);
            }
            self.mark_connection(id);
        }
        self.give_time(id);
    }

    /// There is something for the client to take, or it took some: it has this long for the rest.
    pub(crate) fn give_time(&mut self, id: Id<Connection>) {
        if let Some(connection) = self.connections.get_mut(id) {
            let until_ns = self.now_ns + crate::ingress::ns(faaster_limits::WRITE_TIMEOUT);
            connection.deadline_ns = connection.deadline_ns.max(until_ns);
        }
    }

    fn on_instance_sent(&mut self, id: Id<Instance>, sent: Option<usize>, buffer: Vec<u8>) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let Some(sent) = sent else {
            // Its end of the channel is closed: the receive side hears of it too.
            instance.outbox.abandon();
            return;
        };
        let rest = instance.outbox.sent(buffer, sent);
        if let Some(Parcel { buffer, from }) = rest {
            let channel = instance.channel;
            self.ring.send(channel, buffer, from, Source::InstanceSend.of(id));
        } else {
            self.mark_instance(id);
        }
        self.go_on_granting(id);
        self.feed(id);
        self.offer(id);
    }

    fn take_messages(&mut self) {
        self.send_unsent();
        for round in 0..MESSAGES_PER_TURN_MAX {
            let Some((from, packet)) = self.mailbox.next_message(round) else { break };
            self.on_packet(from, packet);
        }
        for _ in 0..MESSAGES_PER_TURN_MAX {
            let Some(command) = self.mailbox.next_command() else { break };
            self.on_command(command);
        }
    }

    fn fire_timers(&mut self) {
        while let Some((at_ns, owner)) = self.timers.pop_due(self.now_ns) {
            match owner {
                Owner::Connection { index, generation } => {
                    let id = Id::new(index, generation);
                    let current = self.connections.get_mut(id).is_some_and(|it| it.alarm.fired(at_ns));
                    if current {
                        self.on_connection_deadline(id);
                    }
                }
                Owner::Instance { index, generation } => {
                    self.on_instance_alarm(Id::new(index, generation), at_ns);
                }
                Owner::Function { index } => self.on_function_alarm(index, at_ns),
            }
        }
    }

    /// Asks again for what lacked a buffer, and reads connections that were held back.
    fn go_on(&mut self) {
        self.pay_grants();
        for id in std::mem::take(&mut self.starved_connections) {
            self.resume(id);
        }
        for id in std::mem::take(&mut self.starved_instances) {
            self.rearm_instance(id);
        }
        for id in std::mem::take(&mut self.starved_logs) {
            self.read_log(id);
        }
        std::mem::swap(&mut self.resumable, &mut self.resuming);
        let mut resuming = std::mem::take(&mut self.resuming);
        for id in resuming.drain(..) {
            self.resume(id);
        }
        self.resuming = resuming;
    }

    pub(crate) fn resume_later(&mut self, id: Id<Connection>) {
        self.resumable.push(id);
    }

    pub(crate) fn mark_connection(&mut self, id: Id<Connection>) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty_connections.push(id);
        }
    }

    pub(crate) fn mark_instance(&mut self, id: Id<Instance>) {
        if let Some(instance) = self.instances.get_mut(id)
            && !instance.dirty
        {
            instance.dirty = true;
            self.dirty_instances.push(id);
        }
    }

    /// One send for everything that a peer is owed from this turn.
    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty_instances);
        for id in dirty.drain(..) {
            let Some(instance) = self.instances.get_mut(id) else { continue };
            instance.dirty = false;
            if let Some(Parcel { buffer, from }) = instance.outbox.next() {
                self.ring.send(instance.channel, buffer, from, Source::InstanceSend.of(id));
            }
        }
        self.dirty_instances = dirty;
        let mut dirty = std::mem::take(&mut self.dirty_connections);
        for id in dirty.drain(..) {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            connection.dirty = false;
            if let Some(Parcel { buffer, from }) = connection.outbox.next() {
                self.ring.send(connection.sock, buffer, from, Source::ClientSend.of(id));
            } else if !connection.outbox.is_sending() {
                if connection.closing || connection.ended && connection.unanswered() == 0 {
                    self.finish_closing(id);
                } else if connection.may_go_on() {
                    self.resume_later(id);
                }
            }
        }
        self.dirty_connections = dirty;
    }
}
