//! `data/rootfs/<name>/`: `tree/`, which containers get as their root, and `image.json`, which says what it was made of.
//!
//! Owns: that directory. It is root's: the engine, whose the data directory is, could exchange it for a directory of
//! its own, so its owner is checked. Must not know: which runtimes use a tree.
//! A tree appears by one rename when it is whole. What an import that was killed has left is removed by the next.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use faaster_limits::{IMAGE_JSON_BYTES_MAX, ROOTFS_NAME_BYTES_MAX};
use rustix::fs::{FlockOperation, Mode, OFlags, RenameFlags, flock, mkdirat, openat, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::apply::{self, Applied};
use crate::layer::{digest, plain, survey};
use crate::manifest::{self, Image, same};
use crate::source::Source;
use crate::tree::Tree;
use crate::{Bounds, ImageError};

/// How the names of imports under way begin; what cannot be a root file system's name.
const STAGING: &str = ".import-";
/// Of removals under way.
const GONE: &str = ".gone-";
const TREE: &str = "tree";
const ABOUT: &str = "image.json";

/// What a container has mounted in its root, so it must be there, in every tree.
pub const MOUNT_POINTS: [&str; 8] = ["dev", "proc", "sys", "tmp", "run", "opt", "var/task", "var/runtime"];
/// Files that containers have of the engine and not of an image. `resolv.conf` is mounted over.
const OWN_FILES: [(&str, &str); 3] = [
    ("etc/hosts", "127.0.0.1 localhost function\n::1 localhost\n"),
    ("etc/hostname", "function\n"),
    ("etc/resolv.conf", ""),
];

/// Name of a root file system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RootfsName(String);

impl RootfsName {
    /// # Errors
    /// See [`ImageError::Name`].
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = text.len() <= ROOTFS_NAME_BYTES_MAX
            && text != "host"
            && text.bytes().next().is_some_and(is_plain)
            && text.bytes().all(|byte| is_plain(byte) || matches!(byte, b'-' | b'_' | b'.'));
        if good { Ok(Self(text.to_owned())) } else { Err(ImageError::Name(text.chars().take(100).collect())) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// What a person named.
    pub source: String,
    /// Digest of the image's manifest or configuration; empty for plain files.
    pub digest: String,
    pub layers: usize,
    pub entries: u64,
    /// Devices and the like, which are left out.
    pub skipped: u64,
    /// Of the archives; of the files where there was no archive.
    pub bytes: u64,
    /// Seconds since 1970.
    pub imported: u64,
}

/// A root file system that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootfsInfo {
    pub name: RootfsName,
    /// `None`: nothing says what it was made of.
    pub about: Option<Imported>,
}

/// A tree that cannot be removed as long as this is there.
#[derive(Debug)]
pub struct Held {
    pub path: PathBuf,
    _lock: OwnedFd,
}

/// All root file systems of a data directory.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    top: OwnedFd,
}

