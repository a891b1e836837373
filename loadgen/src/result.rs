//! A run's result in the form that is written to files and read back.
//!
//! Owns: the fields' names and units, which stand in them. Must not know: terminals, flags.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::cold::Cold;
use crate::environment::Environment;
use crate::gates::{Facts, Gate, GateName, OpenFacts, SAMPLES_BEYOND, is_valid, judge};
use crate::plan::{Loop, Plan};
use crate::request::KeepAlive;
use crate::run::{Outcome, Second, micros};
use crate::sign::SigningEffort;
use crate::tally::Failure;
use crate::worker::Effort;

/// Percentiles that are told, where there are enough requests beyond them.
pub const PERCENTILES: [f64; 9] = [50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 99.999, 100.0];

/// One percentile; `us` is missing where there are fewer than 10 requests beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    pub percent: f64,
    pub us: Option<f64>,
}

/// A distribution of times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    pub count: u64,
    pub min_us: f64,
    pub mean_us: f64,
    pub max_us: f64,
    pub percentiles: Vec<Percentile>,
    /// Quantile and microseconds, from 0 to 1, for plots; no more of it is told than of the percentiles.
    pub curve: Vec<(f64, f64)>,
}

/// Points of the curve for each halving of what is left.
const CURVE_TICKS: u32 = 4;

impl Distribution {
    /// Sums up a histogram of nanoseconds.
    #[expect(clippy::cast_precision_loss, reason = "counts of requests fit 53 bits")]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let count = histogram.len() as f64;
        let percentiles = PERCENTILES.map(|percent| {
            // A little above, for 1 - 0.999 is not exact.
            let needed = SAMPLES_BEYOND / (1.0 - percent / 100.0) * (1.0 - 1e-9);
            let told = if percent < 100.0 { count >= needed } else { count > 0.0 };
            Percentile { percent, us: told.then(|| micros(histogram.value_at_quantile(percent / 100.0))) }
        });
        Self {
            count: histogram.len(),
            min_us: micros(histogram.min()),
            mean_us: histogram.mean() / 1e3,
            max_us: micros(histogram.max()),
            percentiles: percentiles.to_vec(),
            curve: histogram
                .iter_quantiles(CURVE_TICKS)
                .map(|step| (step.quantile_iterated_to(), micros(step.value_iterated_to())))
                .filter(|(quantile, _)| count * (1.0 - quantile) >= SAMPLES_BEYOND)
                .collect(),
        }
    }

    /// The value at one of [`PERCENTILES`], where it is told.
    pub fn at(&self, percent: f64) -> Option<f64> {
        self.percentiles.iter().find(|it| (it.percent - percent).abs() < 1e-9)?.us
    }
}

/// Latencies of an open loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The headline: what a user of the server would have waited. Missing for a closed loop.
    pub intended_to_done: Option<Distribution>,
    /// What the server took once it had been asked. In a closed loop this hides every stall.
    pub sent_to_done: Distribution,
    /// How late the generator itself was. Missing for a closed loop.
    pub send_lag: Option<Distribution>,
}

/// How the run was driven.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    pub target: String,
    /// Of one of them, where they differ.
    pub request_bytes: usize,
    /// `closed` or `open`.
    pub r#loop: String,
    /// Requests per second asked for, at the start and at the end of a ramp.
    pub rate_asked: Option<(f64, f64)>,
    pub arrivals: Option<String>,
    pub seed: u64,
    pub connections: usize,
    pub pipeline: usize,
    pub keep_alive: bool,
    pub cores: Vec<u16>,
    pub warm_up_s: f64,
    pub timeout_s: f64,
    /// Whether whole bodies were compared; statuses always are.
    pub bodies_checked: bool,
}

/// What the generator itself needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// Waiting for the next send not included.
    pub cpu_us_per_request: f64,
    /// Share of each thread's time, likewise.
    pub busy: Vec<f64>,
    pub memory_peak_kib: u64,
    /// Time in which its threads wanted to run and were not let, by other processes, interrupts or the hypervisor, as far
    /// as they noticed: while they spun before a send. And the longest such stall.
    pub stalled_ms: f64,
    pub stall_us_max: f64,
}

/// What the server needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub cpu_us_per_request: f64,
    /// CPU time over time: 1 is one core.
    pub cores_used: f64,
    pub processes: usize,
}

