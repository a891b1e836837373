//! A container's /etc: a few files of our own, and copies of those of the host that language runtimes read.
//!
//! Owns: which ones. Must not know: how the tree is mounted.
//! They are copied, not mounted, because every mount costs each container; and only what everybody may read is copied.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::{RootfsError, make_dir, make_link};

/// Bytes of one copied file; the longest in practice is the bundle of certificates (220 kB).
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Files, links and directories in all.
const ENTRIES_MAX: usize = 8192;
/// Depth of directories.
const DEPTH_MAX: usize = 6;

const OWN_FILES: [(&str, &str); 5] = [
    (
        "passwd",
        "root:x:0:0:root:/root:/usr/sbin/nologin\n\
         function:x:1000:1000:function:/tmp:/usr/sbin/nologin\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("group", "root:x:0:\nfunction:x:1000:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost function\n::1 localhost\n"),
    ("hostname", "function\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
];

/// Files and directories of the host's /etc; a `*` at the end stands for any rest.
const COPIED: [&str; 17] = [
    "alternatives",
    "ca-certificates.conf",
    "fonts",
    "gai.conf",
    "host.conf",
    "java*",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "lua*",
    "mime.types",
    "os-release",
    "php*",
    "protocols",
    "services",
    "ssl",
];

/// `resolv_conf` is a text of our own, too: the host's may name a resolver that is only the host's.
pub(super) fn fill(root: &OwnedFd, resolv_conf: &str) -> Result<(), RootfsError> {
    write_file(root, "etc/resolv.conf", resolv_conf.as_bytes())?;
    for (name, text) in OWN_FILES {
        write_file(root, &format!("etc/{name}"), text.as_bytes())?;
    }
    let mut copy = Copy { root, entries: 0 };
    let Ok(entries) = std::fs::read_dir("/etc") else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_wanted = COPIED.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == *pattern,
        });
        if is_wanted {
            copy.entry(&entry.path(), &format!("etc/{name}"), 0)?;
        }
    }
    Ok(())
}

struct Copy<'a> {
    root: &'a OwnedFd,
    entries: usize,
}

impl Copy<'_> {
    /// What cannot be read, or is too large, is left out: a runtime that needs it says so itself.
    fn entry(&mut self, from: &Path, to: &str, depth: usize) -> Result<(), RootfsError> {
        let Ok(metadata) = std::fs::symlink_metadata(from) else { return Ok(()) };
        self.entries += 1;
        if self.entries > ENTRIES_MAX || depth > DEPTH_MAX {
            return Ok(());
        }
        let kind = metadata.file_type();
        if kind.is_symlink() {
            return self.link(from, to, depth);
        }
        if metadata.mode() & 0o004 == 0 || kind.is_fifo() || kind.is_socket() {
            return Ok(());
        }
        if kind.is_dir() {
            make_dir(self.root, to)?;
            let Ok(entries) = std::fs::read_dir(from) else { return Ok(()) };
            for entry in entries.flatten() {
                if let Some(name) = entry.file_name().to_str() {
                    self.entry(&entry.path(), &format!("{to}/{name}"), depth + 1)?;
                }
            }
        } else if kind.is_file() {
            self.file(from, to)?;
        }
        Ok(())
    }

    /// Links into what a container has as well stay links; others (resolv.conf into /run) are followed.
    fn link(&mut self, from: &Path, to: &str, depth: usize) -> Result<(), RootfsError> {
        let (Ok(target), Ok(real)) = (std::fs::read_link(from), std::fs::canonicalize(from)) else {
            return Ok(());
        };
        let is_inside = real.starts_with("/usr") || (depth > 0 && real.starts_with("/etc"));
        if is_inside && let Some(target) = target.to_str() {
            return make_link(self.root, target, to);
        }
        self.file(&real, to)
    }

    fn file(&self, from: &Path, to: &str) -> Result<(), RootfsError> {
        let Ok(file) = std::fs::File::open(from) else { return Ok(()) };
        let is_readable =
            file.metadata().is_ok_and(|m| m.is_file() && m.mode() & 0o004 != 0 && m.len() <= FILE_BYTES_MAX);
        let mut bytes = Vec::new();
        if !is_readable || file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).is_err() {
            return Ok(());
        }
        write_file(self.root, to, &bytes)
    }
}

fn write_file(root: &OwnedFd, path: &str, bytes: &[u8]) -> Result<(), RootfsError> {
    let failed = |source| RootfsError::Make { path: path.to_owned(), source };
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(root, path, flags, Mode::from_raw_mode(0o644)).map_err(failed)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let count = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest)).map_err(failed)?;
        rest = &rest[count..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_what_everybody_may_read_is_copied() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = |name: &str| from.path().join(name);
        std::fs::write(path("open"), "yes").unwrap();
        std::fs::write(path("secret"), "no").unwrap();
        std::fs::set_permissions(path("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::create_dir(path("private")).unwrap();
        std::fs::write(path("private/key"), "no").unwrap();
        std::fs::set_permissions(path("private"), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("secret", path("link")).unwrap();
        std::os::unix::fs::symlink("/usr/bin/env", path("env")).unwrap();
        std::fs::set_permissions(from.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let root: OwnedFd = std::fs::File::open(to.path()).unwrap().into();
        Copy { root: &root, entries: 0 }.entry(from.path(), "copy", 0).unwrap();
        let mut names: Vec<String> = std::fs::read_dir(to.path().join("copy"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["env", "open"]);
        assert_eq!(std::fs::read_link(to.path().join("copy/env")).unwrap(), Path::new("/usr/bin/env"));
    }
}
