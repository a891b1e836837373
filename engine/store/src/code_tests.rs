//! Tests of the code store: put, share, pin, remove, sweep, full disk.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::*;
use crate::pack::pack_folder;
use crate::zip::build::{file, zip};

fn open(root: &Path) -> CodeStore {
    CodeStore::open(root, |_| true).unwrap().0
}

fn names(root: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_package_is_stored_once_and_shared() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path());
    let bytes = zip(&[file("index.js", b"hello")]);
    let first = store.put_zip(&bytes).unwrap();
    let second = store.put_zip(&bytes).unwrap();
    assert_eq!(first.unpacked, Some(Unpacked { files: 1, bytes: 5 }));
    assert_eq!((second.unpacked, second.code), (None, first.code));
    let hash = first.code.sha256;
    assert_eq!(names(root.path()), [hash.to_string(), format!("{hash}.zip")]);
    assert_eq!(fs::read(store.directory(&hash).join("index.js")).unwrap(), b"hello");
    assert_eq!(store.read_zip(&hash).unwrap(), bytes);
    let owner = fs::metadata(store.directory(&hash)).unwrap();
    assert_eq!((owner.uid(), owner.mode() & 0o7777), (rustix::process::geteuid().as_raw(), 0o755));
}

#[test]
fn a_pinned_package_is_not_removed() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path());
    let bytes = zip(&[file("index.js", b"hello")]);
    let hash = store.put_zip(&bytes).unwrap().code.sha256;
    store.put_zip(&bytes).unwrap();
    store.unpin(&hash);
    assert_eq!(store.remove(&hash).unwrap(), Removed::Pinned);
    store.unpin(&hash);
    assert_eq!(store.remove(&hash).unwrap(), Removed::Yes);
    assert!(names(root.path()).is_empty());
    assert_eq!(store.remove(&hash).unwrap(), Removed::Yes, "what is not there is removed");
}

#[test]
fn a_refused_zip_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path());
    let mut damaged = file("b", b"hello");
    damaged.crc_lie = 1;
    for bytes in [zip(&[file("../x", b"")]), zip(&[file("a", b"x"), damaged]), b"no zip".to_vec()] {
        assert!(matches!(store.put_zip(&bytes), Err(CodeError::Zip(_))));
        assert!(names(root.path()).is_empty());
    }
}

#[test]
fn opening_puts_the_store_in_order() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path());
    let hash = |bytes: &[u8], store: &mut CodeStore| store.put_zip(bytes).unwrap().code.sha256;
    let used = hash(&zip(&[file("used", b"1")]), &mut store);
    let zip_only = hash(&zip(&[file("zip", b"2")]), &mut store);
    let unused = hash(&zip(&[file("unused", b"3")]), &mut store);
    fs::remove_dir_all(store.directory(&zip_only)).unwrap();
    fs::create_dir(root.path().join(format!(".new-{unused}"))).unwrap();
    fs::write(root.path().join(format!(".new-{unused}/half")), b"x").unwrap();
    fs::write(root.path().join(format!(".zip-{unused}")), b"half").unwrap();
    fs::create_dir(root.path().join(format!(".gone-{unused}"))).unwrap();
    fs::write(root.path().join("operators-notes.txt"), b"keep").unwrap();
    drop(store);
    let (store, swept) = CodeStore::open(root.path(), |hash| *hash != unused).unwrap();
    assert_eq!(swept, Swept { leftovers: 3, unused: 1 });
    let mut expected = vec!["operators-notes.txt".to_owned(), used.to_string()];
    expected.extend([used, zip_only].map(|hash| format!("{hash}.zip")));
    expected.sort();
    assert_eq!(names(root.path()), expected);
    let mut store = store;
    store.bring_back(zip_only, None).unwrap();
    assert_eq!(fs::read(store.directory(&zip_only).join("zip")).unwrap(), b"2");
}

#[test]
fn a_folder_packs_the_same_every_time_and_unpacks_again() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("lib")).unwrap();
    fs::write(folder.path().join("index.js"), b"hello".repeat(100)).unwrap();
    fs::write(folder.path().join("lib/x"), b"").unwrap();
    fs::write(folder.path().join("run"), b"#!").unwrap();
    fs::set_permissions(folder.path().join("run"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .unwrap();
    std::os::unix::fs::symlink("lib/x", folder.path().join("link")).unwrap();
    let bytes = pack_folder(folder.path()).unwrap();
    fs::write(folder.path().join("index.js"), b"hello".repeat(100)).unwrap();
    assert_eq!(pack_folder(folder.path()).unwrap(), bytes, "times do not matter");
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path());
    let stored = store.put_zip(&bytes).unwrap();
    let directory = store.directory(&stored.code.sha256);
    assert_eq!(stored.unpacked, Some(Unpacked { files: 3, bytes: 502 }));
    assert_eq!(fs::read_link(directory.join("link")).unwrap(), Path::new("lib/x"));
    assert_eq!(fs::metadata(directory.join("run")).unwrap().mode() & 0o7777, 0o755);
    assert!(pack_folder(&folder.path().join("none")).is_err());
}

