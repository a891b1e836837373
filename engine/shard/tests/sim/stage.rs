//! The stage: shards on simulated rings, the actors around them, one clock.
//!
//! Owns: who does what when. A shard gets a turn exactly when a real one would wake up, so that a missed wake-up shows
//! as a request that nobody answers. Must not know: what a scenario asks for, which answers are right.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use faaster_function::Deployed;
use faaster_function::code_use::{CodeLease, CodeUses};
use faaster_protocol::funclet::{Claim, End};
use faaster_shard::api::{CodeAbsent, ControlReply};
use faaster_shard::audit::Audit;
use faaster_shard::{Command, CommandSender, Notice, Parts, Port, Shard, ShardId, network};
use faaster_sys::ring::Ring;
use faaster_sys::ring::sim::{Dice, Faults, RingId, Sim, SimHandle, WireId};

use crate::client::{Client, State};
use crate::funclet::{Funclet, FuncletDeed};
use crate::runtime::{Runtime, RuntimeDeed};
use crate::scenario::{HEALTH_TIMEOUT_NS, Scenario};

/// Something that happens at a time of its own.
#[derive(Debug)]
enum Deed {
    Runtime(usize, RuntimeDeed),
    Funclet { shard: usize, epoch: u32, deed: FuncletDeed },
    Reply(usize, ControlReply),
    Code(usize, Arc<Deployed>, Result<CodeLease, CodeAbsent>),
    FuncletBack(usize),
    Operator(Act),
}

/// What an operator does to the node.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    Deploy(usize, &'static str),
    Remove(usize),
    Invalidate,
    Shortage,
    Report,
    /// The funclet dies with all its containers.
    FuncletDies,
}

/// Whether the shards were asked to finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    No,
    Yes,
}

struct Seat {
    shard: Shard<Sim>,
    ring: RingId,
    commands: CommandSender,
    notices: mpsc::Receiver<Notice>,
    listener: WireId,
    funclet: Funclet,
    before: Audit,
}

/// See the module.
pub(crate) struct Stage {
    pub(crate) sim: SimHandle,
    pub(crate) dice: Dice,
    pub(crate) scenario: Scenario,
    seats: Vec<Seat>,
    code_uses: Arc<CodeUses>,
    clients: Vec<Client>,
    runtimes: Vec<Runtime>,
    /// Live runtimes: most scenarios start many and keep few.
    live: BTreeSet<usize>,
    deeds: BTreeMap<(u64, u64), Deed>,
    deeds_total: u64,
    funclet_lost_expected: usize,
    /// Clock steps in a row that were too short to be anything but a busy loop.
    hurried_steps: usize,
    trace: VecDeque<String>,
    traced: bool,
}

const TRACE_MAX: usize = 400;
/// What an instance may have been hanging for: the time-out of its ping, and slack for slow operations.
const HANG_NS_MAX: u64 = HEALTH_TIMEOUT_NS + 600_000_000;

