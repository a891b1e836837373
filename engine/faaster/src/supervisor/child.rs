//! A child process of the supervisor: its start, its link, its end.
//!
//! Owns: the process handle and the pidfd; signals go through the pidfd alone. Must not know: when to start or end it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use faaster_protocol::funclet::LinkMessage;
use faaster_sys::pidfd::{PidFd, ProcessId};
use rustix::io::Errno;

use super::link::{self, LinkError};
use super::start::{self, Role, Start, StartError};

/// This program as it was started, even if its file was replaced since.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// What a child says on its link when it serves.
pub(crate) const READY: &[u8] = b"ready";

/// Why a child does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    #[error("cannot start the {role}: {source}")]
    Spawn { role: Role, source: io::Error },
    #[error("cannot watch the {role}: {source}")]
    Watch { role: Role, source: Errno },
    #[error("cannot tell the {role} how to start: {source}")]
    Tell { role: Role, source: StartError },
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// A running child.
#[derive(Debug)]
pub(crate) struct Child {
    pub role: Role,
    process: std::process::Child,
    pidfd: PidFd,
    link: OwnedFd,
    since: Instant,
}

impl Child {
    /// Starts this program again in another role.
    ///
    /// # Errors
    /// The step that failed; nothing runs then.
    pub(crate) fn spawn(start: &Start, fds: &[BorrowedFd<'_>]) -> Result<Self, ChildError> {
        let role = start.role;
        let (ours, theirs) = link::pair()?;
        let process = Command::new(OWN_PROGRAM)
            .arg0(format!("faaster {role}"))
            .arg(role.subcommand())
            // Nothing of the operator's environment concerns these processes.
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "RUST_BACKTRACE"))
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            // A Ctrl-C at the terminal is for the supervisor alone.
            .process_group(0)
            .spawn()
            .map_err(|source| ChildError::Spawn { role, source })?;
        let pid = i32::try_from(process.id()).ok().and_then(ProcessId::new).ok_or(Errno::SRCH);
        let pidfd = pid.and_then(PidFd::open).map_err(|source| ChildError::Watch { role, source })?;
        let child = Self { role, process, pidfd, link: ours, since: Instant::now() };
        // If this fails, the child sees the end of its link and goes.
        start::send(child.link.as_fd(), start, fds).map_err(|source| ChildError::Tell { role, source })?;
        Ok(child)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Readable when the process has ended.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Readable when the child has said something, or its end is closed.
    pub(crate) fn link(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }

    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// What the child has said since it was last asked.
    pub(crate) fn heard(&self) -> Heard {
        match link::receive(self.link.as_fd()) {
            Ok(Some(record)) if record.bytes == READY => Heard::Ready,
            Ok(_) => Heard::Nothing,
            Err(_) => Heard::End,
        }
    }

    /// # Errors
    /// The child does not take it.
    pub(crate) fn tell(&self, message: LinkMessage, fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        link::send(self.link.as_fd(), &message.encode(), fds)
    }

    /// SIGKILL. A process that has ended already is as dead as it was.
    pub(crate) fn kill(&self) {
        self.pidfd.kill().ok();
    }

    /// How it ended, if it has; reaps it.
    ///
    /// # Errors
    /// What `waitpid` refused.
    pub(crate) fn reap(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.try_wait()
    }
}

/// What came over a child's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    Ready,
    Nothing,
    /// The child has closed its end; the pidfd tells when it is gone.
    End,
}
