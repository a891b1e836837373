//! One thread of the generator: its ring, its connections, its part of the schedule.
//!
//! Owns: all of these; threads share nothing and report through a channel. Must not know: what becomes of the counts.
//! When a request is sent depends on the schedule and, in a closed loop, on answers; in an open loop an answer can only
//! free the connection that an overdue request waits for, and that wait is part of the request's latency.

mod connection;
mod dial;
mod traffic;
mod window;

use std::collections::VecDeque;
use std::iter::Peekable;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use faaster_sys::ring::{Completion, Group, Ring, RingError, Uring};
use rustix::io::Errno;
use rustix::time::ClockId;

use crate::bounds::{RECONNECT_PAUSE, RING_COMPLETIONS, SETUP_TIMEOUT, SIGNING_ROOM, SPIN, TICK};
use crate::plan::{Loop, Plan, Spin};
use crate::request::RequestWriter;
use crate::ring::{NoRing, ring_of_this_thread};
use crate::schedule::Schedule;
use crate::sign::{Claim, SigningEffort};
use crate::tally::{Failure, Tally};
use crate::template::Source;
use connection::{Connection, Event, Flight, Listed, Phase, token};
pub use dial::DialError;
pub use window::Window;
use window::nanoseconds;

/// Why a thread cannot work.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("cannot use core {core}: name others with --cores")]
    Pin { core: u16, source: Errno },
    #[error(transparent)]
    Ring(#[from] NoRing),
    #[error("the ring failed")]
    Loop(#[from] RingError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the run never began")]
    NeverBegun,
}

/// What a thread tells while it works.
#[derive(Debug)]
pub enum Report {
    /// Its connections stand.
    Ready,
    /// A second of the measured time is over, or all of it.
    Second { index: u32, tally: Box<Tally> },
    /// It is done.
    Ended(Effort),
    /// It cannot go on.
    Failed(WorkerError),
}

/// What a thread did in the measured time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Effort {
    /// Length of the measured time.
    pub wall_ns: u64,
    /// CPU time used in it.
    pub cpu_ns: u64,
    /// The part of it that only waited for the next send to be due.
    pub spin_ns: u64,
    /// Arrivals that were due (open loop).
    pub offered: u64,
    /// Time in which the thread wanted to run and was not let, as far as it noticed while it spun; and the longest.
    pub stalled_ns: u64,
    pub stall_ns_max: u64,
    /// When the last measured request ended.
    pub last_done_ns: u64,
    /// What signing took, warm-up included, where requests are signed.
    pub signing: Option<SigningEffort>,
}

impl Effort {
    /// Share of the time in which the thread was really at work, 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a run fit 53 bits")]
    pub fn busy(&self) -> f64 {
        self.cpu_ns.saturating_sub(self.spin_ns) as f64 / self.wall_ns.max(1) as f64
    }
}

/// Connections that one round looks through for what is overdue; bounded, so that a round never delays a send by much.
const SWEEP_MAX: usize = 512;

/// A round of spinning or a delay in waking up that took this long is a stall.
const STALL_NS: u64 = 20_000;

/// The most eager nice value.
const EAGER: i32 = -20;

struct Worker {
    plan: Arc<Plan>,
    ring: Uring,
    connections: Vec<Connection>,
    /// A connection for every request that it could take right now.
    pool: VecDeque<u32>,
    /// When the pool last stopped being empty.
    pool_filled_ns: u64,
    window: Window,
    /// Open loop: what is due, counted from the beginning.
    schedule: Option<Peekable<Schedule>>,
    /// Measured requests that may still be sent, where they are counted.
    left: Option<u64>,
    in_flight: usize,
    /// When requests were last handed to the kernel.
    sent_at_ns: u64,
    /// Connections with requests to hand to the kernel.
    to_send: Vec<u32>,
    /// Connections that rest, and until when.
    paused: VecDeque<(u64, u32)>,
    swept: usize,
    chore_at_ns: u64,
    second: u32,
    tally: Box<Tally>,
    effort: Effort,
    /// Clock and CPU time of the thread when the measured time began; `None` before and after.
    measuring_since: Option<(u64, u64)>,
    writer: RequestWriter,
    reports: Sender<Report>,
    happened: Vec<Completion>,
}

