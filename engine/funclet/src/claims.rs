//! Claims: their bounds, their rate, and the lists in which they wait.
//!
//! Owns: claims that are not served yet. Must not know: containers.

use std::collections::VecDeque;

use faaster_limits::{
    CLAIMS_PER_SECOND_MAX, CLAIMS_WAITING_MAX, MEMORY_MB_MAX, MEMORY_MB_MIN, PIDS_PER_CONTAINER_MAX,
    TMP_MB_MAX,
};
use faaster_protocol::funclet::{Claim, Placement, Size, Ticket, ledger_mb};

use crate::channel::ChannelId;
use crate::timers::{Nanos, TimerId};

/// Checks every number of a claim against this funclet's bounds.
pub(crate) fn is_within_bounds(claim: &Claim, runtimes: usize, cores: &[u16]) -> bool {
    let size = Size { memory_mb: claim.memory_mb, tmp_mb: claim.tmp_mb, function_tag: claim.function_tag };
    is_placement_ours(claim.placement, cores)
        && usize::from(claim.runtime.0) < runtimes
        && (1..=PIDS_PER_CONTAINER_MAX).contains(&claim.pids_max)
        && is_size_within_bounds(size)
}

/// Same of a size.
pub(crate) fn is_size_within_bounds(size: Size) -> bool {
    (MEMORY_MB_MIN..=MEMORY_MB_MAX).contains(&size.memory_mb) && (1..=TMP_MB_MAX).contains(&size.tmp_mb)
}

/// Whether a container may be put there.
pub(crate) fn is_placement_ours(placement: Placement, cores: &[u16]) -> bool {
    match placement {
        Placement::Free => true,
        Placement::Core(core) => cores.contains(&core),
    }
}

/// Bytes of a claim's memory.
pub(crate) fn memory_bytes(claim: &Claim) -> u64 {
    u64::from(claim.memory_mb) * 1024 * 1024
}

/// Lets so many claims through per second, in bursts of at most as many.
#[derive(Debug)]
pub(crate) struct Rate {
    tokens_ns: u64,
    last: Nanos,
}

const SECOND_NS: u64 = 1_000_000_000;
const TOKEN_NS: u64 = SECOND_NS / CLAIMS_PER_SECOND_MAX as u64;

impl Rate {
    /// Full.
    pub(crate) fn new(now: Nanos) -> Self {
        Self { tokens_ns: SECOND_NS, last: now }
    }

    /// Whether one more is let through.
    pub(crate) fn admit(&mut self, now: Nanos) -> bool {
        let passed = now.0.saturating_sub(self.last.0);
        self.last = now;
        self.tokens_ns = self.tokens_ns.saturating_add(passed).min(SECOND_NS);
        match self.tokens_ns.checked_sub(TOKEN_NS) {
            Some(rest) => {
                self.tokens_ns = rest;
                true
            }
            None => false,
        }
    }
}

/// A claim with who sent it when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub channel: ChannelId,
    pub claim: Claim,
    pub arrived: Nanos,
    /// Names it while it waits.
    pub id: WaitingId,
    /// Its deadline, once it waits.
    pub timer: Option<TimerId>,
}

/// Position in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WaitingId(pub u64);

/// What a claim waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// Nothing is promised to it yet.
    Memory,
    /// Its memory is marked; a container of its runtime is being made.
    Container,
}

/// Claims in order of arrival: one list for memory, one for each runtime.
#[derive(Debug)]
pub(crate) struct WaitingRoom {
    for_memory: VecDeque<Waiting>,
    for_container: Vec<VecDeque<Waiting>>,
}

impl WaitingRoom {
    /// An empty one.
    pub(crate) fn new(runtimes: usize) -> Self {
        Self { for_memory: VecDeque::new(), for_container: vec![VecDeque::new(); runtimes] }
    }

    /// How many wait for anything.
    pub(crate) fn len(&self) -> usize {
        self.for_memory.len() + self.for_container.iter().map(VecDeque::len).sum::<usize>()
    }

