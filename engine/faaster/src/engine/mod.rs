//! The engine's process: from root with listeners in hand to an unprivileged user with shards that serve.
//!
//! Owns: the order of the steps. Rings are made while root, because their memory is charged to whoever makes them;
//! then privileges go for good; then threads start, for privileges are a thread's and there must be one only.
//! Must not know: what shards and control do.

mod link;
mod shards;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use faaster_control::{Access, ControlCommand, ControlConfig, Parts, Shards, Store, StoreError};
use faaster_function::code_use::CodeUses;
use faaster_limits::DESCRIPTORS_EXPECTED;
use faaster_shard::api::{HealthRule, InstancePlacement};
use faaster_shard::mailbox::CommandSender;
use faaster_shard::{Packet, Port, Prepared, ShardConfig, ShardId, network};
use faaster_store::log::LogBudget;
use faaster_store::registry::RegistryError;
use faaster_sys::seccomp::{Scope, engine_filter};
use faaster_sys::{affinity, credentials, fdtable};
use tokio::sync::mpsc;

use crate::clock::{Deadline, wait_readable};
use crate::config::{Config, LogLevel, Placement};
use crate::containers::chain;
use crate::exit::Outcome;
use crate::log::Log;
use crate::supervisor::child::READY;
use crate::supervisor::inherited::{InheritError, Inherited};
use crate::supervisor::link::{self as supervisor_link, LinkError};

/// Nice value of shards: a busy neighbour on the core costs 0.1 ms of the slowest answers instead of 0.9 (DESIGN 2).
const SHARD_NICE: i32 = -15;
/// Seconds that refused callers are asked to wait.
const RETRY_AFTER_SECS: u32 = 1;
/// An engine that was killed just now lets go of the registry within this.
const REGISTRY_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
/// Between two tries to open it.
const REGISTRY_RETRY: std::time::Duration = std::time::Duration::from_millis(20);

