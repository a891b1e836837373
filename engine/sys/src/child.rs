//! What a new process does between its birth and its program: a list of steps, each one or a few system calls.
//!
//! Owns: the steps. Must not know: why a container wants them in that order; its maker writes the list.
//! The process is a copy of one that may have had other threads, so nothing here allocates, locks or unwinds:
//! everything that a step needs lies ready in the list.

use std::ffi::{CStr, c_char};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags};
use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitySet, CapabilitySets, LinkNameSpaceType, UnshareFlags};

use crate::clone3::Namespaces;
use crate::errno::check;
use crate::exec::CStringArray;
use crate::mount::{Depth, attach, clone_tree};
use crate::nested::Nested;

pub mod plan;

/// Descriptors that [`Step::PlaceFds`] can place.
pub const PLACED_FDS_MAX: usize = 8;
/// Placing goes by way of free numbers from here on, above every target, so that no target overwrites a source. They are
/// low: the kernel has room for 64 beside a new table, and gives a whole page to one with more.
const STAGING_FD: RawFd = 32;

/// What the steps after a program's start need: users, mounts and namespaces, the loopback, and to give all of it up.
const KEPT: CapabilitySet = CapabilitySet::SETGID
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::SYS_ADMIN);

/// Of include/uapi/linux/sockios.h; its type differs from one C library to the next.
const SIOCSIFFLAGS: u32 = 0x8914;

/// Bytes of a record on the report descriptor.
pub const REPORT_BYTES: usize = 4;
/// First byte of a record: a step failed; then its position in the list, then errno, little-endian.
pub const REPORT_FAILED: u8 = 0xff;

