//! Births, boots and deaths of containers.
//!
//! Owns: the way from nothing to cold, and from anything to nothing. Must not know: claims' contents.

use faaster_init::{RECORD_BYTES, Record};
use faaster_limits::{BOOT_OUTPUT_BYTES_MAX, CGROUP_REMOVE_TIMEOUT, GROUPS_WARM_INTERVAL, POOL_REFILL_QUIET};
use faaster_protocol::funclet::{Claim, ClaimSource, End, Event, Generation, Refusal, SlotId};
use faaster_sys::pidfd::Exit;
use rustix::io::Errno;

use crate::aside::{Alarm, Verdict};
use crate::birth::{BOOT_SHARE, BirthError, Born, Lineage, Order, Origin};
use crate::cgroup::{CpuShare, FinalUsage, Removal, Running};
use crate::claims::{self, WaitsFor};
use crate::container::{Change, State};
use crate::demand::Happening;
use crate::fault::FaultPoint;
use crate::forks::ForkServer;
use crate::funclet::{Funclet, FuncletError, Timer};
use crate::hello::HelloReader;
use crate::ledger::share_bytes;
use crate::network::Link;
use crate::notice::{notice, with_causes};
use crate::poller::{Interest, Token};
use crate::reuse::{Account, Past};
use crate::slots::{Container, Ending, Slot, Stage, Unclaimed};
use crate::stuck::{Dying, group_of};
use crate::timers::Nanos;

/// Pause between looks at cgroups that are still busy.
const REMOVAL_RETRY: std::time::Duration = std::time::Duration::from_millis(2);
/// Groups removed in one turn of the loop.
const REMOVALS_PER_TURN_MAX: usize = 4;

impl Funclet {
    /// Starts a container of a runtime in the next free slot.
    ///
    /// # Errors
    /// The funclet cannot come back from a namespace.
    pub(crate) fn give_birth(&mut self, runtime: usize) -> Result<(), FuncletError> {
        let now = Nanos::now();
        self.prepare_entrance(runtime, now);
        let inheritance = self.inherit(runtime, now);
        let Some((id, generation)) = self.slots.next_free() else { return Ok(()) };
        if inheritance.is_none() {
            // The slot gets a network of its own, whatever becomes of that.
            self.reuse.let_go(id);
        }
        self.faults.at(FaultPoint::CreateBegun);
        let group = group_of(id, generation);
        let uid =
            self.config.uid_of_slot(id.0).expect("the configuration's check leaves room for every slot");
        let entrance = self.entrance(runtime, id, now);
        let lineage = entrance.lineage();
        let promise = match &inheritance {
            Some(_) => None,
            None => self.commission_link(runtime, entrance, id, generation),
        };
        let network = match (&inheritance, &promise) {
            (Some(inheritance), _) => Origin::Inherited(&inheritance.namespace),
            (None, Some(promise)) => Origin::Promised(promise),
            (None, None) => Origin::Own,
        };
        let order = Order { runtime, group: &group, uid, entrance, network };
        match self.nursery.give_birth(order, &*self.cgroups, &self.rootfs) {
            Ok(born) => {
                self.settle_in(id, generation, (runtime, lineage), group, born, now);
                self.settle_network(id, generation, inheritance);
            }
            Err(BirthError::Lost(errno)) => return Err(FuncletError::LostNamespace(errno)),
            Err(error) => {
                notice(&self.config, &format!("cannot make a container: {}", with_causes(&error)));
                let until = now.after(CGROUP_REMOVE_TIMEOUT);
                self.slots.occupy(id, generation, Slot::Removing { group, until });
                self.removal_due = true;
                self.back_off(runtime, Refusal::System, error.errno());
            }
        }
        Ok(())
    }

