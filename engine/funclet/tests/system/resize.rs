//! Another memory for a container that runs: limits, ledger, refusals.

use std::path::PathBuf;

use faaster_protocol::funclet::{Event, Request, Size, SlotInfo};

use super::claims::{describe, end};
use crate::support::{Engine, Instance, Node, Options, can_run, eventually, python};

const MEBIBYTE: u64 = 1 << 20;

fn resize(engine: &Engine, instance: &Instance, memory_mb: u32) {
    let size = Size { memory_mb, tmp_mb: memory_mb / 2, function_tag: 77 };
    engine.send(&Request::Resize { slot: instance.slot, generation: instance.generation, size });
}

/// The first file of one of these names in the container's cgroups, as a number.
fn limit(node: &Node, instance: &Instance, names: [&str; 2]) -> u64 {
    let group = format!("s{}g{}", instance.slot.0, instance.generation.0);
    let in_groups = |name: &str| -> Option<PathBuf> {
        node.cgroups().into_iter().map(|top| top.join(&group).join(name)).find(|path| path.exists())
    };
    let file = names.into_iter().find_map(in_groups).expect("one of the names is there");
    std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

fn memory(node: &Node, instance: &Instance) -> u64 {
    limit(node, instance, ["memory.max", "memory.limit_in_bytes"])
}

fn claimed(engine: &mut Engine) -> SlotInfo {
    let slots = describe(engine).0;
    slots.into_iter().find(|slot| slot.memory_mb > 0).expect("one is claimed")
}

fn loaded(node: &mut Node, memory_mb: u32) -> Instance {
    let code = node.code(1, &[]);
    let mut claim = node.engine.claim_request(0, code);
    claim.memory_mb = memory_mb;
    let mut instance = node.engine.claim_with(claim);
    instance.load();
    instance
}

const TMP_BYTES: &str = "import os; s = os.statvfs('/tmp'); result = s.f_blocks * s.f_frsize";

#[test]
fn limits_and_ledger_follow_up_and_down_and_the_process_goes_on() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options { runtimes: vec![python()], ..Options::default() });
    let mut instance = loaded(&mut node, 128);
    instance.run("kept = 41");
    let shares = ["cpu.weight", "cpu.shares"];
    let cpu_before = limit(&node, &instance, shares);
    // 200 MiB take two containers of the base size from the ledger, and are a limit of 200.
    for (wanted_mb, ledger_mb) in [(200, 256), (1024, 1024), (300, 384), (128, 128)] {
        resize(&node.engine, &instance, wanted_mb);
        let (_, info) = describe(&mut node.engine);
        assert_eq!(info.memory_used_bytes, ledger_mb * MEBIBYTE, "{wanted_mb}");
        assert_eq!(memory(&node, &instance), u64::from(wanted_mb) * MEBIBYTE);
        assert_eq!(instance.run(TMP_BYTES), u64::from(wanted_mb) / 2 * MEBIBYTE);
        let slot = claimed(&mut node.engine);
        assert_eq!((slot.memory_mb, slot.function_tag), (wanted_mb, 77));
        if wanted_mb == 1024 {
            assert_eq!(limit(&node, &instance, shares) / cpu_before, 8, "more memory is more processor");
        }
    }
    assert_eq!(limit(&node, &instance, shares), cpu_before);
    assert_eq!(instance.run("result = kept + 1"), 42, "it is the same process");
    node.engine.kill(&instance);
    end(&mut node.engine, &instance);
    assert_eq!(describe(&mut node.engine).1.memory_used_bytes, 0, "all of it comes back");
}

