//! Instances without a call: asked whether they answer ([`crate::health`]), frozen after a while, thawed when calls wait for them, ended when nobody called for long;
//! and the instances that a function keeps or gets back without anybody waiting for them.
//!
//! Owns: these rules (DESIGN section 6). A busy function never meets them: what was used a moment ago is not frozen, and
//! a warm call looks at nothing here. Must not know: how a container is frozen.

use std::time::Duration;

use faaster_limits::{KEEP_RETRY, REPLACE_WITHIN};
use faaster_protocol::funclet::{Generation, Request, SlotId};
use faaster_sys::ring::Ring;

use crate::functions::Presence;
use crate::ingress::ns;
use crate::instance::{Cause, Ending, Instance, State};
use crate::shard::Shard;
use crate::slab::Id;
use crate::timer::Owner;

impl<R: Ring> Shard<R> {
    /// An instance has nothing to do from now on, until it has.
    pub(crate) fn arm_idle(&mut self, id: Id<Instance>) {
        let idle = self.config.max_runtime_idle;
        let health = self.config.health.map(|rule| rule.interval);
        let first = self.config.freeze_after.into_iter().chain(health).fold(idle, Duration::min);
        self.arm_instance(id, self.now_ns + ns(first));
    }

    /// Sets the next alarm of an instance that lives on; freezes one that rested for a while, retires one that nobody
    /// called for long.
    pub(crate) fn rest_or_retire(&mut self, id: Id<Instance>) {
        let Some(instance) = self.instances.get(id) else { return };
        let mut next_ns = if instance.kill_at_ns != 0 { instance.kill_at_ns } else { u64::MAX };
        if matches!(instance.state(), State::Idle | State::Frozen) {
            match self.rest(id) {
                Some(at_ns) => next_ns = next_ns.min(at_ns),
                None => return,
            }
        }
        match self.check_health(id) {
            Some(at_ns) => next_ns = next_ns.min(at_ns),
            None => return,
        }
        let Some(instance) = self.instances.get(id) else { return };
        next_ns = instance.patience_ends_ns().map_or(next_ns, |at_ns| at_ns.min(next_ns));
        if !instance.kill_sent {
            // Those of a killed one are answered at its end, not at their deadline.
            let calls = instance.in_flight.iter().filter_map(|call| self.calls.get(*call));
            next_ns = calls.map(|call| call.deadline_ns).fold(next_ns, u64::min);
        }
        if next_ns != u64::MAX {
            self.arm_instance(id, next_ns.max(self.now_ns + 1));
        }
    }

    /// Does what is due for an instance without a call; when to look again, `None` if it was retired.
    fn rest(&mut self, id: Id<Instance>) -> Option<u64> {
        let idle_ns = ns(self.config.max_runtime_idle);
        if self.is_kept(id) {
            return Some(self.now_ns + idle_ns);
        }
        let instance = self.instances.get(id)?;
        let retire_ns = instance.last_used_ns + idle_ns;
        if retire_ns <= self.now_ns {
            self.retire(id);
            return None;
        }
        let Some(freeze) = self
            .config
            .freeze_after
            .filter(|_| instance.state() == State::Idle && !instance.health.is_asked())
        else {
            return Some(retire_ns);
        };
        let freeze_ns = instance.last_used_ns.max(instance.since_ns) + ns(freeze);
        if freeze_ns > self.now_ns {
            return Some(freeze_ns.min(retire_ns));
        }
        self.freeze(id);
        Some(retire_ns)
    }

