//! The whole of `faaster serve`: checks, lock, sweep, listeners; then the loop; then cleaning up.
//!
//! Owns: the order of these steps. Must not know: what happens while the engine serves ([`super::watch`]).

use std::io::Write;
use std::path::{Path, PathBuf};

use faaster_funclet::network::PrepareError;
use faaster_funclet::{InstanceId, SweepConfig, SweepError};
use faaster_function::RuntimeSpec;
use faaster_image::Held;
use faaster_sys::pidfd::PidFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::data::{DataDirectory, DataError, Keep};
use super::instance::{self, Instance, InstanceError};
use super::listeners::{self, ListenError};
use super::network;
use super::orphans;
use super::requirements::{self, Lack};
use super::start::{Role, Start};
use super::watch::Supervisor;
use crate::config::Config;
use crate::exit::Outcome;
use crate::init_program::{self, InitError, Place};
use crate::log::Log;
use crate::runtimes::roots::Roots;
use crate::runtimes::{self, RuntimesError, embedded};
use crate::signals::{Deaths, Signals};

/// How the start is announced on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announcement {
    Sentence,
    Json,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Lack(#[from] Lack),
    #[error("cannot catch signals: {0}")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Instance(#[from] InstanceError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("cannot remove what an earlier engine left: {0}")]
    Sweep(#[from] SweepError),
    #[error("cannot write {path}: {source}")]
    Unpack { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Runtimes(#[from] RuntimesError),
    #[error("no runtime can be used: {0}")]
    NoRuntime(String),
    #[error(transparent)]
    Init(#[from] InitError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Network(#[from] PrepareError),
}

impl ServeError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Lack(_) | Self::NoRuntime(_) | Self::Init(_) | Self::Runtimes(_) | Self::Network(_) => {
                Outcome::Refused
            }
            Self::Signals(_)
            | Self::Instance(_)
            | Self::Data(_)
            | Self::Sweep(_)
            | Self::Unpack { .. }
            | Self::Listen(_) => Outcome::Failed,
        }
    }
}

/// Serves until told to stop.
pub(crate) fn serve(config: Config, keep: Keep, announcement: Announcement) -> Outcome {
    let log = Log::new("supervisor", config.log_level);
    match prepare_and_run(config, keep, announcement, log) {
        Ok(outcome) => outcome,
        Err(error) => {
            log.error(&error);
            error.outcome()
        }
    }
}

fn prepare_and_run(
    config: Config,
    keep: Keep,
    announcement: Announcement,
    log: Log,
) -> Result<Outcome, ServeError> {
    requirements::check(&config.data)?;
    raise_descriptor_limit(log);
    let signals = Signals::catch().map_err(ServeError::Signals)?;
    let deaths = Deaths::catch().map_err(ServeError::Signals)?;
    if let Err(errno) = orphans::adopt() {
        log.warn(format_args!("processes of a funclet that died go to the host's process 1: {errno}"));
    }
    let data = DataDirectory::lock(&config.data, keep)?;
    let run = Run { root: config.run.clone(), instance: Some(Instance::create(&config.run)?), log };
    sweep(&run.root, log)?;
    data.give_to_engine(config.engine_uid, config.engine_gid)?;
    let path = run.directory().to_owned();
    let (runtimes, _held) = find_runtimes(&config, &path, log)?;
    let init = find_init(&config, &path)?;
    let shards = config.shards;
    let listeners =
        [listeners::open(config.listen, shards)?, listeners::open(config.registry_listen, shards)?];
    let ports = listeners.each_ref().map(|listeners| listeners.address.port());
    let network = network::prepare(&config, &ports, run.id(), &path, log)?;
    let instance = run.id().clone();
    let start = Start { role: Role::Engine, config, instance, runtimes, init, directory: path, network };
    let announce = match announcement {
        Announcement::Sentence => announce_sentence,
        Announcement::Json => announce_json,
    };
    let own_pidfd = PidFd::of_self().map_err(|errno| ServeError::Signals(errno.into()))?;
    Ok(Supervisor::new(start, listeners, own_pidfd, (signals, deaths), log, announce).run())
}

/// This run as it must not be left behind: dropping it removes what it made, on whatever way out.
struct Run {
    root: PathBuf,
    instance: Option<Instance>,
    log: Log,
}

impl Run {
    fn instance(&self) -> &Instance {
        self.instance.as_ref().expect("taken only when dropped")
    }

    fn directory(&self) -> &Path {
        &self.instance().directory
    }

    fn id(&self) -> &InstanceId {
        &self.instance().id
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Its lock goes with it: from then on this run is one of those that are swept.
        drop(self.instance.take());
        if let Err(error) = sweep(&self.root, self.log) {
            self.log.error(format_args!("{error}; the next start tries again"));
        }
        // The sweep ended what was left of a dead funclet; nobody but us may be there to reap it.
        orphans::reap(&[]).ok();
        instance::remove_if_empty(&self.root);
    }
}

/// Removes what dead runs have left.
fn sweep(run_root: &Path, log: Log) -> Result<(), SweepError> {
    let report = faaster_funclet::sweep(&SweepConfig { run_root: run_root.to_owned() })?;
    if report.cgroups + report.processes + report.mounts + report.tables > 0 {
        log.info(format_args!(
            "removed what earlier runs had left: {} cgroups, {} processes, {} mounts, {} tables of rules",
            report.cgroups, report.processes, report.mounts, report.tables
        ));
    }
    report.left.iter().for_each(|sentence| log.warn(sentence));
    Ok(())
}

/// As many descriptors as we may have; each connection is one.
fn raise_descriptor_limit(log: Log) {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        log.warn(format_args!("cannot raise the limit of open files: {error}"));
    }
}

