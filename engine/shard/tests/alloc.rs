//! A warm invocation allocates nothing on its shard's thread.
//!
//! Owns: the count. Needs io_uring; skips with the reason printed where there is none.
//! One test only: its calls must not mix with those of others.
#![expect(clippy::unwrap_used, reason = "a test; the panic is the report")]

mod play;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};

use faaster_function::deployed::Concurrency;
use faaster_protocol::frame::FrameType;
use faaster_sys::alloc_counter::{CountingAllocator, count_this_thread};
use play::{deployed, frame, invocation, read_frame};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

static ON_SHARD: AtomicU64 = AtomicU64::new(0);

/// Warm-up: buffers reach the sizes that they keep, tables theirs.
const WARM_UP_CALLS: usize = 2_000;
const CALLS: usize = 1_000;
const ROUNDS_MAX: usize = 6;

/// Answers every event with itself.
fn echo(mut channel: UnixStream) {
    while let Some((header, body)) = read_frame(&mut channel) {
        match header.kind {
            FrameType::Load => channel.write_all(&frame(FrameType::Ready, 0, 0, b"")).unwrap(),
            FrameType::Invoke => {
                channel.write_all(&frame(FrameType::Response, header.invocation, 0, &body)).unwrap();
            }
            FrameType::Shutdown => return,
            other => panic!("{other:?} was not expected"),
        }
    }
}

/// A connection whose answers are read in large pieces: byte by byte would take most of the test's time.
struct Client {
    stream: TcpStream,
    inbox: Vec<u8>,
}

impl Client {
    /// The body of the next answer, which must be a success.
    fn answer(&mut self) -> Vec<u8> {
        loop {
            if let Some(head_end) = self.inbox.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8(self.inbox[..head_end].to_vec()).unwrap();
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
                let end = head_end + 4 + length.parse::<usize>().unwrap();
                if self.inbox.len() >= end {
                    let body = self.inbox[head_end + 4..end].to_vec();
                    self.inbox.drain(..end);
                    return body;
                }
            }
            let mut piece = [0; 65_536];
            let count = match self.stream.read(&mut piece) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.unwrap(),
            };
            assert!(count > 0, "the connection stays open");
            self.inbox.extend_from_slice(&piece[..count]);
        }
    }

    /// Sends `calls` requests, `depth` at a time, and reads their answers.
    fn call(&mut self, name: &str, calls: usize, depth: usize) {
        for batch in 0..calls / depth {
            let bodies: Vec<Vec<u8>> =
                (0..depth).map(|at| vec![b'x'; (batch * 131 + at * 977) % 4095 + 1]).collect();
            let wire: Vec<u8> = bodies.iter().flat_map(|body| invocation(name, body)).collect();
            self.stream.write_all(&wire).unwrap();
            for body in &bodies {
                assert_eq!(&self.answer(), body);
            }
        }
    }
}

/// Allocations on the shard's thread during [`CALLS`] calls.
fn round(client: &mut Client, name: &str, depth: usize) -> u64 {
    let before = ON_SHARD.load(Ordering::Relaxed);
    assert!(before > 0, "the shard's thread is counted");
    client.call(name, CALLS, depth);
    ON_SHARD.load(Ordering::Relaxed) - before
}

#[test]
fn warm_calls_allocate_nothing() {
    let Some(play) = play::play_with(echo, || count_this_thread(&ON_SHARD)) else { return };
    for (name, concurrency, depth) in [
        ("alone", Concurrency::Exclusive, 1),
        ("alone-pipelined", Concurrency::Exclusive, 8),
        ("shared", Concurrency::Shared(8), 1),
        ("shared-pipelined", Concurrency::Shared(8), 8),
    ] {
        play.deploy(deployed(name, concurrency, 5000));
        let mut client = Client { stream: play.connect(), inbox: Vec::new() };
        client.call(name, WARM_UP_CALLS, depth);
        // How many answers share a turn is chance, so a buffer may still grow late: but not in every round.
        let mut rounds = Vec::new();
        while rounds.last() != Some(&0) {
            rounds.push(round(&mut client, name, depth));
            assert!(
                rounds.len() < ROUNDS_MAX,
                "allocations in rounds of {CALLS} calls of {name}: {rounds:?}"
            );
        }
    }
}