/// One thing that the new process does.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// SIGKILL at the maker's end, of which this is the pidfd. A later change of user undoes it.
    DieWithParent(BorrowedFd<'a>),
    /// Moves itself into a v1 cgroup, through its open `tasks`: the kernel checks who opened it. The child does it, for
    /// the kernel then has to look after no other process.
    JoinCgroup(BorrowedFd<'a>),
    /// Writes a record with this first byte to the report descriptor.
    Report(u8),
    /// Waits for one byte on a socket; a descriptor that comes with it is kept for [`Step::AttachReceived`].
    AwaitGo(BorrowedFd<'a>),
    /// Writes a line to a file and waits for the end of the process of this pidfd: for tests, which end the maker then.
    AwaitDeath {
        of: BorrowedFd<'a>,
        note: BorrowedFd<'a>,
    },
    /// Sends one byte on a socket, and with it a new procfs of this process's pid namespace, not attached yet.
    SendProc(BorrowedFd<'a>),
    /// The score by which the kernel chooses whom to end when memory is out (proc_pid_oom_score_adj(5)), for this
    /// process and all that it makes. Through the maker's /proc: the new one is read-only.
    OomScore(&'a [u8]),
    /// User and group 0 of its user namespace, no other groups.
    BecomeRoot,
    /// Has its program begin with the capabilities that [`KEPT`] names, though its user namespace may not know its user.
    KeepCapabilities,
    NewCgroupNamespace,
    /// Leaves its maker's namespaces for its own.
    Unshare(Namespaces),
    /// Becomes a member of a user namespace below its own, with every capability in it and none outside.
    EnterUserNamespace(BorrowedFd<'a>),
    /// Becomes a member of a network namespace that this process, or one below its user namespace, has the say in.
    EnterNetworkNamespace(BorrowedFd<'a>),
    /// Lets its files in /proc belong to its user again, after a change of user gave them to root.
    Dumpable,
    /// Makes a sibling from inside of the user namespace that it is in.
    Bear(&'a Nested<'a>),
    LoopbackUp,
    /// Attaches a copy of the mount tree at one path at another.
    AttachCopy {
        from: &'a CStr,
        to: &'a CStr,
    },
    /// Hides what is at one path behind what is at another: one call, where a detached copy takes three and a mount
    /// namespace for the moment. Follows links, so it is for paths that only the kernel and the maker can have filled.
    Cover {
        with: &'a CStr,
        at: &'a CStr,
    },
    /// Attaches a detached mount.
    AttachTree {
        tree: BorrowedFd<'a>,
        to: &'a CStr,
    },
    /// Attaches the mount that [`Step::AwaitGo`] received.
    AttachReceived {
        to: &'a CStr,
    },
    /// Mounts the procfs of this process's pid namespace; EPERM where the surrounding one is masked.
    MountProc {
        to: &'a CStr,
    },
    /// Makes a mount the root and lets go of the old one.
    PivotTo(&'a CStr),
    Hostname(&'a [u8]),
    /// Never again preempts what runs on its core by waking up (sched(7), SCHED_BATCH); children inherit it.
    BatchPolicy,
    NewSession,
    /// Leaves the descriptor table that it shares with its maker, for a copy without those above a number.
    OwnTable {
        last: RawFd,
    },
    /// Copies descriptors to these numbers, open across exec, and closes all above the highest of them.
    PlaceFds(&'a [(BorrowedFd<'a>, RawFd)]),
    /// Becomes the program that a descriptor refers to.
    Exec {
        program: RawFd,
        arguments: &'a CStringArray,
        environment: &'a CStringArray,
    },
    /// Becomes the program at a path in its root.
    ExecPath {
        program: &'a CStr,
        arguments: &'a CStringArray,
        environment: &'a CStringArray,
    },
}

impl Step<'_> {
    /// What it does, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::DieWithParent(_) => "asking to die with the parent",
            Self::JoinCgroup(_) => "joining a cgroup",
            Self::Report(_) => "reporting",
            Self::AwaitGo(_) => "waiting for its go",
            Self::AwaitDeath { .. } => "waiting for its maker's end",
            Self::SendProc(_) => "mounting /proc for another",
            Self::OomScore(_) => "setting its out-of-memory score",
            Self::BecomeRoot => "becoming root of its user namespace",
            Self::KeepCapabilities => "keeping its capabilities for its program",
            Self::NewCgroupNamespace => "making a cgroup namespace",
            Self::Unshare(_) => "making namespaces of its own",
            Self::EnterUserNamespace(_) => "entering a user namespace",
            Self::EnterNetworkNamespace(_) => "entering a network namespace",
            Self::Dumpable => "taking its files in /proc back",
            Self::Bear(_) => "making a process in a user namespace",
            Self::LoopbackUp => "bringing up the loopback interface",
            Self::AttachCopy { .. } => "attaching a copied mount tree",
            Self::Cover { .. } => "covering a path",
            Self::AttachTree { .. } => "attaching a mount",
            Self::AttachReceived { .. } => "attaching the /proc that it was given",
            Self::MountProc { .. } => "mounting /proc",
            Self::PivotTo(_) => "changing its root",
            Self::Hostname(_) => "setting its host name",
            Self::BatchPolicy => "taking the batch scheduling policy",
            Self::NewSession => "making a session",
            Self::OwnTable { .. } => "taking a descriptor table of its own",
            Self::PlaceFds(_) => "placing descriptors",
            Self::Exec { .. } | Self::ExecPath { .. } => "executing its program",
        }
    }
}

/// Runs the steps and never comes back: the process becomes another program or exits.
pub(crate) fn run(steps: &[Step<'_>], report: BorrowedFd<'_>) -> ! {
    let mut state = State { received: None, report: report.as_raw_fd() };
    for (position, step) in steps.iter().enumerate() {
        if let Err(errno) = state.perform(step) {
            let code = errno.raw_os_error().to_le_bytes();
            let position = u8::try_from(position).unwrap_or(u8::MAX);
            state.write_report([REPORT_FAILED, position, code[0], code[1]]).ok();
            exit_now(127);
        }
    }
    exit_now(0)
}

fn exit_now(code: libc::c_int) -> ! {
    // SAFETY: _exit has no condition; it runs no handler and flushes nothing that belongs to the parent.
    unsafe { libc::_exit(code) }
}

struct State {
    received: Option<OwnedFd>,
    /// Where records go; changes its number when descriptors are placed.
    report: RawFd,
}

impl State {
    fn perform(&mut self, step: &Step<'_>) -> Result<(), Errno> {
        match *step {
            Step::DieWithParent(parent) => {
                crate::credentials::die_with_parent(parent).map_err(|_| Errno::SRCH)
            }
            Step::JoinCgroup(procs) => rustix::io::retry_on_intr(|| rustix::io::write(procs, b"0")).map(drop),
            Step::Report(kind) => self.write_report([kind, 0, 0, 0]),
            Step::AwaitGo(socket) => self.await_go(socket),
            Step::AwaitDeath { of, note } => await_death(of, note),
            Step::SendProc(socket) => send_proc(socket),
            Step::OomScore(score) => oom_score(score),
            Step::BecomeRoot => become_root(),
            Step::KeepCapabilities => keep_capabilities(),
            // SAFETY: the one condition is about CLONE_FILES, which is not in the flags.
            Step::NewCgroupNamespace => unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) },
            Step::Unshare(namespaces) => crate::clone3::unshare(namespaces),
            Step::EnterUserNamespace(namespace) => {
                rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::User))
            }
            Step::EnterNetworkNamespace(namespace) => {
                rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
            }
            Step::Dumpable => rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable),
            Step::Bear(nested) => nested.bear(),
            Step::LoopbackUp => loopback_up(),
            Step::AttachCopy { from, to } => attach(clone_tree(CWD, from, Depth::Tree)?, to),
            Step::Cover { with, at } => rustix::mount::mount_bind(with, at),
            Step::AttachTree { tree, to } => attach(tree, to),
            Step::AttachReceived { to } => match &self.received {
                Some(tree) => attach(tree, to),
                None => Err(Errno::BADF),
            },
            Step::MountProc { to } => attach(new_proc()?, to),
            Step::PivotTo(root) => pivot_to(root),
            Step::Hostname(name) => rustix::system::sethostname(name),
            Step::BatchPolicy => batch_policy(),
            Step::NewSession => rustix::process::setsid().map(drop),
            Step::OwnTable { last } => own_table(last),
            Step::PlaceFds(placements) => self.place(placements),
            Step::Exec { program, arguments, environment } => exec_fd(program, arguments, environment),
            Step::ExecPath { program, arguments, environment } => {
                Err(crate::exec::exec(program, arguments, environment))
            }
        }
    }

    fn write_report(&self, record: [u8; REPORT_BYTES]) -> Result<(), Errno> {
        // SAFETY: the number is that of the report descriptor, which stays open until exec or exit: placing keeps it.
        let report = unsafe { BorrowedFd::borrow_raw(self.report) };
        rustix::io::write(report, &record).map(drop)
    }

    fn await_go(&mut self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        // fdpass::recv_with_fds would allocate; this takes one descriptor from a buffer on the stack.
        use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0u8; 1];
        let message = rustix::io::retry_on_intr(|| {
            let mut slices = [std::io::IoSliceMut::new(&mut byte)];
            rustix::net::recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
        })?;
        for ancillary in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut rights) = ancillary {
                self.received = rights.next();
            }
        }
        // End of file: the maker gave up on us.
        if message.bytes == 0 { Err(Errno::PIPE) } else { Ok(()) }
    }

    fn place(&mut self, placements: &[(BorrowedFd<'_>, RawFd)]) -> Result<(), Errno> {
        let mut staged = [-1; PLACED_FDS_MAX];
        let mut highest = 2;
        if placements.len() > staged.len() {
            return Err(Errno::INVAL);
        }
        for (slot, (source, _)) in staged.iter_mut().zip(placements) {
            *slot = fcntl_number(source.as_raw_fd(), libc::F_DUPFD_CLOEXEC, STAGING_FD)?;
        }
        let report_before = self.report;
        for (from, (source, _)) in staged.iter().zip(placements) {
            if source.as_raw_fd() == report_before {
                self.report = *from;
            }
        }
        for (from, (source, target)) in staged.iter().zip(placements) {
            // SAFETY: dup2 takes two numbers and no pointer; what the target number was before is closed, and no
            // Rust object of this process is used by that number afterwards: the list is all that is left to do.
            check(i64::from(unsafe { libc::dup2(*from, *target) }))?;
            highest = highest.max(*target);
            if source.as_raw_fd() == report_before {
                self.report = *target;
            }
        }
        let first = u32::try_from(highest + 1).map_err(|_| Errno::INVAL)?;
        // SAFETY: closes numbers above the placed ones; of those only `received` is an object, and it is not used again.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
        if let Some(gone) = self.received.take() {
            // Closed above by number: closing it again is what must not happen.
            std::mem::forget(gone);
        }
        check(closed).map(drop)
    }
}

fn fcntl_number(fd: RawFd, command: libc::c_int, argument: libc::c_int) -> Result<RawFd, Errno> {
    // SAFETY: the commands used here take a number and no pointer.
    let result = unsafe { libc::fcntl(fd, command, argument) };
    check(i64::from(result))?;
    Ok(result)
}

/// Of include/uapi/linux/close_range.h.
const CLOSE_RANGE_UNSHARE: libc::c_uint = 1 << 1;

fn own_table(last: RawFd) -> Result<(), Errno> {
    let first = u32::try_from(last + 1).map_err(|_| Errno::INVAL)?;
    // SAFETY: what is closed is closed in the copy alone, in which no object of this process is used by such a number:
    // the steps that follow name none.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_UNSHARE) }).map(drop)
}

fn keep_capabilities() -> Result<(), Errno> {
    let held = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(None, CapabilitySets { inheritable: KEPT, ..held })?;
    KEPT.iter().try_for_each(|one| rustix::thread::configure_capability_in_ambient_set(one, true))
}

fn oom_score(score: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty())?;
    rustix::io::write(&file, score).map(drop)
}

