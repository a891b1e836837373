//! Several packages merged into one directory, the later over the earlier.
//!
//! Owns: what wins where names meet. Must not know: where packages lie, what they are for.
//! Files are hard links to those of the packages, which nobody changes: a merged tree costs directories. Links in packages
//! are taken over as they are and never followed.

use std::fs::{self, DirBuilder, FileType};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A step that failed.
#[derive(Debug)]
pub(crate) struct MergeFailed {
    pub(crate) step: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MergeFailed {
    move |source| MergeFailed { step, path: path.to_owned(), source }
}

/// Lays a package over what is in `target`, a directory.
pub(crate) fn lay_over(package: &Path, target: &Path) -> Result<(), MergeFailed> {
    let mut ahead = vec![(package.to_owned(), target.to_owned())];
    while let Some((from, to)) = ahead.pop() {
        for entry in fs::read_dir(&from).map_err(failed("read", &from))? {
            let entry = entry.map_err(failed("read", &from))?;
            let kind = entry.file_type().map_err(failed("look at", &from))?;
            let (source, place) = (entry.path(), to.join(entry.file_name()));
            let is_there = make_way(&place, kind)?;
            if kind.is_dir() {
                if is_there == Place::Empty {
                    DirBuilder::new()
                        .mode(0o755)
                        .create(&place)
                        .map_err(failed("make the directory", &place))?;
                }
                ahead.push((source, place));
            } else {
                // Of a symbolic link it links the link itself.
                rustix::fs::linkat(
                    rustix::fs::CWD,
                    &source,
                    rustix::fs::CWD,
                    &place,
                    rustix::fs::AtFlags::empty(),
                )
                .map_err(|errno| failed("link", &place)(errno.into()))?;
            }
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Empty,
    Directory,
}

/// Removes what an earlier package has at a place, unless both are directories.
fn make_way(place: &Path, comes: FileType) -> Result<Place, MergeFailed> {
    match fs::symlink_metadata(place) {
        Ok(found) if found.is_dir() && comes.is_dir() => Ok(Place::Directory),
        Ok(found) if found.is_dir() => {
            fs::remove_dir_all(place).map_err(failed("remove", place)).map(|()| Place::Empty)
        }
        Ok(_) => fs::remove_file(place).map_err(failed("remove", place)).map(|()| Place::Empty),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Place::Empty),
        Err(error) => Err(failed("look at", place)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn the_later_wins_and_nothing_of_the_packages_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write(
            &path("first"),
            &[("a", "1"), ("both/one", "1"), ("file-then-dir", "1"), ("dir-then-file/x", "1")],
        );
        write(
            &path("second"),
            &[("b", "2"), ("both/two", "2"), ("file-then-dir/y", "2"), ("dir-then-file", "2")],
        );
        write(&path("second"), &[("a", "2"), ("link/inner", "2")]);
        // A link out of the tree, where the later package has a directory: it must not be written through.
        write(&path("outside"), &[("inner", "untouched")]);
        symlink(path("outside"), path("first/link")).unwrap();
        symlink("a", path("second/alias")).unwrap();
        fs::create_dir(path("merged")).unwrap();
        for package in ["first", "second"] {
            lay_over(&path(package), &path("merged")).unwrap();
        }
        let read = |name: &str| fs::read_to_string(path("merged").join(name)).unwrap();
        for (name, text) in [
            ("a", "2"),
            ("b", "2"),
            ("both/one", "1"),
            ("both/two", "2"),
            ("file-then-dir/y", "2"),
            ("dir-then-file", "2"),
            ("link/inner", "2"),
            ("alias", "2"),
        ] {
            assert_eq!(read(name), text, "{name}");
        }
        assert_eq!(fs::read_to_string(path("outside/inner")).unwrap(), "untouched");
        assert_eq!(fs::read_to_string(path("first/a")).unwrap(), "1");
        let inode = |name: &str| fs::metadata(path(name)).unwrap().ino();
        assert_eq!(inode("merged/a"), inode("second/a"), "files are shared");
    }
}
