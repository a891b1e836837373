//! The configuration as typed: flags, environment and file, before anything is known about values.
//!
//! Owns: precedence (flag over environment over file over default) and the refusal of unknown names.
//! Must not know: which values are good; it reads no value, it only says where each came from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::builder::ArgAction;
use clap::{Arg, ArgMatches, Command, FromArgMatches};

use super::settings::{CLIENT_VARIABLES, ENVIRONMENT_PREFIX, SETTINGS, Setting, Shape, find};

/// Read when no other file is named, and only if it is there.
pub(crate) const DEFAULT_FILE: &str = "/etc/faaster/faaster.toml";

/// Bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where a value came from, in the words of the person who typed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag(String),
    Environment(String),
    File(PathBuf, String),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Environment(name) => write!(f, "{name} (environment)"),
            Self::File(path, key) if key.is_empty() => write!(f, "{}", path.display()),
            Self::File(path, key) => write!(f, "{key} in {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub origin: Origin,
    pub text: String,
}

/// A setting's value, not yet understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub values: Vec<String>,
    pub origin: Origin,
}

/// Flags of all settings, as clap found them.
#[derive(Debug, Clone, Default)]
pub(crate) struct SettingFlags {
    given: BTreeMap<&'static str, Vec<String>>,
    /// `--config FILE`.
    file: Option<PathBuf>,
}

/// All that was typed.
#[derive(Debug)]
pub(crate) struct Raw {
    pub given: BTreeMap<&'static str, Given>,
    pub problems: Vec<Problem>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

impl Raw {
    /// Collects everything; what is wrong is in `problems`.
    pub(crate) fn collect(
        flags: &SettingFlags,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut raw = Self { given: BTreeMap::new(), problems: Vec::new(), file: None };
        let mut file = flags.file.clone();
        let mut variables = BTreeMap::new();
        for (name, value) in environment {
            let Some(name) = name.to_str().filter(|name| name.starts_with(ENVIRONMENT_PREFIX)) else {
                continue;
            };
            if name == "FAASTER_CONFIG" {
                file = file.or_else(|| Some(PathBuf::from(&value)));
            }
            if !CLIENT_VARIABLES.contains(&name) {
                variables.insert(name.to_owned(), value);
            }
        }
        // Lowest precedence first: what comes later replaces it.
        raw.defaults();
        raw.read_file(file);
        raw.read_environment(variables);
        for (name, values) in &flags.given {
            let setting = find(name).expect("flags are made from the table");
            let origin = Origin::Flag(setting.flag());
            raw.given.insert(setting.name, Given { values: split(setting, values), origin });
        }
        raw
    }

    fn defaults(&mut self) {
        for setting in SETTINGS {
            let values = split(setting, &[setting.default.to_owned()]);
            self.given.insert(setting.name, Given { values, origin: Origin::Default });
        }
    }

    fn read_environment(&mut self, variables: BTreeMap<String, OsString>) {
        for (name, value) in variables {
            let origin = Origin::Environment(name.clone());
            let Some(setting) = SETTINGS.iter().find(|setting| setting.variable() == name) else {
                let text = "there is no such setting; `faaster config` lists them".to_owned();
                self.problems.push(Problem { origin, text });
                continue;
            };
            match value.into_string() {
                Ok(value) => {
                    self.given.insert(setting.name, Given { values: split(setting, &[value]), origin });
                }
                Err(_) => self.problems.push(Problem { origin, text: "the value is not UTF-8".to_owned() }),
            }
        }
    }

    fn read_file(&mut self, named: Option<PathBuf>) {
        let path = match &named {
            Some(path) => path.clone(),
            None if Path::new(DEFAULT_FILE).exists() => PathBuf::from(DEFAULT_FILE),
            None => return,
        };
        self.file = Some(path.clone());
        let table = match read_table(&path) {
            Ok(table) => table,
            Err(text) => {
                self.problems.push(Problem { origin: Origin::File(path, String::new()), text });
                return;
            }
        };
        for (key, value) in table {
            let origin = Origin::File(path.clone(), key.clone());
            let Some(setting) = find(&key) else {
                let text = "there is no such setting; `faaster config` lists them".to_owned();
                self.problems.push(Problem { origin, text });
                continue;
            };
            match flatten(setting, value) {
                Ok(values) => {
                    self.given.insert(setting.name, Given { values, origin });
                }
                Err(text) => self.problems.push(Problem { origin, text }),
            }
        }
    }
}

fn read_table(path: &Path) -> Result<toml::Table, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("has {size} bytes; at most {FILE_BYTES_MAX} are read"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    text.parse::<toml::Table>().map_err(|error| {
        let line =
            error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        format!("line {line}: {}", error.message())
    })
}

/// Values of a file's key as they would stand on the command line.
fn flatten(setting: &Setting, value: toml::Value) -> Result<Vec<String>, String> {
    match (setting.shape, value) {
        (Shape::Many, toml::Value::Array(items)) => items.into_iter().map(scalar).collect(),
        (Shape::Pairs, toml::Value::Table(table)) => {
            table.into_iter().map(|(key, value)| Ok(format!("{key}={}", scalar(value)?))).collect()
        }
        (Shape::Many | Shape::Pairs, toml::Value::String(text)) => Ok(split(setting, &[text])),
        (Shape::Many, _) => Err("must be a list of strings".to_owned()),
        (Shape::Pairs, _) => Err("must be a table, for instance { python3 = 4 }".to_owned()),
        (_, value) => Ok(vec![scalar(value)?]),
    }
}

fn scalar(value: toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(truth) => Ok(truth.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
            Err("must be one string or number".to_owned())
        }
    }
}

/// Lists are separated by commas outside of files.
fn split(setting: &Setting, values: &[String]) -> Vec<String> {
    match setting.shape {
        Shape::One | Shape::Switch => values.to_vec(),
        Shape::Many | Shape::Pairs => values
            .iter()
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .collect(),
    }
}

impl SettingFlags {
    /// As they would be typed, for another process.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let config = self.file.iter().map(|file| {
            let mut argument = OsString::from("--config=");
            argument.push(file);
            argument
        });
        let given = self.given.iter().flat_map(|(name, values)| {
            let flag = find(name).expect("flags are made from the table").flag();
            values.iter().map(move |value| OsString::from(format!("--{flag}={value}")))
        });
        config.chain(given).collect()
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in SETTINGS {
            if let Some(values) = matches.get_many::<String>(setting.name) {
                self.given.insert(setting.name, values.cloned().collect());
            }
        }
        self.file = matches.get_one::<PathBuf>("config").cloned();
        Ok(())
    }
}

impl clap::Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!(
                "TOML file with settings [env: FAASTER_CONFIG] [default: {DEFAULT_FILE}, if there]"
            ));
        SETTINGS.iter().fold(command.next_help_heading("Settings").arg(config), |command, setting| {
            command.arg(argument(setting))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument(setting: &Setting) -> Arg {
    let default = if setting.default.is_empty() { "none" } else { setting.default };
    let arg = Arg::new(setting.name).long(setting.flag()).value_name(setting.placeholder).help(format!(
        "{} [env: {}] [default: {default}]",
        setting.help,
        setting.variable()
    ));
    match setting.shape {
        // The last one counts, so that what a script passes can be overridden by adding to it.
        Shape::One => arg.action(ArgAction::Set).overrides_with(setting.name),
        Shape::Switch => arg
            .action(ArgAction::Set)
            .overrides_with(setting.name)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        Shape::Many | Shape::Pairs => arg.action(ArgAction::Append),
    }
}
