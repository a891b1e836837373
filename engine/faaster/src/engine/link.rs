//! What the supervisor says while the engine runs: channels to funclets, and when to stop.
//!
//! Owns: the engine's end of the link. Must not know: what shards and control do with it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use faaster_control::ControlCommand;
use faaster_protocol::funclet::LinkMessage;
use faaster_shard::Command;
use faaster_shard::mailbox::CommandSender;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::Sender;

use crate::log::Log;
use crate::supervisor::link::{LinkError, receive};

/// Orders to control that wait; the supervisor gives a handful in an engine's whole life.
pub const ORDERS_MAX: usize = 64;

/// Passes on what the supervisor says, until the link ends. Its end is the supervisor's, which the kernel answers by
/// ending this process.
pub async fn listen(link: OwnedFd, shards: Arc<[CommandSender]>, orders: Sender<ControlCommand>, log: Log) {
    let link = match AsyncFd::new(link) {
        Ok(link) => link,
        Err(error) => return log.error(format_args!("cannot listen to the supervisor: {error}")),
    };
    loop {
        let Ok(mut ready) = link.readable().await else { return };
        match receive(link.as_fd()) {
            Ok(Some(record)) => match LinkMessage::decode(&record.bytes) {
                Ok(LinkMessage::Channels { peer, count }) if record.fds.len() == usize::from(count) => {
                    connect(peer, record.fds, &shards, &orders, log).await;
                }
                Ok(LinkMessage::Channels { .. }) => {
                    log.error("the supervisor sent fewer channels than it said")
                }
                Ok(LinkMessage::Stop { grace_ms }) => {
                    let grace = Duration::from_millis(u64::from(grace_ms));
                    // Control ends when it has drained the shards; if it is gone, the process is about to be.
                    drop(orders.send(ControlCommand::Stop { grace }).await);
                }
                Err(error) => log.error(format_args!("the supervisor said something unknown: {error}")),
            },
            Ok(None) => ready.clear_ready(),
            Err(LinkError::Gone) => return,
            Err(error) => return log.error(error),
        }
    }
}

/// Gives each shard its channel to a funclet that (re)started, and control the last one.
async fn connect(
    funclet: u16,
    mut channels: Vec<OwnedFd>,
    shards: &[CommandSender],
    orders: &Sender<ControlCommand>,
    log: Log,
) {
    if channels.len() != shards.len() + 1 {
        return log.error("the supervisor sent channels for another number of shards");
    }
    if let Some(channel) = channels.pop() {
        drop(orders.send(ControlCommand::FuncletUp { funclet, channel }).await);
    }
    for (shard, channel) in shards.iter().zip(channels) {
        let mut command = Command::FuncletUp { funclet, channel };
        // A full mailbox is a shard behind by thousands of orders; without its channel it could start nothing.
        while let Err(back) = shard.send(command) {
            command = back;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
