//! Hosts with cgroup v2 alone.
//!
//! Owns: our top group, and where in the tree it may be. Must not know: containers.
//! A group that gives controllers to its children may hold no process itself ("no internal processes", cgroups(7)),
//! except the real root. So the top group goes, first of these that works: directly into the root of the mount if
//! this process is there; beside this process's own group, where the parent holds no process; into its own group,
//! whose processes then move into a leaf. A group that was delegated (systemd's Delegate=yes) comes before its parent,
//! which stays its owner's.

use rustix::io::Errno;
use std::os::fd::OwnedFd;

use super::files::{Base, write_number};
use super::mountinfo::own_v2_path;
use super::share::{CPU_IDLE, write_share};
use super::{
    Backend, CgroupError, CpuShare, FinalUsage, Group, LimitFiles, Limits, Machine, Removal, Running, Usage,
};

const MEMORY: &str = "memory.max";
const SWAP: &str = "memory.swap.max";
const CPU: &str = "cpu.weight";
const PIDS: &str = "pids.max";
/// Weight of one nice-0 process.
const WEIGHT_OF_A_PROCESS: u64 = 100;
/// Bounds of `cpu.weight` (cgroup-v2.rst).
const WEIGHT_MIN: u64 = 1;
const WEIGHT_MAX: u64 = 10_000;
/// Memory that stands for the default weight, MiB.
const WEIGHT_MEMORY_MB: u64 = 1024;
/// Where a group's own processes go when it must give controllers away.
const LEAF: &str = "faaster-main";
/// How often processes are moved before we give up: new ones may be born meanwhile.
const MOVES_MAX: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Unified {
    top_name: String,
    base: Base,
    top: Base,
}

impl Unified {
    pub(super) fn open(machine: &Machine, top_name: &str) -> Result<Self, CgroupError> {
        let mut last = CgroupError::NoController("memory");
        for place in places(machine) {
            match Self::open_in(place, top_name) {
                Ok(unified) => return Ok(unified),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn open_in(place: Place, top_name: &str) -> Result<Self, CgroupError> {
        let base = place.base;
        require_controllers(&base, place.depth)?;
        match (enable(&base), place.processes) {
            (Err(Errno::BUSY), Processes::MayMove) => {
                move_processes_to_leaf(&base)?;
                enable(&base)
            }
            (result, _) => result,
        }
        .map_err(|source| CgroupError::Subtree { path: base.label.clone(), source })?;
        let top = base.make_or_open(top_name)?;
        enable(&top).map_err(|source| CgroupError::Subtree { path: top.label.clone(), source })?;
        Ok(Self { top_name: top_name.to_owned(), base, top })
    }

    fn make_group(&self, name: &str) -> Result<Group, CgroupError> {
        let group = self.top.make(name)?;
        let limits = limit_files(&group)?;
        Ok(Group { birth: Some(group.dir), joins: Vec::new(), limits })
    }
}

fn limit_files(group: &Base) -> Result<LimitFiles, CgroupError> {
    Ok(LimitFiles {
        memory: group.open_for_write(MEMORY)?,
        swap: group.open_for_write(SWAP).ok(),
        cpu: group.open_for_write(CPU).ok(),
        idle: group.open_for_write(CPU_IDLE).ok(),
        pids: group.open_for_write(PIDS)?,
        memory_bytes: u64::MAX,
    })
}

/// A group that could hold our top group.
struct Place {
    base: Base,
    depth: Depth,
    processes: Processes,
}

/// Where in the tree that this process sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    Root,
    Below,
}

/// What may be done with the processes that are in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Processes {
    MayMove,
    Stay,
}

fn places(machine: &Machine) -> Vec<Place> {
    let Some(mounted) = machine.v2_base() else { return Vec::new() };
    let own = own_v2_path(&machine.own).unwrap_or("/");
    let Ok(root) = Base::open(mounted, "/") else { return Vec::new() };
    let inside = own.trim_matches('/');
    if inside.is_empty() {
        return vec![Place { base: root, depth: Depth::Root, processes: Processes::MayMove }];
    }
    let within =
        root.below(inside).map(|base| Place { base, depth: Depth::Below, processes: Processes::MayMove });
    let beside = match inside.rsplit_once('/') {
        Some((parent, _)) => {
            root.below(parent).map(|base| Place { base, depth: Depth::Below, processes: Processes::Stay })
        }
        None => Ok(Place { base: root, depth: Depth::Root, processes: Processes::Stay }),
    };
    if within.as_ref().is_ok_and(|place| is_delegated(&place.base)) {
        return within.into_iter().chain(beside).collect();
    }
    beside.into_iter().chain(within).collect()
}

/// Whether systemd has marked a group as its processes' own ("Control Group APIs and Delegation").
fn is_delegated(group: &Base) -> bool {
    let mut value = [0; 8];
    ["trusted.delegate", "user.delegate"].iter().any(|name| {
        rustix::fs::fgetxattr(&group.dir, *name, &mut value).is_ok_and(|length| value[..length] == *b"1")
    })
}

/// Places of our top groups.
pub(super) fn bases(machine: &Machine) -> Vec<Base> {
    places(machine).into_iter().map(|place| place.base).collect()
}

fn require_controllers(base: &Base, depth: Depth) -> Result<(), CgroupError> {
    let text = base
        .read_text("cgroup.controllers")
        .map_err(|source| CgroupError::File { file: "cgroup.controllers", source })?;
    for controller in ["memory", "pids"] {
        if !text.split_whitespace().any(|name| name == controller) {
            return Err(match depth {
                Depth::Root => CgroupError::NoController(controller),
                Depth::Below => CgroupError::NotDelegated { controller, group: base.label.clone() },
            });
        }
    }
    Ok(())
}

/// Gives the controllers to a group's children; cpu if there is any.
fn enable(group: &Base) -> Result<(), Errno> {
    group.write_text("cgroup.subtree_control", "+memory +pids")?;
    group.write_text("cgroup.subtree_control", "+cpu").ok();
    Ok(())
}

fn move_processes_to_leaf(base: &Base) -> Result<(), CgroupError> {
    let leaf = base.make_or_open(LEAF)?;
    for _ in 0..MOVES_MAX {
        let text = base
            .read_text("cgroup.procs")
            .map_err(|source| CgroupError::File { file: "cgroup.procs", source })?;
        // Also process 1, if it is here: that of a container that we run in. 0 is one that we cannot see.
        let ids: Vec<&str> = text.lines().filter(|id| *id != "0").collect();
        for id in &ids {
            leaf.write_text("cgroup.procs", id).ok();
        }
        if ids.is_empty() {
            break;
        }
    }
    Ok(())
}

impl Backend for Unified {
    fn describe(&self) -> String {
        format!("cgroup v2 ({})", self.base.label())
    }

