//! One run of the engine: its id, its directory below the run directory, and the lock that says that it lives.
//!
//! Owns: `<run>/<id>/` and the file `lock` in it. The kernel drops the lock when the process ends, however it ends;
//! by that the next start knows whose leftovers it may sweep ([`faaster_funclet::sweep`]).
//! Must not know: what else lives in the directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use faaster_funclet::InstanceId;
use faaster_funclet::sweep::LOCK_FILE;
use rustix::fs::{FlockOperation, flock};
use rustix::rand::{GetRandomFlags, getrandom};

/// Why there is no directory for this run.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the run directory {path}: {source}")]
pub(crate) struct InstanceError {
    path: PathBuf,
    source: io::Error,
}

/// A run; it counts as dead once this is dropped.
#[derive(Debug)]
pub(crate) struct Instance {
    pub id: InstanceId,
    pub directory: PathBuf,
    _lock: File,
}

impl Instance {
    /// Makes the directory of a new run below `run`.
    ///
    /// # Errors
    /// What the file system refused.
    pub(crate) fn create(run: &Path) -> Result<Self, InstanceError> {
        let id = random_id();
        let directory = run.join(id.as_str());
        let fail = |source| InstanceError { path: directory.clone(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(run).map_err(fail)?;
        DirBuilder::new().mode(0o755).create(&directory).map_err(fail)?;
        // Under another name until it is locked: a lock file that nobody holds means that the run is dead.
        let unready = directory.join("lock-unready");
        let lock =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unready).map_err(fail)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| fail(errno.into()))?;
        fs::rename(&unready, directory.join(LOCK_FILE)).map_err(fail)?;
        Ok(Self { id, directory, _lock: lock })
    }
}

/// Two runs on one machine have the same id once in four thousand million.
fn random_id() -> InstanceId {
    let mut bytes = [0; 4];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty());
    assert_eq!(filled, Ok(bytes.len()), "a few random bytes are always there once the system is up");
    InstanceId::try_from(format!("{:08x}", u32::from_ne_bytes(bytes))).expect("eight hex digits")
}

/// Removes the run directory if no run is in it any more.
pub(crate) fn remove_if_empty(run: &Path) {
    // Other runs may live there: then it is not empty and stays.
    fs::remove_dir(run).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_alive_until_it_is_dropped() {
        let home = tempfile::tempdir().unwrap();
        let run = home.path().join("run");
        let (first, second) = (Instance::create(&run).unwrap(), Instance::create(&run).unwrap());
        assert_ne!(first.id, second.id);
        let is_free = |instance: &Path| {
            let lock = File::open(instance.join(LOCK_FILE)).unwrap();
            flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
        };
        let directory = first.directory.clone();
        assert!(!is_free(&directory));
        drop(first);
        assert!(is_free(&directory));
        assert!(!is_free(&second.directory));
        remove_if_empty(&run);
        assert!(run.exists());
    }
}
