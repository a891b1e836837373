//! Images of every kind, good and hostile, into a store in a temporary directory.

mod make;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use make::{Tar, docker_save, gzip, oci, oci_archive, sha, write_parts, zstd};

use crate::{Bounds, ImageError, Imported, RootfsName, Store};

struct Place {
    folder: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("data")).unwrap();
        Self { folder, store }
    }

    fn rootfs(&self) -> PathBuf {
        self.folder.path().join("data/rootfs")
    }

    fn tree(&self) -> PathBuf {
        self.rootfs().join("x/tree")
    }

    fn import_with(&self, archive: &[u8], bounds: Bounds) -> Result<Imported, ImageError> {
        let file = self.folder.path().join("archive");
        fs::write(&file, archive).unwrap();
        self.store.import(&name("x"), &file, bounds)
    }

    fn import(&self, archive: &[u8]) -> Result<Imported, ImageError> {
        self.import_with(archive, Bounds::default())
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.tree().join(path)).unwrap()
    }

    fn has(&self, path: &str) -> bool {
        self.tree().join(path).symlink_metadata().is_ok()
    }

    fn assert_nothing_left(&self) {
        let left: Vec<_> =
            fs::read_dir(self.rootfs()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn name(text: &str) -> RootfsName {
    RootfsName::parse(text).unwrap()
}

/// Whoever unpacks without being root leaves directories that only root can look into; modes are tried as root.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn base() -> Vec<u8> {
    Tar::default()
        .folder("./")
        .folder("bin/")
        .file("bin/sh", "shell")
        .folder("etc")
        .file("etc/passwd", "root")
        .file("etc/old", "old")
        .folder("var")
        .folder("var/cache")
        .file("var/cache/a", "a")
        .file("var/cache/b", "b")
        .symlink("lib", "usr/lib")
        .folder("usr/lib")
        .bytes()
}

#[test]
fn layers_lie_on_one_another_and_whiteouts_take_away() {
    let upper = Tar::default()
        .file("etc/.wh.old", "")
        .file("etc/new", "new")
        .file("bin/sh", "another shell")
        .folder("var/cache")
        .file("var/cache/c", "c")
        // After what it must not take away.
        .file("var/cache/.wh..wh..opq", "")
        .file("lib/through-the-link", "inside")
        .file("deep/down/without/folders", "made")
        .file(".wh..wh.plnk", "")
        .bytes();
    for archive in [docker_save(&[base(), upper.clone()]), oci_archive(&[base(), upper])] {
        let place = Place::new();
        let imported = place.import(&archive).unwrap();
        assert_eq!((imported.layers, imported.skipped), (2, 0));
        assert!(imported.digest.starts_with("sha256:") && imported.entries > 10, "{imported:?}");
        assert_eq!(
            (place.read("bin/sh"), place.read("etc/new")),
            ("another shell".to_owned(), "new".to_owned())
        );
        assert_eq!(place.read("usr/lib/through-the-link"), "inside");
        assert_eq!(place.read("deep/down/without/folders"), "made");
        for gone in ["etc/old", "var/cache/a", "var/cache/b", "etc/.wh.old", ".wh..wh.plnk"] {
            assert!(!place.has(gone), "{gone}");
        }
        assert!(place.has("var/cache/c") && place.has("etc/passwd"));
    }
}

#[test]
fn kinds_replace_one_another() {
    let lower =
        Tar::default().folder("a/b").file("a/b/c", "1").file("f", "1").symlink("l", "/nowhere").bytes();
    let upper = Tar::default().file("a", "now a file").folder("f").folder("l").file("l/x", "2").bytes();
    let place = Place::new();
    place.import(&docker_save(&[lower, upper])).unwrap();
    assert_eq!((place.read("a"), place.read("l/x")), ("now a file".to_owned(), "2".to_owned()));
    assert!(place.tree().join("f").is_dir() && !place.tree().join("l").is_symlink());
}

#[test]
fn a_container_finds_its_mount_points_and_files_of_the_engine() {
    let place = Place::new();
    place.import(&docker_save(&[Tar::default().symlink("etc/resolv.conf", "../run/x").bytes()])).unwrap();
    for path in crate::MOUNT_POINTS {
        assert!(place.tree().join(path).is_dir(), "{path}");
    }
    assert!(place.read("etc/hosts").contains("localhost"));
    assert!(!place.tree().join("etc/resolv.conf").is_symlink());
    for wrong in ["tmp", "var", "var/task", "dev"] {
        let place = Place::new();
        let refused = place.import(&docker_save(&[Tar::default().symlink(wrong, "/elsewhere").bytes()]));
        assert!(matches!(refused, Err(ImageError::MountPoint(_))), "{wrong}: {refused:?}");
        place.assert_nothing_left();
    }
}

#[test]
fn everything_is_the_importers_and_nothing_is_privileged() {
    let layer = Tar::default()
        .entry(b'0', "su", "", 0o4755, b"x")
        .entry(b'5', "sticky", "", 0o1777, b"")
        .entry(b'0', "secret", "", 0o600, b"x")
        .entry(b'3', "dev/sda", "", 0o666, b"")
        .entry(b'4', "dev/mem", "", 0o666, b"")
        .entry(b'6', "pipe", "", 0o666, b"")
        .hard_link("su2", "su")
        .bytes();
    let place = Place::new();
    let imported = place.import(&docker_save(&[layer])).unwrap();
    assert_eq!(imported.skipped, 3);
    let me = rustix::process::geteuid().as_raw();
    for (path, mode) in [("su", 0o755), ("sticky", 0o777), ("secret", 0o600)] {
        let metadata = place.tree().join(path).symlink_metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.permissions().mode() & 0o7777), (me, mode), "{path}");
    }
    let inode = |path: &str| place.tree().join(path).metadata().unwrap().ino();
    assert_eq!(inode("su"), inode("su2"));
    assert_eq!(place.tree().join("su").metadata().unwrap().mtime(), 1_000_000);
    for absent in ["dev/sda", "dev/mem", "pipe"] {
        assert!(!place.has(absent), "{absent}");
    }
}

