//! Processes below a fork server's user namespace, and the server itself.
//!
//! Owns: the order of steps that gives a fork server everything below its namespace and nothing on the host
//! (research/probes.md, "confined slot maker"). Must not know: when one is wanted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use faaster_sys::child::{REPORT_BYTES, Step};
use faaster_sys::clone3::{Birth, Child, Memory, Namespaces};
use faaster_sys::exec::CStringArray;
use faaster_sys::fdpass;
use faaster_sys::nested::{NUMBER_BYTES, Nested};
use faaster_sys::pidfd::{Exit, PidFd, ProcessId};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use crate::birth::{BirthError, HOSTNAME, NEW_RUNTIME, Nursery, OOM_SCORE};
use crate::cgroup::Group;
use crate::rootfs::{NEW, Rootfs};

/// Numbers of a fork server's descriptors besides 0 to 2 (docs/protocol.md section 10).
const CONTROL_FD: RawFd = 5;
const FILTERS_FD: RawFd = 6;

/// The process that makes another one inside of a user namespace.
#[derive(Debug)]
pub(crate) struct Between<'a> {
    pub within: BorrowedFd<'a>,
    /// Directory of the v2 cgroup that both are born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// What they write themselves into to be in others.
    pub joins: &'a [OwnedFd],
    /// The network namespace of both, if not ours.
    pub network: Option<BorrowedFd<'a>>,
    /// Of the new one's own user namespace, if it gets one.
    pub id_map: &'a [u8],
}

/// A fork server just started, as the funclet holds it.
#[derive(Debug)]
pub(crate) struct BornServer {
    pub pidfd: PidFd,
    pub control: OwnedFd,
    /// Read end of its output, non-blocking.
    pub log: OwnedFd,
    /// What it goes through before its program, by position.
    pub steps: Vec<&'static str>,
}

/// What a fork server is started with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerOrder<'a> {
    pub runtime: usize,
    pub within: BorrowedFd<'a>,
    pub group: &'a Group,
    pub arguments: &'a CStringArray,
    pub environment: &'a CStringArray,
    pub program: &'a std::ffi::CStr,
}

