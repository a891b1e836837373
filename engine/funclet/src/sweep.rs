//! What killed runs have left: found by name and by the lock that a living supervisor holds; then removed.
//!
//! Owns: the decision whose leftovers they are. Must not know: how a run makes them.
//!
//! Every run has `<run_root>/<instance id>/`, and its supervisor holds an exclusive flock(2) on the file `lock` in it
//! from before anything else of the run exists. The kernel drops that lock with the process, however it ends. So an
//! instance whose lock is free is dead, and only what carries the id of such an instance is touched; ids that have no
//! directory here may belong to an engine with another run root, and are left alone. The directory itself goes last.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use faaster_sys::pidfd::{PidFd, ProcessId};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use serde::{Deserialize, Serialize};

use crate::cgroup::{self, Base, CgroupError, Removal, list_groups};
use crate::config::{InstanceId, instance_of_cgroup};
use crate::network;
use crate::timers::Nanos;

/// Name of the file in a run's directory that its supervisor holds a lock on.
pub const LOCK_FILE: &str = "lock";
/// How long processes and cgroups of a dead run may take to go.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(10);
/// As long for those of an earlier funclet, whose successor has calls waiting.
const CLEAR_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause between looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Where runs of the engine have their directories.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SweepConfig {
    pub run_root: PathBuf,
}

/// What was found and removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepReport {
    /// Dead instances.
    pub instances: Vec<String>,
    pub cgroups: usize,
    pub processes: usize,
    pub mounts: usize,
    /// Tables of rules of the network.
    pub tables: usize,
    /// What could not be removed, one sentence each.
    pub left: Vec<String>,
}

/// Why nothing could be looked for.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error("cannot list {path}")]
    List { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

/// Removes what dead runs have left. To be called by a supervisor that holds its own lock already.
///
/// # Errors
/// When it cannot even look; single things that resist are in the report.
pub fn sweep(config: &SweepConfig) -> Result<SweepReport, SweepError> {
    let mut report = SweepReport::default();
    let dead = dead_instances(&config.run_root)?;
    if dead.is_empty() {
        return Ok(report);
    }
    report.instances = dead.iter().map(ToString::to_string).collect();
    for base in cgroup::bases()? {
        for name in list_groups(&base).unwrap_or_default() {
            if instance_of_cgroup(&name).is_some_and(|id| dead.contains(&id)) {
                sweep_group(&base, &name, Nanos::now().after(SWEEP_TIMEOUT), &mut report);
            }
        }
    }
    for id in &dead {
        let folder = config.run_root.join(id.as_str());
        sweep_mounts(&folder, &mut report);
        report.tables += network::prepare::undo(id, &folder, &mut report.left);
        if report.left.is_empty()
            && let Err(error) = std::fs::remove_dir_all(&folder)
        {
            report.left.push(format!("cannot remove {}: {error}", folder.display()));
        }
    }
    Ok(report)
}

/// Removes one top group and everything in it, wherever it is; for the one run that owns it. What does not die in time
/// stays, with its groups, whose names are given: a single process must not keep a funclet from its work.
pub(crate) fn clear(top: &str) -> Result<Vec<String>, CgroupError> {
    let until = Nanos::now().after(CLEAR_TIMEOUT);
    let (mut report, mut left) = (SweepReport::default(), Vec::new());
    for base in cgroup::bases()? {
        if base.has(top) {
            sweep_group(&base, top, until, &mut report);
            // What it stopped would stop what is made in it next.
            base.continue_all(top).ok();
            left.extend(base.below_listed(top).unwrap_or_default());
        }
    }
    Ok(left)
}

fn dead_instances(run_root: &Path) -> Result<Vec<InstanceId>, SweepError> {
    let entries = match std::fs::read_dir(run_root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(SweepError::List { path: run_root.to_owned(), source }),
    };
    Ok(entries
        .flatten()
        .filter_map(|entry| InstanceId::try_from(entry.file_name().into_string().ok()?).ok())
        .filter(|id| is_dead(&run_root.join(id.as_str()).join(LOCK_FILE)))
        .collect())
}

/// Whether there is a lock file that nobody holds. Without the file nothing is known, and the run may be just starting.
fn is_dead(lock: &Path) -> bool {
    let Ok(file) = File::open(lock) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// Ends every process of a top group and removes it with all below it.
fn sweep_group(base: &Base, name: &str, until: Nanos, report: &mut SweepReport) {
    // Held still, what forks faster than it is found has no time to. Without a v2 core the loop must be the faster one.
    base.freeze(name).ok();
    loop {
        kill_all(base, name, report);
        // What slipped in between the list and its end.
        base.kill(name).ok();
        match remove_tree(base, name) {
            Ok(Removal::Gone) => {
                report.cgroups += 1;
                return;
            }
            Ok(Removal::Busy) if Nanos::now() < until => pause(),
            Ok(Removal::Busy) => {
                report.left.push(format!("cgroup {}/{name} holds processes that do not die", base.label()));
                return;
            }
            Err(error) => {
                report.left.push(error.to_string());
                return;
            }
        }
    }
}

fn groups_of(base: &Base, name: &str) -> Vec<String> {
    let below = base.below_listed(name).unwrap_or_default();
    below.into_iter().map(|child| format!("{name}/{child}")).chain([name.to_owned()]).collect()
}

fn kill_all(base: &Base, name: &str, report: &mut SweepReport) {
    for group in groups_of(base, name) {
        let procs = format!("{group}/cgroup.procs");
        for id in base.read_ids(&procs).unwrap_or_default() {
            let Some(pid) = ProcessId::new(id) else { continue };
            let Ok(pidfd) = PidFd::open(pid) else { continue };
            // The number may have passed on between the two: it is ours if it is still in our group.
            let is_ours = base.read_ids(&procs).is_ok_and(|ids| ids.contains(&id));
            if is_ours && pidfd.kill().is_ok() {
                report.processes += 1;
                pidfd.wait_dead(Duration::from_millis(100)).ok();
            }
        }
    }
}

fn remove_tree(base: &Base, name: &str) -> Result<Removal, CgroupError> {
    let mut removal = Removal::Gone;
    for group in groups_of(base, name) {
        // One that stays must not keep the others: their names are wanted again.
        if base.remove(&group)? == Removal::Busy {
            removal = Removal::Busy;
        }
    }
    Ok(removal)
}

fn pause() {
    let time = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(PAUSE.subsec_nanos()) };
    rustix::event::poll(&mut [], Some(&time)).ok();
}

/// Mounts at or below a directory, latest first. A run makes its own in a namespace that ends with it, so this finds
/// something only after an accident.
fn sweep_mounts(folder: &Path, report: &mut SweepReport) {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for point in mounts_below(&text, folder).into_iter().rev() {
        match rustix::mount::unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => report.mounts += 1,
            Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => report.left.push(format!("cannot unmount {}: {errno}", point.display())),
        }
    }
}