/// Works through the thread's part of the plan. `begin` brings the moment of the first send.
pub fn work(plan: Arc<Plan>, thread: usize, reports: Sender<Report>, begin: &Receiver<u64>) {
    let end = match Worker::prepare(plan, thread, reports.clone()) {
        Ok(worker) => worker.run(thread, begin).map_or_else(Report::Failed, Report::Ended),
        Err(error) => Report::Failed(error),
    };
    // Nobody listens any more only after another thread failed.
    drop(reports.send(end));
}

fn thread_cpu_ns() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

impl Worker {
    fn prepare(plan: Arc<Plan>, thread: usize, reports: Sender<Report>) -> Result<Self, WorkerError> {
        let core = plan.cores[thread];
        faaster_sys::affinity::pin_to(core).map_err(|source| WorkerError::Pin { core, source })?;
        // Ahead of others on its core where that is allowed: what runs there instead makes sends late.
        faaster_sys::affinity::set_nice(EAGER).ok();
        let ring = ring_of_this_thread(1)?;
        let count = plan.connections_of(thread);
        let new = || Connection::new(plan.pipeline, plan.request.answer_body, plan.phases);
        let connections: Vec<Connection> = std::iter::repeat_with(new).take(count).collect();
        let mut pool = VecDeque::with_capacity(count * plan.pipeline);
        for _ in 0..plan.pipeline {
            pool.extend(0..u32::try_from(count).expect("bounded far below"));
        }
        let left = plan.requests_of(thread);
        let source = Source::new(plan.seed, thread, plan.threads());
        let writer = RequestWriter::new(plan.request.clone(), source);
        let mut worker = Self {
            plan,
            ring,
            connections,
            pool,
            pool_filled_ns: 0,
            window: Window { begin_ns: 0, measure_ns: u64::MAX, stop_ns: None },
            schedule: None,
            left,
            in_flight: 0,
            sent_at_ns: 0,
            to_send: Vec::with_capacity(count),
            paused: VecDeque::new(),
            swept: 0,
            chore_at_ns: 0,
            second: 0,
            tally: Box::default(),
            effort: Effort::default(),
            measuring_since: None,
            writer,
            reports,
            happened: Vec::new(),
        };
        worker.open_all()?;
        while worker.writer.is_short() {
            worker.writer.make_one();
        }
        Ok(worker)
    }

    fn open_all(&mut self) -> Result<(), WorkerError> {
        let sockets =
            dial::dial_all(&self.plan.target.address, self.connections.len(), self.plan.connect_timeout)?;
        for (index, socket) in (0..).zip(sockets) {
            self.adopt(index, socket);
            if self.happened.len() < RING_COMPLETIONS as usize / 2 {
                self.ring.poll(&mut self.happened)?;
            }
        }
        Ok(())
    }

    fn run(mut self, thread: usize, begin: &Receiver<u64>) -> Result<Effort, WorkerError> {
        self.report(Report::Ready);
        let begin_ns = begin.recv_timeout(SETUP_TIMEOUT).map_err(|_| WorkerError::NeverBegun)?;
        self.window = Window::new(&self.plan, begin_ns);
        if let Loop::Open { rate, arrivals } = self.plan.drive {
            let schedule = Schedule::new(rate, arrivals, self.plan.seed, thread, self.plan.threads());
            self.schedule = Some(schedule.peekable());
        }
        let mut now_ns = self.ring.now_ns();
        loop {
            if now_ns >= self.chore_at_ns {
                self.chores(now_ns);
                // What they took is lateness of what is sent now.
                now_ns = self.ring.now_ns();
            }
            if now_ns >= begin_ns {
                now_ns = self.dispatch(now_ns);
                self.flush(now_ns);
            }
            if self.is_over(now_ns) {
                return Ok(self.finish(now_ns));
            }
            self.pause(now_ns)?;
            now_ns = self.ring.now_ns();
            let mut happened = std::mem::take(&mut self.happened);
            for completion in happened.drain(..) {
                self.handle(completion, now_ns);
            }
            self.happened = happened;
            now_ns = self.ring.now_ns();
        }
    }

