//! One engine per instance name: a locked file in the run directory.
//!
//! Owns: `<run>/<instance>/lock`. The kernel drops the lock when the process ends, however it ends.
//! Must not know: what else lives in the directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

const NAME: &str = "lock";
/// A directory that vanishes between opening and locking is tried again this often.
const TRIES_MAX: usize = 16;

/// Why the instance is not ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error(
        "another engine runs as instance {instance} (pid {pid}); stop it, or give this one its own --data and --instance"
    )]
    Held { instance: String, pid: String },
    #[error("cannot use the run directory {path}: {source}")]
    Directory { path: PathBuf, source: io::Error },
}

/// The directory of a running instance; ours until dropped.
#[derive(Debug)]
pub(crate) struct InstanceDirectory {
    pub path: PathBuf,
    _lock: File,
}

impl InstanceDirectory {
    /// Makes and locks the directory.
    ///
    /// # Errors
    /// Who holds it, or what the file system refused.
    pub(crate) fn lock(run: &Path, instance: &str) -> Result<Self, LockError> {
        let path = run.join(instance);
        let fail = |source| LockError::Directory { path: path.clone(), source };
        for _ in 0..TRIES_MAX {
            DirBuilder::new().recursive(true).mode(0o755).create(&path).map_err(fail)?;
            let file = path.join(NAME);
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&file);
            let mut lock = match opened {
                Ok(lock) => lock,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(fail(error)),
            };
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    let mut pid = String::new();
                    let read = lock.read_to_string(&mut pid).map(|_| pid.trim().to_owned());
                    let pid = read.unwrap_or_else(|_| "unknown".to_owned());
                    return Err(LockError::Held { instance: instance.to_owned(), pid });
                }
                Err(errno) => return Err(fail(errno.into())),
            }
            // An engine that stopped meanwhile has removed the file that we have locked: then it is no lock at all.
            let ours = lock.metadata().map_err(fail)?.ino();
            if fs::metadata(&file).is_ok_and(|named| named.ino() == ours) {
                lock.set_len(0).and_then(|()| lock.rewind()).map_err(fail)?;
                writeln!(lock, "{}", std::process::id()).map_err(fail)?;
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(fail(io::Error::other("it is removed and made again all the time")))
    }

    /// Removes everything but the lock: what a killed engine left.
    ///
    /// # Errors
    /// What the file system refused.
    pub(crate) fn clear(&self) -> Result<(), LockError> {
        let fail = |source| LockError::Directory { path: self.path.clone(), source };
        for entry in fs::read_dir(&self.path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if entry.file_name() == NAME {
                continue;
            }
            let kind = entry.file_type().map_err(fail)?;
            if kind.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) }
                .map_err(fail)?;
        }
        Ok(())
    }

    /// Removes the directory, and the run directory above it if it is empty then.
    ///
    /// # Errors
    /// What the file system refused.
    pub(crate) fn remove(self) -> Result<(), LockError> {
        fs::remove_dir_all(&self.path)
            .map_err(|source| LockError::Directory { path: self.path.clone(), source })?;
        // Other instances may live there: then it is not empty and stays.
        if let Some(parent) = self.path.parent() {
            drop(fs::remove_dir(parent));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_nothing_left() {
        let run = tempfile::tempdir().unwrap();
        let top = run.path().join("faaster");
        let first = InstanceDirectory::lock(&top, "main").unwrap();
        let error = InstanceDirectory::lock(&top, "main").unwrap_err();
        assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
        let other = InstanceDirectory::lock(&top, "other").unwrap();
        fs::create_dir(first.path.join("left")).unwrap();
        fs::write(first.path.join("left/file"), "x").unwrap();
        first.clear().unwrap();
        assert_eq!(fs::read_dir(&first.path).unwrap().count(), 1);
        first.remove().unwrap();
        assert!(top.exists());
        other.remove().unwrap();
        assert!(!top.exists());
        InstanceDirectory::lock(&top, "main").unwrap();
    }

    #[test]
    fn a_lock_outlives_no_process() {
        let run = tempfile::tempdir().unwrap();
        drop(InstanceDirectory::lock(run.path(), "main").unwrap());
        InstanceDirectory::lock(run.path(), "main").unwrap();
    }
}
