//! The runtimes that are part of the program (build.rs), and their unpacking at start.
//!
//! Owns: the table. Must not know: what a runtime is.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// One file of a runtime's folder.
pub(super) struct EmbeddedFile {
    /// Below `runtimes/`.
    pub(super) path: &'static str,
    pub(super) mode: u32,
    pub(super) content: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Writes all runtimes below `folder`, readable by all and writable by root alone.
///
/// # Errors
/// What the file system refused, and where.
pub(crate) fn unpack(folder: &Path) -> Result<(), (PathBuf, io::Error)> {
    for file in FILES {
        let path = folder.join(file.path);
        write(&path, file.content, file.mode).map_err(|error| (path, error))?;
    }
    Ok(())
}

/// Writes the program for process 1 of containers, which must have been built in ([`has_init`]); says where it is.
///
/// # Errors
/// What the file system refused, and where.
pub(crate) fn unpack_init(folder: &Path) -> Result<PathBuf, (PathBuf, io::Error)> {
    let path = folder.join("faaster-init");
    match write(&path, INIT.expect("asked before"), 0o755) {
        Ok(()) => Ok(path),
        Err(error) => Err((path, error)),
    }
}

/// Whether the program for process 1 of containers was built in.
pub(crate) fn has_init() -> bool {
    INIT.is_some()
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let parent = path.parent().expect("a file has a folder");
    DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(content)?;
    // The umask has no say in what containers must be able to read.
    fs::set_permissions(parent, Permissions::from_mode(0o755))?;
    file.set_permissions(Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_arrive_with_their_permissions() {
        let folder = tempfile::tempdir().unwrap();
        unpack(folder.path()).unwrap();
        assert!(!FILES.is_empty());
        for file in FILES {
            let path = folder.path().join(file.path);
            assert_eq!(fs::read(&path).unwrap(), file.content, "{}", file.path);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, file.mode, "{}", file.path);
        }
    }
}
