//! The real ring against real sockets and pipes. Skips with the reason printed where there is no io_uring.

use std::io::{PipeWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use faaster_patience::patience;
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;
use crate::fdpass::send_with_fds;
use crate::ring::MESSAGE_BYTES_MAX;

const BUFFERS: GroupSize = GroupSize { count: 8, bytes: 512 };

/// Far above what anything takes.
fn deadline() -> Duration {
    patience(Duration::from_secs(10))
}

/// Which descriptors the ring accepts into. `Direct` only where the kernel is good at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Descriptors {
    Direct,
    Plain,
}

impl Descriptors {
    fn are_direct(self) -> bool {
        self == Self::Direct && probe::direct_close_is_prompt()
    }
}

fn prepared(descriptors: Descriptors) -> Option<Uring> {
    let config = UringConfig {
        entries: 32,
        completions: 128,
        client_buffers: BUFFERS,
        instance_buffers: BUFFERS,
        // The kernel makes no table of none.
        direct_descriptors: if descriptors == Descriptors::Direct { 16 } else { 0 },
    };
    match Uring::prepare(&config) {
        Ok(ring) => {
            assert_eq!(ring.features().direct_descriptors, descriptors.are_direct());
            Some(ring)
        }
        Err(refusal @ (RingRefusal::Sysctl(_) | RingRefusal::Seccomp(_) | RingRefusal::Absent)) => {
            eprintln!("skipped: {refusal}");
            None
        }
        Err(other) => panic!("{other}"),
    }
}

fn enabled(descriptors: Descriptors) -> Option<Uring> {
    let mut ring = prepared(descriptors)?;
    ring.enable().unwrap();
    Some(ring)
}

/// Waits for the next completion.
fn next(ring: &mut Uring, waiting: &mut Vec<Completion>) -> Completion {
    let until = Instant::now() + deadline();
    while waiting.is_empty() {
        assert!(Instant::now() < until, "nothing happened");
        ring.wait(Some(Duration::from_millis(200)), waiting).unwrap();
    }
    waiting.remove(0)
}

/// A ring, what it has said, and an accepted connection with its client.
struct Connected {
    ring: Uring,
    waiting: Vec<Completion>,
    sock: Sock,
    client: TcpStream,
}

impl Connected {
    fn new(descriptors: Descriptors) -> Option<Self> {
        let mut ring = enabled(descriptors)?;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(deadline())).unwrap();
        let listener = ring.adopt(listener.into());
        ring.accept(listener, Token(1));
        let mut waiting = Vec::new();
        let Completion::Accepted { token: Token(1), result: Ok(sock), armed: Armed::Yes } =
            next(&mut ring, &mut waiting)
        else {
            panic!("a connection was there")
        };
        assert_eq!(matches!(sock, Sock::Direct(_)), descriptors.are_direct());
        Some(Self { ring, waiting, sock, client })
    }

    fn next(&mut self) -> Completion {
        next(&mut self.ring, &mut self.waiting)
    }

    fn next_data(&mut self) -> (Lease, Armed) {
        match self.next() {
            Completion::Received { received: Received::Data(lease), armed, .. } => (lease, armed),
            other => panic!("data was expected, not {other:?}"),
        }
    }

    /// Sends all of `bytes`, however short each send.
    fn send_all(&mut self, bytes: Vec<u8>) {
        let total = bytes.len();
        self.ring.send(self.sock, bytes, 0, Token(3));
        let mut from = 0;
        loop {
            let Completion::Sent { token: Token(3), result, buffer } = self.next() else {
                panic!("only a send is under way")
            };
            from += result.unwrap();
            if from == total {
                return;
            }
            self.ring.send(self.sock, buffer, from, Token(3));
        }
    }
}

#[test]
fn a_connection_lives_and_ends_on_either_kind_of_descriptor() {
    for descriptors in [Descriptors::Direct, Descriptors::Plain] {
        let Some(mut it) = Connected::new(descriptors) else { return };
        it.ring.receive(it.sock, Group::Client, Token(2));
        it.client.write_all(b"ping").unwrap();
        let (lease, armed) = it.next_data();
        assert_eq!((&lease[..], armed), (&b"ping"[..], Armed::Yes));
        it.ring.give_back(lease);
        it.send_all(b"pong".to_vec());
        let mut answer = [0; 4];
        it.client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"pong");
        it.ring.close(it.sock);
        let Completion::Received { received: Received::Failed(errno), armed: Armed::No, .. } = it.next()
        else {
            panic!("the receive ends with its socket")
        };
        assert_eq!(errno, Errno::CANCELED);
        assert_eq!(it.client.read(&mut answer).unwrap(), 0, "the client sees the end");
    }
}

