//! Logs of functions on disk: `data/logs/<function>/<number>.log`, one JSON object a line.
//!
//! Owns: that directory, what it may hold for one function and for all, and which part goes first. Must not know: what a
//! line says. Used by one thread only.
//!
//! A function's log is cut into segments, numbered over all functions in the order in which they were begun; only the
//! last one of a function is written to. Whatever is over a budget goes by whole segments, the oldest first. Nothing is
//! flushed: a log that outlives a crash of the engine but not of the machine is what it is kept for.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use faaster_limits::{LOG_FUNCTIONS_ON_DISK_MAX, LOG_SEGMENTS_PER_FUNCTION};

/// What logs may take on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBudget {
    /// Of all functions; 0: nothing is kept.
    pub bytes: u64,
    pub per_function_bytes: u64,
}

/// Why the directory of logs cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {path}")]
pub struct LogError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    move |source| LogError { step, path: path.to_owned(), source }
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    number: u64,
    bytes: u64,
    /// Of these, what an earlier engine wrote.
    earlier_bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct LogStore {
    root: PathBuf,
    budget: LogBudget,
    functions: BTreeMap<String, VecDeque<Segment>>,
    bytes: u64,
    removed_bytes: u64,
    next_number: u64,
}

impl LogStore {
    /// Opens the directory, made if it is not there, with what an earlier engine left in it.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn open(root: &Path, budget: LogBudget) -> Result<Self, LogError> {
        let mut make = DirBuilder::new();
        make.recursive(true).mode(0o700).create(root).map_err(failed("make the directory", root))?;
        let root = root.to_owned();
        let functions = BTreeMap::new();
        let mut store = Self { root, budget, functions, bytes: 0, removed_bytes: 0, next_number: 0 };
        store.find_all()?;
        // Budgets may have been made smaller.
        let names: Vec<String> = store.functions.keys().cloned().collect();
        names.iter().try_for_each(|function| store.keep_own_budget(function))?;
        store.keep_budget()?;
        Ok(store)
    }

    /// Adds a line, which ends in a line feed, to a function's log. A line that is larger than a segment is not kept.
    ///
    /// # Errors
    /// The disk refuses; nothing of the line is kept then.
    pub fn append(&mut self, function: &str, line: &[u8]) -> Result<Kept, LogError> {
        let bytes = line.len() as u64;
        if !is_name(function) || bytes > self.segment_bytes() || bytes > self.budget.bytes {
            return Ok(Kept::No);
        }
        let last = self.functions.get(function).and_then(VecDeque::back);
        let number = match last.filter(|last| last.bytes + bytes <= self.segment_bytes()) {
            Some(last) => last.number,
            None => self.begin_segment(function)?,
        };
        let path = self.path(function, number);
        let mut open = OpenOptions::new();
        let mut file = open
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(&path)
            .map_err(failed("open", &path))?;
        // What a full disk left half done is cut off again: every line is whole.
        let before = self.segment(function).bytes;
        if let Err(source) = file.write_all(line) {
            file.set_len(before).map_err(failed("cut", &path))?;
            return Err(failed("write", &path)(source));
        }
        self.segment(function).bytes += bytes;
        self.bytes += bytes;
        self.keep_own_budget(function)?;
        self.keep_budget()?;
        Ok(Kept::Yes)
    }

    /// The last lines of a function that earlier engines wrote, whole ones, in at most so many bytes.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn earlier(&self, function: &str, bytes_max: u64) -> Result<Vec<u8>, LogError> {
        let mut parts = Vec::new();
        let (mut left, mut cut) = (bytes_max, false);
        for segment in self.functions.get(function).into_iter().flatten().rev() {
            let length = segment.earlier_bytes.min(left);
            let from = segment.earlier_bytes - length;
            if length > 0 {
                parts.push(self.read_part(function, segment.number, from, length)?);
            }
            left -= length;
            if from > 0 {
                cut = true;
                break;
            }
        }
        let mut lines: Vec<u8> = parts.into_iter().rev().flatten().collect();
        if cut {
            // The first one lacks its beginning, or may.
            let rest = lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |at| at + 1);
            lines.drain(..rest);
        }
        Ok(lines)
    }

    fn read_part(&self, function: &str, number: u64, from: u64, length: u64) -> Result<Vec<u8>, LogError> {
        let path = self.path(function, number);
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(no_follow())
            .open(&path)
            .map_err(failed("open", &path))?;
        file.seek(SeekFrom::Start(from)).map_err(failed("read", &path))?;
        let mut part = Vec::new();
        file.take(length).read_to_end(&mut part).map_err(failed("read", &path))?;
        Ok(part)
    }

    /// On disk now.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Removed for a budget since the start.
    pub fn removed_bytes(&self) -> u64 {
        self.removed_bytes
    }

    fn segment_bytes(&self) -> u64 {
        self.budget.per_function_bytes / LOG_SEGMENTS_PER_FUNCTION
    }

    fn segment(&mut self, function: &str) -> &mut Segment {
        self.functions.get_mut(function).and_then(VecDeque::back_mut).expect("a segment was begun")
    }

    fn path(&self, function: &str, number: u64) -> PathBuf {
        self.root.join(function).join(format!("{number:020}.log"))
    }

    fn begin_segment(&mut self, function: &str) -> Result<u64, LogError> {
        let folder = self.root.join(function);
        let mut make = DirBuilder::new();
        make.recursive(true).mode(0o700).create(&folder).map_err(failed("make the directory", &folder))?;
        let number = self.next_number;
        self.next_number += 1;
        self.functions.entry(function.to_owned()).or_default().push_back(Segment {
            number,
            bytes: 0,
            earlier_bytes: 0,
        });
        Ok(number)
    }

    /// Removes oldest segments of a function until it keeps its budget.
    fn keep_own_budget(&mut self, function: &str) -> Result<(), LogError> {
        let bytes = |store: &Self| {
            store
                .functions
                .get(function)
                .map_or(0, |segments| segments.iter().map(|it| it.bytes).sum::<u64>())
        };
        while bytes(self) > self.budget.per_function_bytes {
            self.remove_oldest_of(function)?;
        }
        Ok(())
    }

    /// Removes the oldest segments of all until the node's budget is kept.
    fn keep_budget(&mut self) -> Result<(), LogError> {
        while self.bytes > self.budget.bytes || self.functions.len() > LOG_FUNCTIONS_ON_DISK_MAX {
            let age = |segments: &VecDeque<Segment>| segments.front().map_or(u64::MAX, |it| it.number);
            let oldest = self.functions.iter().min_by_key(|(_, segments)| age(segments));
            let Some(function) = oldest.map(|(name, _)| name.clone()) else { break };
            self.remove_oldest_of(&function)?;
        }
        Ok(())
    }

    fn remove_oldest_of(&mut self, function: &str) -> Result<(), LogError> {
        let Some(segments) = self.functions.get_mut(function) else { return Ok(()) };
        if let Some(oldest) = segments.pop_front() {
            self.bytes -= oldest.bytes;
            self.removed_bytes += oldest.bytes;
            let path = self.path(function, oldest.number);
            remove(fs::remove_file(&path), &path)?;
        }
        if self.functions.get(function).is_some_and(VecDeque::is_empty) {
            self.functions.remove(function);
            let folder = self.root.join(function);
            remove(fs::remove_dir(&folder), &folder)?;
        }
        Ok(())
    }

    /// Looks at what is there. Anything that is not ours stays and does not count.
    fn find_all(&mut self) -> Result<(), LogError> {
        let root = self.root.clone();
        for entry in fs::read_dir(&root).map_err(failed("read", &root))? {
            let entry = entry.map_err(failed("read", &root))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !is_name(&name) || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let mut segments = segments_of(&entry.path())?;
            segments.sort_by_key(|segment| segment.number);
            if let Some(last) = segments.last() {
                self.next_number = self.next_number.max(last.number + 1);
                self.bytes += segments.iter().map(|segment| segment.bytes).sum::<u64>();
                self.functions.insert(name, segments.into());
            }
        }
        Ok(())
    }
}

/// Whether a line is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    Yes,
    No,
}

fn no_follow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).expect("a flag of open(2)")
}

/// Names that are one component of a path and cannot be anything else.
fn is_name(function: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':');
    !function.is_empty() && function.len() <= 255 && function.bytes().all(good)
}

fn segments_of(folder: &Path) -> Result<Vec<Segment>, LogError> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed("read", folder))? {
        let entry = entry.map_err(failed("read", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(number) = name.strip_suffix(".log").filter(|digits| digits.len() == 20) else { continue };
        // The last one is never begun by anybody, so that numbers can go on.
        let Some(number) = number.parse().ok().filter(|number| *number < u64::MAX) else { continue };
        let found = entry.metadata().map_err(failed("look at", &entry.path()))?;
        if found.is_file() {
            segments.push(Segment { number, bytes: found.len(), earlier_bytes: found.len() });
        }
    }
    Ok(segments)
}

/// Not there is as good as removed; a folder that holds something else stays.
fn remove(result: io::Result<()>, path: &Path) -> Result<(), LogError> {
    match result {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(failed("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
