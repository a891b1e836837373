//! Which cgroup hierarchies are mounted where: /proc/self/mountinfo and /proc/self/cgroup (proc(5), cgroups(7)).
//!
//! Owns: the parsing. Must not know: what is done with a hierarchy. Pure.

use std::path::PathBuf;

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub version: Version,
    pub mount_point: PathBuf,
    /// Whether this mount may be written to.
    pub access: Access,
}

/// Kind of hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Version {
    /// With the controllers that it holds.
    One(Vec<String>),
    Two,
}

/// See [`Mounted::access`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    ReadWrite,
    ReadOnly,
}

/// Names of v1 super block options that are no controllers.
const OPTIONS: [&str; 8] =
    ["rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods", "nosuid"];

/// All cgroup mounts of a mountinfo file, the first one of each hierarchy.
pub(crate) fn parse_mountinfo(text: &str) -> Vec<Mounted> {
    let mut found: Vec<Mounted> = Vec::new();
    for mounted in text.lines().filter_map(parse_line) {
        // What lies over another mount at the same place comes later and hides it.
        found.retain(|earlier| earlier.mount_point != mounted.mount_point);
        if !found.iter().any(|earlier| earlier.version == mounted.version) {
            found.push(mounted);
        }
    }
    found
}

fn parse_line(line: &str) -> Option<Mounted> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(4);
    let (mount_point, options) = (fields.next()?, fields.next()?);
    let mut after = after.split(' ');
    let (kind, super_options) = (after.next()?, after.nth(1)?);
    let version = match kind {
        "cgroup2" => Version::Two,
        "cgroup" => Version::One(
            super_options
                .split(',')
                .filter(|option| !OPTIONS.contains(option) && !option.contains('='))
                .map(str::to_owned)
                .collect(),
        ),
        _ => return None,
    };
    let read_only = |list: &str| list.split(',').any(|option| option == "ro");
    let access =
        if read_only(options) || read_only(super_options) { Access::ReadOnly } else { Access::ReadWrite };
    Some(Mounted { version, mount_point: PathBuf::from(unescape(mount_point)), access })
}

/// Octal escapes of blanks and backslashes.
pub(crate) fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] if *first == b'\\' => {
                out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The process's place in the v2 hierarchy, from /proc/self/cgroup.
pub(crate) fn own_v2_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The process's place in the v1 hierarchy of a controller.
pub(crate) fn own_v1_path<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HYBRID: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
42 1 0:38 / /mnt/a\\040b rw - cgroup2 cgroup2 rw
";

    #[test]
    fn hybrid_hosts_are_understood() {
        let mounts = parse_mountinfo(HYBRID);
        let version_one =
            |names: &[&str]| Version::One(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(mounts.len(), 4);
        assert_eq!(mounts[0].version, version_one(&["cpu", "cpuacct"]));
        assert_eq!((&mounts[1].version, mounts[1].access), (&version_one(&["memory"]), Access::ReadOnly));
        assert_eq!(mounts[2].version, version_one(&[]));
        assert_eq!(mounts[3].mount_point, PathBuf::from("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn a_pure_v2_host_is_one_mount() {
        let mounts = parse_mountinfo("30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n");
        assert_eq!(mounts.len(), 1);
        assert_eq!((&mounts[0].version, mounts[0].access), (&Version::Two, Access::ReadWrite));
    }

    #[test]
    fn a_hidden_mount_does_not_count() {
        let text = "\
30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
31 30 0:27 / /sys/fs/cgroup rw - cgroup cgroup rw,memory
";
        let mounts = parse_mountinfo(text);
        assert_eq!(mounts.len(), 1);
        assert!(matches!(mounts[0].version, Version::One(_)));
    }

    #[test]
    fn own_places_are_found() {
        let text = "4:memory:/a/b\n3:cpu,cpuacct:/c\n0::/user.slice\n";
        assert_eq!(own_v1_path(text, "memory"), Some("/a/b"));
        assert_eq!(own_v1_path(text, "cpuacct"), Some("/c"));
        assert_eq!(own_v1_path(text, "pids"), None);
        assert_eq!(own_v2_path(text), Some("/user.slice"));
    }

    #[test]
    fn blanks_in_paths_are_unescaped() {
        assert_eq!(unescape("/mnt/a\\040b\\134c"), "/mnt/a b\\c");
        assert_eq!(unescape("/a\\9\\"), "/a\\9\\");
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,300}") {
            parse_mountinfo(&text);
            own_v2_path(&text);
            unescape(&text);
        }
    }
}
