//! Flags of `loadgen cold`, and what they make: a plan, and a create for the registry.
//!
//! Owns: names and defaults. Must not know: the order of deploying, calling and removing.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use crate::bounds::{COLD_CONNECTIONS_MAX, COLD_FUNCTIONS_MAX};
use crate::gates::GateName;
use crate::options::{OutputFlags, cores, duration, text_or_file};
use crate::plan::{Extent, Loop, Phases, Plan, Spin};
use crate::preset::{Api, FAASTER_ACCOUNT, PresetFlags, event};
use crate::request::{Expectation, KeepAlive, Placeholders, Request, RequestParts};
use crate::schedule::{Arrivals, Rate};
use crate::target::Target;

#[derive(Debug, Clone, Args)]
pub struct ColdArgs {
    /// The engine's controller, where functions are called: http://host[:port].
    #[arg(default_value = "http://127.0.0.1:8001")]
    pub url: String,
    /// The engine's registry, where they are deployed.
    #[arg(long, default_value = "http://127.0.0.1:8002")]
    pub registry: String,
    /// Account that deploys and calls.
    #[arg(long, default_value = FAASTER_ACCOUNT)]
    pub account: String,
    /// Functions to deploy, call once each, and remove.
    #[arg(short = 'n', long, default_value_t = 20)]
    pub functions: u64,
    /// Language of them.
    #[arg(long, default_value = "python3")]
    pub runtime: String,
    /// Their code, a zip or a folder. Default: the engine's own hello in that language.
    #[arg(long, value_name = "PATH")]
    pub code: Option<PathBuf>,
    /// Gives each function code of its own, by a file with its name, so that the engine can share nothing between them.
    #[arg(long, requires = "code")]
    pub own_code: bool,
    #[arg(long, default_value = "index.handler")]
    pub handler: String,
    /// Memory of each, in MB.
    #[arg(long, default_value_t = 128)]
    pub memory: u32,
    /// Calls under way at once: the next goes out when an answer came.
    #[arg(short, long, default_value_t = 1)]
    pub concurrency: usize,
    /// Time from one call to the next instead, whatever the engine does.
    #[arg(short, long, value_parser = duration, conflicts_with = "concurrency")]
    pub spacing: Option<Duration>,
    /// Event of each call, or @FILE.
    #[arg(short, long)]
    pub body: Option<String>,
    /// The exact body that answers must have, or @FILE.
    #[arg(long)]
    pub expect_body: Option<String>,
    /// A call without its whole answer after this has failed.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Share of calls that may fail in a valid run.
    #[arg(long, default_value_t = 0.001)]
    pub errors_max: f64,
    /// Gates that may be broken; the result says so.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "GATE,...")]
    pub allow: Vec<GateName>,
    /// Core of the generator. Default: the last one that this process may use.
    #[arg(long)]
    pub cores: Option<String>,
    /// Process of the engine: its CPU time and that of all below it is told per call.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Waits before the first call until that process and all below it have come to rest: what the engine prepares when
    /// functions are deployed, or after the last calls, is done then.
    #[arg(long, requires = "pid")]
    pub settle: bool,
    #[command(flatten)]
    pub output: OutputFlags,
}

