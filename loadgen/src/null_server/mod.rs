//! A server that does nothing, or wrong on purpose: what the generator is calibrated and tested against.
//!
//! Owns: one listener and its connections, on a ring of its own. Must not know: the generator. It checks of HTTP what
//! it relies on and nothing else, so that answering costs as little as I/O allows.

mod inbox;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use faaster_sys::ring::{Armed, Completion, Group, Received, Ring, RingError, Sock, Token, Uring};
use rustix::io::Errno;

use crate::bounds::{NULL_SERVER_CONNECTIONS_MAX, SPIN};
use crate::ring::{NoRing, ring_of_this_thread};
use crate::schedule::Dice;
use inbox::Inbox;

/// How long an answer is held back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Delay {
    None,
    Constant(Duration),
    /// Exponentially distributed with this mean.
    Exponential(Duration),
    /// Anything up to this, evenly.
    Uniform(Duration),
}

/// What the server does to requests.
#[derive(Debug, Clone)]
pub struct Conduct {
    pub body: Vec<u8>,
    pub delay: Delay,
    /// Every n-th answer is a 500.
    pub wrong_every: Option<u64>,
    /// Every n-th answer has another body.
    pub garbled_every: Option<u64>,
    /// Every n-th request is answered by closing the connection.
    pub close_every: Option<u64>,
    pub seed: u64,
    /// The server ends with this request, without an answer to it.
    pub end_after: Option<u64>,
}

impl Default for Conduct {
    fn default() -> Self {
        let body = b"Hello world!".to_vec();
        let (delay, seed, end_after) = (Delay::None, 1, None);
        Self { body, delay, wrong_every: None, garbled_every: None, close_every: None, seed, end_after }
    }
}

