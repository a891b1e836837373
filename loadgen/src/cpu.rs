//! CPU time of this process and of a server's process tree.
//!
//! Owns: nothing. Must not know: requests. The kernel tells a process's time in ticks of 10 ms; over the seconds of a run
//! that is a small error, and a process that ends within it is found in its parent's account.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rustix::time::ClockId;

/// Why a process tree cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    #[error("there is no process {0}: give --pid the number of the running server")]
    NoProcess(u32),
    #[error("cannot list the processes")]
    List(#[source] std::io::Error),
}

/// A process tree at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeCpu {
    /// CPU time used so far, user and system, with that of children that ended.
    pub cpu_ns: u64,
    pub processes: usize,
    members: Vec<u32>,
    /// Its threads by number.
    threads: BTreeMap<u32, Thread>,
}

/// One thread of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Thread {
    ticks: u64,
    /// Cores that it may use.
    cores: BTreeSet<u16>,
}

impl TreeCpu {
    /// Cores that may be used by those threads that have done something since `earlier`.
    pub fn cores_in_use(&self, earlier: &Self) -> BTreeSet<u16> {
        let worked = |number: &u32, thread: &Thread| {
            earlier.threads.get(number).is_none_or(|before| before.ticks < thread.ticks)
        };
        let threads = self.threads.iter().filter(|(number, thread)| worked(number, thread));
        threads.flat_map(|(_, thread)| thread.cores.iter().copied()).collect()
    }

    /// Whether no process came or went since `earlier` and none has worked.
    pub fn has_rested_since(&self, earlier: &Self) -> bool {
        (self.cpu_ns, &self.members) == (earlier.cpu_ns, &earlier.members)
    }

    /// Reads the CPU time anew, of the processes that are known. That is much less work than to look for them, which takes
    /// milliseconds, maybe of the server's own core. Of one that has ended its parent tells.
    pub fn refresh(&mut self) {
        let stat = |pid: &u32| parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?);
        let stats: Vec<(u32, Stat)> =
            self.members.iter().filter_map(|pid| stat(pid).map(|stat| (*pid, stat))).collect();
        self.cpu_ns = ticks_ns(stats.iter().map(|(_, stat)| stat.ticks).sum());
        self.members = stats.into_iter().map(|(pid, _)| pid).collect();
        self.processes = self.members.len();
    }
}

fn ticks_ns(ticks: u64) -> u64 {
    ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second()
}

/// CPU time that this process has used, in nanoseconds.
pub fn own_cpu_ns() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Reads the process `root` and everything below it.
///
/// # Errors
/// It is not there.
pub fn tree(root: u32) -> Result<TreeCpu, CpuError> {
    let mut stats = HashMap::new();
    for entry in std::fs::read_dir("/proc").map_err(CpuError::List)?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end while it is looked at.
        let Ok(text) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some(stat) = parse_stat(&text) {
            stats.insert(pid, stat);
        }
    }
    if !stats.contains_key(&root) {
        return Err(CpuError::NoProcess(root));
    }
    let mut members: Vec<u32> = stats.keys().copied().filter(|pid| is_below(*pid, root, &stats)).collect();
    members.sort_unstable();
    let ticks: u64 = members.iter().map(|pid| stats[pid].ticks).sum();
    let threads = members.iter().flat_map(|pid| threads(*pid)).collect();
    Ok(TreeCpu { cpu_ns: ticks_ns(ticks), processes: members.len(), members, threads })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    ticks: u64,
}

/// Reads a line of proc(5)'s /proc/pid/stat: after the name, which may hold anything, field 4 is the parent and 14 to
/// 17 are the times.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    let number = |index: usize| fields.get(index - 3)?.parse::<u64>().ok();
    let parent = u32::try_from(number(4)?).ok()?;
    Some(Stat { parent, ticks: number(14)? + number(15)? + number(16)? + number(17)? })
}

fn is_below(pid: u32, root: u32, stats: &HashMap<u32, Stat>) -> bool {
    let mut current = pid;
    // No chain of parents is longer than there are processes; one seen at different moments could be a circle.
    for _ in 0..=stats.len() {
        if current == root {
            return true;
        }
        match stats.get(&current) {
            Some(stat) => current = stat.parent,
            None => return false,
        }
    }
    false
}

/// Threads of a process that are there when they are looked at.
fn threads(pid: u32) -> Vec<(u32, Thread)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let thread = |task: std::fs::DirEntry| {
        let number = task.file_name().to_str()?.parse().ok()?;
        let ticks = parse_stat(&std::fs::read_to_string(task.path().join("stat")).ok()?)?.ticks;
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        Some((number, Thread { ticks, cores: parse_cores(list.trim())? }))
    };
    tasks.into_iter().flatten().flatten().filter_map(thread).collect()
}

/// Reads a list of cores like `0,2-3`.
pub fn parse_cores(list: &str) -> Option<BTreeSet<u16>> {
    let mut cores = BTreeSet::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > 4096 {
            return None;
        }
        cores.extend(first..=last);
    }
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_are_read_past_any_name() {
        let line = "7 (a) 9 (b c) S 3 7 7 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 1 0 5 6 7";
        assert_eq!(parse_stat(line), Some(Stat { parent: 3, ticks: 124 }));
        assert_eq!(parse_stat("7 (short) S 3"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(parse_cores("0,2-3"), Some(BTreeSet::from([0, 2, 3])));
        for bad in ["", "x", "3-1", "1-99999", "-1"] {
            assert_eq!(parse_cores(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_tree_holds_its_children_and_their_time() {
        let own = std::process::id();
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let with_child = tree(own).unwrap();
        assert!(with_child.processes >= 2 && with_child.cpu_ns < u64::MAX);
        let alone = tree(child.id()).unwrap();
        assert_eq!(alone.processes, 1);
        // Whoever was not there before has worked; whoever is at rest has not.
        let nobody = TreeCpu { cpu_ns: 0, processes: 0, members: Vec::new(), threads: BTreeMap::new() };
        assert!(!alone.cores_in_use(&nobody).is_empty());
        assert!(alone.cores_in_use(&alone).is_empty());
        drop(child.stdin.take());
        let number = child.id();
        assert!(child.wait().unwrap().success());
        assert!(matches!(tree(number), Err(CpuError::NoProcess(_))));
    }

    #[test]
    fn a_known_tree_is_read_anew_without_a_search() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let mut alone = tree(std::process::id()).unwrap();
        let with_child = alone.clone();
        drop(child.stdin.take());
        let number = child.id();
        assert!(child.wait().unwrap().success());
        let until_ns = own_cpu_ns() + 50_000_000;
        while own_cpu_ns() < until_ns {
            std::hint::spin_loop();
        }
        alone.refresh();
        assert!(alone.cpu_ns >= with_child.cpu_ns + 30_000_000, "{alone:?}");
        assert!(with_child.members.contains(&number) && !alone.members.contains(&number));
        assert_eq!(alone.processes, alone.members.len());
        // Other tests' children come meanwhile, which a search would find; the known ones do not grow.
        assert!(alone.processes < with_child.processes);
    }

    #[test]
    fn our_own_time_passes_with_work() {
        let before = own_cpu_ns();
        let mut sum = 0u64;
        while own_cpu_ns() < before + 1_000_000 {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        assert!(sum > 0);
    }
}
