//! The tree that layers are unpacked into: every operation resolves names inside of it, as if it were the root.
//!
//! Owns: the tree's root descriptor. Must not know: archives, layers.
//! Symbolic links of an image are followed by the kernel within the tree alone (RESOLVE_IN_ROOT), as they will be in a
//! container; nobody else writes to the tree, so what was looked at is still so when it is used. Everything belongs to
//! whoever unpacks (root), without setuid, setgid and sticky bits: containers have other users and may do what the
//! mode grants to others.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::ImageError;
use crate::entry_path::shown;

const COPY_BYTES: usize = 128 * 1024;
/// What of a mode is kept.
const MODE_BITS: u32 = 0o777;

/// Whether directories on the way are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnTheWay {
    Make,
    MustBe,
}

/// A directory tree under construction.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    /// The directory used last: archives list what lies in one together.
    last: Option<(PathBuf, OwnedFd)>,
}

/// What a directory entry is called and where it is.
struct Place {
    folder: OwnedFd,
    name: OsString,
}

fn failed(path: &Path, errno: Errno) -> ImageError {
    let text = || shown(path.as_os_str().as_bytes());
    match errno {
        Errno::NOTDIR | Errno::LOOP | Errno::EXIST => ImageError::BelowFile(text()),
        errno => ImageError::Write { path: path.to_owned(), source: errno.into() },
    }
}

