//! `faaster demo`: an engine of its own, an example function for each language, and what their calls take.
//!
//! Owns: the order of the show. Leaves nothing: the engine keeps its data in a directory that goes with it.
//! Must not know: how an engine works; it is started and called like any other.

mod example;
mod measure;
mod server;

use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Client, Target};
use super::error::CliError;
use super::output::{Column, Format, print, print_json, show_us, table};
use super::settings;
use crate::config::{Config, SettingFlags};
use crate::exit::Outcome;
use crate::signals::Signals;
use crate::supervisor::requirements;
use example::Example;
use measure::Measured;
use server::Server;

/// Calls of which the warm figures are made.
const WARM_CALLS: usize = 200;
/// The pools must be full after this; if not, the first call is measured as it comes.
const POOL_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArguments {
    /// Stop after the measurement
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    settings: SettingFlags,
}

/// # Errors
/// The engine does not start, or a call fails.
pub(crate) fn run(arguments: DemoArguments, format: Format) -> Result<Outcome, CliError> {
    let (config, effective) = settings::load(&arguments.settings)?;
    // Before anything is made, and in the words of `serve`.
    if let Err(lack) = requirements::check(&config.data) {
        super::output::remark(&format!("faaster: {lack}"));
        return Ok(Outcome::Refused);
    }
    let mut signals =
        Signals::catch().map_err(|error| CliError::Local(format!("cannot catch signals: {error}")))?;
    let mut server = match Server::start(&config, &effective, &arguments.settings, &mut signals)? {
        server::Started::Serving(server) => server,
        server::Started::Ended(outcome) => return Ok(outcome),
    };
    let shown = show(&config, &server, &mut signals, format);
    let outcome = match shown {
        Ok(Shown::Everything) if !arguments.once => {
            farewell(&server, format)?;
            server.wait(&mut signals)
        }
        Ok(Shown::Everything) => server.stop(&mut signals),
        Ok(Shown::Interrupted) => {
            server.stop(&mut signals);
            Outcome::Success
        }
        Err(error) => {
            server.stop(&mut signals);
            return Err(error);
        }
    };
    Ok(outcome)
}

/// How far the show came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Everything,
    /// Somebody asked for a stop.
    Interrupted,
}

fn show(config: &Config, server: &Server, signals: &mut Signals, format: Format) -> Result<Shown, CliError> {
    let target =
        Target { controller: server.controller.clone(), registry: server.registry.clone(), account: None };
    let client = Client::new(target);
    let examples = example::find(config, &server.runtimes)?;
    server.wait_for_pools(&client, POOL_PATIENCE, signals)?;
    let mut rows = Vec::new();
    for example in examples {
        if !signals.take().is_empty() {
            return Ok(Shown::Interrupted);
        }
        match example {
            Example::Usable { runtime, name, code } => {
                example::deploy(&client, &runtime, &name, &code)?;
                rows.push((runtime, measure::measure(&server.controller, &name, WARM_CALLS)?));
            }
            Example::Unusable { runtime, reason } => {
                super::output::remark(&format!("{runtime}: no example: {reason}"))
            }
        }
    }
    match format {
        Format::Json => {
            print_json(&Value::from_iter(rows.iter().map(|(runtime, row)| describe(runtime, row))))?
        }
        Format::People => print(&lines(&rows))?,
    }
    Ok(Shown::Everything)
}

fn describe(runtime: &str, row: &Measured) -> Value {
    json!({
        "runtime": runtime,
        "function": row.function,
        "answer": row.answer,
        "coldUs": row.cold_us,
        "warmMedianUs": row.warm_median_us,
        "warmP99Us": row.warm_p99_us,
        "warmCalls": row.warm_calls,
    })
}

fn lines(rows: &[(String, Measured)]) -> String {
    let cells = rows.iter().map(|(runtime, row)| {
        vec![
            row.function.clone(),
            runtime.clone(),
            row.answer.clone(),
            show_us(row.cold_us),
            show_us(row.warm_median_us),
            show_us(row.warm_p99_us),
        ]
    });
    let columns = [
        Column::Text("FUNCTION"),
        Column::Text("RUNTIME"),
        Column::Text("ANSWER"),
        Column::Number("COLD"),
        Column::Number("WARM p50"),
        Column::Number("WARM p99"),
    ];
    format!(
        "\n{}\ncold: the first call ever; warm: {WARM_CALLS} more over the same connection\n",
        table(&columns, cells.collect())
    )
}

fn farewell(server: &Server, format: Format) -> Result<(), CliError> {
    if format == Format::Json {
        return Ok(());
    }
    let Some(runtime) = server.runtimes.first() else { return Ok(()) };
    let (controller, registry) = (&server.controller, &server.registry);
    print(&format!(
        "\nThe engine goes on serving until Ctrl-C. Try:\n  \
         curl -d '{{}}' '{controller}/v1/functions/hello-{runtime}/invocations?Qualifier=%24LATEST'\n  \
         curl {registry}/v1/functions/hello-{runtime}\n  \
         faaster functions --controller {controller} --registry {registry}\n"
    ))
}
