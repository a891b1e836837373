//! What the machine must offer, checked before anything is made; each lack is one sentence that says what to do.
//!
//! Owns: the checks. Must not know: how `faaster doctor` prints them, or that `serve` ends with code 2.

use std::path::Path;

use faaster_funclet::Outcome;
use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::process::geteuid;

/// Something that is missing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lack {
    #[error("faaster makes containers and so must start as root: run it with sudo, or as root")]
    Root,
    #[error("{0}")]
    Ring(#[from] faaster_sys::ring::RingRefusal),
    /// In the words of [`faaster_funclet::probe`].
    #[error("{0}")]
    Containers(String),
    #[error(
        "the data directory {0} is on a file system mounted noexec, from which functions cannot run: choose another with --data"
    )]
    DataNoexec(String),
}

/// Checks all that `serve` needs; the first lack ends it, for later checks need what earlier ones have found.
///
/// # Errors
/// What is missing.
pub(crate) fn check(data: &Path) -> Result<(), Lack> {
    root()?;
    faaster_sys::ring::probe()?;
    containers()?;
    data_directory(data)
}

/// # Errors
/// [`Lack::Root`].
pub(crate) fn root() -> Result<(), Lack> {
    if geteuid().is_root() { Ok(()) } else { Err(Lack::Root) }
}

/// # Errors
/// The first thing that is missing.
pub(crate) fn containers() -> Result<(), Lack> {
    let missing = faaster_funclet::probe().into_iter().find_map(|check| match check.outcome {
        Outcome::Missing(sentence) => Some(sentence),
        Outcome::Ok(_) | Outcome::Degraded(_) => None,
    });
    missing.map_or(Ok(()), |sentence| Err(Lack::Containers(sentence)))
}

/// Bit set of effective capabilities in the text of `/proc/PID/status`.
pub(crate) fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// # Errors
/// [`Lack::DataNoexec`].
pub(crate) fn data_directory(data: &Path) -> Result<(), Lack> {
    let existing = data.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match statvfs(existing) {
        Ok(found) if may_not_execute(found.f_flag) => Err(Lack::DataNoexec(data.display().to_string())),
        // What cannot be examined is found out when it is used, with a message of its own.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn may_not_execute(flags: StatVfsMountFlags) -> bool {
    flags.contains(StatVfsMountFlags::NOEXEC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_bits() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
    }

    #[test]
    fn a_noexec_file_system_is_no_place_for_code() {
        assert!(may_not_execute(StatVfsMountFlags::NOEXEC | StatVfsMountFlags::NODEV));
        assert!(!may_not_execute(StatVfsMountFlags::NODEV));
        assert!(data_directory(Path::new("/usr/lib/not/there")).is_ok());
    }
}
