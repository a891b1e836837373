//! Making a process with namespaces of its own, in a cgroup, with a pidfd: clone3(2).
//!
//! Owns: the call. Must not know: what a container is; [`crate::child`] says what the new process can do.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::child::{self, Step};
use crate::errno::check;
use crate::pidfd::{Exit, PidFd, ProcessId};

/// `struct clone_args` of include/uapi/linux/sched.h, third version (with the cgroup).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

// Of include/uapi/linux/sched.h; the two that do not fit in an int are not in the libc crate.
const CLONE_VM: u64 = 0x100;
const CLONE_FILES: u64 = 0x400;
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_NEWNS: u64 = 0x0002_0000;
const CLONE_NEWUTS: u64 = 0x0400_0000;
const CLONE_NEWIPC: u64 = 0x0800_0000;
const CLONE_NEWUSER: u64 = 0x1000_0000;
const CLONE_NEWPID: u64 = 0x2000_0000;
const CLONE_NEWNET: u64 = 0x4000_0000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What a new process has together with its maker, which stands still meanwhile, until it becomes a program or ends.
const SHARED: u64 = CLONE_VM | CLONE_VFORK | CLONE_FILES;

/// What a new process begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// A copy of its maker's, and of its descriptors: both go on.
    Copied,
    /// Its maker's own, and its descriptors: [`Birth::start_shared`].
    Shared,
}

/// Which namespaces the new process gets for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespaces {
    /// Those of its maker.
    Shared,
    /// A user namespace, of which it is a member without ids until somebody writes its maps.
    User,
    /// Mount, network, ipc and uts, which belong to the user namespace that its maker is in.
    Inner,
    /// User, pid, mount, network, ipc and uts. (The cgroup namespace comes after the migration: [`Step`].)
    Own,
    /// User and pid, which a process cannot change for itself.
    UserAndPid,
    /// Those of `Inner` without network.
    InnerButNetwork,
}

/// A process to make.
#[derive(Debug)]
pub struct Birth<'a> {
    pub namespaces: Namespaces,
    /// Directory of the v2 cgroup to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    pub steps: &'a [Step<'a>],
    /// Where the new process writes records of [`child::REPORT_BYTES`] bytes, also when a step fails.
    pub report: BorrowedFd<'a>,
}

/// A process just made.
#[derive(Debug)]
pub struct Child {
    pub pid: ProcessId,
    pub pidfd: PidFd,
}

impl Birth<'_> {
    /// Makes the process.
    ///
    /// # Errors
    /// clone3(2)'s: EPERM, ENOSPC (too many namespaces), EAGAIN (too many processes), ENOSYS.
    pub fn start(&self) -> Result<Child, Errno> {
        self.start_by(0, |args| clone(args, self.steps, self.report))
    }

    /// Makes the process, and comes back when it has become its program or has ended. Until then it shares memory and
    /// descriptors with this one, whose thread stands still: nothing is copied, which is most of what another process
    /// costs. So its steps must take [`Step::OwnTable`] before they place descriptors, and must not wait for anything
    /// that this thread is to do.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub fn start_shared(&self) -> Result<Child, Errno> {
        self.start_by(SHARED, |args| clone_and_wait(args, self.steps, self.report))
    }

    /// The same for one that has no program: comes back when it has ended.
    ///
    /// # Errors
    /// As of [`Self::start`]; and waitid(2)'s.
    pub fn run(&self) -> Result<Exit, Errno> {
        self.start_shared()?.pidfd.reap()?.ok_or(Errno::CHILD)
    }

    fn start_by(
        &self,
        sharing: u64,
        clone: impl FnOnce(&CloneArgs) -> Result<ProcessId, Errno>,
    ) -> Result<Child, Errno> {
        let mut pidfd: RawFd = -1;
        // Exposed, for the kernel writes through the address.
        let pidfd_at = (&raw mut pidfd).expose_provenance() as u64;
        let mut args = CloneArgs {
            flags: CLONE_PIDFD | CLONE_CLEAR_SIGHAND | self.namespaces.flags() | sharing,
            pidfd: pidfd_at,
            exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
            ..CloneArgs::default()
        };
        if let Some(cgroup) = self.cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
        }
        let pid = clone(&args)?;
        // SAFETY: CLONE_PIDFD made the kernel open this descriptor for us alone; clone3 has succeeded.
        let pidfd = PidFd::from_fd(unsafe { OwnedFd::from_raw_fd(pidfd) });
        Ok(Child { pid, pidfd })
    }
}

impl Namespaces {
    fn flags(self) -> u64 {
        let inner = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
        match self {
            Self::Shared => 0,
            Self::User => CLONE_NEWUSER,
            Self::Inner => inner,
            Self::Own => CLONE_NEWUSER | CLONE_NEWPID | inner,
            Self::UserAndPid => CLONE_NEWUSER | CLONE_NEWPID,
            Self::InnerButNetwork => inner & !CLONE_NEWNET,
        }
    }
}

