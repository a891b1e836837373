//! From a cold container to a function's: code, limits, size of /tmp, cores; then to the engine.
//!
//! Owns: the order of these steps. Must not know: why this claim gets this container.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use faaster_init::InitStep;
use faaster_limits::TMP_BYTES_DEFAULT;
use faaster_protocol::funclet::{
    Claim, ClaimSource, CodeHash, Event, Generation, Placement, Refusal, SlotId,
};
use faaster_sys::mount;
use faaster_sys::pidfd::PidFd;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{CpuSet, LinkNameSpaceType};

use crate::cgroup::{CpuShare, Limits};
use crate::claims::{self, Waiting};
use crate::code;
use crate::container::Change;
use crate::fault::FaultPoint;
use crate::funclet::{Funclet, FuncletError};
use crate::notice::notice;
use crate::reuse::{Account, Past};
use crate::rootfs::{OPT, TASK, code_mount};
use crate::slots::{Ending, Lease, Unclaimed};
use crate::timers::Nanos;

/// What a claim is told that did not get its container.
pub(crate) type Refused = (Refusal, Option<Errno>);

impl Funclet {
    /// Gives a cold container to a claim. The outer error ends the funclet; with the inner one the container stays
    /// cold or ends, and the claim is to be refused.
    pub(crate) fn attach(
        &mut self,
        waiting: &Waiting,
        id: SlotId,
        generation: Generation,
        source: ClaimSource,
    ) -> Result<Result<(), Refused>, FuncletError> {
        let began = Nanos::now();
        // What may be wrong with the claim comes first: the container is not touched by it.
        let trees = match self.open_trees(&waiting.claim) {
            Ok(trees) => trees,
            Err(refused) => return Ok(Err(refused)),
        };
        self.faults.at(FaultPoint::ClaimCode);
        self.pools[usize::from(waiting.claim.runtime.0)].remove(id, generation);
        let container = self.slots.live(id, generation).expect("a pool holds live containers only");
        container.state.apply(Change::Taken);
        container.past = Past::Of(Account(waiting.claim.account_tag));
        container.lease = Some(Lease { channel: waiting.channel, claim: waiting.claim, since: began });
        self.faults.at(FaultPoint::ClaimTaken);
        let pid = container.pid;
        let mut unclaimed = container.unclaimed.take().expect("a cold container has not been claimed");
        let given = match self.set_mode(&waiting.claim, id, generation, unclaimed.inside.take())? {
            Ok(()) => self.give(&mut unclaimed, &waiting.claim, id, generation, &trees)?,
            Err(errno) => Err(errno),
        };
        if let Err(errno) = given {
            // Nobody has been told of it, so nobody will be told of its end.
            self.slots.live(id, generation).expect("still there").lease = None;
            self.end(id, generation, Ending::Evicted);
            return Ok(Err((Refusal::System, Some(errno))));
        }
        let done = Nanos::now();
        let event = Event::Claimed {
            ticket: waiting.claim.ticket,
            slot: id,
            generation,
            pid: pid.get().unsigned_abs(),
            source,
            claim_us: u32::try_from(done.since(waiting.arrived).as_micros()).unwrap_or(u32::MAX),
            attach_us: u32::try_from(done.since(began).as_micros()).unwrap_or(u32::MAX),
        };
        let container = self.slots.live(id, generation).expect("still there");
        container.state.apply(Change::Handed);
        self.faults.at(FaultPoint::ClaimHanded);
        self.pools[usize::from(waiting.claim.runtime.0)].served();
        let gauge = self.cgroups.peak_gauge(&container.group);
        let descriptors = [unclaimed.channel, unclaimed.log].into_iter().chain(gauge).collect();
        let sent = self.channels.send(waiting.channel, &event, descriptors);
        self.after_send(waiting.channel, sent);
        self.faults.at(FaultPoint::ClaimTold);
        Ok(Ok(()))
    }

    /// What the function sees of packages, and where.
    fn open_trees(&self, claim: &Claim) -> Result<Vec<(OwnedFd, &'static CStr)>, Refused> {
        let mut trees = vec![(self.open_code(claim.code)?, TASK)];
        if let Some(layers) = claim.layers {
            trees.push((self.open_code(layers)?, OPT));
        }
        Ok(trees)
    }

