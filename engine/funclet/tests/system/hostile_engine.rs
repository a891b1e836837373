//! An engine that has been taken over asks for what it must not get: every time it is refused or ignored, it is
//! counted, the funclet goes on, and the instances of others never notice.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use faaster_protocol::funclet::{
    Claim, CodeHash, End, Event, Generation, MESSAGE_BYTES, Placement, Refusal, Request, RuntimeIndex, Size,
    SlotId, SlotState, Ticket,
};
use faaster_sys::fdpass;
use rustix::fs::RenameFlags;
use rustix::net::RecvFlags;

use super::claims::{describe, end, refusal, wait_for_cold};
use crate::support::{Engine, Instance, Node, Options, can_run, eventually, python};

/// An instance that somebody else has, to be looked at again at the end.
fn bystander(node: &mut Node) -> (Instance, CodeHash) {
    let code = node.code(1, &[("hello.txt", "from the package")]);
    let mut instance = node.engine.claim(0, code);
    instance.load();
    (instance, code)
}

/// Whatever was tried: it lives, and so does the funclet.
fn assert_well(node: &mut Node, bystander: &mut Instance, code: CodeHash) {
    assert_eq!(bystander.run("result = 'untouched'"), "untouched");
    let mut fresh = node.engine.claim(0, code);
    fresh.load();
    assert_eq!(fresh.run("result = open('/var/task/hello.txt').read()"), "from the package");
}

fn ignored(engine: &mut Engine) -> u64 {
    describe(engine).1.requests_ignored_total
}

#[test]
fn claims_with_numbers_out_of_bounds_are_refused_and_counted() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let (mut instance, code) = bystander(&mut node);
    let mut hostile = node.another_engine();
    let good = hostile.claim_request(0, code);
    let mut wrong: Vec<Claim> = Vec::new();
    wrong.extend([0, 1, 127, 10_241, u32::MAX].map(|memory_mb| Claim { memory_mb, ..good }));
    wrong.extend([0, 1025, u32::MAX].map(|pids_max| Claim { pids_max, ..good }));
    wrong.extend([0, 10_241, u32::MAX].map(|tmp_mb| Claim { tmp_mb, ..good }));
    wrong.extend([2, 64, u16::MAX].map(|runtime| Claim { runtime: RuntimeIndex(runtime), ..good }));
    wrong.extend([900, u16::MAX - 1].map(|core| Claim { placement: Placement::Core(core), ..good }));
    let before = describe(&mut hostile).1;
    for (number, claim) in (1000..).zip(&wrong) {
        let claim = Claim { ticket: Ticket(number), ..*claim };
        hostile.send(&Request::Claim(claim));
        assert_eq!(refusal(&mut hostile, claim.ticket), Refusal::Invalid, "{claim:?}");
    }
    // Within the bounds, and more than the node has.
    let greedy = Claim { memory_mb: 10_240, ..good };
    hostile.send(&Request::Claim(greedy));
    assert_eq!(refusal(&mut hostile, greedy.ticket), Refusal::Memory);
    let after = describe(&mut hostile).1;
    let count = wrong.len() as u64 + 1;
    assert_eq!(after.claims_refused_total - before.claims_refused_total, count);
    assert_eq!(after.claims_total - before.claims_total, count);
    assert_eq!((after.memory_used_bytes, after.memory_marked_bytes), (before.memory_used_bytes, 0));
    assert_well(&mut node, &mut instance, code);
}

