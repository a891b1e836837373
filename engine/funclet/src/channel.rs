//! Channels to the engine: one socket for each of its shards and one for its control thread.
//!
//! Owns: the sockets, and events that an engine has not taken yet. Must not know: what the events are about.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use faaster_limits::{CHANNEL_EVENTS_MAX, FUNCLET_CHANNELS_MAX};
use faaster_protocol::funclet::{Event, MESSAGE_BYTES, MessageError, Request};
use faaster_sys::fdpass;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::poller::Interest;

/// Names a channel; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ChannelId(u32);

impl ChannelId {
    /// The number, to tell the poller.
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn for_tests(number: u32) -> Self {
        Self(number)
    }
}

/// Names an engine by the message that brought its channels: what one of them claimed, all of them may end or move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EngineId(u32);

/// What came out of a channel.
#[derive(Debug)]
pub(crate) enum Incoming {
    Request(Request),
    /// Nothing more for now.
    Nothing,
    /// The engine has gone.
    Closed,
    /// It broke the contract.
    Broken(MessageError),
}

/// What became of an event that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// In the socket.
    Now,
    /// Kept until the engine reads.
    Later,
    /// Not at all: the engine is gone, or reads so little that it is as good as gone.
    Lost,
}

/// Whether something is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    Changed,
    Same,
}

#[derive(Debug)]
struct Channel {
    id: ChannelId,
    engine: EngineId,
    socket: OwnedFd,
    interest: Interest,
    pending: VecDeque<([u8; MESSAGE_BYTES], Vec<OwnedFd>)>,
}

/// All open channels.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    open: Vec<Channel>,
    next: u32,
    engines: u32,
}

impl Channels {
    /// A name for the engine whose channels are about to be added.
    pub(crate) fn next_engine(&mut self) -> EngineId {
        self.engines += 1;
        EngineId(self.engines)
    }

    /// Whether two channels are open and belong to the same engine.
    pub(crate) fn are_of_one_engine(&self, first: ChannelId, second: ChannelId) -> bool {
        let engine = |id| self.open.iter().find(|channel| channel.id == id).map(|channel| channel.engine);
        engine(first).is_some() && engine(first) == engine(second)
    }

    /// Takes a socket over and makes it non-blocking (which its other end is not by that); `None` when there are too
    /// many already.
    pub(crate) fn add(&mut self, engine: EngineId, socket: OwnedFd) -> Option<ChannelId> {
        if self.open.len() >= FUNCLET_CHANNELS_MAX
            || rustix::fs::fcntl_setfl(&socket, OFlags::NONBLOCK).is_err()
        {
            return None;
        }
        self.next += 1;
        let id = ChannelId(self.next);
        self.open.push(Channel { id, engine, socket, interest: Interest::Read, pending: VecDeque::new() });
        Some(id)
    }

    /// Finds a channel by the number that the poller gave back.
    pub(crate) fn find(&self, number: u32) -> Option<ChannelId> {
        self.open.iter().map(|channel| channel.id).find(|id| id.0 == number)
    }

    /// All of them.
    pub(crate) fn ids(&self) -> Vec<ChannelId> {
        self.open.iter().map(|channel| channel.id).collect()
    }

    /// Its socket, for the poller.
    pub(crate) fn socket(&self, id: ChannelId) -> Option<BorrowedFd<'_>> {
        self.open.iter().find(|channel| channel.id == id).map(|channel| channel.socket.as_fd())
    }

    /// Remembers what the poller is asked to watch a channel for.
    pub(crate) fn note_interest(&mut self, id: ChannelId, interest: Interest) -> Noted {
        match self.open.iter_mut().find(|channel| channel.id == id) {
            Some(channel) if channel.interest != interest => {
                channel.interest = interest;
                Noted::Changed
            }
            _ => Noted::Same,
        }
    }

    /// Lets go of a channel and of everything that it has not taken.
    pub(crate) fn close(&mut self, id: ChannelId) {
        self.open.retain(|channel| channel.id != id);
    }

    /// The next request of a channel.
    pub(crate) fn receive(&mut self, id: ChannelId) -> Incoming {
        let Some(socket) = self.socket(id) else { return Incoming::Closed };
        // One byte more than a message, so that a longer one shows.
        let mut bytes = [0; MESSAGE_BYTES + 1];
        let result = rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut bytes, RecvFlags::DONTWAIT));
        match result {
            Ok((0, _)) => Incoming::Closed,
            Ok((count, _)) => match Request::decode(&bytes[..count]) {
                Ok(request) => Incoming::Request(request),
                Err(error) => Incoming::Broken(error),
            },
            Err(Errno::AGAIN) => Incoming::Nothing,
            Err(_) => Incoming::Closed,
        }
    }

    /// Sends an event; the descriptors are closed here once they are there.
    pub(crate) fn send(&mut self, id: ChannelId, event: &Event, fds: Vec<OwnedFd>) -> Sent {
        let Some(channel) = self.open.iter_mut().find(|channel| channel.id == id) else { return Sent::Lost };
        let bytes = event.encode();
        if channel.pending.is_empty() {
            match send_now(&channel.socket, &bytes, &fds) {
                Ok(()) => return Sent::Now,
                Err(Errno::AGAIN) => {}
                Err(_) => return Sent::Lost,
            }
        }
        if channel.pending.len() >= CHANNEL_EVENTS_MAX {
            return Sent::Lost;
        }
        channel.pending.push_back((bytes, fds));
        Sent::Later
    }

    /// Sends what waits, as far as the socket takes it; says whether all of it went.
    pub(crate) fn flush(&mut self, id: ChannelId) -> Sent {
        let Some(channel) = self.open.iter_mut().find(|channel| channel.id == id) else { return Sent::Lost };
        while let Some((bytes, fds)) = channel.pending.front() {
            match send_now(&channel.socket, bytes, fds) {
                Ok(()) => channel.pending.pop_front(),
                Err(Errno::AGAIN) => return Sent::Later,
                Err(_) => return Sent::Lost,
            };
        }
        Sent::Now
    }
}

