//! The shards' threads.
//!
//! Owns: their start, and what they know before they take the first request. Must not know: what a shard does.

use std::sync::{Arc, Barrier};
use std::thread::Builder;

use faaster_function::RuntimeSpec;
use faaster_limits::MAILBOX_MAX;
use faaster_shard::mailbox::CommandSender;
use faaster_shard::{Command, MailboxEnd, Notice, Packet, Prepared};
use faaster_store::Registry;
use faaster_store::registry::{RegistryError, wait};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::EngineError;
use crate::config::Config;
use crate::containers::chain;
use crate::log::Log;

/// Functions that find room in a mailbox before anybody empties it, with room to spare for the first orders.
const PRELOADED_MAX: usize = MAILBOX_MAX / 2;

/// Puts stored functions into the mailboxes of shards that do not run yet: a shard reads its mailbox before it reads
/// from its first connection, so a caller who was waiting while the engine was away is not told that there is no such
/// function. Control loads them all, these again, which changes nothing; beyond [`PRELOADED_MAX`] it is control alone.
///
/// # Errors
/// The registry cannot be read.
pub(crate) fn preload(
    registry: &Registry,
    runtimes: &[RuntimeSpec],
    shards: &[CommandSender],
) -> Result<(), RegistryError> {
    let records = wait(|done| registry.all(done))?;
    // What this node cannot run is told by control.
    let deployable = records.iter().filter_map(|record| record.deployed(runtimes).ok()).map(Arc::new);
    for deployed in deployable.take(PRELOADED_MAX) {
        for shard in shards {
            let taken = shard.send(Command::Deploy(deployed.clone(), Box::new(drop)));
            assert!(taken.is_ok(), "an empty mailbox has room for half of what it holds");
        }
    }
    Ok(())
}

/// Threads of shards that wait for the word.
#[derive(Debug)]
pub(crate) struct Waiting {
    gate: Arc<Barrier>,
}

impl Waiting {
    /// Lets all shards begin.
    pub(crate) fn begin(self) {
        self.gate.wait();
    }
}

/// Makes a thread for each shard, with the nice value of the calling one; it is pinned and begins at
/// [`Waiting::begin`]. A shard that fails ends the process: the supervisor starts it again whole.
///
/// # Errors
/// No thread can be started.
pub(crate) fn start(
    prepared: Vec<Prepared>,
    mailboxes: Vec<MailboxEnd<Packet>>,
    config: &Config,
    notices: &Sender<Notice>,
    log: Log,
) -> Result<Waiting, EngineError> {
    let gate = Arc::new(Barrier::new(prepared.len() + 1));
    for (index, (shard, mailbox)) in prepared.into_iter().zip(mailboxes).enumerate() {
        let core = config.core_of(index);
        let notices = notices.clone();
        let sink = Box::new(move |notice| {
            notices.try_send(notice).map_err(|refused| match refused {
                TrySendError::Full(notice) | TrySendError::Closed(notice) => notice,
            })
        });
        let seed = seed();
        let gate = gate.clone();
        let thread = Builder::new().name(format!("shard-{index}"));
        thread
            .spawn(move || {
                gate.wait();
                let Err(error) = shard.run(core, mailbox, sink, seed);
                log.error(chain(&error));
                std::process::abort();
            })
            .map_err(EngineError::Thread)?;
    }
    Ok(Waiting { gate })
}

/// Random numbers that nobody outside can guess: request ids begin from them.
fn seed() -> [u64; 2] {
    let mut bytes = [0; 16];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty());
    assert_eq!(filled, Ok(bytes.len()), "a few random bytes are always there once the system is up");
    let (first, second) = bytes.split_at(8);
    let number = |half: &[u8]| u64::from_ne_bytes(half.try_into().expect("half of 16 bytes"));
    [number(first), number(second)]
}
