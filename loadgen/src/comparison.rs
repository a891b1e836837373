//! Contenders side by side, and whether their difference is real.
//!
//! Owns: which numbers are compared. Must not know: how the runs came about.

use std::fmt::Write as _;

use serde::Serialize;

use crate::result::{Distribution, RunResult};
use crate::run::Second;
use crate::stats::{median, range, rank_test, ratio_range};

/// A difference is called real below this probability of its being chance.
const CHANCE_MAX: f64 = 0.05;
/// With fewer runs of each contender, chance cannot be excluded: 2 of 20 choices of 3 out of 6 are the most extreme.
const RUNS_MIN: usize = 4;

/// All the runs of one contender.
#[derive(Debug, Clone)]
pub struct Contender {
    pub name: String,
    pub runs: Vec<RunResult>,
}

/// What the values of a comparison are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// One value for each run.
    Runs,
    /// One for each second of a single run: weaker, for it says nothing of how runs differ.
    Seconds,
}

/// One number of one contender.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    pub contender: String,
    pub median: Option<f64>,
    pub least: Option<f64>,
    pub most: Option<f64>,
    /// Median over that of the first contender, its 95 % range, and the probability that the difference is chance.
    pub ratio: Option<f64>,
    pub ratio_range: Option<(f64, f64)>,
    pub chance: Option<f64>,
    pub verdict: &'static str,
}

/// One number of all contenders.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub metric: &'static str,
    pub cells: Vec<Cell>,
}

/// Everything compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub basis: Basis,
    pub rows: Vec<Row>,
    /// For each contender its name, how many runs it has, and how many of them are valid.
    pub runs: Vec<(String, usize, usize)>,
}

struct Metric {
    name: &'static str,
    of_run: fn(&RunResult) -> Option<f64>,
    of_second: Option<fn(&Second) -> f64>,
}

fn headline(result: &RunResult, percent: f64) -> Option<f64> {
    result.headline().and_then(|it: &Distribution| it.at(percent))
}

const METRICS: [Metric; 6] = [
    Metric {
        name: "rate, requests/s",
        of_run: |it| Some(it.rate),
        of_second: Some(|it| it.succeeded as f64 / it.length_s.max(1e-9)),
    },
    Metric { name: "p50, us", of_run: |it| headline(it, 50.0), of_second: Some(|it| it.p50_us) },
    Metric { name: "p99, us", of_run: |it| headline(it, 99.0), of_second: Some(|it| it.p99_us) },
    Metric { name: "p99.9, us", of_run: |it| headline(it, 99.9), of_second: None },
    Metric {
        name: "generator CPU, us/request",
        of_run: |it| Some(it.generator.cpu_us_per_request),
        of_second: None,
    },
    Metric {
        name: "server CPU, us/request",
        of_run: |it| it.server.as_ref().map(|server| server.cpu_us_per_request),
        of_second: None,
    },
];

/// Compares contenders with the first of them.
pub fn compare(contenders: &[Contender]) -> Comparison {
    // A run of less than a second has no whole one to compare.
    let has_seconds = |it: &Contender| matches!(&it.runs[..], [run] if run.seconds.len() > 1);
    let basis = if contenders.iter().all(has_seconds) { Basis::Seconds } else { Basis::Runs };
    let rows = METRICS.iter().filter_map(|metric| row(metric, contenders, basis)).collect();
    let runs = contenders
        .iter()
        .map(|it| (it.name.clone(), it.runs.len(), it.runs.iter().filter(|run| run.valid).count()))
        .collect();
    Comparison { basis, rows, runs }
}

fn values(metric: &Metric, contender: &Contender, basis: Basis) -> Vec<f64> {
    let of_runs = || contender.runs.iter().filter_map(metric.of_run).collect::<Vec<f64>>();
    match (basis, metric.of_second) {
        // The last second holds what came after the end.
        (Basis::Seconds, Some(of_second)) if !of_runs().is_empty() => {
            let seconds =
                contender.runs.iter().flat_map(|run| run.seconds.split_last().map_or(&[][..], |it| it.1));
            seconds.map(of_second).collect()
        }
        _ => of_runs(),
    }
}

fn row(metric: &Metric, contenders: &[Contender], basis: Basis) -> Option<Row> {
    let all: Vec<Vec<f64>> = contenders.iter().map(|it| values(metric, it, basis)).collect();
    if all.iter().all(Vec::is_empty) {
        return None;
    }
    let cells = contenders.iter().zip(&all).enumerate();
    let cells =
        cells.map(|(index, (contender, values))| cell(contender, values, &all[0], index > 0)).collect();
    Some(Row { metric: metric.name, cells })
}

