//! Giving up privilege, and dying with one's parent.
//!
//! Owns: the order of the steps, which is what goes wrong elsewhere (research/probes.md):
//! the bounding set before CAP_SETPCAP is gone, groups before the user, PDEATHSIG after the last change of user
//! because a change clears it. Must not know: which process does it.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Highest capability number that is tried; the kernel has 41 (include/uapi/linux/capability.h) and refuses others.
const CAPABILITIES_MAX: u32 = 64;

/// The step of a privilege drop that failed.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("the process has {0} threads; privileges are dropped per thread, so it must have one")]
    Threads(usize),
    #[error("cannot count threads in /proc/self/task")]
    CountThreads(#[source] Errno),
    #[error("cannot drop a capability from the bounding set")]
    Bounding(#[source] Errno),
    #[error("cannot drop supplementary groups")]
    Groups(#[source] Errno),
    #[error("cannot change group to {gid}")]
    Group { gid: u32, source: Errno },
    #[error("cannot change user to {uid}")]
    User { uid: u32, source: Errno },
    #[error("cannot drop capabilities")]
    Capabilities(#[source] Errno),
    #[error("cannot set no_new_privs")]
    NoNewPrivs(#[source] Errno),
    #[error("cannot ask for SIGKILL at the parent's death")]
    DeathSignal(#[source] Errno),
    #[error("the parent process has died")]
    ParentDied,
}

/// Becomes an unprivileged user for good: no groups, no capabilities in any set, no_new_privs.
///
/// # Errors
/// The step that failed; the process must then end, for it is half way.
pub fn drop_to(uid: u32, gid: u32) -> Result<(), CredentialsError> {
    let threads = thread_count().map_err(CredentialsError::CountThreads)?;
    if threads != 1 {
        return Err(CredentialsError::Threads(threads));
    }
    drop_bounding_set()?;
    rustix::thread::set_thread_groups(&[]).map_err(CredentialsError::Groups)?;
    let group = Gid::from_raw(gid);
    rustix::thread::set_thread_res_gid(group, group, group)
        .map_err(|source| CredentialsError::Group { gid, source })?;
    let user = Uid::from_raw(uid);
    rustix::thread::set_thread_res_uid(user, user, user)
        .map_err(|source| CredentialsError::User { uid, source })?;
    drop_held_capabilities()
}

/// Gives up every capability but keeps the user: for faaster-init, which stays root of its user namespace by number.
///
/// # Errors
/// The step that failed.
pub fn drop_capabilities() -> Result<(), CredentialsError> {
    drop_bounding_set()?;
    drop_held_capabilities()
}

/// Has the kernel kill this process when its parent (the thread that made it) ends; then makes sure that this has not
/// happened already. `parent_alive` is something that turns readable or hangs up at the parent's end: the read end of a
/// pipe, or the parent's pidfd. (getppid is 0 across pid namespaces, so the usual check says nothing.)
///
/// # Errors
/// [`CredentialsError::ParentDied`] when it was too late.
pub fn die_with_parent(parent_alive: impl AsFd) -> Result<(), CredentialsError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(CredentialsError::DeathSignal)?;
    let mut fds = [PollFd::new(&parent_alive, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&now))) {
        Ok(0) => Ok(()),
        Ok(_) => Err(CredentialsError::ParentDied),
        Err(errno) => Err(CredentialsError::DeathSignal(errno)),
    }
}

/// Keeps others of the same user from reading or tracing this process.
///
/// # Errors
/// prctl(2)'s.
pub fn hide_from_tracers() -> Result<(), Errno> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Threads of this process.
///
/// # Errors
/// Why /proc/self/task cannot be read.
pub fn thread_count() -> Result<usize, Errno> {
    let entries = std::fs::read_dir("/proc/self/task")
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(entries.count())
}

fn drop_bounding_set() -> Result<(), CredentialsError> {
    for number in 0..CAPABILITIES_MAX {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel knows no such capability, nor any higher one.
            Err(Errno::INVAL) => return Ok(()),
            Err(errno) => return Err(CredentialsError::Bounding(errno)),
        }
    }
    Ok(())
}

fn drop_held_capabilities() -> Result<(), CredentialsError> {
    rustix::thread::clear_ambient_capability_set().map_err(CredentialsError::Capabilities)?;
    let none = CapabilitySet::empty();
    // Explicit, because a change of user keeps capabilities when neither side is the namespace's root.
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )
    .map_err(CredentialsError::Capabilities)?;
    rustix::thread::set_no_new_privs(true).map_err(CredentialsError::NoNewPrivs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_refused() {
        let (hold, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        assert!(matches!(drop_to(65_534, 65_534), Err(CredentialsError::Threads(n)) if n > 1));
        drop(hold);
        assert!(other.join().unwrap().is_err());
    }

    #[test]
    fn a_closed_pipe_is_a_dead_parent() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        drop(write);
        assert!(matches!(die_with_parent(&read), Err(CredentialsError::ParentDied)));
        rustix::process::set_parent_process_death_signal(None).unwrap();
    }
}
