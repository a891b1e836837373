//! A function's code on its way to the engine: a folder becomes a zip, and says what it is written in.
//!
//! Owns: packing and guessing. Must not know: the API. The engine checks everything again.

use std::fs;
use std::io::{self, Cursor, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use faaster_limits as limits;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

/// Folders and files of the name are not packed.
const IGNORED: [&str; 4] = [".git", ".faasterignore", "__pycache__", ".DS_Store"];
/// Lists more of them, one per line; `*` stands for any characters within a name.
const IGNORE_FILE: &str = ".faasterignore";

/// Why there is no package.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackageError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{0} is neither a folder nor a zip file")]
    NoCode(PathBuf),
    #[error("{0} holds no file to deploy")]
    Empty(PathBuf),
    #[error("{path} is a link to something outside of the folder; copy it in, or list it in .faasterignore")]
    LinkOut { path: PathBuf },
    #[error("{path} is neither a file nor a folder; list it in .faasterignore")]
    Special { path: PathBuf },
    #[error("the folder has more than {max} files", max = limits::ZIP_ENTRIES_MAX)]
    TooMany,
    #[error("the files have more than {} MiB together", limits::UNZIPPED_BYTES_MAX >> 20)]
    TooLarge,
    #[error("the zip has {0} bytes; the engine takes at most {max}", max = limits::ZIP_BYTES_MAX)]
    ZipTooLarge(usize),
    #[error("cannot make the zip: {0}")]
    Zip(#[from] zip::result::ZipError),
}

/// A function's code, packed.
#[derive(Debug)]
pub(crate) struct Package {
    pub zip: Vec<u8>,
    pub files: usize,
    pub guess: Guess,
}

/// What the files say about how they want to be run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Guess {
    pub runtime: Option<&'static str>,
    pub handler: Option<String>,
}

/// Packs a folder, or takes a zip as it is. `packed` is called with the bytes of every file that was packed.
///
/// # Errors
/// What is wrong with the code, as far as it can be seen here.
pub(crate) fn package(path: &Path, packed: &mut dyn FnMut(u64)) -> Result<Package, PackageError> {
    let found = fs::metadata(path).map_err(|source| PackageError::Read { path: path.to_owned(), source })?;
    let package = if found.is_dir() { pack_folder(path, packed)? } else { take_zip(path)? };
    if package.zip.len() > limits::ZIP_BYTES_MAX {
        return Err(PackageError::ZipTooLarge(package.zip.len()));
    }
    Ok(package)
}

fn take_zip(path: &Path) -> Result<Package, PackageError> {
    let read = |source| PackageError::Read { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(read)?.len();
    if size > limits::ZIP_BYTES_MAX as u64 {
        return Err(PackageError::ZipTooLarge(usize::try_from(size).unwrap_or(usize::MAX)));
    }
    let zip = fs::read(path).map_err(read)?;
    let mut archive =
        ZipArchive::new(Cursor::new(&zip)).map_err(|_| PackageError::NoCode(path.to_owned()))?;
    let mut tops = Vec::new();
    for index in 0..archive.len() {
        let Ok(mut file) = archive.by_index(index) else { continue };
        let Ok(name) = file.name().map(|name| name.into_owned()) else { continue };
        if file.is_file() && !name.contains('/') {
            let mut text = Vec::new();
            let head = io::copy(&mut io::Read::take(&mut file, GUESS_BYTES_MAX), &mut text);
            tops.push((name, if head.is_ok() { text } else { Vec::new() }));
        }
    }
    let files = archive.len();
    drop(archive);
    Ok(Package { zip, files, guess: guess(&tops) })
}

fn pack_folder(folder: &Path, packed: &mut dyn FnMut(u64)) -> Result<Package, PackageError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| PackageError::Read { path, source }
    };
    let root = folder.canonicalize().map_err(read(folder))?;
    let files = list(&root)?;
    if files.is_empty() {
        return Err(PackageError::Empty(folder.to_owned()));
    }
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut tops = Vec::new();
    let mut total_bytes = 0;
    for file in &files {
        let name = file.strip_prefix(&root).expect("listed below the folder").to_string_lossy().into_owned();
        let mode = fs::metadata(file).map_err(read(file))?.permissions().mode() & 0o777;
        let content = fs::read(file).map_err(read(file))?;
        total_bytes += content.len() as u64;
        if total_bytes > limits::UNZIPPED_BYTES_MAX {
            return Err(PackageError::TooLarge);
        }
        // The same files make the same zip, whenever they were written: the engine then has the code already.
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default())
            .unix_permissions(mode);
        zip.start_file(name.as_str(), options)?;
        zip.write_all(&content).map_err(zip::result::ZipError::Io)?;
        packed(content.len() as u64);
        if !name.contains('/') {
            tops.push((name, content));
        }
    }
    let zip = zip.finish()?.into_inner();
    Ok(Package { zip, files: files.len(), guess: guess(&tops) })
}

