//! Reading of uploaded zips: hostile bytes in, a checked plan out, then files.
//!
//! Owns: what is acceptable in a zip. Must not know: where code is kept or who uploaded it.
//! The three steps are apart so that nothing is written before everything that can be known was checked: [`directory`]
//! reads the central directory, [`plan`] checks names, kinds and links, [`unpack`] inflates and counts.

pub mod directory;
pub mod plan;
pub mod unpack;

use faaster_limits::{UNZIPPED_BYTES_MAX, ZIP_BYTES_MAX, ZIP_ENTRIES_MAX, ZIP_PATH_BYTES_MAX};

/// Why a zip is refused. Every sentence is meant for the person who made the zip.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZipError {
    #[error("Code is not a zip file: {0}")]
    NotZip(&'static str),
    #[error("Code has {0} bytes; a zip may have {ZIP_BYTES_MAX}")]
    TooLarge(usize),
    #[error("zip holds no file; put the function's code at its top level")]
    Empty,
    #[error("zip holds more than {ZIP_ENTRIES_MAX} files and directories")]
    TooManyEntries,
    #[error("zip holds more than {UNZIPPED_BYTES_MAX} bytes of unpacked files")]
    Bomb,
    #[error("zip is spread over several volumes; make it one file")]
    Spanned,
    #[error("{0:?} in the zip is encrypted; make the zip without a password")]
    Encrypted(String),
    #[error("{0:?} in the zip uses compression method {1}; only 0 (stored) and 8 (deflate) are supported")]
    Method(String, u16),
    #[error("{0:?} in the zip has a name that is not UTF-8")]
    NotUtf8(String),
    #[error("{0:?} in the zip has an empty name, a NUL, or a part longer than 255 bytes")]
    BadName(String),
    #[error("a name in the zip is longer than {ZIP_PATH_BYTES_MAX} bytes: it begins with {0:?}")]
    LongName(String),
    #[error("{0:?} in the zip leads out of the function's directory")]
    Traversal(String),
    #[error("{0:?} in the zip is an absolute path; names must be relative")]
    Absolute(String),
    #[error("{0:?} in the zip has a backslash in its name")]
    Backslash(String),
    #[error("{0:?} stands twice in the zip")]
    Duplicate(String),
    #[error("{0:?} in the zip lies below something that is not a directory")]
    BelowFile(String),
    #[error("{0:?} in the zip is neither a file, a directory nor a symbolic link")]
    Special(String),
    #[error("symbolic link {0:?} in the zip points to {1:?}, {2}")]
    Link(String, String, &'static str),
    #[error("{0:?} in the zip is damaged: {1}")]
    Damaged(String, &'static str),
}

#[cfg(test)]
pub(crate) mod build;
#[cfg(test)]
mod tests;
