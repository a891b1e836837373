//! What a machine must have for containers, tried rather than asked.
//!
//! Owns: one check for each thing that a funclet needs. Must not know: who asks; `faaster doctor` and the start do.

mod nested;

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use faaster_sys::child::{REPORT_BYTES, REPORT_FAILED, Step};
use faaster_sys::clone3::{Birth, Namespaces};
use faaster_sys::mount::{Depth, Tmpfs, set_attributes};
use faaster_sys::pidfd::PidFd;
use faaster_sys::seccomp::function_filters;
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::pipe::PipeFlags;
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use faaster_limits::SLOTS_MAX;

use crate::cgroup::{self, Backend, CgroupError, Group, SwapLimit};
use crate::config::CGROUP_PREFIX;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "sentence", rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be; what exactly.
    Ok(String),
    /// Containers cannot run; what to do.
    Missing(String),
    /// They can, with less.
    Degraded(String),
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Tries everything that a funclet needs; changes nothing that stays.
pub fn probe() -> Vec<Check> {
    let check = |name: &str, outcome| Check { name: name.to_owned(), outcome };
    vec![
        check("privilege", privilege()),
        check("namespaces", namespaces()),
        check("user namespaces", user_namespaces(&sysctl)),
        check("nested user namespaces", nested::nested()),
        check("apparmor", apparmor(&sysctl, &label_of_self())),
        check("links", links(&sysctl)),
        check("mounts", mounts()),
        check("pidfd", pidfd()),
        check("seccomp", seccomp()),
        check("cgroups", cgroups()),
        check("cgroup kill and freeze", kill_and_freeze()),
        check("swap accounting", swap_accounting()),
    ]
}

/// A setting of the kernel, by its path below /proc/sys; nothing where there is none.
fn sysctl(name: &str) -> Option<u64> {
    std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok()
}

/// How many user namespaces there may be, each container having one of its own, and who may make them.
fn user_namespaces(sysctl: &dyn Fn(&str) -> Option<u64>) -> Outcome {
    match sysctl("user/max_user_namespaces") {
        None => Outcome::Missing("the kernel has no user namespaces (CONFIG_USER_NS)".to_owned()),
        Some(0) => Outcome::Missing(
            "user.max_user_namespaces is 0, and each container has one: `sysctl user.max_user_namespaces=65536`"
                .to_owned(),
        ),
        Some(most) if most < SLOTS_MAX as u64 => Outcome::Degraded(format!(
            "user.max_user_namespaces is {most}, so as many containers at most: `sysctl user.max_user_namespaces=65536`"
        )),
        Some(most) => {
            let closed = sysctl("kernel/unprivileged_userns_clone") == Some(0);
            let others = if closed { "; for root alone, which the funclet is" } else { "" };
            Outcome::Ok(format!("up to {most}{others}"))
        }
    }
}

/// The AppArmor profile that confines this process; empty where there is none.
fn label_of_self() -> String {
    let label = std::fs::read_to_string("/proc/self/attr/apparmor/current")
        .or_else(|_| std::fs::read_to_string("/proc/self/attr/current"));
    label.unwrap_or_default().trim_matches(['\0', '\n', ' ']).to_owned()
}

fn apparmor(sysctl: &dyn Fn(&str) -> Option<u64>, label: &str) -> Outcome {
    if label.ends_with("(enforce)") {
        return Outcome::Degraded(format!(
            "the AppArmor profile {label} confines this process and may forbid mounts: start it unconfined (docker run --security-opt apparmor=unconfined)"
        ));
    }
    match sysctl("kernel/apparmor_restrict_unprivileged_userns") {
        Some(1) => Outcome::Ok(
            "user namespaces are restricted for the unprivileged, which the funclet is not".to_owned(),
        ),
        _ => Outcome::Ok("does not confine this process".to_owned()),
    }
}

