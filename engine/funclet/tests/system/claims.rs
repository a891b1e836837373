//! Claims: bounds, refusals, waiting, placement, what the engine is told.

use faaster_function::RuntimeSpec;
use faaster_protocol::funclet::{
    ClaimSource, CodeHash, End, Event, Generation, NodeInfo, Placement, Refusal, Request, SlotId, SlotInfo,
    SlotState, Ticket,
};
use serde_json::json;

use crate::support::{Engine, Instance, Node, Options, can_run, eventually, now_ns, provided, python};

pub(crate) fn refusal(engine: &mut Engine, wanted: Ticket) -> Refusal {
    engine.expect(|event| match event {
        Event::Refused { ticket, refusal, .. } if *ticket == wanted => Some(*refusal),
        _ => None,
    })
}

pub(crate) fn end(engine: &mut Engine, instance: &Instance) -> End {
    let wanted = (instance.slot, instance.generation);
    engine.expect(|event| match event {
        Event::Ended { slot, generation, end, .. } if (*slot, *generation) == wanted => Some(*end),
        _ => None,
    })
}

pub(crate) fn describe(engine: &mut Engine) -> (Vec<SlotInfo>, NodeInfo) {
    engine.send(&Request::Describe);
    let node = engine.expect(|event| match event {
        Event::Node(node) => Some(*node),
        _ => None,
    });
    let is_slot = |event: &Event| matches!(event, Event::Slot(_) | Event::Pool(_));
    let slots = engine.aside.iter().filter_map(|event| match event {
        Event::Slot(info) => Some(*info),
        _ => None,
    });
    let slots = slots.collect();
    engine.aside.retain(|event| !is_slot(event));
    (slots, node)
}

pub(crate) fn wait_for_cold(engine: &mut Engine, count: u32) {
    eventually("the pool is full", || describe(engine).1.slots_cold == count);
}

/// What the files of this name say in a container's cgroups.
fn in_cgroups(node: &Node, slot: SlotId, generation: Generation, file: &str) -> Vec<String> {
    let group = format!("s{}g{}", slot.0, generation.0);
    let files = node.cgroups().into_iter().map(|top| top.join(&group).join(file));
    files.filter_map(|file| std::fs::read_to_string(file).ok()).map(|text| text.trim().to_owned()).collect()
}

#[test]
fn a_claimed_container_competes_for_the_processors_with_the_weight_of_its_memory() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options { pool: 1, runtimes: vec![python()], ..Options::default() });
    let code = node.code(1, &[]);
    let mut claim = node.engine.claim_request(0, code);
    claim.memory_mb = 256;
    let instance = node.engine.claim_with(claim);
    assert_eq!(in_cgroups(&node, instance.slot, instance.generation, "cpu.idle"), ["0"]);
    let weights: Vec<String> = ["cpu.shares", "cpu.weight"]
        .into_iter()
        .flat_map(|file| in_cgroups(&node, instance.slot, instance.generation, file))
        .collect();
    assert!(weights == ["256"] || weights == ["25"], "of 256 MB: {weights:?}");
}

#[test]
fn processor_time_is_counted_in_the_core_where_there_is_one() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options { pool: 1, runtimes: vec![python()], ..Options::default() });
    let code = node.code(1, &[]);
    let instance = node.engine.claim(0, code);
    let of_core = in_cgroups(&node, instance.slot, instance.generation, "cgroup.freeze");
    let accounting = in_cgroups(&node, instance.slot, instance.generation, "cpuacct.usage");
    // "cpu,cpuacct" is one hierarchy on some hosts, and then costs nothing more.
    let has_cpu_beside =
        in_cgroups(&node, instance.slot, instance.generation, "cpu.shares").len() == accounting.len();
    assert!(of_core.is_empty() || accounting.is_empty() || has_cpu_beside, "{accounting:?}");
    eventually("it has used the processor", || {
        describe(&mut node.engine).0.iter().any(|slot| slot.slot == instance.slot && slot.cpu_used_us > 0)
    });
}

