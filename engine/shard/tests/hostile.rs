//! Runtimes that break the protocol or stretch it, and shards that stop: what callers notice of it.
//!
//! Owns: the cases. Time is simulated. Must not know: real sockets.

mod node;
mod play;

use std::time::Duration;

use faaster_function::deployed::Concurrency;
use faaster_limits::{
    CONTROL_BODY_BYTES_MAX, HELD_BYTES_PER_SHARD_MAX, LOG_FRAME_BYTES_MAX, RESPONSE_CREDIT_BYTES,
    RESPONSE_PART_BYTES_MAX, RUNTIME_FRAME_BYTES_MAX,
};
use faaster_protocol::frame::{FLAG_MORE, FrameType};
use faaster_protocol::funclet::{End, Event, Generation, Request, SlotId};
use faaster_shard::{Command, Notice, ShardId};
use faaster_sys::ring::sim::WireId;
use node::{Instance, Node};
use play::{ACCOUNT, HASH, deployed, invocation};

fn deploy(node: &mut Node, name: &str, concurrency: Concurrency) {
    let function = deployed(name, concurrency, 3000);
    node.command(Command::Deploy(function, Box::new(|_: ShardId| {})));
}

/// A call of `f` that runs: its client, its instance, its id.
fn running(node: &mut Node) -> (WireId, Instance, u64) {
    deploy(node, "f", Concurrency::Exclusive);
    let client = node.connect();
    node.send(client, &invocation("f", b"{}"));
    let mut instance = node.start();
    let (id, _) = node.call(&mut instance);
    (client, instance, id)
}

fn assert_killed(node: &mut Node) {
    let request = node.next_request();
    assert!(matches!(request, Some(Request::Kill { .. })), "the instance ends: {request:?}");
}