/// Moves the calling thread into a network namespace of its own, which belongs to its user namespace.
///
/// # Errors
/// unshare(2)'s: EPERM, ENOSPC (too many namespaces), ENOMEM.
pub fn unshare_network() -> Result<(), Errno> {
    // SAFETY: the one condition is about CLONE_FILES, which is not in the flags.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
}

/// Moves the calling thread, of a process with no other, into namespaces of its own, all but pid.
pub(crate) fn unshare(namespaces: Namespaces) -> Result<(), Errno> {
    let flags = u32::try_from(namespaces.flags() & !CLONE_NEWPID).map_err(|_| Errno::INVAL)?;
    // SAFETY: the one condition is about CLONE_FILES, which no namespace has among its flags.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::from_bits_retain(flags)) }
}

/// Makes a sibling: a child of the caller's parent, which alone can wait for it. Allocates nothing, so that a process
/// between its own birth and its program can do it.
pub(crate) fn clone_sibling(
    namespaces: Namespaces,
    memory: Memory,
    steps: &[Step<'_>],
    report: BorrowedFd<'_>,
) -> Result<ProcessId, Errno> {
    // With CLONE_PARENT the exit signal is the caller's own, and naming one is EINVAL.
    let flags = CLONE_PARENT | CLONE_CLEAR_SIGHAND | namespaces.flags();
    match memory {
        Memory::Copied => clone(&CloneArgs { flags, ..CloneArgs::default() }, steps, report),
        Memory::Shared => {
            let flags = flags | SHARED;
            clone_and_wait(&CloneArgs { flags, ..CloneArgs::default() }, steps, report)
        }
    }
}

fn clone(args: &CloneArgs, steps: &[Step<'_>], report: BorrowedFd<'_>) -> Result<ProcessId, Errno> {
    // SAFETY: `args` is a clone_args of its true size, and where it asks for a pidfd its maker gave the address of an
    // int that it still has; without CLONE_VM the child has a copy of all memory and goes on on a copy of this stack
    // (stack 0 asks for that). The child runs `child::run` only, which keeps to system calls and does not return.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const *args, size_of::<CloneArgs>()) };
    if result == 0 {
        child::run(steps, report);
    }
    let pid = i32::try_from(check(result)?).map_err(|_| Errno::RANGE)?;
    ProcessId::new(pid).ok_or(Errno::RANGE)
}

/// What a child on its maker's stack is given.
struct Task<'a> {
    steps: &'a [Step<'a>],
    report: BorrowedFd<'a>,
}

