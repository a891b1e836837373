//! The code thread: unpacks, hashes, packs and removes, one job at a time.
//!
//! Owns: the code store and the queue to it. Must not know: what jobs are for.
//! A zip of 50 MiB takes a second; on the control thread that second would be everybody's.

use std::io;

use faaster_limits::CODE_JOBS_MAX;
use faaster_store::CodeStore;
use tokio::sync::{Semaphore, mpsc, oneshot};

type Job = Box<dyn FnOnce(&mut CodeStore) + Send>;

/// A handle; the thread ends when it is gone and all jobs are done.
#[derive(Debug)]
pub(crate) struct CodeThread {
    jobs: mpsc::Sender<Job>,
    uploads: Semaphore,
}

/// Why a job was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodeThreadError {
    #[error("{CODE_JOBS_MAX} uploads are being unpacked; try again later")]
    Busy,
    #[error("code thread has stopped")]
    Stopped,
}

impl CodeThread {
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(mut store: CodeStore) -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(CODE_JOBS_MAX);
        std::thread::Builder::new().name("code".into()).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut store);
            }
        })?;
        Ok(Self { jobs, uploads: Semaphore::new(CODE_JOBS_MAX) })
    }

    /// Does a client's job, unless too many wait already.
    pub(crate) async fn upload<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut CodeStore) -> T + Send + 'static,
    ) -> Result<T, CodeThreadError> {
        let _place = self.uploads.try_acquire().map_err(|_| CodeThreadError::Busy)?;
        self.run(job).await
    }

    /// Does a job of the engine's own: it waits for its turn.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut CodeStore) -> T + Send + 'static,
    ) -> Result<T, CodeThreadError> {
        let (reply, answer) = oneshot::channel();
        // Nobody waits any more if the engine is stopping; the job is done all the same.
        let job: Job = Box::new(move |store| drop(reply.send(job(store))));
        self.jobs.send(job).await.map_err(|_| CodeThreadError::Stopped)?;
        answer.await.map_err(|_| CodeThreadError::Stopped)
    }
}