    fn settle_in(
        &mut self,
        id: SlotId,
        generation: Generation,
        (runtime, lineage): (usize, Lineage),
        group: String,
        born: Born,
        now: Nanos,
    ) {
        let Born { pid, pidfd, network, status, channel, log, tmp, limits, steps, passage } = born;
        let comes_from_outside = passage.is_some();
        let watched = self
            .poller
            .add(&pidfd, Token::Process(id, generation), Interest::Read)
            .and_then(|()| self.poller.add(&status, Token::Status(id, generation), Interest::Read))
            .and_then(|()| self.poller.add(&channel, Token::Boot(id, generation), Interest::Read));
        let timer = self.timers.add(self.boot_deadline(now), Timer::Boot(id, generation));
        let container = Container {
            state: State::Creating,
            runtime,
            group,
            pid,
            pidfd,
            status,
            last_record: None,
            unclaimed: Some(Unclaimed {
                channel,
                log,
                tmp,
                limits,
                hello: HelloReader::default(),
                steps,
                passage,
                stage: Stage::Assembling,
                inside: None,
            }),
            lease: None,
            created: now,
            ending: None,
            dying: Dying::InTime,
            timer: Some(timer),
            link: Link::None,
            namespace: None,
            lineage,
            past: Past::None,
        };
        self.slots.occupy(id, generation, Slot::Live(Box::new(container)));
        self.pools[runtime].began(id, generation);
        self.expect_link(id, generation, network);
        self.faults.at(FaultPoint::CreateSettled);
        self.migrating = Some((id, generation, now));
        match watched {
            Ok(()) if comes_from_outside => self.want_fork(id, generation),
            Ok(()) => {}
            Err(errno) => self.fail_boot(id, generation, &format!("it cannot be watched: {errno}")),
        }
    }

    /// Records on a container's status pipe.
    pub(crate) fn on_status(&mut self, id: SlotId, generation: Generation) -> Result<(), FuncletError> {
        loop {
            let Some(container) = self.slots.live(id, generation) else { return Ok(()) };
            let mut bytes = [0; RECORD_BYTES];
            match rustix::io::retry_on_intr(|| rustix::io::read(&container.status, &mut bytes)) {
                Ok(RECORD_BYTES) => {}
                Ok(_) => {
                    // Init has gone; its pidfd says the rest.
                    self.poller.remove(&container.status);
                    return Ok(());
                }
                Err(_) => return Ok(()),
            }
            if let Some(record) = Record::decode(bytes) {
                self.on_record(id, generation, record)?;
            }
        }
    }

    fn on_record(&mut self, id: SlotId, generation: Generation, record: Record) -> Result<(), FuncletError> {
        match record {
            Record::Migrated => {
                self.faults.at(FaultPoint::CreateMigrated);
                let is_last = self.migrating.is_some_and(|(at, life, _)| (at, life) == (id, generation));
                if is_last && !self.waits_for_child(id, generation) {
                    self.migrating = None;
                }
            }
            Record::Apart => return self.order_link(id, generation),
            Record::Assembled => self.on_assembled(id, generation),
            Record::Parked => return self.become_cold(id, generation),
            Record::Exited(_) | Record::Signalled(_) => {
                if let Some(container) = self.slots.live(id, generation) {
                    container.last_record = Some(record);
                }
            }
            Record::InitFailed { step, errno } => {
                let reason = Errno::from_raw_os_error(i32::from(errno));
                self.fail_boot(id, generation, &format!("{}: {reason}", Self::init_step_text(step)));
            }
            Record::BirthFailed { position, errno } => {
                let reason = Errno::from_raw_os_error(i32::from(errno));
                let container = self.slots.peek(id, generation);
                let steps = container.and_then(|c| c.unclaimed.as_ref()).map(|unclaimed| &unclaimed.steps);
                let step = steps.and_then(|steps| steps.get(usize::from(position))).unwrap_or(&"a step");
                self.fail_boot(id, generation, &format!("{step} failed: {reason}"));
            }
        }
        Ok(())
    }

