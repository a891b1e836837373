//! Results for people.
//!
//! Owns: the layout. Must not know: how numbers came about.

use std::fmt::Write as _;

use crate::gates::GateState;
use crate::result::{Distribution, Phase, RunResult};
use crate::run::Second;

/// Whether a closed loop's response times are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClosedTimes {
    Show,
    Hide,
}

/// A duration in microseconds with a fitting unit.
pub fn duration(us: f64) -> String {
    if us < 1000.0 {
        format!("{us:.1} us")
    } else if us < 1e6 {
        format!("{:.2} ms", us / 1e3)
    } else {
        format!("{:.2} s", us / 1e6)
    }
}

/// The one line that is shown while a run goes on.
pub fn progress(second: &Second) -> String {
    let rate = second.succeeded as f64 / second.length_s.max(1e-3);
    let failed = if second.failed > 0 { format!(", {} failed", second.failed) } else { String::new() };
    let (p50, p99, most) = (duration(second.p50_us), duration(second.p99_us), duration(second.max_us));
    format!("{:>4} s  {rate:.0} requests/s{failed}  p50 {p50}  p99 {p99}  max {most}", second.second + 1)
}

/// The summary of a run.
pub fn summary(result: &RunResult, closed: ClosedTimes) -> String {
    let mut out = String::new();
    write_head(&mut out, result);
    write_rates(&mut out, result);
    write_latencies(&mut out, result, closed);
    write_phases(&mut out, &result.phases);
    write_effort(&mut out, result);
    write_gates(&mut out, result);
    out
}

macro_rules! line {
    ($out:expr, $($text:tt)*) => { writeln!($out, $($text)*).expect("writing to a string cannot fail") };
}

fn write_head(out: &mut String, result: &RunResult) {
    let setting = &result.setting;
    line!(out, "{} against {}", result.tool, setting.target);
    if let Some(cold) = &result.cold {
        let code = if cold.zip_bytes == 0 {
            "the engine's own hello".to_owned()
        } else {
            format!("a zip of {} bytes", cold.zip_bytes)
        };
        let (functions, runtime, deploy_s) = (cold.functions, &cold.runtime, cold.deploy_s);
        line!(out, "  first calls of {functions} functions ({runtime}, {code}), deployed in {deploy_s:.2} s");
    }
    let drive = match (setting.rate_asked, &setting.arrivals) {
        (Some((from, to)), Some(arrivals)) if (from - to).abs() > 0.0 => {
            format!("open loop, {from} to {to} requests/s, {arrivals} arrivals")
        }
        (Some((rate, _)), Some(arrivals)) => format!("open loop, {rate} requests/s, {arrivals} arrivals"),
        _ => "closed loop".to_owned(),
    };
    let keep = if setting.keep_alive { "kept alive" } else { "one request each" };
    let mut connections = format!("{} connections, {keep}", setting.connections);
    if setting.pipeline > 1 {
        connections.push_str(&format!(", {} requests deep", setting.pipeline));
    }
    line!(out, "  {drive}; {connections}; cores {:?}", setting.cores);
    line!(
        out,
        "  measured {:.2} s after {} s of warm-up; time-out {} s",
        result.duration_s,
        setting.warm_up_s,
        setting.timeout_s
    );
}

fn write_rates(out: &mut String, result: &RunResult) {
    let offered = result.offered_rate.map_or(String::new(), |rate| format!(" of {rate:.1} offered"));
    line!(out, "\nrate        {:.1} requests/s{offered}", result.rate);
    line!(out, "requests    {} succeeded, {} failed", result.succeeded, result.requests - result.succeeded);
    for (kind, count) in result.failed.iter().filter(|(_, count)| **count > 0) {
        line!(out, "  {kind:<9} {count}");
    }
    let per_second = |bytes: u64| bytes as f64 / 1e6 / result.duration_s.max(1e-9);
    line!(
        out,
        "bytes       {:.2} MB/s received, {:.2} MB/s sent",
        per_second(result.bytes_received),
        per_second(result.bytes_sent)
    );
    if result.waited_for_connection > 0 {
        line!(
            out,
            "waits       {} requests found every connection busy, up to {} long; the wait is part of their latency",
            result.waited_for_connection,
            duration(result.connection_wait_us_max)
        );
    }
}

