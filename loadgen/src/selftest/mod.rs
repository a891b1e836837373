//! The proof that this tool does not lie, on the machine that it is to be used on.
//!
//! Owns: the checks, each against a null server whose faults are known. Must not know: how the generator works inside.
//! A check that depends on time is tried again when it does not hold: a busy machine can spoil it, but nothing can make
//! it hold by accident.

mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use rustix::process::{Signal, pidfd_send_signal};

use crate::options::{Cli, Command as Subcommand};
use crate::plan::Plan;
use crate::result::RunResult;
use crate::run::{Outcome, run};
use crate::schedule::Dice;
use crate::tally::{Failure, histogram};
use server::NullServer;

/// How often a check that depends on time is tried.
const TRIES: usize = 4;

/// One check: its name, whether time matters in it, and what it does. The text says what was seen.
type Check = (&'static str, Tries, fn(&Path) -> anyhow::Result<String>);

/// Whether a busy machine can spoil a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tries {
    One,
    Some,
}

const CHECKS: [Check; 6] = [
    ("percentiles", Tries::One, percentiles),
    ("failures", Tries::One, failures),
    ("schedule", Tries::One, schedule),
    ("stall", Tries::Some, stall),
    ("distribution", Tries::Some, distribution),
    ("slow generator", Tries::Some, slow_generator),
];

/// Runs all checks; `program` is this tool's executable. Each one's verdict is told to `say` as a line. Answers whether
/// all of them held.
pub fn selftest(program: &Path, say: &mut dyn FnMut(&str)) -> bool {
    let mut all = true;
    for (name, tries, check) in CHECKS {
        let tries = if tries == Tries::Some { TRIES } else { 1 };
        let mut seen = check(program);
        for _ in 1..tries {
            if seen.is_ok() {
                break;
            }
            seen = check(program);
        }
        match seen {
            Ok(text) => say(&format!("ok      {name}: {text}")),
            Err(error) => {
                all = false;
                say(&format!("FAILED  {name}: {error:#}"));
            }
        }
    }
    all
}

/// The tool's own executable.
///
/// # Errors
/// It cannot be told.
pub fn own_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot tell where loadgen's own program is")
}

fn plan(url: &str, flags: &[&str]) -> anyhow::Result<Plan> {
    let words = ["loadgen", "run", url].into_iter().chain(flags.iter().copied());
    match Cli::try_parse_from(words)?.command {
        Subcommand::Run(args) => Ok(args.flags.plan(&args.url)?),
        other => unreachable!("{other:?} is not what was written"),
    }
}

fn measure(url: &str, flags: &[&str]) -> anyhow::Result<Outcome> {
    Ok(run(&plan(url, flags)?, None, &mut |_| {})?)
}

/// Known values come back from the histogram within 0.1 %.
fn percentiles(_program: &Path) -> anyhow::Result<String> {
    let mut dice = Dice::new(1, 0);
    let mut values: Vec<f64> = (0..100_000).map(|_| 1e6 * dice.exponential() + 1.0).collect();
    let mut told = histogram();
    for value in &values {
        told.saturating_record(nanos(Duration::from_nanos(1).mul_f64(*value)));
    }
    values.sort_by(f64::total_cmp);
    let mut worst: f64 = 0.0;
    for thousandths in [500usize, 900, 990, 999] {
        let exact = values[values.len() * thousandths / 1000 - 1];
        let quantile = told.value_at_quantile(thousandths as f64 / 1000.0) as f64;
        worst = worst.max((quantile / exact - 1.0).abs());
    }
    ensure!(worst <= 0.001, "percentiles are off by {:.3} %", worst * 100.0);
    Ok(format!("100,000 known values come back within {:.3} %", worst * 100.0))
}

/// A server that fails in a known pattern is counted to the last request.
fn failures(program: &Path) -> anyhow::Result<String> {
    let faults = ["--wrong-every", "10", "--garbled-every", "4", "--close-every", "100"];
    let server = NullServer::start(program, &faults)?;
    let flags = ["-c", "1", "-n", "4000", "-w", "0", "--expect-body", "Hello world!"];
    let tally = measure(&server.url, &flags)?.tally;
    let count = |test: fn(u64) -> bool| (1..=4000).filter(|n| test(*n)).count() as u64;
    for (kind, expected) in [
        (Failure::Closed, count(|n| n % 100 == 0)),
        (Failure::Status, count(|n| n % 10 == 0 && n % 100 != 0)),
        (Failure::Body, count(|n| n % 4 == 0 && n % 10 != 0)),
    ] {
        let counted = tally.failed[kind as usize];
        ensure!(counted == expected, "{} of {expected} {} failures were counted", counted, kind.name());
    }
    ensure!(tally.ended() == 4000, "{} of 4000 requests were counted", tally.ended());
    Ok(format!("{} failures of three kinds among 4000 requests were all counted", tally.failed_all()))
}

/// Every arrival of a schedule is sent and counted.
fn schedule(program: &Path) -> anyhow::Result<String> {
    let server = NullServer::start(program, &[])?;
    let outcome = measure(&server.url, &["-c", "20", "-r", "5000", "-d", "2s", "-w", "200ms"])?;
    let due: u64 = outcome.efforts.iter().map(|effort| effort.offered).sum();
    ensure!(due == 10_000, "{due} of 10,000 arrivals were due");
    ensure!(outcome.tally.ended() == due, "{} of {due} were counted", outcome.tally.ended());
    let lag = outcome.tally.lag.value_at_quantile(0.5) as f64 / 1e3;
    Ok(format!("all of 10,000 arrivals were sent; half of them at most {lag:.1} us late"))
}

