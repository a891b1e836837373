//! What the control thread is started with and what it can be told.
//!
//! Owns: these shapes. Must not know: where the values come from.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use faaster_function::code_use::CodeUses;
use faaster_function::{AccountId, FunctionRecord, RuntimeSpec};
use faaster_shard::Notice;
use faaster_store::code::{CodeError, Swept};
use faaster_store::log::LogBudget;
use faaster_store::registry::{self, JournalThread, RegistryError};
use faaster_store::{CodeStore, Registry};
use tokio::sync::mpsc::Receiver;

use crate::shards::Shards;

/// Whose functions a caller may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Its own: FaaSter's simple-auth, the default.
    Owner,
    /// Anybody's, for reading. Changing is the owner's in any case.
    Anyone,
}

/// Settings of the control thread.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Stands for a caller who names no account.
    pub default_account: AccountId,
    pub access: Access,
    /// CPU of the node in thousandths of a core, for `/v1/resource`.
    pub millicpus: u32,
    /// What functions print is kept on disk up to this.
    pub log_budget: LogBudget,
    /// Bytes of packages on disk.
    pub code_budget_bytes: u64,
    /// Unpacked code that was not used for so long is removed until it is; `None`: never.
    pub code_idle: Option<Duration>,
    /// How many there are when all are up.
    pub funclets: u16,
    /// Of the engine, for `/v1/node`.
    pub version: &'static str,
    /// Holds `code/`; only named in answers.
    pub data: PathBuf,
}

/// One line for the operator, for instance on standard error.
pub type OperatorLog = Box<dyn Fn(&str) + Send + Sync>;

/// What the control thread works with.
pub struct Parts {
    pub registry: Registry,
    pub code: CodeStore,
    /// Position is the runtime's index, as the shards and funclets know it.
    pub runtimes: Arc<[RuntimeSpec]>,
    pub shards: Shards,
    /// Which packages are in use; the shards take leases.
    pub code_uses: Arc<CodeUses>,
    pub notices: Receiver<Notice>,
    pub commands: Receiver<ControlCommand>,
    pub log: OperatorLog,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("code", &self.code)
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

/// From the engine's main thread.
#[derive(Debug)]
pub enum ControlCommand {
    /// A funclet (re)started; this is the control thread's channel to it (SOCK_SEQPACKET).
    FuncletUp { funclet: u16, channel: OwnedFd },
    /// Let the shards finish what is in flight within this time; then [`crate::run`] returns.
    Stop { grace: Duration },
}

/// What is on disk, opened and in order.
#[derive(Debug)]
pub struct Store {
    pub registry: Registry,
    /// Ends when every [`Registry`] is gone; join it last, so that the database is closed.
    pub journal: JournalThread,
    pub code: CodeStore,
    pub swept: Swept,
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Code(#[from] CodeError),
}

impl Store {
    /// Opens registry and code in `data`, which exists. Blocks. Call it before [`crate::run`].
    ///
    /// # Errors
    /// Either cannot be opened.
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        let (registry, journal) = Registry::open(data)?;
        let records = registry::wait(|done| registry.all(done))?;
        let layers = registry::wait(|done| registry.layers(None, done))?;
        let of_layers = layers.iter().map(|layer| layer.code.sha256);
        let used: std::collections::BTreeSet<_> =
            records.iter().flat_map(FunctionRecord::packages).chain(of_layers).collect();
        let (mut code, swept) = CodeStore::open(&data.join("code"), |hash| used.contains(hash))?;
        // Merged trees have no zip to be unpacked again from.
        for layers in records.iter().filter_map(|record| record.settings.layers.as_ref()) {
            let packages: Vec<_> = layers.list.iter().map(|layer| layer.code.sha256).collect();
            code.know_tree(&packages);
        }
        Ok(Self { registry, journal, code, swept })
    }
}