    fn open_code(&self, code: CodeHash) -> Result<OwnedFd, Refused> {
        let folder = code::open(&self.rootfs.code_dir, code, self.config.engine_uid).map_err(|error| {
            // What is not there is for the engine to bring back, and nobody's fault.
            if error.errno() != Errno::NOENT {
                notice(&self.config, &format!("code {code} is refused: {error}"));
            }
            (Refusal::Code, Some(error.errno()))
        })?;
        code_mount(&folder).map_err(|errno| (Refusal::System, Some(errno)))
    }

    fn give(
        &self,
        unclaimed: &mut Unclaimed,
        claim: &Claim,
        id: SlotId,
        generation: Generation,
        trees: &[(OwnedFd, &CStr)],
    ) -> Result<Result<(), Errno>, FuncletError> {
        self.faults.at(FaultPoint::ClaimMode);
        let container = self.slots.peek(id, generation).expect("being claimed");
        let limits = Limits {
            memory_bytes: claims::memory_bytes(claim),
            // Its init is one of them.
            pids: claim.pids_max,
            cpu: CpuShare::OfMemoryMb(claim.memory_mb),
        };
        if let Err(error) = self.cgroups.write_limits(&mut unclaimed.limits, &limits) {
            notice(&self.config, &format!("a claim fails: {error}"));
            return Ok(Err(error.errno().unwrap_or(Errno::IO)));
        }
        self.faults.at(FaultPoint::ClaimLimits);
        let tmp_bytes = u64::from(claim.tmp_mb) * 1024 * 1024;
        if tmp_bytes != TMP_BYTES_DEFAULT
            && let Err(errno) = mount::resize_tmpfs(&unclaimed.tmp, tmp_bytes)
        {
            return Ok(Err(errno));
        }
        self.faults.at(FaultPoint::ClaimTmp);
        if let Err(errno) = self.attach_inside(&container.pidfd, trees)? {
            return Ok(Err(errno));
        }
        self.spread(&container.group, claim.placement);
        self.faults.at(FaultPoint::ClaimSpread);
        Ok(Ok(()))
    }

    /// Attaches mounts in a container's mount namespace. To be stuck in there would be the end.
    fn attach_inside(
        &self,
        pidfd: &PidFd,
        trees: &[(OwnedFd, &CStr)],
    ) -> Result<Result<(), Errno>, FuncletError> {
        if let Err(errno) = pidfd.enter_mount_namespace() {
            return Ok(Err(errno));
        }
        self.faults.at(FaultPoint::ClaimInside);
        let attached = trees.iter().try_for_each(|(tree, at)| mount::attach(tree, at));
        self.faults.at(FaultPoint::ClaimAttached);
        let own = self.rootfs.own_namespace.as_fd();
        rustix::thread::move_into_link_name_space(own, Some(LinkNameSpaceType::Mount))
            .map_err(FuncletError::LostNamespace)?;
        Ok(attached)
    }

    pub(crate) fn place(&self, id: SlotId, generation: Generation, placement: Placement) {
        if let Some(container) = self.slots.peek(id, generation) {
            self.spread(&container.group, placement);
        }
    }

    /// Puts every thread of a container on the cores of its placement; threads made later inherit it. A thread that has
    /// just ended is no matter, and neither is a core that does not exist any more.
    fn spread(&self, group: &str, placement: Placement) {
        let mut cores = CpuSet::new();
        match placement {
            Placement::Free => self.config.all_cores.iter().for_each(|core| cores.set(usize::from(*core))),
            Placement::Core(core) => cores.set(usize::from(core)),
        }
        for thread in self.cgroups.threads(group).unwrap_or_default() {
            rustix::thread::sched_setaffinity(Pid::from_raw(thread), &cores).ok();
        }
    }

    /// What a failed step of init means, for people.
    pub(crate) fn init_step_text(step: InitStep) -> &'static str {
        match step {
            InitStep::Arguments => "its command line is wrong",
            InitStep::Descriptors => "a descriptor is missing",
            InitStep::Filters => "the system call filters cannot be installed",
            InitStep::Fork => "it cannot fork",
            InitStep::Limits => "resource limits cannot be set",
            InitStep::Drop => "privileges cannot be dropped",
            InitStep::Exec => "the interpreter cannot be executed",
            InitStep::Wait => "it cannot wait for the runtime",
            InitStep::Adopt => "no child of the fork server came",
        }
    }
}
