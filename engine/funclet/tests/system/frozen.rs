//! Containers whose processes are stopped for a while.

use faaster_protocol::funclet::{CodeHash, Event, NodeInfo, Request, SlotState};

use crate::support::{Engine, Instance, Node, Options, can_run, eventually};

fn set_frozen(engine: &mut Engine, instance: &Instance, frozen: bool) {
    let (slot, generation) = (instance.slot, instance.generation);
    let ask = if frozen { Request::Freeze { slot, generation } } else { Request::Thaw { slot, generation } };
    let told = if frozen { Event::Frozen { slot, generation } } else { Event::Thawed { slot, generation } };
    engine.send(&ask);
    engine.expect(|event| (*event == told).then_some(()));
}

/// State of the only claimed container, and the processor time that it has used.
fn look(engine: &mut Engine) -> (SlotState, u64) {
    engine.send(&Request::Describe);
    let _: NodeInfo = engine.expect(|event| match event {
        Event::Node(node) => Some(*node),
        _ => None,
    });
    let found = engine.aside.iter().find_map(|event| match event {
        Event::Slot(info) if info.function_tag != 0 => Some((info.state, info.cpu_used_us)),
        _ => None,
    });
    engine.aside.retain(|event| !matches!(event, Event::Slot(_)));
    found.expect("one container is claimed")
}

/// A container in which a thread keeps a core busy.
fn busy(node: &mut Node, code: CodeHash) -> Instance {
    let mut instance = node.engine.claim(0, code);
    instance.load();
    let spin = "import threading\ndef spin():\n    while True: pass\n\
                threading.Thread(target=spin, daemon=True).start()\nresult = 1";
    assert_eq!(instance.run(spin), 1);
    instance
}

#[test]
fn a_frozen_container_uses_no_time_and_goes_on_afterwards() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let code = node.code(1, &[]);
    let mut instance = busy(&mut node, code);
    let before = look(&mut node.engine).1;
    eventually("its thread runs", || look(&mut node.engine).1 > before);
    set_frozen(&mut node.engine, &instance, true);
    assert_eq!(look(&mut node.engine).0, SlotState::Frozen);
    // A thread stops at its next way back from the kernel, which a busy one takes with the timer.
    eventually("its thread stops", || {
        let used: Vec<u64> = (0..20).map(|_| look(&mut node.engine).1).collect();
        used.first() == used.last()
    });
    // Asked again, it says the same.
    set_frozen(&mut node.engine, &instance, true);
    let used = look(&mut node.engine).1;
    set_frozen(&mut node.engine, &instance, false);
    assert_eq!(look(&mut node.engine).0, SlotState::Warm);
    eventually("its thread goes on", || look(&mut node.engine).1 > used);
    assert_eq!(instance.run("result = 2"), 2);
    assert_eq!(node.stop(), 0);
    node.assert_nothing_left();
}

#[test]
fn what_is_frozen_can_be_killed() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let code = node.code(1, &[]);
    let instance = busy(&mut node, code);
    set_frozen(&mut node.engine, &instance, true);
    node.engine.send(&Request::Kill { slot: instance.slot, generation: instance.generation });
    node.engine.expect(|event| matches!(event, Event::Ended { .. }).then_some(()));
    // Nothing that is not there is frozen, and nobody is told anything of it.
    let (slot, generation) = (instance.slot, instance.generation);
    node.engine.send(&Request::Freeze { slot, generation });
    let other = busy(&mut node, code);
    set_frozen(&mut node.engine, &other, true);
    assert!(!node.engine.aside.contains(&Event::Frozen { slot, generation }));
    assert_eq!(node.stop(), 0);
    node.assert_nothing_left();
}

#[test]
fn an_orderly_stop_ends_frozen_containers() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let code = node.code(1, &[]);
    let instance = busy(&mut node, code);
    set_frozen(&mut node.engine, &instance, true);
    assert_eq!(node.stop(), 0);
    node.assert_nothing_left();
}
