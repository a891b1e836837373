//! The code store: `data/code/<sha256>.zip` and, unpacked, `data/code/<sha256>/`.
//!
//! Owns: that directory and everything in it. Must not know: which functions there are; it asks.
//! A package is stored when its zip is there, and can be mounted when its directory is: it is unpacked aside, flushed, and
//! renamed into place last. What an interrupted step leaves (names with a leading dot) is swept at open. Used by one thread only.

mod choice;
mod room;

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use faaster_function::code_use::CodeUses;
use faaster_function::record::{CodeRef, parse_hash};
use faaster_protocol::funclet::CodeHash;
use sha2::{Digest, Sha256};

pub use room::Resting;

use crate::tree;
use crate::zip::unpack::{UnpackError, Unpacked, unpack};
use crate::zip::{ZipError, plan::plan};

/// Why code could not be stored, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// The uploader's mistake.
    #[error(transparent)]
    Zip(#[from] ZipError),
    #[error("no space left on the device while writing {path}; free some, or move the data directory")]
    DiskFull { path: PathBuf },
    #[error(
        "code on this node takes {held_bytes} bytes and may take {budget_bytes} (code_disk): this package would need \
         {needed_bytes}, and what is not in use does not make room for it. Delete functions or versions; their code goes within \
         a minute or two"
    )]
    OverBudget { held_bytes: u64, needed_bytes: u64, budget_bytes: u64 },
    #[error("package is being removed; try again")]
    Leaving,
    #[error("cannot {step} {path}")]
    Io { step: &'static str, path: PathBuf, source: io::Error },
}

impl CodeError {
    fn io(step: &'static str, path: &Path, source: io::Error) -> Self {
        // EDQUOT, a quota, is a full disk to the user.
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.to_owned() }
            }
            _ => Self::Io { step, path: path.to_owned(), source },
        }
    }
}

/// A package that is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredCode {
    pub code: CodeRef,
    /// `None`: the very same package was there before.
    pub unpacked: Option<Unpacked>,
}

/// What [`CodeStore::open`] found and removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Of interrupted steps.
    pub leftovers: usize,
    /// Packages that no function uses.
    pub unused: usize,
}

/// Whether [`CodeStore::remove`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    Yes,
    /// A deploy that is under way has it.
    Pinned,
    /// An instance runs it, or is about to.
    InUse,
}

/// What is known of a package.
#[derive(Debug, Clone, Copy)]
struct Held {
    packed: u64,
    /// `None`: it is not unpacked.
    unpacked: Option<u64>,
    /// Its last use, as far as it is written down: the time of its zip.
    used: SystemTime,
}

impl Held {
    fn bytes(&self) -> u64 {
        self.packed + self.unpacked.unwrap_or_default()
    }
}

/// The store. One per data directory, and one thread that uses it.
#[derive(Debug)]
pub struct CodeStore {
    root: PathBuf,
    /// Packages that deploys under way have put and the registry does not name yet.
    pins: HashMap<CodeHash, u32>,
    /// Packages with a zip, as far as they were looked at.
    held: HashMap<CodeHash, Held>,
    measured: Measured,
    /// What each merged package is made of.
    trees: HashMap<CodeHash, Vec<CodeHash>>,
    uses: Arc<CodeUses>,
    budget_bytes: u64,
    counters: Arc<CodeCounters>,
}

/// Whether what was there at the open has been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measured {
    NotYet,
    Yes,
}

/// What others may look at while the store's thread works.
#[derive(Debug, Default)]
pub struct CodeCounters {
    held_bytes: AtomicU64,
    refused_total: AtomicU64,
    evicted_total: AtomicU64,
    unpacked_again_total: AtomicU64,
    instances_ended_total: AtomicU64,
}

impl CodeCounters {
    /// Bytes of all packages, packed and unpacked.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Uploads and calls refused for the budget.
    pub fn refused_total(&self) -> u64 {
        self.refused_total.load(Ordering::Relaxed)
    }

    /// To be called by who refuses one.
    pub fn refused(&self) {
        add_one(&self.refused_total);
    }

    /// Packages whose unpacked form was removed, for room or for its age.
    pub fn evicted_total(&self) -> u64 {
        self.evicted_total.load(Ordering::Relaxed)
    }

    /// Packages unpacked again for a call or a deploy.
    pub fn unpacked_again_total(&self) -> u64 {
        self.unpacked_again_total.load(Ordering::Relaxed)
    }

    /// Instances without a call that were ended so that their code could go.
    pub fn instances_ended_total(&self) -> u64 {
        self.instances_ended_total.load(Ordering::Relaxed)
    }

