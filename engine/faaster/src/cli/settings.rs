//! `faaster config`: the settings in force and where each comes from.
//!
//! Owns: loading the configuration for all commands that need one. Must not know: what settings mean.

use serde_json::{Map, Value, json};

use super::error::CliError;
use super::output::{Column, Format, print, print_json, table};
use crate::config::{Config, Effective, Machine, Origin, Raw, SettingFlags, validate};
use crate::exit::Outcome;

/// Arguments of commands that read the configuration and need nothing else.
#[derive(Debug, clap::Args)]
pub(crate) struct SettingsOnly {
    #[command(flatten)]
    pub settings: SettingFlags,
}

/// The configuration from flags, environment and file.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn load(flags: &SettingFlags) -> Result<(Config, Vec<Effective>), CliError> {
    let raw = Raw::collect(flags, std::env::vars_os());
    Ok(validate(&raw, &Machine::read())?)
}

/// # Errors
/// The configuration is no good, or nobody reads the output.
pub(crate) fn run(arguments: SettingsOnly, format: Format) -> Result<Outcome, CliError> {
    let (_, effective) = load(&arguments.settings)?;
    match format {
        Format::Json => {
            let members = effective.into_iter().map(|row| {
                let value = json!({ "value": row.value, "origin": row.origin.to_string() });
                (row.name.to_owned(), value)
            });
            print_json(&Value::Object(Map::from_iter(members)))?;
        }
        Format::People => {
            let rows = effective.into_iter().map(|row| {
                let origin =
                    if row.origin == Origin::Default { String::new() } else { row.origin.to_string() };
                vec![row.name.to_owned(), row.value, origin]
            });
            let columns = [Column::Text("SETTING"), Column::Text("VALUE"), Column::Text("FROM")];
            print(&table(&columns, rows.collect()))?;
        }
    }
    Ok(Outcome::Success)
}
