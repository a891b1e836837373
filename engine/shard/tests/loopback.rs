//! A shard on a real ring, with a funclet and a runtime played by the test: requests in over TCP, frames out.
//!
//! Owns: the play. Needs io_uring; skips with the reason printed where there is none.
#![expect(clippy::unwrap_used, reason = "a test; the panic is the report")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use faaster_function::{Deployed, deployed::Concurrency};
use faaster_protocol::frame::{FLAG_MORE, FrameType, HEADER_BYTES, Header};
use faaster_protocol::funclet::{
    ClaimSource, CodeHash, Event, Generation, MESSAGE_BYTES, Request, RuntimeIndex, SlotId,
};
use faaster_shard::api::{InstancePlacement, ShardConfig};
use faaster_shard::{Command, CommandSender, Notice, Port, Prepared, ShardId, network};
use faaster_sys::fdpass::send_with_fds;

const ACCOUNT: &str = "df391b08c64c426a81645468c75163a5";
const HASH: &str = "8f6e5a28c663957ea04522547a66d08f";

/// A running shard and its surroundings.
struct Play {
    address: SocketAddr,
    commands: CommandSender,
    notices: mpsc::Receiver<Notice>,
}

fn config() -> ShardConfig {
    ShardConfig {
        connections_max: 64,
        default_account: ACCOUNT.into(),
        simple_auth: true,
        http_trigger: true,
        max_runtime_idle: Duration::from_secs(60),
        placement: InstancePlacement::Free,
        retry_after_secs: 1,
        funclets: 1,
        shards: 1,
    }
}