    /// The next arrival that may be sent, as a moment of the clock.
    fn next_due(&mut self) -> Option<u64> {
        if self.left == Some(0) {
            return None;
        }
        let due_ns = self.window.begin_ns + self.schedule.as_mut()?.peek()?;
        (!self.window.is_past(due_ns)).then_some(due_ns)
    }

    /// Gives what is due to connections. Answers the time, which has gone on if requests had to be signed first.
    fn dispatch(&mut self, mut now_ns: u64) -> u64 {
        if self.schedule.is_none() {
            for _ in 0..self.pool.len() {
                if self.window.is_past(now_ns) || self.left == Some(0) {
                    return now_ns;
                }
                let Some(index) = self.take_slot() else { return now_ns };
                self.count_down(now_ns);
                now_ns = self.claim(now_ns);
                self.issue(index, now_ns, now_ns);
            }
            return now_ns;
        }
        while let Some(due_ns) = self.next_due()
            && due_ns <= now_ns
        {
            let Some(index) = self.take_slot() else { return now_ns };
            self.schedule.as_mut().expect("this is an open loop").next();
            self.count_down(due_ns);
            now_ns = self.claim(now_ns);
            if self.window.holds(due_ns) {
                self.effort.offered += 1;
                self.note_lateness(due_ns, now_ns);
            }
            self.issue(index, due_ns, now_ns);
        }
        now_ns
    }

    /// A request that could not be signed ahead is signed now. The time for it is lateness of the generator and never
    /// the server's: the clock is read again.
    fn claim(&mut self, now_ns: u64) -> u64 {
        match self.writer.claim() {
            Claim::Ready => now_ns,
            Claim::MadeNow => self.ring.now_ns(),
        }
    }

    fn count_down(&mut self, intended_ns: u64) {
        if intended_ns >= self.window.measure_ns {
            self.left = self.left.map(|left| left - 1);
        }
    }

    /// Tells the generator's own lateness from the wait for a connection.
    fn note_lateness(&mut self, due_ns: u64, now_ns: u64) {
        let could_ns = due_ns.max(self.pool_filled_ns);
        if could_ns > due_ns {
            self.tally.waited_for_connection += 1;
            self.tally.connection_wait_ns_max = self.tally.connection_wait_ns_max.max(could_ns - due_ns);
        }
        self.tally.lag.saturating_record(now_ns.saturating_sub(could_ns));
    }

    /// A connection that takes a request now.
    fn take_slot(&mut self) -> Option<u32> {
        while let Some(index) = self.pool.pop_front() {
            let connection = &mut self.connections[index as usize];
            if matches!(connection.phase, Phase::Open | Phase::Closed) {
                return Some(index);
            }
            connection.parked += 1;
        }
        None
    }

    fn free_slot(&mut self, index: u32, now_ns: u64) {
        let connection = &mut self.connections[index as usize];
        if !matches!(connection.phase, Phase::Open | Phase::Closed) {
            connection.parked += 1;
            return;
        }
        if self.pool.is_empty() {
            self.pool_filled_ns = now_ns;
        }
        self.pool.push_back(index);
    }

    /// Makes the slots usable that were parked while the connection was not.
    fn unpark(&mut self, index: u32, now_ns: u64) {
        for _ in 0..std::mem::take(&mut self.connections[index as usize].parked) {
            self.free_slot(index, now_ns);
        }
    }

