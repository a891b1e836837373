//! Orders to the shards, and their answers.
//!
//! Owns: retries while a mailbox is full, and the deadline of an answer. Must not know: what an order means.

use std::fmt;
use std::time::Duration;

use faaster_limits::CONTROL_REPORT_TIMEOUT;
use faaster_shard::Command;
use faaster_shard::api::{Reply, ShardReport};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

type Send_ = dyn Fn(usize, Command) -> Result<(), Command> + Send + Sync;

/// The way to every shard of the engine.
pub struct Shards {
    count: usize,
    send: Box<Send_>,
}

/// A shard did not take an order or did not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("shard {shard} did not answer within {} ms", .within.as_millis())]
pub(crate) struct ShardSilent {
    pub(crate) shard: usize,
    pub(crate) within: Duration,
}

impl fmt::Debug for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Shards {
    /// `send` hands a command to a shard without blocking and gives it back when the shard's mailbox is full.
    pub fn new(
        count: usize,
        send: impl Fn(usize, Command) -> Result<(), Command> + Send + Sync + 'static,
    ) -> Self {
        Self { count, send: Box::new(send) }
    }

    /// Hands a command over, or gives it back.
    #[cfg(test)]
    pub(crate) fn try_send(&self, shard: usize, command: Command) -> Result<(), Command> {
        (self.send)(shard, command)
    }

    /// Hands a command over, waiting while the mailbox is full.
    pub(crate) async fn send(
        &self,
        shard: usize,
        command: Command,
        deadline: Instant,
    ) -> Result<(), ShardSilent> {
        let begun = Instant::now();
        let mut command = command;
        loop {
            match (self.send)(shard, command) {
                Ok(()) => return Ok(()),
                Err(_) if Instant::now() >= deadline => {
                    return Err(ShardSilent { shard, within: begun.elapsed() });
                }
                Err(back) => command = back,
            }
            // A shard empties 4,096 entries in well under a millisecond; there is no bell in this direction.
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Gives every shard a command and waits for all the answers, in the shards' order.
    pub(crate) async fn ask_all<T: Send + 'static>(
        &self,
        within: Duration,
        make: impl Fn(Reply<T>) -> Command,
    ) -> Result<Vec<T>, ShardSilent> {
        let deadline = Instant::now() + within;
        let mut answers = Vec::with_capacity(self.count);
        for shard in 0..self.count {
            let (reply, answer) = oneshot::channel();
            let command = make(Box::new(move |value| {
                // Nobody waits any more once the deadline has passed.
                drop(reply.send(value));
            }));
            self.send(shard, command, deadline).await?;
            answers.push(answer);
        }
        let mut values = Vec::with_capacity(self.count);
        for (shard, answer) in answers.into_iter().enumerate() {
            match timeout_at(deadline, answer).await {
                Ok(Ok(value)) => values.push(value),
                Ok(Err(_)) | Err(_) => return Err(ShardSilent { shard, within }),
            }
        }
        Ok(values)
    }

    pub(crate) async fn reports(&self) -> Result<Vec<ShardReport>, ShardSilent> {
        self.ask_all(CONTROL_REPORT_TIMEOUT, Command::Report).await
    }
}
