//! A shard on a real ring, with a funclet and a runtime played by the test: requests in over TCP, frames out.
//!
//! Owns: the cases. Needs io_uring; skips with the reason printed where there is none.
#![expect(clippy::unwrap_used, reason = "a test; the panic is the report")]

mod play;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use faaster_function::deployed::Concurrency;
use faaster_patience::patience;
use faaster_protocol::frame::{FLAG_MORE, FrameType};
use faaster_shard::{Command, Notice};
use play::{HASH, deployed, frame, invocation, play, read_answer, read_frame};

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
    let Notice::Request(request) = play.notices.recv_timeout(patience(Duration::from_secs(5))).unwrap()
    else {
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