/// Usable runtimes, and what keeps their root file systems from being removed while they are in use.
fn find_runtimes(
    config: &Config,
    directory: &Path,
    log: Log,
) -> Result<(Vec<RuntimeSpec>, Vec<Held>), ServeError> {
    let shipped = directory.join("runtimes");
    embedded::unpack(&shipped).map_err(|(path, source)| ServeError::Unpack { path, source })?;
    let folders: Vec<PathBuf> = std::iter::once(shipped).chain(config.runtimes.iter().cloned()).collect();
    let mut roots = Roots::new(&config.rootfs, &config.data);
    let found = runtimes::find(&folders, &config.pool, &mut roots)?;
    for (name, reason) in &found.unusable {
        log.info(format_args!("runtime {name} is not available: {reason}"));
    }
    if found.runtimes.is_empty() {
        let reasons: Vec<_> =
            found.unusable.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
        return Err(ServeError::NoRuntime(reasons.join("; ")));
    }
    let bounded = |mut spec: RuntimeSpec| {
        if !config.pool.contains_key(&spec.name) {
            spec.pool = runtimes::affordable_pool(&spec, config.memory_bytes);
        }
        spec
    };
    Ok((found.runtimes.into_iter().map(bounded).collect(), roots.into_held()))
}

/// Where the program for process 1 of containers is, unpacked if it is built in.
fn find_init(config: &Config, directory: &Path) -> Result<PathBuf, ServeError> {
    match init_program::find(config)? {
        Place::Named(path) | Place::Beside(path) => Ok(path),
        Place::BuiltIn => {
            embedded::unpack_init(directory).map_err(|(path, source)| ServeError::Unpack { path, source })
        }
    }
}

fn announce_sentence(supervisor: &Supervisor) {
    let start = supervisor.start_record();
    let [controller, registry] = supervisor.listeners();
    let shards = start.config.shards;
    say(&format!(
        "faaster is serving on http://{} (registry http://{}), {shards} shard{}, runtimes: {}",
        controller.address,
        registry.address,
        if shards == 1 { "" } else { "s" },
        runtimes::names(&start.runtimes),
    ));
}

fn announce_json(supervisor: &Supervisor) {
    let start = supervisor.start_record();
    let [controller, registry] = supervisor.listeners();
    let runtimes: Vec<_> =
        start.runtimes.iter().map(|r| serde_json::json!({ "name": r.name, "version": r.version })).collect();
    let (engine, funclets): (Vec<_>, Vec<_>) =
        supervisor.children().partition(|(role, _)| *role == Role::Engine);
    say(&serde_json::json!({
        "event": "serving",
        "controller": format!("http://{}", controller.address),
        "registry": format!("http://{}", registry.address),
        "instance": start.instance,
        "data": start.config.data,
        "shards": start.config.shards,
        "runtimes": runtimes,
        "supervisor": std::process::id(),
        "engine": engine.first().map(|(_, pid)| pid),
        "funclets": funclets.iter().map(|(_, pid)| pid).collect::<Vec<_>>(),
    })
    .to_string());
}

/// Whoever started us may not read what we say; that is no reason to stop.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}
