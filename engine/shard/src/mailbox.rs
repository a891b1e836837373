//! The way between shards, and from control to them: bounded queues, and a doorbell that is rung only for a sleeper.
//!
//! Owns: one single-producer lane per ordered pair of shards, one lane from control to each shard, one doorbell per
//! shard (MSG_RING and eventfd cost the same here; the eventfd is simpler). Must not know: what the messages mean.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_queue::ArrayQueue;
use faaster_limits::MAILBOX_MAX;
use rustix::event::{EventfdFlags, eventfd};

use crate::api::{Command, ShardId};

/// Wakes one shard.
#[derive(Debug)]
struct Doorbell {
    descriptor: OwnedFd,
    /// Set by the shard before it sleeps; whoever clears it rings.
    sleeping: AtomicBool,
}

impl Doorbell {
    fn ring_if_sleeping(&self) {
        // The push before this and the sleeper's look at its queues after setting the flag must not both miss each other.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            // An eventfd write of 1 can only fail when its counter is at the limit, and then it is ringing already.
            rustix::io::write(&self.descriptor, &1u64.to_ne_bytes()).ok();
        }
    }
}

/// A shard's end. `M` is what shards say to each other.
#[derive(Debug)]
pub struct MailboxEnd<M> {
    shard: ShardId,
    bell: Arc<Doorbell>,
    commands: Arc<ArrayQueue<Command>>,
    inbox: Vec<Arc<ArrayQueue<M>>>,
    outbox: Vec<(Arc<ArrayQueue<M>>, Arc<Doorbell>)>,
}

/// Control's end towards one shard.
#[derive(Debug, Clone)]
pub struct CommandSender {
    commands: Arc<ArrayQueue<Command>>,
    bell: Arc<Doorbell>,
}

impl CommandSender {
    /// Hands a command over; never blocks.
    ///
    /// # Errors
    /// The command itself when the shard's lane is full.
    pub fn send(&self, command: Command) -> Result<(), Command> {
        self.commands.push(command)?;
        self.bell.ring_if_sleeping();
        Ok(())
    }
}

/// Makes the ends of a network of `shards` shards.
///
/// # Errors
/// eventfd(2)'s: out of descriptors.
pub fn network<M>(shards: u16) -> io::Result<(Vec<MailboxEnd<M>>, Vec<CommandSender>)> {
    let count = usize::from(shards);
    let lane = || Arc::new(ArrayQueue::new(MAILBOX_MAX));
    let lanes: Vec<Vec<_>> = (0..count).map(|_| (0..count).map(|_| lane()).collect()).collect();
    let mut bells = Vec::with_capacity(count);
    for _ in 0..count {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC)?;
        bells.push(Arc::new(Doorbell { descriptor, sleeping: AtomicBool::new(false) }));
    }
    let commands: Vec<_> = (0..count).map(|_| Arc::new(ArrayQueue::new(MAILBOX_MAX))).collect();
    let senders = (0..count)
        .map(|at| CommandSender { commands: commands[at].clone(), bell: bells[at].clone() })
        .collect();
    let ends = (0..shards)
        .map(|shard| {
            let at = usize::from(shard);
            MailboxEnd {
                shard: ShardId(shard),
                bell: bells[at].clone(),
                commands: commands[at].clone(),
                inbox: (0..count).map(|from| lanes[from][at].clone()).collect(),
                outbox: (0..count).map(|to| (lanes[at][to].clone(), bells[to].clone())).collect(),
            }
        })
        .collect();
    Ok((ends, senders))
}

impl<M> MailboxEnd<M> {
    /// Whose end this is.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// A descriptor that becomes readable when the shard is rung.
    ///
    /// # Errors
    /// dup(2)'s.
    pub fn bell(&self) -> io::Result<OwnedFd> {
        self.bell.descriptor.try_clone()
    }

    /// Hands a message to another shard.
    ///
    /// # Errors
    /// The message itself when the lane is full.
    pub fn send(&self, to: ShardId, message: M) -> Result<(), M> {
        let (lane, bell) = &self.outbox[usize::from(to.0)];
        lane.push(message)?;
        bell.ring_if_sleeping();
        Ok(())
    }

    pub fn next_command(&self) -> Option<Command> {
        self.commands.pop()
    }

    /// The next message of any shard, lanes in turn from `first` on.
    pub fn next_message(&self, first: usize) -> Option<(ShardId, M)> {
        let count = self.inbox.len();
        (0..count).map(|step| (first + step) % count).find_map(|from| {
            let from_id = ShardId(u16::try_from(from).expect("at most SHARDS_MAX shards"));
            self.inbox[from].pop().map(|message| (from_id, message))
        })
    }

    /// Says that the shard is going to sleep. `false`: something arrived, do not.
    pub fn prepare_sleep(&self) -> bool {
        self.bell.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let empty = self.commands.is_empty() && self.inbox.iter().all(|lane| lane.is_empty());
        if !empty {
            self.bell.sleeping.store(false, Ordering::Relaxed);
        }
        empty
    }

    /// Says that the shard is awake: nobody needs to ring.
    pub fn awake(&self) {
        self.bell.sleeping.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_lane_gives_the_message_back() {
        let (ends, _) = network::<usize>(2).unwrap();
        for n in 0..MAILBOX_MAX {
            assert_eq!(ends[0].send(ShardId(1), n), Ok(()));
        }
        assert_eq!(ends[0].send(ShardId(1), 7), Err(7));
        assert_eq!(ends[1].next_message(0), Some((ShardId(0), 0)), "first in, first out");
    }

    #[test]
    fn only_a_sleeper_is_rung() {
        let (ends, _) = network::<u8>(2).unwrap();
        let bell = ends[1].bell().unwrap();
        let readable = |bell: &OwnedFd| {
            let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
            let mut poll = [rustix::event::PollFd::new(bell, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut poll, Some(&now)).unwrap() == 1
        };
        ends[0].send(ShardId(1), 1).unwrap();
        assert!(!readable(&bell));
        assert!(!ends[1].prepare_sleep(), "there is something to do");
        assert_eq!(ends[1].next_message(0), Some((ShardId(0), 1)));
        assert!(ends[1].prepare_sleep());
        ends[0].send(ShardId(1), 2).unwrap();
        assert!(readable(&bell));
    }

    #[test]
    fn messages_cross_threads_without_loss() {
        let (mut ends, _) = network::<u32>(2).unwrap();
        let receiver = ends.pop().unwrap();
        let sender = ends.pop().unwrap();
        let thread = std::thread::spawn(move || {
            for n in 0..100_000u32 {
                let mut message = n;
                while let Err(back) = sender.send(ShardId(1), message) {
                    message = back;
                    std::thread::yield_now();
                }
            }
        });
        let bell = receiver.bell().unwrap();
        let mut expected = 0;
        while expected < 100_000 {
            if let Some((_, n)) = receiver.next_message(0) {
                assert_eq!(n, expected);
                expected += 1;
            } else if receiver.prepare_sleep() {
                let mut count = [0u8; 8];
                rustix::io::read(&bell, &mut count).unwrap();
            }
        }
        thread.join().unwrap();
    }
}
