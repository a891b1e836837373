//! The `loadgen` command: reads flags, does what they say, prints the result.
//!
//! Owns: standard output and the exit code. Must not know: how anything is measured.
//! Exit codes: 0 done and valid, 1 could not be done, 2 flags not understood, 3 done and INVALID.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use faaster_loadgen::null_server::{self, Conduct};
use faaster_loadgen::options::{Cli, Command, NullServerArgs, RunArgs};
use faaster_loadgen::result::{Judgement, RunResult};
use faaster_loadgen::run::run;
use faaster_loadgen::selftest::{own_program, selftest};
use faaster_loadgen::text::{ClosedTimes, progress, summary};

const INVALID: u8 = 3;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run_once(&args),
        Command::NullServer(args) => serve(args),
        Command::Selftest => check_itself(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("loadgen: {error:#}");
        ExitCode::FAILURE
    })
}

fn run_once(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let plan = args.plan()?;
    let calibration_rate =
        args.calibration.as_deref().map(|path| read_result(path).map(|it| it.rate)).transpose()?;
    let live = std::io::stderr().is_terminal();
    let outcome = run(&plan, args.pid, &mut |second| {
        if live {
            // Progress is a courtesy: a terminal that is gone does not end the run.
            drop(write!(std::io::stderr(), "\r\x1b[K{}", progress(second)));
        }
    })?;
    if live {
        drop(write!(std::io::stderr(), "\r\x1b[K"));
    }
    let allowed = args.allow.clone();
    let judgement = Judgement { allowed, failed_share_max: args.errors_max, calibration_rate };
    let result = RunResult::of(&plan, &outcome, &judgement);
    let json = serde_json::to_string(&result).expect("a result holds only numbers and texts");
    if let Some(path) = &args.out {
        std::fs::write(path, format!("{json}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let closed = if args.closed_times { ClosedTimes::Show } else { ClosedTimes::Hide };
    let text = if args.json { format!("{json}\n") } else { summary(&result, closed) };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write the result")?;
    Ok(if result.valid { ExitCode::SUCCESS } else { ExitCode::from(INVALID) })
}

fn check_itself() -> anyhow::Result<ExitCode> {
    let held = selftest(&own_program()?, &mut |line| println!("{line}"));
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read_result(path: &Path) -> anyhow::Result<RunResult> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is no result of `loadgen run --json`", path.display()))
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
    };
    null_server::serve(listener, conduct)?;
    Ok(ExitCode::SUCCESS)
}
