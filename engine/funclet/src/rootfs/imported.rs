//! Root file systems other than the host's programs: imported trees and directories that an operator names.
//!
//! Owns: the checks of a tree, and what is mounted over parts of it. Must not know: how a tree was made.
//! A tree lies in the data directory, which is the engine's: so no link on the way to it is followed, and it must be
//! root's, which nothing is that an engine could put there. Each tree costs every container three mounts.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use faaster_function::RuntimeSpec;
use faaster_sys::mount::{self, Depth};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::{ROOT, RootfsError, attach_at, make_dir};

/// Where something is attached in every container.
const MOUNT_POINTS: [&str; 5] = ["dev", "proc", "tmp", "var/task", "var/runtime"];
/// Of the host's tree: addresses of name servers are the machine's affair, not an image's.
const RESOLVER: &str = "etc/resolv.conf";

/// A tree, taken from where it lies.
#[derive(Debug)]
pub(super) struct ImportedTree {
    path: PathBuf,
    mount: OwnedFd,
    /// Whether there is a file that the resolver's can be mounted over.
    has_resolver: bool,
}

/// Takes every tree that a runtime names, each once.
pub(super) fn open_all(runtimes: &[RuntimeSpec]) -> Result<Vec<ImportedTree>, RootfsError> {
    let mut trees: Vec<ImportedTree> = Vec::new();
    for path in runtimes.iter().filter_map(|runtime| runtime.rootfs.as_ref()) {
        if !trees.iter().any(|tree| tree.path == *path) {
            trees.push(open_one(path)?);
        }
    }
    Ok(trees)
}

fn open_one(path: &Path) -> Result<ImportedTree, RootfsError> {
    let failed = |source| RootfsError::Open { path: path.to_owned(), source };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let strict = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let tree = rustix::fs::openat2(CWD, path, flags, Mode::empty(), strict).map_err(failed)?;
    let owner = rustix::fs::fstat(&tree).map_err(failed)?.st_uid;
    if owner != 0 {
        return Err(RootfsError::Owner { path: path.to_owned(), owner });
    }
    let within = strict | ResolveFlags::BENEATH;
    for name in MOUNT_POINTS {
        rustix::fs::openat2(&tree, name, flags, Mode::empty(), within)
            .map_err(|source| RootfsError::MountPoint { path: path.to_owned(), name, source })?;
    }
    let file = rustix::fs::openat2(&tree, RESOLVER, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), within);
    let has_resolver = file
        .and_then(rustix::fs::fstat)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    let cloned = |source| RootfsError::Clone { path: path.to_owned(), source };
    let mount = mount::clone_tree(&tree, c"", Depth::Tree).map_err(cloned)?;
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID;
    mount::set_attributes(&mount, read_only, Depth::Tree).map_err(cloned)?;
    Ok(ImportedTree { path: path.to_owned(), mount, has_resolver })
}

/// Attaches the trees below `run_dir`, with the devices and the resolver's file of the host's tree, which is there
/// already; says where each runtime's root will be once `run_dir` is the root.
pub(super) fn attach_all(
    trees: &[ImportedTree],
    runtimes: &[RuntimeSpec],
    stage: &OwnedFd,
    run_dir: &Path,
) -> Result<Vec<CString>, RootfsError> {
    for (position, tree) in trees.iter().enumerate() {
        let name = format!("roots/{position}");
        make_dir(stage, &name)?;
        let at = run_dir.join(&name);
        attach_at(&tree.mount, &at)?;
        attach_part(run_dir, "dev", &at)?;
        if tree.has_resolver && run_dir.join("root").join(RESOLVER).exists() {
            attach_part(run_dir, RESOLVER, &at)?;
        }
    }
    let root_of = |runtime: &RuntimeSpec| {
        let position = trees.iter().position(|tree| Some(&tree.path) == runtime.rootfs.as_ref());
        match position {
            Some(position) => CString::new(format!("/roots/{position}")).expect("digits hold no zero byte"),
            None => ROOT.to_owned(),
        }
    };
    Ok(runtimes.iter().map(root_of).collect())
}

/// Attaches a copy of a part of the host's tree at the same place of another.
fn attach_part(run_dir: &Path, part: &str, to: &Path) -> Result<(), RootfsError> {
    let from = run_dir.join("root").join(part);
    let failed = |source| RootfsError::Clone { path: from.clone(), source };
    let path = CString::new(from.as_os_str().as_encoded_bytes()).map_err(|_| failed(Errno::INVAL))?;
    attach_at(&mount::clone_tree(CWD, &path, Depth::Tree).map_err(failed)?, &to.join(part))
}