/// Files below a folder, sorted, without what is ignored.
fn list(root: &Path) -> Result<Vec<PathBuf>, PackageError> {
    let patterns = fs::read_to_string(root.join(IGNORE_FILE)).unwrap_or_default();
    let patterns: Vec<&str> =
        patterns.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let read = |source| PackageError::Read { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if is_ignored(path.strip_prefix(root).expect("found below the folder"), &patterns) {
                continue;
            }
            let target =
                path.canonicalize().map_err(|source| PackageError::Read { path: path.clone(), source })?;
            if !target.starts_with(root) {
                return Err(PackageError::LinkOut { path });
            }
            // A link to a folder is not followed, for it may lead around in circles; what it leads to is packed anyway.
            if path.is_dir() {
                if !path.is_symlink() {
                    folders.push(path);
                }
            } else if path.is_file() {
                files.push(path);
            } else {
                return Err(PackageError::Special { path });
            }
            if files.len() > limits::ZIP_ENTRIES_MAX {
                return Err(PackageError::TooMany);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a path below the folder is not packed: by its name, or by its whole path.
fn is_ignored(path: &Path, patterns: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let whole = path.to_string_lossy();
    IGNORED.contains(&name.as_ref())
        || patterns.iter().any(|pattern| {
            let pattern = pattern.trim_matches('/');
            matches(pattern, if pattern.contains('/') { &whole } else { &name })
        })
}

/// Whether text is what the pattern says; `*` stands for any characters but `/`.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            let reach = rest.find('/').unwrap_or(rest.len());
            (0..=reach).any(|taken| rest.is_char_boundary(taken) && matches(tail, &rest[taken..]))
        }),
    }
}

/// Bytes of a file that are looked at to find the handler.
const GUESS_BYTES_MAX: u64 = 256 * 1024;
/// File names without ending that usually hold the handler, likeliest first.
const STEMS: [&str; 6] = ["index", "handler", "main", "app", "lambda_function", "function"];
/// Runtimes by the ending of their files.
const LANGUAGES: [(&str, &str); 6] = [
    ("js", "nodejs"),
    ("mjs", "nodejs"),
    ("cjs", "nodejs"),
    ("py", "python3"),
    ("rb", "ruby"),
    ("lua", "lua"),
];

/// Runtime and handler from the files at the top.
fn guess(tops: &[(String, Vec<u8>)]) -> Guess {
    if tops.iter().any(|(name, _)| name == "bootstrap") {
        return Guess { runtime: Some("provided"), handler: Some("bootstrap".to_owned()) };
    }
    let sources: Vec<(&str, &'static str, &[u8])> = tops
        .iter()
        .filter_map(|(name, text)| {
            let (stem, ending) = name.rsplit_once('.')?;
            let (_, runtime) = LANGUAGES.iter().find(|(known, _)| *known == ending)?;
            Some((stem, *runtime, text.as_slice()))
        })
        .collect();
    let usual = STEMS.iter().find_map(|stem| sources.iter().find(|(name, ..)| name == stem));
    let only = || sources.first().filter(|_| sources.len() == 1);
    match usual.or_else(only) {
        Some((stem, runtime, text)) => Guess {
            runtime: Some(runtime),
            handler: Some(format!("{stem}.{}", handler_in(&String::from_utf8_lossy(text)))),
        },
        None => {
            let first = sources.first().map(|(_, runtime, _)| *runtime);
            let same = sources.iter().all(|(_, runtime, _)| Some(*runtime) == first);
            Guess { runtime: first.filter(|_| same), handler: None }
        }
    }
}

/// `handler`, or `lambda_handler` where only that stands in the text.
fn handler_in(text: &str) -> &'static str {
    let has = |name: &str| {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        text.match_indices(name).any(|(at, found)| {
            !text[..at].ends_with(is_word) && !text[at + found.len()..].starts_with(is_word)
        })
    };
    if !has("handler") && has("lambda_handler") { "lambda_handler" } else { "handler" }
}

#[cfg(test)]
mod tests;
