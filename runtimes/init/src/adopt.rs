//! A runtime that a fork server's child has become (docs/protocol.md section 9).
//!
//! Owns: the wait for its number. Must not know: how it came into the container.

use std::os::fd::OwnedFd;

use faaster_init::{InitStep, NUMBER_BYTES, Record};
use faaster_sys::pidfd::ProcessId;
use rustix::io::Errno;

use crate::{Failure, report};

/// Says that there is somebody to adopt it, and waits until it is here: it tells its number once it is a child of ours.
pub(crate) fn wait_for(adoption: OwnedFd, status: &OwnedFd) -> Result<ProcessId, Failure> {
    report(status, Record::Adopting);
    let failed = |errno| Failure::new(InitStep::Adopt, errno);
    let mut bytes = [0; NUMBER_BYTES];
    match rustix::io::retry_on_intr(|| rustix::io::read(&adoption, &mut bytes)) {
        // Less than the whole is the end of whoever was to write it: a pipe takes so few bytes at once or not at all.
        Ok(NUMBER_BYTES) => ProcessId::new(i32::from_le_bytes(bytes)).ok_or(failed(Errno::RANGE)),
        Ok(_) => Err(failed(Errno::PIPE)),
        Err(errno) => Err(failed(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bytes: &[u8]) -> Result<ProcessId, Errno> {
        let (adoption, number) = rustix::pipe::pipe().unwrap();
        let (records, status) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&number, bytes).unwrap();
        drop(number);
        let told = wait_for(adoption, &status).map_err(|failure| failure.errno);
        let mut record = [0; 4];
        assert_eq!(rustix::io::read(&records, &mut record), Ok(4));
        assert_eq!(Record::decode(record), Some(Record::Adopting));
        told
    }

    #[test]
    fn a_number_is_waited_for_and_nothing_else_passes() {
        assert_eq!(told(&3i32.to_le_bytes()), Ok(ProcessId::new(3).unwrap()));
        assert_eq!(told(&(-1i32).to_le_bytes()), Err(Errno::RANGE));
        assert_eq!(told(&1i32.to_le_bytes()), Err(Errno::RANGE));
        assert_eq!(told(b""), Err(Errno::PIPE));
        assert_eq!(told(b"ab"), Err(Errno::PIPE));
    }
}
