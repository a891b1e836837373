//! What containers see as their file system, and the funclet's own tiny mount namespace in which it is assembled.
//!
//! Owns: the layout. Must not know: when containers are made.
//!
//! The funclet's root holds nothing but `/root` (the tree that containers on the host's programs get a copy of),
//! `/roots/<n>` (other trees), `/runtimes/<n>`, `/code` (all packages: the kernel clones only what is mounted in one's
//! own namespace), `/proc` and the empty `/new`. A container copies that namespace, so it is kept small; and because its
//! copy belongs to a lesser user namespace, the kernel locks the read-only flags of what it copies. Everything is owned
//! by host root, which is outside of every container's user range: that is what stops writes for good.

mod etc;
mod imported;
pub(crate) mod proc;

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use faaster_function::RuntimeSpec;
use faaster_sys::mount::{self, Depth, Tmpfs};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags};

use proc::{ProcMask, ProcMount};

/// The tree of the host's programs, in the funclet's namespace.
const ROOT: &CStr = c"/root";
/// Where a container puts its root together.
pub(crate) const NEW: &CStr = c"/new";
/// Where code is attached, in a container's namespace.
pub(crate) const TASK: &CStr = c"/var/task";
/// Same of layers.
pub(crate) const OPT: &CStr = c"/opt";

/// Bytes and inodes of the tree's own files: directories, links and what is copied of /etc.
const TREE_BYTES: u64 = 24 * 1024 * 1024;
const TREE_INODES: u64 = 16_384;
/// Same of /dev and of the funclet's root.
const SMALL_BYTES: u64 = 256 * 1024;
const SMALL_INODES: u64 = 1024;

/// Directories of the host that are mounted, or, where the host has a link instead (merged /usr), linked.
const HOST_TREES: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Empty directories: mount points, and what programs expect to be there.
const DIRECTORIES: [&str; 14] = [
    "dev",
    "etc",
    "proc",
    "tmp",
    "sys",
    "run",
    "opt",
    "home",
    "root",
    "var",
    "var/task",
    "var/runtime",
    // Linkers and shells remember that a folder of their search path was not there when they started.
    "opt/bin",
    "opt/lib",
];
const LINKS: [(&str, &str); 2] = [("/tmp", "var/tmp"), ("/run", "var/run")];

/// Character devices of a container: name, major, minor (Documentation/admin-guide/devices.txt).
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// POSIX shared memory shares the size limit of /tmp, and spares each container a mount.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/tmp", "shm"),
];