    /// Whether a fork server's child is about to enter the cgroups, too, and may wait for a grace period in which nobody
    /// else can do anything with cgroups. It does not where another has just entered.
    fn waits_for_child(&self, id: SlotId, generation: Generation) -> bool {
        let Some(container) = self.slots.peek(id, generation) else { return false };
        let is_ordered = container.unclaimed.as_ref().is_some_and(|unclaimed| unclaimed.passage.is_none());
        self.fork_servers[container.runtime].as_ref().is_some_and(ForkServer::is_at_work)
            && is_ordered
            && Nanos::now().since(self.child_moved) >= GROUPS_WARM_INTERVAL
    }

    /// A container's file system stands.
    fn on_assembled(&mut self, id: SlotId, generation: Generation) {
        self.faults.at(FaultPoint::CreateAssembled);
        let Some(container) = self.slots.live(id, generation) else { return };
        let runtime = container.runtime;
        if let Some(unclaimed) = &mut container.unclaimed {
            unclaimed.stage = Stage::Booting;
        }
        let now = Nanos::now();
        if now < self.quiet_until && self.waiting.count_for_container(runtime) == 0 {
            self.stand_aside(id, generation, now);
        }
    }

    /// A claimed container is about to need a core: the boots that nobody waits for let it pass. They take 100 ms of a
    /// core, and it would come after them at the next tick of the clock only.
    pub(crate) fn let_pass(&mut self, now: Nanos) {
        let waiting = &self.waiting;
        let unhurried = self.pools.iter().enumerate().filter(|(at, _)| waiting.count_for_container(*at) == 0);
        let boots: Vec<_> = unhurried.flat_map(|(_, pool)| pool.being_made()).copied().collect();
        for (id, generation) in boots {
            self.stand_aside(id, generation, now);
        }
    }

    fn stand_aside(&mut self, id: SlotId, generation: Generation, now: Nanos) {
        let unclaimed = self.slots.peek(id, generation).and_then(|container| container.unclaimed.as_ref());
        // To stop it would have to wait for whoever enters cgroups now.
        if unclaimed.is_none_or(|unclaimed| unclaimed.stage == Stage::Assembling)
            || self.is_migrating(now)
            || self.aside.contains(id, generation)
            || !self.aside.may_begin(now)
        {
            return;
        }
        self.stop_for_a_while(id, generation);
        if self.aside.add(id, generation, now) == Alarm::Wanted {
            self.timers.add(now.after(POOL_REFILL_QUIET), Timer::Aside);
        }
    }

    pub(crate) fn on_aside_alarm(&mut self, now: Nanos) {
        match self.aside.judge(now, self.quiet_until) {
            Verdict::Wait(until) => {
                self.timers.add(until, Timer::Aside);
            }
            Verdict::Return(boots) => self.compete(&boots),
        }
    }

    /// A claim waits for a boot: now all are in a hurry.
    pub(crate) fn hurry(&mut self) {
        let boots = self.aside.take();
        self.compete(&boots);
    }

    /// Stopped, it takes nothing. With the least of shares it is still owed what it has waited for (EEVDF), and gets that
    /// in one go: up to the next tick of the clock, in the pause that the claimed one makes for its first call.
    fn stop_for_a_while(&self, id: SlotId, generation: Generation) {
        let Some(container) = self.slots.peek(id, generation) else { return };
        if self.cgroups.set_running(&container.group, Running::Stopped).is_err() {
            self.share(id, generation, CpuShare::Spare);
        }
    }

    fn compete(&self, boots: &[(SlotId, Generation)]) {
        for (id, generation) in boots {
            let Some(container) = self.slots.peek(*id, *generation) else { continue };
            if self.cgroups.set_running(&container.group, Running::Yes).is_err() {
                self.share(*id, *generation, BOOT_SHARE);
            }
        }
    }

    /// It is ready, or is to end: neither is done while it stands aside.
    fn leave_aside(&mut self, id: SlotId, generation: Generation) {
        if self.aside.leave(id, generation) {
            self.compete(&[(id, generation)]);
        }
    }

