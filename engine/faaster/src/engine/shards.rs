//! The shards' threads.
//!
//! Owns: their start. Must not know: what a shard does.

use std::thread::Builder;

use faaster_shard::mailbox::CommandSender;
use faaster_shard::{Notice, Packet, Prepared, network};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::EngineError;
use crate::config::Config;
use crate::containers::chain;
use crate::log::Log;

/// Starts a pinned thread for each shard. A shard that fails ends the process: the supervisor starts it again whole.
///
/// # Errors
/// No thread can be started, or there are no descriptors left.
pub fn start(
    prepared: Vec<Prepared>,
    config: &Config,
    notices: &Sender<Notice>,
    log: Log,
) -> Result<Vec<CommandSender>, EngineError> {
    let (mailboxes, senders) = network::<Packet>(config.shards).map_err(EngineError::Thread)?;
    for (index, (shard, mailbox)) in prepared.into_iter().zip(mailboxes).enumerate() {
        let core = config.core_of(index);
        let notices = notices.clone();
        let sink = Box::new(move |notice| {
            notices.try_send(notice).map_err(|refused| match refused {
                TrySendError::Full(notice) | TrySendError::Closed(notice) => notice,
            })
        });
        let seed = seed();
        let thread = Builder::new().name(format!("shard-{index}"));
        thread
            .spawn(move || {
                let Err(error) = shard.run(core, mailbox, sink, seed);
                log.error(chain(&error));
                std::process::abort();
            })
            .map_err(EngineError::Thread)?;
    }
    Ok(senders)
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
