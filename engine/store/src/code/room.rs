//! Unpacked code comes and goes: removed for room or for its age, unpacked again from the stored zip when it is wanted.
//!
//! Owns: ages of packages, and the steps. Which ones go is [`super::choice`]'s; that nobody uses them meanwhile is
//! [`CodeUses`]'s. Must not know: who wants a package.
//! A merged tree has the same files as its layers (hard links), so a layer goes together with the trees that it is in.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use faaster_function::code_use::{CodeLease, CodeUses};
use faaster_protocol::funclet::CodeHash;
use rustix::time::{ClockId, clock_gettime};

use super::choice::{self, Candidate, Need};
use super::{CodeError, CodeStore, Held, Removed, add_one, remove_tree};
use crate::zip::plan::plan;

/// A use that is so much newer than what the disk says of it is written there.
const AGE_SLACK: Duration = Duration::from_secs(10);

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
struct Now {
    wall: SystemTime,
    monotonic: Duration,
}

impl Now {
    fn read() -> Self {
        let monotonic = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
        Self { wall: SystemTime::now(), monotonic }
    }
}

/// Code that only instances without a call use, and for how long they have rested.
pub type Resting = Vec<(CodeHash, Duration)>;

impl CodeStore {
    /// Who takes leases for packages; what is leased is not removed.
    pub fn watch(&mut self, uses: std::sync::Arc<CodeUses>) {
        self.uses = uses;
    }

    /// Sees to it that a function's packages are there, and that they stay for as long as the lease does.
    ///
    /// # Errors
    /// There is no room, the zip is lost, or the disk refuses.
    pub fn bring_back(&mut self, code: CodeHash, layers: Option<CodeHash>) -> Result<CodeLease, CodeError> {
        // Before room is made for it: one package must not go for the other.
        let lease = self.uses.take(code, layers).ok_or(CodeError::Leaving)?;
        for package in [Some(code), layers].into_iter().flatten() {
            self.restore(&package)?;
        }
        Ok(lease)
    }

    fn restore(&mut self, hash: &CodeHash) -> Result<(), CodeError> {
        if self.directory(hash).is_dir() {
            return Ok(());
        }
        match self.trees.get(hash).cloned() {
            Some(packages) => self.restore_tree(&packages),
            None => self.unpack_again(hash),
        }
    }

    fn unpack_again(&mut self, hash: &CodeHash) -> Result<(), CodeError> {
        let zip = self.read_zip(hash)?;
        let unpacked = self.unpack_stored(hash, &zip)?;
        let used = SystemTime::now();
        self.count(*hash, Held { packed: zip.len() as u64, unpacked: Some(unpacked.bytes), used });
        add_one(&self.counters.unpacked_again_total);
        // As the next start will see it; at worst it is taken to be older.
        touch(&self.zip_path(hash), used).ok();
        Ok(())
    }

    /// Makes a merged package if it is not there, and what it is made of.
    ///
    /// # Errors
    /// There is no room or the disk refuses; then nothing is left of it.
    pub fn restore_tree(&mut self, packages: &[CodeHash]) -> Result<(), CodeError> {
        let mut held = Vec::new();
        for package in packages {
            held.push(self.uses.take(*package, None).ok_or(CodeError::Leaving)?);
        }
        if packages.len() > 1 && self.directory(&super::tree_hash(packages)).is_dir() {
            return Ok(());
        }
        for package in packages {
            self.restore(package)?;
        }
        self.make_tree(packages)
    }

    /// Makes room for so many bytes, if it takes the unpacked code of functions that have no instance.
    pub(super) fn make_room(&mut self, needed_bytes: u64) -> Result<(), CodeError> {
        self.measure()?;
        loop {
            let short_bytes = self.short_bytes(needed_bytes);
            if short_bytes == 0 {
                return Ok(());
            }
            let chosen = choice::for_room(self.candidates(&Resting::new()), short_bytes);
            let mut evicted = false;
            for hash in chosen.into_iter().flatten() {
                evicted |= self.evict(&hash)? == Removed::Yes;
            }
            if !evicted {
                let (held_bytes, budget_bytes) = (self.counters.held_bytes(), self.budget_bytes);
                return Err(CodeError::OverBudget { held_bytes, needed_bytes, budget_bytes });
            }
        }
    }

    fn short_bytes(&self, needed_bytes: u64) -> u64 {
        self.counters.held_bytes().saturating_add(needed_bytes).saturating_sub(self.budget_bytes)
    }

    /// Packages whose instances should end so that there is room for so many bytes. Empty: there can be room now. `None`: not
    /// even that would make room.
    pub fn in_the_way(&self, resting: &Resting, needed_bytes: u64) -> Option<BTreeSet<CodeHash>> {
        let chosen = choice::for_room(self.candidates(resting), self.short_bytes(needed_bytes))?;
        let with_trees = chosen.iter().flat_map(|hash| self.with_trees(hash));
        Some(with_trees.filter(|hash| self.uses.is_used(hash)).collect())
    }

