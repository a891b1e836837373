//! The registry of functions: `data/registry.redb`, and the one thread that touches it.
//!
//! Owns: the database and the journal thread. Must not know: HTTP, shards, where code lies.
//! Callers hand over an operation and a callback; the thread takes all that wait, writes them in one transaction, flushes
//! once, and only then calls back. So whatever was acknowledged survives kill -9, and 64 clients pay one flush.

mod journal;
pub mod layers;
mod tables;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use faaster_function::record::CodeRef;
use faaster_function::settings::Settings;
use faaster_function::{AccountHash, AccountId, FunctionName, FunctionRecord, Version};
use faaster_limits::{FUNCTIONS_MAX, JOURNAL_OPERATIONS_MAX, LAYER_VERSIONS_MAX};
use faaster_protocol::funclet::CodeHash;

use journal::Journal;

/// Why the registry did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    #[error("{JOURNAL_OPERATIONS_MAX} registry operations are waiting; try again later")]
    Busy,
    #[error("registry has stopped")]
    Stopped,
    #[error("node holds {FUNCTIONS_MAX} function versions, which is its bound; delete some")]
    Full,
    #[error("node holds {LAYER_VERSIONS_MAX} layer versions, which is its bound; delete some")]
    LayersFull,
    #[error("registry at {path} has format {found}, this engine knows up to {known}; use a newer engine")]
    Format { path: String, found: u64, known: u64 },
    #[error("registry at {path} is in use by another process, or still by one that just ended")]
    InUse { path: String },
    #[error("no space left on the device while {step}; free some, or move the data directory")]
    DiskFull { step: &'static str },
    #[error("{step} failed")]
    Database { step: &'static str, source: Arc<redb::Error> },
    #[error("record of {key} cannot be read")]
    Record { key: String, source: Arc<serde_json::Error> },
}

impl RegistryError {
    /// Whether the database itself failed, so that nothing of the transaction may stand.
    fn is_fatal(&self) -> bool {
        matches!(self, Self::Database { .. } | Self::DiskFull { .. })
    }

    fn database(step: &'static str, error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => Self::DiskFull { step },
            source => Self::Database { step, source: Arc::new(source) },
        }
    }
}

/// A deploy, as the registry is to keep it.
#[derive(Debug, Clone)]
pub struct Upsert {
    pub account: AccountHash,
    pub owner: AccountId,
    pub name: FunctionName,
    pub version: Version,
    pub settings: Settings,
    pub code: CodeRef,
    /// Taken if the key is new or its code changes; else the key keeps the one it has.
    pub fresh_commit_id: String,
    pub modified_secs: u64,
}

/// What an [`Upsert`] led to.
#[derive(Debug, Clone)]
pub struct Upserted {
    pub record: FunctionRecord,
    /// Code that no function names any more.
    pub unused: Vec<CodeHash>,
}

/// What a delete led to.
#[derive(Debug, Clone, Default)]
pub struct Deleted {
    pub records: Vec<FunctionRecord>,
    /// Code that no function names any more.
    pub unused: Vec<CodeHash>,
}

/// One page of a listing.
#[derive(Debug, Clone, Default)]
pub struct Page {
    pub records: Vec<FunctionRecord>,
    /// `<name>:<version>` of the last one, if there are more.
    pub next: Option<String>,
}

/// Called once, on the journal thread: must not block.
pub type Done<T> = Box<dyn FnOnce(Result<T, RegistryError>) + Send>;

/// A handle; clones share the thread. The thread ends when all are gone.
#[derive(Debug, Clone)]
pub struct Registry {
    jobs: SyncSender<Job>,
    node_id: Arc<str>,
}

/// The thread behind a [`Registry`].
#[derive(Debug)]
pub struct JournalThread(JoinHandle<()>);

impl JournalThread {
    /// Waits until it has ended: every handle must be gone or going.
    pub fn join(self) {
        // A panic aborts the process in every profile, so there is no error to pass on.
        self.0.join().unwrap_or_default();
    }
}

type ReadJob = Box<dyn FnOnce(&mut Journal) + Send>;

enum Job {
    Write(WriteJob),
    Read(ReadJob),
}

enum WriteJob {
    Upsert(Box<Upsert>, Done<Upserted>),
    Delete { account: AccountHash, name: FunctionName, version: Option<Version>, done: Done<Deleted> },
    Other(OtherWrite),
}

/// A write that knows what to do with its result: it is given the transaction, or why there is none.
type OtherWrite = Box<dyn FnOnce(Result<&tables::Write, RegistryError>) -> Written + Send>;

/// What became of an [`OtherWrite`], and who is to be told once it is flushed.
struct Written {
    error: Option<RegistryError>,
    tell: Box<dyn FnOnce(Result<(), RegistryError>)>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Write(WriteJob::Upsert(..)) => "Upsert",
            Self::Write(WriteJob::Delete { .. }) => "Delete",
            Self::Write(WriteJob::Other(_)) => "Other",
            Self::Read(_) => "Read",
        })
    }
}