fn become_root() -> Result<(), Errno> {
    rustix::thread::set_thread_groups(&[])?;
    let group = Gid::from_raw(0);
    rustix::thread::set_thread_res_gid(group, group, group)?;
    let user = Uid::from_raw(0);
    rustix::thread::set_thread_res_uid(user, user, user)
}

fn new_proc() -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    // Read-only as a whole: nothing in a container has a setting of the kernel, or of a process, to write.
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn send_proc(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let proc = new_proc()?;
    crate::fdpass::send_with_fds(socket, b"g", &[proc.as_fd()]).map(drop)
}

fn await_death(of: BorrowedFd<'_>, note: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::io::write(note, b"here\n")?;
    let mut fds = [PollFd::new(&of, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None)).map(drop)
}

fn pivot_to(root: &CStr) -> Result<(), Errno> {
    rustix::process::chdir(root)?;
    rustix::process::pivot_root(c".", c".")?;
    // Both roots are at "." now, the old one on top.
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}

fn batch_policy() -> Result<(), Errno> {
    // `struct sched_param` of the kernel is one int; that of a C library may be more.
    let priority: libc::c_int = 0;
    // SAFETY: reads one int, which outlives the call; process 0 is the caller.
    check(unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_BATCH, &raw const priority) })
        .map(drop)
}

fn loopback_up() -> Result<(), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(b"lo") {
        *to = c_char::try_from(*from).map_err(|_| Errno::INVAL)?;
    }
    let up = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(|_| Errno::INVAL)?;
    let request = libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: up } };
    // SAFETY: SIOCSIFFLAGS reads one `struct ifreq`, which outlives the call, with name and flags set.
    check(unsafe {
        libc::syscall(
            libc::SYS_ioctl,
            socket.as_raw_fd(),
            libc::c_long::from(SIOCSIFFLAGS),
            &raw const request,
        )
    })
    .map(drop)
}

fn exec_fd(program: RawFd, arguments: &CStringArray, environment: &CStringArray) -> Result<(), Errno> {
    // A dynamic program is opened by its loader through this number, a static one needs nothing of it afterwards.
    fcntl_number(program, libc::F_SETFD, libc::FD_CLOEXEC)?;
    // SAFETY: the path is an empty C string, both arrays end with a null pointer and point to C strings; all of it
    // lies in memory of this process until the call replaces it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program,
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(result).map(drop)
}
