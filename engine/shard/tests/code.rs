//! Code that is not on disk when a call needs it: asked for, waited for, held while it is in use.
//!
//! Owns: the cases. Time is simulated; the test plays funclet and control. Must not know: how code is stored.

#[allow(dead_code, reason = "shared with tests that use more of it")]
mod node;
mod play;

use std::sync::Arc;

use faaster_function::Deployed;
use faaster_function::code_use::CodeLease;
use faaster_function::deployed::Concurrency;
use faaster_protocol::frame::FrameType;
use faaster_protocol::funclet::{CodeHash, End, Event, Generation, Refusal, Request, SlotId, Ticket};
use faaster_shard::api::CodeAbsent;
use faaster_shard::{Command, Notice, ShardId};
use faaster_sys::ring::sim::WireId;
use node::Node;
use play::{deployed, invocation};

const LAYERS: CodeHash = CodeHash([77; 32]);

fn function() -> Deployed {
    Deployed { layers: Some(LAYERS), ..(*deployed("f", Concurrency::Exclusive, 3000)).clone() }
}

fn deploy(node: &mut Node, function: Deployed) {
    node.command(Command::Deploy(Arc::new(function), Box::new(|_: ShardId| {})));
}

fn call(node: &mut Node) -> WireId {
    let client = node.connect();
    node.send(client, &invocation("f", b"{}"));
    client
}

/// A node with a function, and a call that waits for its claim.
fn one_call() -> (Node, WireId, Ticket) {
    let mut node = Node::new();
    deploy(&mut node, function());
    let client = call(&mut node);
    let ticket = claim(&mut node).expect("a claim");
    (node, client, ticket)
}

fn claim(node: &mut Node) -> Option<Ticket> {
    match node.next_request()? {
        Request::Claim(claim) => Some(claim.ticket),
        other => panic!("{other:?}"),
    }
}

fn refuse(node: &mut Node, ticket: Ticket) {
    node.tell(&Event::Refused { ticket, refusal: Refusal::Code, errno: 2 }, Vec::new());
}

/// What the shard asked control for since the last look.
fn wanted(node: &mut Node) -> Vec<Arc<Deployed>> {
    node.settle();
    let code = |notice| match notice {
        Notice::CodeWanted { function, .. } => Some(function),
        _ => None,
    };
    node.notices.try_iter().filter_map(code).collect()
}

fn lease(node: &Node) -> CodeLease {
    node.code_uses.take(function().code, Some(LAYERS)).expect("nothing is being removed")
}

#[test]
fn a_call_waits_until_its_code_is_back_and_holds_it() {
    let (mut node, client, ticket) = one_call();
    assert!(node.code_uses.is_used(&function().code), "a claim under way holds its code");
    refuse(&mut node, ticket);
    assert!(!node.code_uses.is_used(&function().code));
    let asked = wanted(&mut node);
    assert_eq!(asked.len(), 1);
    let other = call(&mut node);
    assert_eq!((claim(&mut node), wanted(&mut node).len()), (None, 0), "once is enough");
    let lease = lease(&node);
    node.command(Command::Code(asked[0].clone(), Ok(lease)));
    let mut instance = node.start();
    for client in [client, other] {
        let (id, _) = node.call(&mut instance);
        node.say(&instance, FrameType::Response, id, b"1");
        assert_eq!(node.answer(client).status, 200);
    }
    for package in [function().code, LAYERS] {
        assert!(node.code_uses.is_used(&package), "an instance holds its code");
        assert_eq!(node.code_uses.used_ns(&package), None);
    }
    // Or one that died in demand would have a successor.
    node.command(Command::Invalidate { funclet: 0, slot: 1, reply: Box::new(|_| {}) });
    let used_ns = node.sim.now_ns();
    node.pass(std::time::Duration::from_secs(1));
    let end = Event::Ended {
        slot: SlotId(1),
        generation: Generation(1),
        end: End::Killed,
        memory_peak_bytes: 1,
        memory_limit_bytes: 1,
        cpu_used_us: 1,
    };
    node.tell(&end, Vec::new());
    node.sim.close(instance.channel);
    node.settle();
    for package in [function().code, LAYERS] {
        assert!(!node.code_uses.is_used(&package));
        let known_ns = node.code_uses.used_ns(&package).expect("it was used");
        assert!(known_ns <= used_ns && known_ns > 0, "{known_ns} {used_ns}");
    }
}