#[test]
fn hostile_entries_are_refused_and_nothing_is_left() {
    let long_name = |bytes: usize| Tar::default().entry(b'L', "././@LongLink", "", 0o644, &vec![b'x'; bytes]);
    let deep = "d/".repeat(45);
    let many = (0..3).fold(deep.clone(), |path, _| path + &deep);
    type Expected = fn(&ImageError) -> bool;
    let rows: [(&str, Tar, Expected); 17] = [
        ("..", Tar::default().file("../evil", "x"), |e| matches!(e, ImageError::Climbs(_))),
        (".. within", Tar::default().file("a/../../evil", "x"), |e| matches!(e, ImageError::Climbs(_))),
        ("absolute", Tar::default().file("/tmp/evil", "x"), |e| matches!(e, ImageError::Absolute(_))),
        ("whiteout of ..", Tar::default().file("a/.wh...", ""), |e| matches!(e, ImageError::Climbs(_))),
        ("hard link out", Tar::default().hard_link("a", "../../etc/passwd"), |e| {
            matches!(e, ImageError::Climbs(_))
        }),
        ("absolute hard link", Tar::default().hard_link("a", "/etc/passwd"), |e| {
            matches!(e, ImageError::Absolute(_))
        }),
        ("hard link to nothing", Tar::default().hard_link("a", "b"), |e| {
            matches!(e, ImageError::HardLink { .. })
        }),
        ("hard link to itself", Tar::default().file("a", "x").hard_link("a", "a"), |e| {
            matches!(e, ImageError::HardLink { .. })
        }),
        ("hard link to a directory", Tar::default().folder("d").hard_link("a", "d"), |e| {
            matches!(e, ImageError::HardLink { .. })
        }),
        ("links in a circle", Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", "x"), |e| {
            matches!(e, ImageError::BelowFile(_))
        }),
        ("below a file", Tar::default().file("a", "x").file("a/b", "x"), |e| {
            matches!(e, ImageError::BelowFile(_))
        }),
        ("empty link", Tar::default().symlink("a", ""), |e| matches!(e, ImageError::Symlink(_))),
        ("the root as a file", Tar::default().file("./", "x"), |e| {
            matches!(e, ImageError::BelowFile(_) | ImageError::Damaged(_))
        }),
        (
            "nested too deep",
            Tar::default().entry(b'L', "././@LongLink", "", 0o644, many.as_bytes()).file("x", "x"),
            |e| matches!(e, ImageError::LongPath(_)),
        ),
        ("a header of a name that fills memory", long_name(300_000).file("x", "x"), |e| {
            matches!(e, ImageError::LongPath(_))
        }),
        ("sparse", Tar::default().entry(b'S', "a", "", 0o644, b""), |e| matches!(e, ImageError::Sparse(_))),
        ("a second size", Tar::default().entry(b'x', "p", "", 0o644, b"10 size=0\n").file("a", "x"), |e| {
            matches!(e, ImageError::Sparse(_))
        }),
    ];
    for (what, layer, expected) in rows {
        let place = Place::new();
        let layer = layer.bytes();
        for archive in
            [docker_save(&[base(), layer.clone()]), docker_save(std::slice::from_ref(&layer)), layer.clone()]
        {
            let refused = place.import(&archive).expect_err(what);
            assert!(expected(&refused), "{what}: {refused}");
            place.assert_nothing_left();
        }
    }
}

