//! One layer as bytes: compression, bounds and digests, before anything is made of it.
//!
//! Owns: reading. Must not know: where the files go.
//! A layer is read twice: the survey counts and hashes all of it, and refuses what would make the reading of headers
//! itself dangerous; only then is it applied.

use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use faaster_limits::IMAGE_HEADER_BYTES_MAX;
use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use crate::entry_path::shown;
use crate::zstd::Frames;
use crate::{Bounds, ImageError};

/// How the bytes of a layer are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// What a survey found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Surveyed {
    /// SHA-256 of all that was read, in hex.
    pub digest: String,
    pub entries: u64,
    /// Of the archive, which is at least what its files have.
    pub bytes: u64,
}

fn by_magic(head: &[u8]) -> Compression {
    match head {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// By the first bytes; the position is at the start again after it.
pub(crate) fn compression_of(file: &mut (impl Read + Seek)) -> io::Result<Compression> {
    let mut head = Vec::new();
    file.by_ref().take(4).read_to_end(&mut head)?;
    file.rewind()?;
    Ok(by_magic(&head))
}

/// The bytes behind a compression, at most so many.
///
/// # Errors
/// Nothing can be read.
pub(crate) fn plain<'a>(
    packed: Box<dyn Read + 'a>,
    what: &str,
    bytes_max: u64,
) -> Result<Box<dyn Read + 'a>, ImageError> {
    let mut buffered = BufReader::with_capacity(128 * 1024, packed);
    let head = io::BufRead::fill_buf(&mut buffered).map_err(|error| reading(Path::new(what), error))?;
    let inner: Box<dyn Read + 'a> = match by_magic(head) {
        Compression::None => Box::new(buffered),
        Compression::Gzip => Box::new(MultiGzDecoder::new(buffered)),
        Compression::Zstd => Box::new(Frames::new(buffered)),
    };
    Ok(Box::new(Bounded { inner, left: bytes_max }))
}

/// Reads so many bytes and then fails, unless that was all.
struct Bounded<'a> {
    inner: Box<dyn Read + 'a>,
    left: u64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left =
            self.left.checked_sub(count as u64).ok_or(io::Error::from(io::ErrorKind::FileTooLarge))?;
        Ok(count)
    }
}

/// What an error while reading an archive means.
pub(crate) fn reading(what: &Path, error: io::Error) -> ImageError {
    if error.kind() == io::ErrorKind::FileTooLarge {
        return ImageError::Bomb;
    }
    match error.raw_os_error() {
        Some(_) => ImageError::Read { path: what.to_owned(), source: error },
        // Not the kernel's: the bytes are wrong.
        None => ImageError::Damaged(format!("{}: {error}", what.display())),
    }
}

/// Counts what passes, and hashes it.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// SHA-256 in hex of all that a reader has.
pub(crate) fn digest(reader: &mut dyn Read, what: &str) -> Result<String, ImageError> {
    let mut hashing = Hashing { inner: reader, hash: Sha256::new(), bytes: 0 };
    io::copy(&mut hashing, &mut io::sink()).map_err(|error| reading(Path::new(what), error))?;
    Ok(hex(&hashing.hash.finalize()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a whole archive by its raw headers and checks what applying it would trust: how many entries there are, how
/// long the headers that carry names may be (they are read into memory), and that sizes stand where both readings see
/// the same one.
///
/// # Errors
/// It breaks a bound, or is damaged.
pub(crate) fn survey(archive: impl Read, what: &str, bounds: Bounds) -> Result<Surveyed, ImageError> {
    let wrong = |error| reading(Path::new(what), error);
    let mut hashing = Hashing { inner: archive, hash: Sha256::new(), bytes: 0 };
    let mut entries = 0;
    {
        let mut archive = tar::Archive::new(&mut hashing);
        for entry in archive.entries().map_err(wrong)?.raw(true) {
            let mut entry = entry.map_err(wrong)?;
            entries += 1;
            if entries > bounds.entries {
                return Err(ImageError::TooManyEntries(bounds.entries));
            }
            let (kind, bytes) = (entry.header().entry_type(), entry.size());
            let name = shown(&entry.path_bytes());
            match kind {
                EntryType::GNULongName
                | EntryType::GNULongLink
                | EntryType::XHeader
                | EntryType::XGlobalHeader
                    if bytes > IMAGE_HEADER_BYTES_MAX =>
                {
                    return Err(ImageError::LongPath(name));
                }
                EntryType::XHeader => {
                    let mut text = Vec::new();
                    entry.read_to_end(&mut text).map_err(wrong)?;
                    if has_size(&text) {
                        return Err(ImageError::Sparse(name));
                    }
                }
                EntryType::GNUSparse => return Err(ImageError::Sparse(name)),
                _ => {}
            }
        }
    }
    // What follows the end mark belongs to the digest as well.
    io::copy(&mut hashing, &mut io::sink()).map_err(wrong)?;
    Ok(Surveyed { digest: hex(&hashing.hash.finalize()), entries, bytes: hashing.bytes })
}

/// Whether extended headers say how large a file is, in place of the header itself.
fn has_size(extensions: &[u8]) -> bool {
    tar::PaxExtensions::new(extensions).any(|field| {
        field.map_or(true, |field| {
            field.key_bytes() == b"size" || field.key_bytes().starts_with(b"GNU.sparse")
        })
    })
}
