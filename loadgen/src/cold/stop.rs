//! Stop signals as an event beside the end of a run.
//!
//! Owns: the handlers of SIGINT, SIGTERM and SIGHUP. Must not know: what is to be cleaned up.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::result::RunResult;
use crate::run::Outcome;

/// What is waited for.
pub(super) enum Event {
    Asked,
    Ended(Box<anyhow::Result<(RunResult, Outcome)>>),
}

/// From its making on, signals no longer end the process.
#[derive(Debug)]
pub(super) struct Stop {
    asked: Arc<AtomicBool>,
    sender: Sender<Event>,
    events: Receiver<Event>,
}

impl Stop {
    /// # Errors
    /// What the kernel refused.
    pub(super) fn catch() -> std::io::Result<Self> {
        let (mut reader, writer) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        let (sender, events) = channel();
        let asked = Arc::new(AtomicBool::new(false));
        let (told, raised) = (sender.clone(), Arc::clone(&asked));
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            // One byte for each signal; the first is enough.
            if reader.read_exact(&mut [0]).is_ok() {
                raised.store(true, Ordering::Relaxed);
                // Nobody listens any more only at the very end.
                drop(told.send(Event::Asked));
            }
        })?;
        Ok(Self { asked, sender, events })
    }

    /// Whether a signal came.
    pub(super) fn is_asked_for(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether one comes within this time.
    pub(super) fn is_asked_for_within(&self, time: Duration) -> bool {
        matches!(self.events.recv_timeout(time), Ok(Event::Asked))
    }

    /// For whoever tells of an end.
    pub(super) fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// The next event. A run always ends: all its waits have deadlines.
    pub(super) fn next(&self) -> Option<Event> {
        self.events.recv().ok()
    }
}