impl Stage {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let scenario = Scenario::random(&mut dice);
        let sim = SimHandle::new(dice.roll(), scenario.faults);
        let code_uses = Arc::<CodeUses>::default();
        let (ends, senders) = network(scenario.shards).expect("a test has descriptors left");
        let seats = ends
            .into_iter()
            .zip(senders)
            .enumerate()
            .map(|(at, (mailbox, commands))| {
                let mut ring = sim.ring(scenario.client_buffers, scenario.instance_buffers);
                let id = ring.id();
                let (listener, descriptor) = sim.listener();
                let listeners = vec![(ring.adopt(descriptor), Port::Controller)];
                let bell = ring.adopt(mailbox.bell().expect("a test has descriptors left"));
                let (notice_in, notices) = mpsc::channel();
                let parts = Parts {
                    id: ShardId(u16::try_from(at).expect("two at most")),
                    core: 0,
                    config: scenario.config(),
                    mailbox,
                    sink: Box::new(move |notice| notice_in.send(notice).map_err(|back| back.0)),
                    code_uses: code_uses.clone(),
                    seed: [seed, at as u64 + 1],
                };
                let mut shard = Shard::new(ring, parts, listeners, bell);
                shard.begin();
                let (wire, channel) = sim.records();
                assert!(commands.send(Command::FuncletUp { funclet: 0, channel }).is_ok());
                let before = shard.audit();
                let funclet = Funclet::new(wire, 0);
                Seat { shard, ring: id, commands, notices, listener, funclet, before }
            })
            .collect();
        let traced = std::env::var_os("FAASTER_SIM_TRACE").is_some();
        Self {
            sim,
            dice,
            scenario,
            seats,
            code_uses,
            clients: Vec::new(),
            runtimes: Vec::new(),
            live: BTreeSet::new(),
            deeds: BTreeMap::new(),
            deeds_total: 0,
            funclet_lost_expected: 0,
            hurried_steps: 0,
            trace: VecDeque::new(),
            traced,
        }
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.traced {
            if self.trace.len() == TRACE_MAX {
                self.trace.pop_front();
            }
            let line = format!("{:>14} {}", self.sim.now_ns() - 1_000_000_000_000, what());
            self.trace.push_back(line);
        }
    }

    pub(crate) fn print_trace(&self) {
        self.trace.iter().for_each(|line| eprintln!("{line}"));
    }

    fn later(&mut self, delay_ns: u64, deed: Deed) {
        self.deeds_total += 1;
        self.deeds.insert((self.sim.now_ns() + delay_ns, self.deeds_total), deed);
    }

    pub(crate) fn plan(&mut self, delay_ns: u64, act: Act) {
        self.later(delay_ns, Deed::Operator(act));
    }

    pub(crate) fn add_client(&mut self, start_in_ns: u64) {
        let seat = self.dice.index(self.seats.len());
        let wire = self.sim.connect(self.seats[seat].listener);
        let start_ns = self.sim.now_ns() + start_in_ns;
        let habits = self.scenario.habits(&mut self.dice, start_ns);
        if habits.reads > 0 {
            self.sim.set_window(wire, 1000);
        }
        let requests = self.scenario.requests(&mut self.dice);
        self.clients.push(Client::new(wire, habits, requests, start_ns));
    }

    // --- Time ----------------------------------------------------------------------------------------------------

    /// Plays until `done`, or until the simulated clock has moved by `limit`. Whether it was done in time.
    pub(crate) fn play_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let limit_ns = self.sim.now_ns() + u64::try_from(limit.as_nanos()).expect("short");
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            let Some(next_ns) = self.next_ns() else { return false };
            if next_ns > limit_ns {
                self.sim.advance_to(limit_ns);
                self.settle();
                return done(self);
            }
            self.advance(next_ns);
        }
    }

    fn advance(&mut self, next_ns: u64) {
        let step_ns = next_ns - self.sim.now_ns();
        self.hurried_steps = if step_ns < 1000 { self.hurried_steps + 1 } else { 0 };
        assert!(self.hurried_steps < 1000, "the shard is in a busy loop");
        self.sim.advance_to(next_ns);
    }

    /// When anything will happen next.
    fn next_ns(&mut self) -> Option<u64> {
        let now_ns = self.sim.now_ns();
        let mut next_ns = self.deeds.first_key_value().map(|((at_ns, _), _)| *at_ns).unwrap_or(u64::MAX);
        for seat in &mut self.seats {
            if let Some(wait) = seat.shard.next_wait() {
                next_ns = next_ns.min(now_ns + u64::try_from(wait.as_nanos()).expect("short"));
            }
            next_ns = next_ns.min(self.sim.next_ns(seat.ring).unwrap_or(u64::MAX));
        }
        next_ns = self.clients.iter().map(|client| client.step_ns).fold(next_ns, u64::min);
        (next_ns != u64::MAX).then_some(next_ns.max(now_ns))
    }

    /// Lets everybody act who has something to do now.
    fn settle(&mut self) {
        // Far beyond what any scenario does at one instant.
        const ROUNDS_MAX: usize = 200_000;
        for _ in 0..ROUNDS_MAX {
            let mut progressed = false;
            for at in 0..self.seats.len() {
                progressed |= self.turn_if_due(at);
            }
            progressed |= self.do_deeds();
            progressed |= self.poll_actors();
            if !progressed {
                return;
            }
        }
        panic!("the shard is in a busy loop: time stands still");
    }

    fn turn_if_due(&mut self, at: usize) -> bool {
        let seat = &mut self.seats[at];
        let due = self.sim.is_due(seat.ring) || seat.shard.next_wait() == Some(Duration::ZERO);
        // Now and then a turn for nothing, as after a signal.
        let anyway = self.dice.one_in(500);
        if !due && !anyway {
            return false;
        }
        seat.shard.turn(Some(Duration::ZERO)).expect("a simulated ring does not fail");
        self.check(at);
        self.take_notices(at);
        due
    }

    /// What must hold after every turn.
    fn check(&mut self, at: usize) {
        let alone = self.seats.len() == 1;
        let seat = &mut self.seats[at];
        let audit = seat.shard.audit();
        assert!(audit.contradictions.is_empty(), "{:#?}", audit.contradictions);
        let admitted = audit.counters.invocations_total - seat.before.counters.invocations_total;
        let admitted = usize::try_from(admitted).expect("few");
        for function in &audit.functions {
            let before = seat.before.functions.iter().find(|before| before.key == function.key);
            let before = before.cloned().unwrap_or_default();
            let (now, then) = (function.serving + function.starting, before.serving + before.starting);
            assert!(now <= then || now <= function.instances_max, "too many instances: {function:?}");
            assert!(
                function.in_flight_most <= function.slots || function.slots < before.slots,
                "{function:?}"
            );
            if alone && function.starting > before.starting {
                // What died in demand is replaced without a call that waits for it.
                let lost = before.instances.saturating_sub(function.instances);
                let needed = (before.queued + admitted).div_ceil(function.slots) + lost;
                assert!(function.starting <= needed, "claims for nobody: {function:?} after {before:?}");
            }
        }
        seat.before = audit;
    }

    fn take_notices(&mut self, at: usize) {
        while let Ok(notice) = self.seats[at].notices.try_recv() {
            match notice {
                Notice::Request(request) => {
                    let body =
                        if request.method == "HEAD" { Vec::new() } else { request.target.into_bytes() };
                    let reply =
                        ControlReply { reply_to: request.reply_to, status: 200, headers: Vec::new(), body };
                    let slow = self.dice.one_in(4);
                    let delay_ns = self.dice.below(if slow { 500_000_000 } else { 1_000_000 });
                    self.later(delay_ns, Deed::Reply(at, reply));
                }
                Notice::CodeWanted { shard, function } => {
                    assert_eq!(usize::from(shard.0), at);
                    let found = match self.dice.below(8) {
                        0 => Err(CodeAbsent::NoRoom),
                        1 => Err(CodeAbsent::Missing),
                        _ => Ok(self.code_uses.take(function.code, function.layers).expect("nothing leaves")),
                    };
                    let delay_ns = self.dice.below(20_000_000);
                    self.later(delay_ns, Deed::Code(at, function, found));
                }
                Notice::Log(chunk) => assert!(!chunk.text.is_empty()),
                Notice::FuncletLost { .. } => {
                    assert!(self.funclet_lost_expected > 0, "a funclet was given up that lives");
                    self.funclet_lost_expected -= 1;
                }
            }
        }
    }

    // --- Actors --------------------------------------------------------------------------------------------------

    fn poll_actors(&mut self) -> bool {
        let mut progressed = false;
        let now_ns = self.sim.now_ns();
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            if client.state == State::Closed {
                client.step_ns = u64::MAX;
                continue;
            }
            progressed |= client.poll(&self.sim, &self.scenario.trouble);
            if client.step_ns <= now_ns {
                client.step(&self.sim, &mut self.dice);
                progressed = true;
            }
        }
        let mut later = Vec::new();
        for at in self.live.clone() {
            progressed |= self.runtimes[at].poll(&self.sim, &mut self.dice, &mut later);
            assert!(
                !self.runtimes[at].hangs_longer_than(HANG_NS_MAX, now_ns),
                "nobody ended {:?}",
                self.runtimes[at]
            );
            for (delay_ns, deed) in later.drain(..) {
                self.later(delay_ns, Deed::Runtime(at, deed));
            }
        }
        let mut later = Vec::new();
        for shard in 0..self.seats.len() {
            let funclet = &mut self.seats[shard].funclet;
            let epoch = funclet.epoch;
            progressed |= funclet.poll(&self.sim, &mut self.dice, self.scenario.manner, &mut later);
            for (delay_ns, deed) in later.drain(..) {
                self.later(delay_ns, Deed::Funclet { shard, epoch, deed });
            }
        }
        progressed
    }

    fn do_deeds(&mut self) -> bool {
        let mut progressed = false;
        while let Some(entry) = self.deeds.first_entry() {
            if entry.key().0 > self.sim.now_ns() {
                break;
            }
            let deed = entry.remove();
            progressed = true;
            self.note(|| format!("{deed:?}").chars().take(200).collect());
            match deed {
                // Stopped processes do nothing; what they were about to do comes after.
                Deed::Runtime(at, deed) if self.runtimes[at].alive && self.runtimes[at].frozen => {
                    self.later(1_000_000, Deed::Runtime(at, deed));
                }
                Deed::Runtime(at, deed) => self.on_runtime_deed(at, deed),
                Deed::Funclet { shard, epoch, deed } => {
                    let funclet = &self.seats[shard].funclet;
                    if funclet.alive && funclet.epoch == epoch {
                        self.on_funclet_deed(shard, deed);
                    }
                }
                Deed::Reply(shard, reply) => {
                    assert!(self.seats[shard].commands.send(Command::Reply(reply)).is_ok());
                }
                Deed::Code(shard, wanted, found) => {
                    assert!(self.seats[shard].commands.send(Command::Code(wanted, found)).is_ok());
                }
                Deed::FuncletBack(shard) => self.bring_funclet_back(shard),
                Deed::Operator(act) => self.operate(act),
            }
        }
        progressed
    }

    fn on_runtime_deed(&mut self, at: usize, deed: RuntimeDeed) {
        let runtime = &mut self.runtimes[at];
        let Some(code) = runtime.perform(&self.sim, &mut self.dice, deed) else { return };
        let (shard, slot) = (runtime.shard, runtime.slot);
        self.live.remove(&at);
        let epoch = self.seats[shard].funclet.epoch;
        let delay_ns = self.dice.below(3_000_000);
        let deed = FuncletDeed::Tell(slot, End::Exited(code));
        self.later(delay_ns, Deed::Funclet { shard, epoch, deed });
    }

    fn on_funclet_deed(&mut self, shard: usize, deed: FuncletDeed) {
        match deed {
            FuncletDeed::Serve(claim) => {
                if self.seats[shard].funclet.is_answered_now(claim.ticket) {
                    self.make_runtime(shard, &claim);
                }
            }
            FuncletDeed::Refuse(ticket, refusal) => {
                let funclet = &mut self.seats[shard].funclet;
                if funclet.is_answered_now(ticket) {
                    funclet.refused(&self.sim, ticket, refusal);
                }
            }
            FuncletDeed::Kill(slot) => {
                let found = self.live.iter().copied().find(|at| self.runtimes[*at].slot == slot);
                if let Some(at) = found {
                    self.runtimes[at].die(&self.sim);
                    self.live.remove(&at);
                }
                self.seats[shard].funclet.ended(&self.sim, slot, End::Killed);
            }
            FuncletDeed::Tell(slot, end) => self.seats[shard].funclet.ended(&self.sim, slot, end),
            // Now and then a container cannot be frozen.
            FuncletDeed::Freeze(slot) => {
                let frozen = self.dice.below(8) != 0;
                self.set_frozen(shard, slot, frozen);
            }
            FuncletDeed::Thaw(slot) => self.set_frozen(shard, slot, false),
        }
    }

    fn set_frozen(&mut self, shard: usize, slot: u32, frozen: bool) {
        let found = self.live.iter().copied().find(|at| self.runtimes[*at].slot == slot);
        if let Some(at) = found {
            self.runtimes[at].frozen = frozen;
            self.seats[shard].funclet.rests(&self.sim, slot, frozen);
        }
    }

    fn make_runtime(&mut self, shard: usize, claim: &Claim) {
        let slot = u32::try_from(self.runtimes.len()).expect("few") + 1;
        let (channel, engine_channel) = self.sim.stream();
        let (log, engine_log) = self.sim.pipe();
        self.seats[shard].funclet.claimed(&self.sim, claim, slot, vec![engine_channel, engine_log]);
        self.live.insert(self.runtimes.len());
        let may_hang = self.scenario.trouble.hangs;
        self.runtimes.push(Runtime::new(channel, log, slot, shard, may_hang));
    }

    fn operate(&mut self, act: Act) {
        match act {
            Act::Deploy(plan, handler) => self.deploy(plan, handler),
            Act::Remove(plan) => {
                let key = self.scenario.plans[plan].key();
                for seat in &self.seats {
                    assert!(seat.commands.send(Command::Remove(key.clone(), Box::new(|_| {}))).is_ok());
                }
            }
            Act::Invalidate => {
                let live: Vec<_> = self.live.iter().copied().collect();
                let Some(at) = live.get(self.dice.index(live.len().max(1))) else { return };
                let runtime = &self.runtimes[*at];
                let command = Command::Invalidate { funclet: 0, slot: runtime.slot, reply: Box::new(|_| {}) };
                assert!(self.seats[runtime.shard].commands.send(command).is_ok());
            }
            Act::Shortage => {
                let shard = self.dice.index(self.seats.len());
                if self.seats[shard].funclet.alive {
                    self.seats[shard].funclet.shortage(&self.sim, 200);
                }
            }
            Act::Report => {
                for seat in &self.seats {
                    assert!(seat.commands.send(Command::Report(Box::new(|_| {}))).is_ok());
                }
            }
            Act::FuncletDies => self.kill_funclets(),
        }
    }

    /// Deploys the next revision of a function.
    pub(crate) fn deploy(&mut self, plan: usize, handler: &'static str) {
        let deployed = self.scenario.plans[plan].next(&mut self.dice, handler);
        for seat in &self.seats {
            assert!(seat.commands.send(Command::Deploy(deployed.clone(), Box::new(|_| {}))).is_ok());
        }
    }

    fn kill_funclets(&mut self) {
        for shard in 0..self.seats.len() {
            let funclet = &mut self.seats[shard].funclet;
            if !funclet.alive {
                continue;
            }
            funclet.alive = false;
            self.sim.close(funclet.wire);
            self.funclet_lost_expected += 1;
            let delay_ns = if self.dice.one_in(3) { 0 } else { self.dice.below(800_000_000) };
            self.later(delay_ns, Deed::FuncletBack(shard));
        }
        for at in std::mem::take(&mut self.live) {
            self.runtimes[at].die(&self.sim);
        }
    }

    fn bring_funclet_back(&mut self, shard: usize) {
        let (wire, channel) = self.sim.records();
        let seat = &mut self.seats[shard];
        seat.funclet = Funclet::new(wire, seat.funclet.epoch + 1);
        assert!(seat.commands.send(Command::FuncletUp { funclet: 0, channel }).is_ok());
    }

    // --- The end -------------------------------------------------------------------------------------------------

    pub(crate) fn all_answered(&self) -> bool {
        self.clients.iter().all(Client::is_done)
    }

    /// Requests answered, all clients together.
    pub(crate) fn answered(&self) -> usize {
        self.clients.iter().map(|client| client.answered).sum()
    }

    /// What clients still wait for.
    pub(crate) fn waiting(&self) -> Vec<String> {
        let open = self.clients.iter().filter(|client| !client.is_done());
        open.map(|client| format!("{:?} of {client:?}", client.waits_for())).collect()
    }

    /// Connections that the engine should have closed by now.
    pub(crate) fn overdue(&self) -> Vec<&Client> {
        let open = self.clients.iter().filter(|client| client.state != State::Closed);
        open.filter(|client| client.should_be_closed()).collect()
    }

    pub(crate) fn close_clients(&mut self) {
        for client in &mut self.clients {
            client.close(&self.sim);
        }
    }

    /// Asks all shards to finish, if so wanted; each says when it has.
    pub(crate) fn drain_if(&mut self, wanted: Drained) -> mpsc::Receiver<ShardId> {
        let (done, drained) = mpsc::channel();
        for seat in self.seats.iter().filter(|_| wanted == Drained::Yes) {
            let done = done.clone();
            let reply = Box::new(move |shard| done.send(shard).expect("the test listens"));
            assert!(seat.commands.send(Command::Drain(reply)).is_ok());
        }
        drained
    }

    pub(crate) fn shards(&self) -> usize {
        self.seats.len()
    }

    /// Connections that are open, as clients see it.
    pub(crate) fn open_clients(&self) -> usize {
        self.clients.iter().filter(|client| client.state != State::Closed).count()
    }

    pub(crate) fn calm_down(&mut self) {
        self.sim.set_faults(Faults::NONE);
    }

    /// What must hold when nobody wants anything any more.
    pub(crate) fn check_quiet(&mut self, drained: Drained) {
        // Bell and funclet; the listener.
        let resting = if drained == Drained::Yes { 2 } else { 3 };
        for seat in &self.seats {
            let audit = seat.shard.audit();
            let left = [
                ("connections", audit.connections),
                ("calls", audit.calls),
                ("instances", audit.instances),
                ("claims", audit.claims),
                ("held bytes", audit.held_bytes),
                ("async calls", audit.async_queued),
                ("control requests", audit.control_in_flight),
                ("timers", audit.timers),
                ("removed functions", audit.functions.iter().filter(|it| it.removed).count()),
                ("starting", audit.functions.iter().map(|it| it.starting).sum()),
                ("descriptors", self.sim.open_descriptors(seat.ring) - resting),
                ("operations", self.sim.operations(seat.ring) - resting),
            ];
            for (what, count) in left {
                assert_eq!(count, 0, "{what} are left: {audit:#?}");
            }
            assert_eq!(self.sim.buffers_out(seat.ring), [0, 0], "buffers were not given back");
        }
        assert!(self.live.is_empty(), "containers live that nobody wants: {:?}", self.live);
        assert_eq!(self.funclet_lost_expected, 0, "the loss of a funclet was not told");
    }
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("scenario", &self.scenario).finish_non_exhaustive()
    }
}
