//! The table of a process's descriptors.
//!
//! Owns: its size. Must not know: what the descriptors are for.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open descriptors as far as is allowed, and has the kernel make the table large enough for so many
/// of them (or for as many as the limit lets) at once. It doubles the table when it is full, and in a process with
/// several threads whoever opens the next descriptor then waits for an RCU grace period (fs/file.c), 10 to 20 ms: so this
/// is to be called before there are threads, by whoever cannot wait later. `any` is any open descriptor.
///
/// # Errors
/// fcntl(2)'s: ENOMEM, or EMFILE where all are in use.
pub fn reserve(any: impl AsFd, count: u64) -> Result<(), Errno> {
    let limit = getrlimit(Resource::Nofile);
    // Where even this is refused, the old limit holds.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok();
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(count);
    let highest = i32::try_from(count.min(allowed).saturating_sub(1)).map_err(|_| Errno::INVAL)?;
    match rustix::io::fcntl_dupfd_cloexec(any, highest) {
        // Closed again; the table stays.
        Ok(copy) => drop(copy),
        // The very highest is taken, so the table has its size.
        Err(Errno::MFILE) => {}
        Err(errno) => return Err(errno),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table_size() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("FDSize:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn the_table_has_room_for_what_was_asked_for_and_for_no_more_than_is_allowed() {
        reserve(std::io::stderr(), 1500).unwrap();
        assert!(table_size() >= 1500, "{}", table_size());
        reserve(std::io::stderr(), u64::from(u32::MAX) / 4).unwrap();
        let allowed = getrlimit(Resource::Nofile).current.unwrap();
        assert!(table_size() >= allowed.min(1500));
    }
}