impl Registry {
    /// Opens the database in `directory`, makes it if it is not there, and starts the journal thread.
    ///
    /// # Errors
    /// It cannot be opened, is in use, or is of a later format.
    pub fn open(directory: &Path) -> Result<(Self, JournalThread), RegistryError> {
        let mut journal = Journal::new(directory.join("registry.redb"));
        let node_id = journal.open()?;
        let (jobs, queue) = sync_channel(JOURNAL_OPERATIONS_MAX);
        let thread =
            std::thread::Builder::new().name("journal".into()).spawn(move || journal.run(&queue)).map_err(
                |error| RegistryError::database("starting the journal thread", redb::Error::Io(error)),
            )?;
        Ok((Self { jobs, node_id: node_id.into() }, JournalThread(thread)))
    }

    /// Made at random when the data directory was first used.
    pub fn node_id(&self) -> &str {
        &self.node_id
    }

    /// Creates or replaces a version of a function.
    ///
    /// # Errors
    /// Only that it could not be handed over; all else goes to `done`.
    pub fn upsert(&self, upsert: Upsert, done: Done<Upserted>) -> Result<(), RegistryError> {
        self.submit(Job::Write(WriteJob::Upsert(Box::new(upsert), done)))
    }

    /// Deletes one version, or all; deleting what is not there deletes nothing.
    ///
    /// # Errors
    /// Only that it could not be handed over; all else goes to `done`.
    pub fn delete(
        &self,
        account: AccountHash,
        name: FunctionName,
        version: Option<Version>,
        done: Done<Deleted>,
    ) -> Result<(), RegistryError> {
        self.submit(Job::Write(WriteJob::Delete { account, name, version, done }))
    }

    /// # Errors
    /// Only that it could not be handed over; all else goes to `done`.
    pub fn get(&self, key: String, done: Done<Option<FunctionRecord>>) -> Result<(), RegistryError> {
        self.read(move |journal| journal.with(|database| tables::get(database, &key)), done)
    }

    /// Function versions of an account after `marker` (`<name>:<version>`), sorted, at most `limit`.
    ///
    /// # Errors
    /// Only that it could not be handed over; all else goes to `done`.
    pub fn list(
        &self,
        account: AccountHash,
        marker: Option<String>,
        limit: usize,
        done: Done<Page>,
    ) -> Result<(), RegistryError> {
        self.read(
            move |journal| {
                journal.with(|database| tables::list(database, &account, marker.as_deref(), limit))
            },
            done,
        )
    }

    /// All versions of a function: `$LATEST` first, then by number.
    ///
    /// # Errors
    /// Only that it could not be handed over; all else goes to `done`.
    pub fn versions(
        &self,
        account: AccountHash,
        name: FunctionName,
        done: Done<Vec<FunctionRecord>>,
    ) -> Result<(), RegistryError> {
        self.read(move |journal| journal.with(|database| tables::versions(database, &account, &name)), done)
    }

    /// Everything, for the start of the engine.
    ///
    /// # Errors
    /// Only that it could not be handed over; all else goes to `done`.
    pub fn all(&self, done: Done<Vec<FunctionRecord>>) -> Result<(), RegistryError> {
        self.read(|journal| journal.with(tables::all), done)
    }

    /// How many function versions name this code.
    ///
    /// # Errors
    /// Only that it could not be handed over; all else goes to `done`.
    pub fn code_uses(&self, code: CodeHash, done: Done<u64>) -> Result<(), RegistryError> {
        self.read(move |journal| journal.with(|database| tables::code_uses(database, &code)), done)
    }

    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Journal) -> Result<T, RegistryError> + Send + 'static,
        done: Done<T>,
    ) -> Result<(), RegistryError> {
        self.submit(Job::Read(Box::new(move |journal| done(read(journal)))))
    }

    fn write_other<T: Send + 'static>(
        &self,
        write: impl FnOnce(&tables::Write) -> Result<T, RegistryError> + Send + 'static,
        done: Done<T>,
    ) -> Result<(), RegistryError> {
        let job: OtherWrite = Box::new(move |transaction| {
            let result = transaction.and_then(write);
            let error = result.as_ref().err().cloned();
            let tell = Box::new(move |flushed: Result<(), RegistryError>| {
                done(result.and_then(|value| flushed.map(|()| value)));
            });
            Written { error, tell }
        });
        self.submit(Job::Write(WriteJob::Other(job)))
    }

    fn submit(&self, job: Job) -> Result<(), RegistryError> {
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => RegistryError::Busy,
            TrySendError::Disconnected(_) => RegistryError::Stopped,
        })
    }
}

/// Waits for an operation's answer on the calling thread: for start-up and for threads that may block.
///
/// # Errors
/// The operation's own.
pub fn wait<T: Send + 'static>(
    submit: impl FnOnce(Done<T>) -> Result<(), RegistryError>,
) -> Result<T, RegistryError> {
    let (sender, receiver) = sync_channel(1);
    submit(Box::new(move |result| {
        // The receiver waits below for as long as this exists.
        sender.send(result).unwrap_or_default();
    }))?;
    receiver.recv().unwrap_or(Err(RegistryError::Stopped))
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
