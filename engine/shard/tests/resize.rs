//! A function's memory is edited: its instances go on where they can.
//!
//! Owns: the cases. Time is simulated. Must not know: what a limit is to the kernel.

#[allow(dead_code, reason = "shared with tests that use more of it")]
mod node;
mod play;

use std::sync::Arc;

use faaster_function::Deployed;
use faaster_function::deployed::Concurrency;
use faaster_protocol::frame::FrameType;
use faaster_protocol::funclet::{Event, Generation, Request, Size, SlotId};
use faaster_shard::{Command, ShardId};
use node::{Instance, Node};
use play::{deployed, invocation};

const SLOT: SlotId = SlotId(1);
const GENERATION: Generation = Generation(1);

fn deploy(node: &mut Node, function: Deployed) {
    node.command(Command::Deploy(Arc::new(function), Box::new(|_: ShardId| {})));
}

fn function() -> Deployed {
    (*deployed("f", Concurrency::Exclusive, 3000)).clone()
}

fn edited(revision: u64, memory_mb: u32) -> Deployed {
    Deployed { revision, function_tag: revision, memory_mb, ..function() }
}

fn resize(memory_mb: u32, tmp_mb: u32, function_tag: u64) -> Option<Request> {
    let size = Size { memory_mb, tmp_mb, function_tag };
    Some(Request::Resize { slot: SLOT, generation: GENERATION, size })
}

/// Calls, answers as the instance, and gives the meta object that it got.
fn call_through(node: &mut Node, instance: &mut Instance) -> String {
    let client = node.connect();
    node.send(client, &invocation("f", b"{}"));
    let frame = node.frame(instance).expect("a call");
    assert_eq!(frame.header.kind, FrameType::Invoke);
    node.say(instance, FrameType::Response, frame.header.invocation, b"1");
    assert_eq!(node.answer(client).status, 200);
    frame.meta
}

/// A node with one instance that has answered one call.
fn one_instance() -> (Node, Instance) {
    let mut node = Node::new();
    deploy(&mut node, function());
    let client = node.connect();
    node.send(client, &invocation("f", b"{}"));
    let mut instance = node.start();
    let (id, _) = node.call(&mut instance);
    node.say(&instance, FrameType::Response, id, b"1");
    assert_eq!(node.answer(client).status, 200);
    (node, instance)
}

#[test]
fn an_instance_goes_on_with_another_memory() {
    let (mut node, mut instance) = one_instance();
    let before = call_through(&mut node, &mut instance);
    assert!(!before.contains("memoryMB"), "{before}");
    deploy(&mut node, edited(2, 2048));
    assert_eq!(node.next_request(), resize(2048, 512, 2));
    assert_eq!(node.next_request(), None, "it is not ended");
    let told = call_through(&mut node, &mut instance);
    assert!(told.ends_with(",\"memoryMB\":2048}"), "{told}");
    deploy(&mut node, edited(3, 128));
    assert_eq!(node.next_request(), resize(128, 64, 3));
    let told = call_through(&mut node, &mut instance);
    assert!(!told.contains("memoryMB"), "what it was loaded with needs no word: {told}");
    assert_eq!((node.audit().counters.cold_starts_total, node.audit().instances), (1, 1));
}

#[test]
fn one_that_is_busy_goes_on_too() {
    let (mut node, mut instance) = one_instance();
    let client = node.connect();
    node.send(client, &invocation("f", b"{}"));
    let (id, _) = node.call(&mut instance);
    deploy(&mut node, edited(2, 256));
    assert_eq!(node.next_request(), resize(256, 128, 2));
    node.say(&instance, FrameType::Response, id, b"1");
    assert_eq!(node.answer(client).status, 200);
    call_through(&mut node, &mut instance);
    assert_eq!((node.next_request(), node.audit().instances), (None, 1));
}

#[test]
fn one_that_cannot_have_it_finishes_and_goes() {
    let (mut node, mut instance) = one_instance();
    let client = node.connect();
    node.send(client, &invocation("f", b"{}"));
    let (id, _) = node.call(&mut instance);
    deploy(&mut node, edited(2, 256));
    assert_eq!(node.next_request(), resize(256, 128, 2));
    node.tell(&Event::NotResized { slot: SLOT, generation: GENERATION }, Vec::new());
    node.say(&instance, FrameType::Response, id, b"1");
    assert_eq!(node.answer(client).status, 200, "what runs is finished");
    assert_eq!(node.frame(&mut instance).map(|frame| frame.header.kind), Some(FrameType::Shutdown));
    let client = node.connect();
    node.send(client, &invocation("f", b"{}"));
    let Some(Request::Claim(claim)) = node.next_request() else { panic!("the next call gets a new one") };
    assert_eq!(claim.memory_mb, 256);
}

#[test]
fn more_than_memory_is_a_deploy_like_any_other() {
    let (mut node, mut instance) = one_instance();
    deploy(&mut node, Deployed { timeout_ms: 4000, ..edited(2, 256) });
    assert_eq!(node.next_request(), None, "nothing is resized");
    assert_eq!(node.frame(&mut instance).map(|frame| frame.header.kind), Some(FrameType::Shutdown));
}

#[test]
fn the_same_again_is_a_deploy_like_any_other() {
    let (mut node, mut instance) = one_instance();
    deploy(&mut node, edited(2, 128));
    assert_eq!(node.next_request(), None, "nothing is resized");
    assert_eq!(node.frame(&mut instance).map(|frame| frame.header.kind), Some(FrameType::Shutdown));
}

#[test]
fn one_that_is_being_loaded_goes_on_too() {
    let mut node = Node::new();
    deploy(&mut node, function());
    let client = node.connect();
    node.send(client, &invocation("f", b"{}"));
    let mut instance = node.serve();
    deploy(&mut node, edited(2, 256));
    assert_eq!(node.next_request(), resize(256, 128, 2));
    node.say(&instance, FrameType::Ready, 0, b"");
    let (id, _) = node.call(&mut instance);
    node.say(&instance, FrameType::Response, id, b"1");
    assert_eq!(node.answer(client).status, 200);
    assert_eq!(node.audit().counters.cold_starts_total, 1);
}
