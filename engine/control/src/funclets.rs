//! What the funclets say of their slots.
//!
//! Owns: one task per funclet and its channel. Must not know: how the answer is shown.
//! The messages carry no number, so a task asks one question at a time and throws away what is left of an earlier one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use faaster_limits::{CONTROL_REPORT_TIMEOUT, RUNTIMES_MAX, SLOTS_MAX};
use faaster_protocol::funclet::{
    Event, Generation, MESSAGE_BYTES, NodeInfo, PoolInfo, Request, SlotId, SlotInfo,
};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

/// All slots of a funclet and its part of the node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Description {
    pub(crate) slots: Vec<SlotInfo>,
    pub(crate) pools: Vec<PoolInfo>,
    pub(crate) node: NodeInfo,
}

/// What a funclet is asked.
#[derive(Debug)]
pub(crate) enum Question {
    Describe(oneshot::Sender<Description>),
    /// End a container that no shard has; there is no answer.
    Kill(SlotId, Generation),
}

/// Funclets that are up, by index.
pub(crate) type Funclets = Arc<BTreeMap<u16, mpsc::Sender<Question>>>;

/// Questions that wait for one funclet.
const QUESTIONS_MAX: usize = 64;

/// Keeps the set of funclets; handlers look at it through the other end of the watch.
#[derive(Debug)]
pub(crate) struct FuncletDesk {
    funclets: watch::Sender<Funclets>,
}

impl FuncletDesk {
    pub(crate) fn new() -> (Self, watch::Receiver<Funclets>) {
        let (funclets, seen) = watch::channel(Funclets::default());
        (Self { funclets }, seen)
    }

    /// A funclet (re)started: its earlier channel is closed.
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    pub(crate) fn up(&self, funclet: u16, channel: OwnedFd) -> io::Result<()> {
        // The type says stream and the kernel keeps records: read and write are all that is used of it. (`AsyncFd`, which
        // promises nothing about the kind of socket, has no safe constructor any more.)
        let channel = std::os::unix::net::UnixStream::from(channel);
        channel.set_nonblocking(true)?;
        let channel = UnixStream::from_std(channel)?;
        let (questions, waiting) = mpsc::channel(QUESTIONS_MAX);
        tokio::spawn(serve(channel, waiting));
        self.funclets.send_modify(|funclets| {
            Arc::make_mut(funclets).insert(funclet, questions);
        });
        Ok(())
    }
}

/// Asks every funclet that is up; one that does not answer in time is left out.
pub(crate) async fn describe_all(funclets: Funclets) -> BTreeMap<u16, Description> {
    let deadline = Instant::now() + CONTROL_REPORT_TIMEOUT;
    let mut asked = Vec::new();
    for (index, questions) in funclets.iter() {
        let (reply, answer) = oneshot::channel();
        if questions.try_send(Question::Describe(reply)).is_ok() {
            asked.push((*index, answer));
        }
    }
    let mut answers = BTreeMap::new();
    for (index, answer) in asked {
        if let Ok(Ok(description)) = timeout_at(deadline, answer).await {
            answers.insert(index, description);
        }
    }
    answers
}

/// Asks all `count` funclets of the node; one that is just being started is waited for. `None`: not all of them answer.
pub(crate) async fn describe_every(
    funclets: &watch::Receiver<Funclets>,
    count: usize,
) -> Option<BTreeMap<u16, Description>> {
    let deadline = Instant::now() + CONTROL_REPORT_TIMEOUT;
    let mut funclets = funclets.clone();
    loop {
        let known = funclets.borrow_and_update().clone();
        let described = describe_all(known).await;
        if described.len() == count {
            return Some(described);
        }
        // Nothing but a new channel can make them more.
        if !matches!(timeout_at(deadline, funclets.changed()).await, Ok(Ok(()))) {
            return None;
        }
    }
}

/// Serves questions until the channel or the desk is closed.
async fn serve(channel: UnixStream, mut questions: mpsc::Receiver<Question>) {
    while let Some(question) = questions.recv().await {
        let deadline = Instant::now() + CONTROL_REPORT_TIMEOUT;
        let result = match question {
            Question::Kill(slot, generation) => {
                timeout_at(deadline, write(&channel, &Request::Kill { slot, generation })).await
            }
            Question::Describe(reply) => match timeout_at(deadline, describe(&channel)).await {
                Ok(Ok(description)) => {
                    drop(reply.send(description));
                    Ok(Ok(()))
                }
                Ok(Err(error)) => Ok(Err(error)),
                Err(late) => Err(late),
            },
        };
        // Late: the next question begins by throwing the rest away. Closed: the supervisor brings a new channel.
        if matches!(result, Ok(Err(_))) {
            return;
        }
    }
}

async fn describe(channel: &UnixStream) -> io::Result<Description> {
    while try_read(channel)?.is_some() {}
    write(channel, &Request::Describe).await?;
    let mut description = Description::default();
    loop {
        match read(channel).await? {
            Event::Slot(slot) if description.slots.len() < SLOTS_MAX => description.slots.push(slot),
            Event::Pool(pool) if description.pools.len() < RUNTIMES_MAX => description.pools.push(pool),
            Event::Node(node) => {
                description.node = node;
                return Ok(description);
            }
            // Events of killed containers and the like.
            _ => {}
        }
    }
}

/// One record; a SEQPACKET socket takes it whole or not at all.
async fn write(channel: &UnixStream, request: &Request) -> io::Result<()> {
    let bytes = request.encode();
    loop {
        channel.writable().await?;
        match channel.try_write(&bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result.map(drop),
        }
    }
}

async fn read(channel: &UnixStream) -> io::Result<Event> {
    loop {
        channel.readable().await?;
        if let Some(event) = try_read(channel)? {
            return Ok(event);
        }
    }
}

/// `None`: nothing is there now.
fn try_read(channel: &UnixStream) -> io::Result<Option<Event>> {
    // One byte more than a message: a longer record shows.
    let mut bytes = [0; MESSAGE_BYTES + 1];
    match channel.try_read(&mut bytes) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(length) => Event::decode(&bytes[..length])
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