impl ColdArgs {
    /// The calls, each to a function of its own: `prefix` and a number from 0.
    ///
    /// # Errors
    /// What is wrong with the flags.
    pub(super) fn plan(&self, prefix: &str) -> anyhow::Result<Plan> {
        let (functions, most) = (self.functions, COLD_FUNCTIONS_MAX);
        ensure!((1..=most).contains(&functions), "--functions must be from 1 to {most}");
        let at_once = usize::try_from(functions)?.min(COLD_CONNECTIONS_MAX);
        ensure!((1..=at_once).contains(&self.concurrency), "--concurrency must be from 1 to {at_once}");
        ensure!(self.spacing.is_none_or(|it| !it.is_zero()), "--spacing must be above 0");
        ensure!((0.0..=1.0).contains(&self.errors_max), "--errors-max is a share from 0 to 1");
        let mut target = Target::parse(&self.url)?;
        let preset = PresetFlags {
            target: Api::Faaster,
            function: Some(format!("{prefix}{{{{counter}}}}")),
            qualifier: None,
            account: self.account.clone(),
            region: None,
        };
        let call = preset.call(&target, None, &|_| None)?.expect("a preset makes a call");
        target.path = call.path;
        let body = self.body.as_deref().map(text_or_file).transpose()?;
        let parts = RequestParts {
            method: "POST".to_owned(),
            headers: call.headers,
            body: event(body),
            keep_alive: KeepAlive::On,
            placeholders: Placeholders::Replaced,
            identity: None,
        };
        let expected = self.expect_body.as_deref().map(text_or_file).transpose()?;
        let (drive, connections) = match self.spacing {
            None => (Loop::Closed, self.concurrency),
            Some(spacing) => {
                let rate = Rate::steady(1.0 / spacing.as_secs_f64());
                (Loop::Open { rate, arrivals: Arrivals::Constant }, at_once)
            }
        };
        Ok(Plan {
            request: Request::build(&target, &parts)?,
            target,
            expectation: Expectation::new("200", expected)?.of_functions(),
            keep_alive: KeepAlive::On,
            pipeline: 1,
            connections,
            cores: cores(self.cores.as_deref(), 1)?,
            drive,
            seed: 1,
            extent: Extent::Count(functions),
            warm_up: Duration::ZERO,
            timeout: self.timeout.max(Duration::from_millis(1)),
            connect_timeout: Duration::from_secs(5),
            phases: Phases::Read,
            spin: Spin::BeforeSends,
        })
    }

    /// The body of each create.
    ///
    /// # Errors
    /// A language without a hello was asked for without code.
    pub(super) fn create(&self, code: Option<&[u8]>) -> anyhow::Result<String> {
        ensure!(
            code.is_some() || !self.runtime.starts_with("provided"),
            "the runtime {} has no hello of its own: give --code, like runtimes/provided/examples built",
            self.runtime
        );
        let timeout = self.timeout.as_secs().clamp(1, 900);
        let mut body = serde_json::json!({
            "Runtime": self.runtime, "Handler": self.handler, "MemorySize": self.memory, "Timeout": timeout,
            "Description": "made by loadgen cold, to be removed",
        });
        if let Some(code) = code {
            body["Code"] = STANDARD.encode(code).into();
        }
        Ok(body.to_string())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Cli, Command};

    fn args(flags: &[&str]) -> ColdArgs {
        let words = ["loadgen", "cold", "http://127.0.0.1:1"].iter().chain(flags);
        match Cli::try_parse_from(words).expect("known flags").command {
            Command::Cold(args) => *args,
            other => panic!("{other:?} is not cold"),
        }
    }

    #[test]
    fn each_call_has_a_function_of_its_own() {
        let plan = args(&["-n", "7", "-c", "3", "-b", "[1]"]).plan("p-").unwrap();
        assert_eq!((plan.drive, plan.connections, plan.extent), (Loop::Closed, 3, Extent::Count(7)));
        let example = String::from_utf8(plan.request.example()).unwrap();
        assert!(example.starts_with("POST /v1/functions/p-0/invocations?Qualifier=%24LATEST "), "{example}");
        assert!(example.ends_with("\r\n\r\n[1]") && example.contains(FAASTER_ACCOUNT), "{example}");
        let spaced = args(&["-n", "7", "--spacing", "250ms"]).plan("p-").unwrap();
        let rate = Rate::steady(4.0);
        assert_eq!(spaced.drive, Loop::Open { rate, arrivals: Arrivals::Constant });
        assert_eq!((spaced.connections, spaced.spin), (7, Spin::BeforeSends));
    }

    #[test]
    fn what_cannot_be_done_is_refused_in_words() {
        for (flags, words) in [
            (&["-n", "0"][..], "--functions must be from 1"),
            (&["-n", "4", "-c", "5"], "--concurrency must be from 1 to 4"),
            (&["--spacing", "0s"], "--spacing must be above 0"),
            (&["--errors-max", "2"], "--errors-max is a share"),
        ] {
            let refused = args(flags).plan("p-").unwrap_err().to_string();
            assert!(refused.starts_with(words), "{refused}");
        }
        let provided = args(&["--runtime", "provided"]);
        assert!(provided.create(None).unwrap_err().to_string().contains("--code"));
        let create: serde_json::Value = serde_json::from_str(&provided.create(Some(b"PK")).unwrap()).unwrap();
        assert_eq!((create["Code"].as_str(), create["Runtime"].as_str()), (Some("UEs="), Some("provided")));
    }
}
