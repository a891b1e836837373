//! Whole runs of the command against the null server, which misbehaves in known ways.
//!
//! Owns: a server process per test. What is asserted are counts and verdicts; no test depends on how fast anything is.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod server;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;
use server::{LOADGEN, Server, result, run};

fn failed(result: &Value, kind: &str) -> u64 {
    result["failed"][kind].as_u64().unwrap()
}

#[test]
fn counted_requests_all_arrive_and_are_checked() {
    for server in [Server::start(&[]), Server::start_tcp("127.0.0.1", &[])] {
        for (flags, name) in [
            (&["-c", "5"][..], "closed"),
            (&["-c", "3", "-p", "4"], "pipelined"),
            (&["-c", "4", "--no-keepalive"], "a connection each"),
            (&["-c", "4", "-m", "PUT", "-b", "some body", "-H", "X-Test: 1"], "with a body"),
            (&["-c", "4", "-r", "2000"], "open"),
            (
                &["-c", "2", "-p", "4", "--template", "-b", "{{zipf:1000}} {{counter}}"],
                "varied and pipelined",
            ),
            (&["-c", "2", "-p", "3", "-r", "3000", "--arrivals", "poisson"], "open and pipelined"),
        ] {
            let flags = [flags, &["-n", "1500", "--expect-body", "Hello world!"]].concat();
            let (result, _) = result(&server.url, &flags);
            assert_eq!(result["requests"], 1500, "{name}: {result}");
            assert_eq!(result["succeeded"], 1500, "{name}: {result}");
            assert_eq!(result["latency"]["sent_to_done"]["count"], 1500, "{name}");
        }
    }
}

#[test]
fn wrong_answers_are_counted_by_kind() {
    let server = Server::start(&["--wrong-every", "10", "--garbled-every", "4", "--close-every", "100"]);
    let flags = ["-c", "1", "-n", "2000", "--expect-body", "Hello world!"];
    let (result, code) = result(&server.url, &flags);
    // Every 100th is closed; every other 10th is wrong; every 4th that is neither is garbled.
    let closed = (1..=2000).filter(|n| n % 100 == 0).count() as u64;
    let wrong = (1..=2000).filter(|n| n % 10 == 0 && n % 100 != 0).count() as u64;
    let garbled = (1..=2000).filter(|n| n % 4 == 0 && n % 10 != 0).count() as u64;
    assert_eq!(failed(&result, "closed"), closed, "{result}");
    assert_eq!(failed(&result, "status"), wrong, "{result}");
    assert_eq!(failed(&result, "body"), garbled, "{result}");
    assert_eq!(result["succeeded"], 2000 - closed - wrong - garbled);
    assert_eq!((result["valid"].as_bool(), code), (Some(false), Some(3)), "so many failures make it invalid");
    // None of them looks fast: each lasts the time-out of 5 s.
    assert!(result["latency"]["sent_to_done"]["max_us"].as_f64().unwrap() >= 5e6);
}

#[test]
fn expected_failures_are_successes() {
    let server = Server::start(&["--wrong-every", "1"]);
    let (result, _) = result(&server.url, &["-c", "2", "-n", "100", "--expect-status", "500"]);
    assert_eq!(result["succeeded"], 100);
}

#[test]
fn requests_without_an_answer_time_out() {
    let server = Server::start(&["--delay", "constant:1h"]);
    for rate in [&[][..], &["-r", "100"]] {
        let flags = [&["-c", "3", "-n", "6", "--timeout", "100ms"][..], rate].concat();
        let (result, code) = result(&server.url, &flags);
        assert_eq!((failed(&result, "timeout"), code), (6, Some(3)), "{result}");
    }
}

#[test]
fn an_overload_is_called_saturated_and_nothing_due_is_forgotten() {
    let server = Server::start(&["--delay", "constant:100ms"]);
    // One connection and 100 ms each: 10 requests per second at most.
    let flags = ["-c", "1", "-r", "200", "-d", "500ms", "--timeout", "300ms"];
    let (result, code) = result(&server.url, &flags);
    assert_eq!((result["requests"].as_u64(), code), (Some(100), Some(3)), "{result}");
    assert!(failed(&result, "unsent") > 50, "one connection: they never left");
    assert!(failed(&result, "timeout") <= 1, "one may be on its way at the very end");
    let gates = result["gates"].as_array().unwrap();
    let state = |name: &str| gates.iter().find(|gate| gate["name"] == name).unwrap()["state"].clone();
    assert_eq!((state("delivered"), state("schedule")), ("broken".into(), "passed".into()));
    assert!(result["waited_for_connection"].as_u64().unwrap() > 50);
}