fn io(path: &Path) -> impl Fn(Errno) -> ImageError + '_ {
    |errno| ImageError::Write { path: path.to_owned(), source: errno.into() }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Store {
    /// Opens `data/rootfs`, made if it is not there.
    ///
    /// # Errors
    /// It is somebody else's, or the file system refuses.
    pub fn open(data: &Path) -> Result<Self, ImageError> {
        let path = data.join("rootfs");
        fs::create_dir_all(data).map_err(|source| ImageError::Write { path: data.to_owned(), source })?;
        match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(io(&path)(errno)),
        }
        Self::existing(data)?.ok_or_else(|| io(&path)(Errno::NOENT))
    }

    /// Opens `data/rootfs` where it is there, and changes nothing.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn existing(data: &Path) -> Result<Option<Self>, ImageError> {
        let path = data.join("rootfs");
        let top = match rustix::fs::open(&path, FOLDER, Mode::empty()) {
            Ok(top) => top,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(io(&path)(errno)),
        };
        let owner = rustix::fs::fstat(&top).map_err(io(&path))?.st_uid;
        if owner != rustix::process::geteuid().as_raw() {
            return Err(ImageError::Owner { path, owner });
        }
        Ok(Some(Self { path, top }))
    }

    /// Makes a root file system of an image.
    ///
    /// # Errors
    /// The image breaks a rule or the disk refuses; nothing is left of it then.
    pub fn import(&self, name: &RootfsName, from: &Path, bounds: Bounds) -> Result<Imported, ImageError> {
        if self.folder(name.as_str()).is_ok() {
            return Err(ImageError::Exists(name.0.clone()));
        }
        self.sweep();
        let staging = self.stage(name)?;
        // A nameless file beside the tree: the data directory has the room, /tmp may be memory.
        let scratch = || {
            let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
            Ok(File::from(openat(&staging.fd, ".", flags, Mode::RUSR | Mode::WUSR)?))
        };
        let source = Source::open(from, scratch, bounds)?;
        let imported = fill(&staging.fd, &source, bounds)?;
        let about = staging.path.join(ABOUT);
        let text = serde_json::to_vec(&imported).expect("numbers and strings always serialise");
        fs::write(&about, text).map_err(|source| ImageError::Write { path: about, source })?;
        rustix::fs::syncfs(&staging.fd).map_err(io(&staging.path))?;
        let flags = RenameFlags::NOREPLACE;
        match renameat_with(&self.top, &staging.name, &self.top, name.as_str(), flags) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(ImageError::Exists(name.0.clone())),
            Err(errno) => return Err(io(&self.path)(errno)),
        }
        rustix::fs::fsync(&self.top).map_err(io(&self.path))?;
        staging.keep();
        Ok(imported)
    }

    /// Those that are there, by name.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<RootfsInfo>, ImageError> {
        let wrong = |source| ImageError::Read { path: self.path.clone(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            let Some(name) = entry.file_name().to_str().and_then(|name| RootfsName::parse(name).ok()) else {
                continue;
            };
            let mut text = Vec::new();
            let about = File::open(entry.path().join(ABOUT))
                .and_then(|file| file.take(IMAGE_JSON_BYTES_MAX).read_to_end(&mut text))
                .ok()
                .and_then(|_| serde_json::from_slice(&text).ok());
            found.push(RootfsInfo { name, about });
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Removes one that no engine uses.
    ///
    /// # Errors
    /// It is not there or in use, or the file system refuses.
    pub fn remove(&self, name: &RootfsName) -> Result<(), ImageError> {
        let folder = self.folder(name.as_str())?;
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(ImageError::InUse(name.0.clone())),
            Err(errno) => return Err(io(&self.path)(errno)),
        }
        // It goes in one step; its files follow.
        let gone = format!("{GONE}{}-{}", name.as_str(), std::process::id());
        rustix::fs::renameat(&self.top, name.as_str(), &self.top, &gone).map_err(io(&self.path))?;
        let path = self.path.join(gone);
        fs::remove_dir_all(&path).map_err(|source| ImageError::Write { path, source })
    }

    /// The tree of a name, kept from being removed.
    ///
    /// # Errors
    /// It is not there.
    pub fn hold(&self, name: &RootfsName) -> Result<Held, ImageError> {
        let folder = self.folder(name.as_str())?;
        flock(&folder, FlockOperation::NonBlockingLockShared)
            .map_err(|_| ImageError::Missing(name.0.clone()))?;
        Ok(Held { path: self.path.join(name.as_str()).join(TREE), _lock: folder })
    }

    fn folder(&self, name: &str) -> Result<OwnedFd, ImageError> {
        match openat(&self.top, name, FOLDER, Mode::empty()) {
            Ok(folder) => Ok(folder),
            Err(Errno::NOENT) => Err(ImageError::Missing(name.to_owned())),
            Err(errno) => Err(io(&self.path)(errno)),
        }
    }

    fn stage(&self, name: &RootfsName) -> Result<Staging, ImageError> {
        let name = format!("{STAGING}{}-{}", name.as_str(), std::process::id());
        let path = self.path.join(&name);
        mkdirat(&self.top, &name, Mode::RWXU).map_err(io(&path))?;
        let fd = self.folder(&name)?;
        flock(&fd, FlockOperation::NonBlockingLockExclusive).map_err(io(&path))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755)).map_err(io(&path))?;
        Ok(Staging { path, name, fd, fate: Fate::Removed })
    }

    /// Removes what killed imports and removals have left. Those under way are locked.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_ours = name.as_bytes().starts_with(STAGING.as_bytes())
                || name.as_bytes().starts_with(GONE.as_bytes());
            let Some(name) = name.to_str().filter(|_| is_ours) else { continue };
            let is_dead = |folder: &OwnedFd| flock(folder, FlockOperation::NonBlockingLockExclusive).is_ok();
            if self.folder(name).is_ok_and(|folder| is_dead(&folder)) {
                // What cannot be removed now costs room alone, and the next import tries again.
                fs::remove_dir_all(entry.path()).ok();
            }
        }
    }
}

