//! The functions that a shard knows: all of the node, by key. Those at home here have queues and instances.
//!
//! Owns: the table, each function's queue and smoothed times. Must not know: sockets, frames.

use std::collections::VecDeque;
use std::sync::Arc;

use faaster_function::Deployed;
use rustc_hash::FxHashMap;

use crate::api::ShardId;
use crate::call::Call;
use crate::code::{CodeState, is_same_code};
use crate::instance::Instance;
use crate::slab::Id;
use crate::timer::Alarm;

/// A cold start is expected to take this long before one was seen.
const COLD_NS_GUESS: u64 = 5_000_000;

/// One function, newest revision.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) deployed: Arc<Deployed>,
    pub(crate) home: ShardId,
    pub(crate) presence: Presence,
    pub(crate) code: CodeState,
    pub(crate) queue: VecDeque<Id<Call>>,
    /// Instances of any revision, loading or later, not gone.
    pub(crate) instances: Vec<Id<Instance>>,
    /// Those of the newest revision with room for a call; the most recently used is last.
    pub(crate) ready: Vec<Id<Instance>>,
    /// Claims under way.
    pub(crate) starting: u32,
    /// Smoothed time of a call on its instance; 0 before the first.
    pub(crate) service_ns: u64,
    /// Smoothed time from claim to ready.
    pub(crate) cold_ns: u64,
    pub(crate) alarm: Alarm,
}

/// Whether the function can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Deployed,
    /// Deleted; the entry stays until its last instance is gone.
    Removed,
}

impl Function {
    fn new(deployed: Arc<Deployed>, home: ShardId) -> Self {
        Self {
            deployed,
            home,
            presence: Presence::Deployed,
            code: CodeState::Assumed,
            queue: VecDeque::new(),
            instances: Vec::new(),
            ready: Vec::new(),
            starting: 0,
            service_ns: 0,
            cold_ns: COLD_NS_GUESS,
            alarm: Alarm::default(),
        }
    }

    pub(crate) fn saw_service(&mut self, took_ns: u64) {
        self.service_ns = smooth(self.service_ns, took_ns);
    }

    pub(crate) fn saw_cold_start(&mut self, took_ns: u64) {
        self.cold_ns = smooth(self.cold_ns, took_ns);
    }

    /// How long the call at the back of the queue will wait at the present pace (DESIGN section 3, depth before width).
    pub(crate) fn expected_wait_ns(&self, serving: usize) -> u64 {
        let lanes = serving as u64 * u64::from(self.deployed.concurrency.slots());
        (self.queue.len() as u64 * self.service_ns).checked_div(lanes).unwrap_or(u64::MAX)
    }

    /// Takes the most recently used instance with room.
    pub(crate) fn most_recent(&self) -> Option<Id<Instance>> {
        self.ready.last().copied()
    }

    pub(crate) fn not_ready(&mut self, instance: Id<Instance>) {
        self.ready.retain(|id| *id != instance);
    }
}

/// Exponential smoothing, weight 1/8 for the new value; the first value counts whole.
fn smooth(old: u64, new: u64) -> u64 {
    if old == 0 { new.max(1) } else { (old - old / 8 + new / 8).max(1) }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    by_key: FxHashMap<Box<[u8]>, u32>,
    entries: Vec<Option<Function>>,
    free: Vec<u32>,
}

impl Functions {
    /// The function with this canonical key, unless it was removed.
    pub(crate) fn find(&self, key: &[u8]) -> Option<(u32, &Function)> {
        let index = *self.by_key.get(key)?;
        let function = self.entries[index as usize].as_ref().expect("keys lead to entries");
        (function.presence == Presence::Deployed).then_some((index, function))
    }

