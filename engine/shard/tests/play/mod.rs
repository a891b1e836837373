//! A running shard with a funclet and runtimes played by threads of the test; shared by the tests on a real ring.
//!
//! Owns: the play's parts. Must not know: what a test wants to see.
#![allow(dead_code, reason = "each test file is a crate of its own and uses its share")]
#![expect(clippy::unwrap_used, reason = "a test; the panic is the report")]

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use faaster_function::{Deployed, deployed::Concurrency};
use faaster_patience::patience;
use faaster_protocol::frame::{FrameType, HEADER_BYTES, Header};
use faaster_protocol::funclet::{
    ClaimSource, CodeHash, Event, Generation, MESSAGE_BYTES, Request, RuntimeIndex, SlotId,
};
use faaster_shard::api::{InstancePlacement, ShardConfig};
use faaster_shard::{Command, CommandSender, Notice, Port, Prepared, ShardId, network};
use faaster_sys::fdpass::send_with_fds;

pub(crate) const ACCOUNT: &str = "df391b08c64c426a81645468c75163a5";
pub(crate) const HASH: &str = "8f6e5a28c663957ea04522547a66d08f";

/// A running shard and its surroundings.
pub(crate) struct Play {
    pub(crate) address: SocketAddr,
    pub(crate) commands: CommandSender,
    pub(crate) notices: mpsc::Receiver<Notice>,
}

pub(crate) fn config() -> ShardConfig {
    ShardConfig {
        connections_max: 64,
        default_account: ACCOUNT.into(),
        simple_auth: true,
        http_trigger: true,
        max_runtime_idle: Duration::from_secs(60),
        freeze_after: None,
        health: None,
        placement: InstancePlacement::Free,
        retry_after_secs: 1,
        funclets: 1,
        shards: 1,
    }
}

/// Starts a shard whose containers run `runtime` on a thread each. `None`: no io_uring here.
pub(crate) fn play(runtime: fn(UnixStream)) -> Option<Play> {
    play_with(runtime, || {})
}

/// The same; `begin` is called on the shard's thread first.
pub(crate) fn play_with(runtime: fn(UnixStream), begin: fn()) -> Option<Play> {
    if let Err(refusal) = faaster_sys::ring::probe() {
        eprintln!("skipped: {refusal}");
        return None;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // As the supervisor does; connections inherit it.
    rustix::net::sockopt::set_tcp_nodelay(&listener, true).unwrap();
    let address = listener.local_addr().unwrap();
    let (mut ends, mut senders) = network(1).unwrap();
    let prepared = Prepared::new(ShardId(0), &config(), vec![(Port::Controller, listener.into())]).unwrap();
    let (notice_in, notices) = mpsc::channel();
    let mailbox = ends.remove(0);
    std::thread::spawn(move || {
        begin();
        let core = faaster_sys::affinity::allowed_cores().unwrap()[0];
        let sink = Box::new(move |notice| notice_in.send(notice).map_err(|back| back.0));
        let Err(error) = prepared.run(core, mailbox, sink, [1, 2], Arc::default(), &[]);
        panic!("the shard ended: {error}");
    });
    let commands = senders.remove(0);
    let (engine_end, funclet_end) = seqpacket();
    std::thread::spawn(move || funclet(funclet_end, runtime));
    commands.send(Command::FuncletUp { funclet: 0, channel: engine_end }).unwrap();
    Some(Play { address, commands, notices })
}

pub(crate) fn seqpacket() -> (OwnedFd, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// Answers each claim with a channel to a fresh thread.
pub(crate) fn funclet(channel: OwnedFd, runtime: fn(UnixStream)) {
    let mut bytes = [0u8; MESSAGE_BYTES];
    let mut slots = 0;
    while let Ok(length) = rustix::io::read(&channel, &mut bytes) {
        if length == 0 {
            return;
        }
        match Request::decode(&bytes).unwrap() {
            Request::Claim(claim) => {
                slots += 1;
                let (engine, ours) = UnixStream::pair().unwrap();
                let (log_out, _log_in) = rustix::pipe::pipe().unwrap();
                let event = Event::Claimed {
                    ticket: claim.ticket,
                    slot: SlotId(slots),
                    generation: Generation(1),
                    pid: 1,
                    source: ClaimSource::Pool,
                    claim_us: 1,
                    attach_us: 1,
                };
                send_with_fds(channel.as_fd(), &event.encode(), &[engine.as_fd(), log_out.as_fd()]).unwrap();
                std::thread::spawn(move || runtime(ours));
            }
            Request::Kill { slot, generation } => {
                let end = faaster_protocol::funclet::End::Killed;
                let event = Event::Ended {
                    slot,
                    generation,
                    end,
                    memory_peak_bytes: 0,
                    memory_limit_bytes: 0,
                    cpu_used_us: 0,
                };
                send_with_fds(channel.as_fd(), &event.encode(), &[]).unwrap();
            }
            _ => {}
        }
    }
}

/// Next frame of the engine.
pub(crate) fn read_frame(channel: &mut UnixStream) -> Option<(Header, Vec<u8>)> {
    let mut head = [0u8; HEADER_BYTES];
    channel.read_exact(&mut head).ok()?;
    let header = Header::decode(&head).unwrap().unwrap();
    let mut payload = vec![0; header.payload_bytes()];
    channel.read_exact(&mut payload).ok()?;
    Some((header, payload.split_off(header.meta_bytes as usize)))
}

pub(crate) fn frame(kind: FrameType, id: u64, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut header = Header::new(kind, id);
    header.flags = flags;
    header.body_bytes = u32::try_from(body.len()).unwrap();
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) fn deployed(name: &str, concurrency: Concurrency, timeout_ms: u64) -> Arc<Deployed> {
    Arc::new(Deployed {
        key: format!("{HASH}:{name}:1").into(),
        brn: format!("brn:cloud:faas:bj:{HASH}:function:{name}:1").into(),
        name: name.into(),
        version: "1".into(),
        owner: ACCOUNT.into(),
        handler: "index.handler".into(),
        runtime: RuntimeIndex(0),
        code: CodeHash([0; 32]),
        commit_id: "c".into(),
        revision: 1,
        memory_mb: 128,
        timeout_ms,
        concurrency,
        instances_max: 4,
        instances_min: 0,
        env: Default::default(),
        function_tag: 1,
        account_tag: 1,
        network_mode: None,
        layers: None,
    })
}

impl Play {
    pub(crate) fn deploy(&self, function: Arc<Deployed>) {
        let (done, wait) = mpsc::channel();
        let reply = Box::new(move |shard| done.send(shard).unwrap());
        self.commands.send(Command::Deploy(function, reply)).unwrap();
        wait.recv_timeout(patience(Duration::from_secs(5))).unwrap();
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(patience(Duration::from_secs(10)))).unwrap();
        stream
    }
}

pub(crate) fn invocation(name: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/functions/brn:cloud:faas:bj:{HASH}:function:{name}:1/invocations HTTP/1.1\r\nHost: x\r\n\
         X-easyfaas-Account-Id: {ACCOUNT}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Status, head and body of the next answer.
pub(crate) fn read_answer(stream: &mut TcpStream) -> (u16, String, Vec<u8>) {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length: ").map(|n| n.parse().unwrap())
        })
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (status, head, body)
}
