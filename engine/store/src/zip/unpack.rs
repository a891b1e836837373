//! Makes what a plan says, below a directory that nobody else writes to.
//!
//! Owns: inflating, counting real bytes, checking sums, modes. Must not know: where the directory will end up.
//! Modes do not depend on the umask; the files belong to the engine, so a function cannot change what it shares.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use faaster_limits::UNZIPPED_BYTES_MAX;
use flate2::Crc;
use flate2::read::DeflateDecoder;

use super::ZipError;
use super::directory::{self, display};
use super::plan::{Executable, Plan, PlannedFile};

/// Why unpacking stopped.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error(transparent)]
    Zip(#[from] ZipError),
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    pub files: usize,
    pub bytes: u64,
}

const DEFLATED: u16 = 8;
const COPY_BYTES: usize = 64 * 1024;

/// Fills `target`, which exists and is empty. On an error what was made so far stays: the caller removes the whole.
///
/// # Errors
/// The zip is damaged or larger than it says or may be, or the disk refuses.
pub fn unpack(plan: &Plan<'_>, target: &Path) -> Result<Unpacked, UnpackError> {
    let written = |path: &Path| {
        let path = path.to_owned();
        move |source| UnpackError::Write { path, source }
    };
    set_mode(target, 0o755).map_err(written(target))?;
    for directory in &plan.directories {
        let path = target.join(directory);
        DirBuilder::new().mode(0o755).create(&path).map_err(written(&path))?;
        set_mode(&path, 0o755).map_err(written(&path))?;
    }
    let mut total: u64 = 0;
    let mut buffer = vec![0; COPY_BYTES];
    for file in &plan.files {
        let path = target.join(&file.path);
        total += write_file(plan.zip, file, &path, UNZIPPED_BYTES_MAX - total, &mut buffer)?;
    }
    // Links last: no file is ever written through one.
    for (link, points_to) in &plan.links {
        let path = target.join(link);
        symlink(points_to, &path).map_err(written(&path))?;
    }
    Ok(Unpacked { files: plan.files.len(), bytes: total })
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn write_file(
    zip: &[u8],
    file: &PlannedFile<'_>,
    path: &Path,
    left: u64,
    buffer: &mut [u8],
) -> Result<u64, UnpackError> {
    let data = directory::data(zip, &file.entry)?;
    let mut source: Box<dyn Read + '_> =
        if file.entry.method == DEFLATED { Box::new(DeflateDecoder::new(data)) } else { Box::new(data) };
    let failed = |source| UnpackError::Write { path: path.to_owned(), source };
    let damaged = |what| ZipError::Damaged(display(file.entry.name), what);
    let mut target: File =
        OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map_err(failed)?;
    let mut crc = Crc::new();
    let mut bytes: u64 = 0;
    loop {
        let read = source.read(buffer).map_err(|_| damaged("it cannot be inflated"))?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        if bytes > left {
            return Err(ZipError::Bomb.into());
        }
        if bytes > file.entry.bytes {
            return Err(damaged("it is larger than the directory says").into());
        }
        crc.update(&buffer[..read]);
        target.write_all(&buffer[..read]).map_err(failed)?;
    }
    if bytes != file.entry.bytes {
        return Err(damaged("it is smaller than the directory says").into());
    }
    if crc.sum() != file.entry.crc32 {
        return Err(damaged("its checksum is wrong").into());
    }
    let mode = if file.executable == Executable::Yes { 0o755 } else { 0o644 };
    target.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    Ok(bytes)
}
