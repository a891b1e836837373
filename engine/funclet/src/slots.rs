//! The table of slots: what is in each, and how often it has been used.
//!
//! Owns: containers. Must not know: when one is made, claimed or ended.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use faaster_init::Record;
use faaster_protocol::funclet::{Claim, Generation, SlotId};
use faaster_sys::pidfd::{PidFd, ProcessId};

use crate::birth::{Lineage, Passage};
use crate::cgroup::LimitFiles;
use crate::channel::ChannelId;
use crate::container::State;
use crate::hello::HelloReader;
use crate::network::{Inside, Link};
use crate::reuse::Past;
use crate::stuck::Dying;
use crate::timers::{Nanos, TimerId};

/// A container and what the funclet holds of it.
#[derive(Debug)]
pub(crate) struct Container {
    pub state: State,
    pub runtime: usize,
    /// Name of its cgroup.
    pub group: String,
    pub pid: ProcessId,
    pub pidfd: PidFd,
    pub status: OwnedFd,
    /// How the runtime ended, once init has said so.
    pub last_record: Option<Record>,
    /// Until the engine has them.
    pub unclaimed: Option<Unclaimed>,
    /// Since it was claimed.
    pub lease: Option<Lease>,
    pub created: Nanos,
    pub ending: Option<Ending>,
    pub dying: Dying,
    /// The deadline of its boot, or of its death.
    pub timer: Option<TimerId>,
    pub link: Link,
    /// Where its end of the link is.
    pub namespace: Option<OwnedFd>,
    pub lineage: Lineage,
    /// Whose code has used its network: the last that had it, or its own.
    pub past: Past,
}

/// What a container has before it is claimed only.
#[derive(Debug)]
pub(crate) struct Unclaimed {
    pub channel: OwnedFd,
    pub log: OwnedFd,
    pub tmp: OwnedFd,
    pub limits: LimitFiles,
    pub hello: HelloReader,
    /// Names of the steps of its birth, for the one that fails.
    pub steps: Vec<&'static str>,
    pub stage: Stage,
    /// Until its fork server has it.
    pub passage: Option<Box<Passage>>,
    /// The container's end of its link.
    pub inside: Option<Box<Inside>>,
}

/// How far the birth of a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It takes locks of the kernel that claims need too.
    Assembling,
    /// What is left is its init and its runtime.
    Booting,
}

/// Who has a container for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    pub channel: ChannelId,
    pub claim: Claim,
    pub since: Nanos,
}

/// Why we ended a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The engine wanted it, or is gone, or the funclet ends.
    Wanted,
    /// It did not become claimable, and the reason has been told.
    BootFailed,
    /// Its slot is needed for another runtime.
    Evicted,
}

/// What is in a slot.
#[derive(Debug)]
pub(crate) enum Slot {
    Free,
    Live(Box<Container>),
    /// The container is dead; its cgroups are not gone yet.
    Removing {
        group: String,
        until: Nanos,
    },
    /// Its cgroups would not go: not used again.
    Quarantined {
        group: String,
    },
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    slot: Slot,
}

/// All slots.
#[derive(Debug)]
pub(crate) struct Slots {
    entries: Vec<Entry>,
    /// In the order in which they are used: the one that has been free for longest first.
    free: VecDeque<u32>,
}

impl Slots {
    /// So many free ones.
    pub(crate) fn new(count: u32) -> Self {
        let entries = (0..count).map(|_| Entry { generation: 0, slot: Slot::Free }).collect();
        Self { entries, free: (0..count).collect() }
    }

    /// A free slot with its next generation; it stays free until something is put in.
    pub(crate) fn next_free(&self) -> Option<(SlotId, Generation)> {
        let index = *self.free.front()?;
        Some((SlotId(index), Generation(self.entries[index as usize].generation.wrapping_add(1))))
    }

    /// Makes a slot the next one to be used; `false` where it is not free.
    pub(crate) fn prefer(&mut self, id: SlotId) -> bool {
        // What has been free for the shortest time is asked for most often.
        let Some(at) = self.free.iter().rposition(|free| *free == id.0) else { return false };
        self.free.remove(at);
        self.free.push_front(id.0);
        true
    }

    /// Puts something into the slot that [`Self::next_free`] named.
    pub(crate) fn occupy(&mut self, id: SlotId, generation: Generation, slot: Slot) {
        let first = self.free.pop_front();
        assert_eq!(first, Some(id.0), "only the slot that next_free named is occupied");
        let entry = &mut self.entries[id.0 as usize];
        entry.generation = generation.0;
        entry.slot = slot;
    }

    /// Puts what is left of an earlier life into a slot; `false` where there is no such free one.
    pub(crate) fn set_aside(&mut self, id: SlotId, generation: Generation, slot: Slot) -> bool {
        let Some(at) = self.free.iter().position(|free| *free == id.0) else { return false };
        self.free.remove(at);
        self.entries[id.0 as usize] = Entry { generation: generation.0, slot };
        true
    }

    /// Changes what is in an occupied slot; gives back what was.
    pub(crate) fn replace(&mut self, id: SlotId, slot: Slot) -> Slot {
        if matches!(slot, Slot::Free) {
            self.free.push_back(id.0);
        }
        std::mem::replace(&mut self.entries[id.0 as usize].slot, slot)
    }

