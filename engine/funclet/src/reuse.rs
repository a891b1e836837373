//! Networks of containers that have ended, for the next ones of the same account.
//!
//! Owns: which there are, and who may have them. Must not know: how a network is made, or looked at.
//!
//! A network is the most expensive part of a container, to make and more so to take apart. It goes to a container of the
//! same account alone (or of any, if the one before was never claimed), that is made in the same slot, whose addresses it
//! has, of the same runtime and below the same user namespace, so that whoever has to can enter it. An account is known
//! from claims; where nobody waits, it is the one that the node has heard of alone for a while.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use faaster_limits::{
    ACCOUNT_ALONE_FOR, NETWORK_KEPT_FOR, NETWORKS_KEPT_IN_DEMAND_MAX, NETWORKS_KEPT_MAX,
    NETWORKS_LET_GO_AT_ONCE_MAX, NETWORKS_LET_GO_PAUSE,
};
use faaster_protocol::funclet::{Generation, SlotId};

use crate::birth::Lineage;
use crate::network::{Inside, Leftover, Wire};
use crate::timers::Nanos;

/// An account, by its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account(pub u64);

/// Whose code a network has been used by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Past {
    /// Nobody's.
    None,
    Of(Account),
}

impl Past {
    /// Whether an account's function may have it.
    pub(crate) fn suits(self, account: Account) -> bool {
        match self {
            Self::None => true,
            Self::Of(before) => before == account,
        }
    }
}

/// What containers must have in common for one to get the other's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub runtime: usize,
    pub lineage: Lineage,
}

/// A network that is ready for its next container.
#[derive(Debug)]
pub(crate) struct Inheritance {
    pub wire: Wire,
    pub namespace: OwnedFd,
    pub inside: Box<Inside>,
    pub past: Past,
}

#[derive(Debug)]
struct Entry {
    slot: SlotId,
    kind: Kind,
    since: Nanos,
    inheritance: Inheritance,
}

#[derive(Debug)]
struct Examined {
    slot: SlotId,
    generation: Generation,
    kind: Kind,
    past: Past,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Reuse {
    /// Newest last.
    ready: VecDeque<Entry>,
    /// Oldest first; what turns out not to be for others is never heard of again.
    examined: VecDeque<Examined>,
    /// The account of the last claim, and since when there has been no other.
    account: Option<(Account, Option<Nanos>)>,
}

impl Reuse {
    /// A claim of an account has come.
    pub(crate) fn heard_of(&mut self, account: Account, now: Nanos) {
        match self.account {
            Some((before, _)) if before == account => {}
            Some(_) => self.account = Some((account, Some(now))),
            None => self.account = Some((account, None)),
        }
    }

    /// The account that the next container is for, as far as one can tell.
    fn expected(&self, now: Nanos) -> Option<Account> {
        let (account, since) = self.account?;
        since.is_none_or(|since| now.since(since) >= ACCOUNT_ALONE_FOR).then_some(account)
    }

    /// A network is being looked at. Of more than [`NETWORKS_KEPT_IN_DEMAND_MAX`] the first are forgotten.
    pub(crate) fn examining(&mut self, slot: SlotId, generation: Generation, kind: Kind, past: Past) {
        self.examined.retain(|other| other.slot != slot);
        if self.examined.len() >= NETWORKS_KEPT_IN_DEMAND_MAX {
            self.examined.pop_front();
        }
        self.examined.push_back(Examined { slot, generation, kind, past });
    }

    /// A network has turned out to be as good as new. So many claims wait, for whose containers more are kept.
    pub(crate) fn keep(&mut self, leftover: Leftover, inside: Box<Inside>, waiting: usize, now: Nanos) {
        let Leftover { slot, generation, wire, namespace } = leftover;
        let is_it = |other: &Examined| (other.slot, other.generation) == (slot, generation);
        let Some(at) = self.examined.iter().position(is_it) else { return };
        let Some(Examined { kind, past, .. }) = self.examined.remove(at) else { return };
        if self.ready.len() >= most(waiting) {
            self.ready.pop_front();
        }
        let inheritance = Inheritance { wire, namespace, inside, past };
        self.ready.push_back(Entry { slot, kind, since: now, inheritance });
    }

