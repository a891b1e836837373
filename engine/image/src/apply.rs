//! Layers onto a tree, one after the other.
//!
//! Owns: what each kind of entry does, and whiteouts. Must not know: where the tree is, or what a container needs.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use faaster_limits::{IMAGE_DEPTH_MAX, IMAGE_PATH_BYTES_MAX};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use tar::EntryType;

use crate::entry_path::{Whiteout, clean, shown, whiteout};
use crate::layer::reading;
use crate::tree::Tree;
use crate::{Bounds, ImageError};

/// What has been made so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Applied {
    pub entries: u64,
    /// Devices, pipes and what else is no file, directory or link; a container gets none of them from an image.
    pub skipped: u64,
}

/// Applies a surveyed layer.
///
/// # Errors
/// An entry breaks a rule, or the disk refuses.
pub(crate) fn layer(
    tree: &mut Tree,
    archive: impl Read,
    what: &str,
    done: &mut Applied,
) -> Result<(), ImageError> {
    let wrong = |error| reading(Path::new(what), error);
    let mut archive = tar::Archive::new(archive);
    // What this layer has made: its whiteouts are about layers below.
    let mut own: HashSet<PathBuf> = HashSet::new();
    for entry in archive.entries().map_err(wrong)? {
        let mut entry = entry.map_err(wrong)?;
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            continue;
        }
        let path = clean(&entry.path_bytes())?;
        match whiteout(&path)? {
            Some(Whiteout::Of(path)) => {
                if !own.contains(&path) {
                    tree.remove(&path)?;
                }
            }
            Some(Whiteout::Opaque(folder)) => empty(tree, &folder, &own)?,
            Some(Whiteout::Meta) => {}
            None => {
                make(tree, &mut entry, &path, done)?;
                own.extend(path.ancestors().filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned));
            }
        }
    }
    Ok(())
}

/// Removes what layers below have put into a directory.
fn empty(tree: &mut Tree, folder: &Path, own: &HashSet<PathBuf>) -> Result<(), ImageError> {
    for (name, kind) in tree.names(folder)? {
        let path = folder.join(name);
        if !own.contains(&path) {
            tree.remove(&path)?;
        } else if kind == FileType::Directory {
            empty(tree, &path, own)?;
        }
    }
    Ok(())
}

fn make(
    tree: &mut Tree,
    entry: &mut tar::Entry<'_, impl Read>,
    path: &Path,
    done: &mut Applied,
) -> Result<(), ImageError> {
    let damaged = |error: std::io::Error| ImageError::Damaged(format!("{}: {error}", path.display()));
    let header = entry.header();
    let (kind, mode) = (header.entry_type(), header.mode().map_err(damaged)?);
    let modified = i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0);
    let text = || shown(path.as_os_str().as_bytes());
    let target = entry.link_name_bytes().unwrap_or_default().into_owned();
    let is_root = path.as_os_str().is_empty();
    match kind {
        EntryType::Directory => tree.directory(path, mode)?,
        _ if is_root => return Err(ImageError::BelowFile(text())),
        EntryType::Regular | EntryType::Continuous => tree.file(path, mode, modified, entry)?,
        EntryType::Symlink => {
            if target.is_empty() || target.len() >= IMAGE_PATH_BYTES_MAX || target.contains(&0) {
                return Err(ImageError::Symlink(text()));
            }
            tree.symlink(path, OsStr::from_bytes(&target))?;
        }
        EntryType::Link => tree.hard_link(path, &clean(&target)?)?,
        _ => {
            done.skipped += 1;
            return Ok(());
        }
    }
    done.entries += 1;
    Ok(())
}

/// Copies a directory's files as if they were one layer.
///
/// # Errors
/// As [`layer`]; a directory has to stay within the same bounds.
pub(crate) fn directory(
    tree: &mut Tree,
    from: &OwnedFd,
    bounds: Bounds,
    done: &mut Applied,
) -> Result<u64, ImageError> {
    let mut copy = Copy { tree, bounds, done, bytes: 0 };
    copy.folder(from, Path::new(""), 0)?;
    Ok(copy.bytes)
}

struct Copy<'a> {
    tree: &'a mut Tree,
    bounds: Bounds,
    done: &'a mut Applied,
    bytes: u64,
}

impl Copy<'_> {
    fn folder(&mut self, from: &OwnedFd, path: &Path, depth: usize) -> Result<(), ImageError> {
        let wrong =
            |source: rustix::io::Errno| ImageError::Read { path: path.to_owned(), source: source.into() };
        if depth > IMAGE_DEPTH_MAX {
            return Err(ImageError::LongPath(shown(path.as_os_str().as_bytes())));
        }
        let stat = rustix::fs::fstat(from).map_err(wrong)?;
        self.tree.directory(path, stat.st_mode)?;
        for entry in rustix::fs::Dir::read_from(from).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                self.entry(from, name, &path.join(name), depth)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, folder: &OwnedFd, name: &OsStr, path: &Path, depth: usize) -> Result<(), ImageError> {
        let wrong =
            |source: rustix::io::Errno| ImageError::Read { path: path.to_owned(), source: source.into() };
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(wrong)?;
        self.done.entries += 1;
        if self.done.entries > self.bounds.entries {
            return Err(ImageError::TooManyEntries(self.bounds.entries));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let inner = rustix::fs::openat(folder, name, flags | OFlags::DIRECTORY, Mode::empty())
                    .map_err(wrong)?;
                self.folder(&inner, path, depth + 1)
            }
            FileType::RegularFile => {
                let file = File::from(rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(wrong)?);
                let failed = |source| ImageError::Read { path: path.to_owned(), source };
                let metadata = file.metadata().map_err(failed)?;
                self.bytes = self.bytes.saturating_add(metadata.len());
                if self.bytes > self.bounds.bytes || !metadata.is_file() {
                    return Err(ImageError::Bomb);
                }
                let mode = metadata.permissions().mode();
                self.tree.file(path, mode, metadata.mtime(), &mut file.take(metadata.len()))
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new()).map_err(wrong)?;
                self.tree.symlink(path, OsStr::from_bytes(target.to_bytes()))
            }
            _ => {
                self.done.skipped += 1;
                Ok(())
            }
        }
    }
}
