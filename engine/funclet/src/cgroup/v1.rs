//! Hybrid hosts: v1 controllers for limits and counters, and, where it is mounted, the v2 hierarchy (without
//! controllers) for birth, thread lists and processor time.
//!
//! Owns: our top group in each hierarchy. Must not know: containers.
//! The v1 freezer is not used: a frozen task does not die before it is thawed.

use super::files::{Base, write_number};
use super::mountinfo::{Access, Mounted, Version, own_v1_path};
use super::share::{CPU_IDLE, write_share};
use super::{
    Backend, CgroupError, CpuShare, FinalUsage, Group, LimitFiles, Limits, Machine, Removal, Running, Usage,
};
use crate::reclaim::ReclaimFiles;
use rustix::io::Errno;
use std::os::fd::OwnedFd;

const MEMORY: &str = "memory.limit_in_bytes";
const SWAP: &str = "memory.memsw.limit_in_bytes";
const CPU: &str = "cpu.shares";
const PIDS: &str = "pids.max";
/// Takes the one thread that writes to it, which is all that a process has when it joins. With `cgroup.procs` the kernel
/// keeps every process of the machine from forking and ending meanwhile, and after some idleness begins with waiting for an
/// RCU grace period, 10 to 20 ms (kernel/cgroup/cgroup.c, cgroup_procs_write_start; since 5.5).
const JOIN: &str = "tasks";
/// Shares that weigh as much as one nice-0 process.
const SHARES_OF_A_PROCESS: u64 = 1024;
/// Bounds of `cpu.shares` (kernel/sched/sched.h, MIN_SHARES and MAX_SHARES).
const SHARES_MIN: u64 = 2;
const SHARES_MAX: u64 = 262_144;

/// One hierarchy with our top group in it.
#[derive(Debug)]
struct Hierarchy {
    base: Base,
    top: Base,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Hybrid {
    top_name: String,
    hierarchies: Vec<Hierarchy>,
    memory: usize,
    pids: usize,
    cpu: Option<usize>,
    /// Without the v2 part alone.
    accounting: Option<usize>,
    /// The v2 part.
    core: Option<Hierarchy>,
}

impl Hybrid {
    pub(super) fn open(machine: &Machine, top_name: &str) -> Result<Self, CgroupError> {
        let mut opened: Vec<(std::path::PathBuf, Hierarchy)> = Vec::new();
        let mut find = |controller: &str| -> Result<Option<usize>, CgroupError> {
            let Some(mounted) = machine.v1_base(controller) else { return Ok(None) };
            // Controllers may share a hierarchy, as cpu and cpuacct usually do.
            if let Some(at) = opened.iter().position(|(path, _)| *path == mounted.mount_point) {
                return Ok(Some(at));
            }
            let own = own_v1_path(&machine.own, controller).unwrap_or("/");
            let base = Base::open(mounted, own)?;
            let top = base.make_or_open(top_name)?;
            opened.push((mounted.mount_point.clone(), Hierarchy { base, top }));
            Ok(Some(opened.len() - 1))
        };
        let memory = find("memory")?.ok_or(CgroupError::NoController("memory"))?;
        let pids = find("pids")?.ok_or(CgroupError::NoController("pids"))?;
        let cpu = find("cpu")?;
        let core = core_base(machine).and_then(|base| {
            let top = base.make_or_open(top_name).ok()?;
            // The one file that says that this kernel's core can do what we want (5.14).
            top.read_text("cgroup.threads").ok()?;
            Some(Hierarchy { base, top })
        });
        // The core counts processor time in any group. One more group of each container costs memory, and time at birth.
        let accounting = if core.is_some() { None } else { find("cpuacct")? };
        let hierarchies = opened.into_iter().map(|(_, hierarchy)| hierarchy).collect();
        Ok(Self { top_name: top_name.to_owned(), hierarchies, memory, pids, cpu, accounting, core })
    }

    fn all(&self) -> impl Iterator<Item = &Hierarchy> {
        self.hierarchies.iter().chain(self.core.as_ref())
    }

    fn make_group(&self, name: &str) -> Result<Group, CgroupError> {
        let groups: Vec<Base> =
            self.hierarchies.iter().map(|h| h.top.make(name)).collect::<Result<_, _>>()?;
        let joins = groups.iter().map(|group| group.open_for_write(JOIN)).collect::<Result<_, _>>()?;
        let birth = match &self.core {
            Some(core) => Some(core.top.make(name)?.dir),
            None => None,
        };
        Ok(Group { birth, joins, limits: self.limit_files(&groups)? })
    }

    /// `groups`: one container's in each hierarchy.
    fn limit_files(&self, groups: &[Base]) -> Result<LimitFiles, CgroupError> {
        Ok(LimitFiles {
            memory: groups[self.memory].open_for_write(MEMORY)?,
            // Absent where the kernel does not account swap.
            swap: groups[self.memory].open_for_write(SWAP).ok(),
            cpu: self.cpu.map(|at| groups[at].open_for_write(CPU)).transpose()?,
            idle: self.cpu.and_then(|at| groups[at].open_for_write(CPU_IDLE).ok()),
            pids: groups[self.pids].open_for_write(PIDS)?,
            memory_bytes: groups[self.memory].read_number(MEMORY),
        })
    }
}

fn core_base(machine: &Machine) -> Option<Base> {
    let own = super::mountinfo::own_v2_path(&machine.own);
    let mounted = match machine.v2_base() {
        Some(mounted) => mounted.clone(),
        // Docker does not pass on the mount of a hybrid host, but we are in the hierarchy: it can be mounted again.
        None if own.is_some() => {
            Mounted { version: Version::Two, mount_point: "cgroup2".into(), access: Access::ReadOnly }
        }
        None => return None,
    };
    Base::open(&mounted, own.unwrap_or("/")).ok()
}

/// Places of our top groups.
pub(super) fn bases(machine: &Machine) -> Vec<Base> {
    let mut paths = Vec::new();
    let mut bases: Vec<Base> = core_base(machine).into_iter().collect();
    for controller in ["memory", "pids", "cpu", "cpuacct"] {
        let Some(mounted) = machine.v1_base(controller) else { continue };
        if !paths.contains(&mounted.mount_point) {
            paths.push(mounted.mount_point.clone());
            let own = own_v1_path(&machine.own, controller).unwrap_or("/");
            bases.extend(Base::open(mounted, own).ok());
        }
    }
    bases
}

impl Backend for Hybrid {
    fn describe(&self) -> String {
        let places: Vec<&str> = self.all().map(|hierarchy| hierarchy.base.label()).collect();
        let core = if self.core.is_some() { "with the v2 core" } else { "without a v2 core" };
        format!("cgroup v1 {core} ({})", places.join(", "))
    }

