//! The data directory: locked, given to the engine's user, and where an engine keeps nothing, removed at its end.
//!
//! Owns: the directories, the lock by which one engine at a time uses them, and the marker by which one is known that
//! may be removed; without it nothing ever is. Must not know: what the engine stores in it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    FlockOperation, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, flock, fstat, major, minor, mkdirat, openat,
};
use rustix::io::Errno;

const MARKER: &str = ".faaster-ephemeral";

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    #[error("another engine{} uses the data directory {path}: stop it, or name another directory with --data",
        .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    InUse { path: PathBuf, pid: Option<u32> },
    #[error(
        "the data directory {path} belongs to user {owner}, the engine runs as {uid}: name that user with --engine-uid, \
         or run `chown -R {uid} {path}`"
    )]
    Owner { path: PathBuf, owner: u32, uid: u32 },
    #[error(
        "the engine's user cannot reach the data directory {path}: {closed} is closed to others; choose another with \
         --data"
    )]
    Closed { path: PathBuf, closed: PathBuf },
    #[error(
        "{0} holds something that is not a leftover of faaster --ephemeral: name a directory that is empty or does not \
         exist"
    )]
    Foreign(PathBuf),
    #[error("cannot use {path} for data: {source}")]
    Directory { path: PathBuf, source: io::Error },
}

/// Whether the data outlasts the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Data,
    Nothing,
}

/// Where the packages of functions lie, below the data directory.
pub(crate) fn code_directory(data: &Path) -> PathBuf {
    data.join("code")
}

/// A data directory that no other engine uses until this is dropped.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    top: OwnedFd,
    keep: Keep,
}

impl DataDirectory {
    /// Makes the directory if it is not there, and locks it. With [`Keep::Nothing`] it is empty then, and removed in
    /// the end.
    ///
    /// # Errors
    /// It is in use, somebody else's, or the file system refused.
    pub(crate) fn lock(data: &Path, keep: Keep) -> Result<Self, DataError> {
        let fail = |source: io::Error| DataError::Directory { path: data.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(data).map_err(fail)?;
        let path = data.canonicalize().map_err(fail)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| fail(errno.into()))?;
        let pid = || fstat(&top).ok().and_then(|stat| holder(&stat));
        match flock(&top, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(DataError::InUse { path: data.to_owned(), pid: pid() }),
            Err(errno) => return Err(fail(errno.into())),
        }
        if keep == Keep::Nothing {
            empty(&path)?;
        }
        Ok(Self { path, top, keep })
    }

    /// Gives the directory and the one for code in it to the engine's user.
    ///
    /// # Errors
    /// It is another user's, or out of the engine's reach, or the file system refused.
    pub(crate) fn give_to_engine(&self, uid: u32, gid: u32) -> Result<(), DataError> {
        take_over(&self.top, &self.path, Mode::RWXU, uid, gid)?;
        let code = code_directory(&self.path);
        let fail = |errno: Errno| DataError::Directory { path: code.clone(), source: errno.into() };
        match mkdirat(&self.top, "code", Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(fail(errno)),
        }
        // The engine may have put a link where the directory was: it is not followed, and all is done by descriptor.
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inner = openat(&self.top, "code", flags, Mode::empty()).map_err(fail)?;
        take_over(&inner, &code, Mode::from_raw_mode(0o755), uid, gid)?;
        let closed = |folder: &&Path| {
            let found = fs::metadata(folder);
            found.is_ok_and(|found| found.uid() != uid && found.gid() != gid && found.mode() & 0o001 == 0)
        };
        match self.path.ancestors().skip(1).find(closed) {
            Some(closed) => Err(DataError::Closed { path: self.path.clone(), closed: closed.to_owned() }),
            None => Ok(()),
        }
    }
}

impl Drop for DataDirectory {
    fn drop(&mut self) {
        if self.keep == Keep::Nothing {
            // Left behind only if the file system fails; the next start of the same kind tries again.
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

fn take_over(directory: &OwnedFd, path: &Path, mode: Mode, uid: u32, gid: u32) -> Result<(), DataError> {
    let fail = |errno: Errno| DataError::Directory { path: path.to_owned(), source: errno.into() };
    let owner = fstat(directory).map_err(fail)?.st_uid;
    // Root's is taken over, because that is how somebody else makes a directory for a service.
    if owner != 0 && owner != uid {
        return Err(DataError::Owner { path: path.to_owned(), owner, uid });
    }
    fchown(directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(fail)?;
    fchmod(directory, mode).map_err(fail)
}

/// Empties a directory that is ours to empty, and marks it as such.
fn empty(path: &Path) -> Result<(), DataError> {
    let fail = |source| DataError::Directory { path: path.to_owned(), source };
    let entries: Vec<_> = fs::read_dir(path).and_then(Iterator::collect::<Result<_, _>>).map_err(fail)?;
    // The engine cannot make a file of root's, so the marker is ours if root owns it.
    let marked =
        fs::symlink_metadata(path.join(MARKER)).is_ok_and(|marker| marker.is_file() && marker.uid() == 0);
    if !entries.is_empty() && !marked {
        return Err(DataError::Foreign(path.to_owned()));
    }
    for entry in entries {
        let is_directory = entry.file_type().map_err(fail)?.is_dir();
        let removed =
            if is_directory { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        removed.map_err(fail)?;
    }
    fs::write(path.join(MARKER), "").map_err(fail)
}

/// Who holds a flock(2) on the file, from `/proc/locks`.
fn holder(stat: &Stat) -> Option<u32> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let file = format!("{:02x}:{:02x}:{}", major(stat.st_dev), minor(stat.st_dev), stat.st_ino);
    locks.lines().find_map(|line| locked_by(line, &file))
}

/// The process of a line of `/proc/locks` such as `1: FLOCK  ADVISORY  WRITE 3106 fe:00:131 0 EOF`.
fn locked_by(line: &str, file: &str) -> Option<u32> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let kind = fields.next()?;
    let (pid, inode) = (fields.nth(2)?, fields.next()?);
    (kind == "FLOCK" && inode == file).then(|| pid.parse().ok()).flatten().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests;
