//! Which cores a thread runs on, and how eagerly.
//!
//! Owns: nothing. Must not know: why a thread wants a core.

use rustix::io::Errno;
use rustix::thread::CpuSet;

/// Cores that the calling thread may use, in rising order.
///
/// # Errors
/// sched_getaffinity(2)'s.
pub fn allowed_cores() -> Result<Vec<u16>, Errno> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|core| set.is_set(*core))
        .filter_map(|core| u16::try_from(core).ok())
        .collect())
}

/// Keeps the calling thread on one core.
///
/// # Errors
/// As [`allow`].
pub fn pin_to(core: u16) -> Result<(), Errno> {
    allow(&[core])
}

/// Keeps the calling thread on these cores.
///
/// # Errors
/// sched_setaffinity(2)'s: EINVAL where none of them is there and allowed.
pub fn allow(cores: &[u16]) -> Result<(), Errno> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(usize::from(*core)));
    rustix::thread::sched_setaffinity(None, &set)
}

/// Sets the nice value of the calling thread (setpriority(2); -20 most eager). Needs CAP_SYS_NICE to go down.
///
/// # Errors
/// EACCES or EPERM without the privilege.
pub fn set_nice(nice: i32) -> Result<(), Errno> {
    rustix::process::setpriority_process(None, nice)
}
