//! The ten gates that a run must pass before its numbers may be quoted.
//!
//! Owns: the thresholds. Must not know: how anything was measured; it judges numbers. A gate that does not hold makes the
//! run INVALID; one may be waived by name, which the result then says.

use serde::{Deserialize, Serialize};

use crate::result::Purpose;

/// Good answers per second must be at least this share of the rate asked for.
const DELIVERED_MIN: f64 = 0.995;
/// The generator's own lateness at p99.9 must be below this share of the median latency, or below [`LAG_US_FINE`].
const LAG_SHARE_MAX: f64 = 0.10;
/// See [`LAG_SHARE_MAX`].
const LAG_US_FINE: f64 = 5.0;
/// A thread of the generator must be at work for less than this share of the time.
const BUSY_MAX: f64 = 0.70;
/// A null server must have been driven this many times as fast.
const CALIBRATION_MIN: f64 = 3.0;
/// Requests needed for a percentile: this many beyond it.
pub const SAMPLES_BEYOND: f64 = 10.0;
/// Time that a hypervisor may take away.
const STEAL_MAX: f64 = 0.01;
/// A clock that is read without a system call takes less than this.
const CLOCK_NS_MAX: f64 = 300.0;

/// Names of the gates, for `--allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum GateName {
    /// 1: sends follow a schedule that no answer moves.
    Schedule,
    /// 2: the generator sends in time.
    Lag,
    /// 3: the server keeps up with the rate.
    Delivered,
    /// 4: the generator has time to spare, on cores of its own.
    Cpu,
    /// 4: it can drive a server that does nothing far faster.
    Calibration,
    /// 5: requests succeed, and answers are checked.
    Errors,
    /// 6: there are enough requests, after a warm-up.
    Samples,
    /// 7: the machine is told, and nobody else took its time.
    Machine,
    /// 8: latencies are not told from a closed loop.
    Loop,
    /// 9: the clock is cheap.
    Clock,
    /// 10: the tool has shown on this machine that it sees a stall.
    Selftest,
}

/// How a gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateState {
    Passed,
    Broken,
    /// Broken, and allowed to be by the user.
    Waived,
    /// The run cannot tell; `detail` says what would.
    Unchecked,
    /// It has no meaning for this kind of run.
    NotApplicable,
}

/// One gate's judgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// As in the list of ten (docs/measuring.md).
    pub number: u8,
    pub name: GateName,
    pub state: GateState,
    pub detail: String,
}

/// The numbers that are judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// `None` for a closed loop.
    pub open: Option<OpenFacts>,
    /// Share of each thread's time.
    pub busy: Vec<f64>,
    /// Cores that generator and server both may use, where the server's are known.
    pub shared_cores: Option<Vec<u16>>,
    /// Rate against a null server over the tested rate, where it was measured.
    pub calibration: Option<f64>,
    pub requests: u64,
    pub failed: u64,
    pub failed_share_max: f64,
    pub purpose: Purpose,
    pub warm_up_s: f64,
    pub steal_share: f64,
    /// Longest time that a spinning thread of the generator was kept from running.
    pub stall_us_max: f64,
    pub clock_cost_ns: f64,
}

/// What only an open loop has.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenFacts {
    /// Requests per second that were due in the measured time.
    pub offered_rate: f64,
    /// Good answers per second in it.
    pub achieved_rate: f64,
    pub lag_p999_us: f64,
    pub latency_p50_us: f64,
    /// Arrivals due, and those that were counted, well or not.
    pub due: u64,
    pub counted: u64,
}

/// Judges a run.
pub fn judge(facts: &Facts, allowed: &[GateName]) -> Vec<Gate> {
    let mut gates = vec![
        schedule(facts),
        lag(facts),
        delivered(facts),
        cpu(facts),
        calibration(facts),
        errors(facts),
        samples(facts),
        machine(facts),
        closed_loop(facts),
        clock(facts),
        selftest(),
    ];
    for gate in &mut gates {
        if gate.state == GateState::Broken && allowed.contains(&gate.name) {
            gate.state = GateState::Waived;
        }
    }
    gates
}

/// Whether the numbers may be quoted.
pub fn is_valid(gates: &[Gate]) -> bool {
    gates.iter().all(|gate| gate.state != GateState::Broken)
}

fn gate(number: u8, name: GateName, holds: bool, detail: String) -> Gate {
    let state = if holds { GateState::Passed } else { GateState::Broken };
    Gate { number, name, state, detail }
}

fn not_applicable(number: u8, name: GateName) -> Gate {
    Gate { number, name, state: GateState::NotApplicable, detail: "a closed loop has no schedule".to_owned() }
}