#[test]
fn foreign_slots_lives_and_instances_are_ignored_and_counted() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options { runtimes: vec![python()], ..Options::default() });
    let (mut instance, code) = bystander(&mut node);
    wait_for_cold(&mut node.engine, 1);
    let mut hostile = node.another_engine();
    let (slots, _) = describe(&mut hostile);
    let cold = slots.iter().find(|slot| slot.state == SlotState::Cold).unwrap();
    let Generation(life) = instance.generation;
    let targets = [
        // Another engine's; its lives before and after; nobody's yet; slots that do not exist.
        (instance.slot, instance.generation),
        (instance.slot, Generation(life.wrapping_sub(1))),
        (instance.slot, Generation(life.wrapping_add(1))),
        (cold.slot, cold.generation),
        (SlotId(8), Generation(0)),
        (SlotId(u32::MAX), Generation(u32::MAX)),
    ];
    let before = ignored(&mut hostile);
    for (slot, generation) in targets {
        hostile.send(&Request::Kill { slot, generation });
        for placement in [Placement::Free, Placement::Core(900)] {
            hostile.send(&Request::Place { slot, generation, placement });
        }
        hostile.send(&Request::Freeze { slot, generation });
        hostile.send(&Request::Thaw { slot, generation });
        let size = Size { memory_mb: 128, tmp_mb: 64, function_tag: 0 };
        hostile.send(&Request::Resize { slot, generation, size });
    }
    // Claims that it never made.
    for ticket in [1, instance.slot.0.into(), u64::MAX] {
        hostile.send(&Request::CancelClaim { ticket: Ticket(ticket) });
    }
    assert_eq!(ignored(&mut hostile) - before, targets.len() as u64 * 6);
    let (slots, _) = describe(&mut hostile);
    let cold_after = slots.iter().find(|slot| slot.slot == cold.slot).unwrap();
    assert_eq!((cold_after.generation, cold_after.state), (cold.generation, SlotState::Cold));
    assert_well(&mut node, &mut instance, code);
}

#[test]
fn one_engine_may_end_through_any_of_its_channels_what_it_claimed_through_another() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let (mut instance, code) = bystander(&mut node);
    let [mut shard, control] = node.another_engine_with();
    let own = shard.claim(0, code);
    control.kill(&own);
    assert_eq!(end(&mut shard, &own), End::Killed);
    assert_well(&mut node, &mut instance, code);
}

#[test]
fn replayed_messages_do_no_more_than_the_first() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options { runtimes: vec![python()], ..Options::default() });
    let (mut instance, code) = bystander(&mut node);
    let mut hostile = node.another_engine();
    let first = hostile.claim(0, code);
    let before = ignored(&mut hostile);
    hostile.kill(&first);
    assert_eq!(end(&mut hostile, &first), End::Killed);
    let mut second = hostile.claim(0, code);
    second.load();
    for _ in 0..50 {
        hostile.kill(&first);
    }
    assert_eq!(ignored(&mut hostile) - before, 50);
    assert_eq!(second.run("result = 'not the first'"), "not the first");
    // One ticket twice: two claims, each with memory of its own in the ledger.
    let used = describe(&mut hostile).1.memory_used_bytes;
    let claim = hostile.claim_request(0, code);
    let twice = [hostile.claim_with(claim), hostile.claim_with(claim)];
    assert_ne!(twice[0].slot, twice[1].slot);
    assert_eq!(describe(&mut hostile).1.memory_used_bytes - used, 512 << 20);
    assert_well(&mut node, &mut instance, code);
}

fn refused_code(engine: &mut Engine, code: CodeHash) -> Refusal {
    let claim = engine.claim_request(0, code);
    engine.send(&Request::Claim(claim));
    refusal(engine, claim.ticket)
}

#[test]
fn only_directories_of_the_store_are_code() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let (mut instance, code) = bystander(&mut node);
    let mut hostile = node.another_engine();
    let place = |number: u8| node.config.code_dir.join(CodeHash([number; 32]).to_string());
    let outside = node.folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    // What an engine could put there, as the store is its own.
    std::os::unix::fs::symlink("/etc", place(2)).unwrap();
    std::os::unix::fs::symlink("..", place(3)).unwrap();
    std::os::unix::fs::symlink(code.to_string(), place(4)).unwrap();
    std::os::unix::fs::symlink("/proc/self/root", place(5)).unwrap();
    std::os::unix::fs::symlink("/proc/self/fd/0", place(6)).unwrap();
    std::fs::write(place(7), "a file").unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, place(8), rustix::fs::Mode::RWXU).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(place(9)).unwrap();
    std::os::unix::fs::symlink(&outside, place(10)).unwrap();
    std::fs::create_dir(place(11)).unwrap();
    let root_owned = std::fs::metadata(place(11)).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&root_owned), 0);
    for number in 2..=12 {
        assert_eq!(refused_code(&mut hostile, CodeHash([number; 32])), Refusal::Code, "{number}");
        // Nor are they layers.
        let claim = Claim { layers: Some(CodeHash([number; 32])), ..hostile.claim_request(0, code) };
        hostile.send(&Request::Claim(claim));
        assert_eq!(refusal(&mut hostile, claim.ticket), Refusal::Code, "{number} as layers");
    }
    assert_eq!(describe(&mut hostile).1.memory_marked_bytes, 0);
    assert_well(&mut node, &mut instance, code);
}

