//! The steps of a container's process 1: a few in the funclet's own memory, then as faaster-init, which is told the rest.
//!
//! Owns: their order (research/probes.md, "orderings that worked"), and the numbers under which a new process finds the
//! two descriptors that it begins with. Must not know: cgroups, and what becomes of the process.
//!
//! A copy of the funclet would cost it more than all the rest of the birth: the pages that both then have together are
//! copied when either writes. So the process shares its memory, while the funclet's thread stands still, until it is
//! faaster-init. What takes long comes after that: a network namespace alone is most of a millisecond.

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use faaster_init::{APART, ASSEMBLED, MIGRATED, fd};
use faaster_sys::child::Step;
use faaster_sys::child::plan::Plan;
use faaster_sys::clone3::{Birth, Child, Memory, Namespaces};
use rustix::io::DupFlags;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{
    BirthError, Ends, Entrance, HOSTNAME, NEW_PROC, NEW_RUNTIME, NEW_TMP, Nursery, OOM_SCORE, Order,
};
use crate::config::UIDS_PER_SLOT;
use crate::fault::BirthFault;
use crate::forks::birth::Between;
use crate::rootfs::proc::{ProcMask, ProcMount};
use crate::rootfs::{NEW, Rootfs};

/// Two low numbers in our descriptor table that lead to a new process's own descriptors while it is made: it takes a
/// copy of the table only as far as those, however many the funclet has open.
#[derive(Debug)]
pub(crate) struct Doors(RefCell<Open>);

#[derive(Debug)]
struct Open {
    order: OwnedFd,
    status: OwnedFd,
}

impl Doors {
    /// To be made while we have little else open.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(crate) fn open(null: &OwnedFd) -> Result<Self, BirthError> {
        let copy = || rustix::io::fcntl_dupfd_cloexec(null, 0).map_err(failed("a door"));
        Ok(Self(RefCell::new(Open { order: copy()?, status: copy()? })))
    }
}

impl Open {
    fn lead_to(&mut self, order: &OwnedFd, status: &OwnedFd) -> Result<(), BirthError> {
        rustix::io::dup3(order, &mut self.order, DupFlags::CLOEXEC).map_err(failed("a door"))?;
        rustix::io::dup3(status, &mut self.status, DupFlags::CLOEXEC).map_err(failed("a door"))
    }
}

/// What only the process's first steps are about.
#[derive(Debug)]
pub(super) struct Beginning<'a> {
    pub order: Order<'a>,
    /// Directory of the v2 cgroup to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The network namespace that was made for it, or an earlier one.
    pub network: Option<&'a OwnedFd>,
    pub fault: Option<&'a BirthFault>,
}

