//! How the program ends, as scripts see it.
//!
//! Owns: the closed list of exit codes. Must not know: what led to one.

use std::process::ExitCode;

/// Meaning of the exit code; documented in `faaster --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// The function answered with an error, or the operation failed.
    Failed,
    /// Wrong usage or configuration, or a privilege or kernel feature is missing.
    Refused,
    /// No engine answers at the address.
    Unreachable,
    NotFound,
    /// Ended at once by a second signal of this number.
    Killed(u8),
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Success => 0,
            Outcome::Failed => 1,
            Outcome::Refused => 2,
            Outcome::Unreachable => 3,
            Outcome::NotFound => 4,
            // The shell's convention for a process that a signal ended.
            Outcome::Killed(signal) => 128 + signal,
        })
    }
}

/// What `faaster --help` says about it.
pub(crate) const HELP: &str = "\
Exit codes:
  0    done
  1    the function answered with an error, or the operation failed
  2    wrong usage or configuration, or a privilege or kernel feature is missing
  3    no engine answers at the address
  4    there is no such function, or root file system
  130, 143  serve: ended at once by a second SIGINT or SIGTERM";
