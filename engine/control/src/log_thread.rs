//! The log thread: writes what functions print to disk, while the control thread goes on.
//!
//! Owns: the queue to it and its counters. Must not know: who reads logs.
//! What the disk cannot take in time is counted and left out; it stays in memory for readers all the same.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use faaster_limits::{LOG_RING_BYTES_MAX, LOG_WRITES_BYTES_MAX, LOG_WRITES_MAX};
use faaster_store::LogStore;
use faaster_store::log::{Kept, LogBudget};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::logs::Entry;

/// For `/v1/node`.
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    waiting_bytes: AtomicU64,
    held_bytes: AtomicU64,
    written_bytes: AtomicU64,
    removed_bytes: AtomicU64,
    dropped_bytes: AtomicU64,
}

/// As it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct LogDiskView {
    bytes: u64,
    budget_bytes: u64,
    per_function_bytes: u64,
    /// Since the start, as the next two.
    written_bytes: u64,
    /// For a budget, oldest first.
    removed_bytes: u64,
    /// Never written: the disk was slow, full or broken.
    dropped_bytes: u64,
}

impl LogCounters {
    pub(crate) fn view(&self, budget: LogBudget) -> LogDiskView {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogDiskView {
            bytes: read(&self.held_bytes),
            budget_bytes: budget.bytes,
            per_function_bytes: budget.per_function_bytes,
            written_bytes: read(&self.written_bytes),
            removed_bytes: read(&self.removed_bytes),
            dropped_bytes: read(&self.dropped_bytes),
        }
    }
}

/// Some output of a function.
#[derive(Debug)]
struct Chunk {
    function: String,
    line: Vec<u8>,
}

/// What the thread is to do.
#[derive(Debug)]
enum Job {
    Keep(Chunk),
    /// Read what earlier engines kept of a function.
    Earlier {
        function: String,
        reply: oneshot::Sender<Vec<Entry>>,
    },
}

/// A handle; when it is dropped, what was handed over is written, and the thread ends.
#[derive(Debug)]
pub(crate) struct LogThread {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<LogCounters>,
}

impl LogThread {
    /// `complain` is told when logs cannot be written, once for as long as that lasts.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(
        root: PathBuf,
        budget: LogBudget,
        counters: Arc<LogCounters>,
        complain: impl Fn(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(LOG_WRITES_MAX);
        let writer = Writer { counters: counters.clone(), complain, is_broken: false };
        let run = move || writer.run(&root, budget, queue);
        let thread = std::thread::Builder::new().name("logs".into()).spawn(run)?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), counters })
    }

    /// Hands over output of a function; never waits.
    pub(crate) fn keep(&self, function: &str, entry: &Entry) {
        let mut line = serde_json::to_vec(entry).expect("texts always serialise");
        line.push(b'\n');
        let bytes = line.len() as u64;
        let jobs = self.jobs.as_ref().expect("there until the drop");
        let waiting = self.counters.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let chunk = Chunk { function: function.to_owned(), line };
        if waiting > LOG_WRITES_BYTES_MAX || jobs.try_send(Job::Keep(chunk)).is_err() {
            self.counters.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.counters.dropped_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl LogThread {
    /// Asks for the last lines that a function printed before this engine's start. `None`: too much waits.
    pub(crate) fn earlier(&self, function: &str) -> Option<oneshot::Receiver<Vec<Entry>>> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Earlier { function: function.to_owned(), reply };
        let jobs = self.jobs.as_ref().expect("there until the drop");
        jobs.try_send(job).is_ok().then_some(answer)
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of it has been told already.
            thread.join().ok();
        }
    }
}

/// The thread's own.
struct Writer<C> {
    counters: Arc<LogCounters>,
    complain: C,
    is_broken: bool,
}

impl<C: Fn(&str)> Writer<C> {
    fn run(mut self, root: &std::path::Path, budget: LogBudget, mut queue: mpsc::Receiver<Job>) {
        let mut store = match LogStore::open(root, budget) {
            Ok(store) => Some(store),
            Err(error) => {
                self.broken(&error);
                None
            }
        };
        while let Some(job) = queue.blocking_recv() {
            match job {
                Job::Keep(chunk) => self.keep(store.as_mut(), &chunk),
                Job::Earlier { function, reply } => {
                    let most = LOG_RING_BYTES_MAX as u64;
                    let lines =
                        store.as_ref().map(|store| store.earlier(&function, most)).unwrap_or(Ok(Vec::new()));
                    // What cannot be read is not there: the reader gets what is in memory.
                    drop(reply.send(entries(&lines.unwrap_or_default())));
                }
            }
        }
    }