/// clone3(2) with CLONE_VM and CLONE_VFORK, the child on this very stack.
fn clone_and_wait(args: &CloneArgs, steps: &[Step<'_>], report: BorrowedFd<'_>) -> Result<ProcessId, Errno> {
    let args: *const CloneArgs = args;
    let task = Task { steps, report };
    let task: *const Task<'_> = &raw const task;
    let result: libc::c_long;
    // SAFETY: `args` is as in `clone`. The child shares all memory, this thread's storage included, and goes on where the
    // system call was: it calls `run_shared` at once, which does not return, so that it writes to no more of this stack
    // than what lies below its pointer, where nothing is kept (the block is not `nostack`, so there is no red zone). The
    // thread stands still until the child has ended or is a program in memory of its own, and finds its registers as
    // they were. The maker may itself be such a child: then three stand in a row on the one stack.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r8",
            "call {run}",
            "ud2",
            "2:",
            run = sym run_shared,
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") args,
            in("rsi") size_of::<CloneArgs>(),
            in("r8") task,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 {
        let errno = i32::try_from(-result).map_err(|_| Errno::RANGE)?;
        return Err(Errno::from_raw_os_error(errno));
    }
    let pid = i32::try_from(result).map_err(|_| Errno::RANGE)?;
    ProcessId::new(pid).ok_or(Errno::RANGE)
}

/// What a child of [`clone_and_wait`] begins with.
extern "C" fn run_shared(task: *const Task<'_>) -> ! {
    // SAFETY: it is what `clone_and_wait` made, in memory that is shared and stands still until this process has ended or
    // become a program.
    let task = unsafe { &*task };
    child::run(task.steps, task.report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::{REPORT_BYTES, REPORT_FAILED};
    use crate::exec::CStringArray;
    use crate::pidfd::Exit;
    use faaster_patience::patience;
    use std::os::fd::AsFd;

    fn strings(list: &[&str]) -> CStringArray {
        CStringArray::new(list.iter().map(|text| std::ffi::CString::new(*text).unwrap()).collect())
    }

    #[test]
    fn steps_run_in_order_and_end_in_the_program() {
        let (report_read, report) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (output_read, output) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let shell = std::fs::File::open("/bin/sh").unwrap();
        let (arguments, environment) = (
            strings(&["sh", "-c", "echo $WORD; ls /proc/self/fd | wc -l; exit 7"]),
            strings(&["WORD=hi", "PATH=/bin:/usr/bin"]),
        );
        let null = std::fs::File::open("/dev/null").unwrap();
        let placements = [
            (null.as_fd(), 0),
            (output.as_fd(), 1),
            (output.as_fd(), 2),
            (report.as_fd(), 3),
            (shell.as_fd(), 4),
        ];
        let steps = [
            Step::NewSession,
            Step::Report(1),
            Step::PlaceFds(&placements),
            Step::Report(2),
            Step::Exec { program: 4, arguments: &arguments, environment: &environment },
        ];
        let birth =
            Birth { namespaces: Namespaces::Shared, cgroup: None, steps: &steps, report: report.as_fd() };
        let child = birth.start().unwrap();
        assert!(child.pidfd.wait_dead(patience(std::time::Duration::from_secs(10))).unwrap());
        assert_eq!(child.pidfd.reap().unwrap(), Some(Exit::Code(7)));
        drop((report, output));
        let mut records = [0u8; 64];
        let count = rustix::io::read(&report_read, &mut records).unwrap();
        assert_eq!(&records[..count], &[1, 0, 0, 0, 2, 0, 0, 0]);
        let mut text = [0u8; 64];
        let count = rustix::io::read(&output_read, &mut text).unwrap();
        // 0, 1, 2, 3 and the one that ls has on the directory.
        assert_eq!(&text[..count], b"hi\n5\n");
    }

    #[test]
    fn one_that_is_waited_for_shares_all_and_has_ended() {
        let (read, report) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let run = |steps: &[Step<'_>]| {
            let report = report.as_fd();
            Birth { namespaces: Namespaces::Shared, cgroup: None, steps, report }.run()
        };
        for round in 0..100u8 {
            let steps = [Step::Report(round), Step::NewSession, Step::Report(round)];
            assert_eq!(run(&steps), Ok(Exit::Code(0)));
            let mut records = [0u8; 2 * REPORT_BYTES];
            assert_eq!(rustix::io::read(&read, &mut records), Ok(records.len()));
            assert_eq!(records, [round, 0, 0, 0, round, 0, 0, 0]);
        }
        assert_eq!(run(&[Step::AttachReceived { to: c"/nowhere" }]), Ok(Exit::Code(127)));
        let mut record = [0u8; REPORT_BYTES];
        assert_eq!(rustix::io::read(&read, &mut record), Ok(REPORT_BYTES));
        assert_eq!(record[..2], [REPORT_FAILED, 0]);
    }

    #[test]
    fn one_that_shares_all_becomes_a_program_with_a_table_of_its_own() {
        let (output_read, output) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let shell = std::fs::File::open("/bin/sh").unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let arguments = strings(&["sh", "-c", "ls /proc/self/fd | wc -l; exec cat"]);
        let environment = strings(&["PATH=/bin:/usr/bin"]);
        let (input, input_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let placements = [(input.as_fd(), 0), (output.as_fd(), 1), (output.as_fd(), 2), (shell.as_fd(), 3)];
        let sources = [input.as_raw_fd(), output.as_raw_fd(), shell.as_raw_fd(), null.as_raw_fd()];
        let steps = [
            Step::OwnTable { last: *sources.iter().max().unwrap() },
            Step::PlaceFds(&placements),
            Step::Exec { program: 3, arguments: &arguments, environment: &environment },
        ];
        let report = null.as_fd();
        let birth = Birth { namespaces: Namespaces::Shared, cgroup: None, steps: &steps, report };
        let child = birth.start_shared().unwrap();
        // It is the program by now, and our own table is as it was.
        assert_eq!(child.pidfd.try_reap(), Ok(None));
        assert!(sources.iter().all(|fd| std::fs::exists(format!("/proc/self/fd/{fd}")).unwrap()));
        drop((output, input_write));
        let mut text = [0u8; 64];
        let count = rustix::io::read(&output_read, &mut text).unwrap();
        // 0, 1, 2 and the one that ls has on the directory.
        assert_eq!(&text[..count], b"4\n");
        assert_eq!(child.pidfd.reap().unwrap(), Some(Exit::Code(0)));
    }

    #[test]
    fn one_that_cannot_be_made_is_refused() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let birth = Birth {
            namespaces: Namespaces::Shared,
            cgroup: Some(null.as_fd()),
            steps: &[],
            report: null.as_fd(),
        };
        assert_eq!(birth.run(), Err(Errno::BADF));
    }

    #[test]
    fn a_step_that_fails_is_named() {
        let (read, report) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let steps = [Step::NewSession, Step::AttachReceived { to: c"/nowhere" }];
        let birth =
            Birth { namespaces: Namespaces::Shared, cgroup: None, steps: &steps, report: report.as_fd() };
        let child = birth.start().unwrap();
        assert_eq!(child.pidfd.reap().unwrap(), Some(Exit::Code(127)));
        let mut record = [0u8; REPORT_BYTES];
        assert_eq!(rustix::io::read(&read, &mut record), Ok(REPORT_BYTES));
        let code = u8::try_from(libc::EBADF).unwrap();
        assert_eq!(record, [REPORT_FAILED, 1, code, 0]);
    }
}