/// Everything about a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    pub tool: String,
    pub valid: bool,
    pub gates: Vec<Gate>,
    pub setting: Setting,
    pub duration_s: f64,
    /// Requests that ended in the measured time, or were due in it.
    pub requests: u64,
    pub succeeded: u64,
    pub failed: BTreeMap<String, u64>,
    pub failed_share: f64,
    /// Good answers per second of the measured time.
    pub rate: f64,
    /// Requests per second that were due (open loop).
    pub offered_rate: Option<f64>,
    pub latency: Latency,
    /// Arrivals that found every connection busy, and the longest such wait (open loop).
    pub waited_for_connection: u64,
    pub connection_wait_us_max: f64,
    pub reconnects: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub generator: Generator,
    pub server: Option<Server>,
    pub seconds: Vec<Second>,
    pub environment: Environment,
    /// What signing the requests took, where they are signed.
    #[serde(default)]
    pub signing: Option<Signing>,
    /// What answers told of the time inside of the server, in the order of the phases.
    #[serde(default)]
    pub phases: Vec<Phase>,
    /// Set where functions were called for the first time.
    #[serde(default)]
    pub cold: Option<Cold>,
}

/// What signing took, warm-up included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Signing {
    pub signatures: u64,
    pub us_each: f64,
    /// Signatures that were made when their request was due already; the rest were made ahead.
    pub in_line: u64,
}

/// One phase of the time inside of the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    pub name: String,
    pub times: Distribution,
}

/// What a run is for, which decides how many samples it needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Purpose {
    /// A server that has warmed up.
    #[default]
    Steady,
    /// One call each of functions that nobody has called.
    FirstCalls,
}

/// What the user decides about the judgement.
#[derive(Debug, Clone, Default)]
pub struct Judgement {
    pub allowed: Vec<GateName>,
    pub failed_share_max: f64,
    /// Rate of the same generator against a null server.
    pub calibration_rate: Option<f64>,
    pub purpose: Purpose,
}

#[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds of a run fit 53 bits")]
impl RunResult {
    /// Sums up and judges a run.
    pub fn of(plan: &Plan, outcome: &Outcome, judgement: &Judgement) -> Self {
        let tally = &outcome.tally;
        let duration_s = outcome.measured.as_secs_f64();
        let requests = tally.ended();
        let rate = tally.completed_in_window as f64 / duration_s;
        let open = plan.drive != Loop::Closed;
        let due: u64 = outcome.efforts.iter().map(|effort| effort.offered).sum();
        let offered_rate = open.then(|| due as f64 / duration_s);
        let latency = Latency {
            intended_to_done: open.then(|| Distribution::of(&tally.intended_to_done)),
            sent_to_done: Distribution::of(&tally.sent_to_done),
            send_lag: open.then(|| Distribution::of(&tally.lag)),
        };
        let busy: Vec<f64> = outcome.efforts.iter().map(Effort::busy).collect();
        let shared_cores = outcome
            .server
            .as_ref()
            .map(|server| plan.cores.iter().copied().filter(|core| server.cores.contains(core)).collect());
        let stalled_ns: u64 = outcome.efforts.iter().map(|effort| effort.stalled_ns).sum();
        let stall_us_max =
            micros(outcome.efforts.iter().map(|effort| effort.stall_ns_max).max().unwrap_or(0));
        let facts = Facts {
            open: offered_rate.map(|offered_rate| OpenFacts {
                offered_rate,
                achieved_rate: rate,
                lag_p999_us: micros(tally.lag.value_at_quantile(0.999)),
                latency_p50_us: micros(tally.intended_to_done.value_at_quantile(0.5)),
                due,
                counted: requests,
            }),
            busy: busy.clone(),
            shared_cores,
            calibration: judgement.calibration_rate.map(|fastest| fastest / rate.max(f64::MIN_POSITIVE)),
            requests,
            failed: tally.failed_all(),
            failed_share_max: judgement.failed_share_max,
            purpose: judgement.purpose,
            warm_up_s: plan.warm_up.as_secs_f64(),
            steal_share: outcome.steal_share,
            stall_us_max,
            clock_cost_ns: outcome.clock_cost_ns,
        };
        let spin_ns: u64 = outcome.efforts.iter().map(|effort| effort.spin_ns).sum();
        let gates = judge(&facts, &judgement.allowed);
        let ended_in_window = (tally.completed_in_window + tally.failed_all()).max(1) as f64;
        Self {
            tool: concat!("loadgen ", env!("CARGO_PKG_VERSION")).to_owned(),
            valid: is_valid(&gates),
            gates,
            setting: Setting::of(plan),
            duration_s,
            requests,
            succeeded: tally.succeeded,
            failed: Failure::ALL.map(|kind| (kind.name().to_owned(), tally.failed[kind as usize])).into(),
            failed_share: tally.failed_all() as f64 / requests.max(1) as f64,
            rate,
            offered_rate,
            latency,
            waited_for_connection: tally.waited_for_connection,
            connection_wait_us_max: micros(tally.connection_wait_ns_max),
            reconnects: tally.reconnects,
            bytes_sent: tally.bytes_sent,
            bytes_received: tally.bytes_received,
            generator: Generator {
                cpu_us_per_request: outcome.own_cpu_ns.saturating_sub(spin_ns) as f64 / 1e3 / ended_in_window,
                busy,
                memory_peak_kib: memory_peak_kib(),
                stalled_ms: stalled_ns as f64 / 1e6,
                stall_us_max,
            },
            server: outcome.server.as_ref().map(|server| Server {
                cpu_us_per_request: server.cpu_ns as f64 / 1e3 / ended_in_window,
                cores_used: server.cpu_ns as f64 / server.wall_ns.max(1) as f64,
                processes: server.processes,
            }),
            seconds: outcome.seconds.clone(),
            environment: outcome.environment.clone(),
            signing: Signing::of(&outcome.efforts),
            phases: tally
                .phases
                .iter()
                .map(|(name, times)| Phase { name: name.clone(), times: Distribution::of(times) })
                .collect(),
            cold: None,
        }
    }