    /// To be called by who ends one.
    pub fn instance_ended(&self) {
        add_one(&self.instances_ended_total);
    }
}

impl CodeStore {
    /// Opens `data/code`, made if it is not there, and puts it in order: only whole packages that `is_used` stay.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn open(root: &Path, is_used: impl Fn(&CodeHash) -> bool) -> Result<(Self, Swept), CodeError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(root)
            .map_err(|source| CodeError::io("make the directory", root, source))?;
        let mut store = Self {
            root: root.to_owned(),
            pins: HashMap::new(),
            held: HashMap::new(),
            measured: Measured::NotYet,
            trees: HashMap::new(),
            uses: Arc::default(),
            budget_bytes: u64::MAX,
            counters: Arc::default(),
        };
        let swept = store.sweep(is_used)?;
        Ok((store, swept))
    }

    /// From now on all packages together take no more than this: unpacked ones that are not in use go, and what finds no
    /// room all the same is refused.
    pub fn limit(&mut self, budget_bytes: u64) {
        self.budget_bytes = budget_bytes;
    }

    /// To be kept by who wants to look at them.
    pub fn counters(&self) -> Arc<CodeCounters> {
        self.counters.clone()
    }

    /// Finds out what packages take that were there at the open; until then they do not count. Looks at every file, so
    /// it is not done at the start, but before the first decision that needs it.
    ///
    /// # Errors
    /// The disk refuses; what was looked at by then counts.
    pub fn measure(&mut self) -> Result<(), CodeError> {
        if self.measured == Measured::Yes {
            return Ok(());
        }
        let failed = |source| CodeError::io("read", &self.root, source);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            // A merged package has no zip, and costs no more than its directories.
            found.extend(name.strip_suffix(".zip").and_then(parse_hash));
        }
        found.retain(|hash| !self.held.contains_key(hash));
        for hash in found {
            let zip = self.zip_path(&hash);
            let looked = |source| CodeError::io("look at", &zip, source);
            let packed = fs::metadata(&zip).map_err(looked)?;
            let used = packed.modified().map_err(looked)?;
            let directory = self.directory(&hash);
            let unpacked = match bytes_below(&directory) {
                Ok(bytes) => Some(bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(source) => return Err(CodeError::io("read", &directory, source)),
            };
            self.count(hash, Held { packed: packed.len(), unpacked, used });
        }
        self.measured = Measured::Yes;
        Ok(())
    }

    fn count(&mut self, hash: CodeHash, held: Held) {
        let before = self.held.insert(hash, held).map_or(0, |before| before.bytes());
        self.counters.held_bytes.fetch_add(held.bytes(), Ordering::Relaxed);
        self.counters.held_bytes.fetch_sub(before, Ordering::Relaxed);
    }

    /// Stores a zip and unpacks it; cheap if the very same one is there. Pins it until [`Self::unpin`], so that it is
    /// not removed before the registry names it.
    ///
    /// # Errors
    /// The zip breaks a rule, or the disk refuses; then nothing is left of it.
    pub fn put_zip(&mut self, bytes: &[u8]) -> Result<StoredCode, CodeError> {
        if bytes.len() > faaster_limits::ZIP_BYTES_MAX {
            return Err(ZipError::TooLarge(bytes.len()).into());
        }
        let hash = CodeHash(Sha256::digest(bytes).into());
        let code = CodeRef { sha256: hash, bytes: bytes.len() as u64 };
        let unpacked =
            if self.directory(&hash).is_dir() { None } else { Some(self.store_new(&hash, bytes)?) };
        if let Some(unpacked) = unpacked {
            let unpacked = Some(unpacked.bytes);
            self.count(hash, Held { packed: code.bytes, unpacked, used: SystemTime::now() });
        }
        *self.pins.entry(hash).or_default() += 1;
        Ok(StoredCode { code, unpacked })
    }

    /// Merges packages that are here into one, the later over the earlier, and pins it like [`Self::put_zip`]. One alone is
    /// its own.
    ///
    /// # Errors
    /// The disk refuses; then nothing is left of it.
    pub fn put_tree(&mut self, packages: &[CodeHash]) -> Result<CodeHash, CodeError> {
        let is_new = !self.trees.contains_key(&tree_hash(packages));
        let hash = self.know_tree(packages);
        if let Err(error) = self.restore_tree(packages) {
            // Nobody else has named it, and now nobody will.
            if is_new {
                self.trees.remove(&hash);
            }
            return Err(error);
        }
        *self.pins.entry(hash).or_default() += 1;
        Ok(hash)
    }

    /// Takes note of what a merged package is made of, so that it can be made when it is wanted.
    pub fn know_tree(&mut self, packages: &[CodeHash]) -> CodeHash {
        let hash = tree_hash(packages);
        if packages.len() > 1 {
            self.trees.insert(hash, packages.to_vec());
        }
        hash
    }

    fn make_tree(&self, packages: &[CodeHash]) -> Result<(), CodeError> {
        let hash = tree_hash(packages);
        let (aside, place) = (self.aside(&hash, "new"), self.directory(&hash));
        if place.is_dir() {
            return Ok(());
        }
        let made = self.merge(packages, &aside).and_then(|()| {
            let root = open_directory(&self.root)?;
            rustix::fs::syncfs(&root).map_err(|errno| CodeError::io("flush", &self.root, errno.into()))?;
            rename(&aside, &place)?;
            flush_directory(&self.root)
        });
        if made.is_err() {
            // Best effort: what cannot be removed now is swept at the next open.
            remove_tree(&aside).unwrap_or_default();
        }
        made
    }

    fn merge(&self, packages: &[CodeHash], aside: &Path) -> Result<(), CodeError> {
        remove_tree(aside)?;
        DirBuilder::new()
            .mode(0o755)
            .create(aside)
            .map_err(|source| CodeError::io("make the directory", aside, source))?;
        for package in packages {
            tree::lay_over(&self.directory(package), aside)
                .map_err(|failed| CodeError::io(failed.step, &failed.path, failed.source))?;
        }
        Ok(())
    }

    /// Ends a pin of [`Self::put_zip`] or [`Self::put_tree`].
    pub fn unpin(&mut self, hash: &CodeHash) {
        if let Some(count) = self.pins.get_mut(hash) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(hash);
            }
        }
    }

    /// Removes a package, unless it is in use. The caller knows that no function names it.
    ///
    /// # Errors
    /// The disk refuses; what is left is swept at the next open.
    pub fn remove(&mut self, hash: &CodeHash) -> Result<Removed, CodeError> {
        if self.pins.contains_key(hash) {
            return Ok(Removed::Pinned);
        }
        let uses = self.uses.clone();
        let Some(_leaving) = uses.leave([hash]) else { return Ok(Removed::InUse) };
        self.remove_unpacked(hash)?;
        remove_file(&self.zip_path(hash))?;
        self.trees.remove(hash);
        if let Some(held) = self.held.remove(hash) {
            self.counters.held_bytes.fetch_sub(held.bytes(), Ordering::Relaxed);
        }
        Ok(Removed::Yes)
    }

    /// The zip as it was uploaded.
    ///
    /// # Errors
    /// It is not there or cannot be read.
    pub fn read_zip(&self, hash: &CodeHash) -> Result<Vec<u8>, CodeError> {
        let path = self.zip_path(hash);
        fs::read(&path).map_err(|source| CodeError::io("read", &path, source))
    }

    /// `data/code/<sha256>.zip`
    pub fn zip_path(&self, hash: &CodeHash) -> PathBuf {
        self.root.join(format!("{hash}.zip"))
    }

    /// `data/code/<sha256>/`
    pub fn directory(&self, hash: &CodeHash) -> PathBuf {
        self.root.join(hash.to_string())
    }

    fn aside(&self, hash: &CodeHash, what: &str) -> PathBuf {
        self.root.join(format!(".{what}-{hash}"))
    }

    fn store_new(&mut self, hash: &CodeHash, bytes: &[u8]) -> Result<Unpacked, CodeError> {
        let zip = self.aside(hash, "zip");
        let new_bytes = if self.zip_path(hash).is_file() { 0 } else { bytes.len() as u64 };
        // What is no package is refused before anything goes for it.
        self.make_room(plan(bytes)?.bytes() + new_bytes)?;
        let stored = write_file(&zip, bytes).and_then(|()| {
            // The zip before the directory: a directory that is there has its zip.
            rename(&zip, &self.zip_path(hash))?;
            self.unpack_aside(hash, bytes)
        });
        if stored.is_err() {
            // Best effort: what cannot be removed now is swept at the next open, and the first error is the one to tell.
            remove_file(&zip).unwrap_or_default();
            if new_bytes > 0 {
                remove_file(&self.zip_path(hash)).unwrap_or_default();
            }
        }
        stored
    }

    /// Unpacks a package whose zip is stored, after room was made for it.
    fn unpack_stored(&mut self, hash: &CodeHash, bytes: &[u8]) -> Result<Unpacked, CodeError> {
        self.make_room(plan(bytes)?.bytes())?;
        self.unpack_aside(hash, bytes)
    }

    /// Unpacks, flushes, and puts into place. On an error nothing is left of it.
    fn unpack_aside(&self, hash: &CodeHash, bytes: &[u8]) -> Result<Unpacked, CodeError> {
        let aside = self.aside(hash, "new");
        let unpacked = self.unpack_into(bytes, &aside).and_then(|unpacked| {
            rename(&aside, &self.directory(hash))?;
            flush_directory(&self.root)?;
            Ok(unpacked)
        });
        if unpacked.is_err() {
            // Best effort, as above.
            remove_tree(&aside).unwrap_or_default();
        }
        unpacked
    }

    fn unpack_into(&self, bytes: &[u8], directory: &Path) -> Result<Unpacked, CodeError> {
        let plan = plan(bytes)?;
        remove_tree(directory)?;
        DirBuilder::new()
            .mode(0o755)
            .create(directory)
            .map_err(|source| CodeError::io("make the directory", directory, source))?;
        let unpacked = unpack(&plan, directory).map_err(|error| match error {
            UnpackError::Zip(error) => CodeError::Zip(error),
            UnpackError::Write { path, source } => CodeError::io("write", &path, source),
        })?;
        // One flush for all of the (up to 20,000) files; an fsync each would take a second per thousand.
        let root = open_directory(&self.root)?;
        rustix::fs::syncfs(&root).map_err(|errno| CodeError::io("flush", &self.root, errno.into()))?;
        Ok(unpacked)
    }

    fn sweep(&mut self, is_used: impl Fn(&CodeHash) -> bool) -> Result<Swept, CodeError> {
        let mut swept = Swept::default();
        let root = self.root.clone();
        let failed = |source| CodeError::io("read", &root, source);
        for entry in fs::read_dir(&root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_leftover = [".zip-", ".new-", ".gone-"].iter().any(|prefix| name.starts_with(prefix));
            if is_leftover {
                remove_tree(&entry.path())?;
                remove_file(&entry.path())?;
                swept.leftovers += 1;
                continue;
            }
            // Anything else that is not ours stays: the directory is the operator's as well.
            let Some(hash) = name.strip_suffix(".zip").or(Some(&name)).and_then(parse_hash) else { continue };
            let is_there = self.directory(&hash).is_dir() || self.zip_path(&hash).is_file();
            if is_there && !is_used(&hash) {
                self.remove(&hash)?;
                swept.unused += 1;
            }
        }
        Ok(swept)
    }
}