/// The step of the assembly that failed.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    #[error("cannot get a mount namespace; this needs CAP_SYS_ADMIN")]
    Unshare(#[source] Errno),
    #[error("cannot make a tmpfs for {what}")]
    Tmpfs { what: &'static str, source: Errno },
    #[error("cannot attach {what}")]
    Attach { what: String, source: Errno },
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: Errno },
    #[error("cannot make {path} in a container's root")]
    Make { path: String, source: Errno },
    #[error("cannot make {path} a container's; is it on a file system that allows bind mounts?")]
    Clone { path: PathBuf, source: Errno },
    #[error("the root file system {path} belongs to user {owner}; only root's can be used")]
    Owner { path: PathBuf, owner: u32 },
    #[error(
        "the root file system {path} has no directory {name}, which every container needs: make it there"
    )]
    MountPoint { path: PathBuf, name: &'static str, source: Errno },
    #[error("cannot make the funclet's root the root")]
    Pivot(#[source] Errno),
}

/// What the funclet keeps of the assembly.
#[derive(Debug)]
pub(crate) struct Rootfs {
    /// The funclet's own mount namespace, to come back to.
    pub own_namespace: OwnedFd,
    /// `/root` or `/roots/<n>`, for each runtime.
    pub roots: Vec<std::ffi::CString>,
    /// `/runtimes/<n>` for each runtime.
    pub runtime_paths: Vec<std::ffi::CString>,
    pub proc_mount: ProcMount,
    pub proc_masks: Vec<ProcMask>,
    /// `/code`.
    pub code_dir: OwnedFd,
}

/// Moves the calling thread into a mount namespace of its own and assembles everything there. `run_dir` serves as mount
/// point; outside of the namespace nothing changes.
///
/// # Errors
/// The step that failed; the thread's namespace is then of no use.
pub(crate) fn assemble(
    run_dir: &Path,
    code_dir: &Path,
    runtimes: &[RuntimeSpec],
    resolv_conf: &str,
) -> Result<Rootfs, RootfsError> {
    mount::unshare_mounts().map_err(RootfsError::Unshare)?;
    let own_namespace = open("/proc/thread-self/ns/mnt", OFlags::RDONLY)?;
    let proc_mount =
        ProcMount::of(&std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default());
    let proc_masks = proc::masks(Path::new("/proc"));
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID;
    // Taken before anything is attached: what is attached may hide them.
    let code = host_tree(code_dir, read_only)?;
    let folders: Vec<OwnedFd> =
        runtimes.iter().map(|runtime| host_tree(&runtime.folder, read_only)).collect::<Result<_, _>>()?;
    let trees = imported::open_all(runtimes)?;
    let stage = tmpfs("the funclet's root", SMALL_BYTES, SMALL_INODES, MountAttrFlags::empty())?;
    attach_at(&stage, run_dir)?;
    let stage_root = open(run_dir, OFlags::PATH | OFlags::DIRECTORY)?;
    for name in ["root", "roots", "runtimes", "new", "proc", "code"] {
        make_dir(&stage_root, name)?;
    }
    attach_at(&host_tree(Path::new("/proc"), MountAttrFlags::empty())?, &run_dir.join("proc"))?;
    assemble_tree(&run_dir.join("root"), resolv_conf)?;
    attach_at(&code, &run_dir.join("code"))?;
    let code_dir = open(run_dir.join("code"), OFlags::PATH | OFlags::DIRECTORY)?;
    let mut runtime_paths = Vec::new();
    for (position, runtime) in folders.iter().enumerate() {
        let name = format!("runtimes/{position}");
        make_dir(&stage_root, &name)?;
        attach_at(runtime, &run_dir.join(&name))?;
        runtime_paths.push(std::ffi::CString::new(format!("/{name}")).expect("digits hold no zero byte"));
    }
    let roots = imported::attach_all(&trees, runtimes, &stage_root, run_dir)?;
    pivot(&stage_root).map_err(RootfsError::Pivot)?;
    Ok(Rootfs { own_namespace, roots, runtime_paths, proc_mount, proc_masks, code_dir })
}

fn pivot(root: &OwnedFd) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}

fn assemble_tree(at: &Path, resolv_conf: &str) -> Result<(), RootfsError> {
    let tree = tmpfs("containers' root", TREE_BYTES, TREE_INODES, MountAttrFlags::empty())?;
    attach_at(&tree, at)?;
    // Through the mount just attached, not the directory below it.
    let root = open(at, OFlags::PATH | OFlags::DIRECTORY)?;
    for name in DIRECTORIES {
        make_dir(&root, name)?;
    }
    for (target, name) in LINKS {
        make_link(&root, target, name)?;
    }
    etc::fill(&root, resolv_conf)?;
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID;
    for name in HOST_TREES {
        let host = Path::new("/").join(name);
        match rustix::fs::readlink(&host, Vec::new()) {
            Ok(target) => make_link(&root, target.as_c_str(), name)?,
            Err(Errno::INVAL) => {
                make_dir(&root, name)?;
                attach_at(&host_tree(&host, read_only)?, &at.join(name))?;
            }
            Err(_) => {}
        }
    }
    assemble_devices(&at.join("dev"))?;
    mount::set_attributes(&tree, read_only, Depth::One)
        .map_err(|source| RootfsError::Attach { what: "containers' root read-only".to_owned(), source })
}

