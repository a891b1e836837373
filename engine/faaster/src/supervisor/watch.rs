//! The supervisor's loop: signals, deaths and timers in, restarts and stops out.
//!
//! Owns: the seats and the phase. Must not know: how the engine was prepared or what is cleaned up after it
//! ([`super::serve`]).

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use faaster_protocol::funclet::LinkMessage;
use faaster_sys::pidfd::PidFd;

use super::child::{Child, ChildError, Heard};
use super::listeners::Listeners;
use super::notify::Notify;
use super::orphans;
use super::phase::{Action, Input, Phase, transition};
use super::restart::{self, Decision};
use super::seat::{self, Seat, SeatState};
use super::start::{Role, Start};
use crate::clock::{Deadline, wait_readable};
use crate::exit::Outcome;
use crate::log::Log;
use crate::signals::{Deaths, Signals};

/// The engine must be ready this long after its start.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// What the engine gets beyond the grace time to end by itself.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);
/// The funclets end their containers within this.
const FUNCLET_STOP: Duration = Duration::from_secs(10);
/// A process that was sent SIGKILL is gone after this, or the kernel does not let go of it.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest sleep of the loop when no timer is due.
const IDLE_WAIT: Duration = Duration::from_secs(3600);

/// The engine's seat; the funclets' follow.
const ENGINE: usize = 0;

/// Everything that can happen to a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Signal(u8),
    /// The engine said something.
    EngineSpoke,
    /// The process of the seat has ended.
    Died(usize),
    /// The seat's child is to be started again.
    Due(usize),
    /// The phase took too long.
    Overdue,
    /// Somebody below us has ended.
    SomeDeath,
}

/// A running engine, from its supervisor's side.
#[derive(Debug)]
pub(crate) struct Supervisor {
    start: Start,
    listeners: [Listeners; 2],
    /// Children watch it for our end.
    own_pidfd: PidFd,
    signals: Signals,
    deaths: Deaths,
    log: Log,
    notify: Notify,
    seats: Vec<Seat>,
    /// The engine has said all that it will say.
    engine_heard: Heard,
    phase: Phase,
    overdue: Option<Deadline>,
    outcome: Outcome,
    announce: fn(&Supervisor),
}

impl Supervisor {
    /// A supervisor whose children do not run yet. `announce` says on standard output that calls are served.
    pub(crate) fn new(
        start: Start,
        listeners: [Listeners; 2],
        own_pidfd: PidFd,
        (signals, deaths): (Signals, Deaths),
        log: Log,
        announce: fn(&Supervisor),
    ) -> Self {
        let funclets = (0..start.config.funclets).map(|index| Seat::new(Role::Funclet(index)));
        let seats = std::iter::once(Seat::new(Role::Engine)).chain(funclets).collect();
        Self {
            start,
            listeners,
            own_pidfd,
            signals,
            deaths,
            log,
            notify: Notify::from_environment(),
            seats,
            engine_heard: Heard::Nothing,
            phase: Phase::Starting,
            overdue: Some(Deadline::after(READY_TIMEOUT)),
            outcome: Outcome::Success,
            announce,
        }
    }

    /// Runs until no child is left.
    pub(crate) fn run(mut self) -> Outcome {
        self.start_all();
        self.settle();
        while self.phase != Phase::Gone {
            for event in self.wait() {
                // An earlier event of the same turn may have ended everything.
                if self.phase != Phase::Gone {
                    self.on_event(event);
                    self.settle();
                }
            }
        }
        self.outcome
    }

    pub(crate) fn start_record(&self) -> &Start {
        &self.start
    }

    /// Controller's, then registry's.
    pub(crate) fn listeners(&self) -> &[Listeners; 2] {
        &self.listeners
    }

