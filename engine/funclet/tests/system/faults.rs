//! A funclet that ends while a container's process is at a step of its birth, for every step that there is.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::{Node, Options, Proc, can_run, eventually};

/// What the process writes when it is at the step.
const HERE: &str = "here";
/// Steps at which it does not have the file to write that to: it has a descriptor table of its own then, and its plan
/// with the other descriptors is to come.
const NOT_HELD: [&str; 2] = ["placing descriptors", "executing its program"];

fn note(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("birth-note")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Ends the funclet while a birth is at one step; gives the names of all steps.
fn end_at(node: &mut Node, position: usize) -> Vec<String> {
    let folder = node.config.fault_points.clone().unwrap();
    std::fs::remove_file(folder.join("birth-note")).ok();
    std::fs::write(folder.join("birth-step"), position.to_string()).unwrap();
    node.restart_funclet();
    eventually("a birth is at its step", || note(&folder).last().is_some_and(|line| line == HERE));
    node.kill_funclet();
    eventually("no process outlives the funclet", || node.processes().is_empty());
    let mut steps = note(&folder);
    steps.pop();
    steps
}

fn every_step(proc: Proc) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let options = Options { proc, fault_points: Some(folder.path().to_owned()), ..Options::default() };
    let mut node = Node::start(options);
    node.kill_funclet();
    let steps = end_at(&mut node, 0);
    let held = |position: &usize| !NOT_HELD.contains(&steps[*position].as_str());
    let positions: Vec<usize> = (0..steps.len()).filter(held).collect();
    assert_eq!(positions.len(), steps.len() - NOT_HELD.len());
    for position in positions.into_iter().skip(1) {
        assert_eq!(end_at(&mut node, position), steps, "the steps are the same each time");
    }
    println!("{} steps, /proc {proc:?}", steps.len());
    // What the last one left, too, is gone once a funclet is there again, and it serves.
    node.restart_funclet();
    let code = node.code(1, &[]);
    let mut instance = node.engine.claim(0, code);
    instance.load();
    assert_eq!(instance.run("result = 'again'"), "again");
    assert_eq!(node.stop(), 0);
    node.assert_nothing_left();
}

#[test]
fn a_funclet_killed_at_any_step_of_a_birth_leaves_nothing() {
    if can_run() {
        every_step(Proc::Whole);
    }
}

#[test]
fn nor_where_a_helper_mounts_proc() {
    if can_run() {
        every_step(Proc::Masked);
    }
}