#[test]
fn a_link_that_leads_out_leads_into_the_tree_and_files_through_it_stay_there() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("victim"), "untouched").unwrap();
    let target = outside.path().to_str().unwrap();
    let layer = Tar::default()
        .symlink("out", target)
        .folder(&target[1..])
        .file("out/victim", "overwritten")
        .symlink("up", "../../../../../../../..")
        .file("up/escaped", "x")
        .bytes();
    let upper = Tar::default().file("out/.wh.victim", "").file("out/.wh..wh..opq", "").bytes();
    let place = Place::new();
    place.import(&docker_save(std::slice::from_ref(&layer))).unwrap();
    assert_eq!(fs::read_to_string(outside.path().join("victim")).unwrap(), "untouched");
    assert_eq!(place.read(&format!("{}/victim", &target[1..])), "overwritten");
    assert_eq!(place.read("escaped"), "x");
    assert!(!Path::new("/escaped").exists());
    // Whiteouts through the link as well.
    let place = Place::new();
    place.import(&docker_save(&[layer, upper])).unwrap();
    assert_eq!(fs::read_to_string(outside.path().join("victim")).unwrap(), "untouched");
}

#[test]
fn digests_are_verified() {
    let parts = oci(&[base()], gzip);
    for position in 0..3 {
        let place = Place::new();
        let mut wrong = parts.clone();
        let middle = wrong[position].1.len() / 2;
        wrong[position].1[middle] ^= 1;
        let folder = place.folder.path().join("layout");
        write_parts(&folder, &wrong);
        let refused = place.store.import(&name("x"), &folder, Bounds::default()).unwrap_err();
        assert!(matches!(refused, ImageError::Mismatch { .. }), "{position}: {refused}");
        place.assert_nothing_left();
    }
    // A layer whose package is what was promised, and whose contents are not.
    let place = Place::new();
    let archive = docker_save(&[base()]);
    let other = Tar::default().file("bin/sh", "shelL").bytes();
    let swapped = replace(&archive, &base(), &[&other[..], &vec![0; base().len() - other.len()]].concat());
    let refused = place.import(&swapped).unwrap_err();
    assert!(matches!(refused, ImageError::Mismatch { .. }), "{refused}");
    place.assert_nothing_left();
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

#[test]
fn bounds_hold_before_anything_is_written() {
    let zeros = Tar::default().entry(b'0', "zeros", "", 0o644, &vec![0; 40 << 20]).bytes();
    let bomb = oci_archive(&[zeros]);
    assert!(bomb.len() < 1 << 20, "{} bytes", bomb.len());
    let small = Bounds { bytes: 10 << 20, ..Bounds::default() };
    let few = Bounds { entries: 5, ..Bounds::default() };
    let flat = Bounds { layers: 1, ..Bounds::default() };
    let two = docker_save(&[base(), base()]);
    let place = Place::new();
    assert!(matches!(place.import_with(&bomb, small), Err(ImageError::Bomb)));
    assert!(matches!(place.import_with(&gzip(&vec![0; 40 << 20]), small), Err(ImageError::Bomb)));
    assert!(matches!(place.import_with(&two, few), Err(ImageError::TooManyEntries(5))));
    assert!(matches!(place.import_with(&two, flat), Err(ImageError::TooManyLayers { found: 2, most: 1 })));
    place.assert_nothing_left();
    assert!(place.import_with(&bomb, Bounds::default()).is_ok());
}

#[test]
fn layers_packed_with_zstd_are_read_like_others() {
    let upper = Tar::default().file("bin/sh", "newer").file("etc/.wh.passwd", "").bytes();
    let place = Place::new();
    place.import(&make::packed(&oci(&[base(), upper.clone()], zstd))).unwrap();
    assert_eq!(place.read("bin/sh"), "newer");
    // One package of each kind in an image, and the whole archive packed as well.
    let mut first = true;
    let mixed = |layer: &[u8]| if std::mem::take(&mut first) { gzip(layer) } else { zstd(layer) };
    let place = Place::new();
    place.import(&zstd(&make::packed(&oci(&[base(), upper], mixed)))).unwrap();
    assert_eq!(place.read("bin/sh"), "newer");
}

#[test]
fn a_zstd_bomb_is_stopped_at_the_bound_and_leaves_nothing() {
    let zeros = Tar::default().entry(b'0', "zeros", "", 0o644, &vec![0; 40 << 20]).bytes();
    let bomb = make::packed(&oci(&[zeros], zstd));
    assert!(bomb.len() < 1 << 20, "{} bytes", bomb.len());
    let small = Bounds { bytes: 10 << 20, ..Bounds::default() };
    let place = Place::new();
    assert!(matches!(place.import_with(&bomb, small), Err(ImageError::Bomb)));
    assert!(matches!(place.import_with(&zstd(&vec![0; 40 << 20]), small), Err(ImageError::Bomb)));
    // Made by hand: 100,000 blocks that say "128 KiB of this byte" in four bytes each, 12.5 GiB of 400 KB.
    let mut blocks = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    let run = u32::to_le_bytes((128 << 10) << 3 | 1 << 1);
    (0..100_000).for_each(|_| blocks.extend_from_slice(&[run[0], run[1], run[2], 0]));
    assert!(matches!(place.import_with(&blocks, small), Err(ImageError::Bomb)));
    place.assert_nothing_left();
}

#[test]
fn damaged_and_foreign_archives_are_named() {
    let good = docker_save(&[base()]);
    let place = Place::new();
    for cut in [good.len() / 3, 700, 100] {
        let refused = place.import(&good[..cut]).unwrap_err();
        assert!(!matches!(refused, ImageError::Write { .. }), "{cut}: {refused}");
        place.assert_nothing_left();
    }
    let damaged = [0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0];
    assert!(matches!(place.import(&damaged), Err(ImageError::Damaged(_))));
    assert!(matches!(place.import(b"this is no archive at all"), Err(ImageError::Damaged(_))));
    let two = good.clone();
    let other = replace(&two, b"[{\"Config\"", b"{}{\"Config\"");
    assert!(matches!(place.import(&other), Err(ImageError::Json { .. })));
    place.assert_nothing_left();
}

#[test]
fn an_image_for_another_machine_is_refused() {
    let place = Place::new();
    let ours = format!("\"architecture\":\"{}\"", make::architecture());
    let parts: Vec<(String, Vec<u8>)> = oci(&[base()], gzip)
        .into_iter()
        .map(|(name, data)| match name.as_str() {
            "index.json" => (
                name,
                String::from_utf8(data).unwrap().replace(&ours, "\"architecture\":\"mips\"").into_bytes(),
            ),
            _ => (name, data),
        })
        .collect();
    let folder = place.folder.path().join("layout");
    write_parts(&folder, &parts);
    let refused = place.store.import(&name("x"), &folder, Bounds::default()).unwrap_err();
    assert!(matches!(&refused, ImageError::Platform { found, .. } if found.contains("s390x")), "{refused}");
}

#[test]
fn a_directory_and_an_exported_archive_are_the_files_themselves() {
    let place = Place::new();
    let from = place.folder.path().join("files");
    fs::create_dir_all(from.join("usr/bin")).unwrap();
    fs::write(from.join("usr/bin/tool"), "tool").unwrap();
    fs::set_permissions(from.join("usr/bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("usr/bin", from.join("bin")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, from.join("pipe"), rustix::fs::Mode::RWXU).unwrap();
    let imported = place.store.import(&name("x"), &from, Bounds::default()).unwrap();
    assert_eq!((imported.skipped, imported.digest.as_str()), (1, ""));
    assert_eq!(place.read("usr/bin/tool"), "tool");
    assert_eq!(place.tree().join("usr/bin/tool").metadata().unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::read_link(place.tree().join("bin")).unwrap(), Path::new("usr/bin"));

    for archive in [base(), gzip(&base()), gzip(&docker_save(&[base()]))] {
        let place = Place::new();
        place.import(&archive).unwrap();
        assert_eq!(place.read("bin/sh"), "shell");
    }
}

#[test]
fn layers_that_are_links_to_others_are_found_and_circles_are_not_followed() {
    let layer = base();
    // Old versions saved a layer that two images share once, and a link in the other place.
    let place = Place::new();
    let linked = linked_save(&layer, "../store/layer.tar");
    place.import(&linked).unwrap();
    assert_eq!(place.read("bin/sh"), "shell");
    let place = Place::new();
    assert!(matches!(place.import(&linked_save(&layer, "layer.tar")), Err(ImageError::LinkLoop(_))));
    assert!(matches!(place.import(&linked_save(&layer, "../../../etc/passwd")), Err(ImageError::Part(_))));
    assert!(matches!(place.import(&linked_save(&layer, "/etc/passwd")), Err(ImageError::Part(_))));
    place.assert_nothing_left();
}

/// A saved image whose only layer is a link.
fn linked_save(layer: &[u8], target: &str) -> Vec<u8> {
    let text = serde_json::json!({ "os": "linux", "architecture": make::architecture(),
        "rootfs": { "diff_ids": [format!("sha256:{}", sha(layer))] } });
    let configuration = serde_json::to_vec(&text).unwrap();
    let config = format!("{}.json", sha(&configuration));
    let manifest = serde_json::json!([{ "Config": config, "Layers": ["0/layer.tar"] }]);
    Tar::default()
        .entry(b'0', "store/layer.tar", "", 0o644, layer)
        .symlink("0/layer.tar", target)
        .entry(b'0', &config, "", 0o644, &configuration)
        .entry(b'0', "manifest.json", "", 0o644, &serde_json::to_vec(&manifest).unwrap())
        .bytes()
}

#[test]
fn the_store_lists_holds_and_removes() {
    let place = Place::new();
    place.import(&base()).unwrap();
    assert!(matches!(place.import(&base()), Err(ImageError::Exists(_))));
    let listed = place.store.list().unwrap();
    assert_eq!((listed.len(), listed[0].name.as_str()), (1, "x"));
    assert!(listed[0].about.as_ref().is_some_and(|about| about.entries > 5));
    let held = place.store.hold(&name("x")).unwrap();
    assert!(held.path.join("bin/sh").exists());
    let again = place.store.hold(&name("x")).unwrap();
    assert!(matches!(place.store.remove(&name("x")), Err(ImageError::InUse(_))));
    drop((held, again));
    place.store.remove(&name("x")).unwrap();
    assert!(matches!(place.store.remove(&name("x")), Err(ImageError::Missing(_))));
    assert!(matches!(place.store.hold(&name("x")), Err(ImageError::Missing(_))));
    place.assert_nothing_left();
}

#[test]
fn what_a_killed_import_left_is_removed_by_the_next() {
    let place = Place::new();
    let stale = place.rootfs().join(".import-y-1");
    fs::create_dir_all(stale.join("tree/bin")).unwrap();
    fs::create_dir(place.rootfs().join(".gone-z-1")).unwrap();
    let busy = place.rootfs().join(".import-busy-2");
    fs::create_dir(&busy).unwrap();
    let lock = fs::File::open(&busy).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    place.import(&base()).unwrap();
    assert!(!stale.exists() && busy.exists() && !place.rootfs().join(".gone-z-1").exists());
    assert_eq!(place.store.list().unwrap().len(), 1);
}

#[test]
fn a_directory_of_somebody_else_is_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), folder.path().join("rootfs")).unwrap();
    assert!(matches!(Store::open(folder.path()), Err(ImageError::Write { .. })), "a link");
    if is_root() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("rootfs")).unwrap();
        std::os::unix::fs::chown(folder.path().join("rootfs"), Some(61_234), None).unwrap();
        assert!(matches!(Store::open(folder.path()), Err(ImageError::Owner { owner: 61_234, .. })));
    }
}

#[test]
fn names_are_plain() {
    for good in ["debian12", "python-3.12_slim", "0"] {
        assert!(RootfsName::parse(good).is_ok(), "{good}");
    }
    for bad in ["", ".", "..", ".hidden", "a/b", "A", "host", "ä", "-x", &"x".repeat(65)] {
        assert!(RootfsName::parse(bad).is_err(), "{bad}");
    }
}
