//! What a funclet does with its fork servers: starts, orders, deaths, renewals.
//!
//! Owns: the moments. Must not know: how a server is made ([`super::birth`]).

use std::os::fd::AsFd;

use faaster_limits::{BOOT_MEMORY_BYTES, BOOT_OUTPUT_BYTES_MAX, FORK_SERVER_PIDS};
use faaster_protocol::funclet::{Generation, SlotId};
use faaster_sys::child::REPORT_FAILED;
use faaster_sys::fdpass;
use rustix::io::Errno;

use super::birth::{Hurry, ServerOrder, send_order};
use super::{Change, ForkServer, Live, Place, State};
use crate::birth::{BOOT_SHARE, BirthError, Entrance};
use crate::cgroup::{Group, Limits, Removal};
use crate::config::UIDS_PER_SLOT;
use crate::fault::FaultPoint;
use crate::funclet::{Funclet, Timer};
use crate::notice::{notice, with_causes};
use crate::poller::{Interest, Token};
use crate::slots::Ending;
use crate::timers::Nanos;

/// What a fork server says.
const READY: &[u8] = b"ready";
const TAKEN: &[u8] = b"taken";
const MESSAGE_BYTES_MAX: usize = 16;

impl Funclet {
    /// How the runtime of a container of this kind comes into it. Makes the place for a fork server where it is the
    /// first to need it.
    pub(crate) fn prepare_entrance(&mut self, runtime: usize, now: Nanos) {
        let Some(server) = &self.fork_servers[runtime] else { return };
        if server.place.is_some() || !server.is_usable(now) {
            return;
        }
        match self.make_place(runtime) {
            Ok(place) => self.fork_servers[runtime].as_mut().expect("looked at above").place = Some(place),
            Err(error) => {
                let name = &self.config.runtimes[runtime].name;
                let text = with_causes(&error);
                notice(
                    &self.config,
                    &format!("runtime {name} has no fork server, containers boot one by one: {text}"),
                );
                self.fork_servers[runtime] = None;
            }
        }
    }

