//! `faaster rootfs`: root file systems for containers, made from images.
//!
//! Owns: what is printed. Must not know: formats of images; [`faaster_image`] does.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use faaster_image::{Bounds, ImageError, Imported, RootfsInfo, RootfsName, Store};
use serde_json::{Value, json};

use super::error::CliError;
use super::output::{Column, Format, print, print_json, table};
use super::settings::{self, SettingsOnly};
use crate::config::value::show_size;
use crate::exit::Outcome;
use crate::supervisor::requirements;

/// Digits of a digest that people are shown.
const DIGEST_SHOWN: usize = 19;

#[derive(Debug, clap::Args)]
pub(crate) struct RootfsArguments {
    #[command(subcommand)]
    command: RootfsCommand,
}

#[derive(Debug, Subcommand)]
enum RootfsCommand {
    /// Make a root file system from an image: an OCI layout, an archive of `docker save` or `docker export`, or a folder
    Import {
        /// What the setting rootfs will call it
        name: String,
        /// The archive or folder
        image: PathBuf,
        #[command(flatten)]
        settings: SettingsOnly,
    },
    /// List imported root file systems
    List {
        #[command(flatten)]
        settings: SettingsOnly,
    },
    /// Remove one that no engine uses
    Rm {
        name: String,
        #[command(flatten)]
        settings: SettingsOnly,
    },
}

/// # Errors
/// The image, the name or the data directory is no good; or nobody reads the output.
pub(crate) fn run(arguments: RootfsArguments, format: Format) -> Result<Outcome, CliError> {
    match arguments.command {
        RootfsCommand::Import { name, image, settings } => import(&name, &image, &settings, format),
        RootfsCommand::List { settings } => list(&settings, format),
        RootfsCommand::Rm { name, settings } => {
            let parsed = parse(&name)?;
            let missing = || not_found(ImageError::Missing(name.clone()));
            existing(&settings)?.ok_or_else(missing)?.remove(&parsed).map_err(not_found)?;
            match format {
                Format::Json => print_json(&json!({ "removed": name }))?,
                Format::People => print(&format!("removed {name}\n"))?,
            }
            Ok(Outcome::Success)
        }
    }
}

fn local(error: impl ToString) -> CliError {
    CliError::Local(error.to_string())
}

fn not_found(error: ImageError) -> CliError {
    match error {
        ImageError::Missing(_) => CliError::NotFound(error.to_string()),
        error => local(error),
    }
}

fn parse(name: &str) -> Result<RootfsName, CliError> {
    RootfsName::parse(name).map_err(|error| CliError::Usage(error.to_string()))
}

/// The data directory. What is below it is root's alone, for containers trust it.
fn data(settings: &SettingsOnly) -> Result<PathBuf, CliError> {
    requirements::root().map_err(local)?;
    Ok(settings::load(&settings.settings)?.0.data)
}

fn existing(settings: &SettingsOnly) -> Result<Option<Store>, CliError> {
    Store::existing(&data(settings)?).map_err(local)
}

fn import(name: &str, image: &Path, settings: &SettingsOnly, format: Format) -> Result<Outcome, CliError> {
    let name = parse(name)?;
    let store = Store::open(&data(settings)?).map_err(local)?;
    let made = store.import(&name, image, Bounds::default()).map_err(local)?;
    match format {
        Format::Json => print_json(&about(&name, Some(&made)))?,
        Format::People => {
            let skipped = match made.skipped {
                0 => String::new(),
                count => format!("; {count} devices and pipes were left out"),
            };
            print(&format!(
                "imported {}: {} layers, {} files, {}{skipped}\nUse it with --rootfs {0}, or --rootfs RUNTIME={0} for one runtime.\n",
                name.as_str(),
                made.layers,
                made.entries,
                show_size(made.bytes)
            ))?;
        }
    }
    Ok(Outcome::Success)
}

fn about(name: &RootfsName, made: Option<&Imported>) -> Value {
    json!({ "name": name.as_str(), "about": made })
}

fn list(settings: &SettingsOnly, format: Format) -> Result<Outcome, CliError> {
    let found = match existing(settings)? {
        Some(store) => store.list().map_err(local)?,
        None => Vec::new(),
    };
    match format {
        Format::Json => {
            print_json(&Value::Array(
                found.iter().map(|one| about(&one.name, one.about.as_ref())).collect(),
            ))?;
        }
        Format::People => {
            let columns = [
                Column::Text("NAME"),
                Column::Number("SIZE"),
                Column::Number("FILES"),
                Column::Number("LAYERS"),
                Column::Text("DIGEST"),
                Column::Text("MADE OF"),
            ];
            print(&table(&columns, found.iter().map(row).collect()))?;
        }
    }
    Ok(Outcome::Success)
}

fn row(one: &RootfsInfo) -> Vec<String> {
    let name = one.name.as_str().to_owned();
    match &one.about {
        None => vec![name],
        Some(made) => vec![
            name,
            show_size(made.bytes),
            made.entries.to_string(),
            made.layers.to_string(),
            made.digest.chars().take(DIGEST_SHOWN).collect(),
            made.source.clone(),
        ],
    }
}
