//! A funclet played by the test: it answers every claim once and tells every container's end once.
//!
//! Owns: one shard's channel to it, and its manner. Must not know: frames, HTTP.

use std::os::fd::OwnedFd;

use faaster_protocol::funclet::{
    Claim, ClaimSource, End, Event, Generation, Refusal, Request, SlotId, Ticket,
};
use faaster_sys::ring::sim::{Dice, SimHandle, WireId};

/// How it behaves.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// Claims that are refused, of 1,000.
    pub(crate) refuses: u16,
    /// Longest time until a claim is answered.
    pub(crate) slow_ns_max: u64,
}

/// What it does by itself, later.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FuncletDeed {
    Serve(Claim),
    Refuse(Ticket, Refusal),
    /// The container is dead by now.
    Kill(u32),
    Tell(u32, End),
    Freeze(u32),
    Thaw(u32),
}

/// The generation of all slots: no slot is used twice.
const GENERATION: Generation = Generation(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Funclet {
    pub(crate) wire: WireId,
    /// Of its life: deeds of an earlier one are forgotten.
    pub(crate) epoch: u32,
    pub(crate) alive: bool,
    /// Claims not answered yet.
    waiting: Vec<Ticket>,
    /// The ends that it told.
    told: Vec<u32>,
}

impl Funclet {
    pub(crate) fn new(wire: WireId, epoch: u32) -> Self {
        Self { wire, epoch, alive: true, waiting: Vec::new(), told: Vec::new() }
    }

    /// Takes the engine's requests. Appends what will follow, each with its delay in nanoseconds.
    pub(crate) fn poll(
        &mut self,
        sim: &SimHandle,
        dice: &mut Dice,
        manner: Manner,
        later: &mut Vec<(u64, FuncletDeed)>,
    ) -> bool {
        let mut progressed = false;
        while self.alive
            && let Some(record) = sim.take_record(self.wire)
        {
            progressed = true;
            match Request::decode(&record).expect("the engine sends whole requests") {
                Request::Claim(claim) => {
                    assert!(!self.waiting.contains(&claim.ticket), "tickets are unique");
                    self.waiting.push(claim.ticket);
                    let delay_ns = dice.below(manner.slow_ns_max + 1);
                    let refusals = [
                        Refusal::Memory,
                        Refusal::Slots,
                        Refusal::Boot,
                        Refusal::Code,
                        Refusal::Deadline,
                        Refusal::System,
                    ];
                    later.push(if dice.chance(manner.refuses) {
                        (delay_ns, FuncletDeed::Refuse(claim.ticket, refusals[dice.index(refusals.len())]))
                    } else {
                        (delay_ns, FuncletDeed::Serve(claim))
                    });
                }
                Request::Kill { slot, generation } => {
                    assert_eq!(generation, GENERATION);
                    later.push((dice.below(5_000_000), FuncletDeed::Kill(slot.0)));
                }
                Request::CancelClaim { ticket } => {
                    if self.is_answered_now(ticket) {
                        self.refused(sim, ticket, Refusal::Cancelled);
                    }
                }
                // Most can be; some keep their limits.
                Request::Resize { slot, generation, .. } => {
                    assert_eq!(generation, GENERATION);
                    if dice.chance(manner.refuses) {
                        sim.send_record(
                            self.wire,
                            &Event::NotResized { slot, generation }.encode(),
                            Vec::new(),
                        );
                    }
                }
                Request::Place { generation, .. } => assert_eq!(generation, GENERATION),
                Request::Freeze { slot, .. } => {
                    later.push((dice.below(manner.slow_ns_max + 1), FuncletDeed::Freeze(slot.0)));
                }
                Request::Thaw { slot, .. } => {
                    later.push((dice.below(manner.slow_ns_max + 1), FuncletDeed::Thaw(slot.0)));
                }
                // As if it always came too late: the claim is served all the same.
                other => panic!("{other:?} does not come from a shard"),
            }
        }
        progressed
    }

    /// Whether a claim has waited until now: then the caller answers it.
    pub(crate) fn is_answered_now(&mut self, ticket: Ticket) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| *waiting != ticket);
        self.waiting.len() < before
    }

    pub(crate) fn claimed(&self, sim: &SimHandle, claim: &Claim, slot: u32, descriptors: Vec<OwnedFd>) {
        let event = Event::Claimed {
            ticket: claim.ticket,
            slot: SlotId(slot),
            generation: GENERATION,
            pid: slot,
            source: ClaimSource::Pool,
            claim_us: 1,
            attach_us: 1,
        };
        sim.send_record(self.wire, &event.encode(), descriptors);
    }

    pub(crate) fn refused(&self, sim: &SimHandle, ticket: Ticket, refusal: Refusal) {
        sim.send_record(self.wire, &Event::Refused { ticket, refusal, errno: 0 }.encode(), Vec::new());
    }

    /// Tells the end of a container, once.
    pub(crate) fn ended(&mut self, sim: &SimHandle, slot: u32, end: End) {
        if self.told.contains(&slot) {
            return;
        }
        self.told.push(slot);
        let event = Event::Ended {
            slot: SlotId(slot),
            generation: GENERATION,
            end,
            memory_peak_bytes: 1 << 20,
            memory_limit_bytes: 128 << 20,
            cpu_used_us: 1,
        };
        sim.send_record(self.wire, &event.encode(), Vec::new());
    }

    /// Tells that a container's processes are stopped, or that they run.
    pub(crate) fn rests(&self, sim: &SimHandle, slot: u32, frozen: bool) {
        let (slot, generation) = (SlotId(slot), GENERATION);
        let event =
            if frozen { Event::Frozen { slot, generation } } else { Event::Thawed { slot, generation } };
        sim.send_record(self.wire, &event.encode(), Vec::new());
    }

    pub(crate) fn shortage(&self, sim: &SimHandle, memory_mb: u32) {
        sim.send_record(self.wire, &Event::Shortage { memory_mb }.encode(), Vec::new());
    }
}