#[test]
fn the_kernel_kills_at_the_new_limit_and_the_end_says_so() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options { runtimes: vec![python()], ..Options::default() });
    let mut instance = loaded(&mut node, 512);
    resize(&node.engine, &instance, 160);
    describe(&mut node.engine);
    instance.invoke("block = bytearray(300 * 1024 * 1024); block[::4096] = b'x' * len(block[::4096])");
    let (limit, peak) = node.engine.expect(|event| match event {
        Event::Ended { memory_limit_bytes, memory_peak_bytes, end, .. } => {
            assert_eq!(*end, faaster_protocol::funclet::End::OutOfMemory);
            Some((*memory_limit_bytes, *memory_peak_bytes))
        }
        _ => None,
    });
    assert_eq!(limit, 160 * MEBIBYTE);
    assert!((100 * MEBIBYTE..=160 * MEBIBYTE).contains(&peak), "{peak}");
}

#[test]
fn what_uses_more_keeps_its_limit_and_lives() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options { runtimes: vec![python()], ..Options::default() });
    let mut instance = loaded(&mut node, 512);
    instance.run("block = bytearray(200 * 1024 * 1024); block[::4096] = b'x' * len(block[::4096])");
    eventually("the kernel counts it", || claimed(&mut node.engine).memory_used_bytes > 200 * MEBIBYTE);
    resize(&node.engine, &instance, 128);
    let refused = Event::NotResized { slot: instance.slot, generation: instance.generation };
    node.engine.expect(|event| (*event == refused).then_some(()));
    assert_eq!(memory(&node, &instance), 512 * MEBIBYTE);
    assert_eq!(describe(&mut node.engine).1.memory_used_bytes, 512 * MEBIBYTE);
    assert_eq!(instance.run("result = len(block)"), 200 * MEBIBYTE);
    // A /tmp that holds more than its new size is kept as well.
    instance.run("block = None; open('/tmp/file', 'wb').write(bytes(100 * 1024 * 1024))");
    eventually("the kernel counts it", || claimed(&mut node.engine).memory_used_bytes < 180 * MEBIBYTE);
    resize(&node.engine, &instance, 190);
    node.engine.expect(|event| (*event == refused).then_some(()));
    assert_eq!(memory(&node, &instance), 512 * MEBIBYTE);
    assert_eq!(describe(&mut node.engine).1.memory_used_bytes, 512 * MEBIBYTE, "the ledger as before");
    assert_eq!(instance.run("import os; result = os.path.getsize('/tmp/file')"), 100 * MEBIBYTE);
}

#[test]
fn what_the_node_does_not_have_is_not_given() {
    if !can_run() {
        return;
    }
    let options = Options { memory_bytes: 512 * MEBIBYTE, runtimes: vec![python()], ..Options::default() };
    let mut node = Node::start(options);
    let mut instance = loaded(&mut node, 256);
    let refused = Event::NotResized { slot: instance.slot, generation: instance.generation };
    resize(&node.engine, &instance, 513);
    node.engine.expect(|event| (*event == refused).then_some(()));
    let code = faaster_protocol::funclet::CodeHash([1; 32]);
    let mut claim = node.engine.claim_request(0, code);
    claim.memory_mb = 128;
    let other = node.engine.claim_with(claim);
    resize(&node.engine, &instance, 512);
    node.engine.expect(|event| (*event == refused).then_some(()));
    // Out of the bounds that any engine has: ignored, counted, not answered.
    let ignored = describe(&mut node.engine).1.requests_ignored_total;
    resize(&node.engine, &instance, 1);
    resize(&node.engine, &instance, 10_241);
    let after = describe(&mut node.engine).1;
    assert_eq!((after.requests_ignored_total - ignored, after.memory_used_bytes), (2, 384 * MEBIBYTE));
    assert_eq!(memory(&node, &instance), 256 * MEBIBYTE);
    // What one gives back, a claim that waits gets.
    let mut waiting = node.engine.claim_request(0, code);
    waiting.memory_mb = 256;
    node.engine.send(&Request::Claim(waiting));
    resize(&node.engine, &instance, 128);
    node.engine.expect_claimed(waiting.ticket);
    assert_eq!(instance.run("result = 1"), 1);
    node.engine.kill(&other);
    assert_eq!(node.stop(), 0);
    node.assert_nothing_left();
}
