//! The simulation itself: it must do what it promises before it can judge a shard.

use rustix::event::{EventfdFlags, eventfd};

use super::super::{Armed, Received};
use super::*;

const SIZES: GroupSize = GroupSize { count: 4, bytes: 16 };

fn calm() -> (SimHandle, Sim) {
    let handle = SimHandle::new(1, Faults::NONE);
    let sim = handle.ring(SIZES, SIZES);
    (handle, sim)
}

fn wait(sim: &mut Sim) -> Vec<Completion> {
    let mut out = Vec::new();
    sim.wait(Some(Duration::from_secs(1)), &mut out).unwrap();
    out
}

fn accepted(handle: &SimHandle, sim: &mut Sim) -> (WireId, Sock) {
    let (listener, descriptor) = handle.listener();
    let client = handle.connect(listener);
    let listener = sim.adopt(descriptor);
    sim.accept(listener, Token(1));
    let [Completion::Accepted { token: Token(1), result: Ok(sock), armed: Armed::Yes }] = wait(sim)[..]
    else {
        panic!("one connection was there")
    };
    (client, sock)
}

#[test]
fn bytes_go_both_ways_and_the_end_is_seen() {
    let (handle, mut sim) = calm();
    let (client, sock) = accepted(&handle, &mut sim);
    sim.receive(sock, Group::Client, Token(2));
    handle.send(client, b"hello");
    let mut completions = wait(&mut sim);
    let Completion::Received { received: Received::Data(lease), armed: Armed::Yes, .. } =
        completions.remove(0)
    else {
        panic!("data was sent")
    };
    assert_eq!(&lease[..], b"hello");
    assert_eq!(handle.buffers_out(sim.id()), [1, 0]);
    sim.give_back(lease);
    assert_eq!(handle.buffers_out(sim.id()), [0, 0]);
    sim.send(sock, b"xx answer".to_vec(), 3, Token(3));
    assert!(matches!(wait(&mut sim)[..], [Completion::Sent { token: Token(3), result: Ok(6), .. }]));
    assert_eq!(handle.take(client, 100), b"answer");
    handle.shutdown(client);
    assert!(matches!(
        wait(&mut sim)[..],
        [Completion::Received { received: Received::End, armed: Armed::No, .. }]
    ));
    assert_eq!(handle.peer_view(client), PeerView::Open);
    sim.close(sock);
    wait(&mut sim);
    assert_eq!(handle.peer_view(client), PeerView::Ended);
}

#[test]
fn an_empty_group_starves_a_receive_until_buffers_come_back() {
    let (handle, mut sim) = calm();
    let (client, sock) = accepted(&handle, &mut sim);
    sim.receive(sock, Group::Client, Token(2));
    handle.send(client, &[7; 16 * 5]);
    let mut leases = Vec::new();
    let mut starved = false;
    while !starved {
        for completion in wait(&mut sim) {
            match completion {
                Completion::Received { received: Received::Data(lease), .. } => leases.push(lease),
                Completion::Received { received: Received::Failed(errno), armed, .. } => {
                    assert_eq!((errno, armed), (rustix::io::Errno::NOBUFS, Armed::No));
                    starved = true;
                }
                other => panic!("{other:?} was not expected"),
            }
        }
    }
    assert_eq!(leases.len(), 4);
    leases.into_iter().for_each(|lease| sim.give_back(lease));
    sim.receive(sock, Group::Client, Token(2));
    assert!(matches!(wait(&mut sim)[..], [Completion::Received { received: Received::Data(_), .. }]));
}

#[test]
fn waiting_jumps_to_the_timeout_and_no_further() {
    let (handle, mut sim) = calm();
    let before_ns = handle.now_ns();
    assert!(wait(&mut sim).is_empty());
    assert_eq!(handle.now_ns() - before_ns, 1_000_000_000);
    sim.wait(None, &mut Vec::new()).unwrap();
    assert_eq!(handle.now_ns() - before_ns, 1_000_000_000, "nothing to wait for");
}

#[test]
fn a_full_window_holds_a_send_until_the_peer_reads() {
    let (handle, mut sim) = calm();
    let (client, sock) = accepted(&handle, &mut sim);
    handle.set_window(client, 4);
    sim.send(sock, b"abcdef".to_vec(), 0, Token(3));
    let Completion::Sent { result: Ok(4), buffer, .. } = wait(&mut sim).remove(0) else {
        panic!("room for 4")
    };
    sim.send(sock, buffer, 4, Token(3));
    assert!(wait(&mut sim).is_empty());
    assert_eq!(handle.take(client, 100), b"abcd");
    assert!(matches!(wait(&mut sim)[..], [Completion::Sent { result: Ok(2), .. }]));
    assert_eq!(handle.take(client, 100), b"ef");
}

