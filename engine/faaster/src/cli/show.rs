//! `faaster functions`, `instances`, `resource`, `runtimes` and `rm`: one request, one table.
//!
//! Owns: which members of an answer become columns. Must not know: how the engine knows them.

use serde_json::{Value, json};

use super::client::{Ask, Client, Port, Target, encode};
use super::error::CliError;
use super::output::{Column, Format, cell, print, print_json, table};
use crate::exit::Outcome;

/// Pages of a listing that are read: all functions that a node can hold.
const PAGES_MAX: usize = faaster_limits::FUNCTIONS_MAX / faaster_limits::LIST_PAGE_MAX + 1;

#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArguments {
    /// Name or BRN of the function
    #[arg(value_name = "NAME")]
    function: String,
    /// Remove this version alone
    #[arg(long, value_name = "VERSION")]
    qualifier: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// # Errors
/// No engine answers, or it refuses.
pub(crate) fn functions(target: Target, format: Format) -> Result<Outcome, CliError> {
    let client = Client::new(target);
    let mut rows = Vec::new();
    let mut marker = String::new();
    for _ in 0..PAGES_MAX {
        let path = format!("/v1/functions?MaxItems={}{marker}", faaster_limits::LIST_PAGE_MAX);
        let page = client.get(Port::Registry, &path)?.accepted()?.json()?;
        rows.extend(page["Functions"].as_array().cloned().unwrap_or_default());
        match page["NextMarker"].as_str() {
            Some(next) => marker = format!("&Marker={}", encode(next)),
            None => break,
        }
    }
    show(rows, format, &FUNCTION_COLUMNS)
}

/// A column: its title, and what it shows of a row.
type Shown = (Column, fn(&Value) -> String);

const FUNCTION_COLUMNS: [Shown; 8] = [
    (Column::Text("NAME"), |row| cell(row, "FunctionName")),
    (Column::Text("VERSION"), |row| cell(row, "Version")),
    (Column::Text("RUNTIME"), |row| cell(row, "Runtime")),
    (Column::Text("HANDLER"), |row| cell(row, "Handler")),
    (Column::Number("MEMORY MB"), |row| cell(row, "MemorySize")),
    (Column::Number("TIMEOUT s"), |row| cell(row, "Timeout")),
    (Column::Number("CONCURRENCY"), |row| row["PodConcurrentQuota"].as_u64().unwrap_or(0).to_string()),
    (Column::Text("MODIFIED"), |row| cell(row, "LastModified")),
];

/// # Errors
/// No engine answers, or it refuses.
pub(crate) fn instances(target: Target, format: Format) -> Result<Outcome, CliError> {
    let rows = Client::new(target).get(Port::Controller, "/v1/instances")?.accepted()?.json()?;
    show(rows["Instances"].as_array().cloned().unwrap_or_default(), format, &INSTANCE_COLUMNS)
}

const INSTANCE_COLUMNS: [Shown; 9] = [
    (Column::Text("FUNCTION"), |row| cell(row, "FunctionName")),
    (Column::Text("VERSION"), |row| cell(row, "Version")),
    (Column::Text("RUNTIME"), |row| cell(row, "Runtime")),
    (Column::Text("ID"), |row| cell(row, "ID")),
    (Column::Text("STATE"), |row| cell(row, "State")),
    (Column::Number("IN FLIGHT"), |row| cell(row, "InFlight")),
    (Column::Number("CALLS"), |row| cell(row, "Accepted")),
    (Column::Number("MEMORY MB"), |row| megabytes(&row["MemoryUsedBytes"])),
    (Column::Number("IDLE s"), |row| seconds(&row["IdleMS"])),
];

/// # Errors
/// No engine answers, or it refuses.
pub(crate) fn resource(target: Target, format: Format) -> Result<Outcome, CliError> {
    let client = Client::new(target);
    let resource = client.get(Port::Controller, "/v1/resource")?.accepted()?.json()?;
    if format == Format::Json {
        print_json(&resource)?;
        return Ok(Outcome::Success);
    }
    let kinds = [
        ("Capacity", "the node has"),
        ("Allocatable", "may be promised"),
        ("Used", "promised to running instances"),
        ("Marked", "promised to starting ones"),
        ("Default", "of one instance by default"),
    ];
    let rows = kinds.iter().map(|(name, meaning)| {
        let part = &resource[name];
        vec![(*name).to_owned(), cell(part, "MilliCPUs"), megabytes(&part["Memory"]), (*meaning).to_owned()]
    });
    let columns =
        [Column::Text(""), Column::Number("MILLICPUS"), Column::Number("MEMORY MB"), Column::Text("")];
    print(&table(&columns, rows.collect()))?;
    Ok(Outcome::Success)
}

/// # Errors
/// No engine answers, or it refuses.
pub(crate) fn runtimes(target: Target, format: Format) -> Result<Outcome, CliError> {
    let node = Client::new(target).get(Port::Controller, "/v1/node")?.accepted()?.json()?;
    show(node["Runtimes"].as_array().cloned().unwrap_or_default(), format, &RUNTIME_COLUMNS)
}

const RUNTIME_COLUMNS: [Shown; 5] = [
    (Column::Text("RUNTIME"), |row| cell(row, "Name")),
    (Column::Text("VERSION"), |row| cell(row, "Version")),
    (Column::Text("ANSWERS TO"), |row| {
        let names = row["Names"].as_array().cloned().unwrap_or_default();
        names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
    }),
    (Column::Text("KIND"), |row| cell(row, "Kind")),
    (Column::Number("POOL"), |row| cell(row, "Pool")),
];

/// # Errors
/// No engine answers, or there is no such function.
pub(crate) fn remove(arguments: RemoveArguments, format: Format) -> Result<Outcome, CliError> {
    let mut path = format!("/v1/functions/{}", encode(&arguments.function));
    if let Some(qualifier) = &arguments.qualifier {
        path += &format!("?Qualifier={}", encode(qualifier));
    }
    let client = Client::new(arguments.target);
    client.send(&Ask::new(Port::Registry, "DELETE", &path), &[])?.accepted()?;
    match format {
        Format::Json => print_json(&json!({ "removed": arguments.function }))?,
        Format::People => print(&format!("{} is removed\n", arguments.function))?,
    }
    Ok(Outcome::Success)
}

fn show(rows: Vec<Value>, format: Format, columns: &[Shown]) -> Result<Outcome, CliError> {
    match format {
        Format::Json => print_json(&Value::Array(rows))?,
        Format::People => {
            let titles: Vec<Column> = columns.iter().map(|(column, _)| *column).collect();
            let cells = rows.iter().map(|row| columns.iter().map(|(_, text)| text(row)).collect());
            print(&table(&titles, cells.collect()))?;
        }
    }
    Ok(Outcome::Success)
}

fn megabytes(bytes: &Value) -> String {
    bytes.as_u64().map_or_else(String::new, |bytes| (bytes >> 20).to_string())
}

fn seconds(ms: &Value) -> String {
    ms.as_u64().map_or_else(String::new, |ms| format!("{}.{}", ms / 1000, ms % 1000 / 100))
}
