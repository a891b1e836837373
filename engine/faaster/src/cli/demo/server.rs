//! The engine of the demo: `faaster serve` as a child.
//!
//! Owns: the child, its start and its end. Must not know: what is shown with it.

use std::io::Read;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use super::super::client::{Client, Port};
use super::super::error::CliError;
use super::super::output::remark;
use crate::clock::{Deadline, wait_readable};
use crate::config::{Config, Effective, Origin, SettingFlags};
use crate::exit::Outcome;
use crate::signals::Signals;
use crate::supervisor::data::{DataDirectory, DataError, Keep};

/// The engine says that it serves, or why not, within this.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// What the engine gets beyond its own grace time to end.
const STOP_MARGIN: Duration = Duration::from_secs(30);
/// Bytes of the line by which the engine says that it serves.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Between two looks at the pools.
const POOL_INTERVAL: Duration = Duration::from_millis(20);
/// Demos at once on one machine.
const DEMOS_MAX: usize = 8;

/// A serving engine.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pidfd: rustix::fd::OwnedFd,
    pub controller: String,
    pub registry: String,
    pub runtimes: Vec<String>,
    grace: Duration,
}

/// What became of the start.
#[derive(Debug)]
pub(crate) enum Started {
    Serving(Server),
    /// It has said why on standard error, or was interrupted.
    Ended(Outcome),
}

impl Server {
    /// Starts the engine with the user's settings; where they say nothing, with a data directory that is removed at
    /// the end and with ports that are free.
    ///
    /// # Errors
    /// It cannot be started, or does not say what it should.
    pub(crate) fn start(
        config: &Config,
        effective: &[Effective],
        flags: &SettingFlags,
        signals: &mut Signals,
    ) -> Result<Started, CliError> {
        let local = |what: &str, error: &dyn std::fmt::Display| CliError::Local(format!("{what}: {error}"));
        let mut child = Command::new("/proc/self/exe")
            .arg0("faaster")
            .args(["serve", "--json", "--ephemeral"])
            .arg(format!("--die-with-parent={}", std::process::id()))
            .args(flags.arguments())
            .args(own_settings(config, effective)?)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // A Ctrl-C at the terminal is for the demo, which passes it on once.
            .process_group(0)
            .spawn()
            .map_err(|error| local("cannot start the engine", &error))?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .map_err(|error| local("cannot watch the engine", &error))?;
        let mut output = child.stdout.take().expect("it was asked for");
        let mut server = Self {
            child,
            pidfd,
            controller: String::new(),
            registry: String::new(),
            runtimes: Vec::new(),
            grace: config.grace,
        };
        let deadline = Deadline::after(START_TIMEOUT);
        let mut line = Vec::new();
        while !line.contains(&b'\n') {
            let Some(left) = deadline.left().filter(|_| line.len() < LINE_BYTES_MAX) else {
                server.stop(signals);
                return Err(CliError::Local("the engine did not say that it serves".to_owned()));
            };
            let sources: Vec<_> = std::iter::once(output.as_fd()).chain(signals.descriptors()).collect();
            let readable =
                wait_readable(&sources, left).map_err(|error| local("cannot wait for the engine", &error))?;
            if readable[1..].contains(&true) && !signals.take().is_empty() {
                server.stop(signals);
                return Ok(Started::Ended(Outcome::Success));
            }
            if readable[0] {
                let mut bytes = [0; 4096];
                match output.read(&mut bytes) {
                    Ok(count) if count > 0 => line.extend_from_slice(&bytes[..count]),
                    Ok(_) | Err(_) => return Ok(Started::Ended(server.reap())),
                }
            }
        }
        let said: Value =
            serde_json::from_slice(&line).map_err(|error| local("the engine's first line", &error))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        server.controller = text(&said["controller"]);
        server.registry = text(&said["registry"]);
        server.runtimes =
            said["runtimes"].as_array().into_iter().flatten().map(|r| text(&r["name"])).collect();
        remark(&format!("faaster is serving on {} (registry {})", server.controller, server.registry));
        Ok(Started::Serving(server))
    }