#[test]
fn records_carry_descriptors_and_dropped_ones_are_noticed() {
    let (handle, mut sim) = calm();
    let (funclet, descriptor) = handle.records();
    let sock = sim.adopt(descriptor);
    let (runtime, channel) = handle.stream();
    sim.receive_message(sock, Token(5));
    handle.send_record(funclet, b"claimed", vec![channel]);
    let Completion::Message { result: Ok(Some(message)), .. } = wait(&mut sim).remove(0) else {
        panic!("a record was sent")
    };
    assert_eq!((&message.bytes[..message.length], message.descriptors.len()), (&b"claimed"[..], 1));
    assert_eq!(handle.peer_view(runtime), PeerView::Open);
    drop(message);
    assert_eq!(handle.peer_view(runtime), PeerView::Ended);
    sim.send(sock, b"kill".to_vec(), 0, Token(6));
    wait(&mut sim);
    assert_eq!(handle.take_record(funclet).unwrap(), b"kill");
}

#[test]
fn a_stopped_receive_ends_with_one_last_completion() {
    let (handle, mut sim) = calm();
    let (client, sock) = accepted(&handle, &mut sim);
    let operation = sim.receive(sock, Group::Client, Token(2));
    assert!(!handle.is_due(sim.id()));
    sim.stop(operation);
    handle.send(client, b"kept");
    let completions = wait(&mut sim);
    let [Completion::Received { received: Received::Failed(errno), armed: Armed::No, .. }] = completions[..]
    else {
        panic!("{completions:?}")
    };
    assert_eq!(errno, rustix::io::Errno::CANCELED);
    sim.receive(sock, Group::Client, Token(2));
    assert!(matches!(wait(&mut sim)[..], [Completion::Received { received: Received::Data(_), .. }]));
}

#[test]
fn the_bell_is_real() {
    let (_, mut sim) = calm();
    let bell = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let sock = sim.adopt(bell.try_clone().unwrap());
    sim.listen_bell(sock, Token(9));
    assert!(wait(&mut sim).is_empty());
    rustix::io::write(&bell, &1u64.to_ne_bytes()).unwrap();
    assert!(matches!(wait(&mut sim)[..], [Completion::Rung { token: Token(9) }]));
}

#[test]
#[should_panic(expected = "is under way")]
fn two_receives_on_one_stream_are_a_defect() {
    let (handle, mut sim) = calm();
    let (_, sock) = accepted(&handle, &mut sim);
    sim.receive(sock, Group::Client, Token(2));
    sim.receive(sock, Group::Client, Token(3));
    wait(&mut sim);
}

#[test]
#[should_panic(expected = "is not open")]
fn a_closed_descriptor_cannot_be_used() {
    let (handle, mut sim) = calm();
    let (_, sock) = accepted(&handle, &mut sim);
    sim.close(sock);
    sim.receive(sock, Group::Client, Token(2));
    wait(&mut sim);
}

/// With faults of every kind, all bytes still arrive once and in order, and the same seed tells the same story.
#[test]
fn faults_lose_nothing_and_repeat() {
    let story = |seed: u64| {
        let faults = Faults::random(&mut Dice::new(seed));
        let handle = SimHandle::new(seed, faults);
        let mut sim = handle.ring(SIZES, SIZES);
        let (wire, descriptor) = handle.stream();
        let sock = sim.adopt(descriptor);
        let wire_bytes: Vec<u8> = (0..=255).collect();
        handle.send(wire, &wire_bytes);
        handle.shutdown(wire);
        sim.receive(sock, Group::Client, Token(1));
        let (mut got, mut lengths, mut ended) = (Vec::new(), Vec::new(), false);
        while !ended {
            for completion in wait(&mut sim) {
                let Completion::Received { received, armed, .. } = completion else {
                    panic!("only a receive")
                };
                match received {
                    Received::Data(lease) => {
                        got.extend_from_slice(&lease);
                        lengths.push(lease.len());
                        sim.give_back(lease);
                    }
                    Received::End => ended = true,
                    Received::Failed(errno) => assert_eq!(errno, rustix::io::Errno::NOBUFS),
                }
                if armed == Armed::No && !ended {
                    sim.receive(sock, Group::Client, Token(1));
                }
            }
        }
        assert_eq!(got, wire_bytes, "seed {seed}");
        assert_eq!(handle.buffers_out(sim.id()), [0, 0], "seed {seed}");
        (lengths, handle.now_ns())
    };
    for seed in 0..50 {
        assert_eq!(story(seed), story(seed));
    }
}
