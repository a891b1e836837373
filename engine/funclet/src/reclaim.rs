//! Memory of frozen containers, moved to the host's swap.
//!
//! Owns: a thread of its own, for the kernel takes as long as it takes. Must not know: why a container is frozen.
//! Containers do not swap while they run (`memory.swap.max` 0). A frozen one may for as long as this takes: what it had
//! comes back page by page once it runs again. Without swap there is nothing to gain: file pages are the host's and
//! shared, and /tmp is memory, too (docs/decisions.md has the numbers).

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};

use faaster_limits::{RECLAIM_CHUNK_BYTES, SLOTS_MAX};
use faaster_protocol::funclet::{Generation, SlotId};

/// Files of a group, opened for this.
#[derive(Debug)]
pub(crate) struct ReclaimFiles {
    /// `memory.reclaim` of cgroup v2.
    pub(crate) reclaim: OwnedFd,
    /// `memory.swap.max`.
    pub(crate) swap: OwnedFd,
    /// What the group uses now.
    pub(crate) used_bytes: u64,
}

struct Order {
    files: ReclaimFiles,
    /// Taken back when the container is to run again, or has ended.
    wanted: Arc<AtomicBool>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Reclaimer {
    orders: SyncSender<Order>,
    under_way: Vec<(SlotId, Generation, Weak<AtomicBool>)>,
}

impl Reclaimer {
    /// `None` where the host has no swap, or no thread for it.
    pub(crate) fn start() -> Option<Self> {
        let about = std::fs::read_to_string("/proc/meminfo").ok()?;
        if swap_total_kb(&about) == 0 {
            return None;
        }
        let (orders, incoming) = sync_channel(SLOTS_MAX);
        std::thread::Builder::new().name("reclaim".to_owned()).spawn(move || serve(&incoming)).ok()?;
        Some(Self { orders, under_way: Vec::new() })
    }

    /// A container was frozen.
    pub(crate) fn begin(&mut self, id: SlotId, generation: Generation, files: ReclaimFiles) {
        self.under_way.retain(|(_, _, wanted)| wanted.strong_count() > 0);
        let wanted = Arc::new(AtomicBool::new(true));
        let entry = (id, generation, Arc::downgrade(&wanted));
        // With more orders than slots some are of containers that are gone: this one keeps its memory.
        if self.orders.try_send(Order { files, wanted }).is_ok() {
            self.under_way.push(entry);
        }
    }

    /// It is to run again: what was not moved stays.
    pub(crate) fn stop(&mut self, id: SlotId, generation: Generation) {
        for (_, _, wanted) in self.under_way.iter().filter(|entry| (entry.0, entry.1) == (id, generation)) {
            if let Some(wanted) = wanted.upgrade() {
                wanted.store(false, Ordering::Relaxed);
            }
        }
    }
}

/// Until the funclet's end of the channel is gone.
fn serve(orders: &Receiver<Order>) {
    while let Ok(Order { files, wanted }) = orders.recv() {
        carry_out(&files, &wanted);
    }
}

/// In portions: one that has begun keeps its group from being removed until the kernel has done it.
fn carry_out(files: &ReclaimFiles, wanted: &AtomicBool) {
    let write = |file: &OwnedFd, text: &str| rustix::io::pwrite(file, text.as_bytes(), 0);
    if !wanted.load(Ordering::Relaxed) || write(&files.swap, "max").is_err() {
        return;
    }
    let chunk = RECLAIM_CHUNK_BYTES.to_string();
    for _ in 0..files.used_bytes.div_ceil(RECLAIM_CHUNK_BYTES) {
        // EAGAIN: less was found than asked for; there is no more.
        if !wanted.load(Ordering::Relaxed) || write(&files.reclaim, &chunk).is_err() {
            break;
        }
    }
    // A group that was removed meanwhile swaps no more either.
    write(&files.swap, "0").ok();
}

fn swap_total_kb(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("SwapTotal:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::path::Path;

    fn files(folder: &Path, used_bytes: u64) -> ReclaimFiles {
        let open = |name: &str| OwnedFd::from(File::create(folder.join(name)).unwrap());
        ReclaimFiles { reclaim: open("reclaim"), swap: open("swap"), used_bytes }
    }

    #[test]
    fn a_container_may_swap_for_this_alone_and_not_at_all_once_it_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let said = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        carry_out(&files(folder.path(), 3), &AtomicBool::new(false));
        assert_eq!((said("swap"), said("reclaim")), (String::new(), String::new()));
        carry_out(&files(folder.path(), 3), &AtomicBool::new(true));
        // The last write was one byte at the start.
        assert_eq!((&said("swap")[..1], said("reclaim")), ("0", RECLAIM_CHUNK_BYTES.to_string()));
    }

    #[test]
    fn orders_are_taken_back_by_slot_and_life() {
        let (orders, incoming) = sync_channel(4);
        let mut reclaimer = Reclaimer { orders, under_way: Vec::new() };
        let folder = tempfile::tempdir().unwrap();
        let (slot, life) = (SlotId(1), Generation(1));
        reclaimer.begin(slot, life, files(folder.path(), 1));
        reclaimer.begin(SlotId(2), life, files(folder.path(), 1));
        reclaimer.stop(slot, Generation(2));
        let first = incoming.recv().unwrap();
        assert!(first.wanted.load(Ordering::Relaxed));
        reclaimer.stop(slot, life);
        assert!(!first.wanted.load(Ordering::Relaxed));
        drop(first);
        assert!(incoming.recv().unwrap().wanted.load(Ordering::Relaxed));
        reclaimer.begin(slot, life, files(folder.path(), 1));
        assert_eq!(reclaimer.under_way.len(), 1, "what is done is forgotten");
    }

    #[test]
    fn swap_is_found() {
        assert_eq!(swap_total_kb("MemTotal: 1 kB\nSwapTotal:      262140 kB\nSwapFree: 7 kB\n"), 262_140);
        assert_eq!((swap_total_kb("SwapTotal: 0 kB\n"), swap_total_kb("")), (0, 0));
    }
}