fn write_latencies(out: &mut String, result: &RunResult, closed: ClosedTimes) {
    let latency = &result.latency;
    if let (Some(headline), Some(lag)) = (&latency.intended_to_done, &latency.send_lag) {
        line!(out, "\n{:<12}{:>16}{:>16}{:>16}", "", "latency", "service time", "send lag");
        write_table(out, &[headline, &latency.sent_to_done, lag]);
    } else if result.cold.is_some() {
        line!(out, "\n{:<12}{:>16}", "", "first call");
        write_table(out, &[&latency.sent_to_done]);
    } else if closed == ClosedTimes::Show {
        line!(out, "\n{:<12}{:>16}   (a closed loop hides stalls: do not quote)", "", "service time");
        write_table(out, &[&latency.sent_to_done]);
    }
}

/// What the server tells of the time inside of it.
fn write_phases(out: &mut String, phases: &[Phase]) {
    if phases.is_empty() {
        return;
    }
    line!(out, "\nphases, as the server tells them, of {} answers", phases[0].times.count);
    let heading: String = phases.iter().map(|phase| format!("{:>16}", phase.name)).collect();
    line!(out, "{:<12}{heading}", "");
    write_table(out, &phases.iter().map(|phase| &phase.times).collect::<Vec<_>>());
}

fn write_table(out: &mut String, columns: &[&Distribution]) {
    let mut row = |name: &str, cells: Vec<Option<f64>>| {
        let cells: String = cells
            .into_iter()
            .map(|us| format!("{:>16}", us.map_or("too few".to_owned(), duration)))
            .collect();
        line!(out, "{name:<12}{cells}");
    };
    row("mean", columns.iter().map(|it| Some(it.mean_us)).collect());
    let percents: Vec<f64> = columns[0].percentiles.iter().map(|it| it.percent).collect();
    for percent in percents {
        let name = if percent < 100.0 { format!("p{percent}") } else { "max".to_owned() };
        row(&name, columns.iter().map(|it| it.at(percent)).collect());
    }
}

fn write_effort(out: &mut String, result: &RunResult) {
    let generator = &result.generator;
    let busy: Vec<String> = generator.busy.iter().map(|share| format!("{:.0} %", share * 100.0)).collect();
    line!(
        out,
        "\ngenerator   {:.2} us of CPU per request; threads at work {}; {:.1} MB",
        generator.cpu_us_per_request,
        busy.join(", "),
        generator.memory_peak_kib as f64 / 1024.0
    );
    if generator.stalled_ms > 0.0 {
        line!(
            out,
            "stalls      {:.1} ms in which the machine kept the generator from running, up to {} at once",
            generator.stalled_ms,
            duration(generator.stall_us_max)
        );
    }
    if let Some(signing) = &result.signing {
        line!(
            out,
            "signing     {} signatures of {:.1} us each, {} of them when their request was due already",
            signing.signatures,
            signing.us_each,
            signing.in_line
        );
    }
    if let Some(server) = &result.server {
        line!(
            out,
            "server      {:.2} us of CPU per request; {:.2} cores; {} processes",
            server.cpu_us_per_request,
            server.cores_used,
            server.processes
        );
    }
}

fn write_gates(out: &mut String, result: &RunResult) {
    let word = if result.valid { "VALID" } else { "INVALID" };
    line!(out, "\n{word}");
    for gate in &result.gates {
        let state = match gate.state {
            GateState::Passed | GateState::NotApplicable => continue,
            GateState::Broken => "broken",
            GateState::Waived => "waived",
            GateState::Unchecked => "unchecked",
        };
        let name = format!("{:?}", gate.name).to_lowercase();
        line!(out, "  {state:<10}{name}: {}", gate.detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_fitting_unit() {
        let told = [0.5, 999.9, 1000.0, 12_345.0, 2_500_000.0].map(duration);
        assert_eq!(told, ["0.5 us", "999.9 us", "1.00 ms", "12.35 ms", "2.50 s"]);
    }

    #[test]
    fn progress_is_one_line() {
        let second = Second {
            second: 2,
            length_s: 0.5,
            succeeded: 1000,
            failed: 3,
            bytes_received: 0,
            p50_us: 40.0,
            p99_us: 900.0,
            max_us: 1500.0,
        };
        assert_eq!(
            progress(&second),
            "   3 s  2000 requests/s, 3 failed  p50 40.0 us  p99 900.0 us  max 1.50 ms"
        );
    }
}