fn schedule(facts: &Facts) -> Gate {
    let Some(open) = &facts.open else { return not_applicable(1, GateName::Schedule) };
    let detail = format!("{} requests were due, {} are accounted for", open.due, open.counted);
    gate(1, GateName::Schedule, open.due == open.counted, detail)
}

fn lag(facts: &Facts) -> Gate {
    let Some(open) = &facts.open else { return not_applicable(2, GateName::Lag) };
    let bound = (open.latency_p50_us * LAG_SHARE_MAX).max(LAG_US_FINE);
    let mut detail = format!(
        "the generator was up to {:.1} us late (p99.9); at most {bound:.1} us are allowed, 10 % of the median",
        open.lag_p999_us
    );
    if facts.stall_us_max > bound {
        detail.push_str(&format!(
            "; the machine kept it from running for up to {:.0} us: a quieter machine is needed",
            facts.stall_us_max
        ));
    }
    gate(2, GateName::Lag, open.lag_p999_us <= bound, detail)
}

fn delivered(facts: &Facts) -> Gate {
    let Some(open) = &facts.open else { return not_applicable(3, GateName::Delivered) };
    let share = open.achieved_rate / open.offered_rate.max(f64::MIN_POSITIVE);
    // A request more or less at either end of the measured time is no saturation.
    let slack = 1.0 / (facts.requests.max(1) as f64);
    let holds = share + slack.min(0.01) >= DELIVERED_MIN;
    let word = if holds { "the server kept up" } else { "saturated" };
    let detail = format!(
        "{word}: {:.2} % of {:.1} requests/s were answered in time",
        share * 100.0,
        open.offered_rate
    );
    gate(3, GateName::Delivered, holds, detail)
}

fn cpu(facts: &Facts) -> Gate {
    let most = facts.busy.iter().copied().fold(0.0, f64::max);
    let shared = facts.shared_cores.clone().unwrap_or_default();
    let mut detail = format!("the busiest thread of the generator worked {:.0} % of the time", most * 100.0);
    if !shared.is_empty() {
        detail.push_str(&format!(
            "; the server may run on the generator's cores {shared:?}: pin it elsewhere, or name other --cores"
        ));
    }
    if most >= BUSY_MAX {
        detail.push_str(
            "; below 70 % it is certain that the server was measured: use more threads or a lower rate",
        );
    }
    gate(4, GateName::Cpu, most < BUSY_MAX && shared.is_empty(), detail)
}

fn calibration(facts: &Facts) -> Gate {
    match facts.calibration {
        None => Gate {
            number: 4,
            name: GateName::Calibration,
            state: GateState::Unchecked,
            detail: "give --calibration FILE, a closed-loop result against `loadgen null-server`".to_owned(),
        },
        Some(times) => {
            let detail = format!("a null server was driven {times:.1} times as fast; 3 times are needed");
            gate(4, GateName::Calibration, times >= CALIBRATION_MIN, detail)
        }
    }
}

fn errors(facts: &Facts) -> Gate {
    let share = facts.failed as f64 / facts.requests.max(1) as f64;
    let detail =
        format!("{} of {} requests failed; they count as lasting the time-out", facts.failed, facts.requests);
    gate(5, GateName::Errors, share <= facts.failed_share_max, detail)
}

fn samples(facts: &Facts) -> Gate {
    if facts.purpose == Purpose::FirstCalls {
        let enough = facts.requests as f64 >= SAMPLES_BEYOND / (1.0 - 0.5) - 1e-6;
        let detail = if enough {
            format!("{} first calls", facts.requests)
        } else {
            format!("{} first calls are too few for a median, which needs 20", facts.requests)
        };
        return gate(6, GateName::Samples, enough, detail);
    }
    let enough = facts.requests as f64 >= SAMPLES_BEYOND / (1.0 - 0.99) - 1e-6;
    let warm = facts.warm_up_s > 0.0;
    let detail = match (enough, warm) {
        (true, true) => format!("{} requests after {} s of warm-up", facts.requests, facts.warm_up_s),
        (false, _) => {
            format!("{} requests are too few for p99, which needs 1000: let it run longer", facts.requests)
        }
        (_, false) => "there was no warm-up: the first requests are not like the others".to_owned(),
    };
    gate(6, GateName::Samples, enough && warm, detail)
}

fn machine(facts: &Facts) -> Gate {
    let detail = format!("other machines took {:.2} % of this one's time", facts.steal_share * 100.0);
    gate(7, GateName::Machine, facts.steal_share <= STEAL_MAX, detail)
}

fn closed_loop(facts: &Facts) -> Gate {
    let detail = match facts.open {
        None if facts.purpose == Purpose::FirstCalls => {
            "first calls: no call waits behind another of its function, so that no stall is hidden"
        }
        Some(_) => "an open loop: its latencies hold at this rate",
        None => "a closed loop: the rate is a peak, and latencies are not told as it hides stalls",
    };
    gate(8, GateName::Loop, true, detail.to_owned())
}

