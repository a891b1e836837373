//! Root file systems for containers, made from images: an OCI layout, a `docker save` or `docker export` archive, or a
//! plain directory becomes a directory tree under the data directory.
//!
//! Owns: the formats, what is acceptable in them, and the directory of trees. Must not know: containers; it never runs
//! anything of an image. Images are hostile until proven otherwise: digests are verified before anything is written,
//! every size and count is bounded, no name leads out of the tree, and a failure leaves nothing behind.
#![forbid(unsafe_code)]

mod apply;
mod entry_path;
mod layer;
mod manifest;
mod source;
mod store;
mod tree;
mod zstd;

use std::io;
use std::path::PathBuf;

use faaster_limits::IMAGE_BYTES_MAX;

pub use store::{Held, Imported, MOUNT_POINTS, RootfsInfo, RootfsName, Store};

/// What an image may be at most; [`Bounds::default`] is what the engine uses.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of all layers, unpacked.
    pub bytes: u64,
    /// Files, directories and links of all layers.
    pub entries: u64,
    pub layers: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            bytes: IMAGE_BYTES_MAX,
            entries: faaster_limits::IMAGE_ENTRIES_MAX,
            layers: faaster_limits::IMAGE_LAYERS_MAX,
        }
    }
}

/// Why an image is refused, or could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "{0:?} is no name of a root file system: lower-case letters, digits, `-`, `_` and `.`, at most 64, a letter or digit first; not `host`"
    )]
    Name(String),
    #[error("there is a root file system {0} already: remove it first with `faaster rootfs rm {0}`")]
    Exists(String),
    #[error("there is no root file system {0}; `faaster rootfs list` shows those that are there")]
    Missing(String),
    #[error("the root file system {0} is in use by a running engine")]
    InUse(String),
    #[error(
        "{path} belongs to user {owner}; only root's is trusted: remove it, or choose another data directory"
    )]
    Owner { path: PathBuf, owner: u32 },
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    #[error("the image lacks {0}")]
    Part(String),
    #[error("{what} of the image cannot be understood: {reason}")]
    Json { what: String, reason: String },
    #[error("the archive holds {0} images; save one alone")]
    SeveralImages(usize),
    #[error("the image is not for {wanted}; it has: {found}")]
    Platform { wanted: String, found: String },
    #[error("{0:?} is no sha256 digest")]
    Digest(String),
    #[error("{what} does not have the digest that the image says: {wanted} was promised, {found} was found")]
    Mismatch { what: String, wanted: String, found: String },
    #[error("the image unpacks to more bytes than a root file system may have ({IMAGE_BYTES_MAX})")]
    Bomb,
    #[error("the image has more than {0} files")]
    TooManyEntries(u64),
    #[error("the image has {found} layers; at most {most} are unpacked")]
    TooManyLayers { found: usize, most: usize },
    #[error("{0:?} in the image has an absolute path")]
    Absolute(String),
    #[error("{0:?} in the image leads out of its root")]
    Climbs(String),
    #[error("{0:?} in the image is too long, or nested too deep")]
    LongPath(String),
    #[error("{0:?} in the image lies below something that is not a directory")]
    BelowFile(String),
    #[error("hard link {path:?} in the image points to {target:?}, {reason}")]
    HardLink { path: String, target: String, reason: &'static str },
    #[error("symbolic link {0:?} in the image has no target, or one that is too long")]
    Symlink(String),
    #[error("links of the image's parts lead in a circle at {0:?}")]
    LinkLoop(String),
    #[error("{0:?} in the image is a sparse file or larger than 8 GiB")]
    Sparse(String),
    #[error("the image's {0} is not a directory, and a container needs one there")]
    MountPoint(&'static str),
}

#[cfg(test)]
mod tests;