    /// Process ids of engine and funclets that run.
    pub(crate) fn children(&self) -> impl Iterator<Item = (Role, u32)> + '_ {
        self.seats.iter().filter_map(|seat| Some((seat.role, seat.child()?.pid())))
    }

    fn start_all(&mut self) {
        // Funclets first, so that their pools fill while the engine starts.
        for index in (0..self.seats.len()).rev() {
            if let Err(error) = self.spawn(index) {
                self.log.error(error);
                self.outcome = Outcome::Failed;
                return self.on_input(Input::Hopeless);
            }
        }
        (1..self.seats.len()).for_each(|funclet| self.connect(funclet));
    }

    fn spawn(&mut self, index: usize) -> Result<(), ChildError> {
        let role = self.seats[index].role;
        let mut fds = vec![self.own_pidfd.as_fd()];
        if role == Role::Engine {
            fds.extend(self.listeners.iter().flat_map(|listeners| &listeners.sockets).map(AsFd::as_fd));
        }
        let child = Child::spawn(&Start { role, ..self.start.clone() }, &fds)?;
        self.log.debug(format_args!("{role} started, pid {}", child.pid()));
        if role == Role::Engine {
            self.engine_heard = Heard::Nothing;
        }
        self.seats[index].state = SeatState::Running(child);
        Ok(())
    }

    /// Gives engine and funclet new channels to each other, if both run.
    fn connect(&self, index: usize) {
        let (Some(engine), Some(funclet)) = (self.seats[ENGINE].child(), self.seats[index].child()) else {
            return;
        };
        let Role::Funclet(peer) = funclet.role else { unreachable!("only the first seat is the engine's") };
        if let Err(error) = seat::connect(engine, funclet, peer, self.start.config.shards) {
            // A funclet without channels is of no use: it is ended, and restarted like one that died.
            self.log.error(format_args!("cannot connect engine and {}: {error}", funclet.role));
            funclet.kill();
        }
    }

    /// Sleeps until something happens.
    fn wait(&mut self) -> Vec<Event> {
        let mut sources: Vec<BorrowedFd<'_>> = self.signals.descriptors().collect();
        let signal_count = sources.len();
        let running: Vec<usize> =
            (0..self.seats.len()).filter(|i| self.seats[*i].child().is_some()).collect();
        sources.extend(running.iter().filter_map(|index| self.seats[*index].child()).map(Child::pidfd));
        let engine = self.seats[ENGINE].child().filter(|_| self.engine_heard == Heard::Nothing);
        sources.extend(engine.map(Child::link));
        sources.push(self.deaths.descriptor());
        let readable =
            wait_readable(&sources, self.patience()).expect("poll of open descriptors cannot fail");
        let mut events = Vec::new();
        if readable[..signal_count].contains(&true) {
            events.extend(self.signals.take().into_iter().map(|signal| Event::Signal(signal.0)));
        }
        // What the engine said before it died comes before its death.
        if engine.is_some() && readable[signal_count + running.len()] {
            events.push(Event::EngineSpoke);
        }
        let dead = running.iter().enumerate().filter(|(position, _)| readable[signal_count + position]);
        events.extend(dead.map(|(_, index)| Event::Died(*index)));
        let now = Instant::now();
        let due = |seat: &Seat| matches!(seat.state, SeatState::Waiting(due) if due <= now);
        events.extend((0..self.seats.len()).filter(|index| due(&self.seats[*index])).map(Event::Due));
        if self.overdue.is_some_and(Deadline::passed) {
            events.push(Event::Overdue);
        }
        // Last: the seats' own deaths are taken by then.
        if readable.last() == Some(&true) {
            self.deaths.clear();
            events.push(Event::SomeDeath);
        }
        events
    }

    fn patience(&self) -> Duration {
        let now = Instant::now();
        let due = self.seats.iter().filter_map(|seat| match seat.state {
            SeatState::Waiting(due) => Some(due.saturating_duration_since(now)),
            SeatState::Empty | SeatState::Running(_) => None,
        });
        let overdue = self.overdue.map(|deadline| deadline.left().unwrap_or_default());
        due.chain(overdue).min().unwrap_or(IDLE_WAIT)
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Signal(number) => {
                if matches!(self.phase, Phase::Draining | Phase::Ending) {
                    self.outcome = Outcome::Killed(number);
                }
                self.on_input(Input::Stop);
            }
            Event::EngineSpoke => {
                self.engine_heard = self.seats[ENGINE].child().map_or(Heard::Nothing, Child::heard);
                if self.engine_heard == Heard::Ready {
                    // Not while stopping: that deadline is another one.
                    if matches!(self.phase, Phase::Starting | Phase::Serving) {
                        self.overdue = None;
                    }
                    self.on_input(Input::Ready);
                }
            }
            Event::Died(index) => {
                self.on_death(index);
                // They may have been behind it in the kernel's list.
                self.reap_orphans();
            }
            Event::Due(index) => self.on_due(index),
            Event::SomeDeath => self.reap_orphans(),
            Event::Overdue => {
                self.overdue = None;
                self.log.warn(format_args!("{} took too long", self.phase));
                if matches!(self.phase, Phase::Starting | Phase::Killing) {
                    self.outcome = Outcome::Failed;
                }
                self.on_input(Input::Overdue);
            }
        }
    }

    fn on_death(&mut self, index: usize) {
        let SeatState::Running(child) = &mut self.seats[index].state else { return };
        let (role, lived, pid) = (child.role, child.age(), child.pid());
        let status = match child.reap() {
            Ok(Some(status)) => status,
            Ok(None) => return,
            Err(error) => {
                self.log.error(format_args!("cannot learn how the {role} ended: {error}"));
                std::process::ExitStatus::default()
            }
        };
        self.seats[index].state = SeatState::Empty;
        if matches!(self.phase, Phase::Starting | Phase::Serving) {
            self.log.error(format_args!("the {role} (pid {pid}) ended after {lived:.1?}: {status}"));
        }
        if self.phase == Phase::Starting {
            // It has said why on standard error.
            let refused = status.code() == Some(2);
            self.outcome = if refused { Outcome::Refused } else { Outcome::Failed };
        }
        match (role, self.phase) {
            (Role::Engine, _) => {
                let action = self.step(Input::EngineGone);
                self.perform(action, lived);
            }
            (Role::Funclet(_), Phase::Starting) => self.on_input(Input::Hopeless),
            (Role::Funclet(_), Phase::Serving) => self.restart(index, lived),
            // Its containers went with it; there is nothing more to wait for from it.
            (Role::Funclet(_), Phase::Draining | Phase::Ending | Phase::Killing | Phase::Gone) => {}
        }
    }

    fn reap_orphans(&mut self) {
        let own: Vec<u32> = self.children().map(|(_, pid)| pid).collect();
        match orphans::reap(&own) {
            Ok(0) => {}
            Ok(count) => self.log.debug(format_args!("reaped {count} processes that lost their parent")),
            Err(errno) => {
                self.log.warn(format_args!("cannot reap processes that lost their parent: {errno}"))
            }
        }
    }

    fn restart(&mut self, index: usize, lived: Duration) {
        match self.seats[index].restarts.on_death(lived) {
            Decision::RestartAfter(delay) => {
                self.seats[index].state = SeatState::Waiting(Instant::now() + delay)
            }
            Decision::GiveUp => {
                self.log.error(format_args!(
                    "the {} died {} times in a row, each time within {}s; giving up",
                    self.seats[index].role,
                    restart::QUICK_DEATHS_MAX,
                    restart::WELL_AFTER.as_secs()
                ));
                self.outcome = Outcome::Failed;
                self.on_input(Input::Hopeless);
            }
        }
    }

    fn on_due(&mut self, index: usize) {
        assert!(self.phase == Phase::Serving, "only a serving engine's children wait for a restart");
        if let Err(error) = self.spawn(index) {
            self.log.error(error);
            self.seats[index].state = SeatState::Empty;
            return self.restart(index, Duration::ZERO);
        }
        let funclets = if index == ENGINE { 1..self.seats.len() } else { index..index + 1 };
        funclets.for_each(|funclet| self.connect(funclet));
        if index == ENGINE {
            self.overdue = Some(Deadline::after(READY_TIMEOUT));
        }
        self.log.info(format_args!("the {} was started again", self.seats[index].role));
    }

    fn on_input(&mut self, input: Input) {
        let action = self.step(input);
        self.perform(action, Duration::ZERO);
    }

    fn step(&mut self, input: Input) -> Action {
        let (next, action) = transition(self.phase, input);
        self.phase = next;
        action
    }

    /// `engine_lived` concerns [`Action::RestartEngine`] alone, to which only a death of the engine leads.
    fn perform(&mut self, action: Action, engine_lived: Duration) {
        match action {
            Action::Nothing => {}
            Action::Announce => {
                (self.announce)(self);
                self.notify.ready();
            }
            Action::RestartEngine => self.restart(ENGINE, engine_lived),
            Action::KillEngine => self.seats[ENGINE].child().into_iter().for_each(Child::kill),
            Action::StopEngine => self.stop_engine(),
            Action::StopFunclets => self.stop_funclets(),
            Action::KillAll => {
                self.overdue = Some(Deadline::after(KILL_TIMEOUT));
                self.seats.iter_mut().for_each(Seat::give_up_waiting);
                self.seats.iter().filter_map(Seat::child).for_each(Child::kill);
            }
        }
    }

    fn stop_engine(&mut self) {
        self.notify.stopping();
        self.seats.iter_mut().for_each(Seat::give_up_waiting);
        let grace = self.start.config.grace;
        self.log.info(format_args!("stopping: calls in flight have {}s to end", grace.as_secs()));
        self.overdue = Some(Deadline::after(grace + DRAIN_MARGIN));
        match self.seats[ENGINE].child() {
            Some(engine) => self.tell_stop(engine, grace),
            // It had died and was not started again yet.
            None => self.on_input(Input::EngineGone),
        }
    }

    fn stop_funclets(&mut self) {
        self.overdue = Some(Deadline::after(FUNCLET_STOP));
        let funclets = self.seats[1..].iter().filter_map(Seat::child);
        funclets.for_each(|funclet| self.tell_stop(funclet, FUNCLET_STOP));
    }

    fn tell_stop(&self, child: &Child, grace: Duration) {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = child.tell(LinkMessage::Stop { grace_ms }, &[]) {
            self.log.error(format_args!("the {} does not listen: {error}; killing it", child.role));
            child.kill();
        }
    }

    /// Notes that the last child is gone.
    fn settle(&mut self) {
        let over = matches!(self.phase, Phase::Draining | Phase::Ending | Phase::Killing);
        if over && self.seats.iter().all(|seat| matches!(seat.state, SeatState::Empty)) {
            self.on_input(Input::AllGone);
        }
    }
}
