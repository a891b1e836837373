//! The one place where this program and the crate of the funclet meet.
//!
//! Owns: turning our configuration into the funclet's. Must not know: how a container is made.

use crate::config::InstanceName;
use crate::exit::Outcome;

#[derive(Debug, thiserror::Error)]
#[error("sweep")]
pub(crate) struct SweepError;
#[derive(Debug, thiserror::Error)]
#[error("probe")]
pub(crate) struct ProbeError;

pub(crate) fn probe() -> Result<String, ProbeError> {
    Ok(String::new())
}

/// Removes what an engine of this name left: processes, cgroups, mounts.
///
/// # Errors
/// What the kernel refused.
pub(crate) fn sweep(_instance: &InstanceName) -> Result<(), SweepError> {
    Ok(())
}

pub(crate) fn main() -> Outcome {
    Outcome::Failed
}
