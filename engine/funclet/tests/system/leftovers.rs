//! Ends of funclet and supervisor, orderly and not: nothing may be left, and others may not be touched.

use std::path::PathBuf;

use faaster_funclet::{Outcome, SweepConfig, sweep};

use crate::support::{Instance, Node, Options, can_run, eventually};

fn busy_node() -> (Node, Vec<Instance>) {
    let mut node = Node::start(Options { pool: 2, ..Options::default() });
    let code = node.code(1, &[]);
    let mut instances: Vec<Instance> = (0..2).map(|_| node.engine.claim(0, code)).collect();
    for instance in &mut instances {
        instance.load();
        instance.run("import subprocess; p = subprocess.Popen(['/bin/sleep', '1000'])");
    }
    (node, instances)
}

#[test]
fn an_orderly_stop_leaves_nothing() {
    if !can_run() {
        return;
    }
    let (mut node, _instances) = busy_node();
    assert!(!node.processes().is_empty() && !node.cgroups().is_empty());
    assert_eq!(node.stop(), 0);
    node.assert_nothing_left();
}

#[test]
fn a_lost_supervisor_leaves_nothing() {
    if !can_run() {
        return;
    }
    let (mut node, _instances) = busy_node();
    assert_eq!(node.lose_supervisor(), 0);
    node.assert_nothing_left();
}

#[test]
fn a_killed_funclet_takes_its_containers_along_and_the_sweep_removes_the_rest() {
    if !can_run() {
        return;
    }
    let (mut node, mut instances) = busy_node();
    let (mut other, mut others) = busy_node();
    node.kill_funclet();
    eventually("all containers die", || node.processes().is_empty());
    assert!(instances[0].receive().is_none());
    assert!(!node.cgroups().is_empty(), "somebody has to remove the cgroups");

    let config = SweepConfig { run_root: node.run_root() };
    let report = sweep(&config).unwrap();
    assert!(report.instances.is_empty(), "its supervisor holds the lock: {report:?}");
    assert!(!node.cgroups().is_empty());

    node.release_lock();
    let report = sweep(&config).unwrap();
    assert_eq!(report.instances, [node.config.instance.as_str()]);
    assert!(report.left.is_empty() && report.cgroups > 0, "{report:?}");
    node.assert_nothing_left();
    assert!(!node.config.run_dir.exists());
    assert!(sweep(&config).unwrap().instances.is_empty());

    assert_eq!(others[0].run("result = 'alive'"), "alive", "another run is not touched");
    assert_eq!(other.stop(), 0);
    other.assert_nothing_left();
}

/// The `cgroup.procs` of a top group, or of one below it: in v2 a group that gives controllers away holds no process.
fn group_for_processes(top: PathBuf) -> String {
    let given = std::fs::read_to_string(top.join("cgroup.subtree_control")).unwrap_or_default();
    let group = if given.trim().is_empty() { top } else { top.join("forks") };
    std::fs::create_dir_all(&group).unwrap();
    group.join("cgroup.procs").display().to_string()
}

#[test]
fn the_sweep_is_faster_than_what_forks() {
    if !can_run() {
        return;
    }
    let (mut node, _instances) = busy_node();
    node.kill_funclet();
    eventually("all containers die", || node.processes().is_empty());
    // Into each hierarchy's top group; then two processes that only fork, each child living for a moment.
    let places: Vec<String> = node.cgroups().into_iter().map(group_for_processes).collect();
    let joins: String = places.iter().map(|procs| format!("echo $$ > {procs} || exit 1; ")).collect();
    let script = format!("{joins} for n in 1 2; do while :; do sleep 0.3 & done & done; wait");
    let mut forks = std::process::Command::new("/bin/sh").args(["-c", &script]).spawn().unwrap();
    let in_groups = || {
        let lines = |procs: &String| std::fs::read_to_string(procs).unwrap_or_default().lines().count();
        places.iter().map(lines).max().unwrap_or(0)
    };
    eventually("it forks", || in_groups() > 50);
    node.release_lock();
    let report = sweep(&SweepConfig { run_root: node.run_root() }).unwrap();
    assert!(report.left.is_empty() && report.processes > 0, "{report:?}");
    assert!(!forks.wait().unwrap().success(), "killed");
    node.assert_nothing_left();
}

#[test]
fn a_restarted_funclet_clears_up_after_itself() {
    if !can_run() {
        return;
    }
    let (mut node, _instances) = busy_node();
    node.kill_funclet();
    assert!(!node.cgroups().is_empty());
    node.restart_funclet();
    let code = node.code(2, &[]);
    let mut instance = node.engine.claim(0, code);
    instance.load();
    assert_eq!(instance.run("result = 'again'"), "again");
    assert_eq!(node.stop(), 0);
    node.assert_nothing_left();
}

#[test]
fn a_funclet_killed_at_any_moment_leaves_no_process() {
    if !can_run() {
        return;
    }
    // In the middle of filling a pool: some containers are being made, some boot, some are cold.
    for round in 0..5u32 {
        let mut node = Node::start(Options { pool: 3, ..Options::default() });
        eventually("some are on their way", || node.processes().len() > round as usize);
        node.kill_funclet();
        node.release_lock();
        eventually("all containers die", || node.processes().is_empty());
        let report = sweep(&SweepConfig { run_root: node.run_root() }).unwrap();
        assert!(report.left.is_empty(), "{report:?}");
        node.assert_nothing_left();
    }
}

#[test]
fn this_machine_passes_its_own_probe() {
    if !can_run() {
        return;
    }
    for check in faaster_funclet::probe() {
        assert!(!matches!(check.outcome, Outcome::Missing(_)), "{check:?}");
    }
    let folders = ["/sys/fs/cgroup", "/sys/fs/cgroup/memory"].into_iter();
    let left = folders.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let names: Vec<String> = left.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    assert!(!names.iter().any(|name| name.contains("faaster-probe")), "{names:?}");
}
