//! The journal thread: group commit.
//!
//! Owns: the open database and the order of reads and writes. Must not know: what a record holds.
//! After an I/O error the database refuses everything until it is opened anew, so that is what happens: a disk that was
//! full for a while does no lasting harm.

use std::path::PathBuf;
use std::sync::mpsc::Receiver;

use faaster_limits::JOURNAL_GROUP_MAX;
use redb::Database;

use super::{Deleted, Done, Job, RegistryError, Upserted, WriteJob, Written, tables};

pub(super) struct Journal {
    path: PathBuf,
    database: Option<Database>,
}

/// A write that was tried: its own result, to be sent after the flush.
enum Tried {
    Upsert(Box<Result<Upserted, RegistryError>>, Done<Upserted>),
    Delete(Result<Deleted, RegistryError>, Done<Deleted>),
    Other(Written),
}

impl Tried {
    fn run(job: WriteJob, write: &tables::Write) -> Self {
        match job {
            WriteJob::Upsert(upsert, done) => Self::Upsert(Box::new(write.upsert(*upsert)), done),
            WriteJob::Delete { account, name, version, done } => {
                Self::Delete(write.delete(&account, &name, version.as_ref()), done)
            }
            WriteJob::Other(job) => Self::Other(job(Ok(write))),
        }
    }

    fn error(&self) -> Option<&RegistryError> {
        match self {
            Self::Upsert(result, _) => result.as_ref().as_ref().err(),
            Self::Delete(result, _) => result.as_ref().err(),
            Self::Other(written) => written.error.as_ref(),
        }
    }

    fn send(self, flushed: Result<(), RegistryError>) {
        match self {
            Self::Upsert(result, done) => done(result.and_then(|value| flushed.map(|()| value))),
            Self::Delete(result, done) => done(result.and_then(|value| flushed.map(|()| value))),
            Self::Other(written) => (written.tell)(flushed),
        }
    }
}

impl Journal {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, database: None }
    }

    /// Opens the database and gives the node's id.
    pub(super) fn open(&mut self) -> Result<String, RegistryError> {
        let database = tables::open(&self.path)?;
        let id = tables::node_id(&database)?;
        self.database = Some(database);
        Ok(id)
    }

    /// Serves until every handle is gone.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut writes = Vec::new();
            let mut reads = Vec::new();
            // All that waits, so that one flush serves them; a read waits for the writes that came with it.
            for job in std::iter::once(first).chain(jobs.try_iter()).take(JOURNAL_GROUP_MAX) {
                match job {
                    Job::Read(read) => reads.push(read),
                    Job::Write(write) => writes.push(write),
                }
            }
            if !writes.is_empty() {
                self.write(writes);
            }
            for read in reads {
                read(&mut self);
            }
        }
    }

    /// Runs `action` on the database, opened if an earlier error closed it.
    pub(super) fn with<T>(
        &mut self,
        action: impl FnOnce(&Database) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        if self.database.is_none() {
            self.open()?;
        }
        let database = self.database.as_ref().ok_or(RegistryError::Stopped)?;
        let result = action(database);
        if result.as_ref().is_err_and(RegistryError::is_fatal) {
            self.database = None;
        }
        result
    }

    fn write(&mut self, jobs: Vec<WriteJob>) {
        let mut waiting = jobs.into_iter();
        let mut tried = Vec::with_capacity(waiting.len());
        let flushed = self.with(|database| {
            let write = tables::Write::begin(database)?;
            for job in waiting.by_ref() {
                let one = Tried::run(job, &write);
                // A refusal (the node is full) concerns one caller; when the database fails, nobody's write stands.
                let fatal = one.error().filter(|error| error.is_fatal()).cloned();
                tried.push(one);
                if let Some(error) = fatal {
                    return Err(error);
                }
            }
            write.commit()
        });
        for one in tried {
            one.send(flushed.clone());
        }
        let error = flushed.err().unwrap_or(RegistryError::Stopped);
        for job in waiting {
            match job {
                WriteJob::Upsert(_, done) => done(Err(error.clone())),
                WriteJob::Delete { done, .. } => done(Err(error.clone())),
                WriteJob::Other(job) => (job(Err(error.clone())).tell)(Err(error.clone())),
            }
        }
    }
}
