//! `faaster logs`: what a function printed, and with -f what it prints from now on.
//!
//! Owns: the cursor. Must not know: how long the engine keeps lines.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::client::{Ask, Client, Port, Target, encode};
use super::error::CliError;
use super::output::{Format, cell, print, remark};
use crate::clock::wait_readable;
use crate::exit::Outcome;

/// The engine holds a question with nothing to tell for at most this; then it is asked again.
const POLL_PATIENCE: Duration = Duration::from_secs(faaster_limits::LOG_POLL_MAX.as_secs() + 10);
/// After an empty answer that came at once: the engine has no room for another waiting question.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(crate) struct LogsArguments {
    /// Name of the function
    #[arg(value_name = "NAME")]
    function: String,
    /// Go on with what it prints from now on
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    target: Target,
}

/// # Errors
/// No engine answers, or there is no such function.
pub(crate) fn run(arguments: LogsArguments, format: Format) -> Result<Outcome, CliError> {
    let client = Client::new(arguments.target);
    let path = format!("/v1/functions/{}/logs", encode(&arguments.function));
    let mut page = client.get(Port::Controller, &path)?.accepted()?.json()?;
    if is_empty(&page) {
        // A function that has printed nothing is told apart from one that is not there, by what the registry says.
        let versions = format!("/v1/functions/{}/versions", encode(&arguments.function));
        client.get(Port::Registry, &versions)?.accepted()?;
    }
    print_page(&page, format)?;
    if !arguments.follow {
        return Ok(Outcome::Success);
    }
    // Until the user ends it: nothing here has to be cleaned up.
    loop {
        let cursor = encode(&cell(&page, "Cursor"));
        let target = format!("{path}?since={cursor}&wait={}", faaster_limits::LOG_POLL_MAX.as_secs());
        let ask = Ask { patience: POLL_PATIENCE, ..Ask::new(Port::Controller, "GET", &target) };
        page = client.send(&ask, &[])?.accepted()?.json()?;
        print_page(&page, format)?;
        if is_empty(&page) {
            let waited = wait_readable(&[], PAUSE);
            waited.map_err(|errno| CliError::Local(format!("cannot wait: {errno}")))?;
        }
    }
}

fn is_empty(page: &Value) -> bool {
    page["Entries"].as_array().is_none_or(Vec::is_empty)
}

fn print_page(page: &Value, format: Format) -> Result<(), CliError> {
    if page["Gap"].as_bool() == Some(true) {
        remark("faaster: older lines are gone; only the newest are kept");
    }
    print(&render(page["Entries"].as_array().map_or(&[][..], Vec::as_slice), format))
}

/// Lines as they were printed, each with its time and request, or one JSON object per entry.
fn render(entries: &[Value], format: Format) -> String {
    entries.iter().fold(String::new(), |mut out, entry| {
        match format {
            Format::Json => writeln!(out, "{entry}").expect("writing to a string cannot fail"),
            Format::People => {
                let (time, request) = (cell(entry, "Time"), cell(entry, "RequestId"));
                for line in cell(entry, "Text").lines() {
                    writeln!(out, "{time} {request} {line}").expect("writing to a string cannot fail");
                }
            }
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_time_and_request() {
        let entries = [serde_json::json!({ "Time": "t", "RequestId": "r", "Text": "a\nb\n" })];
        assert_eq!(render(&entries, Format::People), "t r a\nt r b\n");
        assert_eq!(render(&entries, Format::Json).lines().count(), 1);
    }
}
