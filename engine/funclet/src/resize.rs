//! Another memory for a container that runs.
//!
//! Owns: the order of the steps, and when it is not done. Must not know: why a function's memory was edited.
//!
//! A container that uses more than the new limit, page cache included, keeps the old one: the kernel would have to
//! reclaim first, which keeps this thread for tens of milliseconds, and then refuse (v1) or kill (v2). The engine ends it
//! when it has finished what it runs, and the next one begins with the new limit.

use faaster_protocol::funclet::{Event, Generation, Size, SlotId};
use faaster_sys::mount;
use rustix::io::Errno;

use crate::cgroup::{CgroupError, CpuShare, Limits};
use crate::channel::ChannelId;
use crate::claims;
use crate::container::State;
use crate::funclet::Funclet;
use crate::ledger::{Answer, share_bytes};
use crate::notice::{notice, with_causes};

/// Why a container keeps its limits.
#[derive(Debug, thiserror::Error)]
enum ResizeError {
    #[error("it uses {used} bytes and would be allowed {wanted}")]
    InUse { used: u64, wanted: u64 },
    #[error("the node has no memory left for it")]
    Short,
    #[error("cannot change the size of its /tmp")]
    Tmp(#[source] Errno),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

impl Funclet {
    /// Gives a container other limits, or says that it keeps those that it has.
    pub(crate) fn on_resize(&mut self, channel: ChannelId, slot: SlotId, generation: Generation, size: Size) {
        let lease = self.slots.peek(slot, generation).and_then(|container| container.lease);
        let is_leased = lease.is_some_and(|lease| lease.channel == channel);
        if !is_leased || !claims::is_size_within_bounds(size) {
            self.counters.ignored += 1;
            return;
        }
        match self.resize(slot, generation, size) {
            Ok(()) => {}
            Err(error) => {
                // The first two are nobody's fault and happen to every edited instance of a busy function.
                if !matches!(error, ResizeError::InUse { .. } | ResizeError::Short) {
                    notice(&self.config, &format!("a container keeps its limits: {}", with_causes(&error)));
                }
                self.tell(channel, &Event::NotResized { slot, generation });
            }
        }
    }

    fn resize(&mut self, id: SlotId, generation: Generation, size: Size) -> Result<(), ResizeError> {
        let container = self.slots.peek(id, generation).expect("it has a lease");
        if !matches!(container.state, State::Warm | State::Frozen) {
            // Its end is on its way.
            return Ok(());
        }
        let lease = container.lease.expect("looked at by the caller");
        let wanted = u64::from(size.memory_mb) << 20;
        let used = self.cgroups.usage(&container.group).memory_bytes;
        if used > wanted {
            return Err(ResizeError::InUse { used, wanted });
        }
        let (before, after) = (share_bytes(lease.claim.memory_mb), share_bytes(size.memory_mb));
        if self.ledger.exchange(before, after) != Answer::Marked {
            return Err(ResizeError::Short);
        }
        let limits = Limits {
            memory_bytes: wanted,
            pids: lease.claim.pids_max,
            cpu: CpuShare::OfMemoryMb(size.memory_mb),
        };
        if let Err(error) = self.write_size(id, generation, &limits, size) {
            let returned = self.ledger.exchange(after, before);
            assert_eq!(returned, Answer::Marked, "what a container had a moment ago is still there for it");
            return Err(error);
        }
        let container = self.slots.live(id, generation).expect("looked at above");
        let lease = container.lease.as_mut().expect("looked at above");
        lease.claim.memory_mb = size.memory_mb;
        lease.claim.tmp_mb = size.tmp_mb;
        lease.claim.function_tag = size.function_tag;
        self.memory_returned = after < before;
        Ok(())
    }

    fn write_size(
        &self,
        id: SlotId,
        generation: Generation,
        limits: &Limits,
        size: Size,
    ) -> Result<(), ResizeError> {
        let container = self.slots.peek(id, generation).expect("looked at by the caller");
        // EINVAL where it holds more than the new size.
        let context = self.nursery.tmp_context(container.pid).map_err(ResizeError::Tmp)?;
        mount::resize_tmpfs(&context, u64::from(size.tmp_mb) << 20).map_err(ResizeError::Tmp)?;
        let mut files = self.cgroups.open_limits(&container.group)?;
        self.cgroups.write_limits(&mut files, limits)?;
        Ok(())
    }
}
