//! The code store: `data/code/<sha256>.zip` and, unpacked, `data/code/<sha256>/`.
//!
//! Owns: that directory and everything in it. Must not know: which functions there are; it asks.
//! A package is there when its directory is there: it is unpacked aside, flushed, and renamed into place last. What an
//! interrupted step leaves (names with a leading dot) is swept at open. Used by one thread only.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use faaster_function::record::{CodeRef, parse_hash};
use faaster_protocol::funclet::CodeHash;
use sha2::{Digest, Sha256};

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
         {needed_bytes}. Delete functions or versions; their code goes within a minute or two"
    )]
    OverBudget { held_bytes: u64, needed_bytes: u64, budget_bytes: u64 },
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
    /// Packages unpacked again because only the zip was there.
    pub restored: usize,
}

/// Whether [`CodeStore::remove`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    Yes,
    /// A deploy that is under way has it.
    Pinned,
}

/// The store. One per data directory, and one thread that uses it.
#[derive(Debug)]
pub struct CodeStore {
    root: PathBuf,
    /// Packages that deploys under way have put and the registry does not name yet.
    pins: HashMap<CodeHash, u32>,
    /// What each package takes, packed and unpacked, as far as it was looked at.
    sizes: HashMap<CodeHash, u64>,
    budget_bytes: u64,
    counters: Arc<CodeCounters>,
}

/// What others may look at while the store's thread works.
#[derive(Debug, Default)]
pub struct CodeCounters {
    held_bytes: AtomicU64,
    refused_total: AtomicU64,
}

impl CodeCounters {
    /// Bytes of all packages, packed and unpacked.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Packages refused for the budget.
    pub fn refused_total(&self) -> u64 {
        self.refused_total.load(Ordering::Relaxed)
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
        let (pins, sizes, counters) = (HashMap::new(), HashMap::new(), Arc::default());
        let mut store = Self { root: root.to_owned(), pins, sizes, budget_bytes: u64::MAX, counters };
        let swept = store.sweep(is_used)?;
        Ok((store, swept))
    }

    /// Refuses packages from now on with which all would take more than this.
    pub fn limit(&mut self, budget_bytes: u64) {
        self.budget_bytes = budget_bytes;
    }

    /// To be kept by who wants to look at them.
    pub fn counters(&self) -> Arc<CodeCounters> {
        self.counters.clone()
    }

