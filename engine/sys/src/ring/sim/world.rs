//! The simulated kernel: time, wires, and the rings that work on them.
//!
//! Owns: everything that a simulation consists of. Must not know: who drives it.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::io::Errno;

use super::super::{Armed, Completion, GROUPS, Group, GroupSize, MESSAGE_BYTES_MAX, Message, Received, Sock};
use super::super::{Lease, LeaseKind, Token};
use super::faults::{Dice, Faults};
use super::operation::{Kind, Op, Stage};
use super::wire::{Kind as WireKind, Record, Wire, WireId};

/// What a ring was told and has not submitted.
#[derive(Debug)]
pub(super) enum Order {
    Start(u64),
    Stop(u64),
    ShutdownWrite(Sock),
    Close(Sock),
}

/// What a descriptor of a ring leads to.
#[derive(Debug)]
enum Target {
    Wire(WireId),
    /// A doorbell: a real eventfd.
    Real,
}

#[derive(Debug)]
struct RingState {
    queued: Vec<Order>,
    operations: BTreeMap<u64, Op>,
    next_operation: u64,
    direct: Vec<Option<WireId>>,
    plain: BTreeMap<RawFd, (OwnedFd, Target)>,
    groups: [GroupSize; GROUPS],
    free: [u16; GROUPS],
}

/// See the module.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now_ns: u64,
    pub(super) faults: Faults,
    dice: Dice,
    wires: Vec<Wire>,
    /// Descriptors made for the engine that no ring has adopted yet.
    adoptable: BTreeMap<RawFd, WireId>,
    rings: Vec<RingState>,
}

/// The clock starts at a time that no duration reaches below.
const START_NS: u64 = 1_000_000_000_000;
/// Completions that one receive makes at once, at most.
const BURST_MAX: u64 = 4;

