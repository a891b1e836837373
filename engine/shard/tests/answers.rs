//! One thing at a time: shapes of answers, limits of requests, time limits of clients, calls that nobody waits for.
//!
//! Owns: the cases. Time is simulated. Must not know: real sockets.

mod node;
mod play;

use std::time::Duration;

use faaster_function::deployed::Concurrency;
use faaster_limits::{
    ASYNC_REQUEST_BYTES_MAX, CONTROL_BODY_BYTES_MAX, HEAD_TIMEOUT, HELD_BYTES_PER_SHARD_MAX, IDLE_TIMEOUT,
    LINGER_TIMEOUT, QUEUE_PER_FUNCTION_MAX, SYNC_REQUEST_BYTES_MAX, WRITE_TIMEOUT,
};
use faaster_protocol::frame::FrameType;
use faaster_protocol::funclet::{Event, Refusal, Request};
use faaster_shard::api::ControlReply;
use faaster_shard::{Command, Notice, ShardId};
use node::Node;
use play::{ACCOUNT, HASH, deployed, invocation};

const MILLISECOND: Duration = Duration::from_millis(1);

fn deploy(node: &mut Node, name: &str, concurrency: Concurrency) {
    let function = deployed(name, concurrency, 3000);
    node.command(Command::Deploy(function, Box::new(|_: ShardId| {})));
}

