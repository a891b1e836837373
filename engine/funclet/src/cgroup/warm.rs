//! Keeps the way into cgroups warm while containers are asked for that a fork server's children have to enter.
//!
//! Owns: a thread, and when it works. Must not know: who enters which group.
//!
//! A process gets into a group of the v2 hierarchy, unless it is born there, by a write to `cgroup.procs`. That takes a
//! lock against all forks of the machine. When nobody has taken it for a while, the kernel has made it cheap for those
//! that fork, and whoever takes it next waits for an RCU grace period, 10 to 20 ms (include/linux/rcu_sync.h). A write
//! every few milliseconds keeps it from that. The thread moves this process to where it is.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use faaster_limits::{GROUPS_WARM_FOR, GROUPS_WARM_INTERVAL};

use super::Machine;
use super::files::Base;
use super::mountinfo::own_v2_path;
use crate::timers::Nanos;

/// See the module.
#[derive(Debug)]
pub(crate) struct Warmth {
    /// When it may end.
    until: Arc<AtomicU64>,
    thread: std::thread::Thread,
}

/// The group that this process is in.
#[derive(Debug)]
struct Own {
    path: String,
    procs: OwnedFd,
}

impl Warmth {
    /// Starts the thread, in the mount namespace that this one is in. `None` where there is no v2 hierarchy, or where
    /// this process may not write to its group.
    pub(crate) fn start() -> Option<Self> {
        let mut own = Own::find()?;
        let until = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&until);
        let work = move || {
            while own.touch_until(&told).is_some() {
                std::thread::park();
            }
        };
        let thread = std::thread::Builder::new().name("groups".to_owned()).spawn(work).ok()?;
        Some(Self { until, thread: thread.thread().clone() })
    }

    /// Somebody is about to need it, and others may soon.
    pub(crate) fn keep(&self, now: Nanos) {
        let before = Nanos(self.until.swap(now.after(GROUPS_WARM_FOR).0, Ordering::AcqRel));
        if before <= now {
            self.thread.unpark();
        }
    }
}

impl Own {
    fn find() -> Option<Self> {
        let path = current_path()?;
        let machine = Machine::read().ok()?;
        let base = Base::open(machine.v2_base()?, &path).ok()?;
        let procs = base.open_for_write("cgroup.procs").ok()?;
        Some(Self { path, procs })
    }

    /// Writes until nobody wants that any more. `None`: it can no longer be done.
    fn touch_until(&mut self, until: &AtomicU64) -> Option<()> {
        while Nanos::now() < Nanos(until.load(Ordering::Acquire)) {
            // Somebody may have moved us, and is not to find us back where we were.
            if current_path()? != self.path {
                *self = Self::find()?;
            }
            rustix::io::write(&self.procs, b"0").ok()?;
            std::thread::park_timeout(GROUPS_WARM_INTERVAL);
        }
        Some(())
    }
}

fn current_path() -> Option<String> {
    own_v2_path(&std::fs::read_to_string("/proc/self/cgroup").ok()?).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_writes_while_it_is_wanted_and_leaves_the_process_where_it_is() {
        let Some(mut own) = Own::find() else {
            eprintln!("skipped: no v2 hierarchy, or a group that is not ours to write to");
            return;
        };
        let before = current_path();
        let now = Nanos::now();
        let until = AtomicU64::new(now.after(3 * GROUPS_WARM_INTERVAL).0);
        assert_eq!(own.touch_until(&until), Some(()));
        assert!(Nanos::now().since(now) >= 3 * GROUPS_WARM_INTERVAL);
        assert_eq!(current_path(), before);
    }

    #[test]
    fn a_group_that_is_no_longer_its_own_is_not_written_to() {
        let Some(own) = Own::find() else { return };
        let (read, write) = rustix::pipe::pipe().unwrap();
        rustix::io::ioctl_fionbio(&read, true).unwrap();
        let mut moved = Own { path: "/elsewhere".to_owned(), procs: write };
        assert_eq!(moved.touch_until(&AtomicU64::new(Nanos::now().after(GROUPS_WARM_INTERVAL).0)), Some(()));
        assert_eq!(moved.path, own.path);
        let mut byte = [0; 1];
        assert_ne!(rustix::io::read(&read, &mut byte), Ok(1));
    }
}