impl Nursery {
    /// What init does before it is init.
    pub(super) fn steps_of_init<'a>(
        &'a self,
        order: Order<'a>,
        joins: &'a [OwnedFd],
        rootfs: &'a Rootfs,
        (ends, tmp): (&'a Ends, &'a OwnedFd),
        network: Option<&OwnedFd>,
    ) -> Vec<Step<'a>> {
        let mut steps: Vec<_> = joins.iter().map(|procs| Step::JoinCgroup(procs.as_fd())).collect();
        steps.push(Step::Report(MIGRATED));
        let proc = match rootfs.proc_mount {
            ProcMount::Inside => Step::MountProc { to: NEW_PROC },
            ProcMount::ByHelper => {
                steps.push(Step::AwaitGo(ends.awaited.as_fd()));
                Step::AttachReceived { to: NEW_PROC }
            }
        };
        steps.extend([
            Step::BecomeRoot,
            Step::DieWithParent(self.own_pidfd.as_fd()),
            Step::NewCgroupNamespace,
        ]);
        match network {
            // In this one the loopback is up.
            Some(_) => steps.push(Step::Unshare(Namespaces::InnerButNetwork)),
            None => steps.extend([Step::Unshare(Namespaces::Inner), Step::Report(APART), Step::LoopbackUp]),
        }
        steps.extend([
            Step::AttachCopy { from: &rootfs.roots[order.runtime], to: NEW },
            Step::AttachCopy { from: &rootfs.runtime_paths[order.runtime], to: NEW_RUNTIME },
            Step::AttachTree { tree: tmp.as_fd(), to: NEW_TMP },
            proc,
        ]);
        steps.extend(rootfs.proc_masks.iter().map(ProcMask::step));
        steps.extend([
            Step::PivotTo(NEW),
            Step::Hostname(HOSTNAME),
            Step::BatchPolicy,
            Step::NewSession,
            Step::Report(ASSEMBLED),
        ]);
        steps
    }

    /// Makes the process. It is faaster-init when this comes back, and waits for the rest of its steps, or has ended.
    /// Gives the names of all its steps, by position.
    ///
    /// # Errors
    /// There is no process.
    pub(super) fn begin<'a>(
        &'a self,
        beginning: &Beginning<'a>,
        ends: &'a Ends,
        later: &mut Vec<Step<'a>>,
    ) -> Result<(Child, Vec<&'static str>), BirthError> {
        let mut doors = self.doors.0.borrow_mut();
        doors.lead_to(&ends.awaited, &ends.status_write)?;
        let begun = self.begin_behind(&doors, beginning, later);
        // Else the ends would never be closed for whoever has the other ones.
        doors.lead_to(&self.null, &self.null)?;
        begun
    }

    fn begin_behind<'a>(
        &'a self,
        doors: &Open,
        beginning: &Beginning<'a>,
        later: &mut Vec<Step<'a>>,
    ) -> Result<(Child, Vec<&'static str>), BirthError> {
        let Beginning { order, cgroup, network, fault } = *beginning;
        let null = self.null.as_fd();
        let placements: [(BorrowedFd<'_>, RawFd); 6] = [
            (null, 0),
            (null, 1),
            (null, 2),
            (doors.order.as_fd(), fd::ORDER),
            (doors.status.as_fd(), fd::STATUS),
            (self.init.as_fd(), fd::PROGRAM),
        ];
        let last = placements.iter().map(|(source, _)| source.as_raw_fd()).max().unwrap_or(0);
        let prepared = match order.entrance {
            Entrance::Init => &self.runtimes[order.runtime],
            Entrance::ForkServer { .. } => &self.adopter,
        };
        let mut steps = vec![Step::DieWithParent(self.own_pidfd.as_fd())];
        if matches!(order.entrance, Entrance::Init) {
            // Else it was born with the score: from below the host's user namespace it cannot be set.
            steps.push(Step::OomScore(OOM_SCORE));
        }
        steps.extend([
            Step::KeepCapabilities,
            Step::OwnTable { last },
            Step::PlaceFds(&placements),
            Step::Exec {
                program: fd::PROGRAM,
                arguments: &prepared.arguments,
                environment: &prepared.environment,
            },
        ]);
        if let Some(fault) = fault {
            fault.put_into(&mut steps, later, self.own_pidfd.as_fd());
        }
        let report = doors.status.as_fd();
        let child = match order.entrance {
            Entrance::Init => self.bear_here(network, cgroup, &steps, report)?,
            Entrance::ForkServer { within, first_uid } => {
                let id_map = format!("0 {first_uid} {UIDS_PER_SLOT}");
                let network = network.map(AsFd::as_fd);
                let between = Between { within, cgroup, joins: &[], network, id_map: id_map.as_bytes() };
                self.bear(&between, (Namespaces::UserAndPid, Memory::Shared), &steps, report)?
            }
        };
        Ok((child, steps.iter().chain(later.iter()).map(Step::name).collect()))
    }

    /// Makes a child of ours below our own user namespace, in a network namespace that is there already if there is one.
    fn bear_here(
        &self,
        network: Option<&OwnedFd>,
        cgroup: Option<BorrowedFd<'_>>,
        steps: &[Step<'_>],
        report: BorrowedFd<'_>,
    ) -> Result<Child, BirthError> {
        let birth = Birth { namespaces: Namespaces::UserAndPid, cgroup, steps, report };
        let Some(network) = network else { return birth.start_shared().map_err(BirthError::Clone) };
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(network.as_fd(), kind).map_err(BirthError::Clone)?;
        let child = birth.start_shared().map_err(BirthError::Clone);
        move_into_link_name_space(self.own_network.as_fd(), kind).map_err(BirthError::Lost)?;
        child
    }

    /// What init is told.
    pub(super) fn plan<'a>(
        &'a self,
        ends: &'a Ends,
        behind: usize,
        later: &[Step<'a>],
    ) -> Result<Plan<'a>, BirthError> {
        let kept = match &ends.adoption {
            None => vec![ends.runtime_channel.as_fd(), self.filters.as_fd(), ends.log_write.as_fd()],
            Some((adoption, _)) => vec![adoption.as_fd()],
        };
        Plan::new(behind, &kept, later).map_err(failed("the plan"))
    }
}

fn failed(what: &'static str) -> impl Fn(rustix::io::Errno) -> BirthError {
    move |source| BirthError::Descriptor { what, source }
}