    /// Whether nobody more may wait.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= CLAIMS_WAITING_MAX
    }

    pub(crate) fn push_for_memory(&mut self, waiting: Waiting) {
        self.for_memory.push_back(waiting);
    }

    pub(crate) fn push_for_container(&mut self, waiting: Waiting) {
        self.for_container[usize::from(waiting.claim.runtime.0)].push_back(waiting);
    }

    /// The claim that is first in line for memory.
    pub(crate) fn first_for_memory(&self) -> Option<&Waiting> {
        self.for_memory.front()
    }

    pub(crate) fn pop_for_memory(&mut self) -> Option<Waiting> {
        self.for_memory.pop_front()
    }

    /// The first that a container suits.
    pub(crate) fn pop_for_container(
        &mut self,
        runtime: usize,
        suits: impl Fn(&Claim) -> bool,
    ) -> Option<Waiting> {
        let list = &mut self.for_container[runtime];
        let at = list.iter().position(|waiting| suits(&waiting.claim))?;
        list.remove(at)
    }

    /// How many wait for a container of this runtime.
    pub(crate) fn count_for_container(&self, runtime: usize) -> usize {
        self.for_container[runtime].len()
    }

    /// What the first so many that wait for memory want together, MiB.
    pub(crate) fn memory_wanted_mb(&self, first: usize) -> u32 {
        let wanted = |waiting: &Waiting| u64::from(ledger_mb(waiting.claim.memory_mb));
        let sum: u64 = self.for_memory.iter().take(first).map(wanted).sum();
        u32::try_from(sum).unwrap_or(u32::MAX)
    }

    /// Takes one out that matches, with what it was waiting for.
    pub(crate) fn take(&mut self, matches: impl Fn(&Waiting) -> bool) -> Option<(Waiting, WaitsFor)> {
        if let Some(at) = self.for_memory.iter().position(&matches) {
            return self.for_memory.remove(at).map(|waiting| (waiting, WaitsFor::Memory));
        }
        for list in &mut self.for_container {
            if let Some(at) = list.iter().position(&matches) {
                return list.remove(at).map(|waiting| (waiting, WaitsFor::Container));
            }
        }
        None
    }

    /// Takes out what one engine channel has under this ticket.
    pub(crate) fn take_ticket(&mut self, channel: ChannelId, ticket: Ticket) -> Option<(Waiting, WaitsFor)> {
        self.take(|waiting| waiting.channel == channel && waiting.claim.ticket == ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use faaster_protocol::funclet::{CodeHash, RuntimeIndex};

    fn claim() -> Claim {
        Claim {
            ticket: Ticket(1),
            runtime: RuntimeIndex(1),
            placement: Placement::Core(1),
            code: CodeHash([0; 32]),
            account_tag: 0,
            function_tag: 0,
            memory_mb: 128,
            pids_max: 64,
            tmp_mb: 512,
            deadline_ns: 0,
            network: None,
            layers: None,
        }
    }

    #[test]
    fn every_bound_is_checked() {
        let good = |claim: Claim| is_within_bounds(&claim, 2, &[0, 1]);
        assert!(good(claim()));
        assert!(good(Claim { placement: Placement::Free, ..claim() }));
        assert!(!good(Claim { placement: Placement::Core(2), ..claim() }));
        assert!(!good(Claim { runtime: RuntimeIndex(2), ..claim() }));
        assert!(!good(Claim { memory_mb: 127, ..claim() }));
        assert!(!good(Claim { memory_mb: MEMORY_MB_MAX + 1, ..claim() }));
        assert!(!good(Claim { pids_max: 0, ..claim() }));
        assert!(!good(Claim { pids_max: PIDS_PER_CONTAINER_MAX + 1, ..claim() }));
        assert!(!good(Claim { tmp_mb: 0, ..claim() }));
        assert!(!good(Claim { tmp_mb: u32::MAX, ..claim() }));
    }

    #[test]
    fn the_rate_is_bounded_and_recovers() {
        let mut rate = Rate::new(Nanos(0));
        let burst = (0..2 * CLAIMS_PER_SECOND_MAX).filter(|_| rate.admit(Nanos(1))).count();
        assert_eq!(burst, CLAIMS_PER_SECOND_MAX as usize);
        assert!(!rate.admit(Nanos(1)));
        assert!(rate.admit(Nanos(1 + TOKEN_NS)));
        assert!(!rate.admit(Nanos(1 + TOKEN_NS)));
    }

    #[test]
    fn waiting_claims_keep_their_order_and_can_be_taken_out() {
        let mut room = WaitingRoom::new(2);
        let waiting = |id: u64| Waiting {
            channel: ChannelId::for_tests(7),
            claim: Claim { ticket: Ticket(id), ..claim() },
            arrived: Nanos(0),
            id: WaitingId(id),
            timer: None,
        };
        room.push_for_memory(waiting(1));
        room.push_for_memory(waiting(2));
        room.push_for_container(waiting(3));
        assert_eq!((room.memory_wanted_mb(usize::MAX), room.count_for_container(1)), (256, 1));
        assert!(room.take_ticket(ChannelId::for_tests(8), Ticket(1)).is_none());
        let (taken, what) = room.take_ticket(ChannelId::for_tests(7), Ticket(3)).unwrap();
        assert_eq!((taken.id, what), (WaitingId(3), WaitsFor::Container));
        assert_eq!(room.take(|waiting| waiting.id == WaitingId(1)).unwrap().1, WaitsFor::Memory);
        assert_eq!(room.pop_for_memory().unwrap().id, WaitingId(2));
        assert!(room.first_for_memory().is_none() && !room.is_full());
    }
}