/// The engine's own user writes to the code store: with these settings it cannot link files of others into it.
fn links(sysctl: &dyn Fn(&str) -> Option<u64>) -> Outcome {
    let open: Vec<&str> = ["protected_hardlinks", "protected_symlinks"]
        .into_iter()
        .filter(|name| sysctl(&format!("fs/{name}")) == Some(0))
        .collect();
    if open.is_empty() {
        return Outcome::Ok("hard and symbolic links to others' files are restricted".to_owned());
    }
    let settings: Vec<String> = open.iter().map(|name| format!("fs.{name}=1")).collect();
    Outcome::Degraded(format!(
        "links to files of other users are not restricted: `sysctl {}`",
        settings.join(" ")
    ))
}

fn privilege() -> Outcome {
    if !rustix::process::geteuid().is_root() {
        return Outcome::Missing("faaster makes containers and must be started as root".to_owned());
    }
    let held = match rustix::thread::capabilities(None) {
        Ok(sets) => sets.effective,
        Err(errno) => return Outcome::Missing(format!("capabilities cannot be read: {errno}")),
    };
    let needed = [
        (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
        (CapabilitySet::SETUID, "CAP_SETUID"),
        (CapabilitySet::SETGID, "CAP_SETGID"),
        (CapabilitySet::KILL, "CAP_KILL"),
        (CapabilitySet::CHOWN, "CAP_CHOWN"),
    ];
    let lacking: Vec<&str> = needed
        .into_iter()
        .filter(|(capability, _)| !held.contains(*capability))
        .map(|(_, name)| name)
        .collect();
    if !lacking.is_empty() {
        return Outcome::Missing(format!(
            "{} is missing; give it to the process (docker run --cap-add)",
            lacking.join(", ")
        ));
    }
    if !held.contains(CapabilitySet::SYS_NICE) {
        return Outcome::Degraded("CAP_SYS_NICE is missing: shards run at nice 0".to_owned());
    }
    Outcome::Ok("root with the capabilities that containers need".to_owned())
}

/// Makes a process in namespaces of its own, as every container is.
fn namespaces() -> Outcome {
    let result = birth_of_nothing();
    let sentence = match result {
        Ok(None) => return Outcome::Ok("user, pid, mount, network, ipc, uts and cgroup namespaces".to_owned()),
        Ok(Some(errno)) => format!("a process in new namespaces cannot set up its network or cgroup namespace: {errno}"),
        Err(Errno::NOSYS) => "clone3 is refused: the kernel is older than 5.5, or a seccomp profile forbids it".to_owned(),
        Err(Errno::PERM) => {
            "new namespaces are refused: needs CAP_SYS_ADMIN, and kernel.unprivileged_userns_clone or a seccomp profile may forbid them".to_owned()
        }
        Err(Errno::NOSPC) => "no more namespaces are allowed: raise user.max_user_namespaces and its neighbours".to_owned(),
        Err(errno) => format!("a process in new namespaces cannot be made: {errno}"),
    };
    Outcome::Missing(sentence)
}

fn birth_of_nothing() -> Result<Option<Errno>, Errno> {
    let (read, report) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let steps = [Step::NewCgroupNamespace, Step::LoopbackUp];
    let birth = Birth { namespaces: Namespaces::Own, cgroup: None, steps: &steps, report: report.as_fd() };
    let child = birth.start()?;
    child.pidfd.reap()?;
    drop(report);
    let mut record = [0; REPORT_BYTES];
    let count = rustix::io::read(&read, &mut record)?;
    let has_failed = count == REPORT_BYTES && record[0] == REPORT_FAILED;
    Ok(has_failed.then(|| Errno::from_raw_os_error(i32::from(u16::from_le_bytes([record[2], record[3]])))))
}

fn mounts() -> Outcome {
    let size = 64 * 1024;
    let made = Tmpfs::new(size, 16, c"0755", 0, MountAttrFlags::empty())
        .and_then(|tmpfs| set_attributes(&tmpfs.mount, MountAttrFlags::MOUNT_ATTR_RDONLY, Depth::One));
    match made {
        Ok(()) if !may_change_root() => Outcome::Missing(
            "pivot_root is refused: a seccomp profile forbids it, as Docker's own does, whatever capabilities there are; start with docs/docker-seccomp.json (docker run --security-opt seccomp=docker-seccomp.json)"
                .to_owned(),
        ),
        Ok(()) => Outcome::Ok("detached mounts with attributes, and roots can be changed".to_owned()),
        Err(Errno::NOSYS) => Outcome::Missing(
            "fsopen or mount_setattr is refused: needs kernel 5.12, and a seccomp profile that allows them"
                .to_owned(),
        ),
        Err(errno) => Outcome::Missing(format!("a tmpfs cannot be made: {errno}; needs CAP_SYS_ADMIN")),
    }
}

/// Nothing is at the empty path, and the kernel says so only to who might change the root.
fn may_change_root() -> bool {
    rustix::process::pivot_root(c"", c"") == Err(Errno::NOENT)
}

fn pidfd() -> Outcome {
    match PidFd::of_self() {
        Ok(_) => Outcome::Ok("processes by descriptor".to_owned()),
        Err(errno) => Outcome::Missing(format!("pidfd_open is refused: {errno}; needs kernel 5.3")),
    }
}

fn seccomp() -> Outcome {
    let actions = c"/proc/sys/kernel/seccomp/actions_avail";
    match (function_filters(), has_file(actions)) {
        (Ok(_), true) => Outcome::Ok("system call filters".to_owned()),
        (Ok(_), false) => {
            Outcome::Missing("the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER)".to_owned())
        }
        (Err(error), _) => Outcome::Missing(error.to_string()),
    }
}

fn has_file(path: &CStr) -> bool {
    rustix::fs::stat(path).is_ok()
}

/// Makes a group and removes it again.
fn cgroups() -> Outcome {
    match in_group(|backend, _| backend.describe()) {
        Ok(text) => Outcome::Ok(text),
        Err(error) => Outcome::Missing(match error.errno() {
            Some(errno) => format!("{error}: {errno}"),
            None => error.to_string(),
        }),
    }
}

/// A name of the form of ours, with an id that no run gets, and that no other probe has: also not one in another pid
/// namespace, whose number may be the same. Nothing is lost if this process is killed meanwhile.
fn probe_group() -> Result<String, Errno> {
    let mut chance = [0; 8];
    rustix::rand::getrandom(&mut chance, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{CGROUP_PREFIX}probe-{:016x}", u64::from_ne_bytes(chance)))
}

/// What is seen of a group that exists for as long as it is looked at.
fn in_group<T>(look: impl FnOnce(&dyn Backend, Group) -> T) -> Result<T, CgroupError> {
    let top =
        probe_group().map_err(|source| CgroupError::Proc { path: "the kernel's random numbers", source })?;
    let backend = cgroup::open(&top)?;
    let seen = backend.create("probe").map(|group| look(backend.as_ref(), group));
    backend.remove("probe")?;
    backend.remove_top()?;
    seen
}

/// What ends, and stops, all processes of a group at once; files of version 2's own, which every group of it has.
fn kill_and_freeze() -> Outcome {
    match in_group(|_, group| group.birth.map(|dir| control_files(&dir))) {
        Ok(Some([true, true])) => Outcome::Ok("cgroup.kill and cgroup.freeze".to_owned()),
        Ok(Some(_)) => Outcome::Degraded(
            "the kernel has no cgroup.kill or no cgroup.freeze: needs kernel 5.14, so containers cannot be frozen"
                .to_owned(),
        ),
        Ok(None) => Outcome::Degraded(
            "cgroup version 2 is not mounted, so containers cannot be frozen: `mount -t cgroup2 none /sys/fs/cgroup/unified`"
                .to_owned(),
        ),
        // Whether there are cgroups at all is another check's.
        Err(error) => Outcome::Degraded(format!("not examined: {error}")),
    }
}

/// Whether a function's memory limit holds for what of it is in swap as well.
fn swap_accounting() -> Outcome {
    match in_group(|_, group| group.limits.swap_limit()) {
        Ok(limit) => of_swap(limit, &std::fs::read_to_string("/proc/swaps").unwrap_or_default()),
        Err(error) => Outcome::Degraded(format!("not examined: {error}")),
    }
}

fn of_swap(limit: SwapLimit, swaps: &str) -> Outcome {
    match (limit, swaps.lines().count() > 1) {
        (SwapLimit::There, _) => Outcome::Ok("a function's memory limit holds for swap as well".to_owned()),
        (SwapLimit::Absent, false) => Outcome::Ok("none, nor is there swap".to_owned()),
        (SwapLimit::Absent, true) => Outcome::Degraded(
            "the kernel does not account swap, so what a function has beyond its memory limit fills this host's: boot with `swapaccount=1`, or switch it off with `swapoff -a`"
                .to_owned(),
        ),
    }
}

fn control_files(group: &OwnedFd) -> [bool; 2] {
    ["cgroup.kill", "cgroup.freeze"]
        .map(|name| rustix::fs::statat(group, name, rustix::fs::AtFlags::empty()).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_are_in_the_way_come_with_their_remedy() {
        let with = |pairs: &'static [(&str, u64)]| {
            move |name: &str| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
        };
        let good = with(&[("user/max_user_namespaces", 65_536), ("fs/protected_hardlinks", 1)]);
        assert!(matches!(user_namespaces(&good), Outcome::Ok(_)));
        assert!(matches!(links(&good), Outcome::Ok(_)));
        assert!(matches!(apparmor(&good, "unconfined"), Outcome::Ok(_)));
        let none = with(&[]);
        assert!(matches!(user_namespaces(&none), Outcome::Missing(_)));
        let bad = with(&[("user/max_user_namespaces", 0), ("fs/protected_symlinks", 0)]);
        assert!(matches!(user_namespaces(&bad), Outcome::Missing(text) if text.contains("sysctl")));
        assert!(
            matches!(links(&bad), Outcome::Degraded(text) if text.ends_with("`sysctl fs.protected_symlinks=1`"))
        );
        let few = with(&[("user/max_user_namespaces", 100)]);
        assert!(matches!(user_namespaces(&few), Outcome::Degraded(_)));
        let confined = apparmor(&good, "docker-default (enforce)");
        assert!(matches!(confined, Outcome::Degraded(text) if text.contains("docker-default")));
    }

    #[test]
    fn two_probes_at_once_make_groups_of_their_own() {
        let names: Vec<String> = (0..100).map(|_| probe_group().unwrap()).collect();
        for name in &names {
            assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{name}");
            // The sweep takes it for nobody's.
            assert_eq!(crate::config::instance_of_cgroup(name), None);
        }
    }

    #[test]
    fn swap_that_is_not_accounted_is_a_lack_only_where_there_is_some() {
        let (none, some) = ("Filename Type Size\n", "Filename Type Size\n/swap file 1048576\n");
        assert!(matches!(of_swap(SwapLimit::There, some), Outcome::Ok(_)));
        assert!(matches!(of_swap(SwapLimit::Absent, none), Outcome::Ok(_)));
        assert!(
            matches!(of_swap(SwapLimit::Absent, some), Outcome::Degraded(text) if text.contains("`swapaccount=1`"))
        );
    }

    #[test]
    fn checks_have_sentences_and_survive_json() {
        let check = Check { name: "x".into(), outcome: Outcome::Missing("do this".into()) };
        let json = serde_json::to_string(&check).unwrap();
        assert_eq!(json, r#"{"name":"x","outcome":"missing","sentence":"do this"}"#);
        assert_eq!(serde_json::from_str::<Check>(&json).unwrap(), check);
    }
}
