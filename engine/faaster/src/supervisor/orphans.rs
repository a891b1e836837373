//! Processes that a dead funclet leaves behind: the supervisor adopts and reaps them.
//!
//! Owns: the adoption, and that only strangers are reaped here. Must not know: why they were left.
//! Without it they would go to the host's process 1, or, where the supervisor is that itself (in Docker, say), stay as
//! zombies for as long as it lives.

use faaster_sys::pidfd::{self, PidFd};
use rustix::io::Errno;
use rustix::process::{getpid, set_child_subreaper};

/// Zombies that one turn of the loop takes; what is left wakes it again with the next death.
const REAPED_PER_TURN_MAX: usize = 4096;

/// From now on whoever loses its parent below us becomes our child (prctl(2), PR_SET_CHILD_SUBREAPER).
///
/// # Errors
/// prctl(2)'s.
pub(crate) fn adopt() -> Result<(), Errno> {
    set_child_subreaper(Some(getpid()))
}

/// Reaps adopted children that have ended; `own` are those whose exit status somebody else takes. Returns how many.
///
/// # Errors
/// waitid(2)'s.
pub(crate) fn reap(own: &[u32]) -> Result<usize, Errno> {
    for reaped in 0..REAPED_PER_TURN_MAX {
        let Some(dead) = pidfd::dead_child()? else { return Ok(reaped) };
        if own.iter().any(|pid| i64::from(*pid) == i64::from(dead.get())) {
            return Ok(reaped);
        }
        PidFd::open(dead)?.try_reap()?;
    }
    Ok(REAPED_PER_TURN_MAX)
}