#[test]
fn boots_stand_aside_for_claims_unless_a_claim_waits_for_them() {
    if !can_run() {
        return;
    }
    // It does not come up, so that there is time to look.
    let argv = ["/bin/sleep", "60"].map(str::to_owned).to_vec();
    let slow = RuntimeSpec { name: "slow".to_owned(), argv, ..python() };
    let mut node = Node::start(Options { pool: 1, runtimes: vec![python(), slow], ..Options::default() });
    let code = node.code(1, &[]);
    let mut booting = None;
    let mut stood_aside = |node: &mut Node| {
        let instance = node.engine.claim(0, code);
        node.engine.kill(&instance);
        let slots = describe(&mut node.engine).0;
        booting = slots.into_iter().find(|slot| slot.runtime.0 == 1 && slot.state == SlotState::Creating);
        booting.is_some_and(|slot| in_cgroups(node, slot.slot, slot.generation, "cgroup.freeze") == ["1"])
    };
    // More than once, for it is over after some milliseconds.
    eventually("a boot stands aside for a claim", || stood_aside(&mut node));
    let slot = booting.expect("one was looked at");
    eventually("it competes again", || {
        in_cgroups(&node, slot.slot, slot.generation, "cgroup.freeze") == ["0"]
    });
    eventually("a boot stands aside for a claim", || {
        let instance = node.engine.claim(0, code);
        node.engine.kill(&instance);
        in_cgroups(&node, slot.slot, slot.generation, "cgroup.freeze") != ["0"]
    });
    let claim = node.engine.claim_request(1, code);
    node.engine.send(&Request::Claim(claim));
    describe(&mut node.engine);
    let stopped = in_cgroups(&node, slot.slot, slot.generation, "cgroup.freeze");
    assert_ne!(stopped, ["1"], "a claim waits for it");
}

#[test]
fn what_stood_aside_while_it_booted_serves_claims() {
    if !can_run() {
        return;
    }
    let options = Options {
        pool: 1,
        runtimes: vec![python(), RuntimeSpec { name: "other".to_owned(), ..python() }],
        ..Options::default()
    };
    let mut node = Node::start(options);
    let code = node.code(1, &[]);
    for _ in 0..20 {
        wait_for_cold(&mut node.engine, 2);
        // The second one's successor boots while claims of the first come.
        let second = node.engine.claim(1, code);
        let first = node.engine.claim(0, code);
        wait_for_cold(&mut node.engine, 2);
        for instance in [second, first] {
            assert_eq!(in_cgroups(&node, instance.slot, instance.generation, "cgroup.freeze"), ["0"]);
            node.engine.kill(&instance);
            assert_eq!(end(&mut node.engine, &instance), End::Killed);
        }
    }
    let slots = describe(&mut node.engine).0;
    eventually("nothing is left stopped", || {
        slots.iter().all(|slot| in_cgroups(&node, slot.slot, slot.generation, "cgroup.freeze") != ["1"])
    });
}

#[test]
fn the_pool_serves_first_and_is_refilled() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options { pool: 2, ..Options::default() });
    let code = node.code(1, &[]);
    wait_for_cold(&mut node.engine, 4);
    let first = node.engine.claim(0, code);
    let second = node.engine.claim(0, code);
    assert_eq!((first.source, second.source), (ClaimSource::Pool, ClaimSource::Pool));
    assert_ne!(first.slot, second.slot);
    wait_for_cold(&mut node.engine, 4);
    let (slots, info) = describe(&mut node.engine);
    let claimed: Vec<&SlotInfo> = slots.iter().filter(|slot| slot.state == SlotState::Warm).collect();
    assert_eq!((claimed.len(), info.slots_claimed, info.slots_total), (2, 2, 8));
    assert!(
        claimed.iter().all(|slot| slot.memory_mb == 256 && slot.function_tag == 2 && slot.account_tag == 1)
    );
    assert!(
        claimed
            .iter()
            .all(|slot| slot.memory_used_bytes > 0 && slot.pid > 1 && slot.claimed_ns > slot.created_ns)
    );
    assert_eq!(info.memory_used_bytes, 512 << 20);
    assert_eq!((info.claims_total, info.claims_refused_total, info.memory_marked_bytes), (2, 0, 0));
}

#[test]
fn an_empty_pool_makes_a_container_for_the_claim() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options { pool: 0, ..Options::default() });
    let code = node.code(1, &[]);
    let claims: Vec<_> = (0..3).map(|_| node.engine.claim_request(0, code)).collect();
    claims.iter().for_each(|claim| node.engine.send(&Request::Claim(*claim)));
    for claim in claims {
        let mut instance = node.engine.expect_claimed(claim.ticket);
        assert_eq!(instance.source, ClaimSource::Fresh);
        instance.load();
        assert_eq!(instance.run("result = 1"), 1);
    }
}

