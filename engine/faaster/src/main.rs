//! The program `faaster`: the engine's processes and the command line, by subcommand.
//!
//! Owns: dispatch and exit codes. Must not know: what a subcommand does.
#![forbid(unsafe_code)]

mod cli;
mod clock;
mod config;
mod containers;
mod engine;
mod exit;
mod init_program;
mod log;
mod runtimes;
mod signals;
mod supervisor;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run().into()
}
