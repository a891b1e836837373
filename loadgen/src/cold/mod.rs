//! First calls: functions that nobody has called, deployed, called once each, and removed.
//!
//! Owns: the functions' names and their removal, whatever happens in between, a stop signal included. Must not know: how
//! requests are sent; the calls are a run like any other, in which each request has a function of its own.

mod code;
mod flags;
mod registry;
mod rest;
mod stop;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::iterators::IterationValue;
use serde::{Deserialize, Serialize};

use crate::result::{Judgement, Purpose, RunResult};
use crate::run::{Outcome, Second, micros};
use crate::session::judged_run;
use crate::tally::Tally;
use code::{code_of, marked};
pub use flags::ColdArgs;
use registry::Registry;
use rest::wait_for_rest;
use stop::{Event, Stop};

/// What was called for the first time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cold {
    pub functions: u64,
    pub runtime: String,
    /// Of the zip; 0 where the engine's own hello was deployed.
    pub zip_bytes: usize,
    /// Calls under way at once, or the time from one to the next.
    pub concurrency: Option<usize>,
    pub spacing_s: Option<f64>,
    /// What deploying all of them took.
    pub deploy_s: f64,
    /// Whether each function had code of its own.
    #[serde(default)]
    pub own_code: bool,
    /// Whether the engine was waited for between deploying and calling.
    #[serde(default)]
    pub settled: bool,
    /// What each call took, from the shortest to the longest, to three digits; one that failed as long as its time-out.
    #[serde(default)]
    pub calls_us: Vec<f64>,
}

/// Whether all that was to be done is, or a signal came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum All {
    Done,
    Stopped,
}

/// How it ended.
#[derive(Debug)]
pub enum End {
    Done(Box<(RunResult, Outcome)>),
    /// By a signal; nothing was measured, and nothing is left.
    Stopped,
}

/// Deploys functions, calls each once, and removes them.
///
/// # Errors
/// A step failed; or functions could not be removed, which are named then.
pub fn cold(args: &ColdArgs, progress: Box<dyn FnMut(&Second) + Send>) -> anyhow::Result<End> {
    let prefix = prefix();
    let plan = args.plan(&prefix)?;
    let code = args.code.as_deref().map(code_of).transpose()?;
    // Whatever is wrong with flags and code is found before anything is deployed.
    args.create(code.as_deref())?;
    let create = |name: &str| match &code {
        Some(zip) if args.own_code => args.create(Some(&marked(zip, name)?)),
        other => args.create(other.as_deref()),
    };
    let registry = Registry::new(&args.registry, &args.account)?;
    let stop = Stop::catch().context("cannot watch for signals")?;
    let begun = Instant::now();
    let mut attempted = 0;
    let deployed = deploy(&registry, &prefix, args.functions, &create, &stop, &mut attempted);
    let deploy_s = begun.elapsed().as_secs_f64();
    let ended = deployed.and_then(|all| {
        let settled = match args.pid.filter(|_| args.settle && all == All::Done) {
            Some(engine) => wait_for_rest(engine, &stop)?,
            None => all,
        };
        if settled == All::Stopped {
            return Ok(End::Stopped);
        }
        let judgement = Judgement {
            allowed: args.allow.clone(),
            failed_share_max: args.errors_max,
            calibration_rate: None,
            purpose: Purpose::FirstCalls,
        };
        let (server, mut progress) = (args.pid, progress);
        stop.while_running(move || judged_run(&plan, &judgement, server, &mut *progress))
    });
    let left = remove(&registry, &prefix, attempted);
    let ended = ended?;
    ensure!(left.is_empty(), "these functions could not be removed: {}", left.join("; "));
    Ok(match ended {
        End::Stopped => End::Stopped,
        End::Done(mut done) => {
            done.0.cold = Some(Cold {
                functions: args.functions,
                runtime: args.runtime.clone(),
                zip_bytes: code.as_ref().map_or(0, Vec::len),
                concurrency: args.spacing.is_none().then_some(args.concurrency),
                spacing_s: args.spacing.map(|spacing| spacing.as_secs_f64()),
                deploy_s,
                own_code: args.own_code,
                settled: args.settle,
                calls_us: each_us(&done.1.tally),
            });
            End::Done(done)
        }
    })
}

fn deploy(
    registry: &Registry,
    prefix: &str,
    count: u64,
    create: &dyn Fn(&str) -> anyhow::Result<String>,
    stop: &Stop,
    attempted: &mut u64,
) -> anyhow::Result<All> {
    for number in 0..count {
        if stop.is_asked_for() {
            return Ok(All::Stopped);
        }
        let name = format!("{prefix}{number}");
        let body = create(&name)?;
        // Before the attempt: one without an answer may have been carried out.
        *attempted = number + 1;
        registry.create(&name, &body)?;
    }
    Ok(All::Done)
}

/// Every call by itself; the histogram keeps three digits of each.
fn each_us(tally: &Tally) -> Vec<f64> {
    let calls = if tally.intended_to_done.is_empty() { &tally.sent_to_done } else { &tally.intended_to_done };
    let each = |step: IterationValue<u64>| {
        let count = usize::try_from(step.count_at_value()).expect("there are not that many functions");
        std::iter::repeat_n(micros(step.value_iterated_to()), count)
    };
    calls.iter_recorded().flat_map(each).collect()
}

/// Removes what may be there; what could not be removed is told by name, with the reason.
fn remove(registry: &Registry, prefix: &str, attempted: u64) -> Vec<String> {
    let names = (0..attempted).map(|number| format!("{prefix}{number}"));
    names.filter_map(|name| registry.remove(&name).err().map(|error| format!("{name}: {error:#}"))).collect()
}

/// Names that nobody has used: the time and the process are in them.
fn prefix() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    let micros = now.unwrap_or(Duration::ZERO).as_micros();
    format!("loadgen-cold-{micros:x}-{:x}-", std::process::id())
}

impl Stop {
    /// Runs `work` on a thread of its own, and comes back when it ends or a signal asks for it. The thread then ends with
    /// the process.
    fn while_running(
        &self,
        work: impl FnOnce() -> anyhow::Result<(RunResult, Outcome)> + Send + 'static,
    ) -> anyhow::Result<End> {
        let sender = self.sender();
        std::thread::Builder::new()
            .name("cold".to_owned())
            .spawn(move || {
                // Nobody listens any more only after a signal.
                drop(sender.send(Event::Ended(Box::new(work()))));
            })
            .context("cannot start a thread")?;
        match self.next().context("the run ended without a word")? {
            Event::Asked => Ok(End::Stopped),
            Event::Ended(done) => Ok(End::Done(Box::new((*done)?))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_told_by_itself() {
        let mut closed = Tally::default();
        for us in [700, 300, 300] {
            closed.record(None, us * 1000);
        }
        let near = |told: &[f64], wanted: &[f64]| {
            assert_eq!(told.len(), wanted.len());
            assert!(told.iter().zip(wanted).all(|(a, b)| (a / b - 1.0).abs() < 0.001), "{told:?}");
        };
        near(&each_us(&closed), &[300.0, 300.0, 700.0]);
        let mut open = Tally::default();
        open.record(Some(900_000), 100_000);
        near(&each_us(&open), &[900.0]);
        near(&each_us(&Tally::default()), &[]);
    }
}
