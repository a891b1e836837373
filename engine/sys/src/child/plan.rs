//! Steps that a process takes after it has become its program: a message with descriptors beside it.
//!
//! Owns: the form of the message, which both ends are built with. Must not know: why a container wants the steps.
//!
//! A process that shares its maker's memory holds it up until it is a program. So it becomes one at once, and is told
//! over a SOCK_SEQPACKET socket what else it has to do: the number of steps that it has behind it, how many of the
//! descriptors are for its later life, then the steps. A step is a byte that says which, and what it takes: a
//! descriptor is its position in the message, a text has its length in two bytes, little-endian, before it.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use faaster_limits::INIT_PLAN_BYTES_MAX;
use rustix::io::Errno;

use super::{State, Step};
use crate::clone3::Namespaces;
use crate::fdpass;

/// Bytes before the first step.
const HEAD_BYTES: usize = 2;

/// The message, on its maker's side.
#[derive(Debug)]
pub struct Plan<'a> {
    bytes: Vec<u8>,
    fds: Vec<BorrowedFd<'a>>,
}

/// The step that failed, by its position in the maker's list, and why. Position 255 is the message itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    pub position: u8,
    pub errno: Errno,
}

impl<'a> Plan<'a> {
    /// Steps for a process that has `behind` others behind it, and descriptors for what it is to be after them.
    ///
    /// # Errors
    /// EINVAL for a step that is not for after a program's start; E2BIG for too many, EMSGSIZE for too long a text.
    pub fn new(behind: usize, kept: &[BorrowedFd<'a>], steps: &[Step<'a>]) -> Result<Self, Errno> {
        let head = [behind, kept.len()].map(u8::try_from);
        let [Ok(behind), Ok(count)] = head else { return Err(Errno::TOOBIG) };
        let mut plan = Self { bytes: vec![behind, count], fds: kept.to_vec() };
        steps.iter().try_for_each(|step| plan.push(step))?;
        if plan.bytes.len() > INIT_PLAN_BYTES_MAX {
            return Err(Errno::MSGSIZE);
        }
        Ok(plan)
    }

    /// Sends it.
    ///
    /// # Errors
    /// sendmsg(2)'s.
    pub fn send(&self, socket: impl AsFd) -> Result<(), Errno> {
        fdpass::send_with_fds(socket, &self.bytes, &self.fds).map(drop)
    }

    fn push(&mut self, step: &Step<'a>) -> Result<(), Errno> {
        match *step {
            Step::DieWithParent(parent) => self.tag(b'd').fd(parent),
            Step::JoinCgroup(procs) => self.tag(b'j').fd(procs),
            Step::Report(kind) => self.tag(b'r').byte(kind),
            // On the socket that the plan itself comes by.
            Step::AwaitGo(_) => self.tag(b'g').done(),
            Step::AwaitDeath { of, note } => {
                self.tag(b'w').fd(of)?;
                self.fd(note)
            }
            Step::BecomeRoot => self.tag(b'0').done(),
            Step::NewCgroupNamespace => self.tag(b'n').done(),
            Step::Unshare(Namespaces::Inner) => self.tag(b'i').done(),
            Step::Unshare(Namespaces::InnerButNetwork) => self.tag(b'o').done(),
            Step::LoopbackUp => self.tag(b'l').done(),
            Step::AttachCopy { from, to } => self.tag(b'c').texts(from, to),
            Step::Cover { with, at } => self.tag(b'h').texts(with, at),
            Step::AttachTree { tree, to } => {
                self.tag(b't').fd(tree)?;
                self.text(to.to_bytes_with_nul())
            }
            Step::AttachReceived { to } => self.tag(b'a').text(to.to_bytes_with_nul()),
            Step::MountProc { to } => self.tag(b'p').text(to.to_bytes_with_nul()),
            Step::PivotTo(root) => self.tag(b'v').text(root.to_bytes_with_nul()),
            Step::Hostname(name) => self.tag(b'u').text(name),
            Step::BatchPolicy => self.tag(b'b').done(),
            Step::NewSession => self.tag(b's').done(),
            Step::SendProc(_)
            | Step::OomScore(_)
            | Step::KeepCapabilities
            | Step::Unshare(_)
            | Step::EnterUserNamespace(_)
            | Step::EnterNetworkNamespace(_)
            | Step::Dumpable
            | Step::Bear(_)
            | Step::OwnTable { .. }
            | Step::PlaceFds(_)
            | Step::Exec { .. }
            | Step::ExecPath { .. } => Err(Errno::INVAL),
        }
    }

    fn tag(&mut self, tag: u8) -> &mut Self {
        self.bytes.push(tag);
        self
    }

