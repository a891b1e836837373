//! The command line: flags as they are typed, and the checked plan that they make.
//!
//! Owns: names and defaults of flags. Must not know: how a run is carried out. Whatever is wrong is said in one sentence
//! before anything is sent.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::bounds::{
    CONNECTIONS_MAX, DURATION_MAX, FILE_BYTES_MAX, PIPELINE_MAX, RATE_MAX, REQUEST_BYTES_MAX, THREADS_MAX,
};
use crate::cold::ColdArgs;
use crate::gates::GateName;
use crate::null_server::Delay;
use crate::plan::{Extent, Loop, Phases, Plan, Spin};
use crate::preset::{PresetError, PresetFlags, event};
use crate::request::{Expectation, KeepAlive, Placeholders, Request, RequestError, RequestParts};
use crate::schedule::{Arrivals, Rate};
use crate::target::{Target, TargetError};

/// A load generator for HTTP/1.1 that says when its numbers cannot be trusted.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send requests and measure. Exit code 3: the run is INVALID, and why is printed.
    Run(Box<RunArgs>),
    /// Find the knee: the highest rate at which p99 stays within a bound.
    Sweep(Box<SweepArgs>),
    /// Measure contenders in turns (ABAB...), so that the machine's moods meet all of them, and compare.
    Repeat(Box<RepeatArgs>),
    /// Measure first calls: deploy functions, call each once, remove them. Exit codes as for run.
    Cold(Box<ColdArgs>),
    /// Put results side by side and say whether differences are real.
    Compare(CompareArgs),
    /// Serve answers that cost nothing, to calibrate against.
    NullServer(NullServerArgs),
    /// Show on this machine that stalls are seen, delays told right and failures counted.
    Selftest,
}

#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Where to send: http://host[:port]/path or unix:/path/of/socket:/path.
    pub url: String,
    #[command(flatten)]
    pub flags: RunFlags,
    /// Process of the server: its CPU time and that of all below it is told per request.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Show a closed loop's response times, which hide stalls.
    #[arg(long)]
    pub closed_times: bool,
    #[command(flatten)]
    pub output: OutputFlags,
}