fn mounts_below(mountinfo: &str, folder: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .map(|point| PathBuf::from(cgroup::mountinfo::unescape(point)))
        .filter(|p| p.starts_with(folder))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_instances_with_a_free_lock_are_dead() {
        let root = tempfile::tempdir().unwrap();
        for id in ["00000001", "00000002", "00000003", "not-an-id"] {
            std::fs::create_dir(root.path().join(id)).unwrap();
        }
        for id in ["00000001", "00000002", "not-an-id"] {
            File::create(root.path().join(id).join(LOCK_FILE)).unwrap();
        }
        let held = File::open(root.path().join("00000002").join(LOCK_FILE)).unwrap();
        rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
        let dead = dead_instances(root.path()).unwrap();
        assert_eq!(dead.iter().map(InstanceId::as_str).collect::<Vec<_>>(), ["00000001"]);
        drop(held);
        assert_eq!(dead_instances(root.path()).unwrap().len(), 2);
        assert!(dead_instances(&root.path().join("absent")).unwrap().is_empty());
    }

    #[test]
    fn mounts_are_found_by_whole_path_components() {
        let text = "\
1 0 0:1 / /run/faaster/00000001 rw - tmpfs t rw
2 1 0:2 / /run/faaster/00000001/a\\040b rw - tmpfs t rw
3 0 0:3 / /run/faaster/000000011 rw - tmpfs t rw
";
        let found = mounts_below(text, Path::new("/run/faaster/00000001"));
        assert_eq!(
            found,
            [PathBuf::from("/run/faaster/00000001"), PathBuf::from("/run/faaster/00000001/a b")]
        );
    }
}
