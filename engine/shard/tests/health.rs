//! Runtimes that are asked whether they answer, and those that do not.
//!
//! Owns: the cases. Time is simulated. Must not know: real sockets, how a runtime hangs.

#[allow(dead_code, reason = "shared with tests that use more of it")]
mod node;
mod play;

use std::sync::Arc;
use std::time::Duration;

use faaster_function::Deployed;
use faaster_function::deployed::Concurrency;
use faaster_protocol::frame::{FrameType, Header};
use faaster_protocol::funclet::{End, Event, Generation, Request, SlotId};
use faaster_shard::api::HealthRule;
use faaster_shard::{Command, Notice, ShardId};
use faaster_sys::ring::sim::WireId;
use node::{Instance, Node};
use play::{deployed, invocation};

const SECOND: Duration = Duration::from_secs(1);
const RULE: HealthRule = HealthRule { interval: Duration::from_secs(4), timeout: SECOND };
const GENERATION: Generation = Generation(1);

fn kill(slot: u32) -> Request {
    Request::Kill { slot: SlotId(slot), generation: GENERATION }
}

/// Serves the one claim that waits, up to a ready that promises to answer pings.
fn start_answering(node: &mut Node) -> Instance {
    let instance = node.serve();
    let meta = br#"{"features":["ping"]}"#;
    let mut header = Header::new(FrameType::Ready, 0);
    header.meta_bytes = u32::try_from(meta.len()).expect("small");
    node.send(instance.channel, &[&header.encode()[..], meta].concat());
    instance
}

fn call(node: &mut Node) -> WireId {
    let client = node.connect();
    node.send(client, &invocation("f", b"{}"));
    client
}

/// Takes the next call and answers it.
fn serve(node: &mut Node, instance: &mut Instance, client: WireId) {
    let (id, _) = node.call(instance);
    node.say(instance, FrameType::Response, id, b"1");
    assert_eq!(node.answer(client).status, 200);
}

fn deploy(node: &mut Node, instances_min: u32) {
    let function = Deployed { instances_min, ..(*deployed("f", Concurrency::Exclusive, 3000)).clone() };
    node.command(Command::Deploy(Arc::new(function), Box::new(|_: ShardId| {})));
}

/// A node with one instance, which answers pings or never said so, and has answered one call.
fn one_instance(start: fn(&mut Node) -> Instance, rule: HealthRule) -> (Node, Instance) {
    let mut node = Node::with(Some(rule));
    deploy(&mut node, 0);
    let client = call(&mut node);
    let mut instance = start(&mut node);
    serve(&mut node, &mut instance, client);
    (node, instance)
}

fn expect_ping(node: &mut Node, instance: &mut Instance) {
    let frame = node.frame(instance).expect("a ping");
    assert_eq!((frame.header.kind, frame.header.invocation), (FrameType::Ping, 0));
    assert!(frame.body.is_empty() && node.frame(instance).is_none());
}

/// Says that the container of a slot has been ended, and closes its channel.
fn bury(node: &mut Node, instance: &Instance, slot: u32) {
    let event = Event::Ended {
        slot: SlotId(slot),
        generation: GENERATION,
        end: End::Killed,
        memory_peak_bytes: 1,
        memory_limit_bytes: 128 << 20,
        cpu_used_us: 1,
    };
    node.tell(&event, Vec::new());
    node.sim.close(instance.channel);
    node.settle();
}

fn unresponsive(node: &Node) -> u64 {
    node.audit().counters.instances_unresponsive_total
}

#[test]
fn an_idle_runtime_is_asked_at_each_interval_and_answers_for_its_life() {
    let (mut node, mut instance) = one_instance(start_answering, RULE);
    node.pass(3 * SECOND);
    assert!(node.frame(&mut instance).is_none(), "not yet");
    for _ in 0..3 {
        node.pass(SECOND);
        expect_ping(&mut node, &mut instance);
        node.say(&instance, FrameType::Pong, 0, b"");
        node.pass(3 * SECOND);
        assert!(node.frame(&mut instance).is_none(), "asked once in an interval");
    }
    assert_eq!((node.next_request(), unresponsive(&node)), (None, 0));
}

#[test]
fn one_in_use_is_not_asked() {
    let (mut node, mut instance) = one_instance(start_answering, RULE);
    for _ in 0..10 {
        node.pass(3 * SECOND);
        let client = call(&mut node);
        // The next frame is the call: no ping came before it.
        serve(&mut node, &mut instance, client);
    }
    let client = call(&mut node);
    let (id, _) = node.call(&mut instance);
    node.pass(2 * SECOND);
    assert!(node.frame(&mut instance).is_none(), "nor while it runs a call");
    node.say(&instance, FrameType::Response, id, b"1");
    assert_eq!(node.answer(client).status, 200);
}