/// Why it cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{0:?} is no address: write 127.0.0.1:9000 or unix:/path/of/socket")]
    Address(String),
    #[error("cannot listen on {address}")]
    Listen { address: String, source: std::io::Error },
    #[error(transparent)]
    Ring(#[from] NoRing),
    #[error("the ring failed")]
    Loop(#[from] RingError),
}

/// Listens on `127.0.0.1:9000` or `unix:/path`. A file left over from an earlier listener is an error, not removed.
///
/// # Errors
/// The address is none, or taken.
pub fn listen(address: &str) -> Result<OwnedFd, ServeError> {
    let refuse = |source| ServeError::Listen { address: address.to_owned(), source };
    if let Some(path) = address.strip_prefix("unix:") {
        return UnixListener::bind(path).map(Into::into).map_err(refuse);
    }
    let parsed: std::net::SocketAddr =
        address.parse().map_err(|_| ServeError::Address(address.to_owned()))?;
    let listener = TcpListener::bind(parsed).map_err(refuse)?;
    // Accepted sockets inherit it.
    rustix::net::sockopt::set_tcp_nodelay(&listener, true).map_err(|error| refuse(error.into()))?;
    Ok(listener.into())
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reply {
    Good,
    Wrong,
    Garbled,
    /// A good one with the notice that the connection is closed after it.
    Last,
    Close,
}

struct Connection {
    sock: Option<Sock>,
    generation: u32,
    inbox: Inbox,
    /// Requests whose answer is not ready.
    unanswered: usize,
    /// Answers not yet handed to the kernel.
    ready: Vec<Reply>,
    /// `None` while the kernel has it.
    out: Option<Vec<u8>>,
    sent: usize,
}

const LISTENER: Token = Token(u64::MAX);

struct Server {
    ring: Uring,
    listener: Sock,
    connections: Vec<Connection>,
    free: Vec<u32>,
    conduct: Conduct,
    answers: [Vec<u8>; 4],
    requests: u64,
    dice: Dice,
    /// Answers that are held back: when they are due, and whose they are.
    held: BinaryHeap<Reverse<(u64, u32, u32, Reply)>>,
}

/// Connections that can be open at once: as many as there may be descriptors, for the kernel makes no larger table.
fn connections_max() -> u32 {
    let resource = rustix::process::Resource::Nofile;
    let mut limit = rustix::process::getrlimit(resource);
    limit.current = limit.maximum;
    // Without it there are fewer.
    rustix::process::setrlimit(resource, limit).ok();
    let most = rustix::process::getrlimit(resource).current.unwrap_or(u64::MAX);
    u32::try_from(most).unwrap_or(u32::MAX).min(NULL_SERVER_CONNECTIONS_MAX)
}

/// Answers requests, for ever or until the last one of [`Conduct::end_after`].
///
/// # Errors
/// There is no ring, or it failed.
pub fn serve(listener: OwnedFd, conduct: Conduct) -> Result<(), ServeError> {
    let mut ring = ring_of_this_thread(connections_max())?;
    let listener = ring.adopt(listener);
    let answer = |status: &str, body: &[u8]| {
        let mut answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        answer.extend_from_slice(body);
        answer
    };
    let mut garbled = conduct.body.clone();
    garbled.push(b'?');
    let answers = [
        answer("200 OK", &conduct.body),
        answer("500 Internal Server Error", b"wrong on purpose"),
        answer("200 OK", &garbled),
        answer("200 OK\r\nConnection: close", &conduct.body),
    ];
    let dice = Dice::new(conduct.seed, 0);
    let (connections, free, held) = (Vec::new(), Vec::new(), BinaryHeap::new());
    Server { ring, listener, connections, free, conduct, answers, requests: 0, dice, held }.run()
}

fn token(index: u32, generation: u32) -> Token {
    Token(u64::from(generation & 0x7fff_ffff) << 32 | u64::from(index))
}

impl Server {
    fn run(mut self) -> Result<(), ServeError> {
        self.ring.accept(self.listener, LISTENER);
        let mut happened = Vec::new();
        loop {
            self.wait(&mut happened)?;
            let now_ns = self.ring.now_ns();
            for completion in happened.drain(..) {
                self.handle(completion, now_ns);
            }
            self.release(now_ns);
            if self.conduct.end_after.is_some_and(|last| self.requests >= last) {
                return Ok(());
            }
        }
    }

    /// Waits for something to happen or for an answer to be due.
    fn wait(&mut self, happened: &mut Vec<Completion>) -> Result<(), RingError> {
        let Some(Reverse((due_ns, ..))) = self.held.peek() else { return self.ring.wait(None, happened) };
        let due_ns = *due_ns;
        let left = Duration::from_nanos(due_ns.saturating_sub(self.ring.now_ns()));
        if left > SPIN {
            return self.ring.wait(Some(left.saturating_sub(SPIN)), happened);
        }
        while happened.is_empty() && self.ring.now_ns() < due_ns {
            self.ring.poll(happened)?;
        }
        self.ring.poll(happened)
    }

    fn release(&mut self, now_ns: u64) {
        while let Some(Reverse((due_ns, index, generation, reply))) = self.held.peek().copied()
            && due_ns <= now_ns
        {
            self.held.pop();
            let connection = &mut self.connections[index as usize];
            if connection.sock.is_some() && connection.generation == generation {
                connection.unanswered -= 1;
                connection.ready.push(reply);
                self.write(index);
            }
        }
    }

    fn handle(&mut self, completion: Completion, now_ns: u64) {
        match completion {
            Completion::Accepted { result, armed, .. } => {
                match result {
                    Ok(sock) => self.open(sock),
                    Err(error) => eprintln!("loadgen null-server: accepting a connection: {error}"),
                }
                if armed == Armed::No {
                    self.ring.accept(self.listener, LISTENER);
                }
            }
            Completion::Received { token, received, armed } => self.received(token, received, armed, now_ns),
            Completion::Sent { token, result, buffer } => self.sent(token, result, buffer),
            Completion::Message { .. } | Completion::Rung { .. } => {
                unreachable!("this server asks for no messages and no bell")
            }
        }
    }

    fn open(&mut self, sock: Sock) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(Connection {
                sock: None,
                generation: 0,
                inbox: Inbox::default(),
                unanswered: 0,
                ready: Vec::new(),
                out: None,
                sent: 0,
            });
            u32::try_from(self.connections.len() - 1).expect("descriptors are far fewer")
        });
        let connection = &mut self.connections[index as usize];
        connection.sock = Some(sock);
        connection.generation = connection.generation.wrapping_add(1) & 0x7fff_ffff;
        connection.out = Some(Vec::new());
        self.ring.receive(sock, Group::Client, token(index, connection.generation));
    }

    fn present(&self, token: Token) -> Option<u32> {
        let index = u32::try_from(token.0 & 0xffff_ffff).expect("32 bits fit");
        let connection = self.connections.get(index as usize)?;
        let same = connection.sock.is_some() && u64::from(connection.generation) == token.0 >> 32;
        same.then_some(index)
    }

    fn received(&mut self, token: Token, received: Received, armed: Armed, now_ns: u64) {
        let Some(index) = self.present(token) else {
            if let Received::Data(lease) = received {
                self.ring.give_back(lease);
            }
            return;
        };
        match received {
            Received::Data(lease) => {
                let counted = self.connections[index as usize].inbox.take(&lease);
                self.ring.give_back(lease);
                let Ok(requests) = counted else { return self.close(index) };
                for _ in 0..requests {
                    self.answer(index, now_ns);
                }
                self.write(index);
            }
            // All buffers are given back within the turn, so asking again will find some.
            Received::Failed(Errno::NOBUFS) => {}
            Received::End | Received::Failed(_) => return self.close(index),
        }
        if armed == Armed::No
            && let Some(sock) = self.connections[index as usize].sock
        {
            self.ring.receive(sock, Group::Client, token);
        }
    }

    /// Decides what becomes of one request.
    fn answer(&mut self, index: u32, now_ns: u64) {
        self.requests += 1;
        let due = |every: Option<u64>| every.is_some_and(|every| self.requests.is_multiple_of(every));
        let reply = if due(self.conduct.close_every) {
            Reply::Close
        } else if due(self.conduct.wrong_every) {
            Reply::Wrong
        } else if due(self.conduct.garbled_every) {
            Reply::Garbled
        } else if self.connections[index as usize].inbox.is_ending() {
            Reply::Last
        } else {
            Reply::Good
        };
        let delay = match self.conduct.delay {
            Delay::None => return self.connections[index as usize].ready.push(reply),
            Delay::Constant(delay) => delay,
            Delay::Exponential(mean) => mean.mul_f64(self.dice.exponential()),
            Delay::Uniform(most) => most.mul_f64(self.dice.unit()),
        };
        let due_ns = now_ns + u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX / 2);
        self.connections[index as usize].unanswered += 1;
        let generation = self.connections[index as usize].generation;
        self.held.push(Reverse((due_ns, index, generation, reply)));
    }

    /// Hands ready answers to the kernel.
    fn write(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        if connection.ready.is_empty() {
            return;
        }
        let (Some(sock), Some(mut out)) = (connection.sock, connection.out.take()) else { return };
        out.clear();
        let mut replies = connection.ready.drain(..);
        let closes = replies.by_ref().any(|reply| match reply {
            Reply::Close => true,
            kind => {
                out.extend_from_slice(&self.answers[kind as usize]);
                false
            }
        });
        drop(replies);
        if closes {
            return self.close(index);
        }
        connection.sent = 0;
        self.ring.send(sock, out, 0, token(index, connection.generation));
    }

    fn sent(&mut self, token: Token, result: Result<usize, Errno>, buffer: Vec<u8>) {
        let Some(index) = self.present(token) else { return };
        let connection = &mut self.connections[index as usize];
        let Ok(sent) = result else { return self.close(index) };
        connection.sent += sent;
        if connection.sent < buffer.len() {
            let sock = connection.sock.expect("it is present");
            return self.ring.send(sock, buffer, connection.sent, token);
        }
        connection.out = Some(buffer);
        if connection.inbox.is_ending() && connection.unanswered == 0 {
            return self.close(index);
        }
        self.write(index);
    }

    fn close(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        let sock = connection.sock.take().expect("only an open connection is closed");
        connection.inbox = Inbox::default();
        connection.ready.clear();
        connection.unanswered = 0;
        connection.out = None;
        self.ring.close(sock);
        self.free.push(index);
    }
}
