//! Room: the memory and slots that claims wait for, and what a full node keeps free for the containers of its pools.
//!
//! Owns: what the engine is asked to end idle instances for, how much of it at a time, and when. Must not know: which ones
//! it ends, what a claim is for.

use std::time::Duration;

use faaster_limits::{MEMORY_MB_MIN, POOL_ROOM_PART};
use faaster_protocol::funclet::Event;

use crate::aside::Alarm;
use crate::funclet::{Funclet, Timer};
use crate::pool::{self, Pool};
use crate::slots::Ending;
use crate::timers::Nanos;

/// Whether the engine will be reminded that claims wait for what idle instances have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    Over,
    /// A timer is set.
    Reminded,
    /// The same, and one that ends sooner, for claims that have come since.
    Grown,
}

/// Between two announcements of a shortage that lasts.
const SHORTAGE_REMINDER: Duration = Duration::from_millis(50);
/// After this the claims that have come since the latest announcement are announced, all in one.
const SHORTAGE_GATHERED: Duration = Duration::from_millis(2);

/// Between two announcements for room that nobody waits for.
const ROOM_PAUSE: Duration = Duration::from_millis(20);
/// The same where the last one brought nothing: what was busy may be idle by now.
const ROOM_REMINDER: Duration = Duration::from_secs(1);

/// The room that is kept for pools, and whether it is there.
#[derive(Debug)]
pub(crate) struct Room {
    alarm: Alarm,
    /// What was free at the last announcement, bytes.
    asked_at: Option<u64>,
}

impl Default for Room {
    fn default() -> Self {
        Self { alarm: Alarm::Wanted, asked_at: None }
    }
}

/// Memory of so many containers of the base size.
fn memory_mb_of(containers: usize) -> u32 {
    u32::try_from(containers).unwrap_or(u32::MAX).saturating_mul(MEMORY_MB_MIN)
}

/// How many containers of the base size are to fit into what is free, so that prepared ones can be claimed.
fn kept(floors: usize, allocatable_bytes: u64) -> usize {
    let part = (allocatable_bytes / POOL_ROOM_PART) >> 20;
    floors.min(usize::try_from(part / u64::from(MEMORY_MB_MIN)).unwrap_or(usize::MAX))
}

impl Funclet {
    /// For one more claim that waits: at once where it is the first, else in one announcement for all that come together.
    pub(crate) fn ask_for_room(&mut self) {
        match self.shortage {
            Shortage::Over => self.look_for_room(),
            Shortage::Reminded => {
                self.shortage = Shortage::Grown;
                self.timers.add(Nanos::now().after(SHORTAGE_GATHERED), Timer::Shortage);
            }
            Shortage::Grown => {}
        }
    }

    /// Looks again for what claims wait for, for as long as any does.
    pub(crate) fn remind_of_shortage(&mut self) {
        self.shortage = Shortage::Over;
        self.look_for_room();
    }

    /// Ends a cold container of another runtime where a claim lacks a slot, and asks the engine to end idle instances for
    /// the rest: for memory, and for slots, of which each has the least memory at least.
    pub(crate) fn look_for_room(&mut self) {
        let missing = self.slots_missing();
        if missing == 0 && self.waiting.first_for_memory().is_none() {
            return;
        }
        let left = missing - usize::from(missing > 0 && self.evict_for_waiting());
        let soon = self.servable_soon();
        let memory_mb = self.waiting.memory_wanted_mb(soon).saturating_add(memory_mb_of(left.min(soon)));
        if memory_mb > 0 {
            self.announce(memory_mb);
        }
        if self.shortage == Shortage::Over {
            self.shortage = Shortage::Reminded;
            self.timers.add(Nanos::now().after(SHORTAGE_REMINDER), Timer::Shortage);
        }
    }

    /// Claims of a runtime beyond the containers that are being made for it.
    fn unserved(&self, runtime: usize) -> usize {
        self.waiting.count_for_container(runtime).saturating_sub(self.pools[runtime].creating_count())
    }

    /// Claims that wait for a container and for which no slot is coming.
    pub(crate) fn slots_missing(&self) -> usize {
        let unserved: usize = (0..self.pools.len()).map(|runtime| self.unserved(runtime)).sum();
        unserved.saturating_sub(self.slots.free_count() + self.slots.all_removing().count())
    }

    /// Whether a cold container could be ended for a claim that lacks a slot.
    fn evict_for_waiting(&mut self) -> bool {
        let runtime = (0..self.pools.len()).find(|runtime| self.unserved(*runtime) > 0);
        let Some((id, generation)) = runtime.and_then(|wanted| pool::to_evict(&self.pools, wanted)) else {
            return false;
        };
        self.end(id, generation, Ending::Evicted);
        true
    }

    /// Claims that room could be used for at once: for more, instances that are ending would compete with those that begin,
    /// and with whatever runs.
    fn servable_soon(&self) -> usize {
        self.pools.iter().map(Pool::cold_count).sum::<usize>() + self.births_at_once()
    }

    /// To each shard its part: together they would end more than is wanted. What one of them lacks they are asked for again.
    fn announce(&mut self, memory_mb: u32) {
        let channels = self.channels.ids();
        let part = memory_mb.div_ceil(u32::try_from(channels.len()).unwrap_or(u32::MAX).max(1));
        for channel in channels {
            self.tell(channel, &Event::Shortage { memory_mb: part });
        }
    }

    /// Memory was given away: looks at `at` whether what pools need is still free. A container that is prepared and cannot
    /// be claimed for want of memory serves nobody, and a claim would wait for the end of an idle one, and for a boot.
    pub(crate) fn keep_room(&mut self, at: Nanos) {
        if self.room.alarm == Alarm::Wanted && self.room_missing() > 0 {
            self.room.alarm = Alarm::Set;
            self.timers.add(at, Timer::Room);
        }
    }

    pub(crate) fn on_room_alarm(&mut self, now: Nanos) {
        self.room.alarm = Alarm::Wanted;
        let missing = self.room_missing();
        if missing == 0 {
            self.room.asked_at = None;
            return;
        }
        if now < self.quiet_until || self.waiting.first_for_memory().is_some() {
            return self.keep_room(self.quiet_until.max(now.after(ROOM_PAUSE)));
        }
        let free = self.ledger.free();
        let pause = if self.room.asked_at == Some(free) { ROOM_REMINDER } else { ROOM_PAUSE };
        self.room.asked_at = Some(free);
        self.announce(memory_mb_of(missing.min(self.births_at_once())));
        self.keep_room(now.after(pause));
    }

    fn room_missing(&self) -> usize {
        let floors = self.pools.iter().map(|pool| pool.floor).sum();
        let fits =
            usize::try_from((self.ledger.free() >> 20) / u64::from(MEMORY_MB_MIN)).unwrap_or(usize::MAX);
        kept(floors, self.ledger.allocatable()).saturating_sub(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_get_an_eighth_at_most() {
        let mb = |count: u64| (count * u64::from(MEMORY_MB_MIN)) << 20;
        for (floors, allocatable, expected) in
            [(0, mb(800), 0), (64, mb(800), 64), (200, mb(800), 100), (4, mb(7), 0), (4, mb(8), 1), (4, 0, 0)]
        {
            assert_eq!(kept(floors, allocatable), expected, "{floors} of {allocatable}");
        }
    }
}
