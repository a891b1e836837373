//! Waiting until an engine has come to rest.
//!
//! Owns: the deadline. Must not know: what the engine is doing. At rest is who neither starts nor ends a process and uses no
//! CPU time that the kernel's clock of 10 ms would show.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::All;
use super::stop::Stop;
use crate::cpu::tree;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// An engine that is at work for longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// # Errors
/// The process is not there, or does not come to rest.
pub(super) fn wait_for_rest(engine: u32, stop: &Stop) -> anyhow::Result<All> {
    wait_between(engine, &|time| stop.is_asked_for_within(time), LOOK, PATIENCE)
}

fn wait_between(
    engine: u32,
    stopped_within: &dyn Fn(Duration) -> bool,
    look: Duration,
    patience: Duration,
) -> anyhow::Result<All> {
    let until = Instant::now() + patience;
    let mut before = tree(engine)?;
    loop {
        if stopped_within(look) {
            return Ok(All::Stopped);
        }
        let now = tree(engine)?;
        if now.has_rested_since(&before) {
            return Ok(All::Done);
        }
        ensure!(Instant::now() < until, "process {engine} did not come to rest in {} s", patience.as_secs());
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn who_waits_is_at_rest_and_who_works_is_not() {
        let look = Duration::from_millis(60);
        let (_open, silent) = std::sync::mpsc::channel::<()>();
        let stopped_within = |time| silent.recv_timeout(time).is_ok();
        let mut waiting = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let done = wait_between(waiting.id(), &stopped_within, look, Duration::from_secs(30));
        assert_eq!(done.unwrap(), All::Done);
        drop(waiting.stdin.take());
        waiting.wait().unwrap();
        let mut working =
            Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap();
        // However busy the machine is, between two looks it has worked.
        let used = || tree(working.id()).unwrap().cpu_ns;
        let worked = |_| {
            let before = used();
            while used() == before {
                std::thread::yield_now();
            }
            false
        };
        let refused = wait_between(working.id(), &worked, look, Duration::from_millis(300));
        working.kill().unwrap();
        working.wait().unwrap();
        assert!(refused.unwrap_err().to_string().contains("did not come to rest"));
        assert!(wait_between(working.id(), &stopped_within, look, look).is_err(), "nobody is there any more");
    }
}
