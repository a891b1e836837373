//! Deadlines of a shard, soonest first.
//!
//! Owns: one entry per owner at most (plus stale ones that fall out when due). Owners move their deadline later without
//! telling: the entry fires at the old time, the owner looks at its deadline again and asks anew. So a warm invocation,
//! which pushes deadlines into the future thousands of times a second, touches nothing here.
//! Must not know: what happens at a deadline.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Connection { index: u32, generation: u32 },
    Instance { index: u32, generation: u32 },
    Function { index: u32 },
}

/// The owner's side: when its entry will fire. Kept by the owner, changed by [`Timers`] alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Alarm {
    /// 0: no entry.
    armed_ns: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(u64, Owner)>>,
}

impl Timers {
    /// Makes sure that the owner hears at `at_ns` or before.
    pub(crate) fn arm(&mut self, alarm: &mut Alarm, at_ns: u64, owner: Owner) {
        assert!(at_ns > 0, "0 stands for no deadline");
        if alarm.armed_ns == 0 || at_ns < alarm.armed_ns {
            alarm.armed_ns = at_ns;
            self.heap.push(Reverse((at_ns, owner)));
        }
    }

    /// When the next entry fires.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_ns, _))| *at_ns)
    }

    /// Entries, stale ones included.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// The next entry that is due. The owner must answer with [`Alarm::fired`].
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<(u64, Owner)> {
        if self.next_ns()? > now_ns {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

impl Alarm {
    /// Whether the entry that fired at `at_ns` is the current one; if so there is none now.
    pub(crate) fn fired(&mut self, at_ns: u64) -> bool {
        if self.armed_ns != at_ns {
            return false;
        }
        self.armed_ns = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner::Function { index: 1 };

    #[test]
    fn later_deadlines_cost_nothing_and_earlier_ones_win() {
        let (mut timers, mut alarm) = (Timers::default(), Alarm::default());
        timers.arm(&mut alarm, 100, OWNER);
        timers.arm(&mut alarm, 200, OWNER);
        assert_eq!(timers.heap.len(), 1);
        timers.arm(&mut alarm, 50, OWNER);
        assert_eq!(timers.pop_due(49), None);
        let (at, _) = timers.pop_due(120).unwrap();
        assert!(alarm.fired(at), "the entry at 50 is the current one");
        let (stale, _) = timers.pop_due(120).unwrap();
        assert!(!alarm.fired(stale), "the entry at 100 was overtaken");
        assert_eq!(timers.pop_due(u64::MAX), None);
    }
}
