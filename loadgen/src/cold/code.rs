//! A function's code: a zip as it is, or a folder that becomes one.
//!
//! Owns: nothing. Must not know: the API. The engine checks everything again.

use std::io::{Cursor, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::bounds::FILE_BYTES_MAX;

/// Files of one folder.
const FILES_MAX: usize = 20_000;
/// The file that makes a function's code its own.
const MARK: &str = "loadgen-cold.txt";

/// The zip to deploy.
///
/// # Errors
/// It cannot be read, or is too large.
pub(super) fn code_of(path: &Path) -> anyhow::Result<Vec<u8>> {
    let about = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if about.is_dir() {
        return zipped(path);
    }
    let most = FILE_BYTES_MAX;
    ensure!(about.len() <= most, "{} has more than {most} bytes", path.display());
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The same code with one more file that holds `mark`.
///
/// # Errors
/// It is no zip.
pub(super) fn marked(zip: &[u8], mark: &str) -> anyhow::Result<Vec<u8>> {
    let mut zip = ZipWriter::new_append(Cursor::new(zip.to_vec())).context("--code is no zip")?;
    let options =
        SimpleFileOptions::default().last_modified_time(DateTime::default()).unix_permissions(0o644);
    zip.start_file(MARK, options).context("cannot add a file to the zip")?;
    zip.write_all(mark.as_bytes()).context("cannot add a file to the zip")?;
    Ok(zip.finish().context("cannot add a file to the zip")?.into_inner())
}

fn zipped(folder: &Path) -> anyhow::Result<Vec<u8>> {
    let mut files = Vec::new();
    list(folder, &mut files)?;
    ensure!(!files.is_empty(), "{} holds no file", folder.display());
    files.sort();
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut bytes = 0;
    for file in &files {
        let about = || format!("cannot read {}", file.display());
        let name = file.strip_prefix(folder).expect("it was found below the folder").to_string_lossy();
        let mode = std::fs::metadata(file).with_context(about)?.permissions().mode() & 0o777;
        let content = std::fs::read(file).with_context(about)?;
        bytes += content.len() as u64;
        ensure!(bytes <= FILE_BYTES_MAX, "{} holds more than {FILE_BYTES_MAX} bytes", folder.display());
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default())
            .unix_permissions(mode);
        zip.start_file(name.as_ref(), options).context("cannot make the zip")?;
        zip.write_all(&content).context("cannot make the zip")?;
    }
    Ok(zip.finish().context("cannot make the zip")?.into_inner())
}

/// Regular files below a folder; links are followed by nobody.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let read = || format!("cannot read {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(read)? {
        let entry = entry.with_context(read)?;
        let kind = entry.file_type().with_context(read)?;
        if kind.is_dir() {
            list(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
        ensure!(files.len() <= FILES_MAX, "more than {FILES_MAX} files");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_becomes_a_zip_that_keeps_names_and_modes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lib")).unwrap();
        std::fs::write(folder.path().join("bootstrap"), "run").unwrap();
        std::fs::write(folder.path().join("lib/x.py"), "").unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path().join("bootstrap"), mode).unwrap();
        let zip = code_of(folder.path()).unwrap();
        assert_eq!(zip, code_of(folder.path()).unwrap(), "the same files make the same zip");
        let mut archive = zip::ZipArchive::new(Cursor::new(zip)).unwrap();
        let bootstrap = archive.by_name("bootstrap").unwrap();
        assert_eq!(bootstrap.unix_mode().map(|mode| mode & 0o777), Some(0o755));
        drop(bootstrap);
        assert!(archive.by_name("lib/x.py").is_ok());
    }

    #[test]
    fn marked_code_is_the_same_and_one_file_more() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bootstrap"), "run").unwrap();
        std::fs::set_permissions(folder.path().join("bootstrap"), std::fs::Permissions::from_mode(0o755))
            .unwrap();
        let zip = code_of(folder.path()).unwrap();
        let (first, second) = (marked(&zip, "f0").unwrap(), marked(&zip, "f1").unwrap());
        assert_ne!(first, second);
        let mut archive = zip::ZipArchive::new(Cursor::new(first)).unwrap();
        assert_eq!(archive.len(), 2);
        assert_eq!(std::io::read_to_string(archive.by_name(MARK).unwrap()).unwrap(), "f0");
        let bootstrap = archive.by_name("bootstrap").unwrap();
        assert_eq!(bootstrap.unix_mode().map(|mode| mode & 0o777), Some(0o755));
        assert_eq!(std::io::read_to_string(bootstrap).unwrap(), "run");
        assert!(marked(b"no zip", "f0").is_err());
    }

    #[test]
    fn what_is_no_code_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(code_of(folder.path()).unwrap_err().to_string().contains("holds no file"));
        assert!(code_of(&folder.path().join("none")).is_err());
    }
}