#[test]
fn bytes_are_counted_both_ways() {
    let server = Server::start_tcp("127.0.0.1", &[]);
    let address = server.url.trim_start_matches("http://").split('/').next().unwrap();
    let mut raw = std::net::TcpStream::connect(address).unwrap();
    raw.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut one = Vec::new();
    while !one.ends_with(b"Hello world!") {
        let mut some = [0; 512];
        let bytes = raw.read(&mut some).unwrap();
        assert_ne!(bytes, 0, "{one:?}");
        one.extend_from_slice(&some[..bytes]);
    }
    for rate in [&[][..], &["-r", "5000"]] {
        let flags = [&["-c", "3", "-n", "500", "-b", "a body of some length"][..], rate].concat();
        let (result, _) = result(&server.url, &flags);
        let request = result["setting"]["request_bytes"].as_u64().unwrap();
        assert_eq!(result["bytes_sent"], 500 * request, "{result}");
        assert_eq!(result["bytes_received"], 500 * one.len() as u64, "{result}");
    }
}

#[test]
fn a_connection_that_never_stands_is_told_from_an_answer_that_never_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        let mut streams: Vec<_> = (0..4).map(|_| listener.accept().unwrap().0).collect();
        // From now on there is room for one that nobody accepts; the kernel lets all others knock.
        rustix::net::listen(&listener, 0).unwrap();
        for stream in &mut streams {
            assert!(stream.read(&mut [0; 512]).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        }
        drop(streams);
        ended.recv().ok();
    });
    let flags = ["-c", "4", "-n", "12", "--no-keepalive", "--timeout", "200ms"];
    let (result, _) = result(&url, &flags);
    drop(done);
    server.join().unwrap();
    let (connect, timeout) = (failed(&result, "connect"), failed(&result, "timeout"));
    assert_eq!(result["succeeded"], 4, "{result}");
    assert!(connect >= 1 && timeout >= 1 && connect + timeout == 8, "{result}");
}

/// A listener that answers every connection with these bytes and closes it.
fn rude(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut some = [0; 512];
            if stream.read(&mut some).is_ok_and(|bytes| bytes > 0) {
                drop(stream.write_all(answer));
            }
        }
    });
    url
}

#[test]
fn what_is_not_http_is_counted_and_survived() {
    let (result, _) = result(&rude(b"SSH-2.0-x\r\n\r\n"), &["-c", "2", "-n", "20"]);
    assert_eq!(failed(&result, "parse"), 20, "{result}");
    let truncated = rude(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort");
    let (result, _) = self::result(&truncated, &["-c", "2", "-n", "20"]);
    assert_eq!(failed(&result, "closed") + failed(&result, "reset"), 20, "{result}");
    let until_close = rude(b"HTTP/1.0 200 OK\r\n\r\nall of it");
    let (result, _) = self::result(&until_close, &["-c", "2", "-n", "20", "--expect-body", "all of it"]);
    assert_eq!(result["succeeded"], 20, "{result}");
}

#[test]
fn a_server_that_goes_away_is_counted_and_not_stormed() {
    // Its socket stays in the file system, but nobody accepts any more.
    let server = Server::start(&["--end-after", "500"]);
    let (result, code) = result(&server.url, &["-c", "2", "-r", "1000", "-d", "2s"]);
    assert_eq!(code, Some(3), "{result}");
    assert_eq!(result["requests"], 2000, "all that was due is accounted for: {result}");
    assert!(failed(&result, "connect") > 0, "{result}");
}

#[test]
fn what_cannot_begin_says_what_to_do() {
    for (url, flags, words) in [
        ("unix:/no/such/socket:/", &[][..], "is the server running there?"),
        ("http://127.0.0.1:1/{{x}}", &["--template"], "is no placeholder"),
        ("https://x/", &[], "https is not spoken here"),
        ("http://127.0.0.1:1/", &["--pid", "4194304"], "there is no process 4194304"),
    ] {
        let output = run(url, flags);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
}

#[test]
fn more_connections_than_descriptors_are_refused_with_the_command_that_helps() {
    let server = Server::start(&[]);
    let script = "ulimit -n 100; exec \"$0\" run -c 200 \"$1\"";
    let output = Command::new("sh").args(["-c", script, LOADGEN, &server.url]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("`ulimit -n 264`") && stderr.contains("at most 36 connections"), "{stderr}");
}

#[test]
fn the_text_tells_the_verdict_and_why() {
    let server = Server::start(&[]);
    let output = run(&server.url, &["-n", "50", "-w", "0", "-r", "500"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("INVALID") && text.contains("50 requests are too few for p99"), "{text}");
    let allow = ["-n", "50", "-w", "0", "--allow", "samples,cpu,lag,machine,delivered,clock", "-r", "500"];
    let output = run(&server.url, &allow);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("waived    samples"), "{text}");
}

#[test]
fn results_are_read_back_as_calibration() {
    let server = Server::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("null.json");
    let file = file.to_str().unwrap();
    run(&server.url, &["-n", "20000", "-w", "0", "-c", "20", "--out", file]);
    let (result, _) = result(&server.url, &["-n", "20", "-r", "10", "-c", "1", "--calibration", file]);
    let gates = result["gates"].as_array().unwrap();
    assert!(gates.iter().any(|gate| gate["name"] == "calibration" && gate["state"] == "passed"), "{result}");
}

#[test]
fn percentile_listings_and_pages_are_written() {
    let server = Server::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let (file, page) = (directory.path().join("latency.hgrm"), directory.path().join("page.html"));
    let (hgrm, html) = (file.to_str().unwrap(), page.to_str().unwrap());
    run(&server.url, &["-n", "2000", "-w", "0", "-r", "5000", "--hgrm", hgrm, "--html", html]);
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("send lag") && page.contains("2000 succeeded"), "{page}");
    assert_eq!(page.matches("<svg").count(), 3);
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains("Total count    =         2000"), "{text}");
}