    fn done(&self) -> Result<(), Errno> {
        Ok(())
    }

    fn byte(&mut self, byte: u8) -> Result<(), Errno> {
        self.bytes.push(byte);
        Ok(())
    }

    fn fd(&mut self, fd: BorrowedFd<'a>) -> Result<(), Errno> {
        let position = u8::try_from(self.fds.len()).map_err(|_| Errno::TOOBIG)?;
        self.fds.push(fd);
        self.byte(position)
    }

    fn text(&mut self, text: &[u8]) -> Result<(), Errno> {
        let length = u16::try_from(text.len()).map_err(|_| Errno::MSGSIZE)?;
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(text);
        Ok(())
    }

    fn texts(&mut self, first: &CStr, second: &CStr) -> Result<(), Errno> {
        self.text(first.to_bytes_with_nul())?;
        self.text(second.to_bytes_with_nul())
    }
}

/// Receives a plan and takes its steps; gives the descriptors for afterwards. To be called before anything of the
/// container is open to others, by a process with one thread.
///
/// # Errors
/// Which step failed. The process is half way then, and must end.
pub fn follow(socket: &OwnedFd, report: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Stopped> {
    let unread = |errno| Stopped { position: u8::MAX, errno };
    let mut buffer = [0; INIT_PLAN_BYTES_MAX];
    let message = fdpass::recv_with_fds(socket, &mut buffer).map_err(unread)?;
    let mut fds = message.fds;
    let bytes = &buffer[..message.bytes];
    // No byte at all is the end of whoever was to send them.
    let [behind, kept, ..] = *bytes else { return Err(unread(Errno::PIPE)) };
    let mut reader = Reader { rest: &bytes[HEAD_BYTES..], fds: &fds, socket: socket.as_fd() };
    let mut state = State { received: None, report: report.as_raw_fd() };
    let mut position = behind;
    while let Some(step) = reader.step().map_err(unread)? {
        state.perform(&step).map_err(|errno| Stopped { position, errno })?;
        position = position.saturating_add(1);
    }
    if fds.len() < usize::from(kept) {
        return Err(unread(Errno::BADF));
    }
    fds.truncate(usize::from(kept));
    Ok(fds)
}

struct Reader<'a> {
    rest: &'a [u8],
    fds: &'a [OwnedFd],
    socket: BorrowedFd<'a>,
}

