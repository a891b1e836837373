//! Making a container: cgroups, a process with namespaces of its own, its mounts, its init.
//!
//! Owns: the order of the steps (research/probes.md, "orderings that worked"). Must not know: what it is made for.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use faaster_function::RuntimeSpec;
use faaster_function::runtime::RuntimeKind;
use faaster_init::{KIND_EXEC, KIND_FORKED, KIND_POOLED, Record};
use faaster_limits::{BOOT_MEMORY_BYTES, BOOT_PIDS, MEMORY_MB_MIN, TMP_BYTES_DEFAULT, TMP_INODES_MAX};
use faaster_sys::child::Step;
use faaster_sys::child::plan::Plan;
use faaster_sys::clone3::{Birth, Child, Namespaces};
use faaster_sys::exec::CStringArray;
use faaster_sys::mount::{self, Tmpfs};
use faaster_sys::pidfd::{PidFd, ProcessId};
use faaster_sys::seccomp::{SeccompError, function_filters};
use rustix::fs::{MemfdFlags, Mode, OFlags, ResolveFlags, SealFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use self::assembly::{Beginning, Doors};
use crate::cgroup::{Backend, CgroupError, CpuShare, Group, LimitFiles, Limits};
use crate::config::UIDS_PER_SLOT;
use crate::fault::{FaultPoint, Faults};
use crate::network::Promise;
use crate::rootfs::Rootfs;
use crate::rootfs::proc::ProcMount;

mod assembly;

/// Of a container that is being made, while it holds locks that claims need too, or while a claim waits for it.
pub(crate) const BOOT_SHARE: CpuShare = CpuShare::OfMemoryMb(MEMORY_MB_MIN);
/// Name of the machine that a function sees.
pub(crate) const HOSTNAME: &[u8] = b"function";
/// The kernel's choice when the whole machine is out of memory: functions before the engine.
pub(crate) const OOM_SCORE: &[u8] = b"500";
/// What every runtime's environment begins with.
const BASE_ENVIRONMENT: [(&str, &str); 4] =
    [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LANG", "C.UTF-8"), ("HOME", "/tmp"), ("TMPDIR", "/tmp")];

/// Paths in the new root, before it is the root.
pub(crate) const NEW_RUNTIME: &std::ffi::CStr = c"/new/var/runtime";
const NEW_TMP: &std::ffi::CStr = c"/new/tmp";
const NEW_PROC: &std::ffi::CStr = c"/new/proc";

/// The step of a birth that failed, on the maker's side.
#[derive(Debug, thiserror::Error)]
pub enum BirthError {
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("cannot make {what} for a container")]
    Descriptor { what: &'static str, source: Errno },
    #[error("cannot make a container's process")]
    Clone(#[source] Errno),
    #[error("cannot write the {what} of a container's user namespace")]
    IdMap { what: &'static str, source: Errno },
    #[error("{step} failed for a container's process")]
    Between { step: &'static str, source: Errno },
    #[error("cannot mount a container's /proc")]
    Proc(#[source] Errno),
    #[error("cannot come back from a container's network namespace")]
    Lost(#[source] Errno),
    #[error(transparent)]
    Filters(#[from] SeccompError),
}

impl BirthError {
    /// The kernel's reason, where it had one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Cgroup(error) => error.errno(),
            Self::Descriptor { source, .. } | Self::IdMap { source, .. } | Self::Between { source, .. } => {
                Some(*source)
            }
            Self::Clone(source) | Self::Proc(source) | Self::Lost(source) => Some(*source),
            Self::Filters(_) => None,
        }
    }
}

/// What all births share.
#[derive(Debug)]
pub(crate) struct Nursery {
    pub(crate) null: OwnedFd,
    init: OwnedFd,
    pub(crate) filters: OwnedFd,
    pub(crate) own_pidfd: PidFd,
    /// procfs of the pid namespace that we are in.
    pub(crate) proc: OwnedFd,
    own_network: OwnedFd,
    doors: Doors,
    runtimes: Vec<Prepared>,
    /// Of containers whose runtime comes from a fork server.
    adopter: Prepared,
    faults: Faults,
}

/// Command line and environment of a runtime's init.
#[derive(Debug)]
struct Prepared {
    arguments: CStringArray,
    environment: CStringArray,
}

/// A container that has been started, and everything of it that the funclet holds.
#[derive(Debug)]
pub(crate) struct Born {
    pub pid: ProcessId,
    pub pidfd: PidFd,
    pub network: BornWith,
    /// Read end of the status pipe, non-blocking.
    pub status: OwnedFd,
    /// The engine's end of the frame channel.
    pub channel: OwnedFd,
    /// Read end of the runtime's output.
    pub log: OwnedFd,
    /// Configuration of its /tmp.
    pub tmp: OwnedFd,
    pub limits: LimitFiles,
    /// What it goes through before its init, by position.
    pub steps: Vec<&'static str>,
    /// For [`Entrance::ForkServer`].
    pub passage: Option<Box<Passage>>,
}

/// The network of a container that has been started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BornWith {
    /// A namespace comes with [`Record::Apart`]; there is no link to it.
    Nothing,
    /// One that was made for it, and whoever made it makes the link, too.
    LinkComing,
    /// An ended container's, link and all.
    LinkThere,
}

/// What a fork server's child needs to become a container's runtime.
#[derive(Debug)]
pub(crate) struct Passage {
    /// The runtime's end of the frame channel.
    pub channel: OwnedFd,
    /// Write end of its output.
    pub log: OwnedFd,
    /// The container's pid namespace.
    pub namespace: OwnedFd,
    /// Where init calls it in, and it tells its number.
    pub adoption: OwnedFd,
    /// What it writes itself into, in each of its groups.
    pub joins: Vec<OwnedFd>,
}

/// How the runtime comes into a container.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entrance<'a> {
    /// Its init starts it.
    Init,
    /// It is a fork server's child. The container's user namespace lies below the server's, `within`, and has the ids
    /// from `first_uid` on as that one counts them.
    ForkServer { within: BorrowedFd<'a>, first_uid: u32 },
}

/// Where a container's network namespace comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// It makes its own.
    Own,
    /// One is being made for it.
    Promised(&'a Promise),
    /// An ended container's, with its link.
    Inherited(&'a OwnedFd),
}

/// Below which user namespace a container's own is, and so who may enter what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lineage {
    Funclet,
    ForkServer,
}

impl Entrance<'_> {
    pub(crate) fn lineage(self) -> Lineage {
        match self {
            Self::Init => Lineage::Funclet,
            Self::ForkServer { .. } => Lineage::ForkServer,
        }
    }
}

/// What to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order<'a> {
    pub runtime: usize,
    pub group: &'a str,
    /// First of its user ids.
    pub uid: u32,
    pub entrance: Entrance<'a>,
    pub network: Origin<'a>,
}

impl Nursery {
    /// Opens what every birth needs; before the funclet moves into its own mount namespace.
    ///
    /// # Errors
    /// What cannot be opened.
    pub(crate) fn open(
        init_path: &std::path::Path,
        runtimes: &[RuntimeSpec],
        faults: Faults,
    ) -> Result<Self, BirthError> {
        let open = |path: &std::path::Path, what, flags: OFlags| {
            rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
                .map_err(|source| BirthError::Descriptor { what, source })
        };
        let init = open(init_path, "the init program", OFlags::RDONLY)?;
        let null = open("/dev/null".as_ref(), "/dev/null", OFlags::RDWR)?;
        let proc = open("/proc".as_ref(), "/proc", OFlags::RDONLY | OFlags::DIRECTORY)?;
        let own_network =
            open("/proc/thread-self/ns/net".as_ref(), "our own network namespace", OFlags::RDONLY)?;
        let own_pidfd =
            PidFd::of_self().map_err(|source| BirthError::Descriptor { what: "our own pidfd", source })?;
        let filters = filters_file()?;
        let doors = Doors::open(&null)?;
        let runtimes = runtimes.iter().map(Prepared::new).collect();
        let adopter = Prepared {
            arguments: c_strings(["faaster-init", KIND_FORKED].map(str::to_owned)),
            environment: c_strings([]),
        };
        Ok(Self { null, init, filters, own_pidfd, proc, own_network, doors, runtimes, adopter, faults })
    }

    /// Makes a container and lets it go; it boots on its own from here.
    ///
    /// # Errors
    /// The step that failed; nothing is left of it then but its cgroups, which the caller removes.
    pub(crate) fn give_birth(
        &self,
        order: Order<'_>,
        cgroups: &dyn Backend,
        rootfs: &Rootfs,
    ) -> Result<Born, BirthError> {
        let Group { birth, mut joins, mut limits } = cgroups.create(order.group)?;
        self.faults.at(FaultPoint::CreateCgroups);
        let boot = Limits { memory_bytes: BOOT_MEMORY_BYTES, pids: BOOT_PIDS, cpu: BOOT_SHARE };
        cgroups.write_limits(&mut limits, &boot)?;
        self.faults.at(FaultPoint::CreateLimits);
        let ends = Ends::make(order)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let tmp = Tmpfs::new(TMP_BYTES_DEFAULT, TMP_INODES_MAX, c"1777", order.uid, attributes)
            .map_err(|source| BirthError::Descriptor { what: "/tmp", source })?;
        self.faults.at(FaultPoint::CreateEnds);
        let procs = match order.entrance {
            Entrance::Init => None,
            Entrance::ForkServer { .. } => birth.as_ref().map(procs_of).transpose()?,
        };
        let made = match order.network {
            Origin::Promised(promise) => promise.take(),
            Origin::Own | Origin::Inherited(_) => None,
        };
        let network = match order.network {
            Origin::Inherited(namespace) => Some(namespace),
            Origin::Own | Origin::Promised(_) => made.as_ref(),
        };
        let fault = self.faults.in_birth();
        let mut later = self.steps_of_init(order, &joins, rootfs, (&ends, &tmp.mount), network);
        let cgroup = birth.as_ref().map(|dir| dir.as_fd());
        let beginning = Beginning { order, cgroup, network, fault: fault.as_ref() };
        let (child, steps) = self.begin(&beginning, &ends, &mut later)?;
        self.faults.at(FaultPoint::CreateCloned);
        let told = self
            .plan(&ends, steps.len() - later.len(), &later)
            .and_then(|plan| self.let_go(&child, order, rootfs.proc_mount, (&ends, &plan)));
        let inside = match told {
            Ok(inside) => inside,
            Err(error) => {
                // It waits for a plan that it is not going to get, or has ended and said why.
                child.pidfd.kill().ok();
                child.pidfd.reap().ok();
                return Err(why(&ends.status, &steps).unwrap_or(error));
            }
        };
        self.faults.at(FaultPoint::CreateGone);
        let network = match (order.network, &made) {
            (Origin::Inherited(_), _) => BornWith::LinkThere,
            (_, Some(_)) => BornWith::LinkComing,
            (_, None) => BornWith::Nothing,
        };
        let Child { pid, pidfd } = child;
        let Ends { status, channel, log, runtime_channel, log_write, adoption, .. } = ends;
        let passage = inside.zip(adoption).map(|(namespace, (_, adoption))| {
            joins.extend(procs);
            Box::new(Passage { channel: runtime_channel, log: log_write, namespace, adoption, joins })
        });
        Ok(Born { pid, pidfd, network, status, channel, log, tmp: tmp.context, limits, steps, passage })
    }

    /// The network namespace of a container that is ours and not reaped.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn network_namespace(&self, pid: ProcessId) -> Result<OwnedFd, Errno> {
        self.namespace(pid, "net")
    }

    fn namespace(&self, pid: ProcessId, which: &str) -> Result<OwnedFd, Errno> {
        let path = format!("{}/ns/{which}", pid.get());
        rustix::fs::openat(&self.proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    }

    /// Configuration of the /tmp of a container that is ours and not reaped.
    ///
    /// # Errors
    /// It has ended, or has no /tmp of its own.
    pub(crate) fn tmp_context(&self, pid: ProcessId) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(&self.proc, format!("{}/root", pid.get()), flags, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let tmp = rustix::fs::openat2(&root, c"tmp", flags, Mode::empty(), resolve)?;
        mount::context_of(&tmp)
    }

    /// What a thread is doing, for people.
    pub(crate) fn state_of(&self, id: i32) -> Option<String> {
        crate::stuck::state_of(&self.proc, id)
    }

    /// Gives its pid namespace, for whoever comes from outside.
    fn let_go(
        &self,
        child: &Child,
        order: Order<'_>,
        proc: ProcMount,
        (ends, plan): (&Ends, &Plan<'_>),
    ) -> Result<Option<OwnedFd>, BirthError> {
        let failed = |what| move |source| BirthError::Descriptor { what, source };
        let inside = match order.entrance {
            Entrance::Init => {
                self.write_maps(child, &format!("0 {} {UIDS_PER_SLOT}", order.uid))?;
                None
            }
            Entrance::ForkServer { .. } => {
                Some(self.namespace(child.pid, "pid").map_err(failed("a pid namespace"))?)
            }
        };
        self.faults.at(FaultPoint::CreateMapped);
        plan.send(&ends.go).map_err(failed("a plan"))?;
        match proc {
            ProcMount::Inside => Ok(inside),
            ProcMount::ByHelper => self.send_proc_by_helper(child, &ends.go).map(|()| inside),
        }
    }

    /// Gives the ids of a map to a user namespace just made.
    pub(crate) fn write_maps(&self, child: &Child, map: &str) -> Result<(), BirthError> {
        for what in ["uid_map", "gid_map"] {
            // The child is ours and not reaped, so its number is not somebody else's.
            let path = format!("{}/{what}", child.pid.get());
            rustix::fs::openat(&self.proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .and_then(|file| rustix::io::write(&file, map.as_bytes()))
                .map_err(|source| BirthError::IdMap { what, source })?;
        }
        Ok(())
    }

    /// The helper is born in the container's pid namespace, but in our mount namespace, where /proc may be mounted; it
    /// gives the go itself. It must be reaped before the container can end.
    fn send_proc_by_helper(&self, child: &Child, go: &OwnedFd) -> Result<(), BirthError> {
        let failed = |source| BirthError::Proc(source);
        let (report_read, report) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        child.pidfd.enter_pid_namespace_for_children().map_err(failed)?;
        let steps = [Step::DieWithParent(self.own_pidfd.as_fd()), Step::SendProc(go.as_fd())];
        let birth =
            Birth { namespaces: Namespaces::Shared, cgroup: None, steps: &steps, report: report.as_fd() };
        let helper = birth.start();
        self.faults.at(FaultPoint::CreateHelper);
        // Whatever happened: our own children are to be born in our own namespace again.
        self.own_pidfd.enter_pid_namespace_for_children().map_err(failed)?;
        let helper = helper.map_err(failed)?;
        helper.pidfd.reap().map_err(failed)?;
        drop(report);
        let mut record = [0; faaster_init::RECORD_BYTES];
        match rustix::io::read(&report_read, &mut record) {
            Ok(0) => Ok(()),
            Ok(_) => {
                Err(failed(Errno::from_raw_os_error(i32::from(u16::from_le_bytes([record[2], record[3]])))))
            }
            Err(errno) => Err(failed(errno)),
        }
    }
}

impl Prepared {
    fn new(runtime: &RuntimeSpec) -> Self {
        let kind = match runtime.kind {
            RuntimeKind::Pooled => KIND_POOLED,
            RuntimeKind::Exec => KIND_EXEC,
        };
        let words = ["faaster-init", kind].into_iter().map(str::to_owned).chain(runtime.argv.iter().cloned());
        Self { arguments: c_strings(words), environment: environment_of(runtime) }
    }
}

/// Texts of a configuration, which its check has looked through.
pub(crate) fn c_strings(texts: impl IntoIterator<Item = String>) -> CStringArray {
    let c_string = |text: String| CString::new(text).expect("the configuration's check refuses zero bytes");
    CStringArray::new(texts.into_iter().map(c_string).collect())
}

/// What a runtime's processes are started with.
pub(crate) fn environment_of(runtime: &RuntimeSpec) -> CStringArray {
    let mut environment: std::collections::BTreeMap<&str, &str> = BASE_ENVIRONMENT.into_iter().collect();
    environment.extend(runtime.env.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    c_strings(environment.iter().map(|(name, value)| format!("{name}={value}")))
}

/// `cgroup.procs` of a group, for a process that is not born in it.
fn procs_of(dir: &OwnedFd) -> Result<OwnedFd, BirthError> {
    rustix::fs::openat(dir, c"cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|source| BirthError::Descriptor { what: "cgroup.procs", source })
}

/// The step that ended a container's process, if one did.
fn why(status: &OwnedFd, steps: &[&'static str]) -> Option<BirthError> {
    let mut record = [0; faaster_init::RECORD_BYTES];
    while rustix::io::read(status, &mut record) == Ok(record.len()) {
        if let Some(Record::BirthFailed { position, errno }) = Record::decode(record) {
            let step = steps.get(usize::from(position)).copied().unwrap_or("a step");
            return Some(BirthError::Between {
                step,
                source: Errno::from_raw_os_error(i32::from(errno).max(1)),
            });
        }
    }
    None
}

/// Both ends of everything that connects a container with the outside.
#[derive(Debug)]
struct Ends {
    status: OwnedFd,
    status_write: OwnedFd,
    channel: OwnedFd,
    runtime_channel: OwnedFd,
    log: OwnedFd,
    log_write: OwnedFd,
    go: OwnedFd,
    awaited: OwnedFd,
    /// Where init calls the child of a fork server in, and is told its number: init's end, and the child's.
    adoption: Option<(OwnedFd, OwnedFd)>,
}

impl Ends {
    fn make(order: Order<'_>) -> Result<Self, BirthError> {
        let failed = |what| move |source| BirthError::Descriptor { what, source };
        let (status, status_write) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed("a status pipe"))?;
        rustix::fs::fcntl_setfl(&status, OFlags::NONBLOCK).map_err(failed("a status pipe"))?;
        let (log, log_write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed("a log pipe"))?;
        // Programs open /dev/stdout, which opens the pipe anew, as whoever they are.
        let owner = rustix::fs::Uid::from_raw(order.uid + faaster_init::RUNTIME_USER);
        rustix::fs::fchown(&log_write, Some(owner), None).map_err(failed("a log pipe"))?;
        let pair = |kind| rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
        let (channel, runtime_channel) = pair(SocketType::STREAM).map_err(failed("a channel"))?;
        let (go, awaited) = pair(SocketType::SEQPACKET).map_err(failed("a go socket"))?;
        let adoption = match order.entrance {
            Entrance::Init => None,
            Entrance::ForkServer { .. } => {
                Some(pair(SocketType::SEQPACKET).map_err(failed("a socket for a number"))?)
            }
        };
        Ok(Self { status, status_write, channel, runtime_channel, log, log_write, go, awaited, adoption })
    }
}

fn filters_file() -> Result<OwnedFd, BirthError> {
    let failed = |source| BirthError::Descriptor { what: "the file of system call filters", source };
    let bytes = function_filters()?.to_bytes();
    let file = rustix::fs::memfd_create(c"faaster-filters", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(failed)?;
    rustix::io::write(&file, &bytes).map_err(failed)?;
    // Every container holds it for a moment.
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(failed)?;
    Ok(file)
}