    fn keep(&mut self, mut store: Option<&mut LogStore>, chunk: &Chunk) {
        let Chunk { function, line } = chunk;
        let result = store.as_mut().map_or(Ok(Kept::No), |store| store.append(function, line));
        let counter = match result {
            Ok(Kept::Yes) => {
                self.is_broken = false;
                &self.counters.written_bytes
            }
            Ok(Kept::No) => &self.counters.dropped_bytes,
            Err(error) => {
                self.broken(&error);
                &self.counters.dropped_bytes
            }
        };
        counter.fetch_add(line.len() as u64, Ordering::Relaxed);
        self.counters.waiting_bytes.fetch_sub(line.len() as u64, Ordering::Relaxed);
        if let Some(store) = store {
            self.counters.held_bytes.store(store.bytes(), Ordering::Relaxed);
            self.counters.removed_bytes.store(store.removed_bytes(), Ordering::Relaxed);
        }
    }

    fn broken(&mut self, error: &faaster_store::log::LogError) {
        if !self.is_broken {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            (self.complain)(&format!("logs of functions are not kept on disk: {error}: {cause}"));
        }
        self.is_broken = true;
    }
}

/// Lines of a log as entries; what is none, of another version say, is left out.
fn entries(lines: &[u8]) -> Vec<Entry> {
    lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: LogBudget = LogBudget { bytes: 4000, per_function_bytes: 4000 };

    fn entry(text: &str) -> Entry {
        let (time, version, request_id) = ("t".into(), "1".into(), String::new());
        Entry { cursor: 0, time, version, request_id, text: text.into() }
    }

    #[test]
    fn what_was_handed_over_is_on_disk_when_the_thread_has_ended() {
        let root = tempfile::tempdir().unwrap();
        let counters = Arc::new(LogCounters::default());
        let complain = |text: &str| panic!("{text}");
        let thread = LogThread::start(root.path().join("logs"), BUDGET, counters.clone(), complain).unwrap();
        thread.keep("account:f", &entry("hello\n"));
        thread.keep("account:f", &entry(&"x".repeat(5000)));
        drop(thread);
        let file = root.path().join("logs/account:f/00000000000000000000.log");
        let text = std::fs::read_to_string(file).unwrap();
        assert_eq!(text, "{\"Time\":\"t\",\"Version\":\"1\",\"RequestId\":\"\",\"Text\":\"hello\\n\"}\n");
        let view = counters.view(BUDGET);
        assert_eq!((view.bytes, view.written_bytes, view.removed_bytes), (text.len() as u64, view.bytes, 0));
        assert!(view.dropped_bytes > 5000, "{view:?}");
    }

    #[test]
    fn lines_of_an_earlier_engine_come_back_and_its_own_do_not() {
        let root = tempfile::tempdir().unwrap();
        let start = || {
            let (folder, counters) = (root.path().join("logs"), Arc::new(LogCounters::default()));
            LogThread::start(folder, BUDGET, counters, |text| panic!("{text}")).unwrap()
        };
        let first = start();
        first.keep("account:f", &entry("one\n"));
        first.keep("account:f", &entry("two\n"));
        assert_eq!(first.earlier("account:f").unwrap().blocking_recv().unwrap(), []);
        drop(first);
        std::fs::write(root.path().join("logs/account:f/00000000000000000007.log"), "no entry\n").unwrap();
        let second = start();
        second.keep("account:f", &entry("three\n"));
        let earlier = second.earlier("account:f").unwrap().blocking_recv().unwrap();
        assert_eq!(earlier, [entry("one\n"), entry("two\n")]);
        assert_eq!(second.earlier("account:g").unwrap().blocking_recv().unwrap(), []);
    }

    #[test]
    fn what_waits_is_bounded() {
        let counters = Arc::new(LogCounters::default());
        // Nobody takes what is handed over.
        let (jobs, _queue) = mpsc::channel(LOG_WRITES_MAX);
        let thread = LogThread { jobs: Some(jobs), thread: None, counters: counters.clone() };
        let large = entry(&"x".repeat(1 << 20));
        (0..100).for_each(|_| thread.keep("f", &large));
        let waiting = counters.waiting_bytes.load(Ordering::Relaxed);
        assert!((LOG_WRITES_BYTES_MAX / 2..=LOG_WRITES_BYTES_MAX).contains(&waiting), "{waiting}");
        assert!(counters.view(BUDGET).dropped_bytes > LOG_WRITES_BYTES_MAX);
    }

    #[test]
    fn a_disk_that_refuses_is_told_of_once() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("logs"), "not a directory").unwrap();
        let counters = Arc::new(LogCounters::default());
        let (told, said) = std::sync::mpsc::channel();
        let complain = move |text: &str| told.send(text.to_owned()).unwrap();
        let thread = LogThread::start(root.path().join("logs"), BUDGET, counters.clone(), complain).unwrap();
        (0..3).for_each(|_| thread.keep("f", &entry("lost")));
        drop(thread);
        assert_eq!(said.iter().count(), 1);
        let view = counters.view(BUDGET);
        assert!(view.dropped_bytes > 0 && view.written_bytes == 0, "{view:?}");
    }
}
