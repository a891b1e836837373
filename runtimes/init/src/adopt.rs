//! A runtime that a fork server's child has become (docs/protocol.md section 9).
//!
//! Owns: the word that it may come, and the wait for its number. Must not know: how it comes.

use std::os::fd::OwnedFd;

use faaster_init::{COME, InitStep, NUMBER_BYTES};
use faaster_sys::pidfd::ProcessId;
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::Failure;

/// Calls it in, for it may have been made before the container stood, and waits until it is here: it tells its number
/// once it is a child of ours.
pub(crate) fn wait_for(adoption: OwnedFd) -> Result<ProcessId, Failure> {
    let failed = |errno| Failure::new(InitStep::Adopt, errno);
    rustix::net::send(&adoption, COME, SendFlags::NOSIGNAL).map_err(failed)?;
    let mut bytes = [0; NUMBER_BYTES];
    match rustix::io::retry_on_intr(|| rustix::io::read(&adoption, &mut bytes)) {
        // Less than the whole is the end of whoever was to send it.
        Ok(NUMBER_BYTES) => ProcessId::new(i32::from_le_bytes(bytes)).ok_or(failed(Errno::RANGE)),
        Ok(_) => Err(failed(Errno::PIPE)),
        Err(errno) => Err(failed(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn told(bytes: &[u8]) -> Result<ProcessId, Errno> {
        let (adoption, child) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let child = std::thread::spawn({
            let bytes = bytes.to_vec();
            move || {
                let mut word = [0; 4];
                assert_eq!(rustix::io::read(&child, &mut word), Ok(COME.len()));
                assert_eq!(&word[..COME.len()], COME);
                if !bytes.is_empty() {
                    rustix::io::write(&child, &bytes).unwrap();
                }
            }
        });
        let told = wait_for(adoption).map_err(|failure| failure.errno);
        child.join().unwrap();
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

    #[test]
    fn a_child_that_has_ended_is_not_waited_for() {
        let (adoption, child) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        drop(child);
        assert_eq!(wait_for(adoption).map_err(|failure| failure.errno), Err(Errno::PIPE));
    }
}
