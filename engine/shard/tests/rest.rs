//! Instances without a call: frozen, thawed, ended; kept and replaced without anybody waiting for them.
//!
//! Owns: the cases. Time is simulated. Must not know: real sockets, how a container is frozen.

#[allow(dead_code, reason = "shared with tests that use more of it")]
mod node;
mod play;

use std::sync::Arc;
use std::time::Duration;

use faaster_function::Deployed;
use faaster_function::deployed::Concurrency;
use faaster_protocol::frame::FrameType;
use faaster_protocol::funclet::{ClaimSource, End, Event, Generation, Refusal, Request, SlotId};
use faaster_shard::{Command, ShardId};
use node::{Instance, Node};
use play::{deployed, invocation};

const SECOND: Duration = Duration::from_secs(1);
const GENERATION: Generation = Generation(1);

fn deploy(node: &mut Node, function: Deployed) {
    node.command(Command::Deploy(Arc::new(function), Box::new(|_: ShardId| {})));
}

fn function(instances_min: u32) -> Deployed {
    Deployed { instances_min, ..(*deployed("f", Concurrency::Exclusive, 3000)).clone() }
}

/// Calls, and answers as the instance.
fn call_through(node: &mut Node, instance: &mut Instance) {
    let client = node.connect();
    node.send(client, &invocation("f", b"{}"));
    let (id, _) = node.call(instance);
    node.say(instance, FrameType::Response, id, b"1");
    assert_eq!(node.answer(client).status, 200);
}

fn frozen(slot: u32) -> Event {
    Event::Frozen { slot: SlotId(slot), generation: GENERATION }
}

fn thawed(slot: u32) -> Event {
    Event::Thawed { slot: SlotId(slot), generation: GENERATION }
}

fn ended(slot: u32, end: End) -> Event {
    Event::Ended {
        slot: SlotId(slot),
        generation: GENERATION,
        end,
        memory_peak_bytes: 1,
        memory_limit_bytes: 128 << 20,
        cpu_used_us: 1,
    }
}

/// A node with one instance that has answered one call.
fn one_instance() -> (Node, Instance) {
    let mut node = Node::new();
    deploy(&mut node, function(0));
    let client = node.connect();
    node.send(client, &invocation("f", b"{}"));
    let mut instance = node.start();
    let (id, _) = node.call(&mut instance);
    node.say(&instance, FrameType::Response, id, b"1");
    assert_eq!(node.answer(client).status, 200);
    (node, instance)
}

fn freeze(node: &mut Node) {
    node.pass(21 * SECOND);
    let wanted = Request::Freeze { slot: SlotId(1), generation: GENERATION };
    assert_eq!(node.next_request(), Some(wanted));
}

#[test]
fn an_idle_instance_is_frozen_and_the_next_call_waits_for_its_thaw() {
    let (mut node, mut instance) = one_instance();
    for _ in 0..5 {
        node.pass(15 * SECOND);
        call_through(&mut node, &mut instance);
    }
    assert_eq!(node.next_request(), None, "one that is used is not frozen");
    freeze(&mut node);
    node.tell(&frozen(1), Vec::new());
    let client = node.connect();
    node.send(client, &invocation("f", b"{}"));
    assert_eq!(node.next_request(), Some(Request::Thaw { slot: SlotId(1), generation: GENERATION }));
    assert!(node.frame(&mut instance).is_none(), "what is frozen gets nothing");
    node.tell(&thawed(1), Vec::new());
    let (id, _) = node.call(&mut instance);
    node.say(&instance, FrameType::Response, id, b"1");
    assert_eq!(node.answer(client).status, 200);
    assert_eq!((node.audit().counters.cold_starts_total, node.audit().instances), (1, 1));
    assert_eq!(node.next_request(), None);
}

#[test]
fn a_call_that_comes_while_an_instance_is_being_frozen_gets_it_back() {
    let (mut node, mut instance) = one_instance();
    freeze(&mut node);
    let client = node.connect();
    node.send(client, &invocation("f", b"{}"));
    assert_eq!(node.next_request(), None, "neither another instance nor a thaw before the freeze");
    node.tell(&frozen(1), Vec::new());
    assert_eq!(node.next_request(), Some(Request::Thaw { slot: SlotId(1), generation: GENERATION }));
    node.tell(&thawed(1), Vec::new());
    let (id, _) = node.call(&mut instance);
    node.say(&instance, FrameType::Response, id, b"1");
    assert_eq!(node.answer(client).status, 200);
}

#[test]
fn one_that_cannot_be_frozen_serves_on() {
    let (mut node, mut instance) = one_instance();
    freeze(&mut node);
    node.tell(&thawed(1), Vec::new());
    assert_eq!(node.next_request(), None, "not tried again at once");
    call_through(&mut node, &mut instance);
    freeze(&mut node);
}

