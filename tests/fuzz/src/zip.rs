//! Uploaded zips: whatever the bytes, nothing is made outside of the target, and no more than was planned.
//!
//! Owns: the check. Must not know: who uploads.

use std::fs;
use std::path::Path;

use faaster_store::pack::pack_folder;
use faaster_store::zip::{plan, unpack};

/// Zips that claim more than this are planned, not unpacked: it would only cost time.
const UNPACKED_BYTES_MAX: u64 = 1 << 20;

/// Plans, and unpacks what is small.
pub fn check(data: &[u8]) {
    let Ok(plan) = plan::plan(data) else { return };
    assert!(!plan.files.is_empty());
    let files = plan.files.iter().map(|file| file.path.as_str());
    let links = plan.links.iter().map(|(path, _)| path.as_str());
    for path in files.chain(links).chain(plan.directories.iter().map(String::as_str)) {
        assert!(!path.is_empty() && !path.starts_with('/') && !path.contains(['\\', '\0']), "{path:?}");
        assert!(path.split('/').all(|part| !part.is_empty() && part != "." && part != ".."), "{path:?}");
    }
    let stated: u64 = plan.files.iter().map(|file| file.entry.bytes).sum();
    if stated > UNPACKED_BYTES_MAX {
        return;
    }
    let outside = tempfile::tempdir().expect("a directory for the test");
    let target = outside.path().join("target");
    fs::create_dir(&target).expect("a directory for the test");
    let unpacked = unpack::unpack(&plan, &target);
    let beside: Vec<_> = fs::read_dir(outside.path()).expect("it is there").flatten().collect();
    assert_eq!(beside.len(), 1, "something was made outside: {beside:?}");
    let inside = target.canonicalize().expect("it is there");
    let found = look(&target, &inside);
    if let Ok(unpacked) = unpacked {
        assert_eq!(unpacked.files, plan.files.len());
        assert_eq!(found.files, plan.files.len());
        assert_eq!((found.bytes, unpacked.bytes), (stated, stated));
    }
}

#[derive(Debug, Default)]
struct Found {
    files: usize,
    bytes: u64,
}

/// Counts what was made; every link must lead to something inside.
fn look(directory: &Path, inside: &Path) -> Found {
    let mut found = Found::default();
    for entry in fs::read_dir(directory).expect("it is there").flatten() {
        let kind = entry.file_type().expect("it is there");
        if kind.is_symlink() {
            let end = entry.path().canonicalize().expect("a link leads somewhere");
            assert!(end.starts_with(inside), "{:?} leads out to {end:?}", entry.path());
        } else if kind.is_dir() {
            let below = look(&entry.path(), inside);
            found.files += below.files;
            found.bytes += below.bytes;
        } else {
            assert!(kind.is_file());
            found.files += 1;
            found.bytes += entry.metadata().expect("it is there").len();
        }
    }
    found
}

/// A packed folder with a file, a directory and a link, and an empty zip.
pub fn seeds() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a directory for the test");
    let below = folder.path().join("lib");
    fs::create_dir(&below).expect("a directory for the test");
    fs::write(folder.path().join("index.py"), "def handler(event, context):\n    return event\n")
        .expect("room");
    fs::write(below.join("data"), vec![b'x'; 3000]).expect("room");
    let plain = pack_folder(folder.path()).expect("a folder packs");
    std::os::unix::fs::symlink("lib/data", folder.path().join("link")).expect("room");
    let mut seeds = vec![plain];
    seeds.extend(pack_folder(folder.path()));
    seeds.push([&b"PK\x05\x06"[..], &[0; 18]].concat());
    seeds
}
