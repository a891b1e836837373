//! Processes by descriptor: signals, waiting, entering their namespaces.
//!
//! Owns: pidfds. Must not know: why a process should end.
//! A number can be reused between two calls, and -1 or 1 means everybody or init; so nothing here signals by number,
//! and [`ProcessId`] cannot hold those values.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, WaitId, WaitIdOptions};
use rustix::thread::ThreadNameSpaceType;

use crate::errno::check;

/// A process number greater than 1, as seen in the caller's pid namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId(i32);

impl ProcessId {
    /// `None` for 1 and everything below it: a failed call's -1 must never reach a signal.
    pub fn new(raw: i32) -> Option<Self> {
        (raw > 1).then_some(Self(raw))
    }

    /// The number.
    pub fn get(self) -> i32 {
        self.0
    }

    fn as_rustix(self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(self.0).expect("greater than 1 by construction")
    }
}

/// A child of ours, by blood or adopted, that has ended and was not reaped yet; which of several is the kernel's choice.
///
/// # Errors
/// waitid(2)'s; having no child is none.
pub fn dead_child() -> Result<Option<ProcessId>, Errno> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: all-zero bytes are a valid `siginfo_t`, which is plain data.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: writes one `siginfo_t`, which outlives the call.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
    match check(i64::from(result)) {
        // SAFETY: `si_pid` is among the fields that waitid fills; where it found nothing, they are zero as before.
        Ok(_) => Ok(ProcessId::new(unsafe { info.si_pid() })),
        Err(Errno::CHILD) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// How a reaped process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// A process that stays the same however numbers are reused.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens a process by number.
    ///
    /// # Errors
    /// ESRCH when it is gone.
    pub fn open(pid: ProcessId) -> Result<Self, Errno> {
        rustix::process::pidfd_open(pid.as_rustix(), PidfdFlags::empty()).map(Self)
    }

    /// The calling process, for others to watch.
    ///
    /// # Errors
    /// pidfd_open(2)'s.
    pub fn of_self() -> Result<Self, Errno> {
        rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).map(Self)
    }

    /// Takes a descriptor that is known to be a pidfd.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends SIGKILL.
    ///
    /// # Errors
    /// ESRCH when it has been reaped already.
    pub fn kill(&self) -> Result<(), Errno> {
        rustix::process::pidfd_send_signal(&self.0, Signal::KILL)
    }

    /// Whether the process is dead, reaped or not. A pidfd turns readable at that moment, so this needs no rights.
    ///
    /// # Errors
    /// poll(2)'s.
    pub fn is_dead(&self) -> Result<bool, Errno> {
        poll_readable(self.0.as_fd(), &Timespec { tv_sec: 0, tv_nsec: 0 })
    }

    /// Waits until the process is dead or the time is over; says which.
    ///
    /// # Errors
    /// poll(2)'s.
    pub fn wait_dead(&self, timeout: std::time::Duration) -> Result<bool, Errno> {
        let timeout = Timespec::try_from(timeout).map_err(|_| Errno::INVAL)?;
        poll_readable(self.0.as_fd(), &timeout)
    }

    /// Takes the exit status of a child of ours; `None` while it runs.
    ///
    /// # Errors
    /// ECHILD when it is no child of ours.
    pub fn try_reap(&self) -> Result<Option<Exit>, Errno> {
        self.reap_with(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// Waits for a child of ours to end and takes its exit status. Only for children that end by themselves at once.
    ///
    /// # Errors
    /// ECHILD when it is no child of ours.
    pub fn reap(&self) -> Result<Option<Exit>, Errno> {
        self.reap_with(WaitIdOptions::EXITED)
    }

    fn reap_with(&self, options: WaitIdOptions) -> Result<Option<Exit>, Errno> {
        let status =
            rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(self.0.as_fd()), options))?;
        Ok(status.map(|status| match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Code(0),
        }))
    }

    /// Moves the calling thread into the process's mount namespace; its root becomes that namespace's root.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN over that namespace, ESRCH when the process is gone.
    pub fn enter_mount_namespace(&self) -> Result<(), Errno> {
        rustix::thread::move_into_thread_name_spaces(self.0.as_fd(), ThreadNameSpaceType::MOUNT)
    }

    /// Children of the calling thread made from now on are born in the process's pid namespace.
    ///
    /// # Errors
    /// As [`Self::enter_mount_namespace`].
    pub fn enter_pid_namespace_for_children(&self) -> Result<(), Errno> {
        rustix::thread::move_into_thread_name_spaces(self.0.as_fd(), ThreadNameSpaceType::PROCESS_ID)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn poll_readable(fd: BorrowedFd<'_>, timeout: &Timespec) -> Result<bool, Errno> {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    Ok(rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(timeout)))? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use faaster_patience::patience;

    #[test]
    fn numbers_that_mean_everybody_are_refused() {
        for raw in [-1, 0, 1, i32::MIN] {
            assert_eq!(ProcessId::new(raw), None);
        }
        assert_eq!(ProcessId::new(2).map(ProcessId::get), Some(2));
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "it is reaped through its pidfd")]
    fn a_child_is_seen_to_die_and_reaped_with_its_signal() {
        let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = PidFd::open(ProcessId::new(i32::try_from(child.id()).unwrap()).unwrap()).unwrap();
        assert!(!pidfd.is_dead().unwrap());
        assert_eq!(pidfd.try_reap().unwrap(), None);
        pidfd.kill().unwrap();
        assert!(pidfd.wait_dead(patience(std::time::Duration::from_secs(10))).unwrap());
        assert_eq!(pidfd.reap().unwrap(), Some(Exit::Signal(9)));
        assert_eq!(pidfd.kill(), Err(Errno::SRCH));
    }

    #[test]
    fn our_own_process_is_alive() {
        assert!(!PidFd::of_self().unwrap().is_dead().unwrap());
    }
}