    /// See [`Self::prepare_entrance`].
    pub(crate) fn entrance(&self, runtime: usize, slot: SlotId, now: Nanos) -> Entrance<'_> {
        let usable = self.fork_servers[runtime].as_ref().filter(|server| server.is_usable(now));
        match usable.and_then(|server| server.place.as_ref()) {
            Some(place) => Entrance::ForkServer {
                within: place.namespace.as_fd(),
                first_uid: UIDS_PER_SLOT * (slot.0 + 1),
            },
            None => Entrance::Init,
        }
    }

    fn make_place(&self, runtime: usize) -> Result<Place, BirthError> {
        let own = self.config.uid_of_fork_server(runtime).expect("the configuration's check leaves room");
        let first = self.config.uid_of_slot(0).expect("the configuration's check leaves room");
        let slots = self.config.slots_max * UIDS_PER_SLOT;
        // Its own root is nobody's user, and above it lie the ranges of all containers that it can be asked into.
        let namespace =
            self.nursery.make_user_namespace(&format!("0 {own} 1\n{UIDS_PER_SLOT} {first} {slots}"))?;
        let mut group: Group = self.cgroups.create(&server_group(runtime))?;
        let limits = Limits { memory_bytes: BOOT_MEMORY_BYTES, pids: FORK_SERVER_PIDS, cpu: BOOT_SHARE };
        self.cgroups.write_limits(&mut group.limits, &limits)?;
        self.faults.at(FaultPoint::ForkPlace);
        Ok(Place { namespace, group })
    }

    /// A fork server that containers wait for and that is not there.
    pub(crate) fn fork_server_due(&self, now: Nanos) -> Option<usize> {
        self.fork_servers.iter().position(|server| server.as_ref().is_some_and(|server| server.is_due(now)))
    }

    /// Starts a fork server.
    pub(crate) fn start_fork_server(&mut self, runtime: usize) {
        let Some(server) = &mut self.fork_servers[runtime] else { return };
        let place = server.place.as_ref().expect("a container that waits for it was made in its place");
        let order = ServerOrder {
            runtime,
            within: place.namespace.as_fd(),
            group: &place.group,
            arguments: &server.arguments,
            environment: &server.environment,
            program: &server.program,
        };
        match self.nursery.bear_server(order, &self.rootfs) {
            Ok(born) => {
                self.faults.at(FaultPoint::ForkBorn);
                let token = Token::ForkServer(runtime);
                let watched = self.poller.add(&born.control, token, Interest::Read);
                let deadline = Nanos::now().after(self.config.boot_timeout);
                let timer = self.timers.add(deadline, Timer::ForkServer(runtime));
                server.apply(Change::Born);
                server.live = Some(Live { born, timer: Some(timer), forks: 0, taken: 0, under_way: 0 });
                if let Err(errno) = watched {
                    self.lose_fork_server(runtime, &format!("it cannot be watched: {errno}"));
                }
            }
            Err(error) => {
                server.apply(Change::Born);
                self.lose_fork_server(runtime, &with_causes(&error));
            }
        }
    }

    /// A container is being made whose runtime is a child of the fork server's. The child can be made meanwhile; it waits
    /// until init calls it in.
    pub(crate) fn want_fork(&mut self, id: SlotId, generation: Generation) {
        let Some(container) = self.slots.live(id, generation) else { return };
        let runtime = container.runtime;
        match &mut self.fork_servers[runtime] {
            Some(server) if server.state != State::Hopeless => server.wanted.push_back((id, generation)),
            _ => return self.end(id, generation, Ending::Evicted),
        }
        self.send_orders(runtime);
    }

    fn send_orders(&mut self, runtime: usize) {
        loop {
            let Some(server) = &mut self.fork_servers[runtime] else { return };
            if !server.has_room() {
                return;
            }
            let Some((id, generation)) = server.wanted.pop_front() else { return };
            let Some(container) = self.slots.live(id, generation) else { continue };
            let Some(passage) = container.unclaimed.as_mut().and_then(|unclaimed| unclaimed.passage.take())
            else {
                continue;
            };
            let hurry = match self.waiting.count_for_container(runtime) {
                0 => Hurry::No,
                _ => Hurry::Yes,
            };
            let live = server.live.as_mut().expect("a ready server is alive");
            match send_order(&live.born.control, &container.pidfd, &passage, hurry) {
                Ok(()) => {
                    self.faults.at(FaultPoint::ForkOrdered);
                    live.under_way += 1;
                    live.forks += 1;
                }
                Err(errno) => {
                    let unclaimed = container.unclaimed.as_mut().expect("its passage was there");
                    unclaimed.passage = Some(passage);
                    server.wanted.push_front((id, generation));
                    if errno != Errno::AGAIN {
                        self.lose_fork_server(runtime, &format!("it takes no orders: {errno}"));
                    }
                    return;
                }
            }
        }
    }

    /// A fork server has said something, or is gone.
    pub(crate) fn on_fork_server(&mut self, runtime: usize) {
        loop {
            let Some(server) = self.fork_servers.get_mut(runtime).and_then(Option::as_mut) else { return };
            let Some(live) = &mut server.live else { return };
            let mut bytes = [0; MESSAGE_BYTES_MAX];
            match fdpass::recv_with_fds(&live.born.control, &mut bytes) {
                Err(Errno::AGAIN) => break,
                Ok(message) if &bytes[..message.bytes] == READY && server.state == State::Booting => {
                    if let Some(timer) = live.timer.take() {
                        self.timers.cancel(timer);
                    }
                    server.apply(Change::Ready);
                    self.faults.at(FaultPoint::ForkReady);
                }
                Ok(message) if &bytes[..message.bytes] == TAKEN && live.under_way > 0 => {
                    live.under_way -= 1;
                    live.taken += 1;
                    self.child_moved = Nanos::now();
                    self.migrating = None;
                    self.faults.at(FaultPoint::ForkTaken);
                    server.backoff.succeeded();
                    self.pass_on_output(runtime);
                }
                Ok(message) if message.bytes == 0 => return self.lose_fork_server(runtime, "it ended"),
                Ok(_) => return self.lose_fork_server(runtime, "it said something unknown"),
                Err(errno) => return self.lose_fork_server(runtime, &errno.to_string()),
            }
        }
        if self.fork_servers[runtime].as_ref().is_some_and(ForkServer::is_spent) {
            // Its children share an address layout and a hash seed; the next one's have others.
            self.end_fork_server(runtime);
            return self.start_fork_server(runtime);
        }
        self.send_orders(runtime);
    }

    pub(crate) fn on_fork_server_timeout(&mut self, runtime: usize) {
        let booting =
            self.fork_servers[runtime].as_ref().is_some_and(|server| server.state == State::Booting);
        if booting {
            self.lose_fork_server(runtime, &format!("it was not ready after {:?}", self.config.boot_timeout));
        }
    }

    /// Ends one that failed, says why, and when that was the last try, gives up.
    fn lose_fork_server(&mut self, runtime: usize, reason: &str) {
        let output = self.output_of(runtime);
        let name = &self.config.runtimes[runtime].name;
        notice(&self.config, &format!("the fork server of runtime {name} is lost: {reason}{output}"));
        let live = self.fork_servers[runtime].as_ref().and_then(|server| server.live.as_ref());
        let was_good = live.is_some_and(|live| live.taken > 0);
        self.end_fork_server(runtime);
        let now = Nanos::now();
        let Some(server) = &mut self.fork_servers[runtime] else { return };
        if was_good {
            // The next one may do as well, and at once.
            return;
        }
        server.backoff.failed(now);
        if let Some(until) = server.backoff.blocked_until(now) {
            self.timers.add(until, Timer::Retry);
        }
        if !server.is_worn_out() {
            return;
        }
        server.apply(Change::GivenUp);
        let name = &self.config.runtimes[runtime].name;
        notice(
            &self.config,
            &format!("runtime {name} has no fork server any more; its containers boot one by one"),
        );
        for (id, generation) in std::mem::take(&mut server.wanted) {
            self.end(id, generation, Ending::Evicted);
        }
    }

    /// Ends one, and nothing of it is left but its place.
    fn end_fork_server(&mut self, runtime: usize) {
        let Some(server) = &mut self.fork_servers[runtime] else { return };
        server.apply(Change::Ended);
        let Some(live) = server.live.take() else { return };
        if let Some(timer) = live.timer {
            self.timers.cancel(timer);
        }
        self.poller.remove(&live.born.control);
        live.born.pidfd.kill().ok();
        live.born.pidfd.reap().ok();
    }

    /// Ends all at the funclet's end.
    pub(crate) fn end_fork_servers(&mut self) {
        for runtime in 0..self.fork_servers.len() {
            if self.fork_servers[runtime].as_ref().is_some_and(|server| server.live.is_some()) {
                self.end_fork_server(runtime);
            }
        }
    }

    /// Removes what their places have of the machine.
    pub(crate) fn remove_fork_groups(&self) -> Removal {
        let mut all = Removal::Gone;
        for (runtime, server) in self.fork_servers.iter().enumerate() {
            if server.as_ref().is_some_and(|server| server.place.is_some())
                && !matches!(self.cgroups.remove(&server_group(runtime)), Ok(Removal::Gone))
            {
                all = Removal::Busy;
            }
        }
        all
    }

    fn pass_on_output(&self, runtime: usize) {
        let output = self.output_of(runtime);
        if !output.is_empty() {
            let name = &self.config.runtimes[runtime].name;
            notice(&self.config, &format!("the fork server of runtime {name} says something{output}"));
        }
    }

    /// What it has printed, or which step before its program failed.
    fn output_of(&self, runtime: usize) -> String {
        let Some(live) = self.fork_servers[runtime].as_ref().and_then(|server| server.live.as_ref()) else {
            return String::new();
        };
        let mut bytes = [0; BOOT_OUTPUT_BYTES_MAX];
        match rustix::io::read(&live.born.log, &mut bytes) {
            Ok(4) if bytes[0] == REPORT_FAILED => {
                let step = live.born.steps.get(usize::from(bytes[1])).unwrap_or(&"a step");
                let errno = Errno::from_raw_os_error(i32::from(u16::from_le_bytes([bytes[2], bytes[3]])));
                format!("; {step} failed: {errno}")
            }
            Ok(count) if count > 0 => format!("; it printed:\n{}", String::from_utf8_lossy(&bytes[..count])),
            _ => String::new(),
        }
    }
}

fn server_group(runtime: usize) -> String {
    format!("f{runtime}")
}
