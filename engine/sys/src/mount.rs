//! Mount calls that rustix does not have, and the mount namespace of a process.
//!
//! Owns: nothing. Must not know: what a container's root looks like.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags,
};
use rustix::thread::UnshareFlags;

/// Whether a change or a copy covers the mounts below as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    One,
    Tree,
}

/// `struct mount_attr` of include/uapi/linux/mount.h, first version.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Gives the calling thread a mount namespace of its own that neither sends nor receives mount events.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn unshare_mounts() -> Result<(), Errno> {
    // SAFETY: the one condition is about CLONE_FILES, which is not in the flags: descriptor tables stay as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

/// mount_setattr(2) on the mount that `mount` refers to: adds attributes.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN, EINVAL for a descriptor that is no mount.
pub fn set_attributes(mount: impl AsFd, add: MountAttrFlags, depth: Depth) -> Result<(), Errno> {
    let attr = MountAttr { set: u64::from(add.bits()), clear: 0, propagation: 0, userns_fd: 0 };
    let flags = match depth {
        Depth::One => libc::AT_EMPTY_PATH,
        Depth::Tree => libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
    };
    // SAFETY: the path is an empty C string, `attr` outlives the call and its true size is passed; the kernel only
    // reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    crate::errno::check(result).map(drop)
}

/// A detached copy of the mount that `path` under `at` lies on, beginning at `path`.
///
/// # Errors
/// open_tree(2)'s.
pub fn clone_tree(at: impl AsFd, path: &CStr, depth: Depth) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if depth == Depth::Tree {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(at, path, flags)
}

/// Attaches a detached mount at `path` of the calling thread's mount namespace.
///
/// # Errors
/// move_mount(2)'s: EINVAL on 6.1 when `path` itself is in a detached tree.
pub fn attach(mount: impl AsFd, path: &CStr) -> Result<(), Errno> {
    rustix::mount::move_mount(mount.as_fd(), c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// A new tmpfs, not attached anywhere yet.
#[derive(Debug)]
pub struct Tmpfs {
    /// The mount; give it to [`attach`].
    pub mount: OwnedFd,
    /// The file system's configuration, for [`Tmpfs::resize`].
    pub context: OwnedFd,
}

impl Tmpfs {
    /// Makes one of `size_bytes` and `inodes`, its root owned by `owner` with the given mode (octal digits).
    ///
    /// # Errors
    /// The errno of the first step that failed.
    pub fn new(
        size_bytes: u64,
        inodes: u64,
        mode: &CStr,
        owner: u32,
        attributes: MountAttrFlags,
    ) -> Result<Self, Errno> {
        let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        set_number(&context, c"size", size_bytes)?;
        set_number(&context, c"nr_inodes", inodes)?;
        rustix::mount::fsconfig_set_string(&context, c"mode", mode)?;
        set_number(&context, c"uid", u64::from(owner))?;
        set_number(&context, c"gid", u64::from(owner))?;
        rustix::mount::fsconfig_create(&context)?;
        let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        Ok(Self { mount, context })
    }
}

/// The configuration of the file system whose mount `root` is the root of, as [`Tmpfs::context`] is.
///
/// # Errors
/// EINVAL when `root` is no mount's root.
pub fn context_of(root: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    rustix::mount::fspick(root, c"", flags)
}

/// Changes the size of a mounted tmpfs through the descriptor that [`Tmpfs::context`] was.
///
/// # Errors
/// EINVAL when more than the new size is in use.
pub fn resize_tmpfs(context: impl AsFd, size_bytes: u64) -> Result<(), Errno> {
    set_number(context.as_fd(), c"size", size_bytes)?;
    rustix::mount::fsconfig_reconfigure(context)
}

fn set_number(context: impl AsFd, key: &CStr, value: u64) -> Result<(), Errno> {
    let value = CString::new(value.to_string()).expect("digits hold no zero byte");
    rustix::mount::fsconfig_set_string(context, key, value.as_c_str())
}