fn assemble_devices(at: &Path) -> Result<(), RootfsError> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let devices = tmpfs("/dev", SMALL_BYTES, SMALL_INODES, attributes)?;
    attach_at(&devices, at)?;
    let root = open(at, OFlags::PATH | OFlags::DIRECTORY)?;
    for (name, major, minor) in DEVICES {
        make_device(&root, at, name, rustix::fs::makedev(major, minor))?;
    }
    for (target, name) in DEVICE_LINKS {
        make_link(&root, target, name)?;
    }
    mount::set_attributes(&devices, MountAttrFlags::MOUNT_ATTR_RDONLY, Depth::One)
        .map_err(|source| RootfsError::Attach { what: "/dev read-only".to_owned(), source })
}

fn make_device(root: &OwnedFd, at: &Path, name: &str, number: u64) -> Result<(), RootfsError> {
    let failed = |source| RootfsError::Make { path: format!("dev/{name}"), source };
    let mode = Mode::from_raw_mode(0o666);
    match rustix::fs::mknodat(root, name, FileType::CharacterDevice, mode, number) {
        Ok(()) => rustix::fs::chmodat(root, name, mode, rustix::fs::AtFlags::empty()).map_err(failed),
        // No CAP_MKNOD: the host's own node does as well.
        Err(Errno::PERM) => {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(root, name, flags, mode).map_err(failed)?;
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            attach_at(&host_tree(&Path::new("/dev").join(name), attributes)?, &at.join(name))
        }
        Err(errno) => Err(failed(errno)),
    }
}

/// A read-only view of one code package, to be attached to a container.
///
/// # Errors
/// As open_tree(2) and mount_setattr(2).
pub(crate) fn code_mount(folder: &OwnedFd) -> Result<OwnedFd, Errno> {
    let tree = mount::clone_tree(folder, c"", Depth::One)?;
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID;
    mount::set_attributes(&tree, read_only, Depth::One)?;
    Ok(tree)
}

fn host_tree(path: &Path, attributes: MountAttrFlags) -> Result<OwnedFd, RootfsError> {
    let failed = |source| RootfsError::Clone { path: path.to_owned(), source };
    let opened = open(path, OFlags::PATH)?;
    let tree = mount::clone_tree(&opened, c"", Depth::Tree).map_err(failed)?;
    if !attributes.is_empty() {
        mount::set_attributes(&tree, attributes, Depth::Tree).map_err(failed)?;
    }
    Ok(tree)
}

fn tmpfs(
    what: &'static str,
    bytes: u64,
    inodes: u64,
    attributes: MountAttrFlags,
) -> Result<OwnedFd, RootfsError> {
    match Tmpfs::new(bytes, inodes, c"0755", 0, attributes) {
        Ok(tmpfs) => Ok(tmpfs.mount),
        Err(source) => Err(RootfsError::Tmpfs { what, source }),
    }
}

fn attach_at(tree: &OwnedFd, path: &Path) -> Result<(), RootfsError> {
    let failed = |source| RootfsError::Attach { what: path.display().to_string(), source };
    let target =
        std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| failed(Errno::INVAL))?;
    mount::attach(tree, &target).map_err(failed)
}

fn open(path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd, RootfsError> {
    let path = path.as_ref();
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
        .map_err(|source| RootfsError::Open { path: path.to_owned(), source })
}

fn make_dir(root: impl AsFd, name: &str) -> Result<(), RootfsError> {
    rustix::fs::mkdirat(root, name, Mode::from_raw_mode(0o755))
        .map_err(|source| RootfsError::Make { path: name.to_owned(), source })
}

fn make_link(root: impl AsFd, target: impl rustix::path::Arg, name: &str) -> Result<(), RootfsError> {
    rustix::fs::symlinkat(target, root, name)
        .map_err(|source| RootfsError::Make { path: name.to_owned(), source })
}
