//! One instance: a claimed container that runs one revision of one function.
//!
//! Owns: its channel's outbox and partial input, the calls in flight, its state. Must not know: how calls are chosen.

mod transition;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use faaster_function::Deployed;
use faaster_function::code_use::CodeLease;
use faaster_protocol::funclet::{End, Generation, Placement, SlotId};
use faaster_sys::ring::Sock;

use crate::call::Call;
use crate::health::Health;
use crate::ingress::ns;
use crate::outbox::Outbox;
use crate::phases::{Phases, Start};
use crate::slab::Id;
use crate::timer::Alarm;
pub(crate) use transition::{Cause, State};

/// See the module.
#[derive(Debug)]
pub(crate) struct Instance {
    /// Index into the shard's function table.
    pub(crate) function: u32,
    pub(crate) deployed: Arc<Deployed>,
    /// What the runtime was told when it was loaded, MiB.
    pub(crate) loaded_mb: u32,
    pub(crate) funclet: u16,
    pub(crate) slot: SlotId,
    pub(crate) generation: Generation,
    pub(crate) placement: Placement,
    pub(crate) channel: Sock,
    pub(crate) log: Sock,
    state: State,
    pub(crate) in_flight: Vec<Id<Call>>,
    pub(crate) outbox: Outbox,
    /// The start of a frame whose rest has not come.
    pub(crate) partial: Vec<u8>,
    /// Events that go out in parts: the call and how much of it is out.
    pub(crate) feeding: VecDeque<(Id<Call>, usize)>,
    /// When the shard asked for it.
    pub(crate) asked_ns: u64,
    /// What the funclet took to give it code and limits.
    pub(crate) attach_ns: u64,
    pub(crate) claimed_ns: u64,
    pub(crate) ready_ns: u64,
    /// Of the first call that waited for it, once that was answered.
    pub(crate) phases: Option<Phases>,
    pub(crate) last_used_ns: u64,
    /// When it became ready or was thawed; while its processes are being stopped or let go, when that was asked for.
    pub(crate) since_ns: u64,
    pub(crate) accepted_total: u64,
    pub(crate) failed_total: u64,
    /// While draining: when it is killed. After its end: when the other half of the news is no longer waited for.
    pub(crate) kill_at_ns: u64,
    pub(crate) kill_sent: bool,
    /// It was told to exit, and when it will be killed.
    pub(crate) dismissed: bool,
    /// Credit for results waits until the runtime has read what is on its way.
    pub(crate) grants_wait: bool,
    pub(crate) ending: Ending,
    /// The channel came to its end.
    pub(crate) channel_ended: bool,
    /// What the funclet said of its end.
    pub(crate) end: Option<Ended>,
    pub(crate) alarm: Alarm,
    pub(crate) health: Health,
    /// The cgroup file that tells its peak of memory.
    pub(crate) gauge: Option<OwnedFd>,
    /// Keeps its code where it is.
    pub(crate) lease: Option<CodeLease>,
    /// What it printed before its first call, which gets it in its log's tail.
    pub(crate) early_log: Vec<u8>,
    /// In the list of instances with something to send.
    pub(crate) dirty: bool,
    /// A read of its log pipe is under way.
    pub(crate) log_reading: bool,
}

/// Why the shard ends an instance; decides what those who wait for the function hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is not being ended by the shard.
    NotYet,
    /// Of no more use: idle, replaced, invalidated, removed.
    Retired,
    /// A call of it timed out: it is killed as soon as it is drained.
    TimedOut,
    /// It did not become ready in time.
    NotReady,
    /// It said that it will end.
    Dying,
    /// Its handler could not be loaded; the callers know.
    LoadFailed,
    /// It broke the frame protocol.
    Broken,
    /// It did not answer a ping in time.
    Unresponsive,
}

/// How its container ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) end: End,
    pub(crate) memory_peak_bytes: u64,
    pub(crate) memory_limit_bytes: u64,
}

impl Instance {
    #[expect(clippy::too_many_arguments, reason = "the fields that a claim's answer brings, each once")]
    pub(crate) fn new(
        function: u32,
        deployed: Arc<Deployed>,
        funclet: u16,
        slot: SlotId,
        generation: Generation,
        placement: Placement,
        channel: Sock,
        log: Sock,
        now_ns: u64,
    ) -> Self {
        Self {
            function,
            loaded_mb: deployed.memory_mb,
            deployed,
            funclet,
            slot,
            generation,
            placement,
            channel,
            log,
            state: State::Loading,
            in_flight: Vec::new(),
            outbox: Outbox::default(),
            partial: Vec::new(),
            feeding: VecDeque::new(),
            asked_ns: now_ns,
            attach_ns: 0,
            claimed_ns: now_ns,
            ready_ns: 0,
            phases: None,
            last_used_ns: now_ns,
            since_ns: now_ns,
            accepted_total: 0,
            failed_total: 0,
            kill_at_ns: 0,
            kill_sent: false,
            dismissed: false,
            grants_wait: false,
            ending: Ending::NotYet,
            channel_ended: false,
            end: None,
            alarm: Alarm::default(),
            health: Health::default(),
            gauge: None,
            lease: None,
            early_log: Vec::new(),
            dirty: false,
            log_reading: false,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// How it came to where it is.
    pub(crate) fn start(&self) -> Start {
        let Self { asked_ns, attach_ns, claimed_ns, ready_ns, .. } = *self;
        Start { asked_ns, attach_ns, claimed_ns, ready_ns }
    }

    /// Its memory, where its runtime was told another one.
    pub(crate) fn edited_mb(&self) -> Option<u32> {
        Some(self.deployed.memory_mb).filter(|memory_mb| *memory_mb != self.loaded_mb)
    }

    /// Most memory that its container held so far, as the funclet's gauge tells.
    pub(crate) fn memory_peak_bytes(&self) -> u64 {
        // After its end the gauge is gone, and the funclet has told.
        match self.end {
            Some(ended) => ended.memory_peak_bytes,
            None => self.gauge.as_ref().map_or(0, faaster_sys::gauge::read_number),
        }
    }

    /// Follows the diagram; see [`State::after`].
    pub(crate) fn go(&mut self, cause: Cause) {
        self.state = self.state.after(cause);
    }

    /// When a step that it takes itself, or that its funclet takes for it, has taken too long.
    pub(crate) fn patience_ends_ns(&self) -> Option<u64> {
        match self.state {
            State::Loading => Some(self.claimed_ns + ns(faaster_limits::BOOT_TIMEOUT)),
            State::Freezing | State::Thawing => Some(self.since_ns + ns(faaster_limits::FREEZE_TIMEOUT)),
            _ => None,
        }
    }

    /// Whether another call may be sent now.
    pub(crate) fn has_room(&self) -> bool {
        matches!(self.state, State::Idle | State::Busy)
            && self.in_flight.len() < self.deployed.concurrency.slots() as usize
            && self.outbox.pending_bytes() < faaster_limits::INSTANCE_SEND_BYTES_MAX
    }

    /// Takes a call off the list; whether it was there.
    pub(crate) fn forget_call(&mut self, call: Id<Call>) -> bool {
        let Some(at) = self.in_flight.iter().position(|id| *id == call) else { return false };
        self.in_flight.swap_remove(at);
        let left = self.in_flight.len();
        self.go(Cause::CallEnds { left });
        true
    }
}