impl Tree {
    /// Takes an empty directory.
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self { root, last: None }
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), how)
    }

    fn folder(&mut self, path: &Path, on_the_way: OnTheWay) -> Result<OwnedFd, Errno> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return rustix::io::fcntl_dupfd_cloexec(fd, 3);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let found = match self.resolve(path, flags) {
            Err(Errno::NOENT) if on_the_way == OnTheWay::Make => {
                let above = self.folder(path.parent().unwrap_or(Path::new("")), on_the_way)?;
                let name = path.file_name().ok_or(Errno::NOENT)?;
                // EEXIST: a link that leads nowhere.
                rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755))?;
                rustix::fs::chmodat(&above, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
                self.resolve(path, flags)?
            }
            found => found?,
        };
        self.last = Some((path.to_owned(), rustix::io::fcntl_dupfd_cloexec(&found, 3)?));
        Ok(found)
    }

    fn place(&mut self, path: &Path, on_the_way: OnTheWay) -> Result<Place, Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?.to_owned();
        let folder = self.folder(path.parent().unwrap_or(Path::new("")), on_the_way)?;
        Ok(Place { folder, name })
    }

    /// The place of something new, with whatever was there removed.
    fn cleared(&mut self, path: &Path) -> Result<Place, ImageError> {
        let place = self.place(path, OnTheWay::Make).map_err(|errno| failed(path, errno))?;
        self.clear(&place).map_err(|errno| failed(path, errno))?;
        Ok(place)
    }

    fn clear(&mut self, place: &Place) -> Result<(), Errno> {
        match kind_at(place)? {
            None => Ok(()),
            Some(FileType::Directory) => {
                // The descriptor that is remembered may be of what goes now.
                self.last = None;
                let path = Path::new("/proc/self/fd").join(place.folder.as_raw_fd().to_string());
                std::fs::remove_dir_all(path.join(&place.name))
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            }
            Some(_) => rustix::fs::unlinkat(&place.folder, &place.name, AtFlags::empty()),
        }
    }

    /// A directory; one that is there already gets the mode.
    pub(crate) fn directory(&mut self, path: &Path, mode: u32) -> Result<(), ImageError> {
        let mode = Mode::from_raw_mode(mode & MODE_BITS);
        let wrong = |errno| failed(path, errno);
        if path.as_os_str().is_empty() {
            return rustix::fs::fchmod(&self.root, mode).map_err(wrong);
        }
        let place = self.place(path, OnTheWay::Make).map_err(wrong)?;
        if kind_at(&place).map_err(wrong)? != Some(FileType::Directory) {
            self.clear(&place).map_err(wrong)?;
            rustix::fs::mkdirat(&place.folder, &place.name, mode).map_err(wrong)?;
        }
        rustix::fs::chmodat(&place.folder, &place.name, mode, AtFlags::empty()).map_err(wrong)
    }

    /// A file with all that the reader has.
    pub(crate) fn file(
        &mut self,
        path: &Path,
        mode: u32,
        modified: i64,
        contents: &mut dyn Read,
    ) -> Result<(), ImageError> {
        let place = self.cleared(path)?;
        let wrong = |errno| failed(path, errno);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&place.folder, &place.name, flags, Mode::RWXU).map_err(wrong)?;
        let mut file = std::fs::File::from(file);
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = contents.read(&mut buffer).map_err(|source| crate::layer::reading(path, source))?;
            if count == 0 {
                break;
            }
            let written = |source: io::Error| ImageError::Write { path: path.to_owned(), source };
            file.write_all(&buffer[..count]).map_err(written)?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & MODE_BITS)).map_err(wrong)?;
        // Compiled Python files name the time of their source.
        let time = Timespec { tv_sec: modified, tv_nsec: 0 };
        rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time }).map_err(wrong)
    }

    /// A symbolic link; where it leads is the container's affair.
    pub(crate) fn symlink(&mut self, path: &Path, target: &OsStr) -> Result<(), ImageError> {
        let place = self.cleared(path)?;
        rustix::fs::symlinkat(target, &place.folder, &place.name).map_err(|errno| failed(path, errno))
    }

    /// One more name of a file that is there.
    pub(crate) fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), ImageError> {
        let text = |path: &Path| shown(path.as_os_str().as_bytes());
        let refused = |reason| ImageError::HardLink { path: text(path), target: text(target), reason };
        let source = match self.place(target, OnTheWay::MustBe) {
            Ok(place) => place,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL) => {
                return Err(refused("which is not there"));
            }
            Err(errno) => return Err(failed(target, errno)),
        };
        match kind_at(&source).map_err(|errno| failed(target, errno))? {
            Some(FileType::RegularFile) => {}
            Some(_) => return Err(refused("which is not a file")),
            None => return Err(refused("which is not there")),
        }
        let place = self.place(path, OnTheWay::Make).map_err(|errno| failed(path, errno))?;
        if is_same(&source, &place).map_err(|errno| failed(path, errno))? {
            return Err(refused("which is itself"));
        }
        self.clear(&place).map_err(|errno| failed(path, errno))?;
        rustix::fs::linkat(&source.folder, &source.name, &place.folder, &place.name, AtFlags::empty())
            .map_err(|errno| failed(path, errno))
    }

    /// Removes something and all below it; that it is not there is no error.
    pub(crate) fn remove(&mut self, path: &Path) -> Result<(), ImageError> {
        match self.place(path, OnTheWay::MustBe) {
            Ok(place) => self.clear(&place).map_err(|errno| failed(path, errno)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(errno) => Err(failed(path, errno)),
        }
    }

    /// Names in a directory; none where it is not there.
    pub(crate) fn names(&mut self, path: &Path) -> Result<Vec<(OsString, FileType)>, ImageError> {
        let wrong = |errno| failed(path, errno);
        let folder = match self.folder(path, OnTheWay::MustBe) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
            Err(errno) => return Err(wrong(errno)),
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&folder).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push((OsStr::from_bytes(name).to_owned(), entry.file_type()));
            }
        }
        Ok(names)
    }

    /// A directory that a container needs as a mount point: made if it is not there, and real, not behind a link.
    pub(crate) fn mount_point(&mut self, path: &'static str) -> Result<(), ImageError> {
        let mut so_far = PathBuf::new();
        for component in Path::new(path) {
            so_far.push(component);
            let place = self.place(&so_far, OnTheWay::Make).map_err(|errno| failed(&so_far, errno))?;
            match kind_at(&place).map_err(|errno| failed(&so_far, errno))? {
                Some(FileType::Directory) => {}
                None => self.directory(&so_far, 0o755)?,
                Some(_) => return Err(ImageError::MountPoint(path)),
            }
        }
        Ok(())
    }
}

/// What is at a place, links not followed.
fn kind_at(place: &Place) -> Result<Option<FileType>, Errno> {
    match rustix::fs::statat(&place.folder, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn is_same(one: &Place, other: &Place) -> Result<bool, Errno> {
    let stat = |place: &Place| {
        rustix::fs::fstat(&place.folder).map(|folder| (folder.st_dev, folder.st_ino, place.name.clone()))
    };
    Ok(stat(one)? == stat(other)?)
}
