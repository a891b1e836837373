//! What all handlers share: the node's parts, and who is calling.
//!
//! Owns: the state that outlives a request. Must not know: routes.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::HeaderMap;
use faaster_function::{AccountId, RuntimeSpec};
use faaster_limits::DEPLOY_TIMEOUT;
use faaster_protocol::easyfaas::account::stable_tag;
use faaster_protocol::easyfaas::headers;
use faaster_protocol::funclet::CodeHash;
use faaster_store::Registry;
use faaster_store::code::CodeCounters;
use faaster_store::registry::{Done, RegistryError};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::code_thread::CodeThread;
use crate::config::{ControlConfig, OperatorLog};
use crate::funclets::Funclets;
use crate::log_thread::LogCounters;
use crate::logs;
use crate::shards::Shards;

/// How far the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Stored functions are on their way to the shards.
    Loading,
    Ready,
    /// What is in flight is finished, nothing new is taken.
    Stopping,
}

/// Locks for keys, so that two deploys of one function reach the shards in the registry's order.
const KEY_LOCKS: usize = 64;

pub(crate) struct Node {
    pub(crate) config: ControlConfig,
    pub(crate) registry: Registry,
    pub(crate) code: CodeThread,
    pub(crate) runtimes: Arc<[RuntimeSpec]>,
    pub(crate) shards: Shards,
    pub(crate) funclets: watch::Receiver<Funclets>,
    pub(crate) logs: mpsc::Sender<logs::Ask>,
    pub(crate) log_disk: Arc<LogCounters>,
    pub(crate) code_disk: Arc<CodeCounters>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) log: OperatorLog,
    pub(crate) started: Instant,
    /// Containers that were invalidated, until they are gone: funclet, slot, generation.
    pub(crate) abnormal: Mutex<BTreeSet<(u16, u32, u32)>>,
    /// Code that perhaps nobody uses any more.
    pub(crate) unused_code: Mutex<BTreeSet<CodeHash>>,
    /// Held by who ends instances so that code gets room.
    pub(crate) code_room: Mutex<()>,
    /// BRNs of stored functions that this node has no runtime for.
    pub(crate) skipped: Mutex<Vec<String>>,
    key_locks: [Arc<Mutex<()>>; KEY_LOCKS],
}

/// The node cannot do what is asked just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotNow {
    #[error("engine is loading its functions; try again later")]
    Loading,
    #[error("engine is stopping")]
    Stopping,
}

/// What a [`Node`] is made of.
pub(crate) struct NodeParts {
    pub(crate) config: ControlConfig,
    pub(crate) registry: Registry,
    pub(crate) code: CodeThread,
    pub(crate) runtimes: Arc<[RuntimeSpec]>,
    pub(crate) shards: Shards,
    pub(crate) funclets: watch::Receiver<Funclets>,
    pub(crate) logs: mpsc::Sender<logs::Ask>,
    pub(crate) code_disk: Arc<CodeCounters>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) log: OperatorLog,
}

impl Node {
    pub(crate) fn new(parts: NodeParts) -> Self {
        let NodeParts { config, registry, code, runtimes, shards, funclets, logs, code_disk, phase, log } =
            parts;
        Self {
            config,
            registry,
            code,
            runtimes,
            shards,
            funclets,
            logs,
            log_disk: Arc::default(),
            code_disk,
            phase,
            log,
            started: Instant::now(),
            abnormal: Mutex::default(),
            unused_code: Mutex::default(),
            code_room: Mutex::default(),
            skipped: Mutex::default(),
            key_locks: std::array::from_fn(|_| Arc::default()),
        }
    }

    /// The account in either family's header, else the default one. An id that is none is nobody's: `None`.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Option<AccountId> {
        let pairs = headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        let Some(account) = headers::account(pairs) else {
            return Some(self.config.default_account.clone());
        };
        std::str::from_utf8(account).ok().and_then(|text| AccountId::parse(text).ok())
    }

    /// Held from reading a function to the last shard's word on its change.
    pub(crate) async fn lock_key(&self, key: &str) -> OwnedMutexGuard<()> {
        let count = KEY_LOCKS as u64;
        let at = usize::try_from(stable_tag(&[key.as_bytes()]) % count).unwrap_or_default();
        self.key_locks[at].clone().lock_owned().await
    }

    /// Waits until changes may be made: a stored function must not reach a shard after its own redeploy.
    pub(crate) async fn ready_for_changes(&self) -> Result<(), NotNow> {
        let mut phase = self.phase.clone();
        let settled = timeout(DEPLOY_TIMEOUT, phase.wait_for(|phase| *phase != Phase::Loading)).await;
        match settled.ok().and_then(Result::ok).map(|phase| *phase) {
            Some(Phase::Ready) => Ok(()),
            Some(Phase::Stopping) => Err(NotNow::Stopping),
            Some(Phase::Loading) | None => Err(NotNow::Loading),
        }
    }
}

/// Hands an operation to the journal thread and waits for its answer.
pub(crate) async fn ask_registry<T: Send + 'static>(
    submit: impl FnOnce(Done<T>) -> Result<(), RegistryError>,
) -> Result<T, RegistryError> {
    let (reply, answer) = oneshot::channel();
    submit(Box::new(move |result| drop(reply.send(result))))?;
    answer.await.unwrap_or(Err(RegistryError::Stopped))
}
