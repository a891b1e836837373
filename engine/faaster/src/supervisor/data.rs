//! The data directory of an engine that keeps nothing: made at its start, removed at its end.
//!
//! Owns: the marker by which such a directory is known; without it nothing is ever removed.
//! Must not know: what the engine stores in it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

const MARKER: &str = ".faaster-ephemeral";

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EphemeralError {
    #[error(
        "{0} holds something that is not a leftover of faaster --ephemeral: name a directory that is empty or does not exist"
    )]
    Foreign(PathBuf),
    #[error("cannot use {path} for data: {source}")]
    Directory { path: PathBuf, source: io::Error },
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
    pub(crate) fn create(path: &Path) -> Result<Self, EphemeralError> {
        let fail = |source| EphemeralError::Directory { path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Ok(found) => {
                let empty = found.is_dir() && fs::read_dir(path).map_err(fail)?.next().is_none();
                // The marker is made before the directory is given to the engine's user, and is root's.
                let ours = found.is_dir()
                    && fs::symlink_metadata(path.join(MARKER))
                        .is_ok_and(|marker| marker.is_file() && marker.uid() == 0);
                if !empty && !ours {
                    return Err(EphemeralError::Foreign(path.to_owned()));
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
    use super::*;

    #[test]
    fn a_foreign_directory_is_never_touched() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("precious"), "x").unwrap();
        assert!(matches!(EphemeralData::create(folder.path()), Err(EphemeralError::Foreign(_))));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert!(matches!(EphemeralData::create(&link), Err(EphemeralError::Foreign(_))));
        assert!(folder.path().join("precious").exists());
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