/// An invocation with a request line and headers of the test's choice.
fn custom(name: &str, version: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/functions/brn:cloud:faas:bj:{HASH}:function:{name}:1/invocations HTTP/{version}\r\nHost: x\r\n\
         X-easyfaas-Account-Id: {ACCOUNT}\r\n{more}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Answers the control request that waits.
fn reply(node: &mut Node, status: u16, body: &[u8]) {
    node.settle();
    let Ok(Notice::Request(request)) = node.notices.try_recv() else { panic!("a control request") };
    let reply = ControlReply {
        reply_to: request.reply_to,
        status,
        headers: vec![("X-Mine".into(), b"1".to_vec()), ("Content-Length".into(), b"9".to_vec())],
        body: body.to_vec(),
    };
    node.command(Command::Reply(reply));
}

// --- Shapes ----------------------------------------------------------------------------------------------------------

#[test]
fn versions_and_connection_headers_decide_what_follows_an_answer() {
    for (version, connection, expected, closes) in [
        ("1.1", "", None, false),
        ("1.1", "Connection: close\r\n", Some("Connection: close"), true),
        ("1.0", "", Some("Connection: close"), true),
        ("1.0", "Connection: keep-alive\r\n", Some("Connection: keep-alive"), false),
    ] {
        let mut node = Node::new();
        deploy(&mut node, "f", Concurrency::Exclusive);
        let client = node.connect();
        node.send(client, &custom("f", version, connection, b"{}"));
        let mut instance = node.start();
        let (id, event) = node.call(&mut instance);
        assert_eq!(event, b"{}");
        node.say(&instance, FrameType::Response, id, b"done");
        let answer = node.answer(client);
        assert_eq!((answer.status, &answer.body[..]), (200, &b"done"[..]));
        let line = answer.head.lines().find(|line| line.starts_with("Connection: "));
        assert_eq!(line, expected, "HTTP/{version} {connection}");
        assert_eq!(node.is_closed(client), closes, "HTTP/{version} {connection}");
        for header in ["\r\nServer: ", "\r\nDate: ", "\r\nX-Easyfaas-Request-Id: ", "\r\nContent-Type: "] {
            assert_eq!(answer.head.matches(header).count(), 1, "{}", answer.head);
        }
    }
}

#[test]
fn a_head_request_gets_the_length_and_no_body() {
    let mut node = Node::new();
    let client = node.connect();
    node.send(client, b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n");
    reply(&mut node, 200, b"four");
    let answers = node.answers(client, true);
    assert_eq!(answers.len(), 1);
    assert!(answers[0].head.contains("\r\nContent-Length: 4\r\n"), "{}", answers[0].head);
    assert_eq!(answers[0].head.matches("Content-Length").count(), 1, "the router's own length is not sent");
    assert!(answers[0].head.contains("\r\nX-Mine: 1\r\n"));
    reply(&mut node, 404, b"none");
    let answer = node.answer(client);
    assert_eq!((answer.status, &answer.body[..]), (404, &b"none"[..]));
}

#[test]
fn a_call_that_waited_for_its_instance_says_where_the_time_went() {
    let mut node = Node::new();
    deploy(&mut node, "f", Concurrency::Shared(4));
    let (client, late) = (node.connect(), node.connect());
    let ms = Duration::from_millis;
    node.send(client, &custom("f", "1.1", "", b"1"));
    node.pass(ms(2));
    let mut instance = node.serve();
    node.pass(ms(3));
    node.send(late, &custom("f", "1.1", "", b"2"));
    node.pass(ms(1));
    node.say(&instance, FrameType::Ready, 0, b"");
    let ((first, _), (second, _)) = (node.call(&mut instance), node.call(&mut instance));
    node.pass(ms(5));
    node.say(&instance, FrameType::Response, first, b"1");
    node.say(&instance, FrameType::Response, second, b"2");
    let (cold, joined) = (node.answer(client).head, node.answer(late).head);
    let whole = "\r\nServer-Timing: queue;dur=0.000, claim;dur=1.999, attach;dur=0.001, load;dur=4.000, run;dur=5.000\r\n";
    assert!(cold.contains(whole), "{cold}");
    let rest = "\r\nServer-Timing: queue;dur=0.000, claim;dur=0.000, attach;dur=0.000, load;dur=1.000, run;dur=5.000\r\n";
    assert!(joined.contains(rest), "{joined}");
    node.send(client, &custom("f", "1.1", "", b"3"));
    let (warm, _) = node.call(&mut instance);
    node.say(&instance, FrameType::Response, warm, b"3");
    let head = node.answer(client).head;
    assert!(!head.contains("Server-Timing"), "{head}");
}

#[test]
fn a_trigger_answers_as_its_function_says() {
    let mut node = Node::new();
    deploy(&mut node, "web", Concurrency::Shared(4));
    let client = node.connect();
    let get = format!("GET /{ACCOUNT}/web/1?a=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    node.send(client, get.as_bytes());
    let mut instance = node.start();
    let (id, event) = node.call(&mut instance);
    let event = String::from_utf8(event).expect("JSON is text");
    assert!(event.contains(r#""httpMethod":"GET""#) && event.contains(r#"{"a":"1"}"#), "{event}");
    let result = br#"{"statusCode":201,"headers":{"X-A":"b","Connection":"close"},"body":"made"}"#;
    node.say(&instance, FrameType::Response, id, result);
    let answer = node.answer(client);
    assert_eq!((answer.status, &answer.body[..]), (201, &b"made"[..]));
    assert!(answer.head.contains("\r\nX-A: b\r\n") && !answer.head.contains("close"), "{}", answer.head);
    node.send(client, get.as_bytes());
    let (id, _) = node.call(&mut instance);
    node.say(&instance, FrameType::Error, id, br#"{"errorMessage":"broken"}"#);
    assert_eq!(node.answer(client).status, 500);
}

// --- Limits ----------------------------------------------------------------------------------------------------------

#[test]
fn bodies_are_limited_by_where_they_go() {
    let path = format!("/v1/functions/brn:cloud:faas:bj:{HASH}:function:f:1/invocations");
    for (path, limit) in [
        (path.as_str(), SYNC_REQUEST_BYTES_MAX),
        ("/v1/functions", CONTROL_BODY_BYTES_MAX),
        ("/elsewhere", CONTROL_BODY_BYTES_MAX),
    ] {
        for (length, refused) in [(limit, false), (limit + 1, true)] {
            let mut node = Node::new();
            let client = node.connect();
            let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
            node.send(client, head.as_bytes());
            let held = node.audit().held_bytes;
            let answers = node.answers(client, false);
            if refused {
                assert_eq!((answers[0].status, held), (413, 0), "{path} {length}");
                assert!(answers[0].head.contains("\r\nConnection: close\r\n"));
            } else {
                assert_eq!((answers.len(), held), (0, length), "{path} {length}");
                node.sim.close(client);
                node.settle();
                assert_eq!(node.audit().held_bytes, 0, "what was reserved is free again");
            }
        }
    }
}

#[test]
fn a_chunked_body_is_refused_as_soon_as_it_is_too_long() {
    let mut node = Node::new();
    deploy(&mut node, "f", Concurrency::Exclusive);
    let client = node.connect();
    let head = custom("f", "1.1", "", b"");
    let head =
        String::from_utf8(head).expect("text").replace("Content-Length: 0", "Transfer-Encoding: chunked");
    node.send(client, head.as_bytes());
    node.send(client, format!("{:x}\r\n", SYNC_REQUEST_BYTES_MAX + 1).as_bytes());
    assert_eq!(node.answer(client).status, 413);
    assert_eq!(node.audit().held_bytes, 0);
}

#[test]
fn an_event_has_a_limit_of_its_own() {
    let mut node = Node::new();
    deploy(&mut node, "f", Concurrency::Exclusive);
    let client = node.connect();
    let kind = "X-easyfaas-Invoke-Type: event\r\n";
    node.send(client, &custom("f", "1.1", kind, &vec![b'1'; ASYNC_REQUEST_BYTES_MAX]));
    assert_eq!(node.answer(client).status, 201);
    assert_eq!(node.audit().async_queued, 1);
    node.send(client, &custom("f", "1.1", kind, &vec![b'1'; ASYNC_REQUEST_BYTES_MAX + 1]));
    assert_eq!(node.answer(client).status, 400);
    assert_eq!(node.audit().async_queued, 1);
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let mut node = Node::new();
    deploy(&mut node, "f", Concurrency::Exclusive);
    let clients: Vec<_> = (0..=QUEUE_PER_FUNCTION_MAX / 64).map(|_| node.connect()).collect();
    let (last, others) = clients.split_last().expect("more than one");
    for client in others {
        let wire: Vec<u8> = (0..64).flat_map(|_| invocation("f", b"{}")).collect();
        node.send(*client, &wire);
    }
    assert_eq!(node.audit().functions[0].queued, QUEUE_PER_FUNCTION_MAX);
    node.send(*last, &invocation("f", b"{}"));
    let answer = node.answer(*last);
    assert_eq!(answer.status, 429);
    assert!(answer.head.contains("\r\nRetry-After: 7\r\n"), "{}", answer.head);
    let claims = std::iter::from_fn(|| node.next_request()).count();
    assert_eq!(claims, 1, "a crowd for a function that nobody knows starts one instance");
}

// --- Time ------------------------------------------------------------------------------------------------------------

#[test]
fn an_idle_connection_is_closed_in_the_end() {
    let mut node = Node::new();
    let client = node.connect();
    node.send(client, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    reply(&mut node, 200, b"");
    node.answer(client);
    node.pass(IDLE_TIMEOUT - MILLISECOND);
    assert!(!node.is_closed(client));
    node.pass(2 * MILLISECOND);
    assert!(node.is_closed(client));
    assert_eq!(node.audit().connections, 0);
}

#[test]
fn a_client_that_says_nothing_is_closed_without_an_answer() {
    let mut node = Node::new();
    let client = node.connect();
    node.pass(HEAD_TIMEOUT + MILLISECOND);
    assert!(node.is_closed(client));
    assert!(node.answers(client, false).is_empty());
}

#[test]
fn half_a_head_is_answered_with_408_whenever_it_began() {
    // Also when the connection has idled almost to its end before.
    for idle in [Duration::ZERO, IDLE_TIMEOUT - MILLISECOND] {
        let mut node = Node::new();
        let client = node.connect();
        node.send(client, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
        reply(&mut node, 200, b"");
        node.answer(client);
        node.pass(idle);
        node.send(client, b"GET /b HTTP/1.1\r\n");
        // Later pieces do not renew the limit.
        node.pass(HEAD_TIMEOUT / 2);
        node.send(client, b"Host: x\r\n");
        node.pass(HEAD_TIMEOUT / 2 - MILLISECOND);
        assert!(node.answers(client, false).is_empty(), "after {idle:?}: too early");
        node.pass(2 * MILLISECOND);
        let answer = node.answer(client);
        assert_eq!(answer.status, 408, "after {idle:?}");
        node.pass(LINGER_TIMEOUT + MILLISECOND);
        assert_eq!(node.audit().connections, 0);
    }
}

#[test]
fn each_pipelined_head_has_its_own_time() {
    let mut node = Node::new();
    let client = node.connect();
    node.send(client, b"GET /a HTTP/1.1\r\n");
    node.pass(HEAD_TIMEOUT - MILLISECOND);
    node.send(client, b"Host: x\r\n\r\nGET /b HTTP/1.1\r\n");
    reply(&mut node, 200, b"");
    assert_eq!(node.answer(client).status, 200);
    node.pass(HEAD_TIMEOUT - MILLISECOND);
    assert!(node.answers(client, false).is_empty());
    node.send(client, b"Host: x\r\n\r\n");
    reply(&mut node, 200, b"");
    assert_eq!(node.answer(client).status, 200);
}

#[test]
fn a_client_that_does_not_read_is_dropped_and_one_that_reads_slowly_is_not() {
    let mut node = Node::new();
    deploy(&mut node, "f", Concurrency::Shared(4));
    let (stuck, slow) = (node.connect(), node.connect());
    for client in [stuck, slow] {
        node.sim.set_window(client, 1000);
        node.send(client, &invocation("f", b"{}"));
    }
    let mut instance = node.start();
    for _ in 0..2 {
        let (id, _) = node.call(&mut instance);
        node.say(&instance, FrameType::Response, id, &[b'x'; 100_000]);
    }
    node.settle();
    assert_eq!(node.audit().held_bytes, 200_000, "both answers count until they are taken");
    let mut got = 0;
    for _ in 0..8 {
        node.pass(WRITE_TIMEOUT / 2);
        got += node.sim.take(slow, 500).len();
        assert!(!node.is_closed(slow), "it takes its answer");
    }
    assert_eq!(got, 4000);
    assert!(node.audit().connections == 1, "the other one was dropped");
    assert_eq!(node.audit().held_bytes, 100_000);
    while !node.sim.take(slow, 50_000).is_empty() {
        node.settle();
    }
    assert_eq!(node.audit().held_bytes, 0);
}

#[test]
fn a_large_answer_that_finds_no_room_is_refused_and_counted() {
    let mut node = Node::new();
    deploy(&mut node, "f", Concurrency::Shared(4));
    // Bodies that were announced and do not come take the whole budget but a little.
    let mut room = HELD_BYTES_PER_SHARD_MAX;
    while room >= CONTROL_BODY_BYTES_MAX {
        room -= CONTROL_BODY_BYTES_MAX;
        let client = node.connect();
        let head = format!(
            "POST /v1/functions HTTP/1.1\r\nHost: x\r\nContent-Length: {CONTROL_BODY_BYTES_MAX}\r\n\r\n"
        );
        node.send(client, head.as_bytes());
    }
    let rest = room - 150_000;
    for length in [rest / 2, rest - rest / 2] {
        let client = node.connect();
        let head = format!("POST /v1/functions HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        node.send(client, head.as_bytes());
    }
    assert_eq!(node.audit().held_bytes, HELD_BYTES_PER_SHARD_MAX - 150_000);
    let clients = [node.connect(), node.connect(), node.connect()];
    for client in clients {
        node.sim.set_window(client, 1000);
        node.send(client, &invocation("f", b"{}"));
    }
    let mut instance = node.start();
    for length in [100_000, 60_000, 100_000] {
        let (id, _) = node.call(&mut instance);
        node.say(&instance, FrameType::Response, id, &vec![b'x'; length]);
    }
    node.settle();
    let audit = node.audit();
    assert_eq!(audit.counters.answers_refused_total, 1);
    assert_eq!(audit.held_bytes, HELD_BYTES_PER_SHARD_MAX - 50_000, "small answers do not count");
    let refused = node.answer(clients[2]);
    assert_eq!(refused.status, 503);
}

// --- Calls that nobody waits for -------------------------------------------------------------------------------------

#[test]
fn a_client_that_leaves_takes_its_waiting_calls_along() {
    let mut node = Node::new();
    deploy(&mut node, "f", Concurrency::Exclusive);
    let client = node.connect();
    node.send(client, &[invocation("f", b"1"), invocation("f", b"2")].concat());
    assert_eq!(node.audit().calls, 2);
    node.sim.close(client);
    node.settle();
    let audit = node.audit();
    assert_eq!((audit.calls, audit.held_bytes, audit.connections), (0, 0, 0));
    assert_eq!(audit.counters.invocations_abandoned_total, 2);
}

#[test]
fn a_running_call_runs_to_its_end_for_nobody() {
    let mut node = Node::new();
    deploy(&mut node, "f", Concurrency::Exclusive);
    let client = node.connect();
    node.send(client, &invocation("f", b"1"));
    let mut instance = node.start();
    let (id, _) = node.call(&mut instance);
    node.sim.close(client);
    node.settle();
    // The end of the sending side alone is no reason to give up; the answer shows that nobody is there.
    node.say(&instance, FrameType::Response, id, b"unseen");
    node.pass(Duration::from_secs(1));
    let audit = node.audit();
    assert_eq!((audit.calls, audit.connections, audit.instances), (0, 0, 1));
    let next = node.connect();
    node.send(next, &invocation("f", b"2"));
    let (id, event) = node.call(&mut instance);
    assert_eq!(event, b"2");
    node.say(&instance, FrameType::Response, id, b"seen");
    assert_eq!(node.answer(next).body, b"seen");
}

#[test]
fn a_client_that_stops_sending_gets_what_runs_and_no_more() {
    let mut node = Node::new();
    deploy(&mut node, "f", Concurrency::Exclusive);
    let client = node.connect();
    let wire = [invocation("f", b"1"), invocation("f", b"2"), invocation("absent", b"3")].concat();
    node.send(client, &wire);
    let mut instance = node.start();
    let (id, _) = node.call(&mut instance);
    node.sim.shutdown(client);
    node.settle();
    assert_eq!(node.audit().calls, 1, "the waiting one is taken back");
    node.say(&instance, FrameType::Response, id, b"one");
    let answer = node.answer(client);
    assert_eq!(answer.body, b"one");
    assert!(node.is_closed(client), "nothing else will come");
    assert!(node.frame(&mut instance).is_none(), "the second call never begins");
}

#[test]
fn a_late_result_of_a_timed_out_call_is_nobodys() {
    let mut node = Node::new();
    deploy(&mut node, "f", Concurrency::Shared(2));
    let client = node.connect();
    node.send(client, &[invocation("f", b"slow"), invocation("f", b"neighbour")].concat());
    let mut instance = node.start();
    let (slow, _) = node.call(&mut instance);
    let (neighbour, _) = node.call(&mut instance);
    node.pass(Duration::from_millis(2900));
    node.say(&instance, FrameType::Response, neighbour, b"fine");
    node.pass(Duration::from_millis(101));
    let answers = node.answers(client, false);
    assert_eq!(answers.len(), 2);
    let text = String::from_utf8_lossy(&answers[0].body).into_owned();
    assert!(text.contains("Task timed out after 3 seconds"), "{text}");
    assert_eq!(answers[1].body, b"fine");
    let cancel = node.frame(&mut instance).expect("the runtime hears of it");
    assert_eq!((cancel.header.kind, cancel.header.invocation), (FrameType::Cancel, slow));
    node.say(&instance, FrameType::Response, slow, b"too late");
    assert!(node.answers(client, false).is_empty());
    let kill = node.next_request();
    assert!(matches!(kill, Some(Request::Kill { .. })), "an instance with a stuck call goes: {kill:?}");
}

// --- Calls that wait ------------------------------------------------------------------------------------------------

/// Refuses the one claim that waits.
fn refuse(node: &mut Node, refusal: Refusal) {
    let Some(Request::Claim(claim)) = node.next_request() else { panic!("a claim was expected") };
    node.tell(&Event::Refused { ticket: claim.ticket, refusal, errno: 0 }, vec![]);
}

#[test]
fn a_call_waits_for_a_slot_and_is_not_refused_at_once() {
    let mut node = Node::new();
    deploy(&mut node, "f", Concurrency::Exclusive);
    let client = node.connect();
    node.send(client, &invocation("f", b"{}"));
    for refusal in [Refusal::Slots, Refusal::Rate, Refusal::Deadline] {
        refuse(&mut node, refusal);
        assert!(node.answers(client, false).is_empty(), "{refusal:?}");
        node.pass(Duration::from_millis(200));
    }
    let mut instance = node.start();
    let (id, _) = node.call(&mut instance);
    node.say(&instance, FrameType::Response, id, b"in the end");
    assert_eq!(node.answer(client).body, b"in the end");
}

#[test]
fn a_call_that_never_gets_a_slot_is_refused_at_its_deadline() {
    let mut node = Node::new();
    deploy(&mut node, "f", Concurrency::Exclusive);
    let client = node.connect();
    node.send(client, &invocation("f", b"{}"));
    for _ in 0..14 {
        refuse(&mut node, Refusal::Slots);
        node.pass(Duration::from_millis(200));
    }
    assert!(node.answers(client, false).is_empty());
    node.pass(Duration::from_millis(300));
    assert_eq!(node.answer(client).status, 429);
}
