//! Memory of frozen containers, on hosts that have somewhere to put it.

use faaster_protocol::funclet::{Event, Request, SlotInfo, SlotState};

use crate::support::{Engine, Node, Options, can_run, eventually};

const HELD_BYTES: u64 = 48 << 20;

/// The only claimed container.
fn look(engine: &mut Engine) -> SlotInfo {
    engine.send(&Request::Describe);
    engine.expect(|event| matches!(event, Event::Node(_)).then_some(()));
    let found = engine.aside.iter().find_map(|event| match event {
        Event::Slot(info) if info.function_tag != 0 => Some(*info),
        _ => None,
    });
    engine.aside.retain(|event| !matches!(event, Event::Slot(_) | Event::Pool(_)));
    found.expect("one container is claimed")
}

/// Swap, and cgroup v2's way to use it; says what lacks.
fn can_reclaim(node: &Node) -> bool {
    let swap = std::fs::read_to_string("/proc/meminfo").unwrap();
    let has_swap = !swap.lines().any(|line| line.starts_with("SwapTotal:") && line.contains(" 0 kB"));
    let has_file = node.cgroups().iter().any(|top| top.join("memory.reclaim").exists());
    if !has_swap || !has_file {
        eprintln!("in part: swap {has_swap}, memory.reclaim {has_file} (tests/vm/run has both)");
    }
    has_swap && has_file
}

#[test]
fn what_a_frozen_container_had_in_memory_goes_to_swap_and_comes_back() {
    if !can_run() {
        return;
    }
    for reclaim_frozen in [true, false] {
        let mut node = Node::start(Options { reclaim_frozen, ..Options::default() });
        let code = node.code(1, &[]);
        let mut instance = node.engine.claim(0, code);
        instance.load();
        let fill = format!("held = bytes(range(256)) * {}; result = len(held)", HELD_BYTES / 256);
        assert_eq!(instance.run(&fill), HELD_BYTES);
        let before = look(&mut node.engine).memory_used_bytes;
        assert!(before > HELD_BYTES, "{before}");
        let (slot, generation) = (instance.slot, instance.generation);
        node.engine.send(&Request::Freeze { slot, generation });
        node.engine.expect(|event| matches!(event, Event::Frozen { .. }).then_some(()));
        if reclaim_frozen && can_reclaim(&node) {
            eventually("most of it is gone", || look(&mut node.engine).memory_used_bytes < before / 4);
            let after = look(&mut node.engine).memory_used_bytes;
            eprintln!("frozen: {} KiB before, {} KiB after", before >> 10, after >> 10);
        } else {
            assert!(look(&mut node.engine).memory_used_bytes > HELD_BYTES);
        }
        assert_eq!(look(&mut node.engine).state, SlotState::Frozen);
        node.engine.send(&Request::Thaw { slot, generation });
        node.engine.expect(|event| matches!(event, Event::Thawed { .. }).then_some(()));
        let check = format!("result = held == bytes(range(256)) * {}", HELD_BYTES / 256);
        assert_eq!(instance.run(&check), true);
        // While it runs it does not swap.
        let group = format!("s{}g{}/memory.swap.max", slot.0, generation.0);
        for top in node.cgroups() {
            if let Ok(limit) = std::fs::read_to_string(top.join(&group)) {
                eventually("it may not swap any more", || {
                    limit.trim() == "0" || std::fs::read_to_string(top.join(&group)).unwrap().trim() == "0"
                });
            }
        }
        assert_eq!(node.stop(), 0);
        node.assert_nothing_left();
    }
}
