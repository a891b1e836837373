//! A run from the first connection to the last count.
//!
//! Owns: the generator's threads while they work, and the merging of what they count. Must not know: flags, formats.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use faaster_sys::affinity;
use rustix::time::ClockId;

use crate::bounds::{SEARCH_MARGIN, SEARCHED_START_MARGIN, SETUP_TIMEOUT, START_MARGIN};
use crate::cpu::{self, CpuError, TreeCpu};
use crate::environment::{Environment, Stolen, clock_cost_ns};
use crate::plan::{Loop, Plan, TooFewDescriptors};
use crate::tally::Tally;
use crate::worker::{Effort, Report, Window, WorkerError, work};

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    #[error(transparent)]
    Worker(WorkerError),
    #[error(transparent)]
    Cpu(#[from] CpuError),
    #[error("a thread of the generator stopped answering")]
    Silent,
}

/// One second of the measured time.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Second {
    pub second: u32,
    /// Length in seconds; the last one may be shorter, and holds the answers that came after its end.
    pub length_s: f64,
    pub succeeded: u64,
    pub failed: u64,
    pub bytes_received: u64,
    /// Of the headline latency: from the intended send in an open loop, from the send in a closed one.
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

/// CPU time of the server in the measured time.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerCpu {
    pub cpu_ns: u64,
    pub wall_ns: u64,
    pub processes: usize,
    /// Cores that its threads at work may use.
    pub cores: BTreeSet<u16>,
}

/// Everything that was measured.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub tally: Tally,
    pub seconds: Vec<Second>,
    /// One per thread.
    pub efforts: Vec<Effort>,
    /// Length of the measured time.
    pub measured: Duration,
    /// CPU time of the whole generator per measured request.
    pub own_cpu_ns: u64,
    pub server: Option<ServerCpu>,
    pub steal_share: f64,
    pub clock_cost_ns: f64,
    pub environment: Environment,
}

fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("the durations here are constants that fit")
}

/// Carries out a plan. `server` is the root of the process tree whose CPU time is measured; `progress` hears of every
/// second.
///
/// # Errors
/// The run could not be begun or finished; nothing is left behind.
pub fn run(plan: &Plan, server: Option<u32>, progress: &mut dyn FnMut(&Second)) -> Result<Outcome, RunError> {
    plan.raise_descriptor_limit()?;
    if let Some(pid) = server {
        cpu::tree(pid)?;
    }
    let environment = Environment::read();
    let clock_cost_ns = clock_cost_ns();
    let mut crew = Crew::start(plan)?;
    let _aside = Aside::step(&plan.cores);
    crew.await_ready()?;
    // Without a warm-up the first request counts, and may need the core on which the server's processes are looked for.
    let begins_at_once = server.is_some() && plan.warm_up.is_zero();
    let begin_ns = now_ns() + nanoseconds(if begins_at_once { SEARCHED_START_MARGIN } else { START_MARGIN });
    let window = Window::new(plan, begin_ns);
    crew.begin(begin_ns);
    let mut merge = Merge::new(plan, window, progress);
    // The server's processes are looked for at moments that do not count: that may take its core for milliseconds.
    let search_ns = window.measure_ns.saturating_sub(nanoseconds(SEARCH_MARGIN));
    let search_ns = if begins_at_once { now_ns() } else { search_ns };
    let known = Moment::at(search_ns, server, &mut crew, &mut merge)?;
    let before =
        if begins_at_once { known } else { known.again_at(window.measure_ns, &mut crew, &mut merge)? };
    let after = Moment::at(window.stop_ns.unwrap_or(u64::MAX), server, &mut crew, &mut merge)?;
    while crew.working > 0 {
        crew.next(None, &mut merge)?;
    }
    merge.finish();
    let after_ns = window.stop_ns.unwrap_or_else(|| {
        crew.efforts.iter().map(|effort| effort.last_done_ns).max().unwrap_or(0).max(window.measure_ns + 1)
    });
    if window.stop_ns.is_none()
        && let Some(last) = merge.seconds.last_mut()
    {
        // Where requests are counted, the last second ends with the last of them.
        let from_ns = window.measure_ns + u64::from(last.second) * 1_000_000_000;
        let length_ns = after_ns.saturating_sub(from_ns).clamp(1_000_000, 1_000_000_000);
        last.length_s = Duration::from_nanos(length_ns).as_secs_f64();
    }
    let server = after.tree.zip(before.tree).map(|(tree, earlier)| ServerCpu {
        cpu_ns: tree.cpu_ns.saturating_sub(earlier.cpu_ns),
        wall_ns: after.at_ns - before.at_ns.max(window.measure_ns),
        processes: tree.processes,
        cores: tree.cores_in_use(&earlier),
    });
    Ok(Outcome {
        tally: merge.total,
        seconds: merge.seconds,
        efforts: crew.efforts,
        measured: Duration::from_nanos(after_ns - window.measure_ns),
        own_cpu_ns: after.own_cpu_ns - before.own_cpu_ns,
        server,
        steal_share: after.stolen.share_since(&before.stolen),
        clock_cost_ns,
        environment,
    })
}

