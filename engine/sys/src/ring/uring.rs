//! The real ring: one per shard, made while the process is still root, used by the shard's thread alone.
//!
//! Owns: the io_uring, its buffer groups, the operations under way and the descriptors given to it.
//! Restricted to the operations below, so that code that takes over the process cannot use the ring for others
//! (seccomp does not see what a ring does). Must not know: what a shard wants with it.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::io::Errno;
use rustix::time::ClockId;

use super::buffers::{BufferGroup, GroupSize};
use super::inflight::{Inflight, MessageMemory, PipeRead, Work};
use super::pipe::{self, PipeBuffers};
use super::probe::{self, Birth, RingFeatures, RingRefusal};
use super::{
    Armed, Completion, GROUPS, Group, Lease, LeaseKind, Operation, Received, Ring, RingError, Sock, Token,
};

/// Sizes of a ring.
#[derive(Debug, Clone, Copy)]
pub struct UringConfig {
    pub entries: u32,
    pub completions: u32,
    pub client_buffers: GroupSize,
    pub instance_buffers: GroupSize,
    /// Positions for direct descriptors; must be below RLIMIT_NOFILE.
    pub direct_descriptors: u32,
}

/// An io_uring behind the [`Ring`] trait.
pub struct Uring {
    ring: IoUring,
    features: RingFeatures,
    groups: [BufferGroup; GROUPS],
    inflight: Inflight,
    plain: HashMap<RawFd, Plain>,
    /// Descriptors adopted so far.
    adopted_total: u64,
    pipe_buffers: PipeBuffers,
    /// Sends queued since the last wait: each completes when it is submitted.
    immediate: usize,
    /// Those whose completion has not been looked at.
    immediate_under_way: usize,
    /// Where the kernel puts the doorbell's count.
    bell: Box<u64>,
}

/// An ordinary descriptor that the ring owns.
#[derive(Debug)]
struct Plain {
    descriptor: OwnedFd,
    serial: u64,
}

// SAFETY: the raw pointers inside BufferGroup lead to a private mapping that no other value knows; moving the ring to
// another thread moves all access with it.
unsafe impl Send for Uring {}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("features", &self.features).finish_non_exhaustive()
    }
}

/// Sends up to this are tried without waiting for room in the socket, and so are over when they are submitted.
const IMMEDIATE_BYTES_MAX: usize = 16 * 1024;
/// A wait that expected its sends to go out whole is cut off after this, in case one must be followed up. Longer than a
/// tick of the kernel's clock, so that the timer is seldom programmed for it alone.
const SEND_PATIENCE: Duration = Duration::from_millis(5);

/// user_data of operations whose completion tells nothing.
const IGNORED: u64 = u64::MAX;

/// Events of poll(2) after which nothing more comes out of an empty pipe.
const PIPE_OVER: usize = (libc::POLLHUP | libc::POLLERR) as usize;

/// Operations that a shard uses; the ring refuses all others with EACCES.
const ALLOWED: [u8; 9] = [
    opcode::AcceptMulti::CODE,
    opcode::RecvMulti::CODE,
    opcode::Send::CODE,
    opcode::RecvMsg::CODE,
    opcode::Read::CODE,
    opcode::PollAdd::CODE,
    opcode::AsyncCancel2::CODE,
    opcode::Shutdown::CODE,
    opcode::Close::CODE,
];

/// Builds an entry for a direct or an ordinary descriptor.
macro_rules! on_sock {
    ($sock:expr, |$fd:ident| $build:expr) => {
        match $sock {
            Sock::Direct(position) => {
                let $fd = Fixed(position);
                $build
            }
            Sock::Plain(raw) => {
                let $fd = Fd(raw);
                $build
            }
        }
    };
}

impl Uring {
    /// Makes a ring that does nothing yet: for a process that will drop its privileges, after which no ring can be made.
    ///
    /// # Errors
    /// The kernel's refusal in words.
    pub fn prepare(config: &UringConfig) -> Result<Self, RingRefusal> {
        let (ring, mut features) = probe::build(config.entries, config.completions, Birth::Disabled)?;
        let groups = [
            BufferGroup::register(&ring, Group::Client, config.client_buffers).map_err(probe::explain)?,
            BufferGroup::register(&ring, Group::Instance, config.instance_buffers).map_err(probe::explain)?,
        ];
        // A table that does not fit under RLIMIT_NOFILE is EMFILE: ordinary descriptors then.
        features.direct_descriptors = features.direct_descriptors
            && ring.submitter().register_files_sparse(config.direct_descriptors).is_ok();
        let mut restrictions: Vec<Restriction> =
            ALLOWED.iter().map(|code| Restriction::sqe_op(*code)).collect();
        let flags = squeue::Flags::FIXED_FILE | squeue::Flags::BUFFER_SELECT | squeue::Flags::SKIP_SUCCESS;
        restrictions.push(Restriction::sqe_flags_allowed(flags.bits()));
        ring.submitter().register_restrictions(&mut restrictions).map_err(RingRefusal::Other)?;
        let inflight = Inflight::with_capacity(config.completions as usize);
        Ok(Self {
            ring,
            features,
            groups,
            inflight,
            plain: HashMap::new(),
            adopted_total: 0,
            pipe_buffers: PipeBuffers::default(),
            bell: Box::new(0),
            immediate: 0,
            immediate_under_way: 0,
        })
    }