fn send_now(socket: &OwnedFd, bytes: &[u8; MESSAGE_BYTES], fds: &[OwnedFd]) -> Result<(), Errno> {
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    fdpass::send_with_fds(socket, bytes, &borrowed).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use faaster_protocol::funclet::{Refusal, Ticket};
    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    fn pair() -> (OwnedFd, OwnedFd) {
        // Blocking, as the supervisor makes them.
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap()
    }

    fn event(number: u64) -> Event {
        Event::Refused { ticket: Ticket(number), refusal: Refusal::Rate, errno: 0 }
    }

    #[test]
    fn events_for_an_engine_that_does_not_read_wait_in_order_up_to_a_bound() {
        let mut channels = Channels::default();
        let (ours, theirs) = pair();
        let engine = channels.next_engine();
        let id = channels.add(engine, ours).unwrap();
        let mut results = Vec::new();
        for number in 0..2 * CHANNEL_EVENTS_MAX as u64 {
            results.push(channels.send(id, &event(number), vec![]));
        }
        assert_eq!(results.first(), Some(&Sent::Now));
        assert_eq!(results.last(), Some(&Sent::Lost));
        assert_eq!(results.iter().filter(|sent| **sent == Sent::Later).count(), CHANNEL_EVENTS_MAX);
        let accepted = results.iter().filter(|sent| **sent != Sent::Lost).count();
        for number in 0..accepted as u64 {
            let mut bytes = [0; MESSAGE_BYTES];
            if rustix::net::recv(&theirs, &mut bytes, RecvFlags::DONTWAIT).is_err() {
                channels.flush(id);
                rustix::net::recv(&theirs, &mut bytes, RecvFlags::DONTWAIT).unwrap();
            }
            assert_eq!(Event::decode(&bytes), Ok(event(number)));
        }
        assert_eq!(channels.flush(id), Sent::Now);
    }

    #[test]
    fn requests_silence_garbage_and_the_end_are_told_apart() {
        let mut channels = Channels::default();
        let (ours, theirs) = pair();
        let engine = channels.next_engine();
        let id = channels.add(engine, ours).unwrap();
        assert!(matches!(channels.receive(id), Incoming::Nothing));
        fdpass::send_with_fds(&theirs, &Request::Describe.encode(), &[]).unwrap();
        fdpass::send_with_fds(&theirs, &[0; MESSAGE_BYTES + 1], &[]).unwrap();
        assert!(matches!(channels.receive(id), Incoming::Request(Request::Describe)));
        assert!(matches!(channels.receive(id), Incoming::Broken(_)));
        drop(theirs);
        assert!(matches!(channels.receive(id), Incoming::Closed));
        assert_eq!(channels.send(id, &event(1), vec![]), Sent::Lost);
        channels.close(id);
        assert!(channels.find(id.number()).is_none());
    }

    #[test]
    fn the_number_of_channels_is_bounded() {
        let mut channels = Channels::default();
        let engine = channels.next_engine();
        for _ in 0..FUNCLET_CHANNELS_MAX {
            assert!(channels.add(engine, pair().0).is_some());
        }
        assert!(channels.add(engine, pair().0).is_none());
    }

    #[test]
    fn channels_belong_to_the_engine_that_they_came_with() {
        let mut channels = Channels::default();
        let (first, second) = (channels.next_engine(), channels.next_engine());
        let mut add = |engine| channels.add(engine, pair().0).unwrap();
        let (shard, control, foreign) = (add(first), add(first), add(second));
        assert!(channels.are_of_one_engine(shard, control));
        assert!(!channels.are_of_one_engine(shard, foreign));
        channels.close(shard);
        assert!(!channels.are_of_one_engine(shard, control), "a closed one belongs to nobody");
        assert!(!channels.are_of_one_engine(shard, shard));
    }
}