    /// A network for a container of this kind: the newest one whose slot `may_have` gives.
    pub(crate) fn take(
        &mut self,
        kind: Kind,
        now: Nanos,
        mut may_have: impl FnMut(SlotId) -> bool,
    ) -> Option<Inheritance> {
        let expected = self.expected(now);
        let suits = |past: Past| match past {
            Past::None => true,
            Past::Of(account) => expected == Some(account),
        };
        let at = self
            .ready
            .iter()
            .rposition(|entry| entry.kind == kind && suits(entry.inheritance.past) && may_have(entry.slot))?;
        self.ready.remove(at).map(|entry| entry.inheritance)
    }

    /// A slot gets a network of its own: the kernel may take apart what it had.
    pub(crate) fn let_go(&mut self, slot: SlotId) {
        self.ready.retain(|entry| entry.slot != slot);
        self.examined.retain(|entry| entry.slot != slot);
    }

    /// Lets go of what nobody has had for long, and of what is too much, some at a time; when to ask again, if anything is
    /// left.
    pub(crate) fn age(&mut self, waiting: usize, now: Nanos) -> Option<Nanos> {
        let is_due = |since: Nanos| now.since(since) >= NETWORK_KEPT_FOR;
        for _ in 0..NETWORKS_LET_GO_AT_ONCE_MAX {
            match self.ready.front() {
                Some(entry) if is_due(entry.since) || self.ready.len() > most(waiting) => {
                    self.ready.pop_front();
                }
                _ => break,
            }
        }
        let oldest = self.ready.front()?.since.after(NETWORK_KEPT_FOR);
        // Of what is too much for fewer claims, the next goes a pause later.
        let due = if self.ready.len() > NETWORKS_KEPT_MAX { now } else { oldest };
        Some(due.max(now.after(NETWORKS_LET_GO_PAUSE)))
    }

