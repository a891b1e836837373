//! What faaster-init and the funclet that starts it agree on.
//!
//! Owns: descriptor numbers, the command line, the records on the status pipe. Must not know: containers.
//!
//! Command line: `faaster-init pooled|exec PROGRAM ARGUMENT...`, the environment being the runtime's, or
//! `faaster-init forked`.
#![forbid(unsafe_code)]

/// Numbers of the descriptors that init is started with, besides 0 to 2 (`/dev/null`).
pub mod fd {
    use std::os::fd::RawFd;

    /// SOCK_SEQPACKET socket on which it is told how to assemble its container (`faaster_sys::child::plan`). With that
    /// come, for a runtime that it starts, the runtime's end of the frame protocol's socket, the file with the system
    /// call filters and the write end of the log; or, where the runtime comes from a fork server, a SOCK_SEQPACKET
    /// socket on which init sends [`super::COME`] when the container stands, and is told a number then,
    /// [`super::NUMBER_BYTES`] bytes, as an i32, little-endian.
    pub const ORDER: RawFd = 3;
    /// Write end of the status pipe: [`super::Record`]s.
    pub const STATUS: RawFd = 4;
    /// The program file of init itself; closed when it starts.
    pub const PROGRAM: RawFd = 5;
    /// Where a runtime has its end of the frame protocol's socket.
    pub const CHANNEL: RawFd = 3;
}

/// Where an in-container user id lies that runtimes run as.
pub const RUNTIME_USER: u32 = 1000;

/// First argument for a runtime that is started at once.
pub const KIND_POOLED: &str = "pooled";
/// First argument for a program that is executed when its `load` frame comes.
pub const KIND_EXEC: &str = "exec";

/// First argument where a fork server's child becomes the runtime. It comes into the container from outside, and falls
/// to init when the process that brought it has ended.
pub const KIND_FORKED: &str = "forked";

/// See [`fd::ORDER`].
pub const COME: &[u8] = b"c";
/// See [`fd::ORDER`].
pub const NUMBER_BYTES: usize = 4;

/// Bytes of a record.
pub const RECORD_BYTES: usize = 4;

/// Step of init that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum InitStep {
    Arguments = 1,
    Descriptors = 2,
    Filters = 4,
    Fork = 5,
    Limits = 6,
    Drop = 7,
    Exec = 8,
    Wait = 9,
    Adopt = 10,
}

impl InitStep {
    const ALL: [Self; 9] = [
        Self::Arguments,
        Self::Descriptors,
        Self::Filters,
        Self::Fork,
        Self::Limits,
        Self::Drop,
        Self::Exec,
        Self::Wait,
        Self::Adopt,
    ];
}

/// One message on the status pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// The process is in its cgroups.
    Migrated,
    /// It is in namespaces of its own.
    Apart,
    /// Its file system stands.
    Assembled,
    /// A program of kind `exec` waits for its `load` frame.
    Parked,
    /// The runtime has exited with this code.
    Exited(u8),
    /// This signal has ended the runtime.
    Signalled(u8),
    /// Init, or the runtime before its program ran, could not go on.
    InitFailed { step: InitStep, errno: u16 },
    /// A step of its birth failed; its position in the maker's list.
    BirthFailed { position: u8, errno: u16 },
}

/// First byte of [`Record::Migrated`], for who writes it without this type.
pub const MIGRATED: u8 = 1;
/// Same of [`Record::Apart`].
pub const APART: u8 = 7;
/// Same of [`Record::Assembled`].
pub const ASSEMBLED: u8 = 6;
/// First byte of [`Record::BirthFailed`]; faaster-sys writes it, too, where there is no init yet.
const BIRTH_FAILED: u8 = 0xff;

impl Record {
    /// The bytes on the pipe.
    pub fn encode(self) -> [u8; RECORD_BYTES] {
        let with_errno = |kind, value, errno: u16| {
            let [low, high] = errno.to_le_bytes();
            [kind, value, low, high]
        };
        match self {
            Self::Migrated => [MIGRATED, 0, 0, 0],
            Self::Apart => [APART, 0, 0, 0],
            Self::Assembled => [ASSEMBLED, 0, 0, 0],
            Self::Parked => [2, 0, 0, 0],
            Self::Exited(code) => [3, code, 0, 0],
            Self::Signalled(signal) => [4, signal, 0, 0],
            Self::InitFailed { step, errno } => with_errno(5, step as u8, errno),
            Self::BirthFailed { position, errno } => with_errno(BIRTH_FAILED, position, errno),
        }
    }

    /// `None` for bytes that are no record.
    pub fn decode(bytes: [u8; RECORD_BYTES]) -> Option<Self> {
        let [kind, value, low, high] = bytes;
        let errno = u16::from_le_bytes([low, high]);
        Some(match kind {
            MIGRATED => Self::Migrated,
            2 => Self::Parked,
            3 => Self::Exited(value),
            4 => Self::Signalled(value),
            5 => {
                Self::InitFailed { step: InitStep::ALL.into_iter().find(|step| *step as u8 == value)?, errno }
            }
            APART => Self::Apart,
            ASSEMBLED => Self::Assembled,
            BIRTH_FAILED => Self::BirthFailed { position: value, errno },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_the_pipe() {
        let mut all = vec![
            Record::Migrated,
            Record::Apart,
            Record::Assembled,
            Record::Parked,
            Record::Exited(255),
            Record::Signalled(9),
            Record::BirthFailed { position: 7, errno: 513 },
        ];
        all.extend(InitStep::ALL.map(|step| Record::InitFailed { step, errno: 1 }));
        for record in all {
            assert_eq!(Record::decode(record.encode()), Some(record));
        }
    }

    #[test]
    fn foreign_bytes_are_no_record() {
        assert_eq!(Record::decode([0; 4]), None);
        assert_eq!(Record::decode([5, 99, 0, 0]), None);
    }

    #[test]
    fn the_failure_kind_is_the_one_that_the_child_writes() {
        assert_eq!(BIRTH_FAILED, faaster_sys::child::REPORT_FAILED);
        assert_eq!(RECORD_BYTES, faaster_sys::child::REPORT_BYTES);
    }
}