/// What becomes of a staging directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Removed,
    Kept,
}

/// An import under way: gone on whatever way out, unless it is kept.
#[derive(Debug)]
struct Staging {
    path: PathBuf,
    name: String,
    fd: OwnedFd,
    fate: Fate,
}

impl Staging {
    fn keep(mut self) {
        self.fate = Fate::Kept;
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.fate == Fate::Removed {
            // What is left is swept by the next import.
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

fn fill(staging: &OwnedFd, source: &Source, bounds: Bounds) -> Result<Imported, ImageError> {
    let path = Path::new(TREE);
    mkdirat(staging, TREE, Mode::RWXU).map_err(io(path))?;
    let mut tree = Tree::new(openat(staging, TREE, FOLDER, Mode::empty()).map_err(io(path))?);
    let mut done = Applied::default();
    let image = manifest::read(source, bounds)?;
    let (bytes, layers) = match &image {
        Some(image) => (unpack(&mut tree, source, image, bounds, &mut done)?, image.layers.len()),
        None => (plain_files(&mut tree, source, bounds, &mut done)?, 1),
    };
    furnish(&mut tree)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    Ok(Imported {
        source: source.path().display().to_string(),
        digest: image.map(|image| format!("sha256:{}", image.digest)).unwrap_or_default(),
        layers,
        entries: done.entries,
        skipped: done.skipped,
        bytes,
        imported: now,
    })
}

/// What every container needs of its root.
fn furnish(tree: &mut Tree) -> Result<(), ImageError> {
    tree.directory(Path::new(""), 0o755)?;
    for path in MOUNT_POINTS {
        tree.mount_point(path)?;
    }
    tree.mount_point("etc")?;
    for (path, text) in OWN_FILES {
        tree.file(Path::new(path), 0o644, 0, &mut text.as_bytes())?;
    }
    Ok(())
}

/// All layers are surveyed before the first is applied.
fn unpack(
    tree: &mut Tree,
    source: &Source,
    image: &Image,
    bounds: Bounds,
    done: &mut Applied,
) -> Result<u64, ImageError> {
    let mut left = bounds;
    for layer in &image.layers {
        let what = &layer.part;
        if let Some(wanted) = &layer.packed {
            same(what, wanted, &digest(&mut *source.part(what)?.0, what)?)?;
        }
        let surveyed = survey(plain(source.part(what)?.0, what, left.bytes)?, what, left)?;
        same(&format!("{what}, unpacked,"), &layer.plain, &surveyed.digest)?;
        left.bytes -= surveyed.bytes;
        left.entries -= surveyed.entries;
    }
    for layer in &image.layers {
        let what = &layer.part;
        apply::layer(tree, plain(source.part(what)?.0, what, bounds.bytes)?, what, done)?;
    }
    Ok(bounds.bytes - left.bytes)
}

/// A directory, or an archive of `docker export`: the files themselves.
fn plain_files(
    tree: &mut Tree,
    source: &Source,
    bounds: Bounds,
    done: &mut Applied,
) -> Result<u64, ImageError> {
    match source {
        Source::Directory { fd, .. } => apply::directory(tree, fd, bounds, done),
        Source::Archive { path, .. } => {
            let what = path.display().to_string();
            let (whole, bytes) = source.whole()?;
            if bytes > bounds.bytes {
                return Err(ImageError::Bomb);
            }
            apply::layer(tree, whole, &what, done)?;
            Ok(bytes)
        }
    }
}
