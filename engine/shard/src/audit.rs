//! Test support: a look at a shard's books.
//!
//! Owns: nothing. Compares tables that must agree with each other, so that a test finds a leak where it happens and
//! not when memory runs out. Must not know: how a shard works; it only counts.

use std::time::Duration;

use faaster_sys::ring::Ring;

use crate::api::Counters;
use crate::call::Place;
use crate::connection::Reading;
use crate::functions::{Function, Presence};
use crate::instance::State;
use crate::shard::Shard;

/// What a shard holds at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    pub connections: usize,
    pub calls: usize,
    pub instances: usize,
    /// Claims that no funclet has answered yet.
    pub claims: usize,
    pub held_bytes: usize,
    pub async_queued: usize,
    pub control_in_flight: usize,
    /// Entries in the timer queue, stale ones included.
    pub timers: usize,
    pub functions: Vec<FunctionAudit>,
    pub counters: Counters,
    /// Tables that do not agree, in words; empty unless the shard has a defect.
    pub contradictions: Vec<String>,
}

/// One function of an [`Audit`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FunctionAudit {
    pub key: Box<str>,
    /// Deleted, but not yet forgotten.
    pub removed: bool,
    pub queued: usize,
    /// Claims under way.
    pub starting: usize,
    /// Instances of any revision.
    pub instances: usize,
    /// Of these, the ones of the newest revision that take calls now or soon.
    pub serving: usize,
    pub instances_max: usize,
    /// Calls in flight on the instance that has most.
    pub in_flight_most: usize,
    /// Calls that one instance may have in flight.
    pub slots: usize,
}

impl<R: Ring> Shard<R> {
    /// How long the next turn would sleep if nothing happened; `None`: until something happens.
    pub fn next_wait(&mut self) -> Option<Duration> {
        self.timeout(None)
    }

    /// Counts everything and compares what must be equal.
    pub fn audit(&self) -> Audit {
        let mut contradictions = Vec::new();
        self.compare_calls(&mut contradictions);
        self.compare_held_bytes(&mut contradictions);
        let functions =
            self.functions.iter().map(|(index, function)| self.audit_function(index, function)).collect();
        for (index, function) in self.functions.iter() {
            self.compare_function(index, function, &mut contradictions);
        }
        Audit {
            connections: self.connections.len(),
            calls: self.calls.len(),
            instances: self.instances.len(),
            claims: self.claims.len(),
            held_bytes: self.held_bytes,
            async_queued: self.async_queued,
            control_in_flight: self.control_in_flight,
            timers: self.timers.len(),
            functions,
            counters: self.counters.clone(),
            contradictions,
        }
    }

    fn audit_function(&self, index: u32, function: &Function) -> FunctionAudit {
        let in_flight = |id| self.instances.get(id).map_or(0, |instance| instance.in_flight.len());
        FunctionAudit {
            key: function.deployed.key.clone(),
            removed: function.presence == Presence::Removed,
            queued: function.queue.len(),
            starting: function.starting as usize,
            instances: function.instances.len(),
            serving: self.serving(index),
            instances_max: function.deployed.instances_max as usize,
            in_flight_most: function.instances.iter().map(|id| in_flight(*id)).max().unwrap_or(0),
            slots: function.deployed.concurrency.slots() as usize,
        }
    }

    /// Each call is where it says it is.
    fn compare_calls(&self, found: &mut Vec<String>) {
        for (id, call) in self.calls.iter() {
            let there = match call.place {
                Place::Queued => self.functions.get(call.function).queue.contains(&id),
                Place::Running(instance) => {
                    self.instances.get(instance).is_some_and(|instance| instance.in_flight.contains(&id))
                }
                Place::Forwarded(_) => true,
            };
            if !there {
                found.push(format!("call {id:?} says {:?} and is not there", call.place));
            }
        }
    }

    fn compare_function(&self, index: u32, function: &Function, found: &mut Vec<String>) {
        let key = &function.deployed.key;
        for id in &function.queue {
            if !self.calls.get(*id).is_some_and(|call| call.place == Place::Queued) {
                found.push(format!("the queue of {key} holds {id:?}, which does not wait"));
            }
        }
        for id in &function.ready {
            if !self.instances.get(*id).is_some_and(|instance| instance.has_room()) {
                found.push(format!("{id:?} is offered for {key} and has no room"));
            }
        }
        let mine = self.instances.iter().filter(|(_, instance)| instance.function == index).count();
        if mine != function.instances.len() {
            found.push(format!("{key} lists {} instances and has {mine}", function.instances.len()));
        }
        if self.instances.iter().any(|(_, instance)| instance.state() == State::Gone) {
            found.push("an instance that is gone was not removed".to_owned());
        }
        let waits_beside_room = !function.queue.is_empty() && !function.ready.is_empty();
        if waits_beside_room {
            found.push(format!("{} calls of {key} wait beside an instance with room", function.queue.len()));
        }
    }

    fn compare_held_bytes(&self, found: &mut Vec<String>) {
        let calls: usize = self.calls.iter().map(|(_, call)| call.held_bytes).sum();
        let uploads: usize = self
            .connections
            .iter()
            .map(|(_, connection)| match &connection.reading {
                Reading::Body(upload) => upload.reserved_bytes,
                Reading::Head(_) | Reading::Lingering => 0,
            })
            .sum();
        let answers: usize = self.connections.iter().map(|(_, connection)| connection.held_bytes).sum();
        if calls + uploads + answers != self.held_bytes {
            found.push(format!(
                "calls hold {calls} bytes, uploads {uploads}, answers {answers}, the shard says {}",
                self.held_bytes
            ));
        }
    }
}
