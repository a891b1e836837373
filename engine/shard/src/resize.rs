//! A function's memory was edited: its instances go on with it where they can.
//!
//! Owns: which instances those are. Must not know: what a limit is to the kernel.

use faaster_function::Deployed;
use faaster_protocol::funclet::{Generation, Request, Size, SlotId};
use faaster_sys::ring::Ring;

use crate::claims::tmp_mb;
use crate::shard::Shard;

impl<R: Ring> Shard<R> {
    /// Takes the instances of the revision before over to one that differs from it in memory alone. Claims that are
    /// under way are not worth it: they are made anew as after any other deploy.
    pub(crate) fn resize_instances(&mut self, index: u32, before: Option<&Deployed>) {
        let deployed = self.functions.get(index).deployed.clone();
        let Some(before) = before.filter(|before| deployed.differs_in_memory_alone(before)) else { return };
        let (memory_mb, function_tag) = (deployed.memory_mb, deployed.function_tag);
        let size = Size { memory_mb, tmp_mb: tmp_mb(memory_mb), function_tag };
        for id in self.functions.get(index).instances.clone() {
            let Some(instance) = self.instances.get_mut(id) else { continue };
            if instance.deployed.revision != before.revision || instance.kill_sent {
                continue;
            }
            instance.deployed = deployed.clone();
            let (slot, generation, funclet) = (instance.slot, instance.generation, instance.funclet);
            self.ask_funclet(funclet, &Request::Resize { slot, generation, size });
        }
    }

    /// One that cannot have the new limits finishes what it runs and goes; the next one begins with them.
    pub(crate) fn on_not_resized(&mut self, funclet: u16, slot: SlotId, generation: Generation) {
        let Some(id) = self.instance_in(funclet, slot, generation) else { return };
        let index = self.instances.get(id).expect("found above").function;
        self.retire(id);
        self.consider_starting(index);
        self.keep_least(index);
    }
}