/// Runs only as the child of the test below, in a mount namespace of its own.
#[test]
fn child_on_a_small_disk() {
    let Ok(root) = std::env::var("FAASTER_TEST_SMALL_DISK") else {
        eprintln!("skipped: runs only as the child of another test");
        return;
    };
    let mut store = open(Path::new(&root));
    let small = zip(&[file("index.js", b"hello")]);
    store.put_zip(&small).unwrap();
    let before = names(Path::new(&root));
    // 8 MiB of zeros in a zip of a few KiB, on a disk of 1 MiB.
    let error = store.put_zip(&zip(&[file("a", b"x"), file("big", &vec![0; 8 << 20])])).unwrap_err();
    assert!(matches!(error, CodeError::DiskFull { .. }), "{error:?}");
    assert!(error.to_string().starts_with("no space left on the device"), "{error}");
    assert_eq!(names(Path::new(&root)), before, "nothing is left behind");
    store.put_zip(&zip(&[file("index.js", b"again")])).unwrap();
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting a small disk needs root");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let script =
        "mount -t tmpfs -o size=1m none \"$1\" && exec \"$2\" code::tests::child_on_a_small_disk --exact";
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-ec", script, "sh"])
        .arg(root.path())
        .arg(std::env::current_exe().unwrap())
        .env("FAASTER_TEST_SMALL_DISK", root.path())
        .status()
        .unwrap();
    assert!(status.success(), "the child says what failed");
}

#[test]
fn a_budget_refuses_what_would_be_too_much_and_gives_back_what_was_removed() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path());
    let package = |byte: u8| zip(&[file("data", &[byte; 4000])]);
    let each = 4000 + package(b'a').len() as u64;
    store.limit(2 * each);
    let counters = store.counters();
    let first = store.put_zip(&package(b'a')).unwrap().code.sha256;
    store.put_zip(&package(b'b')).unwrap();
    assert_eq!(counters.held_bytes(), 2 * each);
    let before = names(root.path());
    let refused = store.put_zip(&package(b'c')).unwrap_err();
    assert!(
        matches!(refused, CodeError::OverBudget { needed_bytes, .. } if needed_bytes == each),
        "{refused}"
    );
    assert_eq!(
        (counters.evicted_total(), names(root.path())),
        (0, before),
        "nothing is left of it, nothing went for it"
    );
    store.put_zip(&package(b'a')).unwrap();
    assert_eq!(counters.held_bytes(), 2 * each, "what is there costs nothing");
    store.unpin(&first);
    store.unpin(&first);
    store.remove(&first).unwrap();
    assert_eq!(counters.held_bytes(), each);
    store.put_zip(&package(b'c')).unwrap();
    // The next one finds what is there, once it has looked.
    let mut next = open(root.path());
    assert_eq!(next.counters().held_bytes(), 0);
    next.measure().unwrap();
    next.measure().unwrap();
    assert_eq!(next.counters().held_bytes(), 2 * each);
}

#[test]
fn merged_packages_have_a_name_for_each_order_and_come_back() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path());
    let mut put =
        |text: &[u8]| store.put_zip(&zip(&[file("same", text), file("own", text)])).unwrap().code.sha256;
    let (first, second) = (put(b"1"), put(b"2"));
    let forth = store.put_tree(&[first, second]).unwrap();
    let back = store.put_tree(&[second, first]).unwrap();
    assert_eq!(store.put_tree(&[first]).unwrap(), first, "one alone is its own");
    let read = |store: &CodeStore, hash: &CodeHash| fs::read(store.directory(hash).join("same")).unwrap();
    assert_eq!((read(&store, &forth), read(&store, &back)), (b"2".to_vec(), b"1".to_vec()));
    assert_eq!(store.remove(&forth).unwrap(), Removed::Pinned);
    store.unpin(&forth);
    assert_eq!(store.remove(&forth).unwrap(), Removed::Yes);
    assert_eq!(read(&store, &second), b"2", "what it was made of stays");
    store.restore_tree(&[first, second]).unwrap();
    let held = store.counters().held_bytes();
    store.measure().unwrap();
    assert_eq!(store.counters().held_bytes(), held, "links cost nothing");
    assert_eq!(read(&store, &forth), b"2");
    // An interrupted one is swept, and one that is used stays.
    fs::create_dir(root.path().join(format!(".new-{forth}"))).unwrap();
    let (store, swept) = CodeStore::open(root.path(), |hash| *hash != back).unwrap();
    assert_eq!(swept, Swept { leftovers: 1, unused: 1 });
    assert!(store.directory(&forth).is_dir() && !store.directory(&back).exists());
}
