//! Control groups: one trait, two back ends.
//!
//! Owns: what the rest of the funclet may ask of cgroups, and which back end the machine has.
//! Must not know: containers' states. A container's groups are made fresh for it and removed with it, never used
//! again: lowering a limit under page cache took 39 ms, and peak counters carry over (research/probes.md).

mod files;
pub(crate) mod mountinfo;
mod share;
mod v1;
mod v2;
mod warm;

use std::fmt;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::reclaim::ReclaimFiles;

pub(crate) use files::{Base, list_groups};
use mountinfo::{Mounted, Version};
pub(crate) use warm::Warmth;

/// A step with cgroups that failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cannot read {path}")]
    Proc { path: &'static str, source: Errno },
    #[error(
        "the {0} controller is in no mounted cgroup hierarchy; mount it, or boot without cgroup_disable={0}, or give the container access to /sys/fs/cgroup"
    )]
    NoController(&'static str),
    #[error(
        "cgroup {group} is given no {controller} controller; start faaster where it is delegated (with systemd: Delegate=yes)"
    )]
    NotDelegated { controller: &'static str, group: String },
    #[error("cannot open the cgroup hierarchy at {path}")]
    Open { path: String, source: Errno },
    #[error("cannot make cgroup {group} in {hierarchy}")]
    Create { group: String, hierarchy: String, source: Errno },
    #[error("cannot open {file} of a cgroup")]
    File { file: &'static str, source: Errno },
    #[error("cannot write {value} to {file} of a cgroup")]
    Limit { file: &'static str, value: u64, source: Errno },
    #[error("cannot remove cgroup {group} from {hierarchy}")]
    Remove { group: String, hierarchy: String, source: Errno },
    #[error("cannot {what} the processes of cgroup {group}")]
    Freezer { what: &'static str, group: String, source: Errno },
    #[error("cannot turn on the controllers of cgroup {path}; it may hold processes that cannot be moved")]
    Subtree { path: String, source: Errno },
}

impl CgroupError {
    /// The kernel's reason, where it had one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::NoController(_) | Self::NotDelegated { .. } => None,
            Self::Proc { source, .. }
            | Self::Open { source, .. }
            | Self::Create { source, .. }
            | Self::File { source, .. }
            | Self::Limit { source, .. }
            | Self::Remove { source, .. }
            | Self::Freezer { source, .. }
            | Self::Subtree { source, .. } => Some(*source),
        }
    }
}

/// How much of the processors a container gets when others want them too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CpuShare {
    /// What nobody else wants: whoever else wakes up takes the core at once (`cpu.idle`, cgroup-v2.rst).
    Spare,
    /// A weight that follows this memory.
    OfMemoryMb(u32),
}

/// What a container may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Memory and swap together.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    pub cpu: CpuShare,
}

/// What a container uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub memory_bytes: u64,
    pub cpu_us: u64,
}

/// What a container has used in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FinalUsage {
    pub memory_peak_bytes: u64,
    pub cpu_us: u64,
    /// Processes that the kernel killed for memory.
    pub oom_kills: u64,
}

/// Whether the processes of a group run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Running {
    Yes,
    Stopped,
}

/// Whether a group is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    Gone,
    /// Something in it has not finished dying.
    Busy,
}

/// A group just made, with what a birth into it needs.
#[derive(Debug)]
pub(crate) struct Group {
    /// Directory of its v2 part, to be born in.
    pub birth: Option<OwnedFd>,
    /// What the child writes itself into, in each v1 part; it must have one thread.
    pub joins: Vec<OwnedFd>,
    pub limits: LimitFiles,
}

/// Limit files kept open, so that a claim only writes.
#[derive(Debug)]
pub(crate) struct LimitFiles {
    memory: OwnedFd,
    swap: Option<OwnedFd>,
    cpu: Option<OwnedFd>,
    /// `cpu.idle`; the kernel has it since 5.15.
    idle: Option<OwnedFd>,
    pids: OwnedFd,
    /// What `memory` holds.
    memory_bytes: u64,
}

/// Whether the kernel limits what of a group is in swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SwapLimit {
    There,
    Absent,
}

impl LimitFiles {
    pub(crate) fn swap_limit(&self) -> SwapLimit {
        if self.swap.is_some() { SwapLimit::There } else { SwapLimit::Absent }
    }
}

