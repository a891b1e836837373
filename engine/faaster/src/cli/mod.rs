//! The command line: what was typed, which command runs, how its end becomes an exit code.
//!
//! Owns: the grammar. Must not know: what a command does.

mod client;
mod demo;
mod deploy;
mod doctor;
mod error;
mod invoke;
mod layer;
mod logs;
mod output;
mod package;
mod rootfs;
mod settings;
mod show;

use std::ffi::OsStr;
use std::io::{ErrorKind, Write};

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::SettingFlags;
use crate::exit::{self, Outcome};
use crate::supervisor::data::Keep;
use crate::supervisor::serve::{Announcement, serve};
use crate::supervisor::start::{ENGINE_COMMAND, FUNCLET_COMMAND};
use client::Target;
use error::CliError;
use output::Format;

/// Runs functions on one machine, each in a container of its own.
#[derive(Debug, Parser)]
#[command(name = "faaster", version, after_help = exit::HELP, max_term_width = 110)]
struct Cli {
    /// Print JSON instead of tables and sentences
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the engine until it is told to stop
    Serve(ServeArguments),
    /// Run an engine with an example function for each language, and measure it
    Demo(demo::DemoArguments),
    /// Create or replace a function from a folder or a zip
    Deploy(deploy::DeployArguments),
    /// Call a function and print its answer
    Invoke(invoke::InvokeArguments),
    /// List functions
    Functions(TargetOnly),
    /// List running instances of functions
    Instances(TargetOnly),
    /// Show memory and containers of the node
    Resource(TargetOnly),
    /// Show what a function printed
    Logs(logs::LogsArguments),
    /// Publish, list and remove layers: packages that functions share
    Layer(layer::LayerArguments),
    /// Remove a function
    Rm(show::RemoveArguments),
    /// Import, list and remove root file systems for containers
    Rootfs(rootfs::RootfsArguments),
    /// List the languages that a running engine offers
    Runtimes(TargetOnly),
    /// Examine this machine and say what is missing
    Doctor(settings::SettingsOnly),
    /// Show all settings of the engine and where each comes from
    Config(settings::SettingsOnly),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, clap::Args)]
struct TargetOnly {
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
struct ServeArguments {
    /// Keep nothing: the data directory must be empty or missing, and is removed at the end
    #[arg(long)]
    ephemeral: bool,
    /// Stop when this process ends, which must be the parent
    #[arg(long, hide = true, value_name = "PID")]
    die_with_parent: Option<u32>,
    #[command(flatten)]
    settings: SettingFlags,
}

/// Runs the command that was typed.
pub(crate) fn run() -> Outcome {
    // What the supervisor starts is no command for people: it stands in no help and no completion.
    match std::env::args_os().nth(1).as_deref().and_then(OsStr::to_str) {
        Some(ENGINE_COMMAND) => return crate::engine::main(),
        Some(FUNCLET_COMMAND) => return crate::containers::main(),
        _ => {}
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way as well, and are no error.
            drop(error.print());
            return if error.use_stderr() { Outcome::Refused } else { Outcome::Success };
        }
    };
    let format = if cli.json { Format::Json } else { Format::People };
    let result = match cli.command {
        Command::Serve(arguments) => run_serve(arguments, format),
        Command::Demo(arguments) => demo::run(arguments, format),
        Command::Deploy(arguments) => deploy::run(arguments, format),
        Command::Invoke(arguments) => invoke::run(arguments, format),
        Command::Functions(arguments) => show::functions(arguments.target, format),
        Command::Instances(arguments) => show::instances(arguments.target, format),
        Command::Resource(arguments) => show::resource(arguments.target, format),
        Command::Logs(arguments) => logs::run(arguments, format),
        Command::Layer(arguments) => layer::run(arguments, format),
        Command::Rm(arguments) => show::remove(arguments, format),
        Command::Rootfs(arguments) => rootfs::run(arguments, format),
        Command::Runtimes(arguments) => show::runtimes(arguments.target, format),
        Command::Doctor(arguments) => doctor::run(arguments, format),
        Command::Config(arguments) => settings::run(arguments, format),
        Command::Completions { shell } => completions(shell),
    };
    result.unwrap_or_else(|error| fail(&error, format))
}

fn fail(error: &CliError, format: Format) -> Outcome {
    match error {
        // `faaster functions | head -1` wants no more than it got.
        CliError::Write(source) if source.kind() == ErrorKind::BrokenPipe => return Outcome::Success,
        error if format == Format::Json => {
            output::remark(&serde_json::json!({ "error": error.to_string() }).to_string())
        }
        error => output::remark(&format!("faaster: {error}")),
    }
    error.outcome()
}

fn run_serve(arguments: ServeArguments, format: Format) -> Result<Outcome, CliError> {
    let (config, _) = settings::load(&arguments.settings)?;
    if let Some(parent) = arguments.die_with_parent {
        die_with(parent)
            .map_err(|error| CliError::Local(format!("cannot follow the parent process: {error}")))?;
    }
    let keep = if arguments.ephemeral { Keep::Nothing } else { Keep::Data };
    let announcement = if format == Format::Json { Announcement::Json } else { Announcement::Sentence };
    Ok(serve(config, keep, announcement))
}

/// A SIGTERM when the parent ends: an engine that nobody will stop stops by itself.
fn die_with(parent: u32) -> Result<(), rustix::io::Errno> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH) }
}

fn completions(shell: clap_complete::Shell) -> Result<Outcome, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "faaster", &mut script);
    std::io::stdout().lock().write_all(&script).map_err(CliError::Write)?;
    Ok(Outcome::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_are_understood() {
        for line in [
            "faaster serve --listen 127.0.0.1:1 --simple-auth=false --ephemeral",
            "faaster demo --once",
            "faaster deploy . --name x --memory 256 --env A=b --env C=d --json",
            "faaster invoke x -d {} --tail",
            "faaster logs x -f",
            "faaster rm x",
            "faaster layer publish base . --description d",
            "faaster layer rm base:1 --json",
            "faaster deploy . --layer base:1 --layer more:2",
            "faaster functions --registry http://127.0.0.1:1",
            "faaster completions bash",
            "faaster rootfs import slim image.tar --data /d --json",
            "faaster rootfs list",
            "faaster rootfs rm slim",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in
            ["faaster", "faaster serve --lisen x", "faaster invoke", "faaster deploy x --env A --memory many"]
        {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
