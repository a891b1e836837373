//! A ring without a kernel: for tests that need every order of events, and the same order again from the same seed.
//!
//! Owns: a simulated kernel (the world): clock, sockets, buffers, operations under way. The test holds a
//! [`SimHandle`] to it and plays clients, runtimes and the funclet; the shard holds a [`Sim`], which is a [`Ring`].
//! Must not know: HTTP, frames, what a shard does with a ring.
//!
//! What a real ring forbids or leaves undefined ends the test at once: two receives on one stream, two sends on one
//! stream, an operation on a descriptor that is not open, a buffer given back that was not lent.

mod faults;
mod operation;
mod wire;
mod world;

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

pub use faults::{Dice, Faults};
pub use wire::{PeerView, WireId};

use super::{
    Completion, GROUPS, Group, GroupSize, Lease, LeaseKind, Operation, Ring, RingError, Sock, Token,
};
use operation::Kind;
use wire::Kind as WireKind;
use world::{Order, World};

/// A simulated ring; see the module.
#[derive(Debug)]
pub struct Sim {
    world: Rc<RefCell<World>>,
    /// Position among the world's rings.
    ring: usize,
}

/// Names one ring of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingId(usize);

/// The test's hand on the simulated kernel.
#[derive(Debug, Clone)]
pub struct SimHandle {
    world: Rc<RefCell<World>>,
}

impl SimHandle {
    /// A world whose every chance comes from `seed`.
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self { world: Rc::new(RefCell::new(World::new(seed, faults))) }
    }

    /// Another ring in this world.
    pub fn ring(&self, client: GroupSize, instance: GroupSize) -> Sim {
        let ring = self.world.borrow_mut().add_ring([client, instance]);
        Sim { world: self.world.clone(), ring }
    }

    /// The simulated `CLOCK_MONOTONIC`, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.world.borrow().now_ns
    }

    /// Moves the clock to `at_ns`; a time that has passed does nothing.
    pub fn advance_to(&self, at_ns: u64) {
        let mut world = self.world.borrow_mut();
        world.now_ns = world.now_ns.max(at_ns);
    }

    /// Changes the faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.world.borrow_mut().faults = faults;
    }

    /// A listening socket, and the descriptor that a ring can adopt.
    pub fn listener(&self) -> (WireId, OwnedFd) {
        self.world.borrow_mut().add_adoptable(WireKind::Listener)
    }

    /// A stream between the engine and the test, and the engine's end of it.
    pub fn stream(&self) -> (WireId, OwnedFd) {
        self.world.borrow_mut().add_adoptable(WireKind::Stream)
    }

    /// A pipe from the test to the engine, and its read end.
    pub fn pipe(&self) -> (WireId, OwnedFd) {
        self.world.borrow_mut().add_adoptable(WireKind::Pipe)
    }

    /// A `SOCK_SEQPACKET` pair, and the engine's end of it.
    pub fn records(&self) -> (WireId, OwnedFd) {
        self.world.borrow_mut().add_adoptable(WireKind::Records)
    }

    /// A client's connection, in the backlog of `listener` until the engine accepts it.
    pub fn connect(&self, listener: WireId) -> WireId {
        self.world.borrow_mut().connect(listener)
    }

    /// Sends to the engine; never short, never blocked.
    pub fn send(&self, wire: WireId, bytes: &[u8]) {
        self.world.borrow_mut().wire(wire).inward.bytes.extend(bytes);
    }

    /// Sends a record with descriptors to the engine.
    pub fn send_record(&self, wire: WireId, bytes: &[u8], descriptors: Vec<OwnedFd>) {
        let record = wire::Record { bytes: bytes.to_vec(), descriptors };
        self.world.borrow_mut().wire(wire).inward.records.push_back(record);
    }

    /// Takes at most `limit` bytes that the engine sent.
    pub fn take(&self, wire: WireId, limit: usize) -> Vec<u8> {
        let mut world = self.world.borrow_mut();
        let bytes = &mut world.wire(wire).outward.bytes;
        let count = limit.min(bytes.len());
        bytes.drain(..count).collect()
    }

    /// Takes a record that the engine sent.
    pub fn take_record(&self, wire: WireId) -> Option<Vec<u8>> {
        self.world.borrow_mut().wire(wire).outward.records.pop_front().map(|record| record.bytes)
    }

    /// Bytes that the engine can send before the peer takes some.
    pub fn set_window(&self, wire: WireId, bytes: usize) {
        self.world.borrow_mut().wire(wire).window_bytes = bytes;
    }

    /// What the peer of the engine can still expect.
    pub fn peer_view(&self, wire: WireId) -> PeerView {
        let mut world = self.world.borrow_mut();
        let wire = world.wire(wire);
        wire.notice_drop();
        wire.peer_view()
    }

    /// Ends the peer's sending side; it still reads.
    pub fn shutdown(&self, wire: WireId) {
        self.world.borrow_mut().wire(wire).inward.ended = true;
    }

    /// Closes the peer's end.
    pub fn close(&self, wire: WireId) {
        self.world.borrow_mut().close_peer(wire);
    }

    /// Whether a wait of this ring would come back at once. Submits what is queued, as a sleeping wait would have.
    pub fn is_due(&self, ring: RingId) -> bool {
        self.world.borrow_mut().is_due(ring.0)
    }

    /// When a delayed operation of this ring will go on, if nothing else happens.
    pub fn next_ns(&self, ring: RingId) -> Option<u64> {
        self.world.borrow().next_ns(ring.0)
    }

    /// Buffers of each group that are lent out or filled and not yet delivered.
    pub fn buffers_out(&self, ring: RingId) -> [u16; GROUPS] {
        self.world.borrow().buffers_out(ring.0)
    }

    /// Operations that are not over.
    pub fn operations(&self, ring: RingId) -> usize {
        self.world.borrow().operations(ring.0)
    }

    /// Descriptors that the ring holds.
    pub fn open_descriptors(&self, ring: RingId) -> usize {
        self.world.borrow().open_descriptors(ring.0)
    }
}