/// Starts a shard whose containers run `runtime` on a thread each. `None`: no io_uring here.
fn play(runtime: fn(UnixStream)) -> Option<Play> {
    if let Err(refusal) = faaster_sys::ring::probe() {
        eprintln!("skipped: {refusal}");
        return None;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (mut ends, mut senders) = network(1).unwrap();
    let prepared = Prepared::new(ShardId(0), &config(), vec![(Port::Controller, listener.into())]).unwrap();
    let (notice_in, notices) = mpsc::channel();
    let mailbox = ends.remove(0);
    std::thread::spawn(move || {
        let core = faaster_sys::affinity::allowed_cores().unwrap()[0];
        let sink = Box::new(move |notice| notice_in.send(notice).map_err(|back| back.0));
        let Err(error) = prepared.run(core, mailbox, sink, [1, 2]);
        panic!("the shard ended: {error}");
    });
    let commands = senders.remove(0);
    let (engine_end, funclet_end) = seqpacket();
    std::thread::spawn(move || funclet(funclet_end, runtime));
    commands.send(Command::FuncletUp { funclet: 0, channel: engine_end }).unwrap();
    Some(Play { address, commands, notices })
}

fn seqpacket() -> (OwnedFd, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// Answers each claim with a channel to a fresh thread.
fn funclet(channel: OwnedFd, runtime: fn(UnixStream)) {
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
fn read_frame(channel: &mut UnixStream) -> Option<(Header, Vec<u8>)> {
    let mut head = [0u8; HEADER_BYTES];
    channel.read_exact(&mut head).ok()?;
    let header = Header::decode(&head).unwrap().unwrap();
    let mut payload = vec![0; header.payload_bytes()];
    channel.read_exact(&mut payload).ok()?;
    Some((header, payload.split_off(header.meta_bytes as usize)))
}

fn frame(kind: FrameType, id: u64, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut header = Header::new(kind, id);
    header.flags = flags;
    header.body_bytes = u32::try_from(body.len()).unwrap();
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// Says ready, then answers every event with itself; large results in parts under credit.
fn echo(mut channel: UnixStream) {
    let mut event = Vec::new();
    while let Some((header, body)) = read_frame(&mut channel) {
        match header.kind {
            FrameType::Load => channel.write_all(&frame(FrameType::Ready, 0, 0, b"")).unwrap(),
            FrameType::Invoke | FrameType::RequestPart => {
                event.extend_from_slice(&body);
                if !header.has_more() {
                    answer_in_parts(&mut channel, header.invocation, &std::mem::take(&mut event));
                }
            }
            // A grant that crossed with the last part.
            FrameType::Window => {}
            FrameType::Shutdown => return,
            other => panic!("{other:?} was not expected"),
        }
    }
}

fn answer_in_parts(channel: &mut UnixStream, id: u64, result: &[u8]) {
    let mut credit = 256 * 1024usize;
    let mut rest = result;
    while rest.len() > 64 * 1024 {
        let (part, after) = rest.split_at(64 * 1024);
        while credit < part.len() {
            let (header, _) = read_frame(channel).unwrap();
            assert_eq!(header.kind, FrameType::Window);
            credit += header.credit_bytes as usize;
        }
        credit -= part.len();
        channel.write_all(&frame(FrameType::Response, id, FLAG_MORE, part)).unwrap();
        rest = after;
    }
    while credit < rest.len() {
        let (header, _) = read_frame(channel).unwrap();
        credit += header.credit_bytes as usize;
    }
    channel.write_all(&frame(FrameType::Response, id, 0, rest)).unwrap();
}

fn deployed(name: &str, concurrency: Concurrency, timeout_ms: u64) -> Arc<Deployed> {
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
        env: Default::default(),
        function_tag: 1,
        account_tag: 1,
    })
}

impl Play {
    fn deploy(&self, function: Arc<Deployed>) {
        let (done, wait) = mpsc::channel();
        let reply = Box::new(move |shard| done.send(shard).unwrap());
        self.commands.send(Command::Deploy(function, reply)).unwrap();
        wait.recv_timeout(Duration::from_secs(5)).unwrap();
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }
}

fn invocation(name: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/functions/brn:cloud:faas:bj:{HASH}:function:{name}:1/invocations HTTP/1.1\r\nHost: x\r\n\
         X-easyfaas-Account-Id: {ACCOUNT}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Status, head and body of the next answer.
fn read_answer(stream: &mut TcpStream) -> (u16, String, Vec<u8>) {
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

#[test]
fn a_call_goes_through_and_keeps_the_connection() {
    let Some(play) = play(echo) else { return };
    play.deploy(deployed("echo", Concurrency::Exclusive, 5000));
    let mut client = play.connect();
    for body in [&b"{\"a\":1}"[..], b"second"] {
        client.write_all(&invocation("echo", body)).unwrap();
        let (status, head, answer) = read_answer(&mut client);
        assert_eq!((status, &answer[..]), (200, body), "{head}");
        assert!(
            head.contains("X-Easyfaas-Request-Id: ") && head.contains("X-Easyfaas-Function-Exectime: "),
            "{head}"
        );
        assert!(head.contains("Content-Type: text/plain; charset=utf-8\r\n"), "{head}");
    }
}

#[test]
fn pipelined_calls_are_answered_in_order() {
    let Some(play) = play(echo) else { return };
    play.deploy(deployed("many", Concurrency::Shared(8), 5000));
    let mut client = play.connect();
    let mut wire = Vec::new();
    for n in 0..200 {
        wire.extend_from_slice(&invocation("many", format!("{n}").as_bytes()));
        if n % 7 == 0 {
            wire.extend_from_slice(&invocation("absent", b"{}"));
        }
    }
    let mut writer = client.try_clone().unwrap();
    let thread = std::thread::spawn(move || writer.write_all(&wire).unwrap());
    for n in 0..200 {
        let (status, _, body) = read_answer(&mut client);
        assert_eq!((status, String::from_utf8(body).unwrap()), (200, format!("{n}")));
        if n % 7 == 0 {
            assert_eq!(read_answer(&mut client).0, 404);
        }
    }
    thread.join().unwrap();
}

#[test]
fn large_bodies_pass_in_both_directions() {
    let Some(play) = play(echo) else { return };
    play.deploy(deployed("big", Concurrency::Exclusive, 20_000));
    let mut client = play.connect();
    for size in [5_000usize, 70_000, 262_144, 262_145, 3_000_000, 6_291_456] {
        let body: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
        client.write_all(&invocation("big", &body)).unwrap();
        let (status, head, answer) = read_answer(&mut client);
        assert_eq!(status, 200, "{size}: {head}");
        assert!(answer == body, "{size} bytes came back changed");
    }
}

/// Answers nothing, ever.
fn mute(mut channel: UnixStream) {
    while let Some((header, _)) = read_frame(&mut channel) {
        if header.kind == FrameType::Load {
            channel.write_all(&frame(FrameType::Ready, 0, 0, b"")).unwrap();
        }
    }
}

#[test]
fn a_silent_handler_is_timed_out_and_killed() {
    let Some(play) = play(mute) else { return };
    for (name, concurrency) in [("alone", Concurrency::Exclusive), ("shared", Concurrency::Shared(4))] {
        play.deploy(deployed(name, concurrency, 1000));
        let mut client = play.connect();
        client.write_all(&invocation(name, b"{}")).unwrap();
        let (status, head, body) = read_answer(&mut client);
        assert_eq!(status, 200, "{head}");
        assert!(head.contains("X-Easyfaas-Function-Error: Unhandled"), "{head}");
        let text = String::from_utf8(body).unwrap();
        assert!(text.ends_with("Task timed out after 1 seconds\"}"), "{text}");
    }
}

/// Says something that is no frame.
fn garbage(mut channel: UnixStream) {
    let _ = read_frame(&mut channel);
    channel.write_all(&[0x55; 200]).unwrap();
    let _ = read_frame(&mut channel);
}

#[test]
fn garbage_from_a_runtime_ends_only_its_instance() {
    let Some(play) = play(garbage) else { return };
    play.deploy(deployed("noise", Concurrency::Exclusive, 2000));
    let mut client = play.connect();
    client.write_all(&invocation("noise", b"{}")).unwrap();
    let (status, head, body) = read_answer(&mut client);
    assert_eq!(status, 200, "{head}");
    assert!(String::from_utf8(body).unwrap().contains("Process exited before completing request"));
    client.write_all(&invocation("absent", b"{}")).unwrap();
    assert_eq!(read_answer(&mut client).0, 404, "the shard lives on");
}

#[test]
fn control_requests_reach_the_control_thread_whole() {
    let Some(play) = play(echo) else { return };
    let mut client = play.connect();
    client.write_all(b"GET /healthz?x=1 HTTP/1.1\r\nHost: x\r\nX-Test: yes\r\n\r\n").unwrap();
    let Notice::Request(request) = play.notices.recv_timeout(Duration::from_secs(5)).unwrap() else {
        panic!("a request was expected")
    };
    assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/healthz?x=1"));
    assert!(request.headers.contains(&("X-Test".into(), b"yes".to_vec())));
    let reply = faaster_shard::api::ControlReply {
        reply_to: request.reply_to,
        status: 200,
        headers: vec![("Content-Type".into(), b"text/plain".to_vec())],
        body: b"hello controller".to_vec(),
    };
    play.commands.send(Command::Reply(reply)).unwrap();
    let (status, head, body) = read_answer(&mut client);
    assert_eq!((status, &body[..]), (200, &b"hello controller"[..]), "{head}");
}

#[test]
fn smuggling_shapes_are_refused_and_the_connection_closed() {
    let Some(play) = play(echo) else { return };
    for wire in [
        &b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"[..],
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    ] {
        let mut client = play.connect();
        client.write_all(wire).unwrap();
        let (status, head, _) = read_answer(&mut client);
        assert_eq!(status, 400, "{head}");
        assert!(head.contains("Connection: close"), "{head}");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "nothing follows");
    }
}

#[test]
fn expect_continue_and_chunked_bodies_work() {
    let Some(play) = play(echo) else { return };
    play.deploy(deployed("echo", Concurrency::Exclusive, 5000));
    let mut client = play.connect();
    let head = format!(
        "POST /v1/functions/brn:cloud:faas:bj:{HASH}:function:echo:1/invocations HTTP/1.1\r\nHost: x\r\n\
         Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    client.write_all(head.as_bytes()).unwrap();
    let mut interim = [0u8; 25];
    client.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n").unwrap();
    let (status, _, body) = read_answer(&mut client);
    assert_eq!((status, &body[..]), (200, &b"abcde"[..]));
}
