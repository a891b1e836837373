//! Fault points: named places at which a funclet ends itself as SIGKILL from outside would, when a test asks for it.
//!
//! Owns: the list of places, and how a test arms one. Must not know: what happens at a place.
//!
//! The setting `fault_points` names a folder of root's. A file in it with the name of a place arms that place; whichever
//! funclet comes there first removes the file and is gone. Without the setting a place costs one comparison, and none
//! is on the way of a warm call.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use faaster_sys::child::Step;
use faaster_sys::pidfd::PidFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::config::FuncletConfig;
use crate::notice::notice;

/// Makes the enumeration, the list of all, and their names from one table.
macro_rules! places {
    ($($place:ident $name:literal $when:literal,)+) => {
        /// Where a funclet can be made to end.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum FaultPoint {
            $(#[doc = $when] $place,)+
        }

        impl FaultPoint {
            /// Every place, in the order of a life.
            pub(crate) const ALL: &[Self] = &[$(Self::$place),+];

            /// The name of the file that arms it.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$place => $name,)+
                }
            }
        }
    };
}

places! {
    StartSwept "start-swept" "What an earlier funclet has left is gone.",
    StartCgroups "start-cgroups" "It has its top groups.",
    StartNetwork "start-network" "Its table of rules is there, and the thread that makes links.",
    StartRoots "start-roots" "It is in its own mount namespace, and the root file systems stand.",
    StartConnected "start-connected" "It has an engine's channels.",
    CreateBegun "create-begun" "A container is to be made.",
    CreateCgroups "create-cgroups" "It has its groups.",
    CreateLimits "create-limits" "They have limits.",
    CreateEnds "create-ends" "Its pipes, sockets and /tmp are there.",
    CreateCloned "create-cloned" "It has a process, which waits for its go.",
    CreateMapped "create-mapped" "Its user namespace has its maps.",
    CreateHelper "create-helper" "Children would be born in the container's pid namespace; the helper for /proc is.",
    CreateGone "create-gone" "It has its go.",
    CreateSettled "create-settled" "It is in its slot, its link is ordered.",
    CreateWired "create-wired" "Its link is made, and nobody knows.",
    CreateLinked "create-linked" "The funclet knows.",
    CreateMigrated "create-migrated" "It is in its groups.",
    CreateAssembled "create-assembled" "Its file system stands.",
    CreateBooted "create-booted" "Its runtime says that it is ready.",
    CreateCold "create-cold" "It is in the pool.",
    ForkPlace "fork-place" "A fork server's user namespace and groups are there.",
    ForkBorn "fork-born" "It has a process.",
    ForkReady "fork-ready" "It can be asked for children.",
    ForkOrdered "fork-ordered" "It has been asked for one.",
    ForkTaken "fork-taken" "It has made it.",
    ClaimReceived "claim-received" "An engine asks for a container.",
    ClaimMarked "claim-marked" "The claim has its memory in the ledger.",
    ClaimWaiting "claim-waiting" "The claim waits for a container.",
    ClaimCode "claim-code" "Its code is open.",
    ClaimTaken "claim-taken" "The container is out of the pool.",
    ClaimMode "claim-mode" "Its link is in the function's mode.",
    ClaimLimits "claim-limits" "It has the function's limits.",
    ClaimTmp "claim-tmp" "Its /tmp has the function's size.",
    ClaimInside "claim-inside" "The funclet is in the container's mount namespace.",
    ClaimAttached "claim-attached" "It is still there, the code is attached.",
    ClaimSpread "claim-spread" "It is on its cores.",
    ClaimHanded "claim-handed" "All is done, the engine does not know.",
    ClaimTold "claim-told" "The engine has been told.",
    FreezeAsked "freeze-asked" "An engine asks for a container to be stopped.",
    FreezeDone "freeze-done" "It is.",
    FreezeTold "freeze-told" "The engine has been told.",
    ThawAsked "thaw-asked" "An engine asks for it to go on.",
    ThawDone "thaw-done" "It does.",
    ThawTold "thaw-told" "The engine has been told.",
    EndAsked "end-asked" "A container is to be ended.",
    EndKilled "end-killed" "SIGKILL is sent.",
    EndSeen "end-seen" "Its process 1 has ended.",
    EndReaped "end-reaped" "It is reaped.",
    EndBuried "end-buried" "Its slot knows, its engine does not.",
    EndTold "end-told" "The engine has been told.",
    EndRemoved "end-removed" "Its groups are gone, its slot is not free yet.",
    EndFreed "end-freed" "Its slot is free.",
}