    fn share(&self, id: SlotId, generation: Generation, share: CpuShare) {
        let unclaimed = self.slots.peek(id, generation).and_then(|container| container.unclaimed.as_ref());
        if let Some(unclaimed) = unclaimed
            && let Err(error) = self.cgroups.write_share(&unclaimed.limits, share)
        {
            notice(&self.config, &format!("a container boots with the wrong share: {error}"));
        }
    }

    /// Bytes on a booting runtime's channel.
    pub(crate) fn on_boot(&mut self, id: SlotId, generation: Generation) -> Result<(), FuncletError> {
        let Some(container) = self.slots.live(id, generation) else { return Ok(()) };
        let Some(unclaimed) = &mut container.unclaimed else { return Ok(()) };
        if container.state != State::Creating {
            self.poller.remove(&unclaimed.channel);
            return Ok(());
        }
        match unclaimed.hello.advance(&unclaimed.channel) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => self.become_cold(id, generation),
            Err(error) => {
                self.poller.remove(&unclaimed.channel);
                // Init may know better why there is nothing on the channel.
                self.on_status(id, generation)?;
                self.fail_boot(id, generation, &error.to_string());
                Ok(())
            }
        }
    }

    pub(crate) fn on_boot_timeout(&mut self, id: SlotId, generation: Generation) {
        self.fail_boot(id, generation, &format!("it was not ready after {:?}", self.config.boot_timeout));
    }

    /// Its runtime has booted, and its link is there or not going to be.
    pub(crate) fn become_cold(&mut self, id: SlotId, generation: Generation) -> Result<(), FuncletError> {
        let Some(container) = self.slots.live(id, generation) else { return Ok(()) };
        if container.state != State::Creating {
            return Ok(());
        }
        if let Some(unclaimed) = &container.unclaimed {
            self.poller.remove(&unclaimed.channel);
        }
        if let Link::Coming { booted } = &mut container.link {
            *booted = true;
            return Ok(());
        }
        self.faults.at(FaultPoint::CreateBooted);
        self.leave_aside(id, generation);
        let container = self.slots.live(id, generation).expect("looked at above");
        container.state.apply(Change::Booted);
        if let Some(timer) = container.timer.take() {
            self.timers.cancel(timer);
        }
        let runtime = container.runtime;
        self.pools[runtime].booted(id, generation);
        self.on_demand(runtime, Happening::Prepared);
        self.faults.at(FaultPoint::CreateCold);
        let past = self.slots.peek(id, generation).expect("looked at above").past;
        let suits = |claim: &Claim| past.suits(Account(claim.account_tag));
        match self.waiting.pop_for_container(runtime, suits) {
            Some(waiting) => self.serve_claim(waiting, id, generation, ClaimSource::Fresh),
            // Claims of other accounts wait, or it is not needed.
            None if self.waiting.count_for_container(runtime) > 0 || self.pools[runtime].is_overfull() => {
                self.end(id, generation, Ending::Evicted);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Ends a container that did not become claimable, and says why.
    pub(crate) fn fail_boot(&mut self, id: SlotId, generation: Generation, reason: &str) {
        let Some(container) = self.slots.live(id, generation) else { return };
        if container.state != State::Creating {
            return;
        }
        let name = &self.config.runtimes[container.runtime].name;
        let output = container.unclaimed.as_ref().map_or_else(String::new, boot_output);
        notice(&self.config, &format!("runtime {name} does not boot: {reason}{output}"));
        self.end(id, generation, Ending::BootFailed);
    }

    /// Kills a container, whole tree; its death is seen on its pidfd.
    pub(crate) fn end(&mut self, id: SlotId, generation: Generation, ending: Ending) {
        let Some(container) = self.slots.live(id, generation) else { return };
        match container.state {
            State::Draining | State::Dead => return,
            State::Creating => self.pools[container.runtime].failed(id, generation),
            State::Cold => self.pools[container.runtime].remove(id, generation),
            State::Warming | State::Warm | State::Frozen => {}
        }
        self.faults.at(FaultPoint::EndAsked);
        let was_booting = container.state == State::Creating;
        // Dying takes a processor too.
        self.leave_aside(id, generation);
        let container = self.slots.live(id, generation).expect("looked at above");
        container.state.apply(Change::Killed);
        container.ending = Some(ending);
        let runtime = container.runtime;
        if let Some(timer) = container.timer.take() {
            self.timers.cancel(timer);
        }
        if let Some(reclaimer) = &mut self.reclaimer {
            reclaimer.stop(id, generation);
        }
        // Process 1 takes its whole pid namespace with it, and unlike cgroup.kill this waits for no lock. ESRCH: it is
        // dead already, which its pidfd is about to say.
        container.pidfd.kill().ok();
        self.expect_death(id, generation);
        self.faults.at(FaultPoint::EndKilled);
        if was_booting && ending == Ending::BootFailed {
            self.back_off(runtime, Refusal::Boot, None);
        }
    }

    /// A runtime did not boot: pauses, and when nothing else of it is being made, refuses the claims that wait.
    fn back_off(&mut self, runtime: usize, refusal: Refusal, errno: Option<Errno>) {
        let now = Nanos::now();
        self.pools[runtime].backoff.failed(now);
        if let Some(until) = self.pools[runtime].backoff.blocked_until(now) {
            self.timers.add(until, Timer::Retry);
        }
        while self.pools[runtime].creating_count() == 0
            && let Some(waiting) = self.waiting.pop_for_container(runtime, |_| true)
        {
            self.forget_waiting(&waiting, WaitsFor::Container);
            self.refuse(&waiting, refusal, errno);
        }
    }

    /// A container's init has ended, and with it every process of the container.
    pub(crate) fn on_process(&mut self, id: SlotId, generation: Generation) -> Result<(), FuncletError> {
        self.faults.at(FaultPoint::EndSeen);
        // What init said last comes first.
        self.on_status(id, generation)?;
        let Some(container) = self.slots.live(id, generation) else { return Ok(()) };
        let exit = match container.pidfd.try_reap() {
            Ok(Some(exit)) => exit,
            Ok(None) => return Ok(()),
            // Somebody else reaped it; that it is dead is certain.
            Err(_) => Exit::Signal(9),
        };
        self.faults.at(FaultPoint::EndReaped);
        if container.state == State::Creating {
            self.fail_boot(id, generation, "it ended");
        }
        self.bury(id, generation, exit);
        Ok(())
    }

    fn bury(&mut self, id: SlotId, generation: Generation, exit: Exit) {
        let until = Nanos::now().after(CGROUP_REMOVE_TIMEOUT);
        let Some(container) = self.slots.live(id, generation) else { return };
        if container.state == State::Cold {
            let name = &self.config.runtimes[container.runtime].name;
            let output = container.unclaimed.as_ref().map_or_else(String::new, boot_output);
            let text = format!("a prepared container of runtime {name} ended by itself{output}");
            notice(&self.config, &text);
            // Or one that boots and ends at once would be made over and over.
            let next = self.pools[container.runtime].died(id, generation, Nanos::now());
            self.timers.add(next, Timer::Retry);
        }
        container.state.apply(Change::Died);
        self.poller.remove(&container.pidfd);
        self.poller.remove(&container.status);
        if let Some(unclaimed) = &container.unclaimed {
            self.poller.remove(&unclaimed.channel);
        }
        if let Some(timer) = container.timer.take() {
            self.timers.cancel(timer);
        }
        let group = container.group.clone();
        let Slot::Live(mut container) = self.slots.replace(id, Slot::Removing { group, until }) else {
            unreachable!("the slot held the live container that was just looked at");
        };
        self.removal_due = true;
        if self.migrating.is_some_and(|(at, life, _)| (at, life) == (id, generation)) {
            self.migrating = None;
        }
        self.hand_on_network(id, generation, &mut container);
        self.faults.at(FaultPoint::EndBuried);
        let Some(lease) = container.lease else { return };
        let bytes = claims::memory_bytes(&lease.claim);
        let usage = self.cgroups.final_usage(&container.group);
        let event = Event::Ended {
            slot: id,
            generation,
            end: end_of(&container, usage, exit),
            memory_peak_bytes: usage.memory_peak_bytes,
            memory_limit_bytes: bytes,
            cpu_used_us: usage.cpu_us,
        };
        self.ledger.release(share_bytes(lease.claim.memory_mb));
        self.memory_returned = true;
        let sent = self.channels.send(lease.channel, &event, Vec::new());
        self.after_send(lease.channel, sent);
        self.faults.at(FaultPoint::EndTold);
    }

    /// Removes cgroups of dead containers, some in one turn.
    pub(crate) fn remove_dead_groups(&mut self) {
        self.removal_due = false;
        let mut dead: Vec<(SlotId, String)> =
            self.slots.all_removing().map(|(id, group, _)| (id, group.to_owned())).collect();
        // From where the last round stopped, so that those which stay busy do not keep the others waiting.
        let passed = dead.iter().filter(|(id, _)| *id <= self.removal_cursor).count();
        dead.rotate_left(passed);
        let mut is_busy = false;
        for (id, group) in dead.iter().take(REMOVALS_PER_TURN_MAX) {
            self.removal_cursor = *id;
            match self.cgroups.remove(group) {
                Ok(Removal::Gone) => {
                    self.faults.at(FaultPoint::EndRemoved);
                    self.slots.replace(*id, Slot::Free);
                    self.set_targets();
                    self.faults.at(FaultPoint::EndFreed);
                }
                Ok(Removal::Busy) => is_busy = true,
                Err(error) => {
                    notice(&self.config, &error.to_string());
                    is_busy = true;
                }
            }
        }
        if is_busy {
            self.timers.add(Nanos::now().after(REMOVAL_RETRY), Timer::Retry);
        } else if dead.len() > REMOVALS_PER_TURN_MAX {
            self.removal_due = true;
        }
    }

    /// Puts slots aside whose cgroups hold something that does not die: a process that waits for a disk, say.
    pub(crate) fn give_up_on_old_removals(&mut self, now: Nanos) {
        let old: Vec<(SlotId, String)> = self
            .slots
            .all_removing()
            .filter(|(_, _, until)| *until <= now)
            .map(|(id, group, _)| (id, group.to_owned()))
            .collect();
        for (id, group) in old {
            let text = format!(
                "cgroup {group} does not go away{}; its slot is not used again",
                self.states_in(&group)
            );
            notice(&self.config, &text);
            self.slots.replace(id, Slot::Quarantined { group });
        }
    }
}

/// How a container ended. A process killed for memory names the end even if the runtime went on for a while, and what
/// the runtime did by itself comes before a kill that we sent at the same time.
fn end_of(container: &Container, usage: FinalUsage, exit: Exit) -> End {
    match (usage.oom_kills, container.last_record, container.ending) {
        (1.., _, _) => End::OutOfMemory,
        (0, Some(Record::Exited(code)), _) => End::Exited(code),
        (0, Some(Record::Signalled(signal)), _) => End::Signalled(signal),
        (0, _, Some(_)) => End::Killed,
        (0, _, None) => match exit {
            Exit::Signal(signal) => End::Signalled(u8::try_from(signal).unwrap_or(u8::MAX)),
            Exit::Code(code) => End::Exited(u8::try_from(code).unwrap_or(u8::MAX)),
        },
    }
}

/// What a runtime has printed so far, at most [`BOOT_OUTPUT_BYTES_MAX`] of it.
fn boot_output(unclaimed: &Unclaimed) -> String {
    let mut bytes = [0; BOOT_OUTPUT_BYTES_MAX];
    rustix::fs::fcntl_setfl(&unclaimed.log, rustix::fs::OFlags::NONBLOCK).ok();
    match rustix::io::read(&unclaimed.log, &mut bytes) {
        Ok(count) if count > 0 => format!("; it printed:\n{}", String::from_utf8_lossy(&bytes[..count])),
        _ => String::new(),
    }
}