    /// Finds out what packages take that were there at the open; until then they do not count. Looks at every file, so
    /// it is not done at the start.
    ///
    /// # Errors
    /// The disk refuses; what was looked at by then counts.
    pub fn measure(&mut self) -> Result<(), CodeError> {
        let failed = |source| CodeError::io("read", &self.root, source);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            found.extend(parse_hash(&name).filter(|hash| !self.sizes.contains_key(hash)));
        }
        for hash in found {
            // A merged package has none, and costs no more than its directories.
            let Ok(zip) = fs::metadata(self.zip_path(&hash)) else { continue };
            let files = self.unpacked_bytes(&hash)?;
            self.count(hash, files + zip.len());
        }
        Ok(())
    }

    fn count(&mut self, hash: CodeHash, bytes: u64) {
        let before = self.sizes.insert(hash, bytes).unwrap_or_default();
        self.counters.held_bytes.fetch_add(bytes, Ordering::Relaxed);
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
            self.count(hash, unpacked.bytes + code.bytes);
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
        let hash = tree_hash(packages);
        self.restore_tree(packages)?;
        *self.pins.entry(hash).or_default() += 1;
        Ok(hash)
    }

    /// Makes a merged package if it is not there.
    ///
    /// # Errors
    /// The disk refuses; then nothing is left of it.
    pub fn restore_tree(&mut self, packages: &[CodeHash]) -> Result<(), CodeError> {
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

    /// Bytes of a package's files, unpacked.
    ///
    /// # Errors
    /// It is not there or cannot be read.
    pub fn unpacked_bytes(&self, hash: &CodeHash) -> Result<u64, CodeError> {
        let directory = self.directory(hash);
        bytes_below(&directory).map_err(|source| CodeError::io("read", &directory, source))
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

    /// Removes a package. The caller knows that no function names it and no instance runs it.
    ///
    /// # Errors
    /// The disk refuses; what is left is swept at the next open.
    pub fn remove(&mut self, hash: &CodeHash) -> Result<Removed, CodeError> {
        if self.pins.contains_key(hash) {
            return Ok(Removed::Pinned);
        }
        // The directory goes first, in one step: without it the package is not there.
        let (directory, gone) = (self.directory(hash), self.aside(hash, "gone"));
        match fs::rename(&directory, &gone) {
            Ok(()) => remove_tree(&gone)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(CodeError::io("rename", &directory, source)),
        }
        remove_file(&self.zip_path(hash))?;
        if let Some(bytes) = self.sizes.remove(hash) {
            self.counters.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
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

    fn store_new(&self, hash: &CodeHash, bytes: &[u8]) -> Result<Unpacked, CodeError> {
        let (new_zip, new_directory) = (self.aside(hash, "zip"), self.aside(hash, "new"));
        let stored = self.store_aside(bytes, &new_zip, &new_directory).and_then(|unpacked| {
            // The zip before the directory: a directory that is there has its zip.
            rename(&new_zip, &self.zip_path(hash))?;
            rename(&new_directory, &self.directory(hash))?;
            flush_directory(&self.root)?;
            Ok(unpacked)
        });
        if stored.is_err() {
            // Best effort: what cannot be removed now is swept at the next open, and the first error is the one to tell.
            for error in
                [remove_tree(&new_directory), remove_file(&new_zip)].into_iter().filter_map(Result::err)
            {
                drop(error);
            }
            if !self.directory(hash).is_dir() {
                remove_file(&self.zip_path(hash)).unwrap_or_default();
            }
        }
        stored
    }

    fn store_aside(&self, bytes: &[u8], zip: &Path, directory: &Path) -> Result<Unpacked, CodeError> {
        let plan = plan(bytes)?;
        self.check_budget(plan.bytes() + bytes.len() as u64)?;
        remove_tree(directory)?;
        DirBuilder::new()
            .mode(0o755)
            .create(directory)
            .map_err(|source| CodeError::io("make the directory", directory, source))?;
        let unpacked = unpack(&plan, directory).map_err(|error| match error {
            UnpackError::Zip(error) => CodeError::Zip(error),
            UnpackError::Write { path, source } => CodeError::io("write", &path, source),
        })?;
        let written = |source| CodeError::io("write", zip, source);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).open(zip).map_err(written)?;
        file.write_all(bytes).map_err(written)?;
        file.sync_all().map_err(written)?;
        // One flush for all of the (up to 20,000) files; an fsync each would take a second per thousand.
        let root = open_directory(&self.root)?;
        rustix::fs::syncfs(&root).map_err(|errno| CodeError::io("flush", &self.root, errno.into()))?;
        Ok(unpacked)
    }

    fn check_budget(&self, needed_bytes: u64) -> Result<(), CodeError> {
        let (held_bytes, budget_bytes) = (self.counters.held_bytes(), self.budget_bytes);
        if held_bytes.saturating_add(needed_bytes) > budget_bytes {
            self.counters.refused_total.fetch_add(1, Ordering::Relaxed);
            return Err(CodeError::OverBudget { held_bytes, needed_bytes, budget_bytes });
        }
        Ok(())
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
            if !is_used(&hash) {
                if self.directory(&hash).is_dir() || name.ends_with(".zip") {
                    self.remove(&hash)?;
                    swept.unused += 1;
                }
            } else if !self.directory(&hash).is_dir() {
                let bytes = self.read_zip(&hash)?;
                self.store_new(&hash, &bytes)?;
                swept.restored += 1;
            }
        }
        Ok(swept)
    }
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