impl Nursery {
    /// A user namespace with these ids, held by nothing but the descriptor.
    ///
    /// # Errors
    /// The step that failed.
    pub(crate) fn make_user_namespace(&self, map: &str) -> Result<OwnedFd, BirthError> {
        let failed = |source| BirthError::Descriptor { what: "a user namespace", source };
        let (report_read, report) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        let (go, awaited) = seqpacket_pair().map_err(failed)?;
        let steps = [Step::AwaitGo(awaited.as_fd())];
        let birth =
            Birth { namespaces: Namespaces::User, cgroup: None, steps: &steps, report: report.as_fd() };
        let child = birth.start().map_err(BirthError::Clone)?;
        let made = self.write_maps(&child, map).and_then(|()| {
            let path = format!("{}/ns/user", child.pid.get());
            rustix::fs::openat(&self.proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(failed)
        });
        child.pidfd.kill().ok();
        child.pidfd.reap().map_err(failed)?;
        drop((report_read, go));
        made
    }

    /// Makes a child of ours inside of a user namespace.
    pub(crate) fn bear(
        &self,
        between: &Between<'_>,
        (namespaces, memory): (Namespaces, Memory),
        steps: &[Step<'_>],
        report: BorrowedFd<'_>,
    ) -> Result<Child, BirthError> {
        let failed = |source| BirthError::Descriptor { what: "a pipe for a number", source };
        let (told, number) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(failed)?;
        let proc = self.proc.as_fd();
        let nested = Nested {
            namespaces,
            memory,
            steps,
            report,
            proc,
            id_map: between.id_map,
            number: number.as_fd(),
        };
        let mut own = vec![Step::DieWithParent(self.own_pidfd.as_fd()), Step::OomScore(OOM_SCORE)];
        own.extend(between.joins.iter().map(|procs| Step::JoinCgroup(procs.as_fd())));
        // Before it gives up the say in what lies beside the user namespace.
        own.extend(between.network.map(Step::EnterNetworkNamespace));
        own.extend([
            Step::EnterUserNamespace(between.within),
            Step::BecomeRoot,
            Step::Dumpable,
            Step::Bear(&nested),
        ]);
        let birth = Birth {
            namespaces: Namespaces::Shared,
            cgroup: between.cgroup,
            steps: &own,
            report: number.as_fd(),
        };
        let mut bytes = [0; NUMBER_BYTES + REPORT_BYTES];
        let ended = birth.run().map_err(BirthError::Clone)?;
        let count = rustix::io::read(&told, &mut bytes).unwrap_or(0);
        let (head, tail) = bytes.split_at(NUMBER_BYTES);
        let is_whole = ended == Exit::Code(0) && count == NUMBER_BYTES;
        if is_whole || count == bytes.len() {
            let raw = i32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            let pid = ProcessId::new(raw).ok_or(BirthError::Clone(Errno::RANGE))?;
            // A child of ours that is not reaped: the number is its own.
            let pidfd = PidFd::open(pid).map_err(BirthError::Clone)?;
            if is_whole {
                return Ok(Child { pid, pidfd });
            }
            pidfd.kill().ok();
            pidfd.reap().ok();
        }
        let record = if count == bytes.len() { tail } else { head };
        let step = own.get(usize::from(record[1])).map_or("a step", Step::name);
        let errno = i32::from(u16::from_le_bytes([record[2], record[3]]));
        Err(BirthError::Between { step, source: Errno::from_raw_os_error(errno.max(1)) })
    }

    /// Starts a fork server; it boots on its own from here.
    ///
    /// # Errors
    /// The step that failed; nothing is left of it then.
    pub(crate) fn bear_server(
        &self,
        order: ServerOrder<'_>,
        rootfs: &Rootfs,
    ) -> Result<BornServer, BirthError> {
        let failed = |source| BirthError::Descriptor { what: "a fork server's channel", source };
        let (log, log_write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        rustix::fs::fcntl_setfl(&log, OFlags::NONBLOCK).map_err(failed)?;
        let (control, servers) = seqpacket_pair().map_err(failed)?;
        rustix::fs::fcntl_setfl(&control, OFlags::NONBLOCK).map_err(failed)?;
        let parent = self.own_pidfd.as_fd();
        let placements: [(BorrowedFd<'_>, RawFd); 5] = [
            (self.null.as_fd(), 0),
            (log_write.as_fd(), 1),
            (log_write.as_fd(), 2),
            (servers.as_fd(), CONTROL_FD),
            (self.filters.as_fd(), FILTERS_FD),
        ];
        let steps = [
            Step::DieWithParent(parent),
            Step::NewCgroupNamespace,
            Step::AttachCopy { from: &rootfs.roots[order.runtime], to: NEW },
            Step::AttachCopy { from: &rootfs.runtime_paths[order.runtime], to: NEW_RUNTIME },
            Step::PivotTo(NEW),
            Step::Hostname(HOSTNAME),
            Step::BatchPolicy,
            Step::NewSession,
            Step::PlaceFds(&placements),
            Step::ExecPath {
                program: order.program,
                arguments: order.arguments,
                environment: order.environment,
            },
        ];
        let between = Between {
            within: order.within,
            cgroup: order.group.birth.as_ref().map(|dir| dir.as_fd()),
            joins: &order.group.joins,
            network: None,
            id_map: &[],
        };
        // A step that fails leaves its record where the program would have printed.
        let child = self.bear(&between, (Namespaces::Inner, Memory::Copied), &steps, log_write.as_fd())?;
        let steps = steps.iter().map(Step::name).collect();
        Ok(BornServer { pidfd: child.pidfd, control, log, steps })
    }
}

/// Whether somebody waits for a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hurry {
    /// A claim does: the child comes as it is.
    Yes,
    /// It can prime itself first, which makes the claim that takes it shorter.
    No,
}

/// Sends what a child needs to become a container's runtime.
///
/// # Errors
/// sendmsg(2)'s.
pub(crate) fn send_order(
    control: &OwnedFd,
    init: &PidFd,
    passage: &crate::birth::Passage,
    hurry: Hurry,
) -> Result<(), Errno> {
    use faaster_limits::{FUNCTION_FDS_DEFAULT, FUNCTION_FDS_MAX};
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    let order = [
        faaster_init::RUNTIME_USER.to_le_bytes(),
        number(FUNCTION_FDS_DEFAULT),
        number(FUNCTION_FDS_MAX),
        u32::from(hurry == Hurry::Yes).to_le_bytes(),
    ];
    let crate::birth::Passage { channel, log, namespace, adoption, joins } = passage;
    let mut fds = vec![init.as_fd(), namespace.as_fd(), channel.as_fd(), log.as_fd(), adoption.as_fd()];
    fds.extend(joins.iter().map(AsFd::as_fd));
    fdpass::send_with_fds(control, order.as_flattened(), &fds).map(drop)
}

fn seqpacket_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}
