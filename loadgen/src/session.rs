//! Commands made of several runs: sweeps, repetitions, comparisons of files.
//!
//! Owns: the order of the runs. Must not know: how one is carried out, or how results are printed.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, ensure};

use crate::comparison::Contender;
use crate::gates::SAMPLES_BEYOND;
use crate::options::{Named, RepeatArgs, RunFlags, SweepArgs};
use crate::plan::{Extent, Loop, Plan};
use crate::result::{Judgement, Purpose, RunResult};
use crate::run::{Outcome, Second, run};
use crate::schedule::Rate;
use crate::sweep::{Point, Search, Sweep};

/// A run with its judgement.
///
/// # Errors
/// It could not be carried out.
pub fn judged_run(
    plan: &Plan,
    judgement: &Judgement,
    server: Option<u32>,
    progress: &mut dyn FnMut(&Second),
) -> anyhow::Result<(RunResult, Outcome)> {
    let outcome = run(plan, server, progress)?;
    Ok((RunResult::of(plan, &outcome, judgement), outcome))
}

/// What the flags of a run say about its judgement.
///
/// # Errors
/// The calibration cannot be read.
pub fn judgement(flags: &RunFlags) -> anyhow::Result<Judgement> {
    let calibration_rate = match &flags.calibration {
        None => None,
        Some(path) => Some(read_results(path)?.last().context("a file of results holds at least one")?.rate),
    };
    let (allowed, failed_share_max) = (flags.allow.clone(), flags.errors_max);
    Ok(Judgement { allowed, failed_share_max, calibration_rate, purpose: Purpose::Steady })
}

/// Reads a file of results, one JSON object per line.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn read_results(path: &Path) -> anyhow::Result<Vec<RunResult>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let results: Result<Vec<RunResult>, _> =
        text.lines().filter(|line| !line.trim().is_empty()).map(serde_json::from_str).collect();
    let results =
        results.with_context(|| format!("{} holds no results of `loadgen run --out`", path.display()))?;
    ensure!(!results.is_empty(), "{} is empty", path.display());
    Ok(results)
}

/// The contenders in files, each named as its file.
///
/// # Errors
/// As [`read_results`].
pub fn read_contenders(files: &[impl AsRef<Path>]) -> anyhow::Result<Vec<Contender>> {
    let read = |path: &Path| {
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Contender { name, runs: read_results(path)? })
    };
    files.iter().map(|path| read(path.as_ref())).collect()
}

/// Tries rates until the knee is known; `say` hears of each.
///
/// # Errors
/// A run could not be carried out.
pub fn sweep(args: &SweepArgs, say: &mut dyn FnMut(&Point)) -> anyhow::Result<Sweep> {
    ensure!(args.from > 0.0 && args.from <= args.to, "--from must be above 0 and not above --to");
    ensure!(args.flags.rate.is_none(), "a sweep finds the rate itself: leave --rate out");
    let mut plan = args.flags.plan(&args.url)?;
    ensure_enough_for_p99(args.from, plan.extent)?;
    let judgement = judgement(&args.flags)?;
    let p99_max_us = args.p99_max.as_secs_f64() * 1e6;
    let mut search = Search::new(args.from, args.to);
    let mut points = Vec::new();
    while let Some(rate) = search.next_rate() {
        plan.drive = Loop::Open { rate: Rate::steady(rate), arrivals: args.flags.arrivals };
        let (result, _) = judged_run(&plan, &judgement, args.pid, &mut |_| {})?;
        let point = Point::of(rate, &result, p99_max_us);
        search.note(rate, point.kept);
        say(&point);
        points.push(point);
    }
    points.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    Ok(Sweep { p99_max_us, knee: search.knee(), points })
}

/// Without a p99 no rate could keep its bound, however fast the server is.
#[expect(clippy::cast_precision_loss, reason = "counts of requests fit 53 bits")]
fn ensure_enough_for_p99(from: f64, extent: Extent) -> anyhow::Result<()> {
    let needed = SAMPLES_BEYOND / (1.0 - 0.99);
    let requests = match extent {
        Extent::Time(duration) => from * duration.as_secs_f64(),
        Extent::Count(count) => count as f64,
    };
    ensure!(
        requests >= needed - 1e-6,
        "the first run of this sweep would have {requests:.0} requests, and a p99 needs {needed:.0}: \
         raise --from, or --duration to {:.0}s",
        (needed / from).ceil()
    );
    Ok(())
}

/// Measures contenders in turns; `say` hears of each run. Results are appended to files as they come, so that nothing is
/// lost when a later run fails.
///
/// # Errors
/// A run could not be carried out, or a file not written.
pub fn repeat(args: &RepeatArgs, say: &mut dyn FnMut(&str, &RunResult)) -> anyhow::Result<Vec<Contender>> {
    ensure!((1..=1000).contains(&args.rounds), "--rounds must be from 1 to 1000");
    let named = args.contenders.iter().map(|text| Named::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<&str> = named.iter().map(|it| it.name.as_str()).collect();
    names.sort_unstable();
    ensure!(names.windows(2).all(|pair| pair[0] != pair[1]), "every contender needs a name of its own");
    let plans = named.iter().map(|it| args.flags.plan(&it.url)).collect::<Result<Vec<_>, _>>()?;
    let judgement = judgement(&args.flags)?;
    if let Some(directory) = &args.out {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let mut contenders: Vec<Contender> =
        named.iter().map(|it| Contender { name: it.name.clone(), runs: Vec::new() }).collect();
    for _ in 0..args.rounds {
        for ((named, plan), contender) in named.iter().zip(&plans).zip(&mut contenders) {
            let (result, _) = judged_run(plan, &judgement, named.pid, &mut |_| {})
                .with_context(|| format!("measuring {}", named.name))?;
            say(&named.name, &result);
            if let Some(directory) = &args.out {
                append(&directory.join(format!("{}.json", named.name)), &result)?;
            }
            contender.runs.push(result);
        }
    }
    Ok(contenders)
}

fn append(path: &Path, result: &RunResult) -> anyhow::Result<()> {
    let mut line = serde_json::to_string(result).context("a result holds only numbers and texts")?;
    line.push('\n');
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
