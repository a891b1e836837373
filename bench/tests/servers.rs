//! The baseline servers speak the HTTP that the benchmark relies on: keep-alive, pipelining, cut requests, many at once.
//!
//! Owns: the servers that it starts. Must not know: the runner.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use faaster_bench::ANSWER;

const PATIENCE: Duration = Duration::from_secs(20);
const REQUEST: &[u8] = b"POST /f HTTP/1.1\r\nHost: f\r\nContent-Length: 2\r\n\r\n{}";

/// A server that ends with the test.
struct Server {
    child: Child,
    _folder: tempfile::TempDir,
    socket: PathBuf,
}

impl Server {
    fn start(serve: &str) -> Self {
        let folder = tempfile::tempdir().expect("the machine has room for a folder");
        let socket = folder.path().join("s");
        let child = Command::new(env!("CARGO_BIN_EXE_unix_upstream"))
            .args(["--serve", serve, "--socket"])
            .arg(&socket)
            .spawn()
            .expect("cargo has built the server");
        Self { child, _folder: folder, socket }
    }

    fn connect(&self) -> UnixStream {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
                    return stream;
                }
                Err(error) => assert!(Instant::now() < deadline, "nobody listens: {error}"),
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("the server runs until the test ends it");
        self.child.wait().expect("it is a child of this process");
    }
}

fn expect_answers(stream: &mut impl Read, count: usize) {
    let mut got = vec![0; ANSWER.len() * count];
    stream.read_exact(&mut got).expect("every request has an answer");
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&ANSWER.repeat(count)));
}

fn speaks(stream: &mut (impl Read + Write)) {
    stream.write_all(REQUEST).expect("the server reads");
    expect_answers(stream, 1);
    stream.write_all(&REQUEST.repeat(5)).expect("the server reads");
    expect_answers(stream, 5);
    for piece in REQUEST.chunks(7) {
        stream.write_all(piece).expect("the server reads");
    }
    expect_answers(stream, 1);
}

#[test]
fn many_connections_are_served_at_once() {
    let server = Server::start("many");
    let mut all: Vec<UnixStream> = (0..40).map(|_| server.connect()).collect();
    all.iter_mut().for_each(speaks);
    all.truncate(3);
    all.push(server.connect());
    all.iter_mut().rev().for_each(speaks);
}

#[test]
fn an_exclusive_server_takes_one_connection_after_the_other() {
    let server = Server::start("one");
    for _ in 0..3 {
        speaks(&mut server.connect());
    }
}

#[test]
fn what_cannot_be_framed_ends_its_connection_alone() {
    let server = Server::start("many");
    let (mut good, mut bad) = (server.connect(), server.connect());
    speaks(&mut good);
    bad.write_all(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").expect("the server reads");
    let mut rest = Vec::new();
    bad.read_to_end(&mut rest).expect("the server closes in order");
    assert!(rest.is_empty(), "a refused request has no answer");
    speaks(&mut good);
}

#[test]
fn the_ring_serves_many_connections_and_survives_their_end() {
    use std::net::{TcpListener, TcpStream};

    let port = TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()).expect("a free port").port();
    let listen = format!("127.0.0.1:{port}");
    let mut child = Command::new(env!("CARGO_BIN_EXE_ring_hello"))
        .args(["--listen", &listen])
        .spawn()
        .expect("cargo has built the server");
    let deadline = Instant::now() + PATIENCE;
    let connect = || loop {
        match TcpStream::connect(&listen) {
            Ok(stream) => {
                // Else a request in pieces waits for acknowledgements, 40 ms each time.
                stream.set_nodelay(true).expect("the socket is open");
                stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
                return stream;
            }
            Err(error) => assert!(Instant::now() < deadline, "nobody listens: {error}"),
        }
        std::thread::yield_now();
    };
    for _ in 0..3 {
        let mut all: Vec<TcpStream> = (0..40).map(|_| connect()).collect();
        all.iter_mut().for_each(speaks);
        // Ends without having read: the server meets a reset.
        for stream in &mut all[..10] {
            stream.write_all(REQUEST).expect("the server reads");
        }
    }
    speaks(&mut connect());
    child.kill().expect("the server still runs");
    child.wait().expect("it is a child of this process");
}