    fn freeze(&mut self, id: Id<Instance>) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.go(Cause::Freeze);
        instance.since_ns = self.now_ns;
        let (slot, generation, funclet) = (instance.slot, instance.generation, instance.funclet);
        let index = instance.function;
        self.functions.get_mut(index).not_ready(id);
        self.ask_funclet(funclet, &Request::Freeze { slot, generation });
    }

    pub(crate) fn on_frozen(&mut self, funclet: u16, slot: SlotId, generation: Generation) {
        let Some(id) = self.instance_in(funclet, slot, generation) else { return };
        let instance = self.instances.get_mut(id).expect("found above");
        if instance.state() != State::Freezing {
            return;
        }
        instance.go(Cause::Frozen);
        let index = instance.function;
        self.counters.instances_frozen_total += 1;
        // A call may have come meanwhile.
        self.consider_starting(index);
    }

    pub(crate) fn on_thawed(&mut self, funclet: u16, slot: SlotId, generation: Generation) {
        let now_ns = self.now_ns;
        let Some(id) = self.instance_in(funclet, slot, generation) else { return };
        let instance = self.instances.get_mut(id).expect("found above");
        if !matches!(instance.state(), State::Freezing | State::Thawing) {
            return;
        }
        instance.go(Cause::Thawed);
        instance.since_ns = now_ns;
        self.arm_idle(id);
        self.offer(id);
    }

    /// Thaws up to `wanted` instances of a function, the most recently used first; how many.
    pub(crate) fn thaw_some(&mut self, index: u32, wanted: usize) -> usize {
        if wanted == 0 {
            return 0;
        }
        let frozen = |id: &Id<Instance>| {
            let instance = self.instances.get(*id)?;
            (instance.state() == State::Frozen).then_some((instance.last_used_ns, *id))
        };
        let mut frozen: Vec<_> = self.functions.get(index).instances.iter().filter_map(frozen).collect();
        frozen.sort_by_key(|(used_ns, _)| std::cmp::Reverse(*used_ns));
        frozen.truncate(wanted);
        for (_, id) in &frozen {
            self.thaw(*id);
        }
        frozen.len()
    }

    fn thaw(&mut self, id: Id<Instance>) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.go(Cause::Thaw);
        instance.since_ns = self.now_ns;
        let (slot, generation, funclet) = (instance.slot, instance.generation, instance.funclet);
        self.ask_funclet(funclet, &Request::Thaw { slot, generation });
        self.arm_instance(id, self.now_ns + ns(faaster_limits::FREEZE_TIMEOUT));
    }

    /// Whether an instance is one of the least that its function keeps warm.
    pub(crate) fn is_kept(&self, id: Id<Instance>) -> bool {
        let Some(instance) = self.instances.get(id) else { return false };
        let function = self.functions.get(instance.function);
        let least = function.deployed.instances_min as usize;
        least > 0
            && function.presence == Presence::Deployed
            && instance.deployed.revision == function.deployed.revision
            && self.serving(instance.function) <= least
    }

    /// Asks for what a function lacks of the instances that it keeps.
    pub(crate) fn keep_least(&mut self, index: u32) {
        let Some(function) = self.functions.try_get(index) else { return };
        let least = function.deployed.instances_min as usize;
        let here = function.home == self.id && function.presence == Presence::Deployed;
        if least == 0 || !here || self.draining.is_some() {
            return;
        }
        let there = self.serving(index) + function.starting as usize;
        for _ in there..least {
            if !self.may_claim_one_more() || !self.claim(index) {
                self.keep_least_later(index);
                return;
            }
        }
    }

    /// Whether a function has, without what is on its way, the instances that it keeps.
    pub(crate) fn has_its_least(&self, index: u32) -> bool {
        let least = self.functions.get(index).deployed.instances_min as usize;
        least == 0 || self.serving(index) >= least
    }

    /// Looks again soon, after an instance that is kept could not be had.
    pub(crate) fn keep_least_later(&mut self, index: u32) {
        let at_ns = self.now_ns + ns(KEEP_RETRY);
        let Some(function) = self.functions.try_get_mut(index) else { return };
        if function.deployed.instances_min > 0 {
            self.timers.arm(&mut function.alarm, at_ns, Owner::Function { index });
        }
    }

    /// Asks for a successor of an instance that died by itself, before anybody has to wait for it; not for one that died
    /// before it was of any use, or it would be made over and over.
    pub(crate) fn replace_lost(&mut self, lost: &Instance) {
        let died = !matches!(lost.ending, Ending::Retired | Ending::LoadFailed | Ending::NotReady);
        // One that does not answer was lost when it fell silent, not when that was found.
        let silent = lost.ending == Ending::Unresponsive;
        let died_ns = if silent { lost.health.heard_ns() } else { self.now_ns };
        let in_demand = lost.accepted_total > 0 && lost.last_used_ns + ns(REPLACE_WITHIN) > died_ns;
        let index = lost.function;
        let Some(function) = self.functions.try_get(index) else { return };
        let newest = function.deployed.revision == lost.deployed.revision;
        let deployed = function.presence == Presence::Deployed && self.draining.is_none();
        let alone = self.serving(index) == 0 && function.starting == 0;
        if died && in_demand && newest && deployed && alone && self.may_claim_one_more() {
            self.claim(index);
        }
    }
}