const STALL: Duration = Duration::from_millis(300);
const STALL_RATE: f64 = 1000.0;
const STALL_CONNECTIONS: u64 = 10;

/// A server that stands still: an open loop shows everyone who would have waited, a closed loop only who was being served.
fn stall(program: &Path) -> anyhow::Result<String> {
    let (open, open_stall) = stalled_run(program, &["-c", "400", "-r", "1000"])?;
    let (closed, closed_stall) = stalled_run(program, &["-c", &STALL_CONNECTIONS.to_string()])?;
    // Arrivals during the stall wait for what is left of it: half of them for more than half.
    let expected = STALL_RATE * open_stall.as_secs_f64() / 2.0;
    let beyond = |values: &hdrhistogram::Histogram<u64>, limit: Duration| {
        values.count_between(nanos(limit), u64::MAX / 2)
    };
    let shown = beyond(&open.tally.intended_to_done, open_stall / 2);
    let hidden = beyond(&closed.tally.sent_to_done, closed_stall / 2);
    let deviation = (shown as f64 / expected - 1.0).abs();
    ensure!(deviation < 0.15, "the open loop shows {shown} long waits, not about {expected:.0}");
    ensure!(
        hidden <= STALL_CONNECTIONS,
        "the closed loop shows {hidden} long waits, not at most {STALL_CONNECTIONS}"
    );
    Ok(format!(
        "of a stall of {:.0} ms the open loop shows {shown} waits longer than half of it ({expected:.0} are right), \
         a closed loop {hidden}",
        open_stall.as_secs_f64() * 1e3
    ))
}

/// A run of two seconds within which the server stands still; how long it did.
fn stalled_run(program: &Path, flags: &[&str]) -> anyhow::Result<(Outcome, Duration)> {
    let server = NullServer::start(program, &[])?;
    let plan = plan(&server.url, &[&["-d", "2s", "-w", "100ms"], flags].concat())?;
    std::thread::scope(|scope| {
        let staller = scope.spawn(|| server.stop_and_continue(Duration::from_millis(800), STALL));
        let outcome = run(&plan, None, &mut |_| {});
        let stalled = staller.join().map_err(|_| anyhow::anyhow!("the stalling thread panicked"))??;
        Ok((outcome?, stalled))
    })
}

/// A server with known delays: their distribution comes back within 1 %.
fn distribution(program: &Path) -> anyhow::Result<String> {
    const MEAN: Duration = Duration::from_millis(100);
    const COUNT: usize = 6000;
    let server = NullServer::start(program, &["--delay", "exponential:100ms", "--seed", "9"])?;
    let flags = ["-c", "600", "-r", "1500", "--arrivals", "poisson", "-n", "6000", "-w", "0"];
    let tally = measure(&server.url, &flags)?.tally;
    // The server drew one delay for each request, in the order of their arrival.
    let mut dice = Dice::new(9, 0);
    let mut delays: Vec<u64> = (0..COUNT).map(|_| nanos(MEAN.mul_f64(dice.exponential()))).collect();
    delays.sort_unstable();
    let mut worst: f64 = 0.0;
    for percent in [50usize, 75, 90, 95, 99] {
        let exact = delays[COUNT * percent / 100 - 1] as f64;
        let told = tally.intended_to_done.value_at_quantile(percent as f64 / 100.0) as f64;
        worst = worst.max((told / exact - 1.0).abs());
    }
    ensure!(worst <= 0.01, "percentiles of known delays are off by {:.2} %", worst * 100.0);
    Ok(format!("p50 to p99 of {COUNT} known delays come back within {:.2} %", worst * 100.0))
}

/// A generator that was not let run says so, instead of blaming the server.
fn slow_generator(program: &Path) -> anyhow::Result<String> {
    let server = NullServer::start(program, &[])?;
    let mut child = Command::new(program)
        .args(["run", "--json", "-c", "20", "-r", "2000", "-d", "2s", "-w", "100ms", &server.url])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a generator")?;
    let pidfd = server::pidfd_of(&child)?;
    // Its death would be the only news; a wait for it is a pause that ends early then.
    pidfd.wait_dead(Duration::from_millis(800))?;
    pidfd_send_signal(&pidfd, Signal::STOP)?;
    let continued = pidfd.wait_dead(STALL).map_err(anyhow::Error::from);
    pidfd_send_signal(&pidfd, Signal::CONT)?;
    continued?;
    let output = child.stdout.take().context("its output was asked for")?;
    let result: RunResult = serde_json::from_reader(output).context("it printed no result")?;
    let code = child.wait().context("cannot wait for it")?.code();
    let lag = result.gates.iter().find(|gate| gate.number == 2).context("there is no gate 2")?;
    ensure!(
        !result.valid && code == Some(3),
        "a run that was stopped for 300 ms counts as valid: {result:?}"
    );
    ensure!(lag.state == crate::gates::GateState::Broken, "the lag gate holds: {}", lag.detail);
    Ok(format!("a generator stopped for {} ms calls its run INVALID", STALL.as_millis()))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl NullServer {
    /// Stops the server after a while, lets it go on after another; how long it really was stopped.
    fn stop_and_continue(&self, after: Duration, length: Duration) -> anyhow::Result<Duration> {
        self.pidfd.wait_dead(after)?;
        let begun = Instant::now();
        pidfd_send_signal(&self.pidfd, Signal::STOP)?;
        self.pidfd.wait_dead(length)?;
        pidfd_send_signal(&self.pidfd, Signal::CONT)?;
        Ok(begun.elapsed())
    }
}
