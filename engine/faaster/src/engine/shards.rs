//! The shards' threads.
//!
//! Owns: their start, and what they know before they take the first request. Must not know: what a shard does.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::Builder;

use faaster_function::code_use::CodeUses;
use faaster_function::{Deployed, RuntimeSpec};
use faaster_shard::{MailboxEnd, Notice, Packet, Prepared};
use faaster_store::Registry;
use faaster_store::registry::{RegistryError, wait};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::EngineError;
use crate::config::Config;
use crate::containers::chain;
use crate::log::Log;

/// What the shards know.
pub(crate) type Known = Arc<[Arc<Deployed>]>;

/// Stored functions that this node can run, for shards to know before their first connection: a caller who was waiting
/// while the engine was away is not told that there is no such function. Control loads them all, these again, which
/// changes nothing, and tells about those that cannot run here.
///
/// # Errors
/// The registry cannot be read.
pub(crate) fn known(registry: &Registry, runtimes: &[RuntimeSpec]) -> Result<Known, RegistryError> {
    let records = wait(|done| registry.all(done))?;
    Ok(records.iter().filter_map(|record| record.deployed(runtimes).ok()).map(Arc::new).collect())
}

/// Threads of shards that wait for the word.
#[derive(Debug)]
pub(crate) struct Waiting {
    gates: Vec<SyncSender<Known>>,
}

impl Waiting {
    /// Lets all shards begin.
    pub(crate) fn begin(self, known: &Known) {
        for gate in self.gates {
            gate.send(known.clone()).expect("a shard's thread waits for it");
        }
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
    code_uses: &Arc<CodeUses>,
    log: Log,
) -> Result<Waiting, EngineError> {
    let mut gates = Vec::new();
    for (index, (shard, mailbox)) in prepared.into_iter().zip(mailboxes).enumerate() {
        let core = config.core_of(index);
        let notices = notices.clone();
        let sink = Box::new(move |notice| {
            notices.try_send(notice).map_err(|refused| match refused {
                TrySendError::Full(notice) | TrySendError::Closed(notice) => notice,
            })
        });
        let (seed, uses) = (seed(), code_uses.clone());
        let (gate, word) = sync_channel::<Known>(1);
        gates.push(gate);
        let thread = Builder::new().name(format!("shard-{index}"));
        thread
            .spawn(move || {
                // No word: the engine failed before there was anything to serve.
                let Ok(known) = word.recv() else { return };
                let Err(error) = shard.run(core, mailbox, sink, seed, uses, &known);
                log.error(chain(&error));
                std::process::abort();
            })
            .map_err(EngineError::Thread)?;
    }
    Ok(Waiting { gates })
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