/// Where a result goes.
#[derive(Debug, Clone, Args)]
pub struct OutputFlags {
    /// Print the result as one JSON object instead.
    #[arg(long)]
    pub json: bool,
    /// Write the JSON result to a file as well.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write the latencies' percentiles to a file as HdrHistogram's plotters read them.
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Write a page with plots to a file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct SweepArgs {
    /// As for `run`.
    pub url: String,
    #[command(flatten)]
    pub flags: RunFlags,
    /// Lowest rate to try.
    #[arg(long, default_value_t = 100.0)]
    pub from: f64,
    /// Highest rate to try.
    #[arg(long, default_value_t = 1_000_000.0)]
    pub to: f64,
    /// The bound, like 1ms.
    #[arg(long, value_parser = duration)]
    pub p99_max: Duration,
    /// Process of the server.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Print the result as one JSON object instead.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct RepeatArgs {
    /// Each as NAME=URL, or NAME@PID=URL to measure the CPU time of a server. The first is what others are compared with.
    #[arg(required = true, num_args = 2..)]
    pub contenders: Vec<String>,
    #[command(flatten)]
    pub flags: RunFlags,
    /// Runs of each contender.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Print the comparison as one JSON object instead.
    #[arg(long)]
    pub json: bool,
    /// Write the results to NAME.json in this directory, one line for each round.
    #[arg(long, value_name = "DIRECTORY")]
    pub out: Option<PathBuf>,
    /// Write a page with plots to a file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// Results of `run --out` or `repeat --out`, one or more in each file. The first is what others are compared with.
    #[arg(required = true, num_args = 2..)]
    pub files: Vec<PathBuf>,
    /// Print the comparison as one JSON object instead.
    #[arg(long)]
    pub json: bool,
    /// Write a page with plots to a file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// What is the same for every run.
#[derive(Debug, Clone, Args)]
pub struct RunFlags {
    #[command(flatten)]
    pub preset: PresetFlags,
    /// Connections, over all threads.
    #[arg(short, long, default_value_t = 10)]
    pub connections: usize,
    /// Threads, each with a ring and a core of its own.
    #[arg(short, long, default_value_t = 1)]
    pub threads: usize,
    /// Cores of the threads, like 1,3 or 2-5. Default: the last ones that this process may use.
    #[arg(long)]
    pub cores: Option<String>,
    /// Length of the measured time, like 10s, 500ms or 2m.
    #[arg(short, long, default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// End after this many requests instead, warm-up not included.
    #[arg(short = 'n', long, conflicts_with = "duration")]
    pub requests: Option<u64>,
    /// Time before the measured one, in which nothing is counted.
    #[arg(short, long, default_value = "1s", value_parser = duration)]
    pub warm_up: Duration,
    /// Open loop: requests per second, whatever the server does; 1000..20000 ramps up over the measured time.
    /// Without it, each connection sends when its answer came (closed loop): a peak rate, but no latencies.
    #[arg(short, long)]
    pub rate: Option<String>,
    /// How the requests of an open loop follow each other.
    #[arg(long, value_enum, default_value_t = Arrivals::Constant)]
    pub arrivals: Arrivals,
    /// Seed of the schedule and of random choices: the same seed sends the same at the same moments.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Method of the requests. Default: GET, or POST with a body.
    #[arg(short, long)]
    pub method: Option<String>,
    /// A header, `Name: value`; may be repeated.
    #[arg(short = 'H', long = "header")]
    pub headers: Vec<String>,
    /// Body of the requests, or @FILE.
    #[arg(short, long)]
    pub body: Option<String>,
    /// Replace {{counter}}, {{uniform:N}} and {{zipf:N:S}} in path, headers and body by numbers.
    #[arg(long)]
    pub template: bool,
    /// Open a connection for each request.
    #[arg(long)]
    pub no_keepalive: bool,
    /// Requests that one connection may have under way at once.
    #[arg(short, long, default_value_t = 1)]
    pub pipeline: usize,
    /// A request without its whole answer after this has failed.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub timeout: Duration,
    /// Connections must stand after this, before the start.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub connect_timeout: Duration,
    /// Statuses that count as success, like 200,404 or 2xx.
    #[arg(long, default_value = "2xx")]
    pub expect_status: String,
    /// The exact body that answers must have, or @FILE.
    #[arg(long)]
    pub expect_body: Option<String>,
    /// Share of requests that may fail in a valid run.
    #[arg(long, default_value_t = 0.001)]
    pub errors_max: f64,
    /// Result of a closed-loop run of the same generator against `loadgen null-server`, made with --json.
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// Gates that may be broken; the result says so.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "GATE,...")]
    pub allow: Vec<GateName>,
}

#[derive(Debug, Clone, Args)]
pub struct NullServerArgs {
    /// 127.0.0.1:9000 or unix:/path/of/socket.
    #[arg(short, long, default_value = "127.0.0.1:9000")]
    pub listen: String,
    /// Core to run on.
    #[arg(long)]
    pub core: Option<u16>,
    /// Body of the answers.
    #[arg(short, long, default_value = "Hello world!")]
    pub body: String,
    /// Hold answers back: constant:1ms, exponential:1ms (mean) or uniform:2ms (most).
    #[arg(long, default_value = "none", value_parser = delay)]
    pub delay: Delay,
    /// Answer every n-th request with status 500.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub wrong_every: Option<u64>,
    /// Answer every n-th request with another body.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub garbled_every: Option<u64>,
    /// Close the connection instead of every n-th answer.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub close_every: Option<u64>,
    /// End with this request, without an answer to it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub end_after: Option<u64>,
    /// Seed of the delays.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// A name, where it is, and its process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    pub url: String,
    pub pid: Option<u32>,
}

impl Named {
    /// Reads NAME=URL or NAME@PID=URL.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self, OptionsError> {
        let refuse = || OptionsError::Contender(text.to_owned());
        let (name, url) = text.split_once('=').ok_or_else(refuse)?;
        let (name, pid) = match name.split_once('@') {
            None => (name, None),
            Some((name, pid)) => (name, Some(pid.parse().map_err(|_| refuse())?)),
        };
        // It becomes a file's name.
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || !name.bytes().all(fits) {
            return Err(refuse());
        }
        Ok(Self { name: name.to_owned(), url: url.to_owned(), pid })
    }
}

/// What is wrong with the flags.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Preset(#[from] PresetError),
    #[error("--{flag} must be from {least} to {most}")]
    Range { flag: &'static str, least: u64, most: u64 },
    #[error("--rate {0:?} is neither a number of requests per second nor a ramp like 1000..20000")]
    Rate(String),
    #[error("--connections {connections} is fewer than --threads {threads}: give each thread at least one")]
    FewerThanThreads { connections: usize, threads: usize },
    #[error("--cores {0:?} is no list like 1,3 or 2-5")]
    Cores(String),
    #[error("--cores names {named} cores for {threads} threads: name one for each")]
    CoreCount { named: usize, threads: usize },
    #[error(
        "this process may use {available} cores, too few for {threads} threads: use fewer threads, or taskset"
    )]
    TooFewCores { available: usize, threads: usize },
    #[error("{0:?} is not of the form NAME=URL or NAME@PID=URL, the name of letters, digits, - and _")]
    Contender(String),
    #[error("cannot read the cores of this process")]
    Affinity(#[source] rustix::io::Errno),
    #[error("cannot read {path}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} has more than {FILE_BYTES_MAX} bytes")]
    FileTooLarge { path: PathBuf },
    #[error("--errors-max is a share from 0 to 1")]
    ErrorsMax,
    #[error(
        "{bytes} bytes of request for {connections} connections need too much memory: use fewer or smaller ones"
    )]
    Memory { bytes: usize, connections: usize },
}

