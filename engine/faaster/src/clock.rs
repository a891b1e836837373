//! Deadlines for waits.
//!
//! Owns: turning a point in time into what `poll` takes. Must not know: what is waited for.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// A point in time by which a wait must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(patience: Duration) -> Self {
        Self(Instant::now() + patience)
    }

    /// What is left of it; `None` once it has passed.
    pub(crate) fn left(self) -> Option<Duration> {
        self.0.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    pub(crate) fn passed(self) -> bool {
        self.left().is_none()
    }
}

/// For a system call; lengths beyond what it can take become the longest.
fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Waits until one of `sources` can be read (or has ended) or `patience` is over; says which.
///
/// # Errors
/// What `poll` refused; an interruption by a signal is no error, it reports nothing readable.
pub(crate) fn wait_readable(sources: &[BorrowedFd<'_>], patience: Duration) -> Result<Vec<bool>, Errno> {
    let mut fds: Vec<PollFd<'_>> = sources.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    match poll(&mut fds, Some(&timespec(patience))) {
        Ok(_) => Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect()),
        Err(Errno::INTR) => Ok(vec![false; sources.len()]),
        Err(errno) => Err(errno),
    }
}