fn cell(contender: &Contender, values: &[f64], first: &[f64], is_compared: bool) -> Cell {
    let middle = median(values);
    let ratio = middle.zip(median(first)).filter(|(_, first)| *first > 0.0).map(|(it, first)| it / first);
    let chance = is_compared.then(|| rank_test(first, values));
    let verdict = match chance {
        None => "",
        Some(_) if first.len().min(values.len()) < RUNS_MIN => "too few runs",
        Some(chance) if chance < CHANCE_MAX => "real",
        Some(_) => "not told apart",
    };
    Cell {
        contender: contender.name.clone(),
        median: middle,
        least: range(values).map(|it| it.0),
        most: range(values).map(|it| it.1),
        ratio: ratio.filter(|_| is_compared),
        ratio_range: ratio_range(first, values).filter(|_| is_compared),
        chance,
        verdict,
    }
}

impl Comparison {
    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line =
            |text: String| writeln!(out, "{}", text.trim_end()).expect("writing to a string cannot fail");
        for (name, runs, valid) in &self.runs {
            line(format!("{name}: {runs} runs, {valid} of them valid"));
        }
        if self.basis == Basis::Seconds {
            line("one run each: compared by their seconds, which says nothing of how runs differ".to_owned());
        }
        for row in &self.rows {
            line(format!("\n{}", row.metric));
            for cell in &row.cells {
                let number = |value: Option<f64>| value.map_or("-".to_owned(), |it| format!("{it:.2}"));
                let (median, least, most) = (number(cell.median), number(cell.least), number(cell.most));
                let mut text = format!("  {:<16}{median:>14}  ({least} to {most})", cell.contender);
                if let (Some(ratio), Some((low, high)), Some(chance)) =
                    (cell.ratio, cell.ratio_range, cell.chance)
                {
                    let told =
                        format!("  {ratio:.3} x ({low:.3} to {high:.3})  {} (p = {chance:.3})", cell.verdict);
                    text.push_str(&told);
                }
                line(text);
            }
        }
        out
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A result with this rate, written as a run would.
    fn result(rate: f64) -> RunResult {
        serde_json::from_value(serde_json::json!({
            "tool": "loadgen", "valid": true, "gates": [],
            "setting": {"target": "t", "request_bytes": 1, "loop": "closed", "rate_asked": null, "arrivals": null,
                "seed": 1, "connections": 1, "pipeline": 1, "keep_alive": true, "cores": [0], "warm_up_s": 1.0,
                "timeout_s": 1.0, "bodies_checked": false},
            "duration_s": 1.0, "requests": 1, "succeeded": 1, "failed": {}, "failed_share": 0.0, "rate": rate,
            "offered_rate": null,
            "latency": {"intended_to_done": null, "send_lag": null, "sent_to_done":
                {"count": 1, "min_us": 1.0, "mean_us": 1.0, "max_us": 1.0, "percentiles": [], "curve": []}},
            "waited_for_connection": 0, "connection_wait_us_max": 0.0, "reconnects": 0, "bytes_sent": 0,
            "bytes_received": 0, "server": null, "seconds": [],
            "generator": {"cpu_us_per_request": 5.0, "busy": [0.5], "memory_peak_kib": 1, "stalled_ms": 0.0,
                "stall_us_max": 0.0},
            "environment": {"kernel": "k", "cpu": "c", "cores": 1, "governor": "g", "clock_source": "tsc",
                "mitigations": [], "load_average": "0"},
        }))
        .unwrap()
    }

    pub(crate) fn contender(name: &str, rates: &[f64]) -> Contender {
        Contender { name: name.to_owned(), runs: rates.iter().map(|rate| result(*rate)).collect() }
    }

    #[test]
    fn a_clear_difference_is_real_and_a_mixed_one_is_not() {
        let first = contender("a", &[100.0, 101.0, 99.0, 100.5, 100.2]);
        let faster = contender("b", &[150.0, 151.0, 149.0, 150.5, 150.2]);
        let alike = contender("c", &[100.1, 99.5, 101.5, 98.0, 100.4]);
        let found = compare(&[first, faster, alike]);
        let rate = &found.rows[0];
        assert_eq!((rate.cells[1].verdict, rate.cells[2].verdict), ("real", "not told apart"));
        let (low, high) = rate.cells[1].ratio_range.unwrap();
        assert!(low > 1.4 && high < 1.6);
        // The generator's CPU is the same in all of them, and a closed loop has no latencies to compare.
        let names: Vec<&str> = found.rows.iter().map(|row| row.metric).collect();
        assert_eq!(names, ["rate, requests/s", "generator CPU, us/request"]);
        assert_eq!(found.rows[1].cells[1].verdict, "not told apart");
        let text = found.text();
        assert!(text.contains("a: 5 runs, 5 of them valid") && text.contains("1.499 x"), "{text}");
    }

    #[test]
    fn runs_that_are_shorter_than_a_second_are_compared_whole() {
        let found = compare(&[contender("a", &[100.0]), contender("b", &[110.0])]);
        assert_eq!((found.basis, found.rows[0].cells[1].median), (Basis::Runs, Some(110.0)));
    }

    #[test]
    fn few_runs_are_never_enough() {
        let found = compare(&[contender("a", &[1.0, 1.0, 1.0]), contender("b", &[9.0, 9.0, 9.0])]);
        assert_eq!(found.rows[0].cells[1].verdict, "too few runs");
    }
}