impl World {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self {
            now_ns: START_NS,
            faults,
            dice: Dice::new(seed),
            wires: Vec::new(),
            adoptable: BTreeMap::new(),
            rings: Vec::new(),
        }
    }

    pub(super) fn add_ring(&mut self, groups: [GroupSize; GROUPS]) -> usize {
        self.rings.push(RingState {
            queued: Vec::new(),
            operations: BTreeMap::new(),
            next_operation: 0,
            direct: Vec::new(),
            plain: BTreeMap::new(),
            groups,
            free: groups.map(|group| group.count),
        });
        self.rings.len() - 1
    }

    pub(super) fn wire(&mut self, id: WireId) -> &mut Wire {
        &mut self.wires[id.0]
    }

    fn add_wire(&mut self, kind: WireKind, guard: Option<OwnedFd>) -> WireId {
        self.wires.push(Wire::new(kind, guard));
        WireId(self.wires.len() - 1)
    }

    /// A wire and a real descriptor that stands for the engine's end: a pipe, whose other end tells when it is dropped.
    pub(super) fn add_adoptable(&mut self, kind: WireKind) -> (WireId, OwnedFd) {
        let (guard, descriptor) = rustix::pipe::pipe().expect("a test has descriptors left");
        let wire = self.add_wire(kind, Some(guard));
        self.adoptable.insert(descriptor.as_raw_fd(), wire);
        (wire, descriptor)
    }

    pub(super) fn connect(&mut self, listener: WireId) -> WireId {
        let wire = self.add_wire(WireKind::Stream, None);
        assert!(self.wires[listener.0].kind == WireKind::Listener, "clients connect to listeners");
        if self.wires[listener.0].engine_closed {
            self.wires[wire.0].close_engine_side();
            self.wires[wire.0].outward.reset = true;
        } else {
            self.wires[listener.0].backlog.push_back(wire);
        }
        wire
    }

    pub(super) fn close_peer(&mut self, wire: WireId) {
        let reset = self.dice.chance(self.faults.reset);
        self.wires[wire.0].close_peer_side(reset);
    }

    pub(super) fn adopt(&mut self, ring: usize, descriptor: OwnedFd) -> Sock {
        let raw = descriptor.as_raw_fd();
        let target = match self.adoptable.remove(&raw) {
            Some(wire) if !self.wires[wire.0].engine_closed => {
                self.wires[wire.0].adopted = true;
                Target::Wire(wire)
            }
            _ => Target::Real,
        };
        self.rings[ring].plain.insert(raw, (descriptor, target));
        Sock::Plain(raw)
    }

    pub(super) fn queue(&mut self, ring: usize, order: Order) {
        self.rings[ring].queued.push(order);
    }

    pub(super) fn queue_start(&mut self, ring: usize, sock: Sock, token: Token, kind: Kind) -> u64 {
        let state = &mut self.rings[ring];
        let id = state.next_operation;
        state.next_operation += 1;
        state.operations.insert(id, Op::new(token, kind, sock));
        state.queued.push(Order::Start(id));
        id
    }

    // --- Submission --------------------------------------------------------------------------------------------

    fn submit(&mut self, ring: usize) {
        for order in std::mem::take(&mut self.rings[ring].queued) {
            match order {
                Order::Start(id) => self.begin(ring, id),
                Order::Stop(id) => self.cancel(ring, id),
                Order::ShutdownWrite(sock) => {
                    let wire = self.resolve(ring, sock).expect("a doorbell is not shut down");
                    self.wires[wire.0].outward.ended = true;
                }
                Order::Close(sock) => self.close(ring, sock),
            }
        }
    }

    /// The wire behind a descriptor; `None`: a real one.
    fn resolve(&self, ring: usize, sock: Sock) -> Option<WireId> {
        let state = &self.rings[ring];
        match sock {
            Sock::Direct(position) => {
                let slot = state.direct.get(position as usize).copied().flatten();
                Some(slot.unwrap_or_else(|| panic!("{sock:?} is not open")))
            }
            Sock::Plain(raw) => {
                let (_, target) = state.plain.get(&raw).unwrap_or_else(|| panic!("{sock:?} is not open"));
                match target {
                    Target::Wire(wire) => Some(*wire),
                    Target::Real => None,
                }
            }
        }
    }

    fn begin(&mut self, ring: usize, id: u64) {
        let sock = self.rings[ring].operations[&id].sock;
        let wire = self.resolve(ring, sock);
        let may_share = wire.is_some_and(|wire| self.wires[wire.0].kind == WireKind::Records);
        let op = &self.rings[ring].operations[&id];
        let rival = self.rings[ring].operations.iter().find(|(other, rival)| {
            let same_side = matches!(rival.kind, Kind::Send { .. }) == matches!(op.kind, Kind::Send { .. });
            **other != id && rival.sock == sock && rival.is_working() && same_side
        });
        if let Some((_, rival)) = rival
            && !(may_share && matches!(op.kind, Kind::Send { .. }))
        {
            panic!("{:?} begins on {sock:?} while {:?} is under way", op.token, rival.token);
        }
        let delayed = self.dice.chance(self.faults.delay);
        let delay_ns = if delayed { self.dice.below(self.faults.delay_ns_max + 1) } else { 0 };
        let not_before_ns = self.now_ns + delay_ns;
        let op = self.op(ring, id);
        op.wire = wire;
        op.not_before_ns = not_before_ns;
        op.stage = Stage::Live;
        self.attempt(ring, id);
    }

    fn op(&mut self, ring: usize, id: u64) -> &mut Op {
        self.rings[ring]
            .operations
            .get_mut(&id)
            .expect("operations stay until their last completion is delivered")
    }

    fn cancel(&mut self, ring: usize, id: u64) {
        let late = self.dice.chance(self.faults.late_cancel);
        let at_ns = self.now_ns + self.dice.below(self.faults.delay_ns_max + 1);
        let Some(op) = self.rings[ring].operations.get_mut(&id) else { return };
        match op.stage {
            Stage::Live if late && at_ns > self.now_ns => op.stage = Stage::Stopping { at_ns },
            Stage::Live => op.fail(Errno::CANCELED),
            Stage::Queued | Stage::Stopping { .. } | Stage::Over => {}
        }
    }

    /// Ends all operations on a descriptor at once and frees its number; only their completions can come late.
    fn close(&mut self, ring: usize, sock: Sock) {
        let wire = self.resolve(ring, sock);
        let state = &mut self.rings[ring];
        for op in state.operations.values_mut().filter(|op| op.sock == sock && op.is_working()) {
            op.fail(Errno::CANCELED);
        }
        match sock {
            Sock::Direct(position) => state.direct[position as usize] = None,
            Sock::Plain(raw) => drop(state.plain.remove(&raw)),
        }
        if let Some(wire) = wire {
            let wire = &mut self.wires[wire.0];
            wire.close_engine_side();
            for waiting in std::mem::take(&mut wire.backlog) {
                self.wires[waiting.0].close_engine_side();
                self.wires[waiting.0].outward.reset = true;
            }
        }
    }

    // --- Work --------------------------------------------------------------------------------------------------

    fn pump(&mut self, ring: usize) {
        let mut ids: Vec<u64> = self.rings[ring].operations.keys().copied().collect();
        for last in (1..ids.len()).rev() {
            ids.swap(last, self.dice.index(last + 1));
        }
        for id in ids {
            self.attempt(ring, id);
        }
    }

    fn attempt(&mut self, ring: usize, id: u64) {
        let now_ns = self.now_ns;
        let op = self.op(ring, id);
        if let Stage::Stopping { at_ns } = op.stage
            && at_ns <= now_ns
        {
            op.fail(Errno::CANCELED);
        }
        if !op.is_working() || op.not_before_ns > now_ns {
            return;
        }
        let (token, sock, wire) = (op.token, op.sock, op.wire);
        match (&op.kind, wire) {
            (Kind::Bell, _) => self.hear_bell(ring, id, sock),
            (Kind::Accept, Some(wire)) => self.take_connections(ring, id, token, wire),
            (Kind::Receive(group), Some(wire)) => {
                let group = *group;
                for _ in 0..self.dice.between(1, BURST_MAX) {
                    if !self.fill(ring, id, wire, group) {
                        break;
                    }
                }
            }
            (Kind::Read(group), Some(wire)) => {
                let group = *group;
                self.fill(ring, id, wire, group);
            }
            (Kind::Message, Some(wire)) => self.take_message(ring, id, token, wire),
            (Kind::Send { .. }, Some(wire)) => self.put(ring, id, wire),
            (kind, None) => panic!("{kind:?} on a real descriptor"),
        }
    }

    fn hear_bell(&mut self, ring: usize, id: u64, sock: Sock) {
        let Sock::Plain(raw) = sock else { unreachable!("doorbells are adopted") };
        let (descriptor, _) = &self.rings[ring].plain[&raw];
        let mut poll = [rustix::event::PollFd::new(descriptor, rustix::event::PollFlags::IN)];
        let at_once = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        if rustix::event::poll(&mut poll, Some(&at_once)).is_ok_and(|ready| ready == 1) {
            let mut count = [0u8; 8];
            rustix::io::read(descriptor, &mut count).expect("a readable eventfd is read");
            let op = self.op(ring, id);
            let token = op.token;
            op.finish(Completion::Rung { token });
        }
    }

    fn take_connections(&mut self, ring: usize, id: u64, token: Token, listener: WireId) {
        while let Some(wire) = self.wires[listener.0].backlog.front().copied() {
            if self.dice.chance(self.faults.refuse_accept) {
                self.op(ring, id).fail(Errno::MFILE);
                return;
            }
            self.wires[listener.0].backlog.pop_front();
            let direct = &mut self.rings[ring].direct;
            // As the kernel: the lowest free position, so that numbers are used again soon.
            let position = direct.iter().position(Option::is_none).unwrap_or_else(|| {
                direct.push(None);
                direct.len() - 1
            });
            direct[position] = Some(wire);
            let sock = Sock::Direct(u32::try_from(position).expect("few descriptors"));
            let armed = self.armed();
            self.op(ring, id).complete(Completion::Accepted { token, result: Ok(sock), armed }, armed);
            if armed == Armed::No {
                return;
            }
        }
    }

    fn armed(&mut self) -> Armed {
        if self.dice.chance(self.faults.disarm) { Armed::No } else { Armed::Yes }
    }

    /// One completion of a receive or a read; whether more may follow.
    fn fill(&mut self, ring: usize, id: u64, wire: WireId, group: Group) -> bool {
        let multishot = matches!(self.op(ring, id).kind, Kind::Receive(_));
        let token = self.op(ring, id).token;
        let there = self.wires[wire.0].inward.bytes.len();
        let (received, armed) = if there > 0 {
            let free = self.rings[ring].free[group as usize];
            if free == 0 || self.dice.chance(self.faults.starve) {
                (Received::Failed(Errno::NOBUFS), Armed::No)
            } else {
                let length = self.piece(there.min(self.rings[ring].groups[group as usize].bytes));
                let bytes: Vec<u8> = self.wires[wire.0].inward.bytes.drain(..length).collect();
                self.rings[ring].free[group as usize] -= 1;
                let armed = if multishot { self.armed() } else { Armed::No };
                (Received::Data(Lease(LeaseKind::Owned { bytes, group })), armed)
            }
        } else if self.wires[wire.0].inward.reset {
            (Received::Failed(Errno::CONNRESET), Armed::No)
        } else if self.wires[wire.0].inward.ended {
            (Received::End, Armed::No)
        } else {
            return false;
        };
        self.op(ring, id).complete(Completion::Received { token, received, armed }, armed);
        armed == Armed::Yes
    }

    /// How much of `length` bytes comes or goes at once.
    fn piece(&mut self, length: usize) -> usize {
        if !self.dice.chance(self.faults.split) {
            return length;
        }
        // Small pieces find more mistakes than large ones.
        let limit = if self.dice.one_in(2) { length.min(64) } else { length };
        1 + self.dice.index(limit)
    }

    fn take_message(&mut self, ring: usize, id: u64, token: Token, wire: WireId) {
        let wire = &mut self.wires[wire.0];
        let result = match wire.inward.records.pop_front() {
            Some(Record { bytes, descriptors }) => {
                let mut padded = [0; MESSAGE_BYTES_MAX];
                padded[..bytes.len()].copy_from_slice(&bytes);
                Ok(Some(Box::new(Message { bytes: padded, length: bytes.len(), descriptors })))
            }
            None if wire.inward.ended => Ok(None),
            None => return,
        };
        self.op(ring, id).finish(Completion::Message { token, result });
    }

    fn put(&mut self, ring: usize, id: u64, to: WireId) {
        let short = self.dice.chance(self.faults.short_send);
        let swallow = self.dice.one_in(2);
        let wire = &mut self.wires[to.0];
        let room = wire.window_bytes.saturating_sub(wire.outward.bytes.len());
        let state = &mut self.rings[ring];
        let op = state.operations.get_mut(&id).expect("the caller holds it");
        let Kind::Send { buffer, from } = &mut op.kind else { unreachable!("only a send is put") };
        let length = buffer.len() - *from;
        let sent = if wire.peer_closed {
            if wire.inward.reset || wire.kind == WireKind::Records || !swallow {
                return op.fail(Errno::PIPE);
            }
            // TCP takes the first bytes to a closed peer and learns of it by the reset that comes back.
            wire.inward.reset = true;
            length
        } else if wire.kind == WireKind::Records {
            wire.outward
                .records
                .push_back(Record { bytes: buffer[*from..].to_vec(), descriptors: Vec::new() });
            length
        } else if room == 0 {
            return;
        } else {
            let most = length.min(room);
            let count = if short { 1 + self.dice.index(most) } else { most };
            wire.outward.bytes.extend(&buffer[*from..*from + count]);
            count
        };
        let (token, buffer) = (op.token, std::mem::take(buffer));
        op.finish(Completion::Sent { token, result: Ok(sent), buffer });
    }

    // --- Delivery ----------------------------------------------------------------------------------------------

    pub(super) fn is_due(&mut self, ring: usize) -> bool {
        self.submit(ring);
        self.pump(ring);
        self.rings[ring].operations.values().any(|op| !op.ready.is_empty())
    }

    pub(super) fn next_ns(&self, ring: usize) -> Option<u64> {
        let later = |op: &Op| match op.stage {
            Stage::Live => Some(op.not_before_ns),
            Stage::Stopping { at_ns } => Some(at_ns),
            Stage::Queued | Stage::Over => None,
        };
        let times = self.rings[ring].operations.values().filter_map(later);
        times.filter(|at_ns| *at_ns > self.now_ns).min()
    }

    pub(super) fn wait(&mut self, ring: usize, timeout: Option<Duration>, out: &mut Vec<Completion>) {
        let patience = timeout.map(|limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        let deadline_ns = patience.map(|limit_ns| self.now_ns.saturating_add(limit_ns));
        while !self.is_due(ring) {
            let next_ns = match (self.next_ns(ring), deadline_ns) {
                (Some(a), Some(b)) => a.min(b),
                (Some(only), None) | (None, Some(only)) => only,
                (None, None) => return,
            };
            if next_ns <= self.now_ns {
                return;
            }
            self.now_ns = next_ns;
        }
        self.deliver(ring, out);
    }

    /// Hands out completions: those of one operation in their order, those of different ones in any, but reads first.
    fn deliver(&mut self, ring: usize, out: &mut Vec<Completion>) {
        let operations = &self.rings[ring].operations;
        let mut ids: Vec<u64> =
            operations.iter().filter(|(_, op)| !op.ready.is_empty()).map(|(id, _)| *id).collect();
        let last_resort = ids[self.dice.index(ids.len())];
        let before = out.len();
        for op in self.rings[ring].operations.values_mut().filter(|op| matches!(op.kind, Kind::Read(_))) {
            out.extend(op.ready.drain(..));
        }
        while !ids.is_empty() {
            let at = self.dice.index(ids.len());
            let id = ids[at];
            let stays = self.dice.chance(self.faults.hold_back);
            let op = self.op(ring, id);
            if stays || op.ready.is_empty() {
                ids.swap_remove(at);
                continue;
            }
            out.extend(op.ready.pop_front());
        }
        if out.len() == before {
            let op = self.op(ring, last_resort);
            out.extend(op.ready.pop_front());
        }
        self.rings[ring].operations.retain(|_, op| op.stage != Stage::Over || !op.ready.is_empty());
    }

    // --- Buffers and books ----------------------------------------------------------------------------------------

    pub(super) fn give_back(&mut self, ring: usize, group: Group) {
        let state = &mut self.rings[ring];
        let at = group as usize;
        assert!(state.free[at] < state.groups[at].count, "a buffer was given back that was not lent");
        state.free[at] += 1;
    }

    pub(super) fn drain_now(&mut self, ring: usize, pipe: Sock, out: &mut Vec<u8>, limit: usize) -> usize {
        let Some(wire) = self.resolve(ring, pipe) else { return 0 };
        let bytes = &mut self.wires[wire.0].inward.bytes;
        let count = limit.min(bytes.len());
        out.extend(bytes.drain(..count));
        count
    }

    pub(super) fn buffers_out(&self, ring: usize) -> [u16; GROUPS] {
        let state = &self.rings[ring];
        std::array::from_fn(|at| state.groups[at].count - state.free[at])
    }

    pub(super) fn operations(&self, ring: usize) -> usize {
        self.rings[ring].operations.values().filter(|op| op.stage != Stage::Over).count()
    }

    pub(super) fn open_descriptors(&self, ring: usize) -> usize {
        let state = &self.rings[ring];
        state.plain.len() + state.direct.iter().flatten().count()
    }
}