    fn weigh_top(&self, cores: usize) -> Result<(), CgroupError> {
        let Some(at) = self.cpu else { return Ok(()) };
        let file = self.hierarchies[at].top.open_for_write(CPU)?;
        write_number(&file, CPU, (cores as u64 * SHARES_OF_A_PROCESS).clamp(SHARES_MIN, SHARES_MAX))
    }

    fn create(&self, name: &str) -> Result<Group, CgroupError> {
        self.make_group(name).inspect_err(|_| {
            self.remove(name).ok();
        })
    }

    fn open_limits(&self, name: &str) -> Result<LimitFiles, CgroupError> {
        let groups: Vec<Base> =
            self.hierarchies.iter().map(|h| h.top.below(name)).collect::<Result<_, _>>()?;
        self.limit_files(&groups)
    }

    fn write_limits(&self, files: &mut LimitFiles, limits: &Limits) -> Result<(), CgroupError> {
        let memory = limits.memory_bytes;
        let (set_memory, set_swap) = (
            |files: &LimitFiles| write_number(&files.memory, MEMORY, memory),
            |files: &LimitFiles| files.swap.as_ref().map_or(Ok(()), |file| write_number(file, SWAP, memory)),
        );
        // Memory plus swap may never be below memory, on the way neither.
        if memory > files.memory_bytes {
            set_swap(files)?;
            set_memory(files)?;
        } else {
            set_memory(files)?;
            set_swap(files)?;
        }
        files.memory_bytes = memory;
        self.write_share(files, limits.cpu)?;
        write_number(&files.pids, PIDS, u64::from(limits.pids))
    }

    fn write_share(&self, files: &LimitFiles, share: CpuShare) -> Result<(), CgroupError> {
        let shares_of = |memory_mb| u64::from(memory_mb).clamp(SHARES_MIN, SHARES_MAX);
        write_share(files, share, CPU, shares_of)
    }

    fn peak_gauge(&self, name: &str) -> Option<OwnedFd> {
        self.hierarchies[self.memory].top.open_for_read(&format!("{name}/memory.max_usage_in_bytes"))
    }

    fn threads(&self, name: &str) -> Result<Vec<i32>, CgroupError> {
        let (top, file) = match &self.core {
            Some(core) => (&core.top, "cgroup.threads"),
            None => (&self.hierarchies[self.pids].top, "tasks"),
        };
        top.read_ids(&format!("{name}/{file}")).map_err(|source| CgroupError::File { file, source })
    }

    fn set_running(&self, name: &str, running: Running) -> Result<(), CgroupError> {
        let Some(core) = &self.core else {
            let (what, group) = ("stop", name.to_owned());
            return Err(CgroupError::Freezer { what, group, source: Errno::NOENT });
        };
        core.top.set_running(name, running)
    }

    /// `memory.force_empty` is no such thing: one write cannot be bounded or stopped, and the kernel means to drop it.
    fn reclaim_files(&self, _name: &str) -> Option<ReclaimFiles> {
        None
    }

    fn usage(&self, name: &str) -> Usage {
        let memory = &self.hierarchies[self.memory].top;
        Usage {
            memory_bytes: memory.read_number(&format!("{name}/memory.usage_in_bytes")),
            cpu_us: self.cpu_us(name),
        }
    }

    fn final_usage(&self, name: &str) -> FinalUsage {
        let memory = &self.hierarchies[self.memory].top;
        FinalUsage {
            memory_peak_bytes: memory.read_number(&format!("{name}/memory.max_usage_in_bytes")),
            cpu_us: self.cpu_us(name),
            oom_kills: memory.read_keyed(&format!("{name}/memory.oom_control"), "oom_kill"),
        }
    }

    fn remove(&self, name: &str) -> Result<Removal, CgroupError> {
        for hierarchy in self.all() {
            if hierarchy.top.remove(name)? == Removal::Busy {
                return Ok(Removal::Busy);
            }
        }
        Ok(Removal::Gone)
    }

    fn remove_top(&self) -> Result<Removal, CgroupError> {
        for hierarchy in self.all() {
            if hierarchy.base.remove(&self.top_name)? == Removal::Busy {
                return Ok(Removal::Busy);
            }
        }
        Ok(Removal::Gone)
    }
}

impl Hybrid {
    fn cpu_us(&self, name: &str) -> u64 {
        if let Some(core) = &self.core {
            return core.top.read_keyed(&format!("{name}/cpu.stat"), "usage_usec");
        }
        let nanoseconds = self
            .accounting
            .map_or(0, |at| self.hierarchies[at].top.read_number(&format!("{name}/cpuacct.usage")));
        nanoseconds / 1000
    }
}