    fn issue(&mut self, index: u32, intended_ns: u64, now_ns: u64) {
        let flight = Flight { intended_ns, sent_ns: now_ns };
        if self.connections[index as usize].phase == Phase::Closed {
            match dial::dial(&self.plan.target.address) {
                Ok(socket) => {
                    self.adopt(index, socket);
                    self.tally.reconnects += 1;
                }
                Err(_) => {
                    self.connections[index as usize].meet(Event::Refused);
                    self.paused.push_back((now_ns + nanoseconds(RECONNECT_PAUSE), index));
                    self.chore_at_ns = self.chore_at_ns.min(now_ns + nanoseconds(RECONNECT_PAUSE));
                    self.writer.unclaim(1);
                    self.record(flight, Err(Failure::Connect), now_ns);
                    self.free_slot(index, now_ns);
                    return;
                }
            }
        }
        let connection = &mut self.connections[index as usize];
        connection.flights.push_back(flight);
        connection.owed += 1;
        self.in_flight += 1;
        if connection.listed == Listed::No {
            connection.listed = Listed::Yes;
            self.to_send.push(index);
        }
    }

    fn adopt(&mut self, index: u32, socket: std::os::fd::OwnedFd) {
        let sock = self.ring.adopt(socket);
        let connection = &mut self.connections[index as usize];
        connection.begin(sock);
        self.ring.receive(sock, Group::Client, token(index, connection.generation));
    }

    /// Waits until something happens or is due.
    fn pause(&mut self, mut now_ns: u64) -> Result<(), RingError> {
        let mut until_ns = self.chore_at_ns;
        if now_ns < self.window.begin_ns {
            until_ns = until_ns.min(self.window.begin_ns);
        } else if self.pool.is_empty() {
            // Nothing can be sent before a connection comes free, however overdue it is.
        } else if let Some(due_ns) = self.next_due() {
            until_ns = until_ns.min(due_ns);
        }
        // One at a time: an answer that comes meanwhile waits for it.
        if self.writer.is_short() && until_ns > now_ns + nanoseconds(SIGNING_ROOM) {
            self.writer.make_one();
            now_ns = self.ring.now_ns();
        }
        if self.schedule.is_none() {
            let wait = Duration::from_nanos(until_ns.saturating_sub(now_ns));
            return self.ring.wait(Some(wait), &mut self.happened);
        }
        let spin_ns = nanoseconds(SPIN);
        let spins_after = self.in_flight > 0 && self.plan.spin == Spin::AroundSends;
        let answers_until_ns = if spins_after { self.sent_at_ns + spin_ns } else { 0 };
        if until_ns > now_ns + spin_ns && now_ns >= answers_until_ns {
            let wake_ns = until_ns - spin_ns;
            self.ring.wait(Some(Duration::from_nanos(wake_ns - now_ns)), &mut self.happened)?;
            if self.happened.is_empty() {
                self.note_stall(self.ring.now_ns().saturating_sub(wake_ns));
            }
            return Ok(());
        }
        if now_ns < answers_until_ns {
            until_ns = until_ns.min(answers_until_ns);
        }
        self.ring.poll(&mut self.happened)?;
        let begun_ns = self.ring.now_ns();
        let (mut spun_ns, mut stalled_ns) = (begun_ns, 0);
        while self.happened.is_empty() && spun_ns < until_ns {
            std::hint::spin_loop();
            self.ring.poll(&mut self.happened)?;
            let last_ns = std::mem::replace(&mut spun_ns, self.ring.now_ns());
            stalled_ns += self.note_stall(spun_ns - last_ns);
        }
        if self.measuring_since.is_some() {
            // A stall uses no CPU time, and so must not be taken off it.
            self.effort.spin_ns += (spun_ns - begun_ns).saturating_sub(stalled_ns);
        }
        Ok(())
    }

    /// A round of spinning takes well under a microsecond, and a sleep ends when it should: if either took this much
    /// longer, the thread was not let run, by another process, an interrupt or the hypervisor. Answers the length of the
    /// stall, 0 if it was none.
    fn note_stall(&mut self, late_ns: u64) -> u64 {
        if late_ns < STALL_NS {
            return 0;
        }
        if self.measuring_since.is_some() {
            self.effort.stalled_ns += late_ns;
            self.effort.stall_ns_max = self.effort.stall_ns_max.max(late_ns);
        }
        late_ns
    }

