//! Small reads and writes in a cgroup directory.
//!
//! Owns: descriptors of directories, so that it does not matter what is mounted where later on.
//! Must not know: which file means what.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::mountinfo::{Access, Mounted, Version};
use super::{CgroupError, Removal, Running};

/// Bytes that a cgroup file which is read whole may have: thread lists are the longest.
const FILE_BYTES_MAX: usize = 256 * 1024;

/// A directory in a hierarchy in which our top groups lie.
#[derive(Debug)]
pub(crate) struct Base {
    pub(super) dir: OwnedFd,
    /// For messages.
    pub(super) label: String,
}

impl Base {
    /// Opens the place in a hierarchy where groups may be made: the root of its mount; or, where that is read-only (as
    /// in a Docker container), this process's own place in a fresh mount of it, which is writable.
    pub(super) fn open(mounted: &Mounted, own_path: &str) -> Result<Self, CgroupError> {
        let label = mounted.mount_point.display().to_string();
        let failed = |source| CgroupError::Open { path: label.clone(), source };
        let dir = match mounted.access {
            Access::ReadWrite => open_dir(rustix::fs::CWD, &mounted.mount_point).map_err(failed)?,
            Access::ReadOnly => {
                let root = mount_again(&mounted.version).map_err(failed)?;
                let inside = own_path.trim_start_matches('/');
                if inside.is_empty() { root } else { open_dir(&root, inside).map_err(failed)? }
            }
        };
        Ok(Self { dir, label })
    }

    /// A directory below this one.
    pub(super) fn below(&self, path: &str) -> Result<Self, CgroupError> {
        let label = format!("{}/{path}", self.label);
        match open_dir(&self.dir, path) {
            Ok(dir) => Ok(Self { dir, label }),
            Err(source) => Err(CgroupError::Open { path: label, source }),
        }
    }

    /// Makes a group and opens it. One that is there already is an error: it may be somebody's.
    pub(super) fn make(&self, name: &str) -> Result<Self, CgroupError> {
        match rustix::fs::mkdirat(&self.dir, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => self.below(name),
            Err(source) => {
                Err(CgroupError::Create { group: name.to_owned(), hierarchy: self.label.clone(), source })
            }
        }
    }

    /// Opens a group, making it if it is not there.
    pub(super) fn make_or_open(&self, name: &str) -> Result<Self, CgroupError> {
        match self.make(name) {
            Err(CgroupError::Create { source: Errno::EXIST, .. }) => self.below(name),
            result => result,
        }
    }