    /// Lets the ring work for the calling thread, from now on for no other.
    ///
    /// # Errors
    /// The kernel's.
    pub fn enable(&mut self) -> Result<(), RingError> {
        self.ring.submitter().register_enable_rings().map_err(RingError::Enable)
    }

    /// What this ring was made with.
    pub fn features(&self) -> RingFeatures {
        self.features
    }

    /// Submits what is queued and appends what has happened, without waiting. When there is neither, no system call is
    /// made: the kernel raises IORING_SQ_TASKRUN in shared memory when it has something, so a caller may spin on this.
    ///
    /// # Errors
    /// As [`Ring::wait`].
    pub fn poll(&mut self, out: &mut Vec<Completion>) -> Result<(), RingError> {
        let queue = self.ring.submission();
        let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        if !idle {
            self.immediate = 0;
            Self::forgive(self.ring.submit())?;
        }
        self.harvest(out);
        Ok(())
    }

    fn harvest(&mut self, out: &mut Vec<Completion>) {
        let due = self.ring.completion().len();
        // Where the next one of a pipe goes: before all others (see `Ring::wait`).
        let mut front = out.len();
        for _ in 0..due {
            let Some(entry) = self.ring.completion().next() else { break };
            let (user_data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
            match self.translate(user_data, result, flags) {
                Some(completion) if pipe::is_from_one(&completion) => {
                    out.insert(front, completion);
                    front += 1;
                }
                other => out.extend(other),
            }
        }
    }

    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: every address in an entry made by this module points into `inflight` (which keeps it until the
            // completion) or into a buffer group (never unmapped).
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            // The queue is full: let the kernel take what is there. EBUSY and EINTR leave it full; then again.
            drop(self.ring.submit());
        }
    }

    fn start(&mut self, token: Token, work: Work, entry: squeue::Entry) -> Operation {
        let user_data = self.inflight.insert(token, work);
        self.push(&entry.user_data(user_data));
        Operation(user_data)
    }

    fn push_ignored(&mut self, entry: squeue::Entry) {
        self.push(&entry.user_data(IGNORED).flags(squeue::Flags::SKIP_SUCCESS));
    }

    fn translate(&mut self, user_data: u64, result: i32, flags: u32) -> Option<Completion> {
        if user_data == IGNORED {
            return None;
        }
        let armed = if cqueue::more(flags) { Armed::Yes } else { Armed::No };
        let outcome = if result < 0 {
            Err(Errno::from_raw_os_error(-result))
        } else {
            Ok(result.unsigned_abs() as usize)
        };
        if armed == Armed::Yes {
            let (token, work) = self.inflight.get_mut(user_data)?;
            let token = *token;
            return match work {
                Work::Accept => Some(self.accepted(token, outcome, armed)),
                Work::Receive(group) => {
                    let group = *group;
                    Some(self.received(token, group, outcome, flags, armed))
                }
                _ => None,
            };
        }
        let (token, work) = self.inflight.remove(user_data)?;
        Some(match work {
            Work::Accept => self.accepted(token, outcome, armed),
            Work::Receive(group) => self.received(token, group, outcome, flags, armed),
            Work::Read(pipe) => return self.pipe_ready(token, pipe, outcome),
            Work::Send { buffer, sock, from } => {
                self.immediate_under_way -= 1;
                if outcome == Err(Errno::AGAIN) {
                    self.send_patiently(sock, buffer, from, token);
                    return None;
                }
                Completion::Sent { token, result: outcome, buffer }
            }
            Work::SendPatiently(buffer) => Completion::Sent { token, result: outcome, buffer },
            Work::Message(memory) => {
                Completion::Message { token, result: outcome.and_then(|length| memory.into_message(length)) }
            }
            Work::Bell => Completion::Rung { token },
        })
    }

    fn accepted(&mut self, token: Token, outcome: Result<usize, Errno>, armed: Armed) -> Completion {
        let result = outcome.map(|number| {
            let number = u32::try_from(number).expect("descriptor numbers are non-negative ints");
            if self.features.direct_descriptors {
                return Sock::Direct(number);
            }
            let raw = RawFd::try_from(number).expect("came from a non-negative int");
            // SAFETY: the kernel made this descriptor for us with this completion; nobody else owns it.
            let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
            self.adopt(descriptor)
        });
        Completion::Accepted { token, result, armed }
    }

