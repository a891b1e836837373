//! Where an image's parts come from: files of a directory, or of an archive that is read in place.
//!
//! Owns: the index of an archive. Must not know: what the parts mean.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use faaster_limits::{IMAGE_JSON_BYTES_MAX, IMAGE_PARTS_MAX};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use tar::EntryType;

use crate::entry_path::{clean, shown};
use crate::layer::{self, Compression};
use crate::{Bounds, ImageError};

/// Links between parts that are followed.
const HOPS_MAX: usize = 8;

/// An image as it was given.
#[derive(Debug)]
pub(crate) enum Source {
    Directory { path: PathBuf, fd: OwnedFd },
    Archive { path: PathBuf, file: File, parts: BTreeMap<PathBuf, Part> },
}

/// A member of an archive.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    File {
        offset: u64,
        bytes: u64,
    },
    /// Some tools save a layer once and link to it.
    Link(PathBuf),
}

impl Source {
    /// Opens what a person named. A compressed archive is unpacked into `scratch` first, a nameless file.
    ///
    /// # Errors
    /// It cannot be read, is no archive, or is larger than an image may be.
    pub(crate) fn open(
        path: &Path,
        scratch: impl FnOnce() -> io::Result<File>,
        bounds: Bounds,
    ) -> Result<Self, ImageError> {
        let wrong = |source| ImageError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(wrong)?.is_dir() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| wrong(errno.into()))?;
            return Ok(Self::Directory { path: path.to_owned(), fd });
        }
        let mut file = File::open(path).map_err(wrong)?;
        if layer::compression_of(&mut file).map_err(wrong)? != Compression::None {
            let mut unpacked = scratch().map_err(wrong)?;
            let what = path.display().to_string();
            let mut plain = layer::plain(Box::new(file), &what, bounds.bytes)?;
            io::copy(&mut plain, &mut unpacked).map_err(|error| layer::reading(path, error))?;
            file = unpacked;
        }
        file.rewind().map_err(wrong)?;
        let parts = index(path, &mut file, bounds)?;
        Ok(Self::Archive { path: path.to_owned(), file, parts })
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Directory { path, .. } | Self::Archive { path, .. } => path,
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.part(name).is_ok()
    }

    /// The bytes of a part, and how many there are.
    ///
    /// # Errors
    /// There is no such part.
    pub(crate) fn part(&self, name: &str) -> Result<(Box<dyn Read + '_>, u64), ImageError> {
        let missing = || ImageError::Part(shown(name.as_bytes()));
        let wrong = |source| ImageError::Read { path: PathBuf::from(name), source };
        let wanted = clean(name.as_bytes())?;
        match self {
            Self::Directory { fd, .. } => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                let file =
                    rustix::fs::openat2(fd, &wanted, flags, Mode::empty(), how).map_err(|_| missing())?;
                let file = File::from(file);
                let metadata = file.metadata().map_err(wrong)?;
                if !metadata.is_file() {
                    return Err(missing());
                }
                Ok((Box::new(file), metadata.len()))
            }
            Self::Archive { file, parts, .. } => {
                let (offset, bytes) = find(parts, wanted)?.ok_or_else(missing)?;
                Ok((Box::new(Section { file, at: offset, left: bytes }), bytes))
            }
        }
    }

    /// An archive from its first byte to its last.
    ///
    /// # Errors
    /// Its length cannot be read; for a directory, there is no such thing.
    pub(crate) fn whole(&self) -> Result<(Box<dyn Read + '_>, u64), ImageError> {
        let wrong = |source| ImageError::Read { path: self.path().to_owned(), source };
        let Self::Archive { file, .. } = self else { return Err(wrong(io::ErrorKind::IsADirectory.into())) };
        let bytes = file.metadata().map_err(wrong)?.len();
        Ok((Box::new(Section { file, at: 0, left: bytes }), bytes))
    }

    /// A small part as a whole.
    ///
    /// # Errors
    /// There is no such part, or it is not small.
    pub(crate) fn small(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let (reader, bytes) = self.part(name)?;
        if bytes > IMAGE_JSON_BYTES_MAX {
            let reason = format!("it has {bytes} bytes, at most {IMAGE_JSON_BYTES_MAX} are read");
            return Err(ImageError::Json { what: name.to_owned(), reason });
        }
        let mut all = Vec::new();
        let wrong = |source| ImageError::Read { path: PathBuf::from(name), source };
        reader.take(IMAGE_JSON_BYTES_MAX).read_to_end(&mut all).map_err(wrong)?;
        Ok(all)
    }
}

fn find(parts: &BTreeMap<PathBuf, Part>, wanted: PathBuf) -> Result<Option<(u64, u64)>, ImageError> {
    let mut at = wanted;
    for _ in 0..HOPS_MAX {
        match parts.get(&at) {
            None => return Ok(None),
            Some(Part::File { offset, bytes }) => return Ok(Some((*offset, *bytes))),
            Some(Part::Link(target)) => at.clone_from(target),
        }
    }
    Err(ImageError::LinkLoop(shown(at.as_os_str().as_bytes())))
}

fn index(path: &Path, file: &mut File, bounds: Bounds) -> Result<BTreeMap<PathBuf, Part>, ImageError> {
    let what = path.display().to_string();
    // What a whole root file system has as files, a saved image has as one layer: so many may be listed, and only the
    // first few are remembered, among which the parts of an image are.
    layer::survey(&mut *file, &what, bounds)?;
    let wrong = |error| layer::reading(path, error);
    file.rewind().map_err(wrong)?;
    let mut parts = BTreeMap::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let name = clean(&entry.path_bytes())?;
        let part = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                Part::File { offset: entry.raw_file_position(), bytes: entry.size() }
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                match beside(&name, &target) {
                    Some(target) => Part::Link(target),
                    None => continue,
                }
            }
            EntryType::Link => Part::Link(clean(&entry.link_name_bytes().unwrap_or_default())?),
            _ => continue,
        };
        if parts.len() >= IMAGE_PARTS_MAX {
            break;
        }
        parts.insert(name, part);
    }
    Ok(parts)
}

/// A relative link's target as a name of the archive; nothing if it leads out.
fn beside(link: &Path, target: &[u8]) -> Option<PathBuf> {
    let mut path = link.parent()?.to_owned();
    for component in target.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                if !path.pop() {
                    return None;
                }
            }
            component => path.push(std::ffi::OsStr::from_bytes(component)),
        }
    }
    (target.first() != Some(&b'/')).then_some(path)
}

/// Part of a file; reads by offset, so that several can be read at once.
struct Section<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
