//! Which unpacked packages are removed: for room, and because nobody called them for long.
//!
//! Owns: the rules, as pure functions. Must not know: files, leases, where ages come from.

use std::time::Duration;

use faaster_protocol::funclet::CodeHash;

/// Whether a package may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Something runs it, is about to, or is being deployed with it.
    InUse,
    Unused,
}

/// An unpacked package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) hash: CodeHash,
    /// What its removal gives back.
    pub(crate) bytes: u64,
    /// Since its last use.
    pub(crate) age: Duration,
    pub(crate) need: Need,
}

/// Those that go so that `short_bytes` become free: unused ones, the longest unused first, no more than it takes. `None`: all of
/// them would not do, and then none should go.
pub(crate) fn for_room(mut candidates: Vec<Candidate>, short_bytes: u64) -> Option<Vec<CodeHash>> {
    candidates.retain(|candidate| candidate.need == Need::Unused && candidate.bytes > 0);
    // Ages of one moment are told apart by the name: the choice is the same each time.
    candidates.sort_by_key(|candidate| (std::cmp::Reverse(candidate.age), candidate.hash.0));
    let mut freed_bytes = 0;
    let mut chosen = Vec::new();
    for candidate in candidates {
        if freed_bytes >= short_bytes {
            break;
        }
        freed_bytes += candidate.bytes;
        chosen.push(candidate.hash);
    }
    (freed_bytes >= short_bytes).then_some(chosen)
}

/// Those that nobody used for at least `idle`.
pub(crate) fn for_age(candidates: Vec<Candidate>, idle: Duration) -> Vec<CodeHash> {
    let goes = |candidate: &Candidate| candidate.need == Need::Unused && candidate.age >= idle;
    candidates.into_iter().filter(goes).map(|candidate| candidate.hash).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(number: u8, bytes: u64, age_secs: u64, need: Need) -> Candidate {
        Candidate { hash: CodeHash([number; 32]), bytes, age: Duration::from_secs(age_secs), need }
    }

    fn numbers(chosen: Vec<CodeHash>) -> Vec<u8> {
        chosen.into_iter().map(|hash| hash.0[0]).collect()
    }

    #[test]
    fn the_longest_unused_go_first_and_no_more_than_needed() {
        let all = vec![
            candidate(1, 10, 5, Need::Unused),
            candidate(2, 10, 50, Need::Unused),
            candidate(3, 10, 500, Need::InUse),
            candidate(4, 10, 20, Need::Unused),
        ];
        for (short_bytes, expected) in [(1, vec![2]), (10, vec![2]), (11, vec![2, 4]), (30, vec![2, 4, 1])] {
            assert_eq!(for_room(all.clone(), short_bytes).map(numbers), Some(expected), "{short_bytes}");
        }
        assert_eq!(for_room(all.clone(), 31), None, "what is in use stays, so none goes");
        assert_eq!(for_room(all, 0), Some(Vec::new()));
        assert_eq!(for_room(Vec::new(), 1), None);
    }

    #[test]
    fn what_gives_nothing_back_stays_and_equal_ages_have_an_order() {
        let empty = candidate(1, 0, 99, Need::Unused);
        let (two, three) = (candidate(2, 5, 7, Need::Unused), candidate(3, 5, 7, Need::Unused));
        assert_eq!(for_room(vec![three, empty, two], 5).map(numbers), Some(vec![2]));
        assert_eq!(for_room(vec![two, empty, three], 5).map(numbers), Some(vec![2]));
    }

    #[test]
    fn what_rested_long_enough_goes_unless_it_is_used() {
        let all = vec![
            candidate(1, 10, 59, Need::Unused),
            candidate(2, 10, 60, Need::Unused),
            candidate(3, 10, 61, Need::InUse),
            candidate(4, 0, 600, Need::Unused),
        ];
        assert_eq!(numbers(for_age(all, Duration::from_secs(60))), [2, 4]);
    }
}
