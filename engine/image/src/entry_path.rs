//! Names in archives, made clean: relative, without `.` and `..`, bounded.
//!
//! Owns: the rules. Must not know: what is done with a name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use faaster_limits::{IMAGE_DEPTH_MAX, IMAGE_PATH_BYTES_MAX};

use crate::ImageError;

/// Bytes of one component (NAME_MAX of include/uapi/linux/limits.h).
const COMPONENT_BYTES_MAX: usize = 255;

/// What a message shows of a name.
pub(crate) fn shown(name: &[u8]) -> String {
    let name = &name[..name.len().min(200)];
    String::from_utf8_lossy(name).into_owned()
}

/// A name as a path below the root; empty for the root itself.
///
/// # Errors
/// It is absolute, climbs, or is too long.
pub(crate) fn clean(name: &[u8]) -> Result<PathBuf, ImageError> {
    if name.first() == Some(&b'/') {
        return Err(ImageError::Absolute(shown(name)));
    }
    let mut path = PathBuf::new();
    let mut depth = 0;
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(ImageError::Climbs(shown(name))),
            component if component.len() > COMPONENT_BYTES_MAX || component.contains(&0) => {
                return Err(ImageError::LongPath(shown(name)));
            }
            component => path.push(OsStr::from_bytes(component)),
        }
        depth += 1;
    }
    if name.len() > IMAGE_PATH_BYTES_MAX || depth > IMAGE_DEPTH_MAX {
        return Err(ImageError::LongPath(shown(name)));
    }
    Ok(path)
}

/// A whiteout (OCI image specification, "Layer Filesystem Changeset").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whiteout {
    /// Layers below have this; the result does not.
    Of(PathBuf),
    /// Nothing of the layers below is left in this directory.
    Opaque(PathBuf),
    /// Bookkeeping of a file system that once made layers.
    Meta,
}

/// What a clean path says as a whiteout; nothing for other paths.
///
/// # Errors
/// It would remove `.` or `..`.
pub(crate) fn whiteout(path: &Path) -> Result<Option<Whiteout>, ImageError> {
    let parent = path.parent().unwrap_or(Path::new(""));
    // No layer's maker puts anything below one.
    if parent.iter().any(|component| component.as_bytes().starts_with(b".wh.")) {
        return Ok(Some(Whiteout::Meta));
    }
    let Some(rest) = path.file_name().and_then(|name| name.as_bytes().strip_prefix(b".wh.")) else {
        return Ok(None);
    };
    Ok(Some(match rest {
        b".wh..opq" => Whiteout::Opaque(parent.to_owned()),
        b"" | b"." | b".." => return Err(ImageError::Climbs(shown(path.as_os_str().as_bytes()))),
        rest if rest.starts_with(b".wh.") => Whiteout::Meta,
        rest => Whiteout::Of(parent.join(OsStr::from_bytes(rest))),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_clean_or_refused() {
        for (name, expected) in [("a/b", "a/b"), ("./a//b/.", "a/b"), ("./", ""), ("a/..b/...", "a/..b/...")]
        {
            assert_eq!(clean(name.as_bytes()).unwrap(), Path::new(expected), "{name}");
        }
        for name in ["..", "a/../b", "a/..", "./../x"] {
            assert!(matches!(clean(name.as_bytes()), Err(ImageError::Climbs(_))), "{name}");
        }
        assert!(matches!(clean(b"/etc/passwd"), Err(ImageError::Absolute(_))));
        assert!(matches!(clean(b"a\0b"), Err(ImageError::LongPath(_))));
        let long = [
            vec![b'x'; 256],
            "a/".repeat(IMAGE_DEPTH_MAX + 1).into_bytes(),
            "a/./".repeat(2000).into_bytes(),
        ];
        for name in long {
            assert!(matches!(clean(&name), Err(ImageError::LongPath(_))), "{} bytes", name.len());
        }
    }

    #[test]
    fn whiteouts_are_told_from_names() {
        let of = |path: &str| whiteout(Path::new(path)).unwrap();
        assert_eq!(of("a/b"), None);
        assert_eq!(of("a/.wh.b"), Some(Whiteout::Of("a/b".into())));
        assert_eq!(of(".wh.b"), Some(Whiteout::Of("b".into())));
        assert_eq!(of("a/.wh..wh..opq"), Some(Whiteout::Opaque("a".into())));
        assert_eq!(of(".wh..wh.plnk"), Some(Whiteout::Meta));
        assert_eq!(of("a/.wh.b/c"), Some(Whiteout::Meta));
        for path in ["a/.wh...", "a/.wh..", "a/.wh."] {
            assert!(matches!(whiteout(Path::new(path)), Err(ImageError::Climbs(_))), "{path}");
        }
    }
}
