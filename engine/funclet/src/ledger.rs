//! The memory that a funclet has promised.
//!
//! Owns: two sums. Must not know: containers.
//! A function's memory is a cap, not a reservation; so caps are counted against capacity times overcommit, each as the
//! whole containers of the base size that FaaSter would merge for it.

use faaster_protocol::funclet::ledger_mb;

/// Promised memory, bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ledger {
    allocatable: u64,
    used: u64,
    marked: u64,
}

/// Bytes of the ledger that a function with this memory takes.
pub(crate) fn share_bytes(memory_mb: u32) -> u64 {
    u64::from(ledger_mb(memory_mb)) << 20
}

/// What the ledger says to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Marked for the claim.
    Marked,
    /// Not now; when others end.
    Short,
    /// Not even on an empty node.
    Never,
}

impl Ledger {
    /// An empty one.
    pub(crate) fn new(allocatable: u64) -> Self {
        Self { allocatable, used: 0, marked: 0 }
    }

    /// Sets memory aside for a claim that is under way.
    pub(crate) fn mark(&mut self, bytes: u64) -> Answer {
        if bytes > self.allocatable {
            return Answer::Never;
        }
        if self.used + self.marked + bytes > self.allocatable {
            return Answer::Short;
        }
        self.marked += bytes;
        Answer::Marked
    }

    /// The claim came to nothing.
    pub(crate) fn unmark(&mut self, bytes: u64) {
        self.marked = self.marked.checked_sub(bytes).expect("only what was marked is unmarked");
    }

    /// The claim is served: from now on a container has it.
    pub(crate) fn settle(&mut self, bytes: u64) {
        self.unmark(bytes);
        self.used += bytes;
    }

    /// A container is to have `after` instead of `before`. With [`Answer::Marked`] it has; else nothing is changed.
    pub(crate) fn exchange(&mut self, before: u64, after: u64) -> Answer {
        let others = self.used.checked_sub(before).expect("only what was settled is exchanged");
        if after > self.allocatable {
            return Answer::Never;
        }
        if after > before && others + self.marked + after > self.allocatable {
            return Answer::Short;
        }
        self.used = others + after;
        Answer::Marked
    }

    /// The container has ended.
    pub(crate) fn release(&mut self, bytes: u64) {
        self.used = self.used.checked_sub(bytes).expect("only what was settled is released");
    }

    pub(crate) fn allocatable(&self) -> u64 {
        self.allocatable
    }
    pub(crate) fn free(&self) -> u64 {
        self.allocatable - self.used - self.marked
    }
    pub(crate) fn used(&self) -> u64 {
        self.used
    }
    pub(crate) fn marked(&self) -> u64 {
        self.marked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn memory_comes_back() {
        let mut ledger = Ledger::new(100);
        assert_eq!(ledger.mark(101), Answer::Never);
        assert_eq!(ledger.mark(60), Answer::Marked);
        assert_eq!(ledger.mark(41), Answer::Short);
        ledger.settle(60);
        assert_eq!(ledger.mark(41), Answer::Short);
        ledger.release(60);
        assert_eq!(ledger.mark(100), Answer::Marked);
        ledger.unmark(100);
        assert_eq!((ledger.used(), ledger.marked()), (0, 0));
    }

    #[test]
    fn a_container_that_grows_takes_more_and_one_that_shrinks_gives_back() {
        let mut ledger = Ledger::new(100);
        ledger.mark(40);
        ledger.settle(40);
        ledger.mark(30);
        assert_eq!(ledger.exchange(40, 101), Answer::Never);
        assert_eq!(ledger.exchange(40, 71), Answer::Short, "what is marked counts");
        assert_eq!(ledger.used(), 40);
        assert_eq!(ledger.exchange(40, 70), Answer::Marked);
        assert_eq!((ledger.used(), ledger.mark(1)), (70, Answer::Short));
        assert_eq!(ledger.exchange(70, 10), Answer::Marked);
        ledger.release(10);
        assert_eq!((ledger.used(), ledger.marked()), (0, 30));
    }

    #[test]
    fn a_function_above_the_base_size_takes_whole_containers() {
        assert_eq!(share_bytes(128), 128 << 20);
        assert_eq!(share_bytes(200), 256 << 20);
    }

    proptest! {
        #[test]
        fn never_more_than_allocatable(sizes in proptest::collection::vec((1u64..50, any::<bool>()), 0..200)) {
            let mut ledger = Ledger::new(200);
            let mut held = Vec::new();
            for (bytes, give_back) in sizes {
                if ledger.mark(bytes) == Answer::Marked {
                    ledger.settle(bytes);
                    held.push(bytes);
                }
                prop_assert!(ledger.used() + ledger.marked() <= ledger.allocatable());
                if give_back && let Some(bytes) = held.pop() {
                    ledger.release(bytes);
                }
                prop_assert_eq!(ledger.used(), held.iter().sum::<u64>());
            }
        }
    }
}
