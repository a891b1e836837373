//! One self-contained HTML page: verdict, numbers, gates and plots of a run, or of contenders over each other.
//!
//! Owns: the page. Must not know: files, how plots are drawn. Everything that came from outside is escaped; the page
//! loads nothing.

mod plot;

use std::fmt::Write as _;

use crate::comparison::{Comparison, Contender};
use crate::gates::GateState;
use crate::result::{Distribution, RunResult};
use crate::text::{ClosedTimes, duration, summary};
pub use plot::PlotError;
use plot::{Axis, Line, Scale, colour, draw};

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
    h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}\
    table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top}\
    td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}th{border-bottom:1px solid #888}\
    .good{color:#176b2c}.bad{color:#a11212}.note{color:#666}svg{max-width:100%;height:auto}\
    .legend{margin:0 0 0 6rem;font-size:13px}.legend span{margin-left:1rem}\
    pre{background:#f5f5f5;padding:.8rem;white-space:pre-wrap;overflow-wrap:anywhere;font-size:13px}";

macro_rules! add {
    ($out:expr, $($text:tt)*) => { writeln!($out, $($text)*).expect("writing to a string cannot fail") };
}

/// Makes a page of one contender or more. Of several runs of a contender, the one with the median rate is plotted.
///
/// # Errors
/// A plot could not be drawn.
pub fn page(contenders: &[Contender], comparison: Option<&Comparison>) -> Result<String, PlotError> {
    let shown: Vec<(&str, &RunResult)> =
        contenders.iter().filter_map(|it| Some((it.name.as_str(), typical(&it.runs)?))).collect();
    let mut out = String::new();
    let title = match shown[..] {
        [(_, only)] => format!("loadgen: {}", only.setting.target),
        _ => format!("loadgen: {}", shown.iter().map(|it| it.0).collect::<Vec<_>>().join(" and ")),
    };
    add!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>",
        escaped(&title)
    );
    add!(out, "<style>{STYLE}</style></head><body><h1>{}</h1>", escaped(&title));
    if let Some(comparison) = comparison {
        add!(out, "<h2>Comparison</h2><pre>{}</pre>", escaped(&comparison.text()));
    }
    write_plots(&mut out, &shown)?;
    for (name, result) in &shown {
        write_run(&mut out, name, result);
    }
    add!(out, "</body></html>");
    Ok(out)
}

/// The run with the median rate.
fn typical(runs: &[RunResult]) -> Option<&RunResult> {
    let mut sorted: Vec<&RunResult> = runs.iter().collect();
    sorted.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    sorted.get(sorted.len() / 2).copied()
}

/// What latency is plotted: from the intended send, or in a closed loop from the send.
fn headline(result: &RunResult) -> &Distribution {
    result.headline().unwrap_or(&result.latency.sent_to_done)
}

fn write_plots(out: &mut String, shown: &[(&str, &RunResult)]) -> Result<(), PlotError> {
    let closed = shown.iter().any(|(_, result)| result.headline().is_none());
    let note = if closed { " A closed loop hides stalls: its times are not to be quoted." } else { "" };
    add!(
        out,
        "<h2>Latency by percentile</h2><p class=\"note\">As far as there are 10 requests beyond; a failure counts as lasting the time-out.{note}</p>"
    );
    let mut lines: Vec<Line> = shown.iter().map(|(name, result)| curve(name, headline(result))).collect();
    if let [(_, only)] = shown
        && let Some(lag) = &only.latency.send_lag
    {
        lines[0].name = "latency".to_owned();
        lines.push(curve("service time", &only.latency.sent_to_done));
        lines.push(curve("send lag", lag));
    }
    if let [(_, only)] = shown {
        if only.cold.is_some() {
            "first call".clone_into(&mut lines[0].name);
        }
        lines.extend(only.phases.iter().map(|phase| curve(&phase.name, &phase.times)));
    }
    add!(out, "{}", figure(&lines, Axis::Percentile, Scale::Logarithmic, "ms")?);
    let series = |title: &str, value: fn(&crate::run::Second) -> f64| -> Vec<Line> {
        let line = |(name, result): &(&str, &RunResult)| Line {
            name: if shown.len() == 1 { title.to_owned() } else { format!("{name} {title}") },
            points: result.seconds.iter().map(|it| (f64::from(it.second) + it.length_s, value(it))).collect(),
        };
        shown.iter().map(line).collect()
    };
    add!(out, "<h2>Requests per second</h2>");
    let mut rates = series("answered", |it| it.succeeded as f64 / it.length_s.max(1e-9));
    if shown.iter().any(|(_, result)| result.failed_share > 0.0) {
        rates.extend(series("failed", |it| it.failed as f64 / it.length_s.max(1e-9)));
    }
    add!(out, "{}", figure(&rates, Axis::Seconds, Scale::Linear, "per second")?);
    add!(out, "<h2>Latency by second</h2>");
    let mut times = series("p50", |it| it.p50_us / 1e3);
    times.extend(series("p99", |it| it.p99_us / 1e3));
    if shown.len() == 1 {
        times.extend(series("max", |it| it.max_us / 1e3));
    }
    add!(out, "{}", figure(&times, Axis::Seconds, Scale::Logarithmic, "ms")?);
    Ok(())
}

/// A plot and below it what its lines are.
fn figure(lines: &[Line], axis: Axis, scale: Scale, unit: &str) -> Result<String, PlotError> {
    let mut out = draw(lines, axis, scale, unit)?;
    out.push_str("<p class=\"legend\">");
    for (place, line) in lines.iter().enumerate() {
        add!(out, "<span style=\"color:{}\">&#9632;</span> {}", colour(place), escaped(&line.name));
    }
    out.push_str("</p>");
    Ok(out)
}

/// Quantiles on an axis where each nine takes the same room.
fn curve(name: &str, distribution: &Distribution) -> Line {
    let points =
        distribution.curve.iter().map(|(quantile, us)| (-(1.0 - quantile).log10(), us / 1e3)).collect();
    Line { name: name.to_owned(), points }
}

fn write_run(out: &mut String, name: &str, result: &RunResult) {
    let (class, word) = if result.valid { ("good", "VALID") } else { ("bad", "INVALID") };
    add!(out, "<h2>{} <span class=\"{class}\">{word}</span></h2>", escaped(name));
    add!(out, "<pre>{}</pre>", escaped(&summary(result, ClosedTimes::Hide)));
    add!(out, "<table><tr><th>gate</th><th></th><th>state</th><th>seen</th></tr>");
    for gate in &result.gates {
        let class = if gate.state == GateState::Broken { "bad" } else { "note" };
        let (gate_name, state) = (format!("{:?}", gate.name).to_lowercase(), state_name(gate.state));
        let detail = escaped(&gate.detail);
        add!(
            out,
            "<tr><td>{}</td><td>{gate_name}</td><td class=\"{class}\">{state}</td><td>{detail}</td></tr>",
            gate.number
        );
    }
    add!(out, "</table>");
    let environment = &result.environment;
    add!(
        out,
        "<p class=\"note\">Linux {}, {}, {} cores, governor {}, clock {}, load {} before the run; {}. Longest stall of \
         the generator: {}.</p>",
        escaped(&environment.kernel),
        escaped(&environment.cpu),
        environment.cores,
        escaped(&environment.governor),
        escaped(&environment.clock_source),
        escaped(&environment.load_average),
        escaped(&environment.mitigations.join("; ")),
        duration(result.generator.stall_us_max)
    );
}

fn state_name(state: GateState) -> &'static str {
    match state {
        GateState::Passed => "passed",
        GateState::Broken => "broken",
        GateState::Waived => "waived",
        GateState::Unchecked => "unchecked",
        GateState::NotApplicable => "does not apply",
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for it in text.chars() {
        match it {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::compare;
    use crate::comparison::tests::contender;

    #[test]
    fn a_page_has_its_plots_and_loads_nothing() {
        let contenders = [contender("a", &[100.0, 120.0, 110.0])];
        let page = page(&contenders, None).unwrap();
        assert_eq!(page.matches("<svg").count(), 3, "{page}");
        assert_eq!(page.matches("</svg>").count(), 3);
        assert!(page.contains("rate        110.0 requests/s"), "the median run is shown");
        for outside in ["http://", "https://", "<script", "<link", "url("] {
            let found = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!found.contains(outside), "{outside}");
        }
    }

    #[test]
    fn contenders_are_over_each_other_and_nothing_breaks_out() {
        let contenders = [contender("<b>&\"", &[1.0]), contender("b", &[2.0])];
        let page = page(&contenders, Some(&compare(&contenders))).unwrap();
        assert!(!page.contains("<b>") && page.contains("&lt;b&gt;&amp;&quot;"), "{page}");
        assert!(page.contains("<h2>Comparison</h2>"));
    }

    #[test]
    fn no_contender_makes_an_empty_page() {
        assert!(page(&[], None).unwrap().ends_with("</body></html>\n"));
    }
}