#[test]
fn its_own_instances_get_no_size_out_of_bounds() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let (mut instance, code) = bystander(&mut node);
    let mut hostile = node.another_engine();
    let mut own = hostile.claim(0, code);
    own.load();
    let before = describe(&mut hostile).1;
    let good = Size { memory_mb: 256, tmp_mb: 64, function_tag: 0 };
    let mut wrong: Vec<Size> = Vec::new();
    wrong.extend([0, 1, 127, 10_241, u32::MAX].map(|memory_mb| Size { memory_mb, ..good }));
    wrong.extend([0, 10_241, u32::MAX].map(|tmp_mb| Size { tmp_mb, ..good }));
    for size in &wrong {
        hostile.send(&Request::Resize { slot: own.slot, generation: own.generation, size: *size });
    }
    // Within the bounds, and more than the node has.
    let size = Size { memory_mb: 10_240, ..good };
    hostile.send(&Request::Resize { slot: own.slot, generation: own.generation, size });
    let kept = hostile.expect(|event| match event {
        Event::NotResized { slot, .. } => Some(*slot),
        _ => None,
    });
    assert_eq!(kept, own.slot);
    let after = describe(&mut hostile).1;
    assert_eq!(after.requests_ignored_total - before.requests_ignored_total, wrong.len() as u64);
    assert_eq!(after.memory_used_bytes, before.memory_used_bytes);
    assert_eq!(own.run("result = 'goes on'"), "goes on");
    assert_well(&mut node, &mut instance, code);
}

#[test]
fn code_that_is_exchanged_while_it_is_claimed_is_the_package_or_refused() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options { runtimes: vec![python()], pool: 2, ..Options::default() });
    let (mut instance, code) = bystander(&mut node);
    let mut hostile = node.another_engine();
    let swapped = node.code(2, &[("hello.txt", "from the package")]);
    let package = node.config.code_dir.join(swapped.to_string());
    let link = node.config.code_dir.join("link");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let exchanging = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || exchange(&package, &link, &stop)
    });
    let mut seen = [0, 0];
    for _ in 0..30 {
        let claim = hostile.claim_request(0, swapped);
        hostile.send(&Request::Claim(claim));
        match claimed_or_refused(&mut hostile) {
            Ok(mut claimed) => {
                claimed.load();
                let found = claimed.run("import os; result = sorted(os.listdir('/var/task'))");
                assert_eq!(found, serde_json::json!(["hello.txt"]));
                hostile.kill(&claimed);
                assert_eq!(end(&mut hostile, &claimed), End::Killed);
                seen[0] += 1;
            }
            Err(refusal) => {
                assert_eq!(refusal, Refusal::Code);
                seen[1] += 1;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    let exchanges = exchanging.join().unwrap();
    eprintln!("{exchanges} exchanges: {} claims got the package, {} were refused", seen[0], seen[1]);
    assert_well(&mut node, &mut instance, code);
}

fn exchange(one: &Path, other: &Path, stop: &AtomicBool) -> u64 {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let (from, to) = (rustix::fs::CWD, rustix::fs::CWD);
        rustix::fs::renameat_with(from, one, to, other, RenameFlags::EXCHANGE).unwrap();
        count += 1;
    }
    count
}

/// What comes next about a claim.
fn claimed_or_refused(engine: &mut Engine) -> Result<Instance, Refusal> {
    let mut bytes = [0; MESSAGE_BYTES];
    loop {
        let peeked = rustix::net::recv(&engine.socket, &mut bytes, RecvFlags::PEEK).unwrap().0;
        assert_eq!(peeked, MESSAGE_BYTES);
        match Event::decode(&bytes).unwrap() {
            Event::Claimed { ticket, .. } => return Ok(engine.expect_claimed(ticket)),
            Event::Refused { ticket, .. } => return Err(refusal(engine, ticket)),
            // Not about a claim: taken and left aside.
            _ => engine.put_aside(),
        }
    }
}

#[test]
fn garbage_costs_whoever_sends_it_its_own_channel() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let (mut instance, code) = bystander(&mut node);
    let claim = Request::Claim(node.engine.claim_request(0, code)).encode();
    let mut wrong: Vec<Vec<u8>> = vec![
        vec![0; MESSAGE_BYTES],
        vec![0xff; MESSAGE_BYTES],
        vec![100; MESSAGE_BYTES],
        claim[..MESSAGE_BYTES - 1].to_vec(),
        claim[..1].to_vec(),
        [&claim[..], &[0]].concat(),
        [&claim[..], &claim[..]].concat(),
        vec![1; 64 * 1024],
    ];
    wrong.extend((0..40u8).map(|seed| {
        let mut state = u32::from(seed) + 1;
        let length = 1 + usize::from(seed) * 37 % 400;
        let noise = std::iter::repeat_with(move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            u8::try_from(state >> 24).unwrap()
        });
        // No kind of message begins with this.
        std::iter::once(200 + seed).chain(noise).take(length).collect()
    }));
    for bytes in wrong {
        let hostile = node.another_engine();
        fdpass::send_with_fds(&hostile.socket, &bytes, &[]).unwrap();
        let mut byte = [0; 1];
        let ended = rustix::net::recv(&hostile.socket, &mut byte, RecvFlags::empty()).unwrap().0;
        assert_eq!(ended, 0, "{} bytes from {:?}", bytes.len(), &bytes[..bytes.len().min(8)]);
    }
    assert_well(&mut node, &mut instance, code);
}

