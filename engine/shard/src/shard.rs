//! The shard itself: its tables, and how one is made.
//!
//! Owns: all state of one core. The methods stand in the files named after what they are about.
//! Must not know: other shards' state; it is generic over the ring so that the simulation can drive it.

use std::sync::Arc;

use faaster_function::code_use::CodeUses;
use faaster_http::{DateCache, Template};
use faaster_sys::ring::{Completion, Lease, Ring, Sock};

use crate::api::{Counters, Port, Reply, ShardConfig, ShardId, Sink};
use crate::call::Call;
use crate::claims::{Claiming, FuncletLink};
use crate::connection::Connection;
use crate::errand::{Errand, Packet};
use crate::functions::Functions;
use crate::instance::Instance;
use crate::mailbox::MailboxEnd;
use crate::random::Random;
use crate::slab::{Id, Slab};
use crate::spares::Spares;
use crate::timer::Timers;

/// One core's world.
pub struct Shard<R: Ring> {
    pub(crate) ring: R,
    pub(crate) id: ShardId,
    pub(crate) core: u16,
    pub(crate) config: ShardConfig,
    pub(crate) mailbox: MailboxEnd<Packet>,
    pub(crate) sink: Sink,
    pub(crate) bell: Sock,
    pub(crate) listeners: Vec<(Sock, Port)>,
    pub(crate) connections: Slab<Connection>,
    pub(crate) calls: Slab<Call>,
    pub(crate) functions: Functions,
    pub(crate) code_uses: Arc<CodeUses>,
    pub(crate) instances: Slab<Instance>,
    pub(crate) claims: Slab<Claiming>,
    pub(crate) funclets: Vec<Option<FuncletLink>>,
    /// Of the latest channel to any funclet.
    pub(crate) funclet_epoch: u32,
    pub(crate) timers: Timers,
    pub(crate) counters: Counters,
    pub(crate) random: Random,
    pub(crate) date: DateCache,
    /// Always there, but for the moment in which an answer borrows it.
    pub(crate) template: Option<Template>,
    pub(crate) now_ns: u64,
    /// Connections and instances with something to send at the end of the loop turn.
    pub(crate) dirty_connections: Vec<Id<Connection>>,
    pub(crate) dirty_instances: Vec<Id<Instance>>,
    /// Receives that ended for want of buffers: asked again at the end of the turn.
    pub(crate) starved_connections: Vec<Id<Connection>>,
    pub(crate) starved_instances: Vec<Id<Instance>>,
    /// The same for log pipes: the channel's receive of such an instance may well be under way.
    pub(crate) starved_logs: Vec<Id<Instance>>,
    /// Connections that were held back and may be read again.
    pub(crate) resumable: Vec<Id<Connection>>,
    /// Empty; takes turns with `resumable`, so that the list can grow while it is worked through.
    pub(crate) resuming: Vec<Id<Connection>>,
    pub(crate) spares: Spares,
    /// Empty boxes for calls that cross to other shards.
    #[expect(clippy::vec_box, reason = "the boxes themselves travel; a Vec of values would copy them")]
    pub(crate) errands: Vec<Box<Errand>>,
    /// Packets whose lane was full; they go first next turn.
    pub(crate) unsent: std::collections::VecDeque<(ShardId, Packet)>,
    /// Grants of response credit that wait for room, in order.
    pub(crate) owed_grants: std::collections::VecDeque<(Id<Instance>, Id<Call>)>,
    pub(crate) held_bytes: usize,
    pub(crate) async_queued: usize,
    pub(crate) control_in_flight: usize,
    pub(crate) draining: Option<Reply<ShardId>>,
    pub(crate) completions: Vec<Completion>,
}

impl<R: Ring> std::fmt::Debug for Shard<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("id", &self.id)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// What a shard is made of, beside its ring.
pub struct Parts {
    pub id: ShardId,
    /// The core that it is pinned to, which its instances use.
    pub core: u16,
    pub config: ShardConfig,
    pub mailbox: MailboxEnd<Packet>,
    pub sink: Sink,
    /// Of the engine: which packages are in use.
    pub code_uses: Arc<CodeUses>,
    /// Seeds request ids.
    pub seed: [u64; 2],
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<R: Ring> Shard<R> {
    /// A shard that has not begun; `listeners` and `bell` belong to `ring`.
    pub fn new(ring: R, parts: Parts, listeners: Vec<(Sock, Port)>, bell: Sock) -> Self {
        let date = DateCache::new(ring.unix_secs());
        let template = Some(Template::new(&date));
        let now_ns = ring.now_ns();
        let funclets = (0..parts.config.funclets.max(1)).map(|_| None).collect();
        Self {
            ring,
            id: parts.id,
            core: parts.core,
            config: parts.config,
            mailbox: parts.mailbox,
            sink: parts.sink,
            bell,
            listeners,
            connections: Slab::new(),
            calls: Slab::new(),
            functions: Functions::default(),
            code_uses: parts.code_uses,
            instances: Slab::new(),
            claims: Slab::new(),
            funclets,
            funclet_epoch: 0,
            timers: Timers::default(),
            counters: Counters::default(),
            random: Random::new(parts.seed),
            date,
            template,
            now_ns,
            dirty_connections: Vec::with_capacity(1024),
            dirty_instances: Vec::with_capacity(256),
            starved_connections: Vec::new(),
            starved_instances: Vec::new(),
            starved_logs: Vec::new(),
            resumable: Vec::new(),
            resuming: Vec::new(),
            spares: Spares::new(),
            errands: Vec::new(),
            unsent: std::collections::VecDeque::new(),
            owed_grants: std::collections::VecDeque::new(),
            held_bytes: 0,
            async_queued: 0,
            control_in_flight: 0,
            draining: None,
            completions: Vec::with_capacity(1024),
        }
    }

    /// Takes `bytes` from the budget of what is held outside of provided buffers.
    pub(crate) fn hold(&mut self, bytes: usize) -> bool {
        if self.held_bytes + bytes > faaster_limits::HELD_BYTES_PER_SHARD_MAX {
            return false;
        }
        self.held_bytes += bytes;
        true
    }

    pub(crate) fn unhold(&mut self, bytes: usize) {
        self.held_bytes = self.held_bytes.checked_sub(bytes).expect("only what was held is given back");
    }

    pub(crate) fn give_back(&mut self, lease: Lease) {
        self.ring.give_back(lease);
    }
}