/// A connection is closed when it is closed, however long another one has been idle.
#[test]
fn an_idle_connection_keeps_no_other_open() {
    for descriptors in [Descriptors::Direct, Descriptors::Plain] {
        let Some(mut it) = Connected::new(descriptors) else { return };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(deadline())).unwrap();
        it.ring.receive(it.sock, Group::Client, Token(2));
        let listener = it.ring.adopt(listener.into());
        it.ring.accept(listener, Token(4));
        let Completion::Accepted { token: Token(4), result: Ok(sock), .. } = it.next() else {
            panic!("a connection was there")
        };
        it.ring.close(sock);
        it.ring.wait(Some(Duration::ZERO), &mut it.waiting).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "the client sees the end");
        it.client.write_all(b"still here").unwrap();
        let (lease, _) = it.next_data();
        it.ring.give_back(lease);
    }
}

#[test]
fn buffers_serve_for_ever() {
    let Some(mut it) = Connected::new(Descriptors::Direct) else { return };
    it.ring.receive(it.sock, Group::Client, Token(2));
    for round in 0..1000u32 {
        it.client.write_all(&round.to_le_bytes()).unwrap();
        let (lease, armed) = it.next_data();
        assert_eq!((&lease[..], armed), (&round.to_le_bytes()[..], Armed::Yes), "round {round}");
        it.ring.give_back(lease);
    }
}

