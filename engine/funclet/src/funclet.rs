//! One funclet: its loop, its link to the supervisor, and its end.
//!
//! Owns: everything that a funclet has. Must not know: functions, HTTP, what the bytes on a channel mean.
//! One thread, in which nothing waits but the poller; another one makes links ([`crate::network`]), one more moves memory of
//! frozen containers to swap ([`crate::reclaim`]).

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Duration;

use faaster_limits::{CGROUP_REMOVE_TIMEOUT, DESCRIPTORS_EXPECTED};
use faaster_protocol::funclet::{Generation, LinkMessage, MESSAGE_BYTES, SlotId};
use faaster_sys::credentials::{CredentialsError, die_with_parent};
use faaster_sys::{fdpass, fdtable};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::aside::{Alarm, Aside};
use crate::birth::{BirthError, Nursery};
use crate::cgroup::{self, Backend, CgroupError, Removal, Warmth};
use crate::channel::{ChannelId, Channels, EngineId, Noted, Sent};
use crate::claims::{Rate, WaitingId, WaitingRoom};
use crate::config::{ConfigError, FuncletConfig};
use crate::fault::{FaultPoint, Faults};
use crate::forks::ForkServer;
use crate::ledger::Ledger;
use crate::link;
use crate::network::Network;
use crate::notice::{notice, with_causes};
use crate::poller::{Interest, Poller, RawToken, Token};
use crate::pool::{self, Pool, Refill};
use crate::reclaim::Reclaimer;
use crate::reuse::Reuse;
use crate::room::{Room, Shortage};
use crate::rootfs::{self, Rootfs, RootfsError};
use crate::serve::Description;
use crate::slots::{Ending, Slots};
use crate::sweep;
use crate::timers::{Nanos, Timers};

/// A child migrates itself, and while it does, other cgroup work blocks; so the next birth waits for it, this long.
const MIGRATION_WAIT: Duration = Duration::from_millis(50);
/// How long containers get to die when the supervisor is gone.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);

