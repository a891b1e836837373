//! What unpacking a zip would make, checked before anything is made.
//!
//! Owns: the rules for names, kinds, modes and links. Must not know: the disk.

use std::collections::BTreeMap;
use std::io::Read;

use faaster_limits::{UNZIPPED_BYTES_MAX, ZIP_BYTES_MAX, ZIP_ENTRIES_MAX, ZIP_PATH_BYTES_MAX};
use flate2::read::DeflateDecoder;

use super::ZipError;
use super::directory::{self, RawEntry, display};

/// Everything to make, parents before children. All paths are relative, with `/`, without `.`, `..` or empty parts.
#[derive(Debug)]
pub struct Plan<'z> {
    pub zip: &'z [u8],
    pub directories: Vec<String>,
    pub files: Vec<PlannedFile<'z>>,
    /// Path and target; every target exists in the plan and none leads out of it.
    pub links: Vec<(String, String)>,
}

impl Plan<'_> {
    /// Of all files, unpacked; what an entry claims is what unpacking keeps it to.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.entry.bytes).sum()
    }
}

/// A regular file.
#[derive(Debug)]
pub struct PlannedFile<'z> {
    pub path: String,
    pub executable: Executable,
    pub entry: RawEntry<'z>,
}

/// Whether a file gets mode 0755 or 0644. No other bit of the zip's mode is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executable {
    Yes,
    No,
}

enum Node<'z> {
    Directory,
    File(RawEntry<'z>, Executable),
    Link(String),
}

const TYPE_MASK: u32 = 0o170_000;
const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_LINK: u32 = 0o120_000;
const DOS_DIRECTORY: u32 = 0x10;
const FLAG_ENCRYPTED: u16 = 1 << 0;
const FLAG_STRONG: u16 = 1 << 6;
const FLAG_MASKED: u16 = 1 << 13;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// As in the kernel's path walk.
const LINKS_FOLLOWED_MAX: usize = 40;

/// Reads and checks a zip.
///
/// # Errors
/// The first rule that it breaks.
pub fn plan(zip: &[u8]) -> Result<Plan<'_>, ZipError> {
    if zip.len() > ZIP_BYTES_MAX {
        return Err(ZipError::TooLarge(zip.len()));
    }
    let entries = directory::entries(zip)?;
    let stated: u64 = entries.iter().fold(0, |sum, entry| sum.saturating_add(entry.bytes));
    if stated > UNZIPPED_BYTES_MAX {
        return Err(ZipError::Bomb);
    }
    let mut nodes: BTreeMap<String, Node<'_>> = BTreeMap::new();
    for entry in entries {
        check_readable(&entry)?;
        let path = path_of(&entry)?;
        let node = node_of(zip, &entry, &path)?;
        // "./" alone is the top level, which is there anyway.
        if !path.is_empty() {
            insert(&mut nodes, path, node)?;
        }
    }
    for (path, node) in &nodes {
        if let Node::Link(target) = node {
            check_link(&nodes, path, target)?;
        }
    }
    let mut plan = Plan { zip, directories: Vec::new(), files: Vec::new(), links: Vec::new() };
    for (path, node) in nodes {
        match node {
            Node::Directory => plan.directories.push(path),
            Node::File(entry, executable) => plan.files.push(PlannedFile { path, executable, entry }),
            Node::Link(target) => plan.links.push((path, target)),
        }
    }
    if plan.files.is_empty() { Err(ZipError::Empty) } else { Ok(plan) }
}

fn check_readable(entry: &RawEntry<'_>) -> Result<(), ZipError> {
    if entry.flags & (FLAG_ENCRYPTED | FLAG_STRONG | FLAG_MASKED) != 0 {
        return Err(ZipError::Encrypted(display(entry.name)));
    }
    match entry.method {
        STORED | DEFLATED => Ok(()),
        other => Err(ZipError::Method(display(entry.name), other)),
    }
}

/// Made on a system whose separator is the backslash: MS-DOS, OS/2, NTFS, VFAT.
fn is_windows(host: u8) -> bool {
    matches!(host, 0 | 6 | 10 | 11 | 14)
}

