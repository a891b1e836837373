//! Which root file system containers have: a default, and what single runtimes have instead.
//!
//! Owns: how that is written. Must not know: whether a tree of a name is there.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use faaster_image::RootfsName;
use serde::{Deserialize, Serialize};

/// What containers see as `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Root {
    /// The host's own programs and libraries, read-only.
    Host,
    /// A tree that was imported under this name.
    Named(String),
    Directory(PathBuf),
}

/// The setting `rootfs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rootfs {
    default: Root,
    by_runtime: BTreeMap<String, Root>,
}

/// Stands for all runtimes that are not named.
const DEFAULT: &str = "default";

impl Root {
    /// # Errors
    /// A sentence on what is expected.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "host" {
            Ok(Self::Host)
        } else if text.starts_with('/') {
            super::absolute(text).map(Self::Directory)
        } else {
            let name = RootfsName::parse(text);
            name.map(|name| Self::Named(name.as_str().to_owned())).map_err(|_| {
                "must be host, the name of an imported root file system, or an absolute directory".to_owned()
            })
        }
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Named(name) => f.write_str(name),
            Self::Directory(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Rootfs {
    /// The host's programs for all.
    pub(crate) fn host() -> Self {
        Self { default: Root::Host, by_runtime: BTreeMap::new() }
    }

    /// From `WHAT` and `RUNTIME=WHAT`.
    ///
    /// # Errors
    /// A sentence on what is expected.
    pub(crate) fn parse(values: &[String]) -> Result<Self, String> {
        let mut rootfs = Self::host();
        for value in values {
            match value.split_once('=') {
                None => rootfs.default = Root::parse(value)?,
                Some((DEFAULT, what)) => rootfs.default = Root::parse(what)?,
                Some((runtime, what)) => {
                    rootfs.by_runtime.insert(runtime.to_owned(), Root::parse(what)?);
                }
            }
        }
        Ok(rootfs)
    }

    /// What a runtime has: what the setting says of it, else what its own `runtime.toml` says, else the default.
    pub(crate) fn of<'a>(&'a self, runtime: &str, own: Option<&'a Root>) -> &'a Root {
        self.by_runtime.get(runtime).or(own).unwrap_or(&self.default)
    }

    /// Runtimes that the setting names.
    pub(crate) fn runtimes(&self) -> impl Iterator<Item = &str> {
        self.by_runtime.keys().map(String::as_str)
    }
}

impl fmt::Display for Rootfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.default)?;
        self.by_runtime.iter().try_for_each(|(runtime, root)| write!(f, ",{runtime}={root}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Result<Rootfs, String> {
        Rootfs::parse(&values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_setting_wins_over_the_runtime_and_the_runtime_over_the_default() {
        let rootfs = parse(&["debian12", "python3=/srv/python", "ruby=host"]).unwrap();
        assert_eq!(rootfs.to_string(), "debian12,python3=/srv/python,ruby=host");
        let own = Root::Named("slim".into());
        assert_eq!(rootfs.of("python3", Some(&own)), &Root::Directory("/srv/python".into()));
        assert_eq!(rootfs.of("ruby", Some(&own)), &Root::Host);
        assert_eq!(rootfs.of("nodejs", Some(&own)), &own);
        assert_eq!(rootfs.of("nodejs", None), &Root::Named("debian12".into()));
        assert_eq!(parse(&["default=slim"]).unwrap(), parse(&["slim"]).unwrap());
        assert_eq!(parse(&[]).unwrap(), Rootfs::host());
    }

    #[test]
    fn what_is_neither_is_refused() {
        for wrong in ["", "UPPER", "relative/path", "/up/../down", "python3=", "python3=.."] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
    }
}
