//! `faaster deploy`: a folder or zip becomes a function.
//!
//! Owns: the create request. Must not know: what the engine makes of it.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use super::client::{Ask, Client, Port, Target, UPLOAD_TIMEOUT, encode};
use super::error::CliError;
use super::output::{Format, print, print_json};
use super::package::{Guess, package};
use crate::exit::Outcome;

/// Work on fewer bytes is over before a bar could be read.
const PROGRESS_BYTES_MIN: u64 = 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct DeployArguments {
    /// Folder with the function's code, or a zip of it
    #[arg(value_name = "DIR|ZIP")]
    code: PathBuf,
    /// Name of the function [default: name of the folder or zip]
    #[arg(long)]
    name: Option<String>,
    /// Language [default: guessed from the files]
    #[arg(long)]
    runtime: Option<String>,
    /// What is called, FILE.FUNCTION [default: guessed from the files]
    #[arg(long)]
    handler: Option<String>,
    /// Memory of an instance, in MB
    #[arg(long, value_name = "MB")]
    memory: Option<u32>,
    /// Time that a call may take, in seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// Calls at once in one instance; 0: one at a time
    #[arg(long, value_name = "COUNT")]
    concurrency: Option<u32>,
    /// Instances at most
    #[arg(long, value_name = "COUNT")]
    max_instances: Option<u32>,
    /// Instances to keep ready, called or not
    #[arg(long, value_name = "COUNT")]
    min_instances: Option<u32>,
    /// What it may reach: none, egress (the world) or full (the host and its networks, too) [default: the engine's]
    #[arg(long, value_name = "MODE", value_parser = ["none", "egress", "full"])]
    network: Option<String>,
    /// Layer below /opt, as NAME:VERSION; may be repeated, and the later wins
    #[arg(long = "layer", value_name = "NAME:VERSION")]
    layers: Vec<String>,
    /// Environment variable of the function; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// A sentence on what it does
    #[arg(long)]
    description: Option<String>,
    /// Version to create, a number [default: $LATEST]
    #[arg(long = "function-version", value_name = "VERSION")]
    version: Option<String>,
    #[command(flatten)]
    target: Target,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

/// # Errors
/// What is wrong with the code or the request, or no engine answers.
pub(crate) fn run(arguments: DeployArguments, format: Format) -> Result<Outcome, CliError> {
    let name = name_of(&arguments)?;
    let mut packing = Progress::new("packing", None);
    let package = package(&arguments.code, &mut |bytes| packing.add(bytes))?;
    drop(packing);
    let body = serde_json::to_vec(&request(&arguments, &package.guess, &package.zip)?)
        .expect("a JSON value can always be written");
    let client = Client::new(arguments.target);
    let path = format!("/v1/functions/{}", encode(&name));
    let ask = Ask {
        headers: &[("Content-Type", "application/json")],
        patience: UPLOAD_TIMEOUT,
        ..Ask::new(Port::Registry, "POST", &path)
    };
    let mut uploading = Progress::new("uploading", Some(body.len() as u64));
    client.send_counted(&ask, &body, &mut |bytes| uploading.add(bytes))?.accepted()?;
    drop(uploading);
    let runtime = arguments.runtime.as_deref().or(package.guess.runtime).unwrap_or_default();
    match format {
        Format::Json => print_json(&json!({
            "name": name, "runtime": runtime, "zipBytes": package.zip.len(), "files": package.files,
        }))?,
        Format::People => print(&format!(
            "{name} is deployed ({runtime}, {} files, {} KiB); call it with: faaster invoke {name}\n",
            package.files,
            package.zip.len().div_ceil(1024)
        ))?,
    }
    Ok(Outcome::Success)
}

fn name_of(arguments: &DeployArguments) -> Result<String, CliError> {
    if let Some(name) = &arguments.name {
        return Ok(name.clone());
    }
    // `faaster deploy .` means the folder that one stands in.
    let code = arguments.code.canonicalize();
    let code = code.map_err(|source| CliError::Read { path: arguments.code.clone(), source })?;
    let name = if code.is_dir() { code.file_name() } else { code.file_stem() };
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    name.and_then(|name| name.to_str()).filter(|name| name.chars().all(good)).map(str::to_owned).ok_or_else(
        || CliError::Usage(format!("{} is no name for a function: give one with --name", code.display())),
    )
}

fn request(arguments: &DeployArguments, guess: &Guess, zip: &[u8]) -> Result<Value, CliError> {
    let Some(runtime) = arguments.runtime.clone().or_else(|| guess.runtime.map(str::to_owned)) else {
        return Err(CliError::Usage(
            "the files do not say which language they are: name it with --runtime".to_owned(),
        ));
    };
    let Some(handler) = arguments.handler.clone().or_else(|| guess.handler.clone()) else {
        return Err(CliError::Usage(
            "the files do not say what to call: name it with --handler FILE.FUNCTION".to_owned(),
        ));
    };
    let mut body = Map::new();
    body.insert("Runtime".to_owned(), json!(runtime));
    body.insert("Handler".to_owned(), json!(handler));
    body.insert("Code".to_owned(), json!(STANDARD.encode(zip)));
    let optional = [
        ("MemorySize", arguments.memory.map(Value::from)),
        ("Timeout", arguments.timeout.map(Value::from)),
        ("PodConcurrentQuota", arguments.concurrency.map(Value::from)),
        ("MaxInstances", arguments.max_instances.map(Value::from)),
        ("MinInstances", arguments.min_instances.map(Value::from)),
        ("NetworkMode", arguments.network.clone().map(Value::from)),
        ("Description", arguments.description.clone().map(Value::from)),
        ("Version", arguments.version.clone().map(Value::from)),
    ];
    body.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    if !arguments.layers.is_empty() {
        body.insert("Layers".to_owned(), json!(arguments.layers));
    }
    if !arguments.env.is_empty() {
        let variables: BTreeMap<_, _> = arguments.env.iter().cloned().collect();
        body.insert("Environment".to_owned(), json!({ "Variables": variables }));
    }
    Ok(Value::Object(body))
}

/// A bar on standard error that appears only for a person, and only if there is time to see it.
struct Progress {
    what: &'static str,
    total: Option<u64>,
    done: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(what: &'static str, total: Option<u64>) -> Self {
        Self { what, total, done: 0, bar: None }
    }

    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let worth_it = self.total.unwrap_or(self.done) >= PROGRESS_BYTES_MIN;
        if self.bar.is_none() && worth_it && std::io::stderr().is_terminal() {
            let bar =
                self.total.map_or_else(ProgressBar::no_length, ProgressBar::new).with_message(self.what);
            let style = ProgressStyle::with_template("{msg} {bytes} {wide_bar} {bytes_per_sec}");
            bar.set_style(style.expect("the template is good"));
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
            // From here on the engine works: it checks and unpacks what it was sent.
            if self.total == Some(self.done) {
                bar.set_message("unpacking");
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(code: &str) -> DeployArguments {
        let target = Target { controller: String::new(), registry: String::new(), account: None };
        DeployArguments {
            code: code.into(),
            name: None,
            runtime: None,
            handler: None,
            memory: None,
            timeout: None,
            concurrency: None,
            max_instances: None,
            min_instances: None,
            network: None,
            layers: vec![],
            env: vec![],
            description: None,
            version: None,
            target,
        }
    }

    #[test]
    fn the_request_holds_what_was_typed_and_nothing_else() {
        let guess = Guess { runtime: Some("python3"), handler: Some("index.handler".to_owned()) };
        let plain = request(&arguments("x"), &guess, b"zip").unwrap();
        assert_eq!(plain, json!({ "Runtime": "python3", "Handler": "index.handler", "Code": "emlw" }));
        let full = DeployArguments {
            runtime: Some("nodejs12".to_owned()),
            concurrency: Some(0),
            network: Some("full".to_owned()),
            env: vec![("A".to_owned(), "b=c".to_owned())],
            ..arguments("x")
        };
        let full = request(&full, &guess, b"").unwrap();
        assert_eq!(full["Runtime"], "nodejs12");
        assert_eq!((&full["PodConcurrentQuota"], &full["NetworkMode"]), (&json!(0), &json!("full")));
        assert_eq!(full["Environment"], json!({ "Variables": { "A": "b=c" } }));
    }

    #[test]
    fn what_cannot_be_guessed_is_asked_for() {
        let error = request(&arguments("x"), &Guess::default(), b"").unwrap_err();
        assert!(error.to_string().contains("--runtime"), "{error}");
        let guess = Guess { runtime: Some("python3"), handler: None };
        let error = request(&arguments("x"), &guess, b"").unwrap_err();
        assert!(error.to_string().contains("--handler"), "{error}");
    }

    #[test]
    fn the_name_comes_from_the_folder() {
        let folder = tempfile::Builder::new().prefix("fn-").tempdir().unwrap();
        let name = name_of(&arguments(folder.path().to_str().unwrap())).unwrap();
        assert_eq!(name, folder.path().file_name().unwrap().to_str().unwrap());
        let spaced = tempfile::Builder::new().prefix("a b").tempdir().unwrap();
        assert!(name_of(&arguments(spaced.path().to_str().unwrap())).is_err());
    }

    #[test]
    fn variables_need_a_name() {
        assert_eq!(variable("A="), Ok(("A".to_owned(), String::new())));
        assert!(variable("=x").is_err() && variable("A").is_err());
    }
}