#[test]
fn claims_out_of_bounds_are_refused_by_name() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let code = node.code(1, &[]);
    let mut check = |change: &dyn Fn(&mut faaster_protocol::funclet::Claim), expected| {
        let mut claim = node.engine.claim_request(0, code);
        change(&mut claim);
        node.engine.send(&Request::Claim(claim));
        assert_eq!(refusal(&mut node.engine, claim.ticket), expected, "{claim:?}");
    };
    check(&|claim| claim.memory_mb = 1, Refusal::Invalid);
    check(&|claim| claim.runtime.0 = 9, Refusal::Invalid);
    check(&|claim| claim.pids_max = 0, Refusal::Invalid);
    check(&|claim| claim.placement = Placement::Core(900), Refusal::Invalid);
    check(&|claim| claim.deadline_ns = now_ns() - 1, Refusal::Deadline);
    check(&|claim| claim.memory_mb = 10_240, Refusal::Memory);
    check(&|claim| claim.code = CodeHash([9; 32]), Refusal::Code);
}

#[test]
fn foreign_code_costs_no_container() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options { runtimes: vec![python()], ..Options::default() });
    let foreign = node.code(2, &[("a", "b")]);
    std::os::unix::fs::chown(node.config.code_dir.join(foreign.to_string()), Some(0), Some(0)).unwrap();
    wait_for_cold(&mut node.engine, 1);
    let claim = node.engine.claim_request(0, foreign);
    node.engine.send(&Request::Claim(claim));
    assert_eq!(refusal(&mut node.engine, claim.ticket), Refusal::Code);
    let (slots, info) = describe(&mut node.engine);
    assert_eq!((slots.len(), slots[0].state, info.memory_marked_bytes), (1, SlotState::Cold, 0));
}

#[test]
fn short_memory_makes_claims_wait_until_some_returns() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options { memory_bytes: 512 << 20, ..Options::default() });
    let code = node.code(1, &[]);
    let first = node.engine.claim(0, code);
    let _second = node.engine.claim(0, code);
    let third = node.engine.claim_request(0, code);
    node.engine.send(&Request::Claim(third));
    let wanted = node.engine.expect(|event| match event {
        Event::Shortage { memory_mb } => Some(*memory_mb),
        _ => None,
    });
    assert_eq!(wanted, 256);
    let mut late = node.engine.claim_request(0, code);
    late.deadline_ns = now_ns() + 50_000_000;
    node.engine.send(&Request::Claim(late));
    assert_eq!(refusal(&mut node.engine, late.ticket), Refusal::Memory, "at its deadline");
    let cancelled = node.engine.claim_request(0, code);
    node.engine.send(&Request::Claim(cancelled));
    node.engine.send(&Request::CancelClaim { ticket: cancelled.ticket });
    assert_eq!(refusal(&mut node.engine, cancelled.ticket), Refusal::Cancelled);
    node.engine.kill(&first);
    let mut served = node.engine.expect_claimed(third.ticket);
    served.load();
    assert_eq!(served.run("result = 'late but well'"), "late but well");
    assert_eq!(end(&mut node.engine, &first), End::Killed);
    assert_eq!(describe(&mut node.engine).1.memory_used_bytes, 512 << 20);
}

#[test]
fn a_full_node_keeps_room_for_its_pool() {
    if !can_run() {
        return;
    }
    let memory_bytes = 16 * (256 << 20);
    let options =
        Options { pool: 2, memory_bytes, slots_max: 20, runtimes: vec![python()], ..Options::default() };
    let mut node = Node::start(options);
    let code = node.code(1, &[]);
    let held: Vec<Instance> = (0..16).map(|_| node.engine.claim(0, code)).collect();
    // Nobody waits; and it is said again, for what was busy may be idle by then.
    for _ in 0..2 {
        let wanted_mb = node.engine.expect(|event| match event {
            Event::Shortage { memory_mb } => Some(*memory_mb),
            _ => None,
        });
        assert_eq!(wanted_mb, 256);
    }
    // Of 256 MiB, which is what two of the base size need.
    node.engine.kill(&held[0]);
    assert_eq!(end(&mut node.engine, &held[0]), End::Killed);
    wait_for_cold(&mut node.engine, 2);
    let served = node.engine.claim(0, code);
    assert_eq!(served.source, ClaimSource::Pool);
}

