//! Which packages are in use, so that nobody takes away what somebody runs or is about to.
//!
//! Owns: how many use a package, whether it is just being taken away, and when its last use ended. Shards take leases, one for
//! each claim and for the life of the instance that comes of it; the code store asks before it removes. Must not know: files,
//! what a lease is for.
//! ```text
//! free <-> held(n) <-> held(n+1)        a lease is taken, given back
//! free <-> leaving                      the store begins, ends a removal
//! ```
//! Packages share places in a table by their hash: two of one place are in use together. Nothing grows, nothing is locked,
//! and no warm call comes here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use faaster_limits::CODE_USE_PLACES;
use faaster_protocol::funclet::CodeHash;

/// State of one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Nobody uses its packages.
    Free,
    /// So many leases are out.
    Held(u32),
    /// A package of it is being removed: no lease until that is over.
    Leaving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Take,
    GiveBack,
    Leave,
    Left,
}

impl Use {
    /// The transition, or `None` where it is refused.
    fn next(self, change: Change) -> Option<Self> {
        match (self, change) {
            (Self::Free, Change::Take) => Some(Self::Held(1)),
            (Self::Held(count), Change::Take) if count < u32::MAX - 2 => Some(Self::Held(count + 1)),
            (Self::Held(1), Change::GiveBack) | (Self::Leaving, Change::Left) => Some(Self::Free),
            (Self::Held(count), Change::GiveBack) => Some(Self::Held(count - 1)),
            (Self::Free, Change::Leave) => Some(Self::Leaving),
            _ => None,
        }
    }

    fn from_word(word: u32) -> Self {
        match word {
            0 => Self::Free,
            u32::MAX => Self::Leaving,
            count => Self::Held(count),
        }
    }

    fn word(self) -> u32 {
        match self {
            Self::Free => 0,
            Self::Held(count) => count,
            Self::Leaving => u32::MAX,
        }
    }
}

#[derive(Debug, Default)]
struct Place {
    state: AtomicU32,
    /// When the latest lease ended, ns of `CLOCK_MONOTONIC`; 0: none did.
    used_ns: AtomicU64,
}

impl Place {
    fn change(&self, change: Change) -> bool {
        let step = |word| Use::from_word(word).next(change).map(Use::word);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, step).is_ok()
    }
}

/// The table; one per engine.
#[derive(Debug)]
pub struct CodeUses {
    places: Box<[Place]>,
}

impl Default for CodeUses {
    fn default() -> Self {
        Self { places: (0..CODE_USE_PLACES).map(|_| Place::default()).collect() }
    }
}

impl CodeUses {
    fn index(package: &CodeHash) -> usize {
        let [first, second, third, fourth, ..] = package.0;
        let number = usize::try_from(u32::from_le_bytes([first, second, third, fourth])).unwrap_or_default();
        number % CODE_USE_PLACES
    }

    fn place(&self, package: &CodeHash) -> &Place {
        &self.places[Self::index(package)]
    }

    /// A lease for a function's packages. `None`: one of them is being removed just now.
    pub fn take(self: &Arc<Self>, code: CodeHash, layers: Option<CodeHash>) -> Option<CodeLease> {
        let mut lease = CodeLease { uses: self.clone(), places: [None; 2] };
        for (held, package) in lease.places.iter_mut().zip([Some(code), layers]) {
            let Some(package) = package else { continue };
            // What was taken before it goes back with the lease.
            if !self.place(&package).change(Change::Take) {
                return None;
            }
            *held = Some(Self::index(&package));
        }
        Some(lease)
    }

    /// Begins the removal of packages, all or none. `None`: one of them is in use.
    pub fn leave<'p>(&self, packages: impl IntoIterator<Item = &'p CodeHash>) -> Option<Leaving<'_>> {
        let mut leaving = Leaving { uses: self, places: Vec::new() };
        for package in packages {
            let index = Self::index(package);
            if leaving.places.contains(&index) {
                continue;
            }
            if !self.places[index].change(Change::Leave) {
                return None;
            }
            leaving.places.push(index);
        }
        Some(leaving)
    }

    /// Whether a lease is out for this package, or for one of its place.
    pub fn is_used(&self, package: &CodeHash) -> bool {
        let word = self.place(package).state.load(Ordering::Acquire);
        matches!(Use::from_word(word), Use::Held(_))
    }

    /// When its latest use ended, ns of `CLOCK_MONOTONIC`; `None`: not since the engine's start.
    pub fn used_ns(&self, package: &CodeHash) -> Option<u64> {
        Some(self.place(package).used_ns.load(Ordering::Acquire)).filter(|used_ns| *used_ns > 0)
    }
}

