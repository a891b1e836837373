//! A process made inside of a user namespace, on behalf of one that stays outside of it.
//!
//! Owns: the order of what the one in between does. Must not know: what the process is for.
//!
//! A user namespace can be made only by one of its parent's members, and only such a one may write its maps with
//! numbers of that parent. So a process in between goes into the parent, makes the other there as a child of its own
//! parent's, writes the maps, tells the number, and ends. Nothing here allocates ([`crate::child`]).

use std::io::Write;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::child::Step;
use crate::clone3::{Memory, Namespaces, clone_sibling};
use crate::pidfd::ProcessId;

/// Bytes in which [`Nested::number`] tells the number: an i32, little-endian.
pub const NUMBER_BYTES: usize = 4;

/// What to make, and what to tell of it.
#[derive(Debug)]
pub struct Nested<'a> {
    pub namespaces: Namespaces,
    /// Its maps are written when it has its program, if it shares this: it can wait for nothing before.
    pub memory: Memory,
    pub steps: &'a [Step<'a>],
    /// As [`crate::clone3::Birth::report`].
    pub report: BorrowedFd<'a>,
    /// `/proc` of the pid namespace of the one in between.
    pub proc: BorrowedFd<'a>,
    /// Text of both maps (user_namespaces(7)), or empty where it gets no user namespace of its own.
    pub id_map: &'a [u8],
    /// Where the number of the new process is written, as seen in that pid namespace. Whoever made the one in between
    /// is the parent of the new one too, so to him the number stays true until he reaps it.
    pub number: BorrowedFd<'a>,
}

impl Nested<'_> {
    pub(crate) fn bear(&self) -> Result<(), Errno> {
        let pid = clone_sibling(self.namespaces, self.memory, self.steps, self.report)?;
        rustix::io::write(self.number, &pid.get().to_le_bytes())?;
        if self.id_map.is_empty() {
            return Ok(());
        }
        write_map(self.proc, pid, "uid_map", self.id_map)?;
        write_map(self.proc, pid, "gid_map", self.id_map)
    }
}

fn write_map(proc: BorrowedFd<'_>, pid: ProcessId, which: &str, map: &[u8]) -> Result<(), Errno> {
    // Ten digits, a slash, the name and the zero byte at the end.
    let mut path = [0u8; 24];
    let mut rest = &mut path[..23];
    write!(rest, "{}/{which}", pid.get()).map_err(|_| Errno::NAMETOOLONG)?;
    let path = std::ffi::CStr::from_bytes_until_nul(&path).map_err(|_| Errno::INVAL)?;
    let file = rustix::fs::openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, map).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clone3::Birth;
    use crate::pidfd::{Exit, PidFd};
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::os::fd::{AsFd, OwnedFd};

    const OUTER: u32 = 0x5000_0000;

    fn is_root() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            eprintln!("skipped: user namespaces with maps of many ids need root");
        }
        root
    }

    fn proc() -> OwnedFd {
        rustix::fs::open("/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .unwrap()
    }

    fn gate() -> (OwnedFd, OwnedFd) {
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap()
    }

    /// A user namespace with the ids from [`OUTER`] on.
    fn outer_namespace(proc: &OwnedFd) -> OwnedFd {
        let (report_read, report) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (go, awaited) = gate();
        let steps = [Step::AwaitGo(awaited.as_fd())];
        let birth =
            Birth { namespaces: Namespaces::User, cgroup: None, steps: &steps, report: report.as_fd() };
        let child = birth.start().unwrap();
        let map = format!("0 {OUTER} 1000000");
        for which in ["uid_map", "gid_map"] {
            write_map(proc.as_fd(), child.pid, which, map.as_bytes()).unwrap();
        }
        let path = format!("{}/ns/user", child.pid.get());
        let namespace =
            rustix::fs::openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        crate::fdpass::send_with_fds(&go, b"g", &[]).unwrap();
        child.pidfd.reap().unwrap();
        drop(report_read);
        namespace
    }

    #[test]
    fn a_process_is_made_inside_and_belongs_to_the_one_outside() {
        if !is_root() {
            return;
        }
        let proc = proc();
        let outer = outer_namespace(&proc);
        let (records, report) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (numbers, number) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (go, awaited) = gate();
        let inner = [
            Step::AwaitGo(awaited.as_fd()),
            Step::BecomeRoot,
            Step::Report(9),
            Step::AwaitGo(awaited.as_fd()),
        ];
        let nested = Nested {
            namespaces: Namespaces::Own,
            memory: Memory::Copied,
            steps: &inner,
            report: report.as_fd(),
            proc: proc.as_fd(),
            id_map: b"0 65536 65536",
            number: number.as_fd(),
        };
        let steps =
            [Step::EnterUserNamespace(outer.as_fd()), Step::BecomeRoot, Step::Dumpable, Step::Bear(&nested)];
        let birth =
            Birth { namespaces: Namespaces::Shared, cgroup: None, steps: &steps, report: report.as_fd() };
        let between = birth.start().unwrap();
        assert_eq!(between.pidfd.reap().unwrap(), Some(Exit::Code(0)));
        let mut bytes = [0u8; NUMBER_BYTES];
        assert_eq!(rustix::io::read(&numbers, &mut bytes), Ok(NUMBER_BYTES));
        let pid = ProcessId::new(i32::from_le_bytes(bytes)).unwrap();
        // Ours, though another made it.
        let pidfd = PidFd::open(pid).unwrap();
        assert_eq!(pidfd.try_reap(), Ok(None));
        crate::fdpass::send_with_fds(&go, b"g", &[]).unwrap();
        let mut record = [0u8; 4];
        assert_eq!(rustix::io::read(&records, &mut record), Ok(4));
        assert_eq!(record, [9, 0, 0, 0]);
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.get())).unwrap();
        let owner = (OUTER + 65_536).to_string();
        let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
        assert_eq!(uid.split_whitespace().nth(1), Some(owner.as_str()));
        crate::fdpass::send_with_fds(&go, b"g", &[]).unwrap();
        assert_eq!(pidfd.reap().unwrap(), Some(Exit::Code(0)));
    }

    #[test]
    fn a_namespace_that_cannot_be_entered_is_named() {
        let (records, report) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let steps = [Step::EnterUserNamespace(null.as_fd())];
        let birth =
            Birth { namespaces: Namespaces::Shared, cgroup: None, steps: &steps, report: report.as_fd() };
        assert_eq!(birth.start().unwrap().pidfd.reap().unwrap(), Some(Exit::Code(127)));
        let mut record = [0u8; 4];
        assert_eq!(rustix::io::read(&records, &mut record), Ok(4));
        assert_eq!(record[..2], [crate::child::REPORT_FAILED, 0]);
    }
}