#[test]
fn a_claim_waits_for_a_slot_and_a_foreign_pool_makes_room() {
    if !can_run() {
        return;
    }
    let options =
        Options { slots_max: 2, pool: 0, runtimes: vec![python(), provided()], ..Options::default() };
    let mut node = Node::start(options);
    let code = node.code(1, &[]);
    let first = node.engine.claim(0, code);
    let _second = node.engine.claim(0, code);
    let third = node.engine.claim_request(0, code);
    node.engine.send(&Request::Claim(third));
    // The engine is asked to end idle instances; it has none, so the claim waits until one ends by itself.
    let wanted_mb = node.engine.expect(|event| match event {
        Event::Shortage { memory_mb } => Some(*memory_mb),
        _ => None,
    });
    assert!(wanted_mb > 0);
    node.engine.kill(&first);
    assert_eq!(end(&mut node.engine, &first), End::Killed);
    node.engine.expect_claimed(third.ticket);

    let mut node = Node::start(Options {
        slots_max: 2,
        pool: 2,
        runtimes: vec![python(), provided()],
        ..Options::default()
    });
    let code = node.code(1, &[]);
    wait_for_cold(&mut node.engine, 2);
    for runtime in [0, 0, 1] {
        let instance = node.engine.claim(runtime, code);
        node.engine.kill(&instance);
        assert_eq!(end(&mut node.engine, &instance), End::Killed);
    }
}

#[test]
fn a_claim_gets_the_slot_of_a_container_that_was_being_made_for_another_runtime() {
    if !can_run() {
        return;
    }
    // The only slot is taken by a container that boots, so there is nothing to end yet when the claim comes.
    for _ in 0..3 {
        let mut node = Node::start(Options { slots_max: 1, ..Options::default() });
        let code = node.code(1, &[]);
        eventually("a container is on its way", || !node.processes().is_empty());
        node.engine.claim(1, code);
        assert_eq!(node.stop(), 0);
        node.assert_nothing_left();
    }
}

#[test]
fn placement_covers_every_thread() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let code = node.code(1, &[]);
    let core = *node.config.all_cores.last().unwrap();
    let mut claim = node.engine.claim_request(0, code);
    claim.placement = Placement::Core(core);
    let mut instance = node.engine.claim_with(claim);
    instance.load();
    let start_thread = "
import os, threading
gate = threading.Event()
threading.Thread(target=gate.wait, daemon=True).start()";
    instance.run(start_thread);
    let cores = "result = sorted({tuple(sorted(os.sched_getaffinity(int(t)))) for t in os.listdir('/proc/self/task')})";
    assert_eq!(instance.run(cores), json!([[core]]));
    let all = json!([node.config.all_cores]);
    let (slot, generation) = (instance.slot, instance.generation);
    node.engine.send(&Request::Place { slot, generation, placement: Placement::Free });
    eventually("all threads may run everywhere", || instance.run(cores) == all);
}

#[test]
fn an_engine_that_breaks_the_contract_loses_its_channel_only() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let code = node.code(1, &[]);
    let bad = node.another_engine();
    faaster_sys::fdpass::send_with_fds(&bad.socket, &[0xee; 192], &[]).unwrap();
    let mut byte = [0; 1];
    assert_eq!(rustix::net::recv(&bad.socket, &mut byte, rustix::net::RecvFlags::empty()).unwrap().0, 0);
    let mut instance = node.engine.claim(0, code);
    instance.load();
    assert_eq!(instance.run("result = 1"), 1);
}

#[test]
fn a_runtime_that_does_not_boot_is_named_and_not_tried_for_ever() {
    if !can_run() {
        return;
    }
    let mut broken = python();
    broken.env.insert("BREAK".into(), "1".into());
    let mut missing = python();
    missing.argv[0] = "/usr/bin/no-such-interpreter".into();
    let mut garbage = python();
    garbage.argv = ["/bin/sh", "-c", "head -c 100 /dev/zero >&3; sleep 60"].map(str::to_owned).into();
    let runtimes = vec![broken, missing, garbage, python()];
    let mut node = Node::start(Options { pool: 0, runtimes, ..Options::default() });
    let code = node.code(1, &[]);
    // Twice: the second time the runtime pauses, and the third time it is not even tried.
    for runtime in [0, 1, 2, 0, 0] {
        let claim = node.engine.claim_request(runtime, code);
        node.engine.send(&Request::Claim(claim));
        assert_eq!(refusal(&mut node.engine, claim.ticket), Refusal::Boot, "runtime {runtime}");
    }
    node.engine.claim(3, code);
}

#[test]
fn a_runtime_that_says_nothing_is_given_up() {
    if !can_run() {
        return;
    }
    let mut silent = python();
    silent.argv = ["/bin/sleep", "1000"].map(str::to_owned).into();
    let boot_timeout = std::time::Duration::from_secs(1);
    let mut node =
        Node::start(Options { pool: 0, boot_timeout, runtimes: vec![silent], ..Options::default() });
    let code = node.code(1, &[]);
    let claim = node.engine.claim_request(0, code);
    node.engine.send(&Request::Claim(claim));
    assert_eq!(refusal(&mut node.engine, claim.ticket), Refusal::Boot);
    assert_eq!(node.stop(), 0);
    node.assert_nothing_left();
}
