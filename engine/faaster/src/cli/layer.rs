//! `faaster layer`: packages that functions share.
//!
//! Owns: the three requests. Must not know: what the engine makes of a layer.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Ask, Client, Port, Target, UPLOAD_TIMEOUT, encode};
use super::error::CliError;
use super::output::{Column, Format, cell, print, print_json, table};
use super::package::package;
use crate::exit::Outcome;

#[derive(Debug, clap::Args)]
pub(crate) struct LayerArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Store a folder or a zip as the next version of a layer; functions that use it see it below /opt
    Publish {
        /// Name of the layer
        name: String,
        /// Folder with what goes below /opt (python, nodejs/node_modules, bin, lib ...), or a zip of it
        #[arg(value_name = "DIR|ZIP")]
        content: PathBuf,
        /// A sentence on what it holds
        #[arg(long)]
        description: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// List layers, each with its newest version
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Remove a version; functions that use it keep it
    Rm {
        /// Name and version, as NAME:VERSION
        #[arg(value_name = "NAME:VERSION")]
        layer: String,
        #[command(flatten)]
        target: Target,
    },
}

/// # Errors
/// What is wrong with the content or the request, or no engine answers.
pub(crate) fn run(arguments: LayerArguments, format: Format) -> Result<Outcome, CliError> {
    match arguments.action {
        Action::Publish { name, content, description, target } => {
            publish(&name, &content, description, target, format)
        }
        Action::List { target } => list(target, format),
        Action::Rm { layer, target } => remove(&layer, target),
    }
}

fn publish(
    name: &str,
    content: &std::path::Path,
    description: Option<String>,
    target: Target,
    format: Format,
) -> Result<Outcome, CliError> {
    let package = package(content, &mut |_| {})?;
    let body = json!({
        "Description": description.unwrap_or_default(),
        "Content": { "ZipFile": STANDARD.encode(&package.zip) },
    });
    let body = serde_json::to_vec(&body).expect("a JSON value can always be written");
    let path = format!("/v1/layers/{}/versions", encode(name));
    let ask = Ask {
        headers: &[("Content-Type", "application/json")],
        patience: UPLOAD_TIMEOUT,
        ..Ask::new(Port::Registry, "POST", &path)
    };
    let published = Client::new(target).send_counted(&ask, &body, &mut |_| {})?.accepted()?.json()?;
    match format {
        Format::Json => print_json(&published)?,
        Format::People => print(&format!(
            "{name}:{} is published ({} files); use it with: faaster deploy DIR --layer {name}:{}\n",
            published["Version"], package.files, published["Version"]
        ))?,
    }
    Ok(Outcome::Success)
}

fn list(target: Target, format: Format) -> Result<Outcome, CliError> {
    let answer = Client::new(target).get(Port::Registry, "/v1/layers")?.accepted()?.json()?;
    let layers = answer["Layers"].as_array().cloned().unwrap_or_default();
    match format {
        Format::Json => print_json(&Value::Array(layers))?,
        Format::People => {
            let columns = [
                Column::Text("NAME"),
                Column::Number("VERSION"),
                Column::Text("CREATED"),
                Column::Text("DESCRIPTION"),
            ];
            let row = |layer: &Value| {
                let newest = &layer["LatestMatchingVersion"];
                vec![
                    cell(layer, "LayerName"),
                    cell(newest, "Version"),
                    cell(newest, "CreatedDate"),
                    cell(newest, "Description"),
                ]
            };
            print(&table(&columns, layers.iter().map(row).collect()))?;
        }
    }
    Ok(Outcome::Success)
}

fn remove(layer: &str, target: Target) -> Result<Outcome, CliError> {
    let Some((name, version)) = layer.split_once(':') else {
        return Err(CliError::Usage(format!("`{layer}` names no version: write NAME:VERSION")));
    };
    let path = format!("/v1/layers/{}/versions/{}", encode(name), encode(version));
    Client::new(target).send(&Ask::new(Port::Registry, "DELETE", &path), b"")?.accepted()?;
    Ok(Outcome::Success)
}