fn clock(facts: &Facts) -> Gate {
    let detail = format!("reading the clock takes {:.0} ns", facts.clock_cost_ns);
    gate(9, GateName::Clock, facts.clock_cost_ns < CLOCK_NS_MAX, detail)
}

fn selftest() -> Gate {
    Gate {
        number: 10,
        name: GateName::Selftest,
        state: GateState::Unchecked,
        detail: "run `loadgen selftest` once on this machine".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            open: Some(OpenFacts {
                offered_rate: 1000.0,
                achieved_rate: 999.0,
                lag_p999_us: 9.0,
                latency_p50_us: 100.0,
                due: 10_000,
                counted: 10_000,
            }),
            busy: vec![0.3, 0.5],
            shared_cores: Some(Vec::new()),
            calibration: Some(4.0),
            requests: 10_000,
            failed: 5,
            failed_share_max: 0.001,
            purpose: Purpose::Steady,
            warm_up_s: 1.0,
            steal_share: 0.0,
            stall_us_max: 0.0,
            clock_cost_ns: 25.0,
        }
    }

    fn broken(change: impl FnOnce(&mut Facts)) -> Vec<GateName> {
        let mut facts = good();
        change(&mut facts);
        let gates = judge(&facts, &[]);
        let names: Vec<GateName> =
            gates.iter().filter(|gate| gate.state == GateState::Broken).map(|gate| gate.name).collect();
        assert_eq!(is_valid(&gates), names.is_empty());
        names
    }

    #[test]
    fn a_good_run_passes_them_all() {
        assert_eq!(broken(|_| {}), []);
        let numbers: std::collections::BTreeSet<u8> =
            judge(&good(), &[]).iter().map(|it| it.number).collect();
        assert_eq!(numbers, (1..=10).collect(), "there are ten");
    }

    #[test]
    fn each_gate_closes_on_its_own_fault() {
        fn open(facts: &mut Facts) -> &mut OpenFacts {
            facts.open.as_mut().unwrap()
        }
        assert_eq!(broken(|it| open(it).counted = 9_999), [GateName::Schedule]);
        assert_eq!(broken(|it| open(it).lag_p999_us = 10.1), [GateName::Lag]);
        assert_eq!(broken(|it| open(it).achieved_rate = 994.0), [GateName::Delivered]);
        assert_eq!(broken(|it| it.busy[1] = 0.7), [GateName::Cpu]);
        assert_eq!(broken(|it| it.shared_cores = Some(vec![1])), [GateName::Cpu]);
        assert_eq!(broken(|it| it.calibration = Some(2.9)), [GateName::Calibration]);
        assert_eq!(broken(|it| it.failed = 11), [GateName::Errors]);
        assert_eq!(broken(|it| it.requests = 999), [GateName::Errors, GateName::Samples]);
        assert_eq!(broken(|it| it.warm_up_s = 0.0), [GateName::Samples]);
        assert_eq!(broken(|it| it.steal_share = 0.02), [GateName::Machine]);
        assert_eq!(broken(|it| it.clock_cost_ns = 800.0), [GateName::Clock]);
    }

    #[test]
    fn first_calls_need_no_warm_up_and_twenty_for_a_median() {
        let first_calls = |requests: u64| {
            broken(|it| {
                (it.purpose, it.open, it.requests, it.failed) = (Purpose::FirstCalls, None, requests, 0);
                it.warm_up_s = 0.0;
            })
        };
        assert_eq!(first_calls(20), []);
        assert_eq!(first_calls(19), [GateName::Samples]);
    }

    #[test]
    fn microsecond_claims_have_a_bound_of_their_own() {
        assert_eq!(broken(|it| it.open.as_mut().unwrap().latency_p50_us = 10.0), [GateName::Lag]);
        let fine = |it: &mut Facts| {
            let open = it.open.as_mut().unwrap();
            (open.latency_p50_us, open.lag_p999_us) = (10.0, 4.9);
        };
        assert_eq!(broken(fine), []);
    }

    #[test]
    fn a_waived_gate_is_told_and_lets_the_run_pass() {
        let mut facts = good();
        facts.busy = vec![1.0];
        let gates = judge(&facts, &[GateName::Cpu]);
        assert!(is_valid(&gates));
        assert!(gates.iter().any(|gate| gate.state == GateState::Waived && gate.name == GateName::Cpu));
    }

    #[test]
    fn a_closed_loop_has_no_schedule_to_judge() {
        let mut facts = good();
        facts.open = None;
        let gates = judge(&facts, &[]);
        assert!(is_valid(&gates));
        let without = gates.iter().filter(|gate| gate.state == GateState::NotApplicable).count();
        assert_eq!(without, 3);
    }
}