    /// The latencies that may be quoted: from the intended send in an open loop. A closed one has none, other than those
    /// of first calls, where nothing waits behind another.
    pub fn headline(&self) -> Option<&Distribution> {
        let first_calls = self.cold.as_ref().map(|_| &self.latency.sent_to_done);
        self.latency.intended_to_done.as_ref().or(first_calls)
    }
}

impl Signing {
    #[expect(clippy::cast_precision_loss, reason = "nobody signs 2^53 times")]
    fn of(efforts: &[Effort]) -> Option<Self> {
        let all: Vec<SigningEffort> = efforts.iter().filter_map(|effort| effort.signing).collect();
        let sum = |count: fn(&SigningEffort) -> u64| all.iter().map(count).sum::<u64>();
        let signatures = sum(|it| it.signatures);
        let spent_us: f64 = all.iter().map(|it| it.spent.as_secs_f64() * 1e6).sum();
        let us_each = spent_us / signatures.max(1) as f64;
        (!all.is_empty()).then(|| Self { signatures, us_each, in_line: sum(|it| it.in_line) })
    }
}

impl Setting {
    fn of(plan: &Plan) -> Self {
        let (rate_asked, arrivals) = match plan.drive {
            Loop::Closed => (None, None),
            Loop::Open { rate, arrivals } => {
                (Some((rate.from, rate.to)), Some(format!("{arrivals:?}").to_lowercase()))
            }
        };
        Self {
            target: format!("{} {}", plan.target.address, plan.target.path),
            request_bytes: plan.request.example().len(),
            r#loop: if plan.drive == Loop::Closed { "closed" } else { "open" }.to_owned(),
            rate_asked,
            arrivals,
            seed: plan.seed,
            connections: plan.connections,
            pipeline: plan.pipeline,
            keep_alive: plan.keep_alive == KeepAlive::On,
            cores: plan.cores.clone(),
            warm_up_s: plan.warm_up.as_secs_f64(),
            timeout_s: plan.timeout.as_secs_f64(),
            bodies_checked: plan.expectation.body.is_some(),
        }
    }
}

/// VmHWM of proc(5).
fn memory_peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::histogram;

    #[test]
    fn percentiles_without_enough_requests_beyond_them_are_not_told() {
        let mut values = histogram();
        for micros in 1..=10_000u64 {
            values.record(micros * 1000).unwrap();
        }
        let told = Distribution::of(&values);
        assert_eq!(told.count, 10_000);
        assert!((told.at(50.0).unwrap() - 5000.0).abs() <= 5.0);
        assert!((told.at(99.9).unwrap() - 9990.0).abs() <= 10.0, "10 of 10,000 are beyond p99.9");
        assert_eq!((told.at(99.99), told.at(99.999)), (None, None));
        assert!((told.at(100.0).unwrap() - 10_000.0).abs() <= 10.0);
        values.record_n(1_000_000, 990_000).unwrap();
        let told = Distribution::of(&values);
        assert!((told.at(99.999).unwrap() - 9990.0).abs() <= 10.0, "10 of 1,000,000 are beyond p99.999");
        let nothing = Distribution::of(&histogram());
        assert!(nothing.percentiles.iter().all(|it| it.us.is_none()));
    }
}