#[test]
fn a_log_of_somebody_elses_call_reaches_neither_its_tail_nor_its_name() {
    let mut node = Node::new();
    deploy(&mut node, "victim", Concurrency::Exclusive);
    deploy(&mut node, "spy", Concurrency::Exclusive);
    let (client, other) = (node.connect(), node.connect());
    let head = format!(
        "POST /v1/functions/brn:cloud:faas:bj:{HASH}:function:victim:1/invocations HTTP/1.1\r\n\
         Host: x\r\nX-easyfaas-Account-Id: {ACCOUNT}\r\nLog-Type: Tail\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    node.send(client, head.as_bytes());
    let mut victim = node.start();
    let (id, _) = node.call(&mut victim);
    node.send(other, &invocation("spy", b"{}"));
    let mut spy = node.start();
    node.call(&mut spy);
    node.say(&spy, FrameType::Log, id, b"forged line\n");
    node.say(&victim, FrameType::Log, id, b"true line\n");
    node.settle();
    let logs: Vec<(String, String)> = node
        .notices
        .try_iter()
        .filter_map(|notice| match notice {
            Notice::Log(chunk) => Some((chunk.function.name.to_string(), chunk.request_id)),
            _ => None,
        })
        .collect();
    assert_eq!(logs.len(), 2);
    assert_eq!(logs[0], ("spy".to_owned(), String::new()), "kept, as said of no call");
    assert_eq!(logs[1].0, "victim");
    assert_eq!(logs[1].1.len(), 36, "the victim's own line names its call");
    node.say(&victim, FrameType::Response, id, b"done");
    let tail = node
        .answer(client)
        .head
        .lines()
        .find_map(|line| line.strip_prefix("X-Bce-Log-Result: ").map(|text| text.trim().to_owned()))
        .expect("a tail was asked for");
    // "true line" is in it, in one of the three ways that base64 may cut it; "forged line" is not.
    let has = |words: [&str; 3]| words.iter().any(|word| tail.contains(word));
    assert!(has(["dHJ1ZSBsaW5l", "RydWUgbGluZ", "0cnVlIGxpbm"]), "{tail}");
    assert!(!has(["Zm9yZ2VkIGxpbm", "ZvcmdlZCBsaW5l", "mb3JnZWQgbGluZ"]), "{tail}");
}

#[test]
fn frames_that_are_too_large_end_the_instance_before_their_bodies_come() {
    let too_large = [
        (FrameType::Response, 0, RUNTIME_FRAME_BYTES_MAX + 1),
        (FrameType::Error, 0, RUNTIME_FRAME_BYTES_MAX + 1),
        (FrameType::Log, 0, LOG_FRAME_BYTES_MAX + 1),
    ];
    for (kind, flags, bytes) in too_large {
        let mut node = Node::new();
        let (client, instance, id) = running(&mut node);
        let mut header = faaster_protocol::frame::Header::new(kind, id);
        header.flags = flags;
        header.body_bytes = u32::try_from(bytes).expect("small");
        node.send(instance.channel, &header.encode());
        assert_killed(&mut node);
        assert!(!node.is_closed(client));
    }
}

#[test]
fn parts_that_break_the_rules_end_the_instance() {
    for part in [&b""[..], &vec![b'x'; RESPONSE_PART_BYTES_MAX + 1]] {
        let mut node = Node::new();
        let (_, instance, id) = running(&mut node);
        node.say_with(&instance, FrameType::Response, FLAG_MORE, id, part);
        assert_killed(&mut node);
    }
}

#[test]
fn nothing_that_is_said_after_a_breach_counts() {
    let mut node = Node::new();
    let (client, instance, id) = running(&mut node);
    node.say(&instance, FrameType::Response, id + 1, b"forged");
    assert_killed(&mut node);
    node.say(&instance, FrameType::Response, id, b"late");
    node.settle();
    let event = Event::Ended {
        slot: SlotId(1),
        generation: Generation(1),
        end: End::Killed,
        memory_peak_bytes: 1,
        memory_limit_bytes: 128 << 20,
        cpu_used_us: 1,
    };
    node.tell(&event, Vec::new());
    node.sim.close(instance.channel);
    node.settle();
    let body = String::from_utf8(node.answer(client).body).expect("text");
    assert!(body.contains("Process exited before completing request"), "{body}");
}

#[test]
fn small_parts_cost_no_window_each() {
    let mut node = Node::new();
    let (client, mut instance, id) = running(&mut node);
    for _ in 0..1000 {
        node.say_with(&instance, FrameType::Response, FLAG_MORE, id, b"x");
    }
    assert!(node.frame(&mut instance).is_none(), "1,000 bytes are not worth a window");
    node.say_with(&instance, FrameType::Response, FLAG_MORE, id, &[b'y'; RESPONSE_PART_BYTES_MAX]);
    let window = node.frame(&mut instance).expect("credit");
    assert_eq!(window.header.kind, FrameType::Window);
    assert_eq!(window.header.credit_bytes as usize, 1000 + RESPONSE_PART_BYTES_MAX);
    assert!(node.frame(&mut instance).is_none());
    node.say(&instance, FrameType::Response, id, b"end");
    assert_eq!(node.answer(client).body.len(), 1000 + RESPONSE_PART_BYTES_MAX + 3);
    assert_eq!(node.audit().held_bytes, 0);
}

/// Takes the whole budget of held bytes, by bodies that are announced and do not come.
fn leave_no_room(node: &mut Node) -> Vec<WireId> {
    let mut room = HELD_BYTES_PER_SHARD_MAX - node.audit().held_bytes;
    let mut clients = Vec::new();
    while room > 0 {
        let length = room.min(CONTROL_BODY_BYTES_MAX);
        room -= length;
        let client = node.connect();
        let head = format!("POST /v1/functions HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        node.send(client, head.as_bytes());
        clients.push(client);
    }
    clients
}

#[test]
fn without_room_there_is_no_credit_and_without_credit_no_part() {
    let credit = RESPONSE_CREDIT_BYTES as usize;
    let part = [b'x'; RESPONSE_PART_BYTES_MAX];
    // One that waits for its credit goes on when there is room again.
    let mut node = Node::new();
    let (client, mut instance, id) = running(&mut node);
    let uploads = leave_no_room(&mut node);
    for _ in 0..credit / part.len() {
        node.say_with(&instance, FrameType::Response, FLAG_MORE, id, &part);
    }
    assert!(node.frame(&mut instance).is_none(), "no room, no credit");
    for upload in uploads {
        node.sim.close(upload);
    }
    node.settle();
    let window = node.frame(&mut instance).expect("room again");
    assert_eq!(window.header.credit_bytes as usize, credit);
    node.say(&instance, FrameType::Response, id, b"end");
    assert_eq!(node.answer(client).body.len(), credit + 3);
    assert_eq!(node.audit().held_bytes, 0);
    // One that does not wait is ended.
    let mut node = Node::new();
    let (_, instance, id) = running(&mut node);
    leave_no_room(&mut node);
    for _ in 0..=credit / part.len() {
        node.say_with(&instance, FrameType::Response, FLAG_MORE, id, &part);
    }
    assert_killed(&mut node);
}

#[test]
fn a_dismissed_instance_does_not_talk_itself_out_of_its_end() {
    let mut node = Node::new();
    let (client, mut instance, id) = running(&mut node);
    node.say(&instance, FrameType::Response, id, b"done");
    assert_eq!(node.answer(client).body, b"done");
    for _ in 0..5 {
        node.say(&instance, FrameType::Error, 0, br#"{"errorMessage":"bye"}"#);
        node.pass(Duration::from_millis(60));
    }
    assert_killed(&mut node);
    let shutdown = node.frame(&mut instance).expect("it was told");
    assert_eq!(shutdown.header.kind, FrameType::Shutdown);
    assert!(node.frame(&mut instance).is_none(), "once");
}

#[test]
fn a_stopping_shard_runs_what_waits_for_a_cold_start() {
    let mut node = Node::new();
    deploy(&mut node, "f", Concurrency::Exclusive);
    let client = node.connect();
    node.send(client, &invocation("f", b"{}"));
    let (drained, report) = std::sync::mpsc::channel();
    node.command(Command::Drain(Box::new(move |shard: ShardId| drained.send(shard).expect("read below"))));
    let mut instance = node.start();
    let (id, _) = node.call(&mut instance);
    assert!(report.try_recv().is_err(), "a call is in flight");
    node.say(&instance, FrameType::Response, id, b"the last one");
    let answer = node.answer(client);
    assert_eq!((answer.status, &answer.body[..]), (200, &b"the last one"[..]));
    assert!(report.try_recv().is_ok());
}

#[test]
fn a_stopping_shard_waits_for_an_upload_that_has_begun() {
    let mut node = Node::new();
    deploy(&mut node, "f", Concurrency::Exclusive);
    let client = node.connect();
    let whole = invocation("f", b"[1,2,3]");
    let (first, rest) = whole.split_at(whole.len() - 3);
    node.send(client, first);
    let (drained, report) = std::sync::mpsc::channel();
    node.command(Command::Drain(Box::new(move |shard: ShardId| drained.send(shard).expect("read below"))));
    assert!(report.try_recv().is_err(), "half a request is here");
    node.send(client, rest);
    let mut instance = node.start();
    let (id, event) = node.call(&mut instance);
    assert_eq!(event, b"[1,2,3]");
    node.say(&instance, FrameType::Response, id, b"done");
    assert_eq!(node.answer(client).body, b"done");
    assert!(report.try_recv().is_ok());
}