/// Why a funclet cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FuncletError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Birth(#[from] BirthError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    #[error("cannot make room for descriptors")]
    Descriptors(#[source] Errno),
    #[error("the folder of fault points cannot be used; it must be root's, and nobody else may write to it")]
    Faults(#[source] Errno),
    #[error("cannot wait for events")]
    Poll(#[source] Errno),
    #[error("cannot come back from a container's namespace")]
    LostNamespace(#[source] Errno),
}

/// Why a funclet ended in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// The supervisor told it to.
    Stopped,
    /// The supervisor is gone.
    SupervisorGone,
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// A container should be claimable by now.
    Boot(SlotId, Generation),
    /// One that was killed should be dead by now.
    Death(SlotId, Generation),
    /// A fork server should be ready by now.
    ForkServer(usize),
    /// Boots have stood aside for a while.
    Aside,
    /// A waiting claim's deadline.
    Claim(WaitingId),
    /// Claims may still wait for memory: the engine is asked again, for what was busy may be idle by now.
    Shortage,
    /// Pools may need room that a full node has not got.
    Room,
    /// Demand may have been so long ago that pools fall.
    Demand,
    /// Networks may have waited so long for another container that they go.
    Networks,
    /// Something to be tried again: cgroups of a dead container, a runtime that did not boot.
    Retry,
}

#[derive(Debug, Clone, Copy)]
struct Stopping {
    until: Nanos,
    reason: ExitReason,
}

/// Whether it has been said that containers cannot be frozen here: each idle one is tried again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freezing {
    NotRefused,
    Refused,
}

/// What engines have asked since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) claims: u64,
    pub(crate) refused: u64,
    /// Requests about a container that is not there any more, or is another engine's.
    pub(crate) ignored: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Funclet {
    pub(crate) config: FuncletConfig,
    pub(crate) faults: Faults,
    pub(crate) poller: Poller,
    link: OwnedFd,
    death_pipe: OwnedFd,
    pub(crate) channels: Channels,
    pub(crate) slots: Slots,
    pub(crate) reuse: Reuse,
    /// When networks that nobody has had are to go.
    pub(crate) networks_timer: Option<Nanos>,
    pub(crate) cgroups: Box<dyn Backend>,
    pub(crate) rootfs: Rootfs,
    pub(crate) nursery: Nursery,
    /// `None`: containers have their loopback alone.
    pub(crate) network: Option<Network>,
    pub(crate) ledger: Ledger,
    pub(crate) waiting: WaitingRoom,
    pub(crate) rate: Rate,
    pub(crate) timers: Timers<Timer>,
    pub(crate) pools: Vec<Pool>,
    /// `None`: memory of frozen containers stays where it is.
    pub(crate) reclaimer: Option<Reclaimer>,
    /// Whether a timer looks at their demand.
    pub(crate) demand_alarm: Alarm,
    /// By runtime.
    pub(crate) fork_servers: Vec<Option<ForkServer>>,
    pub(crate) aside: Aside,
    /// Where fork servers' children enter cgroups.
    pub(crate) warmth: Option<Warmth>,
    /// The container that is migrating itself into its cgroups.
    pub(crate) migrating: Option<(SlotId, Generation, Nanos)>,
    /// When a fork server's child was last seen to be in its cgroups.
    pub(crate) child_moved: Nanos,
    pub(crate) waiting_sequence: u64,
    pub(crate) shortage: Shortage,
    pub(crate) room: Room,
    pub(crate) counters: Counters,
    stopping: Option<Stopping>,
    pub(crate) freezing: Freezing,
    /// Cgroups of dead containers are looked at when something may have changed.
    pub(crate) removal_due: bool,
    /// The slot that was looked at last for that.
    pub(crate) removal_cursor: SlotId,
    /// Claims that wait for memory are looked at when some has come back.
    pub(crate) memory_returned: bool,
    /// Until then only pools that run low are refilled, and boots stand aside.
    pub(crate) quiet_until: Nanos,
    /// Until then only pools that are not half full are refilled.
    pub(crate) rest_until: Nanos,
    /// Answers to be given in portions.
    pub(crate) descriptions: VecDeque<Description>,
}

/// Runs a funclet until it is told to stop or the supervisor is gone; then everything of it is gone too.
///
/// `link` is a SOCK_SEQPACKET socket that carries [`LinkMessage`]s, `death_pipe` the read end of a pipe whose write end
/// the supervisor holds.
///
/// # Errors
/// What the machine lacks, or what made going on impossible. Containers die with the process in that case.
pub fn run(config: FuncletConfig, link: OwnedFd, death_pipe: OwnedFd) -> Result<ExitReason, FuncletError> {
    let mut funclet = Funclet::start(config, link, death_pipe)?;
    let reason = funclet.serve()?;
    funclet.clean_up();
    Ok(reason)
}

impl Funclet {
    fn start(config: FuncletConfig, link: OwnedFd, death_pipe: OwnedFd) -> Result<Self, FuncletError> {
        config.validate()?;
        die_with_parent(&death_pipe)?;
        // Files of the containers' root must be readable whatever the supervisor was started with.
        rustix::process::umask(Mode::from_raw_mode(0o022));
        // Each container takes two, and more before it is claimed.
        fdtable::reserve(&link, DESCRIPTORS_EXPECTED).map_err(FuncletError::Descriptors)?;
        let faults = Faults::open(&config).map_err(FuncletError::Faults)?;
        let nursery = Nursery::open(&config.init_path, &config.runtimes, faults.clone())?;
        // A funclet that was killed and is started again finds its cgroups full of the dead.
        let left = sweep::clear(&config.cgroup_name())?;
        faults.at(FaultPoint::StartSwept);
        let cgroups = cgroup::open(&config.cgroup_name())?;
        cgroups.weigh_top(config.all_cores.len())?;
        faults.at(FaultPoint::StartCgroups);
        // Threads come first: they stay in the host's mount namespace, which we leave next, and one that was made later
        // would share our root and working directory, with which no mount namespace of a container can be entered.
        let network = link::start_network(&config, &faults);
        faults.at(FaultPoint::StartNetwork);
        let has_fork_server = config.runtimes.iter().any(|runtime| !runtime.fork_server.is_empty());
        let warmth = has_fork_server.then(Warmth::start).flatten();
        let reclaimer = config.reclaim_frozen.then(Reclaimer::start).flatten();
        let rootfs =
            rootfs::assemble(&config.run_dir, &config.code_dir, &config.runtimes, config.resolv_conf())
                .inspect_err(|_| {
                    cgroups.remove_top().ok();
                })?;
        faults.at(FaultPoint::StartRoots);
        rustix::fs::fcntl_setfl(&link, OFlags::NONBLOCK).map_err(FuncletError::Poll)?;
        let poller = Poller::new().map_err(FuncletError::Poll)?;
        poller.add(&link, Token::Link, Interest::Read).map_err(FuncletError::Poll)?;
        poller.add(&death_pipe, Token::Death, Interest::Read).map_err(FuncletError::Poll)?;
        if let Some(network) = &network {
            poller.add(network.descriptor(), Token::Network, Interest::Read).map_err(FuncletError::Poll)?;
        }
        let pools =
            config.runtimes.iter().map(|runtime| Pool::new(config.pool_of(runtime) as usize)).collect();
        let fork_servers = config.runtimes.iter().map(ForkServer::of).collect();
        let mut funclet = Self {
            faults,
            poller,
            link,
            death_pipe,
            channels: Channels::default(),
            slots: Slots::new(config.slots_max),
            reuse: Reuse::default(),
            networks_timer: None,
            cgroups,
            rootfs,
            nursery,
            network,
            ledger: Ledger::new(config.memory_allocatable_bytes()),
            waiting: WaitingRoom::new(config.runtimes.len()),
            rate: Rate::new(Nanos::now()),
            timers: Timers::default(),
            pools,
            reclaimer,
            warmth,
            demand_alarm: Alarm::Wanted,
            fork_servers,
            aside: Aside::new(),
            migrating: None,
            child_moved: Nanos(0),
            waiting_sequence: 0,
            shortage: Shortage::Over,
            room: Room::default(),
            counters: Counters::default(),
            stopping: None,
            freezing: Freezing::NotRefused,
            removal_due: false,
            removal_cursor: SlotId(0),
            memory_returned: false,
            quiet_until: Nanos(0),
            rest_until: Nanos(0),
            descriptions: VecDeque::new(),
            config,
        };
        funclet.take_over(left);
        Ok(funclet)
    }

    fn serve(&mut self) -> Result<ExitReason, FuncletError> {
        let mut events: Vec<RawToken> = Vec::new();
        loop {
            if let Some(stopping) = self.stopping
                && (self.is_empty() || Nanos::now() >= stopping.until)
            {
                return Ok(stopping.reason);
            }
            events.clear();
            self.poller.wait(&mut events, self.patience()).map_err(FuncletError::Poll)?;
            for event in &events {
                self.on_event(*event)?;
            }
            let now = Nanos::now();
            while let Some(timer) = self.timers.pop_due(now) {
                self.on_timer(timer, now);
            }
            self.work_between_events()?;
        }
    }

    /// How long the poller may wait.
    fn patience(&self) -> Option<Duration> {
        let now = Nanos::now();
        if self.has_work(now) {
            return Some(Duration::ZERO);
        }
        let migration = self.migrating.map(|(_, _, since)| since.after(MIGRATION_WAIT));
        let stop = self.stopping.map(|stopping| stopping.until);
        // Later than this, pools may be refilled that may not now.
        let refill = [self.quiet_until, self.rest_until].into_iter().find(|until| now < *until);
        [self.timers.next_due(), migration, stop, refill]
            .into_iter()
            .flatten()
            .min()
            .map(|due| due.since(now))
    }

    fn on_event(&mut self, event: RawToken) -> Result<(), FuncletError> {
        let Some(token) = event.decode(|id| self.slots.generation(id)) else { return Ok(()) };
        match token {
            Token::Link => self.on_link(),
            Token::Death => self.stop(ExitReason::SupervisorGone, ORPHAN_GRACE),
            Token::Channel(number) => {
                if let Some(channel) = self.channels.find(number) {
                    return self.on_channel(channel);
                }
            }
            Token::Process(id, generation) => return self.on_process(id, generation),
            Token::Status(id, generation) => return self.on_status(id, generation),
            Token::Boot(id, generation) => return self.on_boot(id, generation),
            Token::Network => return self.on_network(),
            Token::ForkServer(runtime) => self.on_fork_server(runtime),
        }
        Ok(())
    }

    fn on_timer(&mut self, timer: Timer, now: Nanos) {
        match timer {
            Timer::Boot(id, generation) => self.on_boot_timeout(id, generation),
            Timer::Death(id, generation) => self.on_death_overdue(id, generation),
            Timer::ForkServer(runtime) => self.on_fork_server_timeout(runtime),
            Timer::Aside => self.on_aside_alarm(now),
            Timer::Claim(id) => self.on_claim_deadline(id),
            Timer::Shortage => self.remind_of_shortage(),
            Timer::Room => self.on_room_alarm(now),
            Timer::Demand => self.on_demand_alarm(now),
            Timer::Networks => self.let_networks_go(now),
            Timer::Retry => {
                self.removal_due = true;
                self.give_up_on_old_removals(now);
            }
        }
    }

    /// At most one birth or one round of removals, so that a claim never waits for more.
    fn work_between_events(&mut self) -> Result<(), FuncletError> {
        if self.memory_returned {
            self.serve_waiting_for_memory()?;
        }
        self.describe_some();
        if self.is_migrating(Nanos::now()) {
            return Ok(());
        }
        if self.removal_due {
            self.remove_dead_groups();
            return Ok(());
        }
        let now = Nanos::now();
        if self.stopping.is_none()
            && let Some(runtime) = self.fork_server_due(now)
        {
            self.start_fork_server(runtime);
        } else if let Some(runtime) = self.next_birth(now) {
            self.give_birth(runtime)?;
        } else if let Some((id, generation)) = self.next_surplus(now) {
            self.end(id, generation, Ending::Evicted);
        }
        Ok(())
    }

    fn has_work(&self, now: Nanos) -> bool {
        self.memory_returned
            || !self.descriptions.is_empty()
            || !self.is_migrating(now)
                && (self.removal_due
                    || self.next_birth(now).is_some()
                    || self.next_surplus(now).is_some()
                    || self.stopping.is_none() && self.fork_server_due(now).is_some())
    }

    pub(crate) fn is_migrating(&self, now: Nanos) -> bool {
        self.migrating.is_some_and(|(_, _, since)| now < since.after(MIGRATION_WAIT))
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    fn next_birth(&self, now: Nanos) -> Option<usize> {
        if self.stopping.is_some() || self.slots.free_count() == 0 {
            return None;
        }
        let refill = match now {
            now if now < self.quiet_until => Refill::Low,
            now if now < self.rest_until => Refill::Half,
            _ => Refill::All,
        };
        let waiting = |runtime| self.waiting.count_for_container(runtime);
        pool::next_to_make(&self.pools, refill, waiting, self.births_at_once(), now)
    }

    fn on_link(&mut self) {
        let mut bytes = [0; MESSAGE_BYTES];
        match fdpass::recv_with_fds(&self.link, &mut bytes) {
            Ok(received) if received.bytes == 0 => self.stop(ExitReason::SupervisorGone, ORPHAN_GRACE),
            Ok(received) => match LinkMessage::decode(&bytes[..received.bytes]) {
                Ok(LinkMessage::Channels { .. }) => {
                    let engine = self.channels.next_engine();
                    received.fds.into_iter().for_each(|fd| self.add_channel(engine, fd));
                    self.faults.at(FaultPoint::StartConnected);
                }
                Ok(LinkMessage::Stop { grace_ms }) => {
                    self.stop(ExitReason::Stopped, Duration::from_millis(u64::from(grace_ms)));
                }
                Err(error) => {
                    notice(&self.config, &format!("the supervisor sent something unknown: {error}"))
                }
            },
            Err(Errno::AGAIN) => {}
            Err(_) => self.stop(ExitReason::SupervisorGone, ORPHAN_GRACE),
        }
    }

    fn add_channel(&mut self, engine: EngineId, socket: OwnedFd) {
        let Some(id) = self.channels.add(engine, socket) else {
            notice(&self.config, "more engine channels than a funclet takes; one is closed");
            return;
        };
        let socket = self.channels.socket(id).expect("just added");
        if self.poller.add(socket, Token::Channel(id.number()), Interest::Read).is_err() {
            self.channels.close(id);
        }
    }

    /// After events were sent: room to write matters only while something waits.
    pub(crate) fn after_send(&mut self, channel: ChannelId, sent: Sent) {
        let interest = match sent {
            Sent::Now => Interest::Read,
            Sent::Later => Interest::ReadAndWrite,
            Sent::Lost => return self.lose_channel(channel),
        };
        if self.channels.note_interest(channel, interest) == Noted::Changed
            && let Some(socket) = self.channels.socket(channel)
        {
            self.poller.change(socket, Token::Channel(channel.number()), interest).ok();
        }
    }

    /// The engine behind it is gone: whatever it claimed ends.
    pub(crate) fn lose_channel(&mut self, channel: ChannelId) {
        let Some(socket) = self.channels.socket(channel) else { return };
        self.poller.remove(socket);
        self.channels.close(channel);
        while let Some((waiting, what)) = self.waiting.take(|waiting| waiting.channel == channel) {
            self.forget_waiting(&waiting, what);
        }
        let leased: Vec<(SlotId, Generation)> = self
            .slots
            .all_live()
            .filter(|(_, _, container)| container.lease.is_some_and(|lease| lease.channel == channel))
            .map(|(id, generation, _)| (id, generation))
            .collect();
        for (id, generation) in leased {
            self.end(id, generation, Ending::Wanted);
        }
    }

    fn stop(&mut self, reason: ExitReason, grace: Duration) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Stopping { until: Nanos::now().after(grace), reason });
        // Both would go on being readable.
        self.poller.remove(&self.link);
        self.poller.remove(&self.death_pipe);
        self.end_fork_servers();
        self.reuse.clear();
        let all: Vec<(SlotId, Generation)> =
            self.slots.all_live().map(|(id, generation, _)| (id, generation)).collect();
        for (id, generation) in all {
            self.end(id, generation, Ending::Wanted);
        }
    }

    fn is_empty(&self) -> bool {
        self.slots.all_live().next().is_none() && self.slots.all_removing().next().is_none()
    }

    /// Removes rules and top cgroups; what is left then is the sweep's.
    fn clean_up(&mut self) {
        if let Some(network) = &mut self.network
            && self.slots.all_live().next().is_none()
            && let Err(error) = network.remove_rules(&self.config)
        {
            notice(&self.config, &with_causes(&error));
        }
        for group in self.slots.all_quarantined() {
            // Whatever held it may have gone since; if not, the top group stays, too, and that is said below.
            self.cgroups.remove(group).ok();
        }
        let until = Nanos::now().after(CGROUP_REMOVE_TIMEOUT);
        let mut events = Vec::new();
        loop {
            // What is left of them keeps the top group busy.
            self.remove_fork_groups();
            match self.cgroups.remove_top() {
                Ok(Removal::Gone) => return,
                Ok(Removal::Busy) if Nanos::now() < until => {
                    // Nothing is watched any more but channels; this is a pause that ends early at worst.
                    self.poller.wait(&mut events, Some(Duration::from_millis(1))).ok();
                    events.clear();
                }
                Ok(Removal::Busy) => {
                    notice(&self.config, "its cgroups are still busy; the next start removes them");
                    return;
                }
                Err(error) => {
                    notice(&self.config, &error.to_string());
                    return;
                }
            }
        }
    }

    pub(crate) fn boot_deadline(&self, now: Nanos) -> Nanos {
        now.after(self.config.boot_timeout)
    }
}