#[test]
fn contenders_take_turns_and_their_files_compare_alike() {
    // At most 40 requests per second: less than the plain one manages on the busiest machine.
    let (plain, slow) = (Server::start(&[]), Server::start(&["--delay", "constant:100ms"]));
    let directory = tempfile::tempdir().unwrap();
    let contenders = [format!("plain={}", plain.url), format!("slow@{}={}", slow.child.id(), slow.url)];
    let output = Command::new(LOADGEN)
        .args(["repeat", "--rounds", "4", "--json", "-c", "4", "-n", "40", "-w", "0", "--out"])
        .arg(directory.path())
        .args(&contenders)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "runs of 40 requests are INVALID");
    let repeated: Value = serde_json::from_slice(&output.stdout).unwrap();
    let order: Vec<String> = String::from_utf8(output.stderr)
        .unwrap()
        .lines()
        .map(|line| line.split(':').next().unwrap().to_owned())
        .collect();
    assert_eq!(order, ["plain", "slow"].repeat(4), "in turns");
    let rate = &repeated["rows"][0]["cells"][1];
    assert_eq!(
        (rate["verdict"].as_str(), rate["contender"].as_str()),
        (Some("real"), Some("slow")),
        "{repeated}"
    );
    let files = ["plain.json", "slow.json"].map(|name| directory.path().join(name));
    let output = Command::new(LOADGEN).args(["compare", "--json"]).args(&files).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "and so are comparisons of them");
    let compared: Value = serde_json::from_slice(&output.stdout).unwrap();
    // JSON's decimal numbers come back with the last bit open, so what is compared is what was found.
    let found = |comparison: &Value| -> Vec<Value> {
        let rows = comparison["rows"].as_array().unwrap().iter();
        rows.map(|row| row["cells"].as_array().unwrap().iter().map(|cell| cell["verdict"].clone()).collect())
            .collect()
    };
    assert_eq!(found(&compared), found(&repeated));
    assert_eq!(compared["runs"], repeated["runs"]);
}

#[test]
fn a_sweep_finds_where_a_server_stops_keeping_up() {
    // Two connections and 10 ms for each answer: 200 requests per second at most.
    let server = Server::start(&["--delay", "constant:10ms"]);
    let flags = ["sweep", "--json", "-c", "2", "-d", "1s", "-w", "100ms", "--from", "20", "--to", "400"];
    let output = Command::new(LOADGEN).args(flags).args(["--p99-max", "10s", &server.url]).output().unwrap();
    // There are too few requests for a p99 at these rates, so that no rate could be shown to keep its bound.
    let refused = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{refused}");
    assert!(refused.contains("would have 20 requests") && refused.contains("--duration to 50s"), "{refused}");
    let output = Command::new(LOADGEN)
        .args(["sweep", "--json", "-c", "20", "-d", "2s", "-w", "100ms", "--from", "600", "--to", "6000"])
        .args(["--p99-max", "1s", &server.url])
        .output()
        .unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Twenty connections: 2000 per second can never be passed. A machine that is busy with something else may fail lower.
    assert!(found["knee"].as_f64().is_none_or(|knee| (600.0..2200.0).contains(&knee)), "{found}");
    let points = found["points"].as_array().unwrap();
    let kept = |point: &Value| point["kept"] == "yes";
    assert!(points.iter().any(|point| !kept(point)), "6000 per second cannot be kept: {found}");
    assert_eq!(found["knee"].is_null(), !points.iter().any(kept), "{found}");
}
