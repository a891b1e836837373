//! Prepared containers of each runtime: which there are, and which is to be made next.
//!
//! Owns: counts and the order of the cold ones. Must not know: how a container is made.

use faaster_protocol::funclet::{Generation, SlotId};

use crate::backoff::Backoff;
use crate::timers::Nanos;

/// One runtime's.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// How many to keep.
    pub target: usize,
    /// Claimable ones; the most recently prepared is last and goes first, for its caches are warmest.
    cold: Vec<(SlotId, Generation)>,
    creating: Vec<(SlotId, Generation)>,
    pub backoff: Backoff,
}

impl Pool {
    /// An empty one.
    pub(crate) fn new(target: usize) -> Self {
        Self { target, ..Self::default() }
    }

    /// A container of it is being made.
    pub(crate) fn began(&mut self, id: SlotId, generation: Generation) {
        self.creating.push((id, generation));
    }

    /// One that was being made is claimable now.
    pub(crate) fn booted(&mut self, id: SlotId, generation: Generation) {
        self.made(id, generation);
        self.backoff.succeeded();
        self.cold.push((id, generation));
    }

    /// One that was being made came to nothing.
    pub(crate) fn failed(&mut self, id: SlotId, generation: Generation) {
        self.made(id, generation);
    }

    fn made(&mut self, id: SlotId, generation: Generation) {
        let at = self.creating.iter().position(|entry| *entry == (id, generation));
        self.creating.swap_remove(at.expect("what booted or failed was being made"));
    }

    /// Those that are being made.
    pub(crate) fn being_made(&self) -> &[(SlotId, Generation)] {
        &self.creating
    }

    /// The next one to claim.
    pub(crate) fn peek(&self) -> Option<(SlotId, Generation)> {
        self.cold.last().copied()
    }

    /// One was taken, evicted or has died.
    pub(crate) fn remove(&mut self, id: SlotId, generation: Generation) {
        self.cold.retain(|entry| *entry != (id, generation));
    }

    /// More are cold than are to be kept: claims that they were made for were taken back.
    pub(crate) fn is_overfull(&self) -> bool {
        self.cold.len() > self.target
    }

    /// It failed more than once in a row and is not tried again yet: not worth a claim's waiting.
    pub(crate) fn is_hopeless(&self, now: Nanos) -> bool {
        self.backoff.failures() > 1 && self.creating.is_empty() && self.backoff.blocked_until(now).is_some()
    }

    /// Cold ones and those that are to become cold.
    fn stock(&self) -> usize {
        self.creating.len() + self.cold.len()
    }

    pub(crate) fn cold_count(&self) -> usize {
        self.cold.len()
    }

    pub(crate) fn creating_count(&self) -> usize {
        self.creating.len()
    }
}

/// Which pools are refilled now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refill {
    All,
    /// Those that are less than half full, for a claim has just been served.
    Low,
}

/// The runtime of which a container is to be made next, if any: first where claims wait for one, then the pool that is
/// emptiest in proportion. `waiting` says how many claims wait for each.
pub(crate) fn next_to_make(
    pools: &[Pool],
    refill: Refill,
    waiting: impl Fn(usize) -> usize,
    now: Nanos,
) -> Option<usize> {
    let free: Vec<(usize, &Pool)> =
        pools.iter().enumerate().filter(|(_, pool)| pool.backoff.blocked_until(now).is_none()).collect();
    let is_short = |(at, pool): &&(usize, &Pool)| pool.stock() < waiting(*at);
    if let Some((at, _)) = free.iter().find(is_short) {
        return Some(*at);
    }
    free.iter()
        .filter(|(at, pool)| pool.stock() < pool.target + waiting(*at))
        .filter(|(at, pool)| refill == Refill::All || pool.stock() * 2 < pool.target + waiting(*at))
        .min_by_key(|(_, pool)| pool.stock() * 1000 / pool.target.max(1))
        .map(|(at, _)| *at)
}

/// A cold container that can make room for another runtime: of the largest pool.
pub(crate) fn to_evict(pools: &[Pool], wanted: usize) -> Option<(SlotId, Generation)> {
    let others = pools.iter().enumerate().filter(|(at, _)| *at != wanted).map(|(_, pool)| pool);
    others.max_by_key(|pool| pool.cold.len())?.cold.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> (SlotId, Generation) {
        (SlotId(number), Generation(1))
    }

    fn with_cold(target: usize, numbers: &[u32]) -> Pool {
        let mut pool = Pool::new(target);
        for number in numbers {
            pool.began(id(*number).0, id(*number).1);
            pool.booted(id(*number).0, id(*number).1);
        }
        pool
    }

    #[test]
    fn the_most_recently_prepared_goes_first() {
        let mut pool = with_cold(2, &[1, 2]);
        assert_eq!(pool.peek(), Some(id(2)));
        pool.remove(id(2).0, id(2).1);
        assert_eq!((pool.peek(), pool.cold_count(), pool.creating_count()), (Some(id(1)), 1, 0));
    }

    #[test]
    fn waiting_claims_come_before_the_fill_and_the_emptiest_pool_is_filled_first() {
        let mut pools = [with_cold(4, &[1, 2]), with_cold(2, &[]), with_cold(0, &[])];
        let now = Nanos(0);
        assert_eq!(next_to_make(&pools, Refill::All, |_| 0, now), Some(1));
        assert_eq!(next_to_make(&pools, Refill::All, |at| usize::from(at == 2), now), Some(2));
        pools[2].began(id(9).0, id(9).1);
        assert_eq!(next_to_make(&pools, Refill::All, |at| usize::from(at == 2), now), Some(1));
        pools[1].backoff.failed(now);
        assert_eq!(next_to_make(&pools, Refill::All, |_| 0, now), Some(0));
        assert_eq!(next_to_make(&pools, Refill::Low, |_| 0, now), None);
        pools[1].backoff.succeeded();
        assert_eq!(next_to_make(&pools, Refill::Low, |_| 0, now), Some(1));
        pools[1] = with_cold(2, &[7, 8]);
        pools[0] = with_cold(4, &[1, 2, 3, 4]);
        assert_eq!(next_to_make(&pools, Refill::All, |_| 0, now), None);
    }

    #[test]
    fn room_is_made_by_another_runtimes_largest_pool() {
        let pools = [with_cold(4, &[1]), with_cold(4, &[2, 3]), with_cold(4, &[4, 5, 6])];
        assert_eq!(to_evict(&pools, 0), Some(id(4)));
        assert_eq!(to_evict(&pools, 2), Some(id(2)));
        assert_eq!(to_evict(&[with_cold(1, &[1])], 0), None);
    }
}