    /// What is done now and then: boundaries of the measured time, seconds, what is overdue.
    fn chores(&mut self, now_ns: u64) {
        if self.window.holds(now_ns) && self.measuring_since.is_none() {
            self.measuring_since = Some((now_ns, thread_cpu_ns()));
        }
        if self.window.is_past(now_ns) {
            self.close_effort(now_ns);
        }
        while let Some(end_ns) = self.window.end_of_second(self.second)
            && now_ns >= end_ns
        {
            self.report_second();
        }
        while let Some((until_ns, index)) = self.paused.front().copied()
            && until_ns <= now_ns
        {
            self.paused.pop_front();
            self.connections[index as usize].meet(Event::Rested);
            self.unpark(index, now_ns);
        }
        self.writer.renew();
        self.sweep(now_ns);
        self.chore_at_ns = self.next_chore(now_ns);
    }

    fn next_chore(&self, now_ns: u64) -> u64 {
        let moments = [
            Some(self.window.measure_ns),
            self.window.stop_ns,
            self.window.end_of_second(self.second),
            self.paused.front().map(|(until_ns, _)| *until_ns),
        ];
        let tick_ns = now_ns + nanoseconds(TICK);
        moments.into_iter().flatten().filter(|at| *at > now_ns).fold(tick_ns, u64::min)
    }

    fn report_second(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        let index = self.second;
        self.second += 1;
        self.report(Report::Second { index, tally });
    }

    fn report(&self, report: Report) {
        // Nobody listens any more only after another thread failed; this one ends with the process then.
        drop(self.reports.send(report));
    }

    /// Takes the CPU time once, at the end of the measured time.
    fn close_effort(&mut self, now_ns: u64) {
        if let Some((since_ns, cpu_ns)) = self.measuring_since.take() {
            self.effort.cpu_ns = thread_cpu_ns() - cpu_ns;
            self.effort.wall_ns = now_ns - since_ns;
        }
    }

    fn is_over(&mut self, now_ns: u64) -> bool {
        let Some(stop_ns) = self.window.stop_ns else {
            return self.left == Some(0) && self.in_flight == 0 && now_ns >= self.window.measure_ns;
        };
        if now_ns < stop_ns {
            return false;
        }
        // A closed loop just stops. In an open one, everything that was due is still waited for.
        self.schedule.is_none()
            || now_ns >= stop_ns + nanoseconds(self.plan.timeout)
            || (self.in_flight == 0 && self.next_due().is_none())
    }

    fn finish(mut self, now_ns: u64) -> Effort {
        self.chores(now_ns);
        self.close_effort(now_ns);
        if self.schedule.is_some() {
            self.give_up_the_rest(now_ns);
        }
        self.report_second();
        self.effort.signing = self.writer.signing();
        self.effort
    }

    /// What was due and did not end in time has failed, sent or not.
    fn give_up_the_rest(&mut self, now_ns: u64) {
        for index in 0..self.connections.len() {
            let connection = &mut self.connections[index];
            let sent = connection.flights.len() - connection.owed;
            let flights = std::mem::take(&mut connection.flights);
            for (number, flight) in flights.into_iter().enumerate() {
                let failure = if number < sent { Failure::Timeout } else { Failure::Unsent };
                self.record(flight, Err(failure), now_ns);
            }
        }
        while let Some(due_ns) = self.next_due() {
            self.schedule.as_mut().expect("only an open loop has something due").next();
            if self.window.holds(due_ns) {
                self.effort.offered += 1;
                self.tally.waited_for_connection += 1;
            }
            self.record(Flight { intended_ns: due_ns, sent_ns: now_ns }, Err(Failure::Unsent), now_ns);
        }
    }
}
