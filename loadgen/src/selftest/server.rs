//! A null server in a process of its own, which can be stopped without stopping the generator.
//!
//! Owns: the process and the directory of its socket; both end with it. Must not know: what is tested.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use faaster_sys::pidfd::{PidFd, ProcessId};

pub(super) struct NullServer {
    child: Child,
    pub(super) pidfd: PidFd,
    pub(super) url: String,
    _directory: tempfile::TempDir,
}

/// A descriptor for a child.
pub(super) fn pidfd_of(child: &Child) -> anyhow::Result<PidFd> {
    let number = i32::try_from(child.id()).ok().and_then(ProcessId::new);
    PidFd::open(number.context("a child has a number above 1")?).context("cannot open a child")
}

impl NullServer {
    /// Starts `program null-server` on a unix socket and waits until it listens.
    pub(super) fn start(program: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        let address = format!("unix:{}", directory.path().join("socket").display());
        // Away from the generator, which takes the last core.
        let first = faaster_sys::affinity::allowed_cores().context("cannot read the cores")?;
        let core = first.first().context("there is no core")?.to_string();
        let mut child = Command::new(program)
            .args(["null-server", "--listen", &address, "--core", &core])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a null server")?;
        let pidfd = pidfd_of(&child)?;
        let output = child.stdout.take().context("its output was asked for")?;
        let server = Self { child, pidfd, url: format!("{address}:/"), _directory: directory };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("cannot read from the null server")?;
        ensure!(line.starts_with("listening"), "the null server does not listen");
        Ok(server)
    }
}

impl Drop for NullServer {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is waited for.
        self.pidfd.kill().ok();
        self.child.wait().ok();
    }
}
