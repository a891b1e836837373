//! The data directory: made and given to the engine's user, and where an engine keeps nothing, removed at its end.
//!
//! Owns: the directories, and the marker by which one is known that may be removed; without it nothing ever is.
//! Must not know: what the engine stores in it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, mkdirat, openat};
use rustix::io::Errno;

const MARKER: &str = ".faaster-ephemeral";

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
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
        "{0} holds something that is not a leftover of faaster --ephemeral: name a directory that is empty or does not exist"
    )]
    Foreign(PathBuf),
    #[error("cannot use {path} for data: {source}")]
    Directory { path: PathBuf, source: io::Error },
}

/// Where the packages of functions lie, below the data directory.
pub(crate) fn code_directory(data: &Path) -> PathBuf {
    data.join("code")
}

/// Makes the data directory and the one for code in it, both the engine's.
///
/// # Errors
/// It is another user's, or out of the engine's reach, or the file system refused.
pub(crate) fn give_to_engine(data: &Path, uid: u32, gid: u32) -> Result<(), DataError> {
    let fail = |source: io::Error| DataError::Directory { path: data.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o755).create(data).map_err(fail)?;
    let real = data.canonicalize().map_err(fail)?;
    // The engine may have put a link where a directory was: links are not followed, and all is done by descriptor.
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::open(&real, flags, Mode::empty()).map_err(|errno| fail(errno.into()))?;
    take_over(&top, data, Mode::RWXU, uid, gid)?;
    let code = code_directory(data);
    let fail_code = |errno: Errno| DataError::Directory { path: code.clone(), source: errno.into() };
    match mkdirat(&top, "code", Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(fail_code(errno)),
    }
    let inner = openat(&top, "code", flags, Mode::empty()).map_err(fail_code)?;
    take_over(&inner, &code, Mode::from_raw_mode(0o755), uid, gid)?;
    let closed = |folder: &&Path| {
        let found = fs::metadata(folder);
        found.is_ok_and(|found| found.uid() != uid && found.gid() != gid && found.mode() & 0o001 == 0)
    };
    match real.ancestors().skip(1).find(closed) {
        Some(closed) => Err(DataError::Closed { path: data.to_owned(), closed: closed.to_owned() }),
        None => Ok(()),
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

/// A data directory that is removed when dropped.
#[derive(Debug)]
pub(crate) struct EphemeralData {
    path: PathBuf,
}

impl EphemeralData {
    /// Makes the directory, empty; what an earlier engine of this kind left in it goes.
    ///
    /// # Errors
    /// The directory is somebody else's, or the file system refused.
    pub(crate) fn create(path: &Path) -> Result<Self, DataError> {
        let fail = |source| DataError::Directory { path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Ok(found) => {
                let empty = found.is_dir() && fs::read_dir(path).map_err(fail)?.next().is_none();
                // The marker is made before the directory is given to the engine's user, and is root's.
                let ours = found.is_dir()
                    && fs::symlink_metadata(path.join(MARKER))
                        .is_ok_and(|marker| marker.is_file() && marker.uid() == 0);
                if !empty && !ours {
                    return Err(DataError::Foreign(path.to_owned()));
                }
                fs::remove_dir_all(path).map_err(fail)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(fail)?;
        }
        // Not if it exists: somebody else may have made it meanwhile, where everybody can write.
        DirBuilder::new().mode(0o755).create(path).map_err(fail)?;
        let data = Self { path: path.to_owned() };
        fs::write(path.join(MARKER), "").map_err(fail)?;
        Ok(data)
    }
}

impl Drop for EphemeralData {
    fn drop(&mut self) {
        // Left behind only if the file system fails; the next start of the same kind tries again.
        drop(fs::remove_dir_all(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_foreign_directory_is_never_touched() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("precious"), "x").unwrap();
        assert!(matches!(EphemeralData::create(folder.path()), Err(DataError::Foreign(_))));
        let link = folder.path().join("link");
        symlink("/tmp", &link).unwrap();
        assert!(matches!(EphemeralData::create(&link), Err(DataError::Foreign(_))));
        assert!(folder.path().join("precious").exists());
    }

    #[test]
    fn the_engine_gets_what_is_roots_or_its_own_alone() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let data = folder.path().join("data");
        give_to_engine(&data, 64_901, 64_902).unwrap();
        give_to_engine(&data, 64_901, 64_902).unwrap();
        let found = fs::metadata(code_directory(&data)).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (64_901, 64_902, 0o755));
        assert!(matches!(give_to_engine(&data, 1234, 1234), Err(DataError::Owner { owner: 64_901, .. })));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let error = give_to_engine(&data, 64_901, 64_902).unwrap_err();
        assert!(matches!(&error, DataError::Closed { closed, .. } if closed == folder.path()), "{error}");
    }

    #[test]
    fn a_link_in_the_engines_directory_is_not_followed() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let (data, victim) = (folder.path().join("data"), folder.path().join("victim"));
        fs::create_dir(&victim).unwrap();
        fs::create_dir(&data).unwrap();
        symlink(&victim, code_directory(&data)).unwrap();
        assert!(matches!(give_to_engine(&data, 64_901, 64_901), Err(DataError::Directory { .. })));
        assert_eq!(fs::metadata(&victim).unwrap().uid(), 0);
    }

    #[test]
    fn a_leftover_is_emptied_and_the_end_removes_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        std::mem::forget(EphemeralData::create(&path).unwrap());
        if !rustix::process::geteuid().is_root() {
            return;
        }
        fs::write(path.join("left"), "x").unwrap();
        let data = EphemeralData::create(&path).unwrap();
        assert!(!path.join("left").exists());
        drop(data);
        assert!(!path.exists());
    }
}