    fn weigh_top(&self, cores: usize) -> Result<(), CgroupError> {
        let Ok(file) = self.top.open_for_write(CPU) else { return Ok(()) };
        write_number(&file, CPU, (cores as u64 * WEIGHT_OF_A_PROCESS).clamp(WEIGHT_MIN, WEIGHT_MAX))
    }

    fn create(&self, name: &str) -> Result<Group, CgroupError> {
        self.make_group(name).inspect_err(|_| {
            self.remove(name).ok();
        })
    }

    fn open_limits(&self, name: &str) -> Result<LimitFiles, CgroupError> {
        limit_files(&self.top.below(name)?)
    }

    fn write_limits(&self, files: &mut LimitFiles, limits: &Limits) -> Result<(), CgroupError> {
        write_number(&files.memory, MEMORY, limits.memory_bytes)?;
        if let Some(swap) = &files.swap {
            write_number(swap, SWAP, 0)?;
        }
        files.memory_bytes = limits.memory_bytes;
        self.write_share(files, limits.cpu)?;
        write_number(&files.pids, PIDS, u64::from(limits.pids))
    }

    fn write_share(&self, files: &LimitFiles, share: CpuShare) -> Result<(), CgroupError> {
        write_share(files, share, CPU, weight_of)
    }

    fn peak_gauge(&self, name: &str) -> Option<OwnedFd> {
        self.top.open_for_read(&format!("{name}/memory.peak"))
    }

    fn threads(&self, name: &str) -> Result<Vec<i32>, CgroupError> {
        let file = "cgroup.threads";
        self.top.read_ids(&format!("{name}/{file}")).map_err(|source| CgroupError::File { file, source })
    }

    fn set_running(&self, name: &str, running: Running) -> Result<(), CgroupError> {
        self.top.set_running(name, running)
    }

    fn usage(&self, name: &str) -> Usage {
        Usage {
            memory_bytes: self.top.read_number(&format!("{name}/memory.current")),
            cpu_us: self.top.read_keyed(&format!("{name}/cpu.stat"), "usage_usec"),
        }
    }

    fn final_usage(&self, name: &str) -> FinalUsage {
        FinalUsage {
            // Since 5.19; before, the peak is not known and 0.
            memory_peak_bytes: self.top.read_number(&format!("{name}/memory.peak")),
            cpu_us: self.top.read_keyed(&format!("{name}/cpu.stat"), "usage_usec"),
            oom_kills: self.top.read_keyed(&format!("{name}/memory.events"), "oom_kill"),
        }
    }

    fn remove(&self, name: &str) -> Result<Removal, CgroupError> {
        self.top.remove(name)
    }

    fn remove_top(&self) -> Result<Removal, CgroupError> {
        self.base.remove(&self.top_name)
    }
}

fn weight_of(memory_mb: u32) -> u64 {
    (u64::from(memory_mb) * 100 / WEIGHT_MEMORY_MB).clamp(WEIGHT_MIN, WEIGHT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_follows_memory_within_the_kernels_bounds() {
        assert_eq!(weight_of(1024), 100);
        assert_eq!(weight_of(128), 12);
        assert_eq!(weight_of(1), 1);
        assert_eq!(weight_of(u32::MAX), 10_000);
    }
}