impl Sim {
    /// This ring's name for the handle.
    pub fn id(&self) -> RingId {
        RingId(self.ring)
    }

    fn start(&self, sock: Sock, token: Token, kind: Kind) -> Operation {
        Operation(self.world.borrow_mut().queue_start(self.ring, sock, token, kind))
    }

    fn queue(&self, order: Order) {
        self.world.borrow_mut().queue(self.ring, order);
    }
}

impl Ring for Sim {
    fn accept(&mut self, listener: Sock, token: Token) {
        self.start(listener, token, Kind::Accept);
    }

    fn adopt(&mut self, descriptor: OwnedFd) -> Sock {
        self.world.borrow_mut().adopt(self.ring, descriptor)
    }

    fn receive(&mut self, sock: Sock, group: Group, token: Token) -> Operation {
        self.start(sock, token, Kind::Receive(group))
    }

    fn stop(&mut self, operation: Operation) {
        self.queue(Order::Stop(operation.0));
    }

    fn read(&mut self, pipe: Sock, group: Group, token: Token) {
        self.start(pipe, token, Kind::Read(group));
    }

    fn receive_message(&mut self, sock: Sock, token: Token) {
        self.start(sock, token, Kind::Message);
    }

    fn send(&mut self, sock: Sock, buffer: Vec<u8>, from: usize, token: Token) {
        assert!(from < buffer.len(), "a send of nothing");
        self.start(sock, token, Kind::Send { buffer, from });
    }

    fn listen_bell(&mut self, bell: Sock, token: Token) {
        self.start(bell, token, Kind::Bell);
    }

    fn stop_listening(&mut self, _listener: Sock) {
        // Nobody else has it open here: closing it, which follows, is the same.
    }

    fn shutdown_write(&mut self, sock: Sock) {
        self.queue(Order::ShutdownWrite(sock));
    }

    fn close(&mut self, sock: Sock) {
        self.queue(Order::Close(sock));
    }

    fn drain_now(&mut self, pipe: Sock, out: &mut Vec<u8>, limit: usize) -> usize {
        self.world.borrow_mut().drain_now(self.ring, pipe, out, limit)
    }

    fn give_back(&mut self, lease: Lease) {
        match lease.0 {
            LeaseKind::Owned { group, .. } => self.world.borrow_mut().give_back(self.ring, group),
            LeaseKind::Mapped { .. } => unreachable!("a real buffer in a simulated ring"),
        }
    }

    /// As the real one, but sleeping takes no time: with nothing to do, the clock jumps to the next delayed operation
    /// or to the end of `timeout`. Without a timeout and with nothing to come it returns at once.
    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> Result<(), RingError> {
        self.world.borrow_mut().wait(self.ring, timeout, out);
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        self.world.borrow().now_ns
    }

    fn unix_secs(&self) -> u64 {
        /// 2001-09-09, when the simulated clock stands at 0.
        const EPOCH_SECS: u64 = 1_000_000_000;
        EPOCH_SECS + self.world.borrow().now_ns / 1_000_000_000
    }
}

#[cfg(test)]
#[path = "sim/tests.rs"]
mod tests;
