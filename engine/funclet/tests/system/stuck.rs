//! Processes that do not die when they are killed. The freezer of cgroup v1 makes one: what it has stopped acts on
//! SIGKILL once it is let go, as a process that waits for a disk does once the disk answers.

use std::path::{Path, PathBuf};

use faaster_protocol::funclet::{Event, Request};

use crate::support::{Engine, Instance, Node, Options, can_run, eventually};

const FREEZER: &str = "/sys/fs/cgroup/freezer";

/// A group that holds its processes; letting go of it lets go of them.
struct Hold(PathBuf);

impl Hold {
    fn of(node: &Node, processes: &[u32]) -> Self {
        let group = Path::new(FREEZER).join(format!("hold-{}", node.config.instance));
        std::fs::create_dir(&group).unwrap();
        let hold = Self(group);
        for process in processes {
            std::fs::write(hold.0.join("cgroup.procs"), process.to_string()).unwrap();
        }
        std::fs::write(hold.0.join("freezer.state"), "FROZEN").unwrap();
        eventually("they are held", || {
            std::fs::read_to_string(hold.0.join("freezer.state")).unwrap().trim() == "FROZEN"
        });
        hold
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        std::fs::write(self.0.join("freezer.state"), "THAWED").ok();
        eventually("the group is gone", || std::fs::remove_dir(&self.0).is_ok());
    }
}

fn can_hold() -> bool {
    let can = Path::new(FREEZER).join("cgroup.procs").exists();
    if !can {
        eprintln!("skipped: there is no freezer of cgroup v1 to hold a process with");
    }
    can_run() && can
}

fn quarantined(engine: &mut Engine) -> u32 {
    engine.send(&Request::Describe);
    engine.expect(|event| match event {
        Event::Node(info) => Some(info.slots_quarantined),
        _ => None,
    })
}

/// A claimed container, and the processes of its function.
fn loaded(node: &mut Node) -> (Instance, Vec<u32>) {
    let code = node.code(1, &[]);
    let mut instance = node.engine.claim(0, code);
    let pid = instance.pid;
    instance.load();
    let is_below = |process: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{pid}"))
    };
    let processes = node.processes().into_iter().filter(is_below).collect();
    (instance, processes)
}

fn serves(node: &mut Node, number: u8) {
    let code = node.code(number, &[]);
    let mut other = node.engine.claim(0, code);
    other.load();
    assert_eq!(other.run("result = 'served'"), "served");
}

#[test]
fn what_does_not_die_is_set_aside_and_comes_back_when_it_has() {
    if !can_hold() {
        return;
    }
    let mut node = Node::start(Options { slots_max: 4, ..Options::default() });
    let (instance, processes) = loaded(&mut node);
    assert_eq!(processes.len(), 1);
    let hold = Hold::of(&node, &processes);
    node.engine.kill(&instance);
    // Nobody waits for it.
    serves(&mut node, 2);
    eventually("the slot is set aside", || quarantined(&mut node.engine) == 1);
    serves(&mut node, 3);
    let (slot, generation) = (instance.slot, instance.generation);
    let is_end = |event: &Event| matches!(*event, Event::Ended { slot: s, generation: g, .. } if (s, g) == (slot, generation));
    assert!(!node.engine.aside.iter().any(is_end), "it has not ended");
    drop(hold);
    node.engine.expect(|event| is_end(event).then_some(()));
    assert_eq!(quarantined(&mut node.engine), 0);
    assert_eq!(node.stop(), 0);
    node.assert_nothing_left();
}

#[test]
fn it_does_not_keep_the_next_funclet_from_its_work() {
    if !can_hold() {
        return;
    }
    let mut node = Node::start(Options { slots_max: 4, ..Options::default() });
    let (_instance, processes) = loaded(&mut node);
    let hold = Hold::of(&node, &processes);
    node.kill_funclet();
    node.restart_funclet();
    serves(&mut node, 2);
    assert!(
        processes.iter().all(|process| Path::new(&format!("/proc/{process}")).exists()),
        "they are still there"
    );
    eventually("the slot is set aside", || quarantined(&mut node.engine) == 1);
    drop(hold);
    eventually("what was held is dead", || {
        node.processes().iter().all(|process| !processes.contains(process))
    });
    serves(&mut node, 3);
    assert_eq!(node.stop(), 0);
    node.assert_nothing_left();
}
