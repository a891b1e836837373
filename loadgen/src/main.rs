//! The `loadgen` command: reads flags, does what they say, prints the result.
//!
//! Owns: standard output and the exit code. Must not know: how anything is measured.
//! Exit codes: 0 done and valid, 1 could not be done, 2 flags not understood, 3 done and INVALID,
//! 130 stopped by a signal.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use faaster_loadgen::cold::{ColdArgs, End, cold};
use faaster_loadgen::comparison::{Contender, compare};
use faaster_loadgen::hgrm;
use faaster_loadgen::null_server::{self, Conduct};
use faaster_loadgen::options::{
    Cli, Command, CompareArgs, NullServerArgs, OutputFlags, RepeatArgs, RunArgs, SweepArgs,
};
use faaster_loadgen::report::page;
use faaster_loadgen::result::RunResult;
use faaster_loadgen::run::{Outcome, Second};
use faaster_loadgen::selftest::{own_program, selftest};
use faaster_loadgen::session::{judged_run, judgement, read_contenders, repeat, sweep};
use faaster_loadgen::sweep::HEADING;
use faaster_loadgen::text::{ClosedTimes, progress, summary};
use serde::Serialize;

const INVALID: u8 = 3;
/// As shells tell of SIGINT.
const STOPPED: u8 = 130;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run_once(&args),
        Command::Cold(args) => first_calls(&args),
        Command::Sweep(args) => find_knee(&args),
        Command::Repeat(args) => take_turns(&args),
        Command::Compare(args) => compare_files(&args),
        Command::NullServer(args) => serve(args),
        Command::Selftest => check_itself(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("loadgen: {error:#}");
        ExitCode::FAILURE
    })
}

fn exit_code(valid: bool) -> ExitCode {
    if valid { ExitCode::SUCCESS } else { ExitCode::from(INVALID) }
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("cannot write the result")
}

fn json(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value).expect("results hold only numbers and texts");
    text.push('\n');
    text
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A line for whoever watches, on standard error. Nobody may: it is a courtesy, and its failure ends nothing.
fn tell(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

/// Draws what a run is at, on a terminal alone.
#[derive(Clone, Copy)]
struct LiveLine {
    on_terminal: bool,
}

impl LiveLine {
    fn new() -> Self {
        Self { on_terminal: std::io::stderr().is_terminal() }
    }

    fn draw(self, second: &Second) {
        if self.on_terminal {
            write!(std::io::stderr(), "\r\x1b[K{}", progress(second)).ok();
        }
    }

    fn clear(self) {
        if self.on_terminal {
            write!(std::io::stderr(), "\r\x1b[K").ok();
        }
    }
}

fn run_once(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let plan = args.flags.plan(&args.url)?;
    let live = LiveLine::new();
    let judgement = judgement(&args.flags)?;
    let done = judged_run(&plan, &judgement, args.pid, &mut |second| live.draw(second));
    live.clear();
    let (result, outcome) = done?;
    let closed = if args.closed_times { ClosedTimes::Show } else { ClosedTimes::Hide };
    deliver("run", &result, &outcome, &args.output, closed)
}

fn first_calls(args: &ColdArgs) -> anyhow::Result<ExitCode> {
    let live = LiveLine::new();
    let ended = cold(args, Box::new(move |second| live.draw(second)));
    live.clear();
    match ended? {
        End::Stopped => {
            tell("loadgen: stopped; the functions are removed");
            Ok(ExitCode::from(STOPPED))
        }
        End::Done(done) => deliver("cold", &done.0, &done.1, &args.output, ClosedTimes::Hide),
    }
}

/// Puts a result where the flags say.
fn deliver(
    name: &str,
    result: &RunResult,
    outcome: &Outcome,
    output: &OutputFlags,
    closed: ClosedTimes,
) -> anyhow::Result<ExitCode> {
    if let Some(path) = &output.out {
        write(path, &json(result))?;
    }
    if let Some(path) = &output.hgrm {
        let (tally, open) = (&outcome.tally, result.latency.intended_to_done.is_some());
        write(path, &hgrm::listing(if open { &tally.intended_to_done } else { &tally.sent_to_done }))?;
    }
    if let Some(path) = &output.html {
        let contender = Contender { name: name.to_owned(), runs: vec![result.clone()] };
        write(path, &page(&[contender], None)?)?;
    }
    print(&if output.json { json(result) } else { summary(result, closed) })?;
    Ok(exit_code(result.valid))
}

fn find_knee(args: &SweepArgs) -> anyhow::Result<ExitCode> {
    if !args.json {
        print(&format!("{HEADING}\n"))?;
    }
    let found =
        sweep(args, &mut |point| if args.json { tell(&point.text()) } else { println!("{}", point.text()) })?;
    print(&if args.json { json(&found) } else { format!("{}\n", found.verdict()) })?;
    Ok(exit_code(found.is_valid()))
}

fn take_turns(args: &RepeatArgs) -> anyhow::Result<ExitCode> {
    let contenders = repeat(args, &mut |name, result| {
        let word = if result.valid { "valid" } else { "INVALID" };
        tell(&format!("{name}: {:.1} requests/s, {word}", result.rate));
    })?;
    print_comparison(&contenders, args.html.as_deref(), args.json)
}

fn compare_files(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    print_comparison(&read_contenders(&args.files)?, args.html.as_deref(), args.json)
}

fn print_comparison(
    contenders: &[Contender],
    html: Option<&Path>,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let comparison = compare(contenders);
    if let Some(path) = html {
        write(path, &page(contenders, Some(&comparison))?)?;
    }
    print(&if as_json { json(&comparison) } else { comparison.text() })?;
    Ok(exit_code(comparison.runs.iter().all(|(_, runs, valid)| runs == valid)))
}

fn serve(args: NullServerArgs) -> anyhow::Result<ExitCode> {
    if let Some(core) = args.core {
        faaster_sys::affinity::pin_to(core).with_context(|| format!("cannot use core {core}"))?;
    }
    let listener = null_server::listen(&args.listen)?;
    // Whoever started it may wait for this line.
    println!("listening on {}", args.listen);
    let conduct = Conduct {
        body: args.body.into_bytes(),
        delay: args.delay,
        wrong_every: args.wrong_every,
        garbled_every: args.garbled_every,
        close_every: args.close_every,
        seed: args.seed,
        end_after: args.end_after,
    };
    null_server::serve(listener, conduct)?;
    Ok(ExitCode::SUCCESS)
}

fn check_itself() -> anyhow::Result<ExitCode> {
    let held = selftest(&own_program()?, &mut |line| println!("{line}"));
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