    /// Lets go of all.
    pub(crate) fn clear(&mut self) {
        self.ready.clear();
        self.examined.clear();
    }
}

/// How many are kept while so many claims wait.
fn most(waiting: usize) -> usize {
    waiting.clamp(NETWORKS_KEPT_MAX, NETWORKS_KEPT_IN_DEMAND_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use faaster_netlink::LinkIndex;
    use faaster_protocol::funclet::NetworkMode;

    const A: Past = Past::Of(Account(1));
    const B: Past = Past::Of(Account(2));
    const KIND: Kind = Kind { runtime: 0, lineage: Lineage::Funclet };

    /// The first life of a slot left an untouched network.
    fn keep(reuse: &mut Reuse, slot: u32, now: Nanos) {
        let link = LinkIndex::new(slot + 1).unwrap();
        let wire = Wire { link, mode: NetworkMode::Egress, made_for: Generation(1) };
        let namespace = std::fs::File::open("/dev/null").unwrap().into();
        let leftover = Leftover { slot: SlotId(slot), generation: Generation(1), wire, namespace };
        reuse.keep(leftover, Box::new(Inside::for_tests()), 0, now);
    }

    fn entry(slot: u32, since: Nanos) -> Entry {
        let mut reuse = Reuse::default();
        kept(&mut reuse, slot, KIND, Past::None, since);
        reuse.ready.pop_back().unwrap()
    }

    fn kept(reuse: &mut Reuse, slot: u32, kind: Kind, past: Past, now: Nanos) {
        reuse.examining(SlotId(slot), Generation(1), kind, past);
        keep(reuse, slot, now);
    }

    fn take(reuse: &mut Reuse, kind: Kind, now: Nanos) -> Option<(u32, Past)> {
        reuse.take(kind, now, |_| true).map(|it| (it.wire.link.get() - 1, it.past))
    }

    #[test]
    fn a_network_is_for_its_account_alone_and_nobodys_is_for_all() {
        assert!(Past::None.suits(Account(1)) && A.suits(Account(1)) && !A.suits(Account(2)));
        let now = Nanos(1);
        let mut reuse = Reuse::default();
        kept(&mut reuse, 5, KIND, A, now);
        assert_eq!(take(&mut reuse, KIND, now), None, "nobody is expected");
        reuse.heard_of(Account(2), now);
        assert_eq!(take(&mut reuse, KIND, now), None);
        kept(&mut reuse, 6, KIND, Past::None, now);
        kept(&mut reuse, 7, KIND, B, now);
        assert_eq!(take(&mut reuse, KIND, now), Some((7, B)), "the newest");
        assert_eq!(take(&mut reuse, KIND, now), Some((6, Past::None)));
        assert_eq!(take(&mut reuse, KIND, now), None);
        // The other one again, which has to be alone for a while.
        reuse.heard_of(Account(1), now);
        let later = now.after(ACCOUNT_ALONE_FOR);
        assert_eq!(take(&mut reuse, KIND, Nanos(later.0 - 1)), None);
        reuse.heard_of(Account(1), later);
        assert_eq!(take(&mut reuse, KIND, later), Some((5, A)));
    }

    #[test]
    fn it_is_for_its_kind_and_its_slot() {
        let now = Nanos(1);
        let others = [Kind { runtime: 1, ..KIND }, Kind { lineage: Lineage::ForkServer, ..KIND }];
        let mut reuse = Reuse::default();
        kept(&mut reuse, 5, KIND, Past::None, now);
        kept(&mut reuse, 6, KIND, Past::None, now);
        assert!(others.iter().all(|kind| take(&mut reuse, *kind, now).is_none()));
        let found = reuse.take(KIND, now, |slot| slot == SlotId(5)).unwrap();
        assert_eq!(found.wire.link.get(), 6);
        reuse.let_go(SlotId(6));
        assert_eq!(take(&mut reuse, KIND, now), None);
    }

    #[test]
    fn what_was_let_go_or_lived_again_meanwhile_is_not_kept() {
        let now = Nanos(1);
        let mut reuse = Reuse::default();
        reuse.examining(SlotId(5), Generation(1), KIND, Past::None);
        reuse.let_go(SlotId(5));
        keep(&mut reuse, 5, now);
        reuse.examining(SlotId(6), Generation(1), KIND, Past::None);
        reuse.examining(SlotId(6), Generation(2), KIND, Past::None);
        keep(&mut reuse, 6, now);
        reuse.examining(SlotId(7), Generation(1), KIND, Past::None);
        reuse.clear();
        keep(&mut reuse, 7, now);
        assert_eq!((take(&mut reuse, KIND, now), reuse.age(0, now)), (None, None));
    }

    #[test]
    fn there_are_so_many_for_so_long() {
        let mut reuse = Reuse::default();
        let most = u32::try_from(NETWORKS_KEPT_MAX).unwrap();
        for slot in 0..=most {
            kept(&mut reuse, slot, KIND, Past::None, Nanos(u64::from(slot)));
        }
        assert_eq!(reuse.ready.len(), NETWORKS_KEPT_MAX);
        let due = reuse.age(0, Nanos(u64::from(most))).unwrap();
        assert_eq!(due, Nanos(1).after(NETWORK_KEPT_FOR));
        // All are due at about the same time, and go one after the other.
        let (mut now, mut rounds) = (due.after(NETWORKS_LET_GO_PAUSE), 0);
        while let Some(next) = reuse.age(0, now) {
            assert_eq!(next, now.after(NETWORKS_LET_GO_PAUSE));
            (now, rounds) = (next, rounds + 1);
        }
        assert_eq!(rounds + 1, NETWORKS_KEPT_MAX / NETWORKS_LET_GO_AT_ONCE_MAX);
    }

    #[test]
    fn more_are_kept_while_claims_wait() {
        let now = Nanos(1);
        let mut reuse = Reuse::default();
        let all = u32::try_from(2 * NETWORKS_KEPT_IN_DEMAND_MAX).unwrap();
        for slot in 0..all {
            reuse.examining(SlotId(slot), Generation(1), KIND, Past::None);
        }
        assert_eq!(reuse.examined.len(), NETWORKS_KEPT_IN_DEMAND_MAX, "the first were forgotten");
        assert_eq!(
            (most(0), most(100), most(usize::MAX)),
            (NETWORKS_KEPT_MAX, 100, NETWORKS_KEPT_IN_DEMAND_MAX)
        );
        for slot in 0..3 * u32::try_from(NETWORKS_KEPT_MAX).unwrap() {
            reuse.ready.push_back(entry(slot, now));
        }
        let length = reuse.ready.len();
        assert_eq!(reuse.age(length, now), Some(now.after(NETWORKS_LET_GO_PAUSE)));
        assert_eq!(reuse.ready.len(), length);
        reuse.age(0, now);
        assert_eq!(reuse.ready.len(), length - NETWORKS_LET_GO_AT_ONCE_MAX);
    }
}
