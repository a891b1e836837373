//! What the machine offers: cores that may be used, memory that may be used.
//!
//! Owns: reading `/proc` and the cgroup files for it. Must not know: settings.

use std::path::{Path, PathBuf};

/// Read once at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Numbers of the cores that this process may run on, ascending; never empty.
    pub cores: Vec<u16>,
    /// As many threads as make sense: fewer than `cores` where a cgroup limits CPU time.
    pub parallelism: usize,
    /// The machine's memory or the cgroup's limit, whichever is less.
    pub memory_bytes: u64,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let cores = cores();
        let parallelism =
            std::thread::available_parallelism().map_or(cores.len(), usize::from).min(cores.len());
        let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text));
        let limit = cgroup_limit();
        let memory_bytes = [total, limit].into_iter().flatten().min().unwrap_or(0);
        Self { cores, parallelism, memory_bytes }
    }
}

fn cores() -> Vec<u16> {
    match faaster_sys::affinity::allowed_cores() {
        Ok(cores) if !cores.is_empty() => cores,
        // A process runs somewhere, whatever the kernel says.
        Ok(_) | Err(_) => vec![0],
    }
}

/// Bytes of `MemTotal` in the text of `/proc/meminfo`.
fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The least memory limit on the way from this process's cgroup up to the root, v2 or v1.
fn cgroup_limit() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    memory_files(&own).iter().filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

/// Files that may hold a memory limit, from the text of `/proc/self/cgroup`.
fn memory_files(own: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (root, name) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let path = Path::new(path.trim_start_matches('/'));
        files.extend(path.ancestors().map(|ancestor| Path::new(root).join(ancestor).join(name)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mem_total_is_in_kib() {
        assert_eq!(mem_total("MemTotal:       24683520 kB\nMemFree: 1 kB\n"), Some(24_683_520 * 1024));
        assert_eq!(mem_total("MemFree: 1 kB\n"), None);
        assert_eq!(mem_total("MemTotal: many kB\n"), None);
    }

    #[test]
    fn memory_files_lead_up_to_the_root() {
        let files = memory_files("9:name=systemd:/\n4:cpu,memory:/a/b\n0::/c\n");
        let names: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/c/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
    }

    #[test]
    fn this_machine_has_a_core_and_memory() {
        let machine = Machine::read();
        assert!(!machine.cores.is_empty() && machine.parallelism >= 1);
        assert!(machine.memory_bytes > 64 << 20);
    }
}
