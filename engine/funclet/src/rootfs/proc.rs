//! A container's /proc: how it is mounted, and what of the host's is covered in it.
//!
//! Owns: the list of what is covered. Must not know: when containers are made.
//! All of it is read-only (faaster_sys::child), so only what can be read matters here. What the host's own modes close
//! to others needs no cover: nobody in a container is the host's root, and nobody has a capability.

use std::ffi::{CStr, CString};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use faaster_sys::child::Step;

/// What says more of the host than a function needs: its devices, drivers, command line and activity by device, and
/// where its kernel lies. The OCI runtimes' list and more.
const COVERED: [&str; 19] = [
    "acpi",
    "asound",
    "bus",
    "cmdline",
    "diskstats",
    "driver",
    "fs",
    "interrupts",
    "irq",
    "kallsyms",
    "kcore",
    "keys",
    "latency_stats",
    "modules",
    "partitions",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];

/// In the common tree: what stands in for a covered file, and for a covered directory.
const EMPTY_FILE: &CStr = c"/root/dev/null";
const EMPTY_FOLDER: &CStr = c"/root/sys";

/// How a container gets its /proc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcMount {
    /// It mounts it itself.
    Inside,
    /// The host's /proc is masked (Docker), which forbids that; a helper outside of its user namespace does it.
    ByHelper,
}

impl ProcMount {
    /// Whether anything is mounted over a part of /proc: then the kernel lets no lesser user namespace mount another.
    pub(crate) fn of(mountinfo: &str) -> Self {
        let covered = mountinfo
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .any(|path| path.starts_with("/proc/"));
        if covered { Self::ByHelper } else { Self::Inside }
    }
}

/// One thing that is covered in every container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcMask {
    from: &'static CStr,
    to: CString,
}

impl ProcMask {
    /// Covers it, before the new root is the root.
    pub(crate) fn step(&self) -> Step<'_> {
        Step::Cover { with: self.from, at: &self.to }
    }
}

/// What this kernel has of the list and lets others read. Each costs every container a mount.
pub(crate) fn masks(proc: &Path) -> Vec<ProcMask> {
    let mask = |name: &&str| {
        let metadata = std::fs::symlink_metadata(proc.join(name)).ok()?;
        let is_open = metadata.permissions().mode() & 0o004 != 0;
        let from = if metadata.is_dir() { EMPTY_FOLDER } else { EMPTY_FILE };
        let to = CString::new(format!("/new/proc/{name}")).expect("names hold no zero byte");
        is_open.then_some(ProcMask { from, to })
    };
    COVERED.iter().filter_map(mask).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_proc_is_seen() {
        let plain = "22 27 0:21 / /proc rw - proc proc rw\n23 27 0:22 / /sys rw - sysfs sysfs rw\n";
        assert_eq!(ProcMount::of(plain), ProcMount::Inside);
        let docker = "22 27 0:21 / /proc rw - proc proc rw\n29 22 0:9 / /proc/kcore rw - tmpfs tmpfs rw\n";
        assert_eq!(ProcMount::of(docker), ProcMount::ByHelper);
    }

    #[test]
    fn only_what_is_there_and_open_is_covered() {
        let proc = tempfile::tempdir().unwrap();
        let path = |name: &str| proc.path().join(name);
        std::fs::create_dir(path("bus")).unwrap();
        for (name, mode) in [("interrupts", 0o444), ("kcore", 0o400), ("meminfo", 0o444)] {
            std::fs::write(path(name), "").unwrap();
            std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let covered = masks(proc.path());
        let expected = [(EMPTY_FOLDER, c"/new/proc/bus"), (EMPTY_FILE, c"/new/proc/interrupts")];
        assert_eq!(covered, expected.map(|(from, to)| ProcMask { from, to: to.to_owned() }));
    }
}
