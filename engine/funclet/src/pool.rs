//! Prepared containers of each runtime: which there are, and which is to be made next.
//!
//! Owns: counts and the order of the cold ones. Must not know: how a container is made.

use faaster_protocol::funclet::{Generation, SlotId};

use crate::backoff::Backoff;
use crate::demand::Demand;
use crate::timers::Nanos;

/// One runtime's.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// How many to keep whatever happens.
    pub floor: usize,
    /// How many to keep now.
    pub target: usize,
    pub demand: Demand,
    /// Claimable ones; the most recently prepared is last and goes first, for its caches are warmest.
    cold: Vec<(SlotId, Generation)>,
    creating: Vec<(SlotId, Generation)>,
    pub backoff: Backoff,
    /// Of those that booted and ended before a claim took one. A boot that succeeds says nothing about them.
    deaths: Backoff,
}

impl Pool {
    /// An empty one.
    pub(crate) fn new(floor: usize) -> Self {
        Self { floor, target: floor, ..Self::default() }
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

    /// The next one to claim of those that suit.
    pub(crate) fn peek(&self, suits: impl Fn(SlotId, Generation) -> bool) -> Option<(SlotId, Generation)> {
        self.cold.iter().rev().copied().find(|(id, generation)| suits(*id, *generation))
    }

    /// The one that has been waiting for longest.
    pub(crate) fn oldest(&self) -> Option<(SlotId, Generation)> {
        self.cold.first().copied()
    }

    /// A claimable one has ended by itself; when the next may be made. Those that end at about the same time count once.
    pub(crate) fn died(&mut self, id: SlotId, generation: Generation, now: Nanos) -> Nanos {
        self.remove(id, generation);
        if let Some(until) = self.deaths.blocked_until(now) {
            return until;
        }
        self.deaths.failed(now);
        self.deaths.blocked_until(now).unwrap_or(now)
    }

    /// A claim has got one.
    pub(crate) fn served(&mut self) {
        self.deaths.succeeded();
    }

    /// One was taken, evicted or has died.
    pub(crate) fn remove(&mut self, id: SlotId, generation: Generation) {
        self.cold.retain(|entry| *entry != (id, generation));
    }

    /// More are cold than are to be kept: claims that they were made for were taken back.
    pub(crate) fn is_overfull(&self) -> bool {
        self.cold.len() > self.target
    }

    /// The first to go of more than are to be kept.
    pub(crate) fn surplus(&self) -> Option<(SlotId, Generation)> {
        self.is_overfull().then(|| self.cold.first().copied()).flatten()
    }

    /// It failed more than once in a row and is not tried again yet: not worth a claim's waiting.
    pub(crate) fn is_hopeless(&self, now: Nanos) -> bool {
        let is_lost = |backoff: &Backoff| backoff.failures() > 1 && backoff.blocked_until(now).is_some();
        self.creating.is_empty() && (is_lost(&self.backoff) || is_lost(&self.deaths))
    }

    /// Boots share the processors: all at once, the first would be ready no sooner than the last.
    fn may_make_one(&self, at_once: usize, now: Nanos) -> bool {
        self.creating.len() < at_once
            && self.backoff.blocked_until(now).is_none()
            && self.deaths.blocked_until(now).is_none()
    }

    /// Cold ones and those that are to become cold.
    pub(crate) fn stock(&self) -> usize {
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
    /// Those with less than half of their floor: a claim was served not long ago, and the next may be near.
    Half,
    /// Those with less than a quarter: a claim has just been served, and needs the cores.
    Low,
}

impl Refill {
    fn is_for(self, stock: usize, wanted: usize) -> bool {
        match self {
            Self::All => true,
            Self::Half => stock * 2 < wanted,
            Self::Low => stock * 4 < wanted,
        }
    }
}

/// The runtime of which a container is to be made next, if any: first where claims wait for one, then the pool that is
/// emptiest in proportion. `waiting` says how many claims wait for each; `at_once` are made of each at the same time.
pub(crate) fn next_to_make(
    pools: &[Pool],
    refill: Refill,
    waiting: impl Fn(usize) -> usize,
    at_once: usize,
    now: Nanos,
) -> Option<usize> {
    let free: Vec<(usize, &Pool)> =
        pools.iter().enumerate().filter(|(_, pool)| pool.may_make_one(at_once, now)).collect();
    let is_short = |(at, pool): &&(usize, &Pool)| pool.stock() < waiting(*at);
    if let Some((at, _)) = free.iter().find(is_short) {
        return Some(*at);
    }
    free.iter()
        .filter(|(at, pool)| pool.stock() < pool.target + waiting(*at))
        .filter(|(at, pool)| refill.is_for(pool.stock(), pool.floor + waiting(*at)))
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
        let peek = |pool: &Pool| pool.peek(|_, _| true);
        assert_eq!((peek(&pool), pool.peek(|slot, _| slot == SlotId(1))), (Some(id(2)), Some(id(1))));
        assert_eq!((pool.oldest(), pool.peek(|_, _| false)), (Some(id(1)), None));
        pool.remove(id(2).0, id(2).1);
        assert_eq!((peek(&pool), pool.cold_count(), pool.creating_count()), (Some(id(1)), 1, 0));
    }

    #[test]
    fn a_runtime_that_dies_before_it_is_claimed_is_made_less_and_less_often() {
        let mut pool = Pool::new(1);
        let (mut now, mut pauses) = (Nanos(0), Vec::new());
        for number in 1..=4 {
            pool.began(id(number).0, id(number).1);
            pool.booted(id(number).0, id(number).1);
            let until = pool.died(id(number).0, id(number).1, now);
            pauses.push(until.since(now).as_millis());
            assert_eq!(pool.died(id(99).0, id(99).1, now), until, "at the same time");
            assert!(!pool.may_make_one(8, now) && pool.may_make_one(8, until));
            now = until;
        }
        assert_eq!(pauses, [100, 200, 400, 800]);
        pool.served();
        assert_eq!(pool.died(id(5).0, id(5).1, now).since(now).as_millis(), 100);
    }

    #[test]
    fn waiting_claims_come_before_the_fill_and_the_emptiest_pool_is_filled_first() {
        let mut pools = [with_cold(4, &[1, 2]), with_cold(2, &[]), with_cold(0, &[])];
        let now = Nanos(0);
        assert_eq!(next_to_make(&pools, Refill::All, |_| 0, 8, now), Some(1));
        assert_eq!(next_to_make(&pools, Refill::All, |at| usize::from(at == 2), 8, now), Some(2));
        pools[2].began(id(9).0, id(9).1);
        assert_eq!(next_to_make(&pools, Refill::All, |at| usize::from(at == 2), 8, now), Some(1));
        pools[1].backoff.failed(now);
        assert_eq!(next_to_make(&pools, Refill::All, |_| 0, 8, now), Some(0));
        assert_eq!(next_to_make(&pools, Refill::Low, |_| 0, 8, now), None);
        pools[1].backoff.succeeded();
        assert_eq!(next_to_make(&pools, Refill::Low, |_| 0, 8, now), Some(1));
        pools[1] = with_cold(2, &[7, 8]);
        pools[0] = with_cold(4, &[1, 2, 3, 4]);
        assert_eq!(next_to_make(&pools, Refill::All, |_| 0, 8, now), None);
    }

    #[test]
    fn so_many_of_one_runtime_are_made_at_once() {
        let mut pools = [with_cold(9, &[]), with_cold(9, &[1])];
        let next = |pools: &[Pool]| next_to_make(pools, Refill::All, |_| 5, 2, Nanos(0));
        for number in [3, 4] {
            assert_eq!(next(&pools), Some(0));
            pools[0].began(id(number).0, id(number).1);
        }
        assert_eq!(next(&pools), Some(1), "the other one does not wait for it");
        pools[0].booted(id(3).0, id(3).1);
        assert_eq!(next(&pools), Some(0));
    }

    #[test]
    fn what_demand_added_goes_oldest_first_and_is_not_refilled_close_to_claims() {
        let mut pools = [with_cold(2, &[1, 2])];
        assert_eq!(pools[0].surplus(), None);
        pools[0].target = 8;
        let next = |pools: &[Pool], refill| next_to_make(pools, refill, |_| 0, 8, Nanos(0));
        assert_eq!((next(&pools, Refill::Half), next(&pools, Refill::All)), (None, Some(0)));
        pools[0].target = 1;
        assert_eq!((pools[0].surplus(), next(&pools, Refill::All)), (Some(id(1)), None));
    }

    #[test]
    fn the_nearer_the_claim_the_emptier_a_pool_that_is_refilled() {
        let refills = |cold: &[u32]| {
            let pools = [with_cold(8, cold)];
            [Refill::All, Refill::Half, Refill::Low]
                .map(|refill| next_to_make(&pools, refill, |_| 0, 8, Nanos(0)).is_some())
        };
        assert_eq!(refills(&[1, 2, 3, 4]), [true, false, false]);
        assert_eq!(refills(&[1, 2, 3]), [true, true, false]);
        assert_eq!(refills(&[1, 2]), [true, true, false]);
        assert_eq!(refills(&[1]), [true, true, true]);
    }

    #[test]
    fn room_is_made_by_another_runtimes_largest_pool() {
        let pools = [with_cold(4, &[1]), with_cold(4, &[2, 3]), with_cold(4, &[4, 5, 6])];
        assert_eq!(to_evict(&pools, 0), Some(id(4)));
        assert_eq!(to_evict(&pools, 2), Some(id(2)));
        assert_eq!(to_evict(&[with_cold(1, &[1])], 0), None);
    }
}
