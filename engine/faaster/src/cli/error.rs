//! Why a command of the command line did not do what was asked.
//!
//! Owns: the sentence and the exit code of each failure. Must not know: how it is printed.

use std::path::PathBuf;

use crate::exit::Outcome;

/// One clear sentence each.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Wrong usage that clap cannot see.
    #[error("{0}")]
    Usage(String),
    #[error(
        "no engine answers at {url}: {reason}; start one with `faaster serve`, or name its address with {option}"
    )]
    Unreachable { url: String, reason: String, option: &'static str },
    #[error("the engine at {url} did not answer in time")]
    Slow { url: String },
    #[error("{0}")]
    NotFound(String),
    /// The engine refused; its own words.
    #[error("{message} (HTTP {status})")]
    Refused { status: u16, message: String },
    #[error("the answer of {url} cannot be understood: {reason}")]
    Answer { url: String, reason: String },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write the output: {0}")]
    Write(#[source] std::io::Error),
    #[error(transparent)]
    Package(#[from] super::package::PackageError),
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// Something on this machine failed; one sentence on what.
    #[error("{0}")]
    Local(String),
}

impl CliError {
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Usage(_) | Self::Config(_) => Outcome::Refused,
            Self::Unreachable { .. } | Self::Slow { .. } => Outcome::Unreachable,
            Self::NotFound(_) => Outcome::NotFound,
            Self::Refused { .. }
            | Self::Answer { .. }
            | Self::Read { .. }
            | Self::Write(_)
            | Self::Package(_)
            | Self::Local(_) => Outcome::Failed,
        }
    }
}
