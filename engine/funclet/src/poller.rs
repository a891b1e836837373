//! Waiting for any of many descriptors: epoll(7) with tokens of our own.
//!
//! Owns: the epoll descriptor. Must not know: what is done about an event.
//! Whatever is added is taken out before it is closed: children hold copies of our descriptors between their birth
//! and their exec, and epoll forgets a file only when the last copy of its descriptor is closed.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use faaster_protocol::funclet::{Generation, SlotId};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

/// Events taken per wait.
const EVENTS_MAX: usize = 64;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// The supervisor's socket.
    Link,
    /// The pipe that ends with the supervisor.
    Death,
    /// An engine channel.
    Channel(u32),
    /// A container's init has ended.
    Process(SlotId, Generation),
    /// A container's status pipe.
    Status(SlotId, Generation),
    /// A booting runtime's channel.
    Boot(SlotId, Generation),
    /// Containers' links.
    Network,
    /// The fork server of a runtime.
    ForkServer(usize),
}

// A generation is told by its low bits: an event is at most one wait old.
const GENERATION_BITS: u32 = 24;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;

impl Token {
    fn encode(self) -> u64 {
        let slot = |kind: u64, id: SlotId, generation: Generation| {
            kind << 56 | (u64::from(generation.0) & GENERATION_MASK) << 32 | u64::from(id.0)
        };
        match self {
            Self::Link => 0,
            Self::Death => 1 << 56,
            Self::Channel(number) => 2 << 56 | u64::from(number),
            Self::Process(id, generation) => slot(3, id, generation),
            Self::Status(id, generation) => slot(4, id, generation),
            Self::Boot(id, generation) => slot(5, id, generation),
            Self::Network => 6 << 56,
            Self::ForkServer(runtime) => 7 << 56 | runtime as u64,
        }
    }
}

/// An event as it came: generation bits only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawToken(u64);

impl RawToken {
    /// The token, given the current generation of a slot.
    pub(crate) fn decode(self, generation_of: impl Fn(SlotId) -> Option<Generation>) -> Option<Token> {
        let low = u32::try_from(self.0 & u64::from(u32::MAX)).expect("masked to 32 bits");
        let slot = || {
            let generation = generation_of(SlotId(low))?;
            let is_current = u64::from(generation.0) & GENERATION_MASK == self.0 >> 32 & GENERATION_MASK;
            is_current.then_some((SlotId(low), generation))
        };
        Some(match self.0 >> 56 {
            0 => Token::Link,
            1 => Token::Death,
            2 => Token::Channel(low),
            3 => slot().map(|(id, generation)| Token::Process(id, generation))?,
            4 => slot().map(|(id, generation)| Token::Status(id, generation))?,
            5 => slot().map(|(id, generation)| Token::Boot(id, generation))?,
            6 => Token::Network,
            7 => Token::ForkServer(low as usize),
            _ => return None,
        })
    }
}

/// Whether to be told when there is room to write, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    ReadAndWrite,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Read => EventFlags::IN,
            Self::ReadAndWrite => EventFlags::IN | EventFlags::OUT,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Poller(OwnedFd);

impl Poller {
    /// An empty one.
    ///
    /// # Errors
    /// epoll_create1(2)'s.
    pub(crate) fn new() -> Result<Self, Errno> {
        epoll::create(CreateFlags::CLOEXEC).map(Self)
    }

    /// Watches a descriptor.
    ///
    /// # Errors
    /// epoll_ctl(2)'s: ENOSPC, ENOMEM.
    pub(crate) fn add(&self, fd: impl AsFd, token: Token, interest: Interest) -> Result<(), Errno> {
        epoll::add(&self.0, fd, EventData::new_u64(token.encode()), interest.flags())
    }

    /// Changes what is watched for.
    ///
    /// # Errors
    /// epoll_ctl(2)'s.
    pub(crate) fn change(&self, fd: impl AsFd, token: Token, interest: Interest) -> Result<(), Errno> {
        epoll::modify(&self.0, fd, EventData::new_u64(token.encode()), interest.flags())
    }

    /// Watches it no more; one that is not watched is no matter.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        epoll::delete(&self.0, fd).ok();
    }

    /// Waits for events, at most this long (rounded up to a millisecond); `None` is for ever.
    ///
    /// # Errors
    /// epoll_wait(2)'s.
    pub(crate) fn wait(&self, events: &mut Vec<RawToken>, timeout: Option<Duration>) -> Result<(), Errno> {
        let timeout = timeout.map(|time| rustix::event::Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        let mut buffer = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; EVENTS_MAX];
        let (ready, _) = match epoll::wait(&self.0, &mut buffer[..], timeout.as_ref()) {
            Ok(ready) => ready,
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        events.extend(ready.iter().map(|event| RawToken(event.data.u64())));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_and_old_generations_do_not() {
        let (id, generation) = (SlotId(2999), Generation(0x0123_4567));
        for token in [
            Token::Link,
            Token::Death,
            Token::Channel(u32::MAX),
            Token::Process(id, generation),
            Token::Status(id, generation),
            Token::Boot(id, generation),
        ] {
            assert_eq!(RawToken(token.encode()).decode(|_| Some(generation)), Some(token));
        }
        let old = RawToken(Token::Process(id, generation).encode());
        assert_eq!(old.decode(|_| Some(Generation(generation.0 + 1))), None);
        assert_eq!(old.decode(|_| None), None);
        assert_eq!(RawToken(u64::MAX).decode(|_| Some(generation)), None);
    }
}