#[test]
fn a_receive_without_buffers_says_so_and_goes_on_when_there_are() {
    let Some(mut it) = Connected::new(Descriptors::Direct) else { return };
    it.ring.receive(it.sock, Group::Client, Token(2));
    let sent: Vec<u8> = (0..20_000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    it.client.write_all(&sent).unwrap();
    let (mut leases, mut got) = (Vec::new(), Vec::new());
    loop {
        match it.next() {
            Completion::Received { received: Received::Data(lease), .. } => {
                got.extend_from_slice(&lease);
                leases.push(lease);
            }
            Completion::Received { received: Received::Failed(errno), armed, .. } => {
                assert_eq!((errno, armed), (Errno::NOBUFS, Armed::No));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(leases.len(), usize::from(BUFFERS.count));
    leases.drain(..).for_each(|lease| it.ring.give_back(lease));
    it.ring.receive(it.sock, Group::Client, Token(2));
    while got.len() < sent.len() {
        match it.next() {
            Completion::Received { received: Received::Data(lease), armed, .. } => {
                got.extend_from_slice(&lease);
                it.ring.give_back(lease);
                assert_eq!(armed, Armed::Yes);
            }
            Completion::Received { received: Received::Failed(Errno::NOBUFS), .. } => {
                it.ring.receive(it.sock, Group::Client, Token(2));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(got == sent, "the bytes came in order");
}

#[test]
fn a_stopped_receive_ends_once_and_loses_nothing() {
    for descriptors in [Descriptors::Direct, Descriptors::Plain] {
        let Some(mut it) = Connected::new(descriptors) else { return };
        let operation = it.ring.receive(it.sock, Group::Client, Token(2));
        it.ring.wait(Some(Duration::ZERO), &mut it.waiting).unwrap();
        it.ring.stop(operation);
        let Completion::Received { received: Received::Failed(Errno::CANCELED), armed: Armed::No, .. } =
            it.next()
        else {
            panic!("the last completion of a stopped receive")
        };
        it.ring.stop(operation);
        it.client.write_all(b"kept").unwrap();
        it.ring.wait(Some(Duration::from_millis(20)), &mut it.waiting).unwrap();
        assert!(it.waiting.is_empty(), "stopping what is over does nothing: {:?}", it.waiting);
        it.ring.receive(it.sock, Group::Client, Token(4));
        let (lease, _) = it.next_data();
        assert_eq!(&lease[..], b"kept");
        it.ring.give_back(lease);
    }
}

#[test]
fn large_sends_go_out_in_pieces_and_in_order() {
    let Some(mut it) = Connected::new(Descriptors::Direct) else { return };
    let sent: Vec<u8> = (0..4_000_000u32).map(|n| u8::try_from(n % 253).unwrap()).collect();
    let mut client = it.client.try_clone().unwrap();
    let length = sent.len();
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; length];
        client.read_exact(&mut got).unwrap();
        got
    });
    it.send_all(sent.clone());
    assert!(reader.join().unwrap() == sent);
}

#[test]
fn a_closed_sending_side_still_receives() {
    let Some(mut it) = Connected::new(Descriptors::Direct) else { return };
    it.ring.receive(it.sock, Group::Client, Token(2));
    it.ring.shutdown_write(it.sock);
    it.ring.wait(Some(Duration::ZERO), &mut it.waiting).unwrap();
    assert_eq!(it.client.read(&mut [0; 1]).unwrap(), 0);
    it.client.write_all(b"late").unwrap();
    let (lease, _) = it.next_data();
    assert_eq!(&lease[..], b"late");
    it.ring.give_back(lease);
    drop(it.client);
    let end = next(&mut it.ring, &mut it.waiting);
    assert!(matches!(end, Completion::Received { received: Received::End, armed: Armed::No, .. }), "{end:?}");
}

#[test]
fn records_bring_their_descriptors() {
    let Some(mut ring) = enabled(Descriptors::Direct) else { return };
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let sock = ring.adopt(ours);
    let mut waiting = Vec::new();
    let (mut near, far) = UnixStream::pair().unwrap();
    near.set_read_timeout(Some(deadline())).unwrap();
    for round in 0..3 {
        ring.receive_message(sock, Token(5));
        send_with_fds(theirs.as_fd(), b"record", &[far.as_fd(), theirs.as_fd()]).unwrap();
        let Completion::Message { token: Token(5), result: Ok(Some(message)) } =
            next(&mut ring, &mut waiting)
        else {
            panic!("a record was sent")
        };
        assert_eq!(&message.bytes[..message.length], b"record");
        assert_eq!(message.descriptors.len(), 2);
        let mut passed = UnixStream::from(message.descriptors.into_iter().next().unwrap());
        passed.write_all(&[round]).unwrap();
        let mut byte = [0];
        near.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [round]);
    }
    // A record that is too long is no record; what came beside it is closed.
    drop(far);
    let (mut near, far) = UnixStream::pair().unwrap();
    near.set_read_timeout(Some(deadline())).unwrap();
    ring.receive_message(sock, Token(5));
    send_with_fds(theirs.as_fd(), &[1; MESSAGE_BYTES_MAX + 1], &[far.as_fd()]).unwrap();
    drop(far);
    let Completion::Message { result: Err(errno), .. } = next(&mut ring, &mut waiting) else {
        panic!("a record that is too long was taken")
    };
    assert_eq!(errno, Errno::MSGSIZE);
    assert_eq!(near.read(&mut [0]).unwrap(), 0, "nobody holds the other end");
    ring.receive_message(sock, Token(5));
    drop(theirs);
    let end = next(&mut ring, &mut waiting);
    assert!(matches!(end, Completion::Message { result: Ok(None), .. }), "{end:?}");
}

#[test]
fn the_bell_wakes_as_often_as_it_is_rung() {
    let Some(mut ring) = enabled(Descriptors::Direct) else { return };
    let bell = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let sock = ring.adopt(bell.try_clone().unwrap());
    let mut waiting = Vec::new();
    for _ in 0..3 {
        ring.listen_bell(sock, Token(9));
        let ringer = bell.try_clone().unwrap();
        let thread = std::thread::spawn(move || rustix::io::write(&ringer, &1u64.to_ne_bytes()).unwrap());
        assert!(matches!(next(&mut ring, &mut waiting), Completion::Rung { token: Token(9) }));
        assert_eq!(thread.join().unwrap(), 8);
    }
}

fn pipe(ring: &mut Uring) -> (Sock, PipeWriter) {
    let (read_end, write_end) = std::io::pipe().unwrap();
    (ring.adopt(read_end.into()), write_end)
}

#[test]
fn pipes_are_read_and_drained() {
    let Some(mut ring) = enabled(Descriptors::Direct) else { return };
    let (sock, mut write_end) = pipe(&mut ring);
    let mut waiting = Vec::new();
    let mut out = b"kept ".to_vec();
    assert_eq!(ring.drain_now(sock, &mut out, 100), 0, "an empty pipe does not block");
    write_end.write_all(b"one two").unwrap();
    assert_eq!(ring.drain_now(sock, &mut out, 3), 3);
    assert_eq!(ring.drain_now(sock, &mut out, 100), 4);
    assert_eq!(out, b"kept one two");
    ring.read(sock, Group::Instance, Token(6));
    ring.wait(Some(Duration::ZERO), &mut waiting).unwrap();
    write_end.write_all(b"three").unwrap();
    let Completion::Received { token: Token(6), received: Received::Data(lease), armed: Armed::No } =
        next(&mut ring, &mut waiting)
    else {
        panic!("the pipe was written")
    };
    assert_eq!(&lease[..], b"three");
    ring.give_back(lease);
    drop(write_end);
    ring.read(sock, Group::Instance, Token(6));
    let end = next(&mut ring, &mut waiting);
    assert!(matches!(end, Completion::Received { received: Received::End, .. }), "{end:?}");
}

/// The log of a call is drained while a read is under way; whatever comes first, nothing is lost or doubled.
#[test]
fn draining_beside_a_read_loses_nothing() {
    let Some(mut ring) = enabled(Descriptors::Direct) else { return };
    let (sock, mut write_end) = pipe(&mut ring);
    let (mut waiting, mut drained, mut read) = (Vec::new(), Vec::new(), Vec::new());
    ring.read(sock, Group::Instance, Token(6));
    for round in 0..1000u16 {
        write_end.write_all(&round.to_le_bytes()).unwrap();
        ring.drain_now(sock, &mut drained, 100);
        ring.wait(Some(Duration::ZERO), &mut waiting).unwrap();
        for completion in waiting.drain(..) {
            let Completion::Received { received: Received::Data(lease), .. } = completion else {
                panic!("{completion:?}")
            };
            read.extend_from_slice(&lease);
            ring.give_back(lease);
            ring.read(sock, Group::Instance, Token(6));
        }
    }
    let numbers = |bytes: &[u8]| -> Vec<u16> {
        bytes.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
    };
    let mut all = [numbers(&drained), numbers(&read)].concat();
    all.sort_unstable();
    assert_eq!(all, (0..1000).collect::<Vec<u16>>());
}

/// What a runtime wrote to its log before it answered comes before the answer, in whichever order the kernel says so.
#[test]
fn what_pipes_bring_comes_first() {
    let Some(mut ring) = enabled(Descriptors::Direct) else { return };
    let (log, mut log_end) = pipe(&mut ring);
    let (channel, mut channel_end) = UnixStream::pair().unwrap();
    let channel = ring.adopt(channel.into());
    let mut waiting = Vec::new();
    ring.receive(channel, Group::Instance, Token(5));
    for log_is_first in [true, false] {
        ring.read(log, Group::Instance, Token(6));
        ring.wait(Some(Duration::ZERO), &mut waiting).unwrap();
        assert!(waiting.is_empty(), "{waiting:?}");
        if log_is_first {
            log_end.write_all(b"log").unwrap();
        }
        channel_end.write_all(b"answer").unwrap();
        if !log_is_first {
            log_end.write_all(b"log").unwrap();
        }
        // Both are there: one wait brings both.
        ring.wait(Some(deadline()), &mut waiting).unwrap();
        let texts: Vec<Vec<u8>> = waiting
            .drain(..)
            .map(|completion| {
                let Completion::Received { received: Received::Data(lease), .. } = completion else {
                    panic!("{completion:?}")
                };
                let text = lease.to_vec();
                ring.give_back(lease);
                text
            })
            .collect();
        assert_eq!(texts, [b"log".to_vec(), b"answer".to_vec()], "the log written first: {log_is_first}");
    }
}

#[test]
fn a_wait_ends_with_its_timeout() {
    let Some(mut ring) = enabled(Descriptors::Direct) else { return };
    let mut waiting = Vec::new();
    let begun = Instant::now();
    let before_ns = ring.now_ns();
    ring.wait(Some(Duration::from_millis(30)), &mut waiting).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(30), "it slept");
    assert!(ring.now_ns() - before_ns >= 30_000_000, "the ring's clock is the monotonic one");
    assert!(waiting.is_empty());
}

#[test]
fn polling_submits_and_collects_without_waiting() {
    for descriptors in [Descriptors::Direct, Descriptors::Plain] {
        let Some(mut connected) = Connected::new(descriptors) else { return };
        let mut happened = Vec::new();
        connected.ring.poll(&mut happened).unwrap();
        assert!(happened.is_empty(), "{happened:?}");
        connected.ring.receive(connected.sock, Group::Client, Token(2));
        connected.ring.send(connected.sock, b"out".to_vec(), 0, Token(3));
        connected.ring.poll(&mut happened).unwrap();
        let sent = |it: &Completion| matches!(it, Completion::Sent { token: Token(3), result: Ok(3), .. });
        assert!(happened.iter().any(sent), "a small send is over when it is submitted: {happened:?}");
        happened.clear();
        connected.client.write_all(b"in").unwrap();
        let until = Instant::now() + deadline();
        while happened.is_empty() {
            assert!(Instant::now() < until, "nothing happened");
            connected.ring.poll(&mut happened).unwrap();
        }
        let Some(Completion::Received { received: Received::Data(lease), .. }) = happened.pop() else {
            panic!("{happened:?}")
        };
        assert_eq!(&*lease, b"in");
        connected.ring.give_back(lease);
    }
}

#[test]
fn a_ring_works_on_the_thread_that_enables_it() {
    let Some(mut ring) = prepared(Descriptors::Direct) else { return };
    let too_early = ring.wait(Some(Duration::ZERO), &mut Vec::new());
    assert!(matches!(too_early, Err(RingError::Enter(_))), "{too_early:?}");
    let (sock, mut write_end) = pipe(&mut ring);
    write_end.write_all(b"hello").unwrap();
    let thread = std::thread::spawn(move || {
        ring.enable().unwrap();
        ring.read(sock, Group::Instance, Token(6));
        let Completion::Received { received: Received::Data(lease), .. } = next(&mut ring, &mut Vec::new())
        else {
            panic!("the pipe was written")
        };
        let text = lease.to_vec();
        ring.give_back(lease);
        text
    });
    assert_eq!(thread.join().unwrap(), b"hello");
}

/// Code that took over the process must not be able to do with the ring what seccomp forbids it otherwise.
#[test]
fn other_operations_are_refused() {
    let Some(mut ring) = enabled(Descriptors::Direct) else { return };
    let refused = |ring: &mut Uring, entry: squeue::Entry| {
        ring.push(&entry.user_data(77));
        ring.ring.submit_and_wait(1).unwrap();
        let completion = ring.ring.completion().next().unwrap();
        assert_eq!(completion.user_data(), 77);
        completion.result()
    };
    let path = c"/etc/passwd";
    let open = opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).build();
    assert_eq!(refused(&mut ring, open), -libc::EACCES);
    assert_eq!(refused(&mut ring, opcode::Nop::new().build()), -libc::EACCES);
    let read = opcode::Read::new(Fd(0), std::ptr::null_mut(), 0).build();
    assert_eq!(
        refused(&mut ring, read.flags(squeue::Flags::ASYNC)),
        -libc::EACCES,
        "a flag that is not ours"
    );
}

/// A send that finds no room is tried again; if its socket was closed meanwhile, its number may be another client's.
#[test]
fn a_send_to_a_closed_socket_never_reaches_the_next_one() {
    let Some(mut it) = Connected::new(Descriptors::Direct) else { return };
    // Until the socket takes no more: the last of these waits for room.
    loop {
        it.ring.send(it.sock, vec![b'x'; IMMEDIATE_BYTES_MAX], 0, Token(3));
        it.ring.wait(Some(Duration::from_millis(30)), &mut it.waiting).unwrap();
        if it.waiting.drain(..).count() == 0 {
            break;
        }
    }
    it.ring.send(it.sock, vec![b's'; IMMEDIATE_BYTES_MAX], 0, Token(4));
    it.ring.close(it.sock);
    let mut other = TcpStream::connect(it.client.peer_addr().unwrap()).unwrap();
    let mut sent = Vec::new();
    let mut accepted = None;
    while accepted.is_none() || sent.len() < 2 {
        match it.next() {
            Completion::Sent { token, result, .. } => sent.push((token, result)),
            Completion::Accepted { result, .. } => accepted = Some(result.unwrap()),
            unexpected => panic!("{unexpected:?}"),
        }
    }
    // Ordinary numbers are the whole process's: any other test may have taken this one.
    if Descriptors::Direct.are_direct() {
        assert_eq!(accepted, Some(it.sock), "the number is used again");
    }
    it.ring.wait(Some(Duration::from_millis(20)), &mut it.waiting).unwrap();
    other.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let read = other.read(&mut [0; 100]);
    assert!(read.is_err(), "the next client got {read:?} bytes that were not for it");
    assert!(sent.iter().all(|(_, result)| result.is_err()), "{sent:?}");
}