#[test]
fn a_frozen_instance_that_nobody_calls_is_thawed_to_exit() {
    let (mut node, mut instance) = one_instance();
    freeze(&mut node);
    node.tell(&frozen(1), Vec::new());
    node.pass(40 * SECOND);
    let (slot, generation) = (SlotId(1), GENERATION);
    assert_eq!(node.next_request(), Some(Request::Thaw { slot, generation }));
    assert_eq!(node.frame(&mut instance).map(|frame| frame.header.kind), Some(FrameType::Shutdown));
    node.pass(10 * SECOND);
    assert_eq!(node.next_request(), Some(Request::Kill { slot, generation }), "it did not exit by itself");
    node.tell(&ended(1, End::Killed), Vec::new());
    node.pass(10 * SECOND);
    assert_eq!(node.audit().instances, 0);
}

#[test]
fn a_funclet_that_does_not_answer_a_thaw_costs_the_instance() {
    let (mut node, _instance) = one_instance();
    freeze(&mut node);
    node.tell(&frozen(1), Vec::new());
    let client = node.connect();
    node.send(client, &invocation("f", b"{}"));
    let (slot, generation) = (SlotId(1), GENERATION);
    assert_eq!(node.next_request(), Some(Request::Thaw { slot, generation }));
    node.pass(6 * SECOND);
    let mut said = Vec::new();
    while let Some(request) = node.next_request() {
        said.push(request);
    }
    assert!(said.contains(&Request::Kill { slot, generation }), "{said:?}");
    assert_eq!(node.answer(client).status, 429, "its time in the queue was over");
}

#[test]
fn frozen_instances_make_room_when_memory_is_short() {
    let (mut node, _instance) = one_instance();
    freeze(&mut node);
    node.tell(&frozen(1), Vec::new());
    node.tell(&Event::Shortage { memory_mb: 128 }, Vec::new());
    let (slot, generation) = (SlotId(1), GENERATION);
    assert_eq!(node.next_request(), Some(Request::Thaw { slot, generation }));
    assert_eq!(node.next_request(), Some(Request::Kill { slot, generation }));
}

#[test]
fn a_function_keeps_its_least_instances_whatever_happens() {
    let mut node = Node::new();
    deploy(&mut node, function(2));
    let (first, second) = (node.start(), node.start());
    assert_eq!(node.next_request(), None, "two and no more");
    node.pass(200 * SECOND);
    node.tell(&Event::Shortage { memory_mb: 1000 }, Vec::new());
    assert_eq!(node.next_request(), None, "neither frozen nor ended");
    assert_eq!(node.audit().instances, 2);
    // One dies: a successor is asked for, refused, and asked for again.
    node.tell(&ended(1, End::Exited(1)), Vec::new());
    node.sim.close(first.channel);
    node.settle();
    let Some(Request::Claim(claim)) = node.next_request() else { panic!("a successor") };
    let refused = Event::Refused { ticket: claim.ticket, refusal: Refusal::Boot, errno: 0 };
    node.tell(&refused, Vec::new());
    assert_eq!(node.next_request(), None, "not at once");
    node.pass(2 * SECOND);
    let _third = node.start();
    assert_eq!(node.audit().functions[0].serving, 2);
    // Fewer are wanted: the others may rest and go.
    deploy(&mut node, Deployed { revision: 99, ..function(0) });
    node.pass(10 * SECOND);
    drop(second);
    assert!(matches!(node.next_request(), Some(Request::Kill { .. })), "of the older revision");
}

#[test]
fn a_redeploy_while_the_least_ones_are_being_claimed_gets_its_own() {
    let mut node = Node::new();
    deploy(&mut node, function(1));
    deploy(&mut node, Deployed { revision: 99, ..function(1) });
    let Some(Request::Claim(old)) = node.next_request() else { panic!("of the older revision") };
    assert_eq!(node.next_request(), None, "it counts until it is answered");
    let event = Event::Claimed {
        ticket: old.ticket,
        slot: SlotId(7),
        generation: GENERATION,
        pid: 1,
        source: ClaimSource::Pool,
        claim_us: 1,
        attach_us: 1,
    };
    node.tell(&event, Vec::new());
    assert_eq!(node.next_request(), Some(Request::Kill { slot: SlotId(7), generation: GENERATION }));
    let _newest = node.start();
    assert_eq!(node.audit().functions[0].serving, 1);
}

#[test]
fn what_dies_in_demand_is_replaced_before_the_next_call() {
    let (mut node, instance) = one_instance();
    node.tell(&ended(1, End::Signalled(11)), Vec::new());
    node.sim.close(instance.channel);
    node.settle();
    let successor = node.start();
    assert_eq!(node.audit().functions[0].serving, 1);
    // The successor dies without having served anybody: one more would only die as well.
    node.tell(&ended(2, End::Signalled(11)), Vec::new());
    node.sim.close(successor.channel);
    node.settle();
    assert_eq!(node.next_request(), None);
    assert_eq!(node.audit().instances, 0);
}

#[test]
fn what_dies_long_after_its_last_call_is_not_replaced() {
    let (mut node, instance) = one_instance();
    node.pass(15 * SECOND);
    node.tell(&ended(1, End::Signalled(11)), Vec::new());
    node.sim.close(instance.channel);
    node.settle();
    assert_eq!((node.next_request(), node.audit().instances), (None, 0));
}
