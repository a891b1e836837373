//! A null server as a process of its own, and runs of the command against it.
//!
//! Owns: the process, which ends with the test. Must not know: what is tested.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use faaster_sys::pidfd::{PidFd, ProcessId};
use serde_json::Value;

pub(crate) const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");

/// A null server that ends with the test.
pub(crate) struct Server {
    pub(crate) child: Child,
    pidfd: PidFd,
    pub(crate) url: String,
    _directory: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = format!("unix:{}", directory.path().join("socket").display());
        Self::listen(directory, &address, &format!("{address}:/path"), flags)
    }

    /// On a port that was free a moment ago.
    pub(crate) fn start_tcp(host: &str, flags: &[&str]) -> Self {
        let address = TcpListener::bind(format!("{host}:0")).unwrap().local_addr().unwrap().to_string();
        Self::listen(tempfile::tempdir().unwrap(), &address, &format!("http://{address}/path"), flags)
    }

    fn listen(directory: tempfile::TempDir, address: &str, url: &str, flags: &[&str]) -> Self {
        let mut child = Command::new(LOADGEN)
            .args(["null-server", "--listen", address])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pidfd = PidFd::open(ProcessId::new(i32::try_from(child.id()).unwrap()).unwrap()).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("listening"), "{line:?}");
        Self { child, pidfd, url: url.to_owned(), _directory: directory }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Some end by themselves.
        self.pidfd.kill().ok();
        self.child.wait().expect("it is our child");
    }
}

pub(crate) fn run(url: &str, flags: &[&str]) -> Output {
    Command::new(LOADGEN).arg("run").args(flags).arg(url).output().unwrap()
}

/// A run with its result.
pub(crate) fn result(url: &str, flags: &[&str]) -> (Value, Option<i32>) {
    let output = run(url, &[&["--json", "--warm-up", "0"], flags].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text.lines().count(), 1, "one object on standard output: {text} {stderr}");
    (serde_json::from_str(&text).unwrap(), output.status.code())
}