#[test]
fn descriptors_that_nobody_asked_for_are_not_kept() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options { runtimes: vec![python()], ..Options::default() });
    let (mut instance, code) = bystander(&mut node);
    wait_for_cold(&mut node.engine, 1);
    let mut hostile = node.another_engine();
    describe(&mut hostile);
    let fds = format!("/proc/{}/fd", node.funclet_pid());
    let count = || std::fs::read_dir(&fds).unwrap().count();
    let before = count();
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let folder = File::open("/").unwrap();
    let kinds: [BorrowedFd<'_>; 3] = [write.as_fd(), folder.as_fd(), hostile.socket.as_fd()];
    let many: Vec<BorrowedFd<'_>> = kinds.into_iter().cycle().take(120).collect();
    for _ in 0..20 {
        fdpass::send_with_fds(&hostile.socket, &Request::Describe.encode(), &many).unwrap();
    }
    for _ in 0..20 {
        hostile.expect(|event| match event {
            Event::Node(_) => Some(()),
            _ => None,
        });
    }
    assert_eq!(count(), before);
    drop(write);
    let mut rest = Vec::new();
    File::from(read).read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "nobody holds the other end of the pipe any more");
    assert_well(&mut node, &mut instance, code);
}

#[test]
fn an_engine_that_asks_and_never_reads_is_given_up() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let (mut instance, code) = bystander(&mut node);
    let mut hostile = node.another_engine();
    let wrong = Claim { runtime: RuntimeIndex(99), ..hostile.claim_request(0, code) };
    let message = Request::Claim(wrong).encode();
    let mut sent = 0u32;
    while fdpass::send_with_fds(&hostile.socket, &message, &[]).is_ok() {
        sent += 1;
        assert!(sent < 1_000_000, "it is still listened to");
    }
    let closed = |engine: &Engine| {
        let mut bytes = [0; MESSAGE_BYTES];
        matches!(rustix::net::recv(&engine.socket, &mut bytes, RecvFlags::DONTWAIT), Ok((0, _)))
    };
    eventually("its channel is closed", || closed(&hostile));
    let (_, info) = describe(&mut node.engine);
    assert!(info.claims_refused_total > 0);
    assert_well(&mut node, &mut instance, code);
}
