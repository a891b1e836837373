//! The cheapest honest upstream for nginx and haproxy: keep-alive HTTP/1.1 over a unix socket.
//!
//! Owns: one listening socket and its connections. Must not know: the proxies in front of it.
//! `--serve many` is nginx's upstream: one thread, epoll over all connections. `--serve one` is an exclusive instance:
//! one connection at a time, blocking read and write; haproxy starts 16 of them with `maxconn 1`.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use faaster_bench::{ANSWER, Inbox};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;

/// Events taken from the kernel per turn of the loop.
const EVENTS_MAX: usize = 256;
/// Names the listener among the connections' ids, which count from 0.
const LISTENER: u64 = u64::MAX;

#[derive(Debug, Parser)]
#[command(about = "Answers Hello world! over a unix socket")]
struct Args {
    /// Where to listen; an old socket file is replaced.
    #[arg(long)]
    socket: PathBuf,
    #[arg(long, value_enum)]
    serve: Serve,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Serve {
    /// All connections at once, on one thread.
    Many,
    /// One connection after the other.
    One,
}

/// One keep-alive connection.
struct Connection {
    stream: UnixStream,
    inbox: Inbox,
    /// Answers of one turn, kept to save the allocation.
    out: Vec<u8>,
}

/// What became of a connection.
enum After {
    Open,
    Closed,
}

impl Connection {
    fn new(stream: UnixStream) -> Self {
        Self { stream, inbox: Inbox::default(), out: Vec::new() }
    }

    /// Reads once and answers all that is whole. The socket blocks: after a readiness event the read does not wait,
    /// and the write waits only for a proxy that stopped reading.
    fn turn(&mut self) -> After {
        let read = match self.stream.read(self.inbox.spare()) {
            Ok(0) => return After::Closed,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => return After::Open,
            Err(_) => return After::Closed,
        };
        let requests = match self.inbox.take_requests(read) {
            Ok(requests) => requests,
            Err(error) => {
                eprintln!("unix_upstream: closing a connection: {error}");
                return After::Closed;
            }
        };
        let sent = if requests == 1 {
            self.stream.write_all(ANSWER)
        } else {
            self.out.clear();
            (0..requests).for_each(|_| self.out.extend_from_slice(ANSWER));
            self.stream.write_all(&self.out)
        };
        if sent.is_ok() { After::Open } else { After::Closed }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let listener = bind(&args.socket)?;
    match args.serve {
        Serve::Many => serve_many(&listener),
        Serve::One => serve_one(&listener),
    }
}

fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing the old socket {}", path.display()));
        }
        _ => {}
    }
    UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))
}

fn serve_one(listener: &UnixListener) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().context("accepting a connection")?;
        let mut connection = Connection::new(stream);
        while matches!(connection.turn(), After::Open) {}
    }
}

fn serve_many(listener: &UnixListener) -> anyhow::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("making an epoll set")?;
    epoll::add(&epoll, listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)
        .context("watching the listener")?;
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut events = Vec::with_capacity(EVENTS_MAX);
    let mut next_id = 0;
    loop {
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Err(rustix::io::Errno::INTR) => continue,
            outcome => outcome.context("waiting for events")?,
        };
        for event in events.drain(..) {
            let id = event.data.u64();
            if id == LISTENER {
                let (stream, _) = listener.accept().context("accepting a connection")?;
                epoll::add(&epoll, &stream, epoll::EventData::new_u64(next_id), epoll::EventFlags::IN)
                    .context("watching a connection")?;
                connections.insert(next_id, Connection::new(stream));
                next_id += 1;
            } else if let Some(connection) = connections.get_mut(&id)
                && matches!(connection.turn(), After::Closed)
            {
                // Closing the descriptor, the only one of its socket, takes it out of the epoll set.
                connections.remove(&id);
            }
        }
    }
}