/// Why the engine does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error(transparent)]
    Inherit(#[from] InheritError),
    #[error("the supervisor sent {found} listeners for {shards} shards")]
    Listeners { found: usize, shards: u16 },
    #[error(transparent)]
    Shard(#[from] faaster_shard::PrepareError),
    #[error(transparent)]
    Credentials(#[from] credentials::CredentialsError),
    #[error("cannot make room for descriptors: {0}")]
    Descriptors(#[source] rustix::io::Errno),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error("cannot use the data directory {path}: {source}")]
    Store { path: PathBuf, source: faaster_control::StoreError },
    #[error(transparent)]
    Filter(#[from] faaster_sys::seccomp::SeccompError),
    #[error(transparent)]
    Control(#[from] faaster_control::ControlError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Runs the engine to its end.
pub(crate) fn main() -> Outcome {
    let begun = Inherited::take().map_err(EngineError::from);
    let log = Log::new("engine", begun.as_ref().map_or(LogLevel::Error, |it| it.start.config.log_level));
    match begun.and_then(|inherited| run(inherited, log)) {
        Ok(()) => Outcome::Success,
        Err(error) => {
            log.error(chain(&error));
            match error {
                EngineError::Inherit(_) | EngineError::Shard(_) => Outcome::Refused,
                _ => Outcome::Failed,
            }
        }
    }
}

fn run(inherited: Inherited, log: Log) -> Result<(), EngineError> {
    fdtable::reserve(std::io::stderr(), DESCRIPTORS_EXPECTED).map_err(EngineError::Descriptors)?;
    let Inherited { link, start, supervisor, descriptors } = inherited;
    let config = &start.config;
    let prepared = prepare_shards(config, descriptors)?;
    give_up_privilege(config, &supervisor, log)?;
    let (notices, heard) = mpsc::channel(faaster_limits::MAILBOX_MAX);
    let (mailboxes, senders) = network::<Packet>(config.shards).map_err(EngineError::Thread)?;
    let senders: Arc<[CommandSender]> = senders.into();
    let code_uses = Arc::<CodeUses>::default();
    let waiting = shards::start(prepared, mailboxes, config, &notices, &code_uses, log)?;
    drop(notices);
    // Shards have inherited theirs; what is made from here on is not as urgent. Becoming less eager is always allowed.
    affinity::set_nice(0).ok();
    let store = open_store(config)?;
    let known = shards::known(&store.registry, &start.runtimes)
        .map_err(|source| EngineError::Store { path: config.data.clone(), source: source.into() })?;
    engine_filter()?.install(Scope::AllThreads)?;

    let (orders, ordered) = mpsc::channel::<ControlCommand>(link::ORDERS_MAX);
    let to_shards = senders.clone();
    let parts = Parts {
        registry: store.registry,
        code: store.code,
        runtimes: start.runtimes.clone().into(),
        shards: Shards::new(senders.len(), move |shard, command| to_shards[shard].send(command)),
        code_uses,
        notices: heard,
        commands: ordered,
        log: Box::new(move |line| log.info(line)),
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(EngineError::Thread)?;
    waiting.begin(&known);
    supervisor_link::send(link.as_fd(), READY, &[])?;
    runtime.block_on(async {
        let listening = tokio::spawn(link::listen(link, senders, orders, log));
        let ended = faaster_control::run(control_settings(config), parts).await;
        listening.abort();
        ended
    })?;
    drop(runtime);
    store.journal.join();
    Ok(())
}

/// From here on this process is nobody in particular, for good. Shards' threads inherit the nice value.
fn give_up_privilege(config: &Config, supervisor: &OwnedFd, log: Log) -> Result<(), EngineError> {
    if let Err(errno) = affinity::set_nice(SHARD_NICE) {
        log.warn(format_args!(
            "shards run at nice 0, so a busy machine adds to the slowest answers: {errno}"
        ));
    }
    credentials::drop_to(config.engine_uid, config.engine_gid)?;
    credentials::die_with_parent(supervisor)?;
    if let Err(errno) = credentials::hide_from_tracers() {
        log.warn(format_args!("processes of the same user can read this one: {errno}"));
    }
    Ok(())
}

fn control_settings(config: &Config) -> ControlConfig {
    ControlConfig {
        default_account: config.default_account.clone(),
        access: if config.simple_auth { Access::Owner } else { Access::Anyone },
        millicpus: u32::try_from(config.cores.len() * 1000).unwrap_or(u32::MAX),
        log_budget: LogBudget {
            bytes: config.log_disk_bytes,
            per_function_bytes: config.log_disk_per_function_bytes,
        },
        code_budget_bytes: config.code_disk_bytes,
        code_idle: config.code_idle,
        funclets: config.funclets,
        version: env!("CARGO_PKG_VERSION"),
        data: config.data.clone(),
    }
}

/// Makes the shards' rings; `descriptors` are the controller's listeners, then the registry's.
fn prepare_shards(config: &Config, descriptors: Vec<OwnedFd>) -> Result<Vec<Prepared>, EngineError> {
    let found = descriptors.len();
    if found != 2 * usize::from(config.shards) {
        return Err(EngineError::Listeners { found, shards: config.shards });
    }
    let settings = shard_settings(config);
    let mut controllers = descriptors;
    let registries = controllers.split_off(usize::from(config.shards));
    let pairs = controllers.into_iter().zip(registries);
    let prepare = |(shard, (controller, registry))| {
        Ok(Prepared::new(
            ShardId(shard),
            &settings,
            vec![(Port::Controller, controller), (Port::Registry, registry)],
        )?)
    };
    (0..config.shards).zip(pairs).map(prepare).collect()
}

fn shard_settings(config: &Config) -> ShardConfig {
    ShardConfig {
        connections_max: config.connections_max,
        default_account: config.default_account.as_str().to_owned(),
        simple_auth: config.simple_auth,
        http_trigger: config.http_trigger,
        max_runtime_idle: config.max_runtime_idle,
        freeze_after: config.freeze_after,
        health: config
            .health_interval
            .map(|interval| HealthRule { interval, timeout: config.health_timeout }),
        placement: match config.placement {
            Placement::HomeCore => InstancePlacement::HomeCore,
            Placement::Free => InstancePlacement::Free,
        },
        retry_after_secs: RETRY_AFTER_SECS,
        funclets: config.funclets,
        shards: config.shards,
    }
}

/// Opens the registry and the code store; an engine that was killed just now may still hold the registry.
fn open_store(config: &Config) -> Result<Store, EngineError> {
    let deadline = Deadline::after(REGISTRY_PATIENCE);
    loop {
        match Store::open(&config.data) {
            Err(StoreError::Registry(RegistryError::InUse { .. })) if !deadline.passed() => {
                // Nothing to wait for but time.
                wait_readable(&[], REGISTRY_RETRY).map_err(|errno| EngineError::Thread(errno.into()))?;
            }
            Err(source) => return Err(EngineError::Store { path: config.data.clone(), source }),
            Ok(store) => return Ok(store),
        }
    }
}
