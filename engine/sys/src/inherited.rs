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
    use std::os::fd::IntoRawFd;

    const ALONE: &str = "FAASTER_TEST_ALONE";

    /// The other tests of this process open descriptors under any number, so numbers can be counted on only in a
    /// process that runs nothing else.
    #[test]
    fn a_descriptor_is_taken_once_and_others_are_refused() {
        if std::env::var_os(ALONE).is_none() {
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            alone.args(["--exact", "inherited::tests::a_descriptor_is_taken_once_and_others_are_refused"]);
            let outcome = alone.args(["--test-threads", "1"]).env(ALONE, "1").output().unwrap();
            assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stdout));
            assert!(String::from_utf8_lossy(&outcome.stdout).contains("1 passed"));
            return;
        }
        for number in [i32::MIN, -1, 0, 2, 64] {
            assert_eq!(take(number).unwrap_err(), Errno::INVAL, "{number}");
        }
        assert_eq!(take(63).unwrap_err(), Errno::BADF);
        let left_by_the_parent =
            rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 40).unwrap().into_raw_fd();
        let taken = take(left_by_the_parent).unwrap();
        assert_eq!(take(left_by_the_parent).unwrap_err(), Errno::BUSY);
        drop(taken);
        assert_eq!(take(left_by_the_parent).unwrap_err(), Errno::BADF);
    }
}