/// Packages that stay where they are for as long as this is there.
#[derive(Debug)]
pub struct CodeLease {
    uses: Arc<CodeUses>,
    places: [Option<usize>; 2],
}

impl CodeLease {
    /// They were used until then.
    pub fn used_until(&self, at_ns: u64) {
        for index in self.places.iter().flatten() {
            self.uses.places[*index].used_ns.fetch_max(at_ns, Ordering::AcqRel);
        }
    }
}

impl Drop for CodeLease {
    fn drop(&mut self) {
        for index in self.places.iter().flatten() {
            let given_back = self.uses.places[*index].change(Change::GiveBack);
            assert!(given_back, "a lease is given back once");
        }
    }
}

/// Packages that nobody may take a lease for: they are being removed.
#[derive(Debug)]
pub struct Leaving<'u> {
    uses: &'u CodeUses,
    places: Vec<usize>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        for index in &self.places {
            let left = self.uses.places[*index].change(Change::Left);
            assert!(left, "a removal ends once");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [Use; 4] = [Use::Free, Use::Held(1), Use::Held(2), Use::Leaving];

    #[test]
    fn nothing_leaves_while_it_is_held_and_nothing_is_taken_while_it_leaves() {
        let after = |change: Change| STATES.map(|state| state.next(change));
        assert_eq!(after(Change::Take), [Some(Use::Held(1)), Some(Use::Held(2)), Some(Use::Held(3)), None]);
        assert_eq!(after(Change::GiveBack), [None, Some(Use::Free), Some(Use::Held(1)), None]);
        assert_eq!(after(Change::Leave), [Some(Use::Leaving), None, None, None]);
        assert_eq!(after(Change::Left), [None, None, None, Some(Use::Free)]);
        for state in STATES {
            assert_eq!(Use::from_word(state.word()), state);
        }
        assert_eq!(Use::Held(u32::MAX - 2).next(Change::Take), None, "the count stays one");
    }

    #[test]
    fn a_lease_is_for_all_its_packages_or_none() {
        let uses = Arc::new(CodeUses::default());
        let (code, layers, other) = (CodeHash([1; 32]), CodeHash([2; 32]), CodeHash([3; 32]));
        let first = uses.take(code, Some(layers)).unwrap();
        let second = uses.take(code, None).unwrap();
        assert!(uses.leave([&other, &code]).is_none());
        assert!(!uses.is_used(&other), "what could have left is free again");
        first.used_until(7);
        first.used_until(5);
        drop(first);
        assert_eq!((uses.is_used(&layers), uses.is_used(&code)), (false, true));
        assert_eq!((uses.used_ns(&layers), uses.used_ns(&other)), (Some(7), None));
        drop(second);
        let leaving = uses.leave([&code, &layers, &code]).unwrap();
        assert!(uses.take(other, Some(code)).is_none());
        assert!(!uses.is_used(&other) && !uses.is_used(&code));
        drop(leaving);
        assert!(uses.take(code, Some(code)).is_some(), "one package for both is held twice");
        assert!(!uses.is_used(&code));
    }

    #[test]
    fn two_threads_never_both_have_it() {
        let uses = Arc::new(CodeUses::default());
        let code = CodeHash([9; 32]);
        // Written by who takes away, read by who holds: a lease must never see a removal under way.
        let gone = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    if let Some(_leaving) = uses.leave([&code]) {
                        gone.store(1, Ordering::SeqCst);
                        gone.store(0, Ordering::SeqCst);
                    }
                }
            });
            for _ in 0..20_000 {
                if let Some(_lease) = uses.take(code, None) {
                    assert_eq!(gone.load(Ordering::SeqCst), 0);
                }
            }
        });
    }
}