    pub(crate) fn get(&self, index: u32) -> &Function {
        self.entries[index as usize].as_ref().expect("calls and instances keep their function's entry")
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> &mut Function {
        self.entries[index as usize].as_mut().expect("calls and instances keep their function's entry")
    }

    pub(crate) fn try_get(&self, index: u32) -> Option<&Function> {
        self.entries.get(index as usize)?.as_ref()
    }

    pub(crate) fn try_get_mut(&mut self, index: u32) -> Option<&mut Function> {
        self.entries.get_mut(index as usize)?.as_mut()
    }

    /// Installs a revision; answers with the entry's index.
    pub(crate) fn deploy(&mut self, deployed: Arc<Deployed>, shards: u16) -> u32 {
        let key: Box<[u8]> = deployed.key.as_bytes().into();
        if let Some(index) = self.by_key.get(&key).copied() {
            let function = self.get_mut(index);
            if function.deployed.revision == deployed.revision && function.presence == Presence::Deployed {
                // Told twice, as at the engine's start.
                return index;
            }
            if !deployed.differs_in_memory_alone(&function.deployed) {
                // Times of the old code say nothing of the new, and its instances take no more calls.
                function.service_ns = 0;
                function.ready.clear();
            }
            if !is_same_code(&deployed, &function.deployed) || function.presence == Presence::Removed {
                function.code = CodeState::Assumed;
            }
            function.deployed = deployed;
            function.presence = Presence::Deployed;
            return index;
        }
        let home = home_of(&key, shards);
        let function = Function::new(deployed, home);
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).expect("bounded by FUNCTIONS_MAX")
        });
        self.entries[index as usize] = Some(function);
        self.by_key.insert(key, index);
        index
    }

    /// Frees the entry of a removed function that nothing needs any more.
    pub(crate) fn release_if_unused(&mut self, index: u32) {
        let function = self.get(index);
        let unused = function.presence == Presence::Removed
            && function.instances.is_empty()
            && function.queue.is_empty()
            && function.starting == 0;
        if unused {
            let key: Box<[u8]> = function.deployed.key.as_bytes().into();
            self.by_key.remove(&key);
            self.entries[index as usize] = None;
            self.free.push(index);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Function)> {
        self.entries.iter().enumerate().filter_map(|(index, function)| {
            Some((u32::try_from(index).expect("bounded by FUNCTIONS_MAX"), function.as_ref()?))
        })
    }
}

/// The shard that runs a function: jump consistent hash (Lamping and Veach, arXiv 1406.2294) of its key.
pub fn home_of(key: &[u8], shards: u16) -> ShardId {
    ShardId(jump_hash(key_hash(key), shards.max(1)))
}

/// FNV-1a, 64 bits, finished with a mix so that nearby keys spread.
pub fn key_hash(key: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in key {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Jump consistent hash: when the count grows from n to n+1, only 1/(n+1) of the keys move.
pub fn jump_hash(mut key: u64, buckets: u16) -> u16 {
    let (mut at, mut next) = (0i64, 0i64);
    while next < i64::from(buckets) {
        at = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let spread = f64::from(1u32 << 31) / ((key >> 33) as f64 + 1.0);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the product is below 2^31 times the bucket count"
        )]
        let jumped = ((at + 1) as f64 * spread) as i64;
        next = jumped;
    }
    u16::try_from(at).expect("below the bucket count")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jump_hash_spreads_and_moves_little() {
        let keys: Vec<u64> = (0..10_000u32).map(|n| key_hash(format!("fn{n}").as_bytes())).collect();
        for buckets in [1u16, 2, 3, 8] {
            let mut counts = vec![0usize; usize::from(buckets)];
            keys.iter().for_each(|key| counts[usize::from(jump_hash(*key, buckets))] += 1);
            let fair = keys.len() / usize::from(buckets);
            assert!(counts.iter().all(|n| n.abs_diff(fair) < fair / 5 + 1), "{buckets}: {counts:?}");
        }
        let moved = keys.iter().filter(|key| jump_hash(**key, 4) != jump_hash(**key, 5)).count();
        assert!((1_700..2_300).contains(&moved), "{moved} of 10000 moved, about a fifth should");
    }

    #[test]
    fn smoothing_follows_slowly() {
        assert_eq!(smooth(0, 800), 800);
        assert_eq!(smooth(800, 1600), 900);
    }
}
