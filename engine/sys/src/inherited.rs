//! Descriptors that a process was started with.
//!
//! Owns: the record of which were taken. Must not know: what they are.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Takes ownership of a descriptor that the parent left open under an agreed number (3..=63), once.
///
/// To be called at the start, before the process opens anything of its own.
///
/// # Errors
/// EBADF when it is not open, EBUSY when it was taken before, EINVAL outside of 3..=63.
pub fn take(number: RawFd) -> Result<OwnedFd, Errno> {
    if !(3..=63).contains(&number) {
        return Err(Errno::INVAL);
    }
    // SAFETY: F_GETFD takes no pointer and changes nothing, whatever the number is.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(Errno::BADF);
    }
    let bit = 1u64 << number;
    if TAKEN.fetch_or(bit, Ordering::AcqRel) & bit != 0 {
        return Err(Errno::BUSY);
    }
    // SAFETY: the descriptor is open (checked above) and inherited, so no object of this process owns it; the bit in
    // TAKEN makes this the only time that it is wrapped.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_numbers_are_refused() {
        assert_eq!(take(0).unwrap_err(), Errno::INVAL);
        assert_eq!(take(64).unwrap_err(), Errno::INVAL);
        assert_eq!(take(63).unwrap_err(), Errno::BADF);
    }
}
