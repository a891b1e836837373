//! What a child of the supervisor finds when it begins.
//!
//! Owns: taking the link over from standard input. Must not know: which child it is.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use super::start::{self, Start, StartError};
use crate::signals;

/// Everything that the supervisor handed over.
#[derive(Debug)]
pub(crate) struct Inherited {
    pub link: OwnedFd,
    pub start: Start,
    /// The supervisor's pidfd: readable once it has ended.
    pub supervisor: OwnedFd,
    /// Descriptors for this kind of child, in their order.
    pub descriptors: Vec<OwnedFd>,
}

/// Why a child cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InheritError {
    #[error("this command is for the supervisor alone: run `faaster serve`")]
    NotAChild(#[source] StartError),
    #[error("cannot set up the process: {0}")]
    Io(#[from] std::io::Error),
    #[error("the supervisor sent fewer descriptors than it should")]
    Descriptors,
}

impl Inherited {
    /// Takes everything over; from here on signals are the supervisor's to handle.
    ///
    /// # Errors
    /// Nobody of ours is at the other end of standard input.
    pub(crate) fn take() -> Result<Self, InheritError> {
        let link = std::io::stdin().as_fd().try_clone_to_owned()?;
        let (start, mut descriptors) = start::receive(link.as_fd()).map_err(InheritError::NotAChild)?;
        let nothing = File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&nothing).map_err(std::io::Error::from)?;
        signals::leave_to_supervisor()?;
        // Else it is called `exe`, after the file that it was started from.
        rustix::thread::set_name(start.role.process_name()).map_err(std::io::Error::from)?;
        if descriptors.is_empty() {
            return Err(InheritError::Descriptors);
        }
        let supervisor = descriptors.remove(0);
        Ok(Self { link, start, supervisor, descriptors })
    }
}