/// One way to do it. Groups are named by the caller; all lie in the funclet's own top group.
pub(crate) trait Backend: fmt::Debug {
    /// Which controllers come from where, for people.
    fn describe(&self) -> String;
    /// Gives all containers together the weight of one ordinary process for each core.
    ///
    /// # Errors
    /// Why it cannot be written; without a cpu controller there is nothing to write.
    fn weigh_top(&self, cores: usize) -> Result<(), CgroupError>;
    /// Makes a group.
    ///
    /// # Errors
    /// The step that failed; nothing of the group is left then.
    fn create(&self, name: &str) -> Result<Group, CgroupError>;
    /// Opens the limit files of a group again.
    ///
    /// # Errors
    /// Which of them cannot be opened.
    fn open_limits(&self, name: &str) -> Result<LimitFiles, CgroupError>;
    /// Sets limits, up or down.
    ///
    /// # Errors
    /// EBUSY in [`CgroupError::Limit`] when more than the new limit is in use.
    fn write_limits(&self, files: &mut LimitFiles, limits: &Limits) -> Result<(), CgroupError>;
    /// Sets the share of the processors alone.
    ///
    /// # Errors
    /// Why it cannot be written; without a cpu controller there is nothing to write.
    fn write_share(&self, files: &LimitFiles, share: CpuShare) -> Result<(), CgroupError>;
    /// The file that tells the most memory a group has used, for the engine to read when a log tail wants it.
    fn peak_gauge(&self, name: &str) -> Option<OwnedFd>;
    /// Thread ids of a group, as seen in our pid namespace.
    ///
    /// # Errors
    /// Why they cannot be read.
    fn threads(&self, name: &str) -> Result<Vec<i32>, CgroupError>;
    /// Stops all processes of a group, or lets them go on. What is stopped can be killed all the same.
    ///
    /// # Errors
    /// ENOENT where the v2 core is missing.
    fn set_running(&self, name: &str, running: Running) -> Result<(), CgroupError>;
    /// Opens what moves a group's memory to swap; `None` where the kernel or the hierarchy has no such thing.
    fn reclaim_files(&self, name: &str) -> Option<ReclaimFiles>;
    /// Zero for what cannot be read.
    fn usage(&self, name: &str) -> Usage;
    /// As [`Self::usage`], after the last process has ended.
    fn final_usage(&self, name: &str) -> FinalUsage;
    /// Removes a group.
    ///
    /// # Errors
    /// For anything but [`Removal::Busy`] and a group that is gone already.
    fn remove(&self, name: &str) -> Result<Removal, CgroupError>;
    /// Removes the top group.
    ///
    /// # Errors
    /// As [`Self::remove`].
    fn remove_top(&self) -> Result<Removal, CgroupError>;
}

/// Finds the back end of this machine and makes our top group in it.
///
/// # Errors
/// What is missing; the sentence says what to do.
pub(crate) fn open(top: &str) -> Result<Box<dyn Backend>, CgroupError> {
    let machine = Machine::read()?;
    if machine.v1_base("memory").is_some() {
        return Ok(Box::new(v1::Hybrid::open(&machine, top)?));
    }
    Ok(Box::new(v2::Unified::open(&machine, top)?))
}

/// Every place that can hold top groups of ours, for the sweep.
///
/// # Errors
/// When the machine's mounts cannot be read. A hierarchy that cannot be opened is left out.
pub(crate) fn bases() -> Result<Vec<Base>, CgroupError> {
    let machine = Machine::read()?;
    if machine.v1_base("memory").is_some() {
        return Ok(v1::bases(&machine));
    }
    Ok(v2::bases(&machine))
}

/// What the machine has mounted, and where this process stands in it.
#[derive(Debug)]
pub(crate) struct Machine {
    mounts: Vec<Mounted>,
    own: String,
}

impl Machine {
    fn read() -> Result<Self, CgroupError> {
        let read = |path: &'static str| {
            std::fs::read_to_string(path).map_err(|error| CgroupError::Proc {
                path,
                source: Errno::from_io_error(&error).unwrap_or(Errno::IO),
            })
        };
        let mounts = mountinfo::parse_mountinfo(&read("/proc/self/mountinfo")?);
        Ok(Self { mounts, own: read("/proc/self/cgroup")? })
    }

    fn v1_base(&self, controller: &str) -> Option<&Mounted> {
        self.mounts.iter().find(|mounted| match &mounted.version {
            Version::One(controllers) => controllers.iter().any(|name| name == controller),
            Version::Two => false,
        })
    }

    fn v2_base(&self) -> Option<&Mounted> {
        self.mounts.iter().find(|mounted| mounted.version == Version::Two)
    }
}