/// Reads `10s`, `500ms`, `2m`, `1h`, `250us`, or seconds without a unit.
///
/// # Errors
/// Says what a duration looks like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("{text:?} is no duration: write 10s, 500ms or 2m");
    let end = text.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| refuse())?;
    let unit = match &text[end..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(refuse()),
    };
    let secs = number * unit;
    if secs > DURATION_MAX.as_secs_f64() {
        return Err(format!("{text:?} is longer than {} hours", DURATION_MAX.as_secs() / 3600));
    }
    Duration::try_from_secs_f64(secs).map_err(|_| refuse())
}

fn delay(text: &str) -> Result<Delay, String> {
    let refuse = || format!("{text:?} is no delay: write none, constant:1ms, exponential:1ms or uniform:2ms");
    if text == "none" {
        return Ok(Delay::None);
    }
    let (kind, length) = text.split_once(':').ok_or_else(refuse)?;
    let length = duration(length)?;
    match kind {
        "constant" => Ok(Delay::Constant(length)),
        "exponential" => Ok(Delay::Exponential(length)),
        "uniform" => Ok(Delay::Uniform(length)),
        _ => Err(refuse()),
    }
}

/// The text itself, or what is in the file that it names with an @.
pub(crate) fn text_or_file(text: &str) -> Result<Vec<u8>, OptionsError> {
    let Some(path) = text.strip_prefix('@') else { return Ok(text.as_bytes().to_vec()) };
    let path = PathBuf::from(path);
    let size =
        std::fs::metadata(&path).map_err(|source| OptionsError::File { path: path.clone(), source })?.len();
    if size > FILE_BYTES_MAX {
        return Err(OptionsError::FileTooLarge { path });
    }
    std::fs::read(&path).map_err(|source| OptionsError::File { path, source })
}

fn in_range(flag: &'static str, value: usize, most: usize) -> Result<(), OptionsError> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(OptionsError::Range { flag, least: 1, most: most as u64 })
}

fn rate(text: &str, ramp: Duration) -> Result<Rate, OptionsError> {
    let refuse = || OptionsError::Rate(text.to_owned());
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|rate| (0.0..=RATE_MAX).contains(rate));
    let (from, to) = match text.split_once("..") {
        None => {
            let rate = number(text).ok_or_else(refuse)?;
            (rate, rate)
        }
        Some((from, to)) => (number(from).ok_or_else(refuse)?, number(to).ok_or_else(refuse)?),
    };
    if to <= 0.0 {
        return Err(refuse());
    }
    let ramp = if text.contains("..") { ramp } else { Duration::ZERO };
    Ok(Rate { from, to, ramp })
}

pub(crate) fn cores(list: Option<&str>, threads: usize) -> Result<Vec<u16>, OptionsError> {
    if let Some(list) = list {
        let named = crate::cpu::parse_cores(list).ok_or_else(|| OptionsError::Cores(list.to_owned()))?;
        if named.len() != threads {
            return Err(OptionsError::CoreCount { named: named.len(), threads });
        }
        return Ok(named.into_iter().collect());
    }
    let mut available = faaster_sys::affinity::allowed_cores().map_err(OptionsError::Affinity)?;
    if available.len() < threads {
        return Err(OptionsError::TooFewCores { available: available.len(), threads });
    }
    // Servers usually begin with the first.
    Ok(available.split_off(available.len() - threads))
}