    /// Whether there is a group of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Removes a group; one that is not there is gone.
    pub(crate) fn remove(&self, name: &str) -> Result<Removal, CgroupError> {
        match rustix::fs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(Removal::Gone),
            Err(Errno::BUSY) => Ok(Removal::Busy),
            Err(source) => {
                Err(CgroupError::Remove { group: name.to_owned(), hierarchy: self.label.clone(), source })
            }
        }
    }

    /// A file to be read again and again by somebody else; none where the kernel has no such file.
    pub(super) fn open_for_read(&self, path: &str) -> Option<OwnedFd> {
        rustix::fs::openat(&self.dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
    }

    pub(super) fn open_for_write(&self, file: &'static str) -> Result<OwnedFd, CgroupError> {
        rustix::fs::openat(&self.dir, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|source| CgroupError::File { file, source })
    }

    /// Stops all processes of a group and of those below it, until they are killed; new ones too.
    ///
    /// # Errors
    /// ENOENT where there is no v2 core.
    pub(crate) fn freeze(&self, name: &str) -> Result<(), Errno> {
        self.write_at(&format!("{name}/cgroup.freeze"), "1")
    }

    /// The way back from [`Self::freeze`].
    ///
    /// # Errors
    /// ENOENT where there is no v2 core.
    pub(crate) fn continue_all(&self, name: &str) -> Result<(), Errno> {
        self.write_at(&format!("{name}/cgroup.freeze"), "0")
    }

    /// [`Self::freeze`], or the way back.
    pub(super) fn set_running(&self, name: &str, running: Running) -> Result<(), CgroupError> {
        let (what, result) = match running {
            Running::Stopped => ("stop", self.freeze(name)),
            Running::Yes => ("continue", self.continue_all(name)),
        };
        result.map_err(|source| CgroupError::Freezer { what, group: name.to_owned(), source })
    }

    /// Sends SIGKILL to all processes of a group and of those below it, at once (cgroup-v2.rst).
    ///
    /// # Errors
    /// ENOENT where there is no v2 core, or one older than 5.14.
    pub(crate) fn kill(&self, name: &str) -> Result<(), Errno> {
        self.write_at(&format!("{name}/cgroup.kill"), "1")
    }

    fn write_at(&self, path: &str, text: &str) -> Result<(), Errno> {
        let file = rustix::fs::openat(&self.dir, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::retry_on_intr(|| rustix::io::write(&file, text.as_bytes())).map(drop)
    }

    pub(super) fn write_text(&self, file: &'static str, text: &str) -> Result<(), Errno> {
        self.write_at(file, text)
    }

    pub(crate) fn read_text(&self, path: &str) -> Result<String, Errno> {
        let file = rustix::fs::openat(&self.dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut bytes = vec![0; 4096];
        let mut length = 0;
        loop {
            if length == bytes.len() {
                if length >= FILE_BYTES_MAX {
                    break;
                }
                bytes.resize(length * 2, 0);
            }
            match rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut bytes[length..]))? {
                0 => break,
                count => length += count,
            }
        }
        bytes.truncate(length);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The only number in a file; 0 when there is none.
    pub(super) fn read_number(&self, path: &str) -> u64 {
        self.read_text(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// The number after a key in a file of `key number` lines; 0 when there is none.
    pub(super) fn read_keyed(&self, path: &str, key: &str) -> u64 {
        self.read_text(path).ok().and_then(|text| keyed(&text, key)).unwrap_or(0)
    }

    /// Thread or process ids in a file; those of other pid namespaces show as 0 and are left out.
    pub(crate) fn read_ids(&self, path: &str) -> Result<Vec<i32>, Errno> {
        let text = self.read_text(path)?;
        Ok(text.lines().filter_map(|line| line.trim().parse().ok()).filter(|id| *id > 1).collect())
    }

    /// Names of the groups directly below one.
    pub(crate) fn below_listed(&self, name: &str) -> Result<Vec<String>, Errno> {
        let dir = open_dir(&self.dir, name)?;
        list_groups(&Self { dir, label: String::new() })
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }
}

/// Names of the groups directly in a directory.
pub(crate) fn list_groups(base: &Base) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&base.dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type() == rustix::fs::FileType::Directory && name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

pub(super) fn write_number(file: &OwnedFd, name: &'static str, value: u64) -> Result<(), CgroupError> {
    let text = value.to_string();
    match rustix::io::retry_on_intr(|| rustix::io::pwrite(file, text.as_bytes(), 0)) {
        Ok(_) => Ok(()),
        Err(source) => Err(CgroupError::Limit { file: name, value, source }),
    }
}

fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn open_dir(at: impl AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn mount_again(version: &Version) -> Result<OwnedFd, Errno> {
    let context = match version {
        Version::Two => rustix::mount::fsopen(c"cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?,
        Version::One(controllers) => {
            let context = rustix::mount::fsopen(c"cgroup", FsOpenFlags::FSOPEN_CLOEXEC)?;
            for controller in controllers {
                rustix::mount::fsconfig_set_flag(&context, controller.as_str())?;
            }
            context
        }
    };
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_matched_whole() {
        let text = "oom 3\noom_kill 7\nmax 1\n";
        assert_eq!(keyed(text, "oom_kill"), Some(7));
        assert_eq!(keyed(text, "oom"), Some(3));
        assert_eq!(keyed(text, "oom_kil"), None);
    }

    #[test]
    fn a_directory_of_small_files_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open_dir(rustix::fs::CWD, folder.path()).unwrap();
        let base = Base { dir, label: "test".into() };
        std::fs::write(folder.path().join("cgroup.threads"), "1\n0\n17\n-4\n18\n").unwrap();
        std::fs::write(folder.path().join("usage"), "4096\n").unwrap();
        assert_eq!(base.read_ids("cgroup.threads").unwrap(), [17, 18]);
        assert_eq!((base.read_number("usage"), base.read_number("absent")), (4096, 0));
        base.make("group").unwrap();
        assert!(base.make("group").is_err() && base.make_or_open("group").is_ok() && base.has("group"));
        assert_eq!(list_groups(&base).unwrap(), ["group"]);
        assert_eq!(base.remove("group").unwrap(), Removal::Gone);
        assert_eq!(base.remove("group").unwrap(), Removal::Gone);
    }
}