    fn received(
        &mut self,
        token: Token,
        group: Group,
        outcome: Result<usize, Errno>,
        flags: u32,
        armed: Armed,
    ) -> Completion {
        let received = match outcome {
            Err(errno) => Received::Failed(errno),
            Ok(0) => {
                // An end of file can use up a buffer as well.
                if let Some(index) = cqueue::buffer_select(flags) {
                    self.groups[group as usize].take_back(index);
                }
                Received::End
            }
            Ok(length) => match self.groups[group as usize].lend(flags, length) {
                Some(lease) => Received::Data(lease),
                None => Received::Failed(Errno::NOBUFS),
            },
        };
        Completion::Received { token, received, armed }
    }

    /// A pipe's poll ended. `None`: there was nothing to read after all, and it goes on.
    fn pipe_ready(
        &mut self,
        token: Token,
        pipe: PipeRead,
        outcome: Result<usize, Errno>,
    ) -> Option<Completion> {
        let current = self.plain.get(&pipe.raw).filter(|plain| plain.serial == pipe.serial);
        let received = match (outcome, current) {
            (Err(errno), _) => Received::Failed(errno),
            (Ok(_), None) => Received::Failed(Errno::CANCELED),
            (Ok(events), Some(plain)) => match self.pipe_buffers.read(&plain.descriptor, pipe.group) {
                Ok(Some(lease)) => Received::Data(lease),
                // What was there has been drained; if the writers are gone, nothing more will come.
                Ok(None) if events & PIPE_OVER != 0 => Received::End,
                Ok(None) => {
                    self.poll_pipe(token, pipe);
                    return None;
                }
                Err(errno) => Received::Failed(errno),
            },
        };
        Some(Completion::Received { token, received, armed: Armed::No })
    }

    fn poll_pipe(&mut self, token: Token, pipe: PipeRead) {
        let readable = u32::from(libc::POLLIN.unsigned_abs());
        self.start(token, Work::Read(pipe), opcode::PollAdd::new(Fd(pipe.raw), readable).build());
    }

    /// Sends with room in the socket or without: the kernel waits for it.
    fn send_patiently(&mut self, sock: Sock, buffer: Vec<u8>, from: usize, token: Token) {
        let rest = &buffer[from..];
        let length = u32::try_from(rest.len()).expect("buffers are bounded far below 4 GiB");
        let start = rest.as_ptr();
        let entry =
            on_sock!(sock, |fd| opcode::Send::new(fd, start, length).flags(libc::MSG_NOSIGNAL).build());
        self.start(token, Work::SendPatiently(buffer), entry);
    }

    /// Waits for one event beside the sends of this turn.
    ///
    /// Small sends that go out with this call complete in it; to be woken by those would be not to wait at all, so they
    /// are added to the events waited for. One that found its socket full is followed up after the patience, or with the
    /// next event.
    fn enter_past_sends(&mut self, timeout: Option<Duration>) -> Result<(), RingError> {
        let immediate = std::mem::take(&mut self.immediate);
        if immediate == 0 {
            return self.enter(timeout, 1);
        }
        let first = timeout.map_or(SEND_PATIENCE, |limit| limit.min(SEND_PATIENCE));
        self.enter(Some(first), 1 + immediate)?;
        if self.ring.completion().is_empty() && first == SEND_PATIENCE {
            return self.enter(timeout.map(|limit| limit - SEND_PATIENCE), 1);
        }
        Ok(())
    }

    fn enter(&mut self, timeout: Option<Duration>, events: usize) -> Result<(), RingError> {
        let want = if self.ring.completion().is_empty() { events } else { 0 };
        let entered = match timeout {
            None => self.ring.submitter().submit_and_wait(want),
            Some(limit) => {
                let limit = Timespec::from(limit);
                self.ring.submitter().submit_with_args(want, &SubmitArgs::new().timespec(&limit))
            }
        };
        Self::forgive(entered)
    }

    fn forgive(entered: std::io::Result<usize>) -> Result<(), RingError> {
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // ETIME: the deadline passed. EINTR: a signal. EBUSY, EAGAIN: completions must be taken first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(RingError::Enter(error)),
            },
        }
    }
}

impl Ring for Uring {
    fn accept(&mut self, listener: Sock, token: Token) {
        let direct = self.features.direct_descriptors;
        let entry = on_sock!(listener, |fd| opcode::AcceptMulti::new(fd).allocate_file_index(direct).build());
        self.start(token, Work::Accept, entry);
    }

    fn adopt(&mut self, descriptor: OwnedFd) -> Sock {
        let raw = descriptor.as_raw_fd();
        self.adopted_total += 1;
        self.plain.insert(raw, Plain { descriptor, serial: self.adopted_total });
        Sock::Plain(raw)
    }