/// Lists the names of all places, for whoever arms them.
const PLACES: &str = "places";
/// Holds the number of the step of a birth at which the container's process waits for the funclet's end.
const BIRTH_STEP: &str = "birth-step";
/// Is written then: a line for each step; and once the process is at that step, a last one.
const BIRTH_NOTE: &str = "birth-note";

/// Which places are armed. Clones look into the same folder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    folder: Option<Arc<OwnedFd>>,
}

impl Faults {
    /// Opens the folder of the setting, if it is set, and says so: nobody may overlook it.
    ///
    /// # Errors
    /// EACCES for a folder that somebody else than root could write to; or why it cannot be opened.
    pub(crate) fn open(config: &FuncletConfig) -> Result<Self, Errno> {
        let Some(path) = &config.fault_points else { return Ok(Self::default()) };
        if !is_ours_alone(path) {
            return Err(Errno::ACCESS);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty())?;
        let names: String = FaultPoint::ALL.iter().map(|place| format!("{}\n", place.name())).collect();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let list = rustix::fs::openat(&folder, PLACES, flags, Mode::from_raw_mode(0o600))?;
        rustix::io::write(&list, names.as_bytes())?;
        notice(config, &format!("for tests, files in {} end this funclet", path.display()));
        Ok(Self { folder: Some(Arc::new(folder)) })
    }

    /// Ends this process here if the place is armed.
    pub(crate) fn at(&self, place: FaultPoint) {
        if let Some(folder) = &self.folder {
            end_if_armed(folder, place);
        }
    }

    /// Where the next birth is to wait for our end, if a test wants that.
    pub(crate) fn in_birth(&self) -> Option<BirthFault> {
        let folder = self.folder.as_ref()?;
        let armed = rustix::fs::openat(folder, BIRTH_STEP, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let mut digits = [0; 8];
        let count = rustix::io::read(armed.ok()?, &mut digits).ok()?;
        rustix::fs::unlinkat(folder, BIRTH_STEP, AtFlags::empty()).ok()?;
        let position = std::str::from_utf8(&digits[..count]).ok()?.trim().parse().ok()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::APPEND | OFlags::CLOEXEC;
        let note = rustix::fs::openat(folder, BIRTH_NOTE, flags, Mode::from_raw_mode(0o600)).ok()?;
        Some(BirthFault { position, note })
    }
}

/// A wait for our end in the middle of a birth.
#[derive(Debug)]
pub(crate) struct BirthFault {
    position: usize,
    note: OwnedFd,
}

impl BirthFault {
    /// Puts the wait before the step of its number, counted through both lists. In the first there is nothing left to
    /// write to once the process has a descriptor table of its own.
    pub(crate) fn put_into<'a, 'b>(
        &'a self,
        steps: &mut Vec<Step<'b>>,
        later: &mut Vec<Step<'a>>,
        parent: BorrowedFd<'a>,
    ) where
        'a: 'b,
    {
        let names: String =
            steps.iter().chain(later.iter()).map(|step| format!("{}\n", step.name())).collect();
        rustix::io::write(&self.note, names.as_bytes()).ok();
        let wait = Step::AwaitDeath { of: parent, note: self.note.as_fd() };
        match self.position.checked_sub(steps.len()) {
            None => steps.insert(self.position, wait),
            Some(position) if position < later.len() => later.insert(position, wait),
            Some(_) => {}
        }
    }
}

fn is_ours_alone(path: &Path) -> bool {
    std::fs::symlink_metadata(path)
        .is_ok_and(|folder| folder.is_dir() && folder.uid() == 0 && folder.mode() & 0o022 == 0)
}

#[cold]
fn end_if_armed(folder: &OwnedFd, place: FaultPoint) {
    if rustix::fs::unlinkat(folder, place.name(), AtFlags::empty()).is_ok() {
        // Acts on the way back from this call, in whichever thread.
        PidFd::of_self().and_then(|own| own.kill()).expect("a process may kill itself");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_are_unlike_and_fit_for_files() {
        let names: std::collections::BTreeSet<_> = FaultPoint::ALL.iter().map(|place| place.name()).collect();
        assert_eq!(names.len(), FaultPoint::ALL.len());
        let good = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        assert!(names.iter().all(|name| good(name) && ![PLACES, BIRTH_STEP, BIRTH_NOTE].contains(name)));
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = crate::config::sample();
        assert!(Faults::open(&config).unwrap().folder.is_none());
        config.fault_points = Some(folder.path().to_owned());
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(Faults::open(&config).unwrap_err(), Errno::ACCESS);
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        if rustix::process::geteuid().is_root() {
            let faults = Faults::open(&config).unwrap();
            // Nothing is armed: this process goes on.
            FaultPoint::ALL.iter().for_each(|place| faults.at(*place));
            assert!(faults.in_birth().is_none());
        }
    }
}
