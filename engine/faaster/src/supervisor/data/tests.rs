//! What may be locked, given away and removed.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn open_folder() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap()
}

/// Whether this may give files away; says why not.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root gives files to another user");
    }
    root
}

#[test]
fn one_engine_at_a_time() {
    let folder = open_folder();
    let first = DataDirectory::lock(folder.path(), Keep::Data).unwrap();
    let error = DataDirectory::lock(folder.path(), Keep::Data).unwrap_err();
    assert!(error.to_string().contains(&format!("(pid {})", std::process::id())), "{error}");
    drop(first);
    DataDirectory::lock(folder.path(), Keep::Data).unwrap();
    assert!(folder.path().exists());
}

#[test]
fn lines_of_locks_are_read() {
    let line = "1: FLOCK  ADVISORY  WRITE 3106 fe:00:131 0 EOF";
    assert_eq!(locked_by(line, "fe:00:131"), Some(3106));
    assert_eq!(locked_by(line, "fe:00:132"), None);
    assert_eq!(locked_by(&line.replace("FLOCK", "POSIX"), "fe:00:131"), None);
    assert_eq!(locked_by("garbage", "fe:00:131"), None);
}

#[test]
fn a_foreign_directory_is_never_emptied() {
    let folder = open_folder();
    fs::write(folder.path().join("precious"), "x").unwrap();
    assert!(matches!(DataDirectory::lock(folder.path(), Keep::Nothing), Err(DataError::Foreign(_))));
    assert!(folder.path().join("precious").exists());
}

#[test]
fn a_leftover_is_emptied_and_the_end_removes_all() {
    if !is_root() {
        return;
    }
    let folder = open_folder();
    let path = folder.path().join("a/b");
    std::mem::forget(DataDirectory::lock(&path, Keep::Nothing).unwrap());
    fs::create_dir(path.join("left")).unwrap();
    fs::write(path.join("left/file"), "x").unwrap();
    // As after a kill: the marker is there, the lock is not.
    let again = folder.path().join("a/c");
    fs::rename(&path, &again).unwrap();
    fs::create_dir(&path).unwrap();
    fs::rename(again.join("left"), path.join("left")).unwrap();
    fs::rename(again.join(MARKER), path.join(MARKER)).unwrap();
    let data = DataDirectory::lock(&path, Keep::Nothing).unwrap();
    assert!(!path.join("left").exists());
    drop(data);
    assert!(!path.exists());
}

#[test]
fn the_engine_gets_what_is_roots_or_its_own_alone() {
    if !is_root() {
        return;
    }
    let folder = open_folder();
    let path = folder.path().join("data");
    let data = DataDirectory::lock(&path, Keep::Data).unwrap();
    data.give_to_engine(64_901, 64_902).unwrap();
    data.give_to_engine(64_901, 64_902).unwrap();
    let found = fs::metadata(code_directory(&path)).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (64_901, 64_902, 0o755));
    assert!(matches!(data.give_to_engine(1234, 1234), Err(DataError::Owner { owner: 64_901, .. })));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let error = data.give_to_engine(64_901, 64_902).unwrap_err();
    assert!(matches!(&error, DataError::Closed { closed, .. } if closed == folder.path()), "{error}");
}

#[test]
fn a_link_in_the_engines_directory_is_not_followed() {
    if !is_root() {
        return;
    }
    let folder = open_folder();
    let (path, victim) = (folder.path().join("data"), folder.path().join("victim"));
    fs::create_dir(&victim).unwrap();
    fs::create_dir(&path).unwrap();
    symlink(&victim, code_directory(&path)).unwrap();
    let data = DataDirectory::lock(&path, Keep::Data).unwrap();
    assert!(matches!(data.give_to_engine(64_901, 64_901), Err(DataError::Directory { .. })));
    assert_eq!(fs::metadata(&victim).unwrap().uid(), 0);
}
