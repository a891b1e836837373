//! Which core instances run on: the shard's own, or any (DESIGN sections 2 and 3).
//!
//! Owns: the rule. A short call gains from running on its shard's core, because waking a sleeping core costs more than the
//! call; a long one gains nothing there and keeps its neighbours waiting. So an instance is spread over all cores when
//! calls of its function have become long, and brought home when they are short again. Asked of the funclet when the
//! answer changes, never on the path of a warm call. Must not know: how an affinity is set.

use faaster_protocol::funclet::{Placement, Request};
use faaster_sys::ring::Ring;

use crate::api::InstancePlacement;
use crate::functions::Function;
use crate::instance::{Instance, State};
use crate::shard::Shard;
use crate::slab::Id;

/// A smoothed service time above this spreads.
const LONG_NS: u64 = 2_000_000;
/// One below this brings home; the gap keeps a function near the border from moving to and fro.
const SHORT_NS: u64 = 500_000;

impl<R: Ring> Shard<R> {
    /// Where a new instance of the function begins.
    pub(crate) fn first_placement(&self, function: &Function) -> Placement {
        match self.config.placement {
            InstancePlacement::Free => Placement::Free,
            InstancePlacement::HomeCore if function.service_ns > LONG_NS => Placement::Free,
            InstancePlacement::HomeCore => Placement::Core(self.core),
        }
    }

    /// A call of the instance ended: moves it if its function's calls have become long, or short.
    pub(crate) fn place_by_service(&mut self, id: Id<Instance>) {
        if self.config.placement == InstancePlacement::Free {
            return;
        }
        let Some(instance) = self.instances.get(id) else { return };
        let service_ns = self.functions.get(instance.function).service_ns;
        match instance.placement {
            Placement::Core(_) if service_ns > LONG_NS => self.place(id, Placement::Free),
            Placement::Free if service_ns < SHORT_NS => self.place(id, Placement::Core(self.core)),
            _ => {}
        }
    }

    /// Calls wait: instances that have been at theirs for long may use any core.
    pub(crate) fn spread_long_runners(&mut self, index: u32) {
        if self.config.placement == InstancePlacement::Free {
            return;
        }
        let long = |id: &Id<Instance>| {
            self.instances.get(*id).is_some_and(|instance| {
                instance.state() == State::Busy
                    && instance.placement != Placement::Free
                    && self.now_ns.saturating_sub(instance.last_used_ns) > LONG_NS
            })
        };
        let long: Vec<_> = self.functions.get(index).instances.iter().copied().filter(long).collect();
        for id in long {
            self.place(id, Placement::Free);
        }
    }

    fn place(&mut self, id: Id<Instance>, placement: Placement) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.placement = placement;
        let (slot, generation, funclet) = (instance.slot, instance.generation, instance.funclet);
        self.ask_funclet(funclet, &Request::Place { slot, generation, placement });
    }
}
