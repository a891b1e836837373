//! The table of slots: what is in each, and how often it has been used.
//!
//! Owns: containers. Must not know: when one is made, claimed or ended.

use std::os::fd::OwnedFd;

use faaster_init::Record;
use faaster_protocol::funclet::{Claim, Generation, SlotId};
use faaster_sys::pidfd::{PidFd, ProcessId};

use crate::birth::Passage;
use crate::cgroup::LimitFiles;
use crate::channel::ChannelId;
use crate::container::State;
use crate::hello::HelloReader;
use crate::network::{Inside, Link};
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
    /// Its boot deadline.
    pub timer: Option<TimerId>,
    pub link: Link,
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
    Quarantined,
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
    free: Vec<u32>,
}

impl Slots {
    /// So many free ones.
    pub(crate) fn new(count: u32) -> Self {
        let entries = (0..count).map(|_| Entry { generation: 0, slot: Slot::Free }).collect();
        Self { entries, free: (0..count).rev().collect() }
    }

    /// A free slot with its next generation; it stays free until something is put in.
    pub(crate) fn next_free(&self) -> Option<(SlotId, Generation)> {
        let index = *self.free.last()?;
        Some((SlotId(index), Generation(self.entries[index as usize].generation.wrapping_add(1))))
    }

    /// Puts something into the slot that [`Self::next_free`] named.
    pub(crate) fn occupy(&mut self, id: SlotId, generation: Generation, slot: Slot) {
        let top = self.free.pop();
        assert_eq!(top, Some(id.0), "only the slot that next_free named is occupied");
        let entry = &mut self.entries[id.0 as usize];
        entry.generation = generation.0;
        entry.slot = slot;
    }

    /// Changes what is in an occupied slot; gives back what was.
    pub(crate) fn replace(&mut self, id: SlotId, slot: Slot) -> Slot {
        if matches!(slot, Slot::Free) {
            self.free.push(id.0);
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

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn quarantined_count(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry.slot, Slot::Quarantined)).count()
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
        slots.occupy(second, other, Slot::Quarantined);
        assert!(slots.next_free().is_none());
        assert_eq!((slots.free_count(), slots.quarantined_count(), slots.all_removing().count()), (0, 1, 1));
        slots.replace(first, Slot::Free);
        assert_eq!(slots.next_free(), Some((first, Generation(generation.0 + 1))));
        assert!(slots.live(first, generation).is_none());
        assert!(slots.live(SlotId(99), generation).is_none());
    }
}