impl<'a> Reader<'a> {
    /// The next one, or none at the end.
    fn step(&mut self) -> Result<Option<Step<'a>>, Errno> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        Ok(Some(match self.byte()? {
            b'd' => Step::DieWithParent(self.fd()?),
            b'j' => Step::JoinCgroup(self.fd()?),
            b'r' => Step::Report(self.byte()?),
            b'g' => Step::AwaitGo(self.socket),
            b'w' => Step::AwaitDeath { of: self.fd()?, note: self.fd()? },
            b'0' => Step::BecomeRoot,
            b'n' => Step::NewCgroupNamespace,
            b'i' => Step::Unshare(Namespaces::Inner),
            b'o' => Step::Unshare(Namespaces::InnerButNetwork),
            b'l' => Step::LoopbackUp,
            b'c' => Step::AttachCopy { from: self.path()?, to: self.path()? },
            b'h' => Step::Cover { with: self.path()?, at: self.path()? },
            b't' => Step::AttachTree { tree: self.fd()?, to: self.path()? },
            b'a' => Step::AttachReceived { to: self.path()? },
            b'p' => Step::MountProc { to: self.path()? },
            b'v' => Step::PivotTo(self.path()?),
            b'u' => Step::Hostname(self.text()?),
            b'b' => Step::BatchPolicy,
            b's' => Step::NewSession,
            _ => return Err(Errno::INVAL),
        }))
    }

    fn byte(&mut self) -> Result<u8, Errno> {
        let (first, rest) = self.rest.split_first().ok_or(Errno::INVAL)?;
        self.rest = rest;
        Ok(*first)
    }

    fn fd(&mut self) -> Result<BorrowedFd<'a>, Errno> {
        let position = self.byte()?;
        self.fds.get(usize::from(position)).map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    fn text(&mut self) -> Result<&'a [u8], Errno> {
        let length = u16::from_le_bytes([self.byte()?, self.byte()?]);
        let (text, rest) = self.rest.split_at_checked(usize::from(length)).ok_or(Errno::INVAL)?;
        self.rest = rest;
        Ok(text)
    }

    fn path(&mut self) -> Result<&'a CStr, Errno> {
        CStr::from_bytes_with_nul(self.text()?).map_err(|_| Errno::INVAL)
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;
    use crate::child::REPORT_BYTES;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    /// What a plan says again on the other side.
    fn names_after(plan: &Plan<'_>, socket: &OwnedFd) -> Vec<String> {
        let fds: Vec<OwnedFd> = plan.fds.iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect();
        let mut reader = Reader { rest: &plan.bytes[HEAD_BYTES..], fds: &fds, socket: socket.as_fd() };
        std::iter::from_fn(|| reader.step().unwrap()).map(|step| without_numbers(&step)).collect()
    }

    /// Descriptors have other numbers on the other side.
    fn without_numbers(step: &Step<'_>) -> String {
        let text = format!("{step:?}");
        text.split("fd: ").map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit())).collect()
    }

    #[test]
    fn every_step_arrives_as_it_was() {
        let (a, b) = pair();
        let fd = a.as_fd();
        let steps = [
            Step::DieWithParent(fd),
            Step::JoinCgroup(fd),
            Step::Report(7),
            Step::AwaitGo(fd),
            Step::AwaitDeath { of: fd, note: fd },
            Step::BecomeRoot,
            Step::NewCgroupNamespace,
            Step::Unshare(Namespaces::Inner),
            Step::Unshare(Namespaces::InnerButNetwork),
            Step::LoopbackUp,
            Step::AttachCopy { from: c"/a", to: c"/b/c" },
            Step::Cover { with: c"", at: c"/d" },
            Step::AttachTree { tree: fd, to: c"/e" },
            Step::AttachReceived { to: c"/f" },
            Step::MountProc { to: c"/g" },
            Step::PivotTo(c"/h"),
            Step::Hostname(b"name"),
            Step::BatchPolicy,
            Step::NewSession,
        ];
        let plan = Plan::new(3, &[fd], &steps).unwrap();
        assert_eq!(plan.fds.len(), 6);
        assert_eq!(names_after(&plan, &b), steps.map(|step| without_numbers(&step)));
    }

    #[test]
    fn steps_are_taken_and_descriptors_kept() {
        let (a, b) = pair();
        let (read, report) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        Plan::new(2, &[read.as_fd()], &[Step::Report(4), Step::Report(5)]).unwrap().send(&a).unwrap();
        let kept = follow(&b, report.as_fd()).unwrap();
        assert_eq!(kept.len(), 1);
        let mut records = [0; 2 * REPORT_BYTES];
        assert_eq!(rustix::io::read(&kept[0], &mut records), Ok(records.len()));
        assert_eq!(records, [4, 0, 0, 0, 5, 0, 0, 0]);
    }

    #[test]
    fn a_step_that_fails_has_its_position_in_the_whole() {
        let (a, b) = pair();
        let steps = [Step::Report(4), Step::AttachReceived { to: c"/nowhere" }];
        Plan::new(2, &[], &steps).unwrap().send(&a).unwrap();
        let stopped = follow(&b, rustix::stdio::stderr()).unwrap_err();
        assert_eq!(stopped, Stopped { position: 3, errno: Errno::BADF });
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        let whole = |errno| Err(Stopped { position: u8::MAX, errno });
        let after = |bytes: &[u8]| {
            let (a, b) = pair();
            if !bytes.is_empty() {
                rustix::io::write(&a, bytes).unwrap();
            }
            drop(a);
            follow(&b, rustix::stdio::stderr()).map(|kept| kept.len())
        };
        assert_eq!(after(b""), whole(Errno::PIPE));
        assert_eq!(after(b"\0"), whole(Errno::PIPE));
        assert_eq!(after(b"\0\0"), Ok(0));
        assert_eq!(after(b"\0\x01"), whole(Errno::BADF));
        assert_eq!(after(b"\0\0?"), whole(Errno::INVAL));
        assert_eq!(after(b"\0\0v\x03\0/x"), whole(Errno::INVAL));
        assert_eq!(after(b"\0\0v\x02\0/x"), whole(Errno::INVAL));
        assert_eq!(after(b"\0\0j\0"), whole(Errno::BADF));
    }

    #[test]
    fn what_is_no_step_of_a_program_or_too_long_is_refused() {
        let none = Plan::new(0, &[], &[Step::KeepCapabilities]);
        assert_eq!(none.map(drop), Err(Errno::INVAL));
        let long = std::ffi::CString::new(vec![b'x'; INIT_PLAN_BYTES_MAX]).unwrap();
        assert_eq!(Plan::new(0, &[], &[Step::PivotTo(&long)]).map(drop), Err(Errno::MSGSIZE));
        assert_eq!(Plan::new(256, &[], &[]).map(drop), Err(Errno::TOOBIG));
    }
}
