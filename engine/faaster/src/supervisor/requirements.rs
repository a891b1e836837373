//! What the machine must offer, checked before anything is made; each lack is one sentence that says what to do.
//!
//! Owns: the checks. Must not know: how `faaster doctor` prints them, or that `serve` ends with code 2.

use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::process::geteuid;

/// Capabilities without which containers cannot be made, or a compromised engine could not be ended.
/// Numbers of include/uapi/linux/capability.h.
const CAPABILITIES: [(u32, &str); 7] = [
    (0, "CAP_CHOWN"),
    (5, "CAP_KILL"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
    (8, "CAP_SETPCAP"),
    (12, "CAP_NET_ADMIN"),
    (21, "CAP_SYS_ADMIN"),
];

/// Something that is missing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lack {
    #[error("faaster makes containers and so must start as root: run it with sudo, or as root")]
    Root,
    #[error(
        "the capability {0} is missing: start faaster as root outside of a restricted container, or give the \
         container --cap-add SYS_ADMIN --cap-add NET_ADMIN"
    )]
    Capability(&'static str),
    #[error("{0}")]
    Ring(#[from] faaster_sys::ring::RingRefusal),
    #[error("{0}")]
    Containers(#[from] crate::containers::ProbeError),
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
    capabilities()?;
    faaster_sys::ring::probe()?;
    crate::containers::probe()?;
    data_directory(data)
}

/// # Errors
/// [`Lack::Root`].
pub(crate) fn root() -> Result<(), Lack> {
    if geteuid().is_root() { Ok(()) } else { Err(Lack::Root) }
}

/// # Errors
/// The first one that is missing.
pub(crate) fn capabilities() -> Result<(), Lack> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    match missing_capability(effective(&status).unwrap_or(0)) {
        Some(name) => Err(Lack::Capability(name)),
        None => Ok(()),
    }
}

/// Bit set of effective capabilities in the text of `/proc/PID/status`.
pub(crate) fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing_capability(effective: u64) -> Option<&'static str> {
    CAPABILITIES.iter().find(|(number, _)| effective & (1 << number) == 0).map(|(_, name)| *name)
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
        assert_eq!(missing_capability(u64::MAX), None);
        assert_eq!(missing_capability(!(1 << 21)), Some("CAP_SYS_ADMIN"));
        assert_eq!(missing_capability(0), Some("CAP_CHOWN"));
    }

    #[test]
    fn a_noexec_file_system_is_no_place_for_code() {
        assert!(may_not_execute(StatVfsMountFlags::NOEXEC | StatVfsMountFlags::NODEV));
        assert!(!may_not_execute(StatVfsMountFlags::NODEV));
        assert!(data_directory(Path::new("/usr/lib/not/there")).is_ok());
    }
}
