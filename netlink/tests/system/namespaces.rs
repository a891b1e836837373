//! Fresh network namespaces for tests, and threads that work in them.
//!
//! Owns: making namespaces without unsafe code (util-linux's unshare makes them, a descriptor keeps them), skipping.
//! Must not know: what is tested. A namespace ends with its last descriptor, and all that is in it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use faaster_netlink::{Connection, LinkName, Protocol};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace with nothing in it but its loopback, down.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    /// Makes one. `None`, with the reason printed, where that takes a right that we do not have.
    pub(crate) fn new() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: making a network namespace takes root");
            return Ok(None);
        }
        // The child says when it is in its namespace, and goes when its input ends.
        let mut child = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run unshare of util-linux")?;
        let mut ready = [0; 6];
        let said = child.stdout.take().context("its output is a pipe")?.read_exact(&mut ready);
        let file = said.and_then(|()| File::open(format!("/proc/{}/ns/net", child.id())));
        drop(child.stdin.take());
        child.wait()?;
        Ok(Some(Self(file.context("unshare --net made no namespace")?)))
    }

    /// Runs `work` on a thread in the namespace. Processes that it starts are in it too.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))?;
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A connection to the kernel in this namespace.
    pub(crate) fn connect(&self, protocol: Protocol) -> Result<Connection> {
        self.run(|| Ok(Connection::open(protocol)?))
    }

    /// What a command prints that runs in the namespace.
    pub(crate) fn output(&self, command: &[&str]) -> Result<String> {
        self.run(|| {
            let output = Command::new(command[0]).args(&command[1..]).output().context("cannot run it")?;
            let error = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{command:?} failed: {error}");
            Ok(String::from_utf8(output.stdout)?)
        })
        .with_context(|| format!("{command:?}"))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A link's name in a test.
pub(crate) fn name(name: &str) -> LinkName {
    LinkName::new(name).expect("tests use valid names")
}