/// Memory for send buffers of all connections.
const BUFFERS_BYTES_MAX: usize = 2 * 1024 * 1024 * 1024;

impl RunFlags {
    /// Checks the flags and makes a plan of them.
    ///
    /// # Errors
    /// What is wrong, and how to write it.
    pub fn plan(&self, url: &str) -> Result<Plan, OptionsError> {
        in_range("connections", self.connections, CONNECTIONS_MAX)?;
        in_range("threads", self.threads, THREADS_MAX)?;
        in_range("pipeline", self.pipeline, PIPELINE_MAX)?;
        if self.connections < self.threads {
            let (connections, threads) = (self.connections, self.threads);
            return Err(OptionsError::FewerThanThreads { connections, threads });
        }
        if !(0.0..=1.0).contains(&self.errors_max) {
            return Err(OptionsError::ErrorsMax);
        }
        if self.requests == Some(0) || (self.requests.is_none() && self.duration.is_zero()) {
            return Err(OptionsError::Range { flag: "duration and --requests", least: 1, most: u64::MAX });
        }
        let keep_alive = if self.no_keepalive { KeepAlive::Off } else { KeepAlive::On };
        let (target, request, expectation) = self.what(url, keep_alive)?;
        let request_bytes = request.example().len();
        in_range("body", request_bytes, REQUEST_BYTES_MAX)?;
        let pipeline = if self.no_keepalive { 1 } else { self.pipeline };
        if request_bytes * pipeline * self.connections > BUFFERS_BYTES_MAX {
            return Err(OptionsError::Memory { bytes: request_bytes, connections: self.connections });
        }
        let drive = match &self.rate {
            None => Loop::Closed,
            Some(text) => {
                let ramp = self.warm_up + self.duration;
                Loop::Open { rate: rate(text, ramp)?, arrivals: self.arrivals }
            }
        };
        Ok(Plan {
            target,
            request,
            expectation,
            keep_alive,
            pipeline,
            connections: self.connections,
            cores: cores(self.cores.as_deref(), self.threads)?,
            drive,
            seed: self.seed,
            extent: self.requests.map_or(Extent::Time(self.duration), Extent::Count),
            warm_up: self.warm_up,
            timeout: self.timeout.max(Duration::from_millis(1)),
            connect_timeout: self.connect_timeout.max(Duration::from_millis(1)),
            phases: Phases::Skipped,
            spin: Spin::AroundSends,
        })
    }

