//! A hello server on the engine's own ring, with nothing else of the engine: what the I/O alone costs.
//!
//! Owns: one listener and its connections. Must not know: functions, frames, HTTP beyond what the baselines share.
//! Compared with `glommio_hello` and nginx it keeps DESIGN section 3 checkable.
#![forbid(unsafe_code)]

use std::net::{SocketAddr, TcpListener};

use anyhow::Context;
use clap::Parser;
use faaster_bench::{ANSWER, Inbox};
use faaster_sys::affinity::pin_to;
use faaster_sys::ring::{
    Armed, Completion, Group, GroupSize, Received, Ring, RingError, Sock, Token, Uring, UringConfig,
};
use rustix::io::Errno;

#[derive(Debug, Parser)]
#[command(about = "Answers Hello world! over HTTP, on the engine's io_uring ring")]
struct Args {
    /// Address to listen on, for instance 127.0.0.1:9000.
    #[arg(long)]
    listen: SocketAddr,
    /// Core that the loop is pinned to.
    #[arg(long, default_value_t = 0)]
    core: u16,
}

/// As a shard's, but for the instances' buffers, of which there are none to fill.
const CONFIG: UringConfig = UringConfig {
    entries: 1024,
    completions: 8192,
    client_buffers: GroupSize { count: 512, bytes: 4096 },
    instance_buffers: GroupSize { count: 1, bytes: 4096 },
    direct_descriptors: 512,
};

/// The listener's token; connections have their position.
const LISTENER: Token = Token(u64::MAX);

/// One connection. Its position is free again when nothing is under way for it any more.
struct Connection {
    sock: Sock,
    inbox: Inbox,
    /// Answers not yet handed to the kernel.
    owed: usize,
    /// Kept between sends to save the allocation; `None` while the kernel has it.
    out: Option<Vec<u8>>,
    receive: Armed,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The descriptor is gone; completions may still come.
    Closed,
}

struct Server {
    ring: Uring,
    listener: Sock,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    pin_to(args.core).with_context(|| format!("pinning to core {}", args.core))?;
    let listener = TcpListener::bind(args.listen).with_context(|| format!("listening on {}", args.listen))?;
    // Accepted sockets inherit it.
    rustix::net::sockopt::set_tcp_nodelay(&listener, true).context("setting TCP_NODELAY")?;
    let mut ring = Uring::prepare(&CONFIG).context("making a ring")?;
    ring.enable().context("enabling the ring")?;
    let listener = ring.adopt(listener.into());
    Server { ring, listener, connections: Vec::new(), free: Vec::new() }.serve()?;
    Ok(())
}

impl Server {
    fn serve(mut self) -> Result<(), RingError> {
        self.ring.accept(self.listener, LISTENER);
        let mut happened = Vec::new();
        loop {
            self.ring.wait(None, &mut happened)?;
            for completion in happened.drain(..) {
                self.handle(completion);
            }
        }
    }

    fn handle(&mut self, completion: Completion) {
        match completion {
            Completion::Accepted { result, armed, .. } => {
                match result {
                    Ok(sock) => self.open(sock),
                    Err(error) => eprintln!("ring_hello: accepting a connection: {error}"),
                }
                if armed == Armed::No {
                    self.ring.accept(self.listener, LISTENER);
                }
            }
            Completion::Received { token, received, armed } => self.received(token, received, armed),
            Completion::Sent { token, result, buffer } => self.sent(token, result, buffer),
            Completion::Message { .. } | Completion::Rung { .. } => {
                unreachable!("this server asks for no messages and no bell")
            }
        }
    }

    fn open(&mut self, sock: Sock) {
        let connection = Connection {
            sock,
            inbox: Inbox::default(),
            owed: 0,
            out: Some(Vec::new()),
            receive: Armed::Yes,
            phase: Phase::Open,
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.connections[index] = Some(connection);
        self.ring.receive(sock, Group::Client, Token(index as u64));
    }

    fn received(&mut self, token: Token, received: Received, armed: Armed) {
        let index = position(token);
        let connection =
            self.connections[index].as_mut().expect("positions are freed after their last completion");
        connection.receive = armed;
        let goes_on = match received {
            Received::Data(lease) => {
                let taken = connection.inbox.take_from(&lease);
                self.ring.give_back(lease);
                match taken {
                    Ok(requests) => {
                        connection.owed += requests;
                        true
                    }
                    Err(error) => {
                        eprintln!("ring_hello: closing a connection: {error}");
                        false
                    }
                }
            }
            // All buffers are given back within the turn, so asking again will find some.
            Received::Failed(Errno::NOBUFS) => true,
            Received::End | Received::Failed(_) => false,
        };
        self.after(index, goes_on);
    }

    fn sent(&mut self, token: Token, result: Result<usize, Errno>, mut buffer: Vec<u8>) {
        let index = position(token);
        let connection =
            self.connections[index].as_mut().expect("positions are freed after their last completion");
        match result {
            Ok(sent) => {
                buffer.drain(..sent);
                connection.out = Some(buffer);
                self.after(index, true);
            }
            Err(_) => {
                connection.out = Some(buffer);
                self.after(index, false);
            }
        }
    }

    /// Brings a connection on after something happened to it: asks for more, sends what is owed, closes, forgets.
    fn after(&mut self, index: usize, goes_on: bool) {
        let token = Token(index as u64);
        let connection = self.connections[index].as_mut().expect("the caller has just looked at it");
        if !goes_on && connection.phase == Phase::Open {
            connection.phase = Phase::Closed;
            self.ring.close(connection.sock);
        }
        match connection.phase {
            Phase::Open => {
                if connection.receive == Armed::No {
                    connection.receive = Armed::Yes;
                    self.ring.receive(connection.sock, Group::Client, token);
                }
                // One send at a time keeps the answers in order; what comes meanwhile goes with the next.
                if let Some(out) = &mut connection.out {
                    (0..connection.owed).for_each(|_| out.extend_from_slice(ANSWER));
                    connection.owed = 0;
                    if !out.is_empty() {
                        let out = connection.out.take().expect("it was there a line ago");
                        self.ring.send(connection.sock, out, 0, token);
                    }
                }
            }
            Phase::Closed => {
                if connection.receive == Armed::No && connection.out.is_some() {
                    self.connections[index] = None;
                    self.free.push(index);
                }
            }
        }
    }
}

fn position(token: Token) -> usize {
    usize::try_from(token.0).expect("tokens of connections are positions in a Vec")
}
