//! What the supervisor says while the engine runs: channels to funclets, and when to stop.
//!
//! Owns: the engine's end of the link. Must not know: what shards and control do with it.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use faaster_control::ControlCommand;
use faaster_protocol::funclet::LinkMessage;
use faaster_shard::Command;
use faaster_shard::mailbox::CommandSender;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc::Sender;

use crate::log::Log;
use crate::supervisor::link::{LinkError, receive};

/// Orders to control that wait; the supervisor gives a handful in an engine's whole life.
pub(crate) const ORDERS_MAX: usize = 64;

/// Passes on what the supervisor says, until the link ends. Its end is the supervisor's, which the kernel answers by
/// ending this process.
pub(crate) async fn listen(
    link: OwnedFd,
    shards: Arc<[CommandSender]>,
    orders: Sender<ControlCommand>,
    log: Log,
) {
    // It is a SOCK_SEQPACKET socket; what tokio does with this type, waiting for it, is the same for both.
    let link = match UnixDatagram::from_std(link.into()) {
        Ok(link) => link,
        Err(error) => return log.error(format_args!("cannot listen to the supervisor: {error}")),
    };
    loop {
        if link.readable().await.is_err() {
            return;
        }
        let received = link.try_io(Interest::READABLE, || {
            let received = receive(link.as_fd());
            if matches!(received, Ok(None)) { Err(ErrorKind::WouldBlock.into()) } else { Ok(received) }
        });
        match received.unwrap_or(Ok(None)) {
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
            // A false alarm, of which tokio has taken note.
            Ok(None) => {}
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
