//! From what was said about a runtime's root file system to a tree that is there.
//!
//! Owns: trees that are in use, until it is dropped: nobody can remove one meanwhile. Must not know: runtimes.

use std::path::{Path, PathBuf};

use faaster_image::{Held, ImageError, RootfsName, Store};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use super::RuntimesError;
use crate::config::{Root, Rootfs};

/// Finds trees, and keeps those that it has found.
#[derive(Debug)]
pub(crate) struct Roots<'a> {
    setting: &'a Rootfs,
    data: &'a Path,
    held: Vec<Held>,
}

impl<'a> Roots<'a> {
    /// Trees are looked for below this data directory.
    pub(crate) fn new(setting: &'a Rootfs, data: &'a Path) -> Self {
        Self { setting, data, held: Vec::new() }
    }

    /// The tree of a runtime, of which `own` is what its `runtime.toml` says; `None` for the host's programs.
    ///
    /// # Errors
    /// There is no such tree.
    pub(super) fn tree(
        &mut self,
        runtime: &str,
        own: Option<&Root>,
    ) -> Result<Option<PathBuf>, RuntimesError> {
        let root = self.setting.of(runtime, own);
        let fail = |reason: String| RuntimesError::Rootfs { runtime: runtime.to_owned(), reason };
        match root {
            Root::Host => Ok(None),
            // The funclet follows no link on the way to a tree.
            Root::Directory(path) => match path.canonicalize() {
                Ok(path) if path.is_dir() => Ok(Some(path)),
                Ok(_) => Err(fail(format!("{} is not a directory", path.display()))),
                Err(error) => Err(fail(format!("{}: {error}", path.display()))),
            },
            Root::Named(name) => {
                let name = RootfsName::parse(name).map_err(|error| fail(error.to_string()))?;
                let data = self.data.canonicalize().unwrap_or_else(|_| self.data.to_owned());
                let missing = || ImageError::Missing(name.as_str().to_owned());
                let held = Store::existing(&data)
                    .and_then(|store| store.ok_or_else(missing))
                    .and_then(|store| store.hold(&name))
                    .map_err(|error| fail(error.to_string()))?;
                let path = held.path.clone();
                self.held.push(held);
                Ok(Some(path))
            }
        }
    }

    pub(super) fn setting(&self) -> &Rootfs {
        self.setting
    }

    /// What must be kept as long as the trees are in use.
    pub(crate) fn into_held(self) -> Vec<Held> {
        self.held
    }
}

/// Whether a runtime's root has a file of this path, links followed within that root alone.
pub(super) fn has_file(tree: Option<&Path>, path: &Path) -> bool {
    let Some(tree) = tree else { return path.is_file() };
    let folder = rustix::fs::open(tree, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    folder
        .and_then(|tree| rustix::fs::openat2(tree, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how))
        .and_then(rustix::fs::fstat)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_looked_for_in_the_tree_and_not_on_the_host() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tree.path().join("usr/bin")).unwrap();
        std::fs::write(tree.path().join("usr/bin/tool"), "").unwrap();
        std::os::unix::fs::symlink("/usr/bin", tree.path().join("bin")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", tree.path().join("usr/bin/sh")).unwrap();
        for (path, expected) in
            [("/usr/bin/tool", true), ("/bin/tool", true), ("/bin/sh", false), ("/usr/bin", false)]
        {
            assert_eq!(has_file(Some(tree.path()), Path::new(path)), expected, "{path}");
        }
        assert!(has_file(None, Path::new("/bin/sh")));
    }
}
