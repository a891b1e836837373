//! From the C library's -1-and-errno to a value.

use rustix::io::Errno;

/// The result of a libc call that answers -1 and sets errno when it fails.
pub(crate) fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result >= 0 {
        return Ok(result);
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