/// Keeps the calling thread off the cores of those that send, where it may use another, until this is dropped: there even
/// an eager sender loses the core for as long as that thread adds up.
struct Aside {
    before: Vec<u16>,
}

impl Aside {
    fn step(senders: &[u16]) -> Option<Self> {
        let before = affinity::allowed_cores().ok()?;
        let others: Vec<u16> = before.iter().copied().filter(|core| !senders.contains(core)).collect();
        (!others.is_empty() && affinity::allow(&others).is_ok()).then_some(Self { before })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // It was allowed them before.
        affinity::allow(&self.before).ok();
    }
}

/// Accounts at one end of the measured time.
struct Moment {
    at_ns: u64,
    own_cpu_ns: u64,
    tree: Option<TreeCpu>,
    stolen: Stolen,
}

impl Moment {
    /// Waits for that moment or the end of all threads.
    fn at(at_ns: u64, server: Option<u32>, crew: &mut Crew, merge: &mut Merge<'_>) -> Result<Self, RunError> {
        crew.until(at_ns, merge)?;
        // A server that died is seen in the failures; its time is lost then.
        Ok(Self::now(server.and_then(|pid| cpu::tree(pid).ok())))
    }

    /// Likewise, of the processes that are known already.
    fn again_at(mut self, at_ns: u64, crew: &mut Crew, merge: &mut Merge<'_>) -> Result<Self, RunError> {
        crew.until(at_ns, merge)?;
        if let Some(tree) = &mut self.tree {
            tree.refresh();
        }
        Ok(Self::now(self.tree))
    }

    fn now(tree: Option<TreeCpu>) -> Self {
        Self { at_ns: now_ns(), own_cpu_ns: cpu::own_cpu_ns(), tree, stolen: Stolen::read() }
    }
}

/// The generator's threads.
struct Crew {
    reports: Receiver<Report>,
    begins: Vec<Sender<u64>>,
    efforts: Vec<Effort>,
    working: usize,
    /// No thread is silent for longer than this.
    patience: Duration,
}

impl Crew {
    fn start(plan: &Plan) -> Result<Self, RunError> {
        let (sender, reports) = mpsc::channel();
        let mut begins = Vec::new();
        for thread in 0..plan.threads() {
            let (begin, begun) = mpsc::channel();
            begins.push(begin);
            // A plan of its own for each: nothing that changes is shared, not even a reference count.
            let (plan, sender) = (Arc::new(plan.clone()), sender.clone());
            std::thread::Builder::new()
                .name(format!("loadgen-{thread}"))
                .spawn(move || work(plan, thread, sender, &begun))
                .map_err(RunError::Thread)?;
        }
        let patience = SETUP_TIMEOUT + plan.connect_timeout + plan.timeout + plan.warm_up;
        Ok(Self { reports, efforts: Vec::new(), working: begins.len(), begins, patience })
    }

    fn await_ready(&mut self) -> Result<(), RunError> {
        for _ in 0..self.begins.len() {
            match self.reports.recv_timeout(self.patience) {
                Ok(Report::Ready) => {}
                Ok(Report::Failed(error)) => return Err(RunError::Worker(error)),
                Ok(other) => unreachable!("before its beginning a thread does not report {other:?}"),
                Err(_) => return Err(RunError::Silent),
            }
        }
        Ok(())
    }