    /// Removes the unpacked code that nobody used for so long; how much of it. Keeps ages for the next start.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sweep_idle(&mut self, idle: Option<Duration>) -> Result<usize, CodeError> {
        self.measure()?;
        self.write_ages();
        let mut count = 0;
        for hash in choice::for_age(self.candidates(&Resting::new()), idle.unwrap_or(Duration::MAX)) {
            count += usize::from(self.evict(&hash)? == Removed::Yes);
        }
        Ok(count)
    }

    /// Each layer's merged packages.
    fn trees_of(&self) -> HashMap<CodeHash, Vec<CodeHash>> {
        let mut trees_of = HashMap::<_, Vec<_>>::new();
        for (tree, parts) in &self.trees {
            parts.iter().for_each(|part| trees_of.entry(*part).or_default().push(*tree));
        }
        trees_of
    }

    /// A package and the merged ones that it is in.
    fn with_trees(&self, hash: &CodeHash) -> Vec<CodeHash> {
        let trees = self.trees.iter().filter(|(_, parts)| parts.contains(hash)).map(|(tree, _)| *tree);
        std::iter::once(*hash).chain(trees).collect()
    }

    /// All that is unpacked; what only `resting` instances use counts as unused for as long as they rest.
    fn candidates(&self, resting: &Resting) -> Vec<Candidate> {
        let (now, trees_of) = (Now::read(), self.trees_of());
        let rests: HashMap<_, _> = resting.iter().copied().collect();
        let candidate = |(hash, held): (&CodeHash, &Held)| {
            let bytes = held.unpacked?;
            // What is written down may lie in the future, if the clock was set.
            let mut age = now.wall.duration_since(held.used).unwrap_or_default();
            let mut need = Need::Unused;
            for package in std::iter::once(hash).chain(trees_of.get(hash).into_iter().flatten()) {
                let rest = rests.get(package).copied();
                age = age.min(rest.or_else(|| self.rested(package, now)).unwrap_or(age));
                let is_used = self.uses.is_used(package) && rest.is_none();
                if is_used || self.pins.contains_key(package) {
                    need = Need::InUse;
                }
            }
            Some(Candidate { hash: *hash, bytes, age, need })
        };
        self.held.iter().filter_map(candidate).collect()
    }

    /// Since its last use in this engine's life.
    fn rested(&self, hash: &CodeHash, now: Now) -> Option<Duration> {
        let used_ns = self.uses.used_ns(hash)?;
        Some(now.monotonic.saturating_sub(Duration::from_nanos(used_ns)))
    }

    /// A package's zip is as old as the package's last use: what the next engine goes by.
    fn write_ages(&mut self) {
        let (now, trees_of) = (Now::read(), self.trees_of());
        let mut newer = Vec::new();
        for (hash, held) in &self.held {
            let packages = || std::iter::once(hash).chain(trees_of.get(hash).into_iter().flatten());
            let rested = if packages().any(|package| self.uses.is_used(package)) {
                Some(Duration::ZERO)
            } else {
                packages().filter_map(|package| self.rested(package, now)).min()
            };
            let used = rested.and_then(|rested| now.wall.checked_sub(rested));
            newer.extend(used.filter(|used| *used > held.used + AGE_SLACK).map(|used| (*hash, used)));
        }
        for (hash, used) in newer {
            // A disk that does not take it makes the package look older, no more.
            touch(&self.zip_path(&hash), used).ok();
            if let Some(held) = self.held.get_mut(&hash) {
                held.used = used;
            }
        }
    }

    /// Removes the unpacked form of a package, unless it is in use.
    fn evict(&mut self, hash: &CodeHash) -> Result<Removed, CodeError> {
        let packages = self.with_trees(hash);
        if packages.iter().any(|package| self.pins.contains_key(package)) {
            return Ok(Removed::Pinned);
        }
        let uses = self.uses.clone();
        let Some(_leaving) = uses.leave(&packages) else { return Ok(Removed::InUse) };
        // Trees first: a crash in between leaves none that costs more than its directories.
        for package in packages.iter().rev() {
            self.remove_unpacked(package)?;
        }
        if let Some(held) = self.held.get(hash).copied() {
            self.count(*hash, Held { unpacked: None, ..held });
        }
        add_one(&self.counters.evicted_total);
        Ok(Removed::Yes)
    }

    /// The directory goes in one step: without it the package is not there.
    pub(super) fn remove_unpacked(&self, hash: &CodeHash) -> Result<(), CodeError> {
        let (directory, gone) = (self.directory(hash), self.aside(hash, "gone"));
        // What an earlier try could not remove would be in the way.
        remove_tree(&gone)?;
        match fs::rename(&directory, &gone) {
            Ok(()) => remove_tree(&gone),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(CodeError::io("rename", &directory, source)),
        }
    }

    /// Bytes of a package's files, unpacked, whether it is or not.
    ///
    /// # Errors
    /// It is not there or cannot be read.
    pub fn unpacked_bytes(&self, hash: &CodeHash) -> Result<u64, CodeError> {
        if let Some(bytes) = self.held.get(hash).and_then(|held| held.unpacked) {
            return Ok(bytes);
        }
        let directory = self.directory(hash);
        if directory.is_dir() {
            return super::bytes_below(&directory)
                .map_err(|source| CodeError::io("read", &directory, source));
        }
        Ok(plan(&self.read_zip(hash)?)?.bytes())
    }
}

fn touch(path: &Path, at: SystemTime) -> std::io::Result<()> {
    fs::File::options().write(true).open(path)?.set_modified(at)
}

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;