    /// How often a slot has been used.
    pub(crate) fn generation(&self, id: SlotId) -> Option<Generation> {
        self.entries.get(id.0 as usize).map(|entry| Generation(entry.generation))
    }

    /// The container of a slot in this life.
    pub(crate) fn live(&mut self, id: SlotId, generation: Generation) -> Option<&mut Container> {
        let entry = self.entries.get_mut(id.0 as usize)?;
        match &mut entry.slot {
            Slot::Live(container) if entry.generation == generation.0 => Some(container),
            _ => None,
        }
    }

    /// As [`Self::live`], to look at.
    pub(crate) fn peek(&self, id: SlotId, generation: Generation) -> Option<&Container> {
        let entry = self.entries.get(id.0 as usize)?;
        match &entry.slot {
            Slot::Live(container) if entry.generation == generation.0 => Some(container),
            _ => None,
        }
    }

    /// Every container.
    pub(crate) fn all_live(&self) -> impl Iterator<Item = (SlotId, Generation, &Container)> {
        self.numbered().filter_map(|(id, entry)| match &entry.slot {
            Slot::Live(container) => Some((id, Generation(entry.generation), &**container)),
            _ => None,
        })
    }

    /// Slots whose cgroups wait to be removed.
    pub(crate) fn all_removing(&self) -> impl Iterator<Item = (SlotId, &str, Nanos)> {
        self.numbered().filter_map(|(id, entry)| match &entry.slot {
            Slot::Removing { group, until } => Some((id, group.as_str(), *until)),
            _ => None,
        })
    }

    /// Groups that would not go.
    pub(crate) fn all_quarantined(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter_map(|entry| match &entry.slot {
            Slot::Quarantined { group } => Some(group.as_str()),
            _ => None,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Slots that something holds which does not die.
    pub(crate) fn quarantined_count(&self) -> usize {
        let is_held = |slot: &Slot| match slot {
            Slot::Quarantined { .. } => true,
            Slot::Live(container) => container.dying == Dying::Overdue,
            Slot::Free | Slot::Removing { .. } => false,
        };
        self.entries.iter().filter(|entry| is_held(&entry.slot)).count()
    }

    fn numbered(&self) -> impl Iterator<Item = (SlotId, &Entry)> {
        (0u32..).map(SlotId).zip(&self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_comes_back_with_another_generation() {
        let mut slots = Slots::new(2);
        let (first, generation) = slots.next_free().unwrap();
        slots.occupy(first, generation, Slot::Removing { group: "a".into(), until: Nanos(0) });
        let (second, other) = slots.next_free().unwrap();
        assert_ne!(first, second);
        slots.occupy(second, other, Slot::Quarantined { group: "b".into() });
        assert!(slots.next_free().is_none());
        assert_eq!((slots.free_count(), slots.quarantined_count(), slots.all_removing().count()), (0, 1, 1));
        slots.replace(first, Slot::Free);
        assert_eq!(slots.next_free(), Some((first, Generation(generation.0 + 1))));
        assert!(slots.live(first, generation).is_none());
        assert!(slots.live(SlotId(99), generation).is_none());
    }

    #[test]
    fn slots_are_used_in_turn() {
        let mut slots = Slots::new(3);
        let mut used = Vec::new();
        for _ in 0..6 {
            let (id, generation) = slots.next_free().unwrap();
            slots.occupy(id, generation, Slot::Removing { group: "a".into(), until: Nanos(0) });
            slots.replace(id, Slot::Free);
            used.push((id.0, generation.0));
        }
        assert_eq!(used, [(0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (2, 2)]);
    }

    #[test]
    fn a_free_slot_can_be_preferred() {
        let mut slots = Slots::new(3);
        assert!(slots.prefer(SlotId(2)) && slots.prefer(SlotId(1)));
        for id in [1, 2] {
            assert_eq!(slots.next_free(), Some((SlotId(id), Generation(1))));
            slots.occupy(SlotId(id), Generation(1), Slot::Quarantined { group: "a".into() });
            assert!(!slots.prefer(SlotId(id)), "it is in use");
        }
        assert_eq!((slots.next_free(), slots.free_count()), (Some((SlotId(0), Generation(1))), 1));
    }

    #[test]
    fn a_slot_that_is_set_aside_is_not_free() {
        let mut slots = Slots::new(3);
        let left = || Slot::Removing { group: "s1g9".into(), until: Nanos(0) };
        assert!(slots.set_aside(SlotId(1), Generation(9), left()));
        assert!(!slots.set_aside(SlotId(1), Generation(9), left()), "once");
        assert!(!slots.set_aside(SlotId(3), Generation(1), left()), "there is none");
        assert_eq!((slots.free_count(), slots.all_removing().count()), (2, 1));
        slots.replace(SlotId(1), Slot::Free);
        for id in [0, 2] {
            assert_eq!(slots.next_free(), Some((SlotId(id), Generation(1))));
            slots.occupy(SlotId(id), Generation(1), left());
        }
        assert_eq!(slots.next_free(), Some((SlotId(1), Generation(10))), "and never its name again");
    }
}