fn path_of(entry: &RawEntry<'_>) -> Result<String, ZipError> {
    if entry.name.len() > ZIP_PATH_BYTES_MAX {
        return Err(ZipError::LongName(display(entry.name)));
    }
    let name = std::str::from_utf8(entry.name).map_err(|_| ZipError::NotUtf8(display(entry.name)))?;
    let shown = || display(entry.name);
    let name = match (name.contains('\\'), is_windows(entry.host)) {
        (true, true) => name.replace('\\', "/"),
        // On Unix a backslash may be part of a name, but rather it is another zip made on Windows.
        (true, false) => return Err(ZipError::Backslash(shown())),
        (false, _) => name.to_owned(),
    };
    let has_drive = is_windows(entry.host) && name.as_bytes().get(1) == Some(&b':');
    if name.starts_with('/') || has_drive {
        return Err(ZipError::Absolute(shown()));
    }
    if name.is_empty() || name.contains('\0') {
        return Err(ZipError::BadName(shown()));
    }
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(ZipError::Traversal(shown())),
            part if part.len() > 255 => return Err(ZipError::BadName(shown())),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

fn node_of<'z>(zip: &'z [u8], entry: &RawEntry<'z>, path: &str) -> Result<Node<'z>, ZipError> {
    let mode = entry.external_attributes >> 16;
    let ends_as_directory = matches!(entry.name.last(), Some(b'/' | b'\\'));
    let kind = match mode & TYPE_MASK {
        // A maker that gives no mode, or permissions alone.
        0 if ends_as_directory || entry.external_attributes & DOS_DIRECTORY != 0 => TYPE_DIRECTORY,
        0 => TYPE_FILE,
        kind => kind,
    };
    match kind {
        TYPE_DIRECTORY => Ok(Node::Directory),
        TYPE_FILE if ends_as_directory => Ok(Node::Directory),
        TYPE_FILE => {
            // The zip's own way to say "executable" is missing in zips from Windows; a bootstrap is of no use without.
            let executable =
                if mode & 0o111 != 0 || path == "bootstrap" { Executable::Yes } else { Executable::No };
            Ok(Node::File(*entry, executable))
        }
        TYPE_LINK => Ok(Node::Link(link_target(zip, entry)?)),
        _ => Err(ZipError::Special(display(entry.name))),
    }
}

fn link_target(zip: &[u8], entry: &RawEntry<'_>) -> Result<String, ZipError> {
    let damaged = |what| ZipError::Damaged(display(entry.name), what);
    let data = directory::data(zip, entry)?;
    let limit = ZIP_PATH_BYTES_MAX as u64 + 1;
    let mut target = Vec::new();
    let read = if entry.method == DEFLATED {
        DeflateDecoder::new(data).take(limit).read_to_end(&mut target)
    } else {
        data.take(limit).read_to_end(&mut target)
    };
    read.map_err(|_| damaged("it cannot be inflated"))?;
    if target.len() > ZIP_PATH_BYTES_MAX {
        return Err(damaged("its target is too long"));
    }
    String::from_utf8(target).map_err(|_| damaged("its target is not UTF-8"))
}

fn insert<'z>(nodes: &mut BTreeMap<String, Node<'z>>, path: String, node: Node<'z>) -> Result<(), ZipError> {
    for (at, _) in path.match_indices('/') {
        match nodes.get(&path[..at]) {
            Some(Node::Directory) => {}
            Some(_) => return Err(ZipError::BelowFile(path)),
            None => {
                nodes.insert(path[..at].to_owned(), Node::Directory);
            }
        }
    }
    match (nodes.get(&path), &node) {
        (None, _) => {
            nodes.insert(path, node);
        }
        (Some(Node::Directory), Node::Directory) => {}
        (Some(_), _) => return Err(ZipError::Duplicate(path)),
    }
    // Directories that only names imply count as well, else a few long names make millions.
    if nodes.len() > ZIP_ENTRIES_MAX { Err(ZipError::TooManyEntries) } else { Ok(()) }
}

/// Walks a link's target inside the plan, through other links, as the kernel would.
fn check_link(nodes: &BTreeMap<String, Node<'_>>, path: &str, target: &str) -> Result<(), ZipError> {
    let refused = |why| Err(ZipError::Link(path.to_owned(), target.to_owned(), why));
    if target.starts_with('/') {
        return refused("which is absolute; only targets inside of the zip are allowed");
    }
    if target.is_empty() || target.contains('\0') {
        return refused("which is no path");
    }
    let mut here: Vec<String> = path.split('/').map(str::to_owned).collect();
    here.pop();
    // Parts still to walk, the next one last.
    let mut ahead: Vec<String> = target.split('/').rev().map(str::to_owned).collect();
    let mut followed = 0;
    while let Some(part) = ahead.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                if here.pop().is_none() {
                    return refused("which leads out of the zip");
                }
                continue;
            }
            _ => here.push(part),
        }
        match nodes.get(&here.join("/")) {
            Some(Node::Directory) => {}
            Some(Node::File(..)) if ahead.iter().all(|part| part.is_empty() || part == ".") => {}
            Some(Node::Link(next)) => {
                followed += 1;
                if followed > LINKS_FOLLOWED_MAX {
                    return refused("which leads through too many links");
                }
                if next.starts_with('/') {
                    return refused("which leads through an absolute link");
                }
                here.pop();
                ahead.extend(next.split('/').rev().map(str::to_owned));
            }
            Some(Node::File(..)) | None => return refused("which is not in the zip"),
        }
    }
    Ok(())
}