fn add_one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Whole and on the disk, or an error.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CodeError> {
    let written = |source| CodeError::io("write", path, source);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(written)?;
    file.write_all(bytes).map_err(written)?;
    file.sync_all().map_err(written)
}

fn rename(from: &Path, to: &Path) -> Result<(), CodeError> {
    fs::rename(from, to).map_err(|source| CodeError::io("rename", from, source))
}

/// What names the merge of these packages, in this order.
fn tree_hash(packages: &[CodeHash]) -> CodeHash {
    if let [alone] = packages {
        return *alone;
    }
    let mut hash = Sha256::new_with_prefix(b"faaster layers\n");
    packages.iter().for_each(|package| hash.update(package.0));
    CodeHash(hash.finalize().into())
}

/// Of all files; links count for nothing and are not followed.
fn bytes_below(folder: &Path) -> io::Result<u64> {
    let mut ahead = vec![folder.to_owned()];
    let mut bytes = 0;
    while let Some(folder) = ahead.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            // Not followed, as an entry's always is.
            let found = entry.metadata()?;
            if found.is_dir() {
                ahead.push(entry.path());
            } else if found.is_file() {
                bytes += found.len();
            }
        }
    }
    Ok(bytes)
}

/// Not there is as good as removed.
fn remove_tree(path: &Path) -> Result<(), CodeError> {
    match fs::remove_dir_all(path) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(CodeError::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Not there is as good as removed.
fn remove_file(path: &Path) -> Result<(), CodeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CodeError::io("remove", path, error)),
        _ => Ok(()),
    }
}

fn open_directory(path: &Path) -> Result<File, CodeError> {
    File::open(path).map_err(|source| CodeError::io("open", path, source))
}

fn flush_directory(path: &Path) -> Result<(), CodeError> {
    open_directory(path)?.sync_all().map_err(|source| CodeError::io("flush", path, source))
}

#[cfg(test)]
#[path = "code_tests.rs"]
mod tests;