    /// Waits until the prepared containers are there, so that the first call meets the engine as it is meant to be.
    ///
    /// # Errors
    /// The engine does not answer.
    pub(crate) fn wait_for_pools(
        &self,
        client: &Client,
        patience: Duration,
        signals: &Signals,
    ) -> Result<(), CliError> {
        let deadline = Deadline::after(patience);
        while let Some(left) = deadline.left() {
            let node = client.get(Port::Controller, "/v1/node")?.accepted()?.json()?;
            if pools_are_full(&node) {
                break;
            }
            // A signal ends the wait; who looks next sees it.
            let signalled: Vec<_> = signals.descriptors().collect();
            if wait_readable(&signalled, left.min(POOL_INTERVAL))
                .is_ok_and(|readable| readable.contains(&true))
            {
                break;
            }
        }
        Ok(())
    }

    /// Waits until somebody asks for a stop, or the engine ends by itself.
    pub(crate) fn wait(mut self, signals: &mut Signals) -> Outcome {
        loop {
            let sources: Vec<_> = std::iter::once(self.pidfd.as_fd()).chain(signals.descriptors()).collect();
            let Ok(readable) = wait_readable(&sources, Duration::from_secs(3600)) else {
                return self.stop(signals);
            };
            if readable[0] {
                return self.reap();
            }
            if !signals.take().is_empty() {
                return self.stop(signals);
            }
        }
    }

    /// Ends the engine: a request first, a second one if the user asks again, force if nothing helps.
    pub(crate) fn stop(&mut self, signals: &mut Signals) -> Outcome {
        // If it is gone already, there is nothing to ask.
        let ask = |pidfd: &rustix::fd::OwnedFd| pidfd_send_signal(pidfd, Signal::TERM).ok();
        ask(&self.pidfd);
        let deadline = Deadline::after(self.grace + STOP_MARGIN);
        while let Some(left) = deadline.left() {
            let sources: Vec<_> = std::iter::once(self.pidfd.as_fd()).chain(signals.descriptors()).collect();
            match wait_readable(&sources, left) {
                Ok(readable) if readable[0] => return self.reap(),
                Ok(_) if !signals.take().is_empty() => {
                    ask(&self.pidfd);
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        // Its children die with it, and the next start sweeps the rest.
        drop(self.child.kill());
        self.reap()
    }

    fn reap(&mut self) -> Outcome {
        match self.child.wait().as_ref().map(ExitStatus::code) {
            Ok(Some(0)) => Outcome::Success,
            Ok(Some(2)) => Outcome::Refused,
            Ok(_) | Err(_) => Outcome::Failed,
        }
    }
}

/// Whether the engine has all its functions and every runtime as many prepared containers as it should.
fn pools_are_full(node: &Value) -> bool {
    let sum = |list: &str, member: &str| -> u64 {
        node[list].as_array().into_iter().flatten().filter_map(|entry| entry[member].as_u64()).sum()
    };
    sum("Runtimes", "Pool") > 0 && sum("Funclets", "SlotsCold") >= sum("Runtimes", "Pool")
}

/// What the demo chooses where the user has not.
fn own_settings(config: &Config, effective: &[Effective]) -> Result<Vec<String>, CliError> {
    let untouched =
        |name: &str| effective.iter().any(|row| row.name == name && row.origin == Origin::Default);
    let mut arguments = Vec::new();
    if untouched("data") {
        arguments.push(format!("--data={}", free_data()?.display()));
    }
    for (name, flag, address) in
        [("listen", "listen", config.listen), ("registry_listen", "registry-listen", config.registry_listen)]
    {
        if untouched(name) && TcpListener::bind(address).is_err() {
            arguments.push(format!("--{flag}={}:0", address.ip()));
        }
    }
    Ok(arguments)
}

/// The same directories each time, so that what a killed demo left is found and removed by the next.
fn free_data() -> Result<PathBuf, CliError> {
    for number in 1..=DEMOS_MAX {
        let data = PathBuf::from(format!("/var/tmp/faaster-demo-{number}"));
        match DataDirectory::lock(&data, Keep::Nothing) {
            // It is removed again here, and made by the engine.
            Ok(_) => return Ok(data),
            Err(DataError::InUse { .. }) => {}
            Err(error) => return Err(CliError::Local(error.to_string())),
        }
    }
    Err(CliError::Local(format!("{DEMOS_MAX} demos run already: stop one first")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_full_when_all_containers_are_there() {
        let node = |cold: u64| serde_json::json!({ "Runtimes": [{ "Pool": 4 }, { "Pool": 2 }], "Funclets": [{ "SlotsCold": cold }] });
        assert!(pools_are_full(&node(6)) && !pools_are_full(&node(5)));
    }
}
