//! The pools as claims and time move them.
//!
//! Owns: when demand is told of what, and what the node's memory and slots leave for it ([`crate::demand`] has the rule).
//! Must not know: how a container is made or claimed.

use faaster_limits::MEMORY_MB_MIN;
use faaster_protocol::funclet::{Generation, PoolInfo, RuntimeIndex, SlotId};

use crate::aside::Alarm;
use crate::demand::{self, Happening, Rule, Wish};
use crate::funclet::{Funclet, Timer};
use crate::pool::Pool;
use crate::timers::Nanos;

/// Containers of one runtime that are made at the same time, for each core that they may use. One keeps a core busy; the
/// second is for the moments in which the first waits. docs/decisions.md has the numbers.
const BIRTHS_PER_CORE: usize = 2;

impl Funclet {
    /// Tells a pool's demand what happened, and sets all targets by it.
    pub(crate) fn on_demand(&mut self, runtime: usize, what: Happening) {
        let (now, rule) = (Nanos::now(), self.demand_rule());
        let pool = &mut self.pools[runtime];
        pool.demand = pool.demand.after(what, now, rule);
        self.set_targets();
    }

    /// Time has passed.
    pub(crate) fn on_demand_alarm(&mut self, now: Nanos) {
        self.demand_alarm = Alarm::Wanted;
        let rule = self.demand_rule();
        for pool in &mut self.pools {
            pool.demand = pool.demand.after(Happening::Looked, now, rule);
        }
        self.set_targets();
    }

    fn demand_rule(&self) -> Rule {
        Rule { most: self.config.pool_max as usize, fall_after: self.config.pool_fall_after }
    }

    pub(crate) fn set_targets(&mut self) {
        let wishes: Vec<Wish> =
            self.pools.iter().map(|pool| Wish { floor: pool.floor, wanted: pool.demand.wanted() }).collect();
        let targets = demand::targets(&wishes, self.pool_budget());
        for (pool, target) in self.pools.iter_mut().zip(targets) {
            pool.target = target;
        }
        let due = self.pools.iter().filter_map(|pool| pool.demand.look_at()).min();
        if let Some(due) = due
            && self.demand_alarm == Alarm::Wanted
        {
            self.demand_alarm = Alarm::Set;
            self.timers.add(due, Timer::Demand);
        }
    }

    /// Prepared containers that could be claimed: the ledger has memory for the smallest function in each, and there is
    /// a slot.
    fn pool_budget(&self) -> usize {
        let by_memory =
            usize::try_from((self.ledger.free() >> 20) / u64::from(MEMORY_MB_MIN)).unwrap_or(usize::MAX);
        let prepared: usize = self.pools.iter().map(Pool::stock).sum();
        by_memory.min(self.slots.free_count() + prepared)
    }

    pub(crate) fn births_at_once(&self) -> usize {
        BIRTHS_PER_CORE * self.config.all_cores.len()
    }

    /// A prepared container that demand wants no more; not in the midst of claims.
    pub(crate) fn next_surplus(&self, now: Nanos) -> Option<(SlotId, Generation)> {
        if self.is_stopping() || now < self.quiet_until {
            return None;
        }
        self.pools.iter().find_map(Pool::surplus)
    }

    /// For introspection.
    pub(crate) fn pool_infos(&self) -> Vec<PoolInfo> {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let info = |(runtime, pool): (usize, &Pool)| PoolInfo {
            runtime: RuntimeIndex(u16::try_from(runtime).unwrap_or(u16::MAX)),
            floor: count(pool.floor),
            target: count(pool.target),
            cold: count(pool.cold_count()),
            creating: count(pool.creating_count()),
        };
        self.pools.iter().enumerate().map(info).collect()
    }
}