    fn receive(&mut self, sock: Sock, group: Group, token: Token) -> Operation {
        let entry = on_sock!(sock, |fd| opcode::RecvMulti::new(fd, group as u16).build());
        self.start(token, Work::Receive(group), entry)
    }

    fn stop(&mut self, operation: Operation) {
        let target = CancelBuilder::user_data(operation.0);
        self.push_ignored(opcode::AsyncCancel2::new(target).build());
    }

    fn read(&mut self, pipe: Sock, group: Group, token: Token) {
        let Sock::Plain(raw) = pipe else { unreachable!("pipes are adopted, never accepted") };
        let serial = self.plain.get(&raw).map_or(0, |plain| plain.serial);
        self.poll_pipe(token, PipeRead { raw, serial, group });
    }

    fn receive_message(&mut self, sock: Sock, token: Token) {
        let mut memory = MessageMemory::new();
        let header = memory.header();
        let flags = libc::MSG_CMSG_CLOEXEC.unsigned_abs();
        let entry = on_sock!(sock, |fd| opcode::RecvMsg::new(fd, header).flags(flags).build());
        self.start(token, Work::Message(memory), entry);
    }

    fn send(&mut self, sock: Sock, buffer: Vec<u8>, from: usize, token: Token) {
        let rest = &buffer[from..];
        if rest.len() > IMMEDIATE_BYTES_MAX {
            return self.send_patiently(sock, buffer, from, token);
        }
        let length = u32::try_from(rest.len()).expect("buffers are bounded far below 4 GiB");
        let start = rest.as_ptr();
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let entry = on_sock!(sock, |fd| opcode::Send::new(fd, start, length).flags(flags).build());
        self.start(token, Work::Send { buffer, sock, from }, entry);
        self.immediate += 1;
        self.immediate_under_way += 1;
    }

    fn listen_bell(&mut self, bell: Sock, token: Token) {
        let at = (&raw mut *self.bell).cast::<u8>();
        let entry = on_sock!(bell, |fd| opcode::Read::new(fd, at, 8).build());
        self.start(token, Work::Bell, entry);
    }

    fn stop_listening(&mut self, listener: Sock) {
        // Not through the ring: the cancel of the `close` that follows would take it back.
        let Sock::Plain(raw) = listener else { unreachable!("listeners are adopted, never accepted") };
        if let Some(plain) = self.plain.get(&raw) {
            rustix::net::shutdown(&plain.descriptor, rustix::net::Shutdown::Both).ok();
        }
    }

    fn shutdown_write(&mut self, sock: Sock) {
        let entry = on_sock!(sock, |fd| opcode::Shutdown::new(fd, libc::SHUT_WR).build());
        self.push_ignored(entry);
    }

    fn close(&mut self, sock: Sock) {
        if self.immediate_under_way > 0 {
            // Its number may soon be another socket's: what finds no room in this one is not tried again.
            self.immediate_under_way -= self.inflight.settle_for_one_try(sock);
        }
        let entry = on_sock!(sock, |fd| opcode::AsyncCancel2::new(CancelBuilder::fd(fd).all()).build());
        self.push_ignored(entry);
        match sock {
            Sock::Direct(position) => self.push_ignored(opcode::Close::new(Fixed(position)).build()),
            Sock::Plain(raw) => {
                // The cancel must have been seen before the number is free for something else.
                drop(self.ring.submit());
                // One that is closed already is not ours any more: its number may be somebody else's.
                self.plain.remove(&raw);
            }
        }
    }

    fn drain_now(&mut self, pipe: Sock, out: &mut Vec<u8>, limit: usize) -> usize {
        let Sock::Plain(raw) = pipe else { return 0 };
        let Some(plain) = self.plain.get(&raw) else { return 0 };
        pipe::take(&plain.descriptor, out, limit).unwrap_or(0)
    }

    fn give_back(&mut self, lease: Lease) {
        match lease.0 {
            LeaseKind::Mapped { group, index, .. } => self.groups[group as usize].take_back(index),
            LeaseKind::Owned { bytes, .. } => self.pipe_buffers.keep(bytes),
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> Result<(), RingError> {
        self.enter_past_sends(timeout)?;
        self.harvest(out);
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        let now = rustix::time::clock_gettime(ClockId::Monotonic);
        let (secs, nanos) = (now.tv_sec.unsigned_abs(), u64::try_from(now.tv_nsec).unwrap_or(0));
        secs * 1_000_000_000 + nanos
    }

    fn unix_secs(&self) -> u64 {
        rustix::time::clock_gettime(ClockId::RealtimeCoarse).tv_sec.unsigned_abs()
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // The kernel may still write to memory of operations under way; leak it rather than free it early.
        std::mem::forget(std::mem::take(&mut self.inflight));
        std::mem::forget(std::mem::take(&mut self.bell));
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