    /// Where requests go, what they are, and what counts as their answer.
    fn what(&self, url: &str, keep_alive: KeepAlive) -> Result<(Target, Request, Expectation), OptionsError> {
        let mut target = Target::parse(url)?;
        let body = self.body.as_deref().map(text_or_file).transpose()?;
        let expected = self.expect_body.as_deref().map(text_or_file).transpose()?;
        let mut expectation = Expectation::new(&self.expect_status, expected)?;
        let default_method = if body.is_some() { "POST" } else { "GET" };
        let mut parts = RequestParts {
            method: self.method.clone().unwrap_or_else(|| default_method.to_owned()),
            headers: self.headers.clone(),
            body: Vec::new(),
            keep_alive,
            placeholders: if self.template { Placeholders::Replaced } else { Placeholders::Kept },
            identity: None,
        };
        let setting = |name: &str| std::env::var(name).ok();
        match self.preset.call(&target, self.method.as_deref(), &setting)? {
            None => parts.body = body.unwrap_or_default(),
            Some(call) => {
                if call.path.contains("{{") && !self.template {
                    return Err(
                        PresetError::Function(self.preset.function.clone().unwrap_or_default()).into()
                    );
                }
                target.path = call.path;
                "POST".clone_into(&mut parts.method);
                parts.headers.splice(0..0, call.headers);
                (parts.body, parts.identity) = (event(body), call.identity);
                expectation = expectation.of_functions();
            }
        }
        Ok((target.clone(), Request::build(&target, &parts)?, expectation))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn plan(flags: &[&str]) -> Result<Plan, OptionsError> {
        let words = ["loadgen", "run", "http://127.0.0.1:1/"].iter().chain(flags);
        let Command::Run(args) = Cli::try_parse_from(words).expect("known flags").command else {
            panic!("this is run")
        };
        args.flags.plan(&args.url)
    }

    #[test]
    fn the_flags_fit_together() {
        Cli::command().debug_assert();
        let plan = plan(&["-c", "4", "--rate", "100..200", "-d", "2s", "-b", "x"]).unwrap();
        let rate = Rate { from: 100.0, to: 200.0, ramp: Duration::from_secs(3) };
        assert_eq!(plan.drive, Loop::Open { rate, arrivals: Arrivals::Constant });
        assert!(plan.request.example().starts_with(b"POST / "), "a body makes it a POST");
        assert_eq!((plan.connections, plan.extent), (4, Extent::Time(Duration::from_secs(2))));
    }

    #[test]
    fn what_cannot_be_done_is_refused_in_words() {
        for (flags, words) in [
            (&["-c", "0"][..], "--connections must be from 1 to 100000"),
            (&["-c", "100001"], "--connections must be from 1 to 100000"),
            (&["--function", "f"], "--function is for --target faaster"),
            (
                &["--target", "faaster", "--function", "f{{counter}}"],
                "--function \"f{{counter}}\" is no name",
            ),
            (&["-c", "1", "-t", "2"], "--connections 1 is fewer than --threads 2"),
            (&["-p", "0"], "--pipeline must be from 1 to 256"),
            (&["-r", "fast"], "--rate \"fast\" is neither"),
            (&["-r", "0"], "--rate \"0\" is neither"),
            (&["-r", "5..0"], "--rate \"5..0\" is neither"),
            (&["--cores", "x"], "--cores \"x\" is no list"),
            (&["--cores", "0-1"], "--cores names 2 cores for 1 threads"),
            (&["-b", "@/no/such/file"], "cannot read /no/such/file"),
            (&["--errors-max", "2"], "--errors-max is a share"),
            (&["-n", "0"], "--duration and --requests must be from 1"),
            (&["--expect-status", "ok"], "the status \"ok\" is neither"),
            (&["-H", "x"], "the header \"x\" is not of the form"),
        ] {
            let refused = plan(flags).expect_err("it cannot be done").to_string();
            assert!(refused.starts_with(words), "{refused}");
        }
    }

    #[test]
    fn a_preset_makes_the_whole_request() {
        let plan =
            plan(&["--target", "faaster", "--function", "f{{uniform:3}}", "--template", "-H", "X-A: 1"]);
        let plan = plan.unwrap();
        let example = String::from_utf8(plan.request.example()).unwrap();
        let (head, body) = example.split_once("\r\n\r\n").unwrap();
        let lines: Vec<&str> = head.lines().collect();
        assert!(
            lines[0].starts_with("POST /v1/functions/f") && lines[0].contains("Qualifier=%24LATEST"),
            "{head}"
        );
        let account = "X-easyfaas-Account-Id: df391b08c64c426a81645468c75163a5";
        assert_eq!(lines[1..], [account, "X-A: 1", "Host: 127.0.0.1:1", "Content-Length: 2"]);
        assert_eq!(body, "{}");
    }

    #[test]
    fn durations_have_units() {
        for (text, micros) in
            [("10s", 10_000_000), ("500ms", 500_000), ("1.5", 1_500_000), ("2m", 120_000_000), ("7us", 7)]
        {
            assert_eq!(duration(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        for text in ["", "s", "-1s", "1d", "1.2.3s", "inf", "100000h"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn contenders_have_a_name_and_perhaps_a_process() {
        let named = |name: &str, url: &str, pid| Named { name: name.into(), url: url.into(), pid };
        assert_eq!(Named::parse("a=http://x/?b=c").unwrap(), named("a", "http://x/?b=c", None));
        assert_eq!(Named::parse("a-1@77=unix:/s:/").unwrap(), named("a-1", "unix:/s:/", Some(77)));
        for text in ["http://x/", "=u", "a/b=u", "a@=u", "a@x=u", "../a=u"] {
            assert!(matches!(Named::parse(text), Err(OptionsError::Contender(_))), "{text:?}");
        }
    }

    #[test]
    fn delays_have_a_kind() {
        assert_eq!(delay("none"), Ok(Delay::None));
        assert_eq!(delay("uniform:2ms"), Ok(Delay::Uniform(Duration::from_millis(2))));
        for text in ["", "1ms", "normal:1ms", "constant:x"] {
            assert!(delay(text).is_err(), "{text:?}");
        }
    }
}