    fn begin(&mut self, begin_ns: u64) {
        for begin in self.begins.drain(..) {
            // A thread that is gone has sent its reason, which is read next.
            begin.send(begin_ns).ok();
        }
    }

    /// Takes reports until that moment or the end of all threads.
    fn until(&mut self, at_ns: u64, merge: &mut Merge<'_>) -> Result<(), RunError> {
        while self.working > 0 && now_ns() < at_ns {
            self.next(Some(at_ns), merge)?;
        }
        Ok(())
    }

    /// Takes one report, or comes back at `until_ns`.
    fn next(&mut self, until_ns: Option<u64>, merge: &mut Merge<'_>) -> Result<(), RunError> {
        let left = until_ns.map(|until| Duration::from_nanos(until.saturating_sub(now_ns())));
        let wait = left.map_or(self.patience, |left| left.min(self.patience));
        match self.reports.recv_timeout(wait) {
            Ok(Report::Second { index, tally }) => merge.add(index, &tally),
            Ok(Report::Ended(effort)) => {
                self.efforts.push(effort);
                self.working -= 1;
            }
            Ok(Report::Failed(error)) => return Err(RunError::Worker(error)),
            Ok(Report::Ready) => unreachable!("a thread is ready once"),
            Err(RecvTimeoutError::Timeout) if wait < self.patience => {}
            Err(_) => return Err(RunError::Silent),
        }
        Ok(())
    }
}

/// Adds up the threads' seconds.
struct Merge<'p> {
    threads: usize,
    window: Window,
    drive: Loop,
    total: Tally,
    /// Seconds that not every thread has reported.
    open: BTreeMap<u32, (usize, Tally)>,
    seconds: Vec<Second>,
    progress: &'p mut dyn FnMut(&Second),
}

impl<'p> Merge<'p> {
    fn new(plan: &Plan, window: Window, progress: &'p mut dyn FnMut(&Second)) -> Self {
        Self {
            threads: plan.threads(),
            window,
            drive: plan.drive,
            total: Tally::default(),
            open: BTreeMap::new(),
            seconds: Vec::new(),
            progress,
        }
    }

    fn add(&mut self, index: u32, tally: &Tally) {
        let (reported, sum) = self.open.entry(index).or_default();
        sum.add(tally);
        *reported += 1;
        if *reported == self.threads {
            self.close(index);
        }
    }

    fn close(&mut self, index: u32) {
        let Some((_, sum)) = self.open.remove(&index) else { return };
        let histogram = if self.drive == Loop::Closed { &sum.sent_to_done } else { &sum.intended_to_done };
        let from_ns = self.window.measure_ns + u64::from(index) * 1_000_000_000;
        let length = self.window.stop_ns.map_or(1_000_000_000, |stop| stop.saturating_sub(from_ns));
        let second = Second {
            second: index,
            length_s: Duration::from_nanos(length.min(1_000_000_000)).as_secs_f64(),
            succeeded: sum.succeeded,
            failed: sum.failed_all(),
            bytes_received: sum.bytes_received,
            p50_us: micros(histogram.value_at_quantile(0.5)),
            p99_us: micros(histogram.value_at_quantile(0.99)),
            max_us: micros(histogram.max()),
        };
        (self.progress)(&second);
        self.seconds.push(second);
        self.total.add(&sum);
    }

    /// Where requests are counted, threads need not take the same number of seconds.
    fn finish(&mut self) {
        while let Some(index) = self.open.keys().next().copied() {
            self.close(index);
        }
    }
}

/// Microseconds, for reports.
#[expect(clippy::cast_precision_loss, reason = "an hour of nanoseconds fits 53 bits")]
pub fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_adds_up_leaves_the_senders_core_while_they_send() {
        // A thread of its own: what cores it may use is seen by nobody else.
        let looked = std::thread::spawn(|| {
            let all = affinity::allowed_cores().unwrap();
            let sender = *all.last().unwrap();
            let aside = Aside::step(&[sender]);
            let meanwhile = affinity::allowed_cores().unwrap();
            assert_eq!(aside.is_some(), all.len() > 1);
            assert_eq!(meanwhile.contains(&sender), all.len() == 1, "it stays where there is no other");
            drop(aside);
            assert_eq!(affinity::allowed_cores().unwrap(), all);
            assert!(Aside::step(&all).is_none());
        });
        looked.join().unwrap();
    }
}
