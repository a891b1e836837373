//! How many prepared containers of a runtime are worth keeping.
//!
//! Owns: the rule, as a pure function of what happened. Must not know: containers, clocks, the ledger.
//! What counts is how far claims ran ahead of the refill: a pool as large as the most that was ever missing at once would
//! have served every claim. Claims alone raise that number; time lowers it, a quarter at a step.

use std::time::Duration;

use crate::timers::Nanos;

/// What happens to a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    /// A claim wants a container.
    Claimed,
    /// A claim that waited for one is gone.
    GivenUp,
    /// A container was prepared.
    Prepared,
    /// Time has passed.
    Looked,
}

/// What is configured for a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Demand beyond this is not looked at.
    pub most: usize,
    /// So long after a peak a quarter of it is forgotten.
    pub fall_after: Duration,
}

/// One runtime's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Claimed and not replaced yet.
    missing: usize,
    /// The most that were missing at once, as far as it is remembered.
    peak: usize,
    /// When a part of the peak is forgotten; of no meaning while that is 0.
    fall_at: Nanos,
}

impl Demand {
    /// The state after something happened.
    #[must_use]
    pub(crate) fn after(self, what: Happening, now: Nanos, rule: Rule) -> Self {
        let mut next = self;
        match what {
            Happening::Claimed => next.missing = (self.missing + 1).min(rule.most),
            Happening::GivenUp | Happening::Prepared => next.missing = self.missing.saturating_sub(1),
            Happening::Looked if self.peak > 0 && now >= self.fall_at => {
                next.peak = self.peak - self.peak.div_ceil(4);
                next.fall_at = now.after(rule.fall_after);
            }
            Happening::Looked => {}
        }
        if next.missing > 0 && next.missing >= next.peak {
            next.peak = next.missing;
            next.fall_at = now.after(rule.fall_after);
        }
        next
    }

    /// Containers that would have served the peak.
    pub(crate) fn wanted(self) -> usize {
        self.peak
    }

    /// When time changes something.
    pub(crate) fn look_at(self) -> Option<Nanos> {
        (self.peak > 0).then_some(self.fall_at)
    }
}

/// What a pool has by configuration, and what demand asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    pub floor: usize,
    pub wanted: usize,
}

/// How many each pool keeps: its floor, and of what all want beyond theirs as much as `budget` containers allow, in
/// proportion.
pub(crate) fn targets(wishes: &[Wish], budget: usize) -> Vec<usize> {
    let extra = |wish: &Wish| wish.wanted.saturating_sub(wish.floor);
    let floors: usize = wishes.iter().map(|wish| wish.floor).sum();
    let wanted: usize = wishes.iter().map(extra).sum();
    let room = budget.saturating_sub(floors).min(wanted);
    wishes.iter().map(|wish| wish.floor + (extra(wish) * room).checked_div(wanted).unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULE: Rule = Rule { most: 64, fall_after: Duration::from_secs(60) };

    fn at(seconds: u64) -> Nanos {
        Nanos(seconds * 1_000_000_000)
    }

    fn run(demand: Demand, what: Happening, times: usize, now: Nanos) -> Demand {
        (0..times).fold(demand, |demand, _| demand.after(what, now, RULE))
    }

    #[test]
    fn a_burst_raises_it_and_quiet_lowers_it_in_steps() {
        let mut demand = run(Demand::default(), Happening::Claimed, 40, at(1));
        assert_eq!(demand.wanted(), 40);
        demand = run(demand, Happening::Prepared, 40, at(5));
        assert_eq!((demand.wanted(), demand.look_at()), (40, Some(at(61))));
        assert_eq!(demand.after(Happening::Looked, at(60), RULE), demand, "not yet");
        let mut steps = vec![];
        let mut now = at(61);
        while demand.wanted() > 0 {
            demand = demand.after(Happening::Looked, now, RULE);
            steps.push(demand.wanted());
            now = now.after(RULE.fall_after);
        }
        assert_eq!(steps, [30, 22, 16, 12, 9, 6, 4, 3, 2, 1, 0]);
        assert_eq!(demand.look_at(), None);
    }

    #[test]
    fn claims_that_the_refill_keeps_up_with_ask_for_one() {
        let mut demand = Demand::default();
        for second in 0..1000 {
            demand = demand.after(Happening::Claimed, at(second), RULE);
            demand = demand.after(Happening::Looked, at(second), RULE);
            demand = demand.after(Happening::Prepared, at(second), RULE);
            assert_eq!(demand.wanted(), 1);
        }
    }

    #[test]
    fn the_budget_is_shared_in_proportion() {
        let wishes =
            [Wish { floor: 4, wanted: 64 }, Wish { floor: 4, wanted: 24 }, Wish { floor: 2, wanted: 0 }];
        assert_eq!(targets(&wishes, 1000), [64, 24, 2]);
        assert_eq!(targets(&wishes, 50), [34, 14, 2]);
        assert_eq!(targets(&wishes, 3), [4, 4, 2], "floors are the operator's word");
        assert_eq!(targets(&[], 3), Vec::<usize>::new());
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            Just(Happening::Claimed),
            Just(Happening::Claimed),
            Just(Happening::GivenUp),
            Just(Happening::Prepared),
            Just(Happening::Looked)
        ]
    }

    proptest! {
        /// Claims alone raise what is wanted, by one each and never above the bound; only time lowers it, by no more than
        /// a quarter; it is never less than what is missing; and after enough quiet nothing is left of it.
        #[test]
        fn demand_follows_claims_up_and_time_down(steps in prop::collection::vec((happening(), 0u64..40_000), 0..300)) {
            let mut demand = Demand::default();
            let mut now = Nanos(0);
            let mut last_fall: Option<Nanos> = None;
            for (what, pause_ms) in steps {
                now = now.after(Duration::from_millis(pause_ms));
                let next = demand.after(what, now, RULE);
                prop_assert!(next.wanted() <= RULE.most && next.wanted() >= next.missing);
                if next.wanted() > demand.wanted() {
                    prop_assert_eq!((what, next.wanted()), (Happening::Claimed, demand.wanted() + 1));
                }
                if next.wanted() < demand.wanted() {
                    prop_assert_eq!(what, Happening::Looked);
                    prop_assert!(demand.wanted() - next.wanted() <= demand.wanted().div_ceil(4));
                    prop_assert!(last_fall.is_none_or(|fall| now.since(fall) >= RULE.fall_after));
                    last_fall = Some(now);
                }
                demand = next;
            }
            demand = run(demand, Happening::Prepared, RULE.most, now);
            for _ in 0..RULE.most {
                now = now.after(RULE.fall_after);
                demand = demand.after(Happening::Looked, now, RULE);
            }
            prop_assert_eq!(demand.wanted(), 0);
        }

        /// No pool gets less than its floor nor more than it wants, and together they stay within the budget wherever the
        /// floors do.
        #[test]
        fn targets_keep_to_the_budget(pairs in prop::collection::vec((0usize..20, 0usize..3000), 0..64), budget in 0usize..4000) {
            let wishes: Vec<Wish> = pairs.iter().map(|(floor, wanted)| Wish { floor: *floor, wanted: *wanted }).collect();
            let targets = targets(&wishes, budget);
            for (wish, target) in wishes.iter().zip(&targets) {
                prop_assert!(*target >= wish.floor && *target <= wish.floor.max(wish.wanted));
            }
            let floors: usize = wishes.iter().map(|wish| wish.floor).sum();
            prop_assert!(targets.iter().sum::<usize>() <= budget.max(floors));
        }
    }
}
