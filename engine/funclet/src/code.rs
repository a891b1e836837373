//! Code packages by hash: opening one without trusting its name, its path or its owner.
//!
//! Owns: the checks. Must not know: who asked.

use std::os::fd::OwnedFd;

use faaster_protocol::funclet::CodeHash;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Why a code tree is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodeError {
    #[error("cannot open the code directory")]
    Open(#[source] Errno),
    #[error("the code directory belongs to user {0}, not to the engine's")]
    Owner(u32),
}

impl CodeError {
    /// The kernel's reason.
    pub(crate) fn errno(self) -> Errno {
        match self {
            Self::Open(errno) => errno,
            Self::Owner(_) => Errno::PERM,
        }
    }
}

/// Opens `<code>/` below `root`; never follows a link, never leaves `root` or its file system.
///
/// # Errors
/// ENOENT when there is no such package; see [`CodeError`].
pub(crate) fn open(root: &OwnedFd, code: CodeHash, owner: u32) -> Result<OwnedFd, CodeError> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat2(root, code.to_string(), flags, Mode::empty(), resolve)
        .map_err(CodeError::Open)?;
    let found = rustix::fs::fstat(&folder).map_err(CodeError::Open)?.st_uid;
    if found == owner { Ok(folder) } else { Err(CodeError::Owner(found)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn only_the_engines_own_directories_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let root: OwnedFd = std::fs::File::open(folder.path()).unwrap().into();
        let me = std::fs::metadata(folder.path()).unwrap().uid();
        let (real, link, file) = (CodeHash([1; 32]), CodeHash([2; 32]), CodeHash([3; 32]));
        std::fs::create_dir(folder.path().join(real.to_string())).unwrap();
        std::os::unix::fs::symlink(real.to_string(), folder.path().join(link.to_string())).unwrap();
        std::fs::write(folder.path().join(file.to_string()), "").unwrap();
        assert!(open(&root, real, me).is_ok());
        assert_eq!(open(&root, real, me + 1).unwrap_err(), CodeError::Owner(me));
        assert_eq!(open(&root, link, me).unwrap_err(), CodeError::Open(Errno::LOOP));
        assert_eq!(open(&root, file, me).unwrap_err(), CodeError::Open(Errno::NOTDIR));
        assert_eq!(open(&root, CodeHash([9; 32]), me).unwrap_err(), CodeError::Open(Errno::NOENT));
    }
}