#[test]
fn one_that_does_not_answer_is_ended_and_replaced_and_the_log_says_why() {
    let (mut node, mut instance) = one_instance(start_answering, RULE);
    node.pass(4 * SECOND);
    expect_ping(&mut node, &mut instance);
    assert_eq!(node.next_request(), None);
    node.pass(SECOND);
    assert_eq!((node.next_request(), unresponsive(&node)), (Some(kill(1)), 1));
    bury(&mut node, &instance, 1);
    let _successor = start_answering(&mut node);
    assert_eq!((node.audit().functions[0].serving, node.next_request()), (1, None));
    let said: Vec<String> = node
        .notices
        .try_iter()
        .filter_map(|notice| match notice {
            Notice::Log(chunk) => String::from_utf8(chunk.text).ok(),
            _ => None,
        })
        .filter(|line| line.contains("did not answer a health check"))
        .collect();
    assert_eq!(said.len(), 1, "once");
}

#[test]
fn a_call_goes_out_behind_the_ping_and_neither_waits_for_the_other() {
    let (mut node, mut instance) = one_instance(start_answering, RULE);
    node.pass(4 * SECOND);
    expect_ping(&mut node, &mut instance);
    let client = call(&mut node);
    let (id, _) = node.call(&mut instance);
    node.say(&instance, FrameType::Pong, 0, b"");
    node.pass(2 * SECOND);
    assert_eq!(node.next_request(), None, "a handler may take longer than a ping");
    node.say(&instance, FrameType::Response, id, b"1");
    assert_eq!(node.answer(client).status, 200);
}

#[test]
fn a_call_behind_a_ping_that_nobody_answers_fails_with_it_and_not_at_its_own_deadline() {
    let (mut node, mut instance) = one_instance(start_answering, RULE);
    node.pass(4 * SECOND);
    expect_ping(&mut node, &mut instance);
    let client = call(&mut node);
    node.call(&mut instance);
    node.pass(SECOND);
    assert_eq!((node.next_request(), unresponsive(&node)), (Some(kill(1)), 1));
    bury(&mut node, &instance, 1);
    let answer = node.answer(client);
    assert!(String::from_utf8_lossy(&answer.body).contains("Process exited"), "{answer:?}");
}

#[test]
fn one_that_never_promised_to_answer_is_not_asked() {
    let (mut node, mut instance) = one_instance(Node::start, RULE);
    node.pass(15 * SECOND);
    assert!(node.frame(&mut instance).is_none());
    assert_eq!(node.next_request(), None);
}

#[test]
fn what_is_frozen_is_not_asked() {
    let (mut node, mut instance) = one_instance(start_answering, RULE);
    for _ in 0..4 {
        node.pass(4 * SECOND);
        expect_ping(&mut node, &mut instance);
        node.say(&instance, FrameType::Pong, 0, b"");
    }
    // Due to be asked and to be frozen, both: it is frozen.
    node.pass(4 * SECOND);
    let freeze = Request::Freeze { slot: SlotId(1), generation: GENERATION };
    assert_eq!(node.next_request(), Some(freeze));
    node.tell(&Event::Frozen { slot: SlotId(1), generation: GENERATION }, Vec::new());
    node.pass(30 * SECOND);
    assert!(node.frame(&mut instance).is_none());
    let client = call(&mut node);
    assert!(matches!(node.next_request(), Some(Request::Thaw { .. })));
    node.tell(&Event::Thawed { slot: SlotId(1), generation: GENERATION }, Vec::new());
    serve(&mut node, &mut instance, client);
}

#[test]
fn what_was_asked_is_not_frozen_before_it_answers() {
    // Asked for the fourth time at 19.4 s, due to be frozen at 20 s.
    let rule = HealthRule { interval: Duration::from_millis(4850), timeout: SECOND };
    let (mut node, mut instance) = one_instance(start_answering, rule);
    for _ in 0..3 {
        node.pass(rule.interval);
        expect_ping(&mut node, &mut instance);
        node.say(&instance, FrameType::Pong, 0, b"");
    }
    node.pass(rule.interval);
    expect_ping(&mut node, &mut instance);
    node.pass(SECOND);
    assert_eq!((node.next_request(), unresponsive(&node)), (Some(kill(1)), 1));
}

#[test]
fn instances_that_a_function_keeps_are_asked_as_well() {
    let mut node = Node::with(Some(RULE));
    deploy(&mut node, 1);
    let mut kept = start_answering(&mut node);
    node.pass(4 * SECOND);
    expect_ping(&mut node, &mut kept);
    node.pass(SECOND);
    assert_eq!(node.next_request(), Some(kill(1)));
    bury(&mut node, &kept, 1);
    let _successor = start_answering(&mut node);
    assert_eq!(node.audit().functions[0].serving, 1);
}

#[test]
fn an_answer_that_nobody_asked_for_breaks_the_protocol() {
    let (mut node, instance) = one_instance(start_answering, RULE);
    node.say(&instance, FrameType::Pong, 0, b"");
    assert_eq!((node.next_request(), unresponsive(&node)), (Some(kill(1)), 0));
}
