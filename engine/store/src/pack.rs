//! Makes a zip of a folder, always the same bytes for the same content.
//!
//! Owns: the order, times and modes in it. Must not know: what the folder is for.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use faaster_limits::{ZIP_BYTES_MAX, ZIP_ENTRIES_MAX, ZIP_PATH_BYTES_MAX};
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

/// Why a folder is no zip.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{0} is neither a file, a directory nor a symbolic link")]
    Special(PathBuf),
    #[error("{0} has a path longer than {ZIP_PATH_BYTES_MAX} bytes")]
    LongName(PathBuf),
    #[error("folder {0} makes a zip of more than {ZIP_BYTES_MAX} bytes")]
    TooLarge(PathBuf),
    #[error("folder {0} holds more than {ZIP_ENTRIES_MAX} files")]
    TooManyEntries(PathBuf),
}

struct Packed {
    name: Vec<u8>,
    mode: u32,
    crc32: u32,
    compressed_bytes: u32,
    bytes: u32,
    offset: u32,
}

const TYPE_FILE: u32 = 0o100_000;
const TYPE_LINK: u32 = 0o120_000;
/// 1 January 1980, the first day that a zip can name.
const DOS_DATE: u16 = 1 << 5 | 1;
const DEFLATED: u16 = 8;
const VERSION_NEEDED: u16 = 20;
const MADE_ON_UNIX: u16 = 3 << 8 | VERSION_NEEDED;
const UTF8_NAMES: u16 = 1 << 11;

/// Packs all files and links below `folder`, sorted by path. Modes are 0755 for what is executable, else 0644.
///
/// # Errors
/// Something cannot be read or packed, or the whole is over the bounds of an upload.
pub fn pack_folder(folder: &Path) -> Result<Vec<u8>, PackError> {
    let mut out = Vec::new();
    let mut packed = Vec::new();
    for path in files_below(folder)? {
        if packed.len() >= ZIP_ENTRIES_MAX {
            return Err(PackError::TooManyEntries(folder.to_owned()));
        }
        packed.push(append_entry(&mut out, folder, &path)?);
        if out.len() > ZIP_BYTES_MAX {
            return Err(PackError::TooLarge(folder.to_owned()));
        }
    }
    append_directory(&mut out, &packed);
    if out.len() > ZIP_BYTES_MAX { Err(PackError::TooLarge(folder.to_owned())) } else { Ok(out) }
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>, PackError> {
    let mut found = Vec::new();
    let mut ahead = vec![folder.to_owned()];
    while let Some(directory) = ahead.pop() {
        let failed = |source| PackError::Read { path: directory.clone(), source };
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_dir() {
                ahead.push(entry.path());
            } else {
                found.push(entry.path());
            }
            if found.len() + ahead.len() > ZIP_ENTRIES_MAX {
                return Err(PackError::TooManyEntries(folder.to_owned()));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn append_entry(out: &mut Vec<u8>, folder: &Path, path: &Path) -> Result<Packed, PackError> {
    let failed = |source| PackError::Read { path: path.to_owned(), source };
    let kind = fs::symlink_metadata(path).map_err(failed)?;
    let (content, mode) = if kind.is_symlink() {
        (fs::read_link(path).map_err(failed)?.as_os_str().as_bytes().to_vec(), TYPE_LINK | 0o777)
    } else if kind.is_file() {
        let permissions = if kind.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
        (fs::read(path).map_err(failed)?, TYPE_FILE | permissions)
    } else {
        return Err(PackError::Special(path.to_owned()));
    };
    let name = path.strip_prefix(folder).unwrap_or(path).as_os_str().as_bytes().to_vec();
    if name.len() > ZIP_PATH_BYTES_MAX {
        return Err(PackError::LongName(path.to_owned()));
    }
    let mut crc = Crc::new();
    crc.update(&content);
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    let compressed = encoder.write_all(&content).and_then(|()| encoder.finish()).map_err(failed)?;
    let too_large = |_| PackError::TooLarge(folder.to_owned());
    let entry = Packed {
        mode,
        crc32: crc.sum(),
        compressed_bytes: u32::try_from(compressed.len()).map_err(too_large)?,
        bytes: u32::try_from(content.len()).map_err(too_large)?,
        offset: u32::try_from(out.len()).map_err(too_large)?,
        name,
    };
    out.extend_from_slice(b"PK\x03\x04");
    append_common(out, &entry);
    out.extend_from_slice(&entry.name);
    out.extend_from_slice(&compressed);
    Ok(entry)
}

/// The fields that local and central header share, from "version needed" to the length of the extra field.
fn append_common(out: &mut Vec<u8>, entry: &Packed) {
    for field in [VERSION_NEEDED, UTF8_NAMES, DEFLATED, 0, DOS_DATE] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    for field in [entry.crc32, entry.compressed_bytes, entry.bytes] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    let name_bytes = u16::try_from(entry.name.len()).expect("bounded by ZIP_PATH_BYTES_MAX");
    out.extend_from_slice(&name_bytes.to_le_bytes());
    out.extend_from_slice(&0_u16.to_le_bytes());
}

fn append_directory(out: &mut Vec<u8>, packed: &[Packed]) {
    let start = out.len();
    for entry in packed {
        out.extend_from_slice(b"PK\x01\x02");
        out.extend_from_slice(&MADE_ON_UNIX.to_le_bytes());
        append_common(out, entry);
        // Comment length, disk, internal attributes.
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&(entry.mode << 16).to_le_bytes());
        out.extend_from_slice(&entry.offset.to_le_bytes());
        out.extend_from_slice(&entry.name);
    }
    let bytes = u32::try_from(out.len() - start).expect("20,000 names of 1 KiB are far below 4 GiB");
    let start = u32::try_from(start).expect("bounded by ZIP_BYTES_MAX");
    let count = u16::try_from(packed.len()).expect("bounded by ZIP_ENTRIES_MAX");
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    for field in [count, count] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    for field in [bytes, start] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&[0; 2]);
}