#[test]
fn code_that_is_lost_is_said() {
    let (mut node, client, ticket) = one_call();
    refuse(&mut node, ticket);
    let asked = wanted(&mut node);
    node.command(Command::Code(asked[0].clone(), Err(CodeAbsent::Missing)));
    assert_eq!(node.answer(client).status, 500);
    // The next call asks anew.
    call(&mut node);
    let ticket = claim(&mut node).expect("a claim");
    refuse(&mut node, ticket);
    assert_eq!(wanted(&mut node).len(), 1);
}

#[test]
fn without_room_a_call_waits_to_its_deadline_and_code_is_asked_for_again() {
    let (mut node, client, ticket) = one_call();
    refuse(&mut node, ticket);
    let asked = wanted(&mut node);
    node.pass(std::time::Duration::from_millis(2000));
    let later = call(&mut node);
    node.command(Command::Code(asked[0].clone(), Err(CodeAbsent::NoRoom)));
    let ticket = claim(&mut node).expect("it may be there by now");
    refuse(&mut node, ticket);
    assert_eq!(wanted(&mut node).len(), 1);
    node.pass(std::time::Duration::from_millis(1500));
    assert_eq!(node.answer(client).status, 429);
    assert!(node.answers(later, false).is_empty(), "it came later, and waits on");
    let lease = lease(&node);
    node.command(Command::Code(asked[0].clone(), Ok(lease)));
    let mut instance = node.start();
    let (id, _) = node.call(&mut instance);
    node.say(&instance, FrameType::Response, id, b"1");
    assert_eq!(node.answer(later).status, 200);
}

#[test]
fn code_that_is_missing_on_control_s_word_fails_the_call() {
    let (mut node, client, ticket) = one_call();
    refuse(&mut node, ticket);
    let (asked, lease) = (wanted(&mut node), lease(&node));
    node.command(Command::Code(asked[0].clone(), Ok(lease)));
    let ticket = claim(&mut node).expect("a second claim");
    refuse(&mut node, ticket);
    let answer = node.answer(client);
    assert_eq!(answer.status, 500);
    assert!(String::from_utf8(answer.body).unwrap().contains("code is not on this node"));
    assert!(wanted(&mut node).is_empty());
    assert!(!node.code_uses.is_used(&LAYERS));
}

#[test]
fn nothing_is_claimed_while_its_code_is_being_removed() {
    let mut node = Node::new();
    deploy(&mut node, function());
    let uses = node.code_uses.clone();
    let leaving = uses.leave([&LAYERS]).unwrap();
    call(&mut node);
    assert_eq!((claim(&mut node), wanted(&mut node).len()), (None, 1));
    assert!(!node.code_uses.is_used(&function().code), "all of it or nothing");
    drop(leaving);
}

#[test]
fn an_answer_for_other_code_changes_nothing_and_is_not_kept() {
    let (mut node, _, ticket) = one_call();
    refuse(&mut node, ticket);
    let asked = wanted(&mut node);
    deploy(&mut node, Deployed { revision: 99, code: CodeHash([5; 32]), ..function() });
    assert!(claim(&mut node).is_some(), "the new code is there until somebody says otherwise");
    let lease = lease(&node);
    node.command(Command::Code(asked[0].clone(), Ok(lease)));
    assert!(claim(&mut node).is_none());
    assert!(!node.code_uses.is_used(&function().code));
}
