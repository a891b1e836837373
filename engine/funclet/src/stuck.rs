//! Processes that do not die: one that waits for a disk or a server of files has SIGKILL pending until the kernel lets
//! go of it (state D, proc_pid_stat(5)).
//!
//! Owns: the report of them, and that their slots are set aside. Must not know: why a container was ended.
//! Nobody waits for them: callers have the engine's own deadline, and the slot is used again once they are gone.

use faaster_limits::CGROUP_REMOVE_TIMEOUT;
use faaster_protocol::funclet::{Generation, SlotId};
use rustix::fs::{Mode, OFlags};

use crate::container::State;
use crate::funclet::{Funclet, Timer};
use crate::notice::notice;
use crate::slots::Slot;
use crate::timers::Nanos;

/// Threads of one container that a report names.
const NAMED_MAX: usize = 4;

/// Whether a container that was killed should be dead by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dying {
    InTime,
    Overdue,
}

impl Funclet {
    /// A container has been killed: it has this long.
    pub(crate) fn expect_death(&mut self, id: SlotId, generation: Generation) {
        let timer = self.timers.add(Nanos::now().after(CGROUP_REMOVE_TIMEOUT), Timer::Death(id, generation));
        if let Some(container) = self.slots.live(id, generation) {
            container.timer = Some(timer);
        }
    }

    pub(crate) fn on_death_overdue(&mut self, id: SlotId, generation: Generation) {
        let Some(container) = self.slots.live(id, generation) else { return };
        if container.state != State::Draining {
            return;
        }
        (container.timer, container.dying) = (None, Dying::Overdue);
        let group = container.group.clone();
        let text =
            format!("container {group} does not die{}; its slot waits for that", self.states_in(&group));
        notice(&self.config, &text);
    }

    /// What the threads of a group are doing, as far as it can be said.
    pub(crate) fn states_in(&self, group: &str) -> String {
        let threads = self.cgroups.threads(group).unwrap_or_default();
        let states: Vec<String> =
            threads.iter().filter_map(|id| self.nursery.state_of(*id)).take(NAMED_MAX).collect();
        if states.is_empty() { String::new() } else { format!(" ({})", states.join(", ")) }
    }

    /// Slots whose groups outlived an earlier funclet, with a process in them: they wait for it like any other.
    pub(crate) fn take_over(&mut self, left: Vec<String>) {
        let until = Nanos::now().after(CGROUP_REMOVE_TIMEOUT);
        for group in left {
            let Some((id, generation)) = slot_of(&group) else { continue };
            if self.slots.set_aside(id, generation, Slot::Removing { group: group.clone(), until }) {
                let states = self.states_in(&group);
                notice(
                    &self.config,
                    &format!("container {group} of an earlier funclet does not die{states}"),
                );
                self.removal_due = true;
            }
        }
    }
}

/// Name of the group of a slot in one of its lives.
pub(crate) fn group_of(id: SlotId, generation: Generation) -> String {
    format!("s{}g{}", id.0, generation.0)
}

fn slot_of(group: &str) -> Option<(SlotId, Generation)> {
    let (slot, generation) = group.strip_prefix('s')?.split_once('g')?;
    Some((SlotId(slot.parse().ok()?), Generation(generation.parse().ok()?)))
}

/// One line on a thread, from its directory in procfs: who it is, its state, and where in the kernel it waits.
pub(crate) fn state_of(proc: &std::os::fd::OwnedFd, id: i32) -> Option<String> {
    let read = |file: &str| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(proc, format!("{id}/{file}"), flags, Mode::empty()).ok()?;
        let mut bytes = [0; 512];
        let count = rustix::io::read(file, &mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
    };
    let (name, state) = parse_stat(&read("stat")?)?;
    let place = read("wchan").filter(|place| !matches!(place.as_str(), "" | "0"));
    Some(format!("{id} {name} in state {state}{}", place.map_or_else(String::new, |at| format!(" at {at}"))))
}

/// Name and state: the name stands in brackets and may hold any byte.
fn parse_stat(text: &str) -> Option<(String, char)> {
    let (before, after) = text.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let shown = name.chars().map(|one| if one.is_control() { '?' } else { one }).collect();
    Some((shown, after.trim_start().chars().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_named_after_slots() {
        assert_eq!(slot_of(&group_of(SlotId(7), Generation(12))), Some((SlotId(7), Generation(12))));
        for foreign in ["", "s", "s1", "g1", "s1g", "sxg1", "s1gx", "init"] {
            assert_eq!(slot_of(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_name_may_hold_brackets_and_line_breaks() {
        assert_eq!(parse_stat("12 (a) b\n) D 1 12"), Some(("a) b?".to_owned(), 'D')));
        assert_eq!(parse_stat("12 a D"), None);
    }

    #[test]
    fn our_own_state_can_be_read() {
        let proc = rustix::fs::open("/proc", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let text = state_of(&proc, rustix::process::getpid().as_raw_nonzero().get()).unwrap();
        assert!(text.contains(" in state "), "{text}");
        assert_eq!(state_of(&proc, 0), None);
    }
}
