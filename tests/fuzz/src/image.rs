//! Archives of images: whatever the bytes, nothing is made outside of the tree, and nothing is left of a refused one.
//!
//! Owns: the check, and repairing checksums, without which no changed archive would be read at all. Must not know: who
//! imports.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use faaster_image::{Bounds, RootfsName, Store};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

const BLOCK: usize = 512;
const BOUNDS: Bounds = Bounds { bytes: 1 << 20, entries: 200, layers: 4 };

/// Imports the bytes as they are, and with good checksums.
pub fn check(data: &[u8]) {
    import(data);
    import(&repaired(data));
}

fn import(data: &[u8]) {
    let outside = tempfile::tempdir().expect("a directory for the test");
    let (archive, top) = (outside.path().join("archive"), outside.path().join("data"));
    fs::write(&archive, data).expect("room");
    let store = Store::open(&top).expect("a directory of our own");
    let name = RootfsName::parse("x").expect("a good name");
    let imported = store.import(&name, &archive, BOUNDS);
    let mut beside: Vec<_> = names(outside.path());
    beside.sort();
    assert_eq!(beside, ["archive", "data"], "something was made outside");
    assert_eq!(names(&top), ["rootfs"], "something was made beside");
    match imported {
        Ok(imported) => {
            assert!(imported.bytes <= BOUNDS.bytes && imported.entries <= BOUNDS.entries);
            assert_eq!(names(&top.join("rootfs")), ["x"]);
            look(&top.join("rootfs/x/tree"), 0);
        }
        Err(_) => assert!(names(&top.join("rootfs")).is_empty(), "something is left of a refused image"),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("it is there").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Nothing but files, directories and links; nothing privileged; nothing of a whiteout.
fn look(folder: &Path, depth: usize) {
    assert!(depth < 200);
    for entry in fs::read_dir(folder).expect("it is there").flatten() {
        let metadata = entry.path().symlink_metadata().expect("it is there");
        let kind = metadata.file_type();
        assert!(kind.is_file() || kind.is_dir() || kind.is_symlink(), "{:?}", entry.path());
        assert_eq!(metadata.uid(), fs::metadata(folder).expect("it is there").uid());
        assert!(kind.is_symlink() || metadata.permissions().mode() & 0o7000 == 0, "{:?}", entry.path());
        assert!(!entry.file_name().to_string_lossy().starts_with(".wh."), "{:?}", entry.path());
        if kind.is_dir() {
            // What a mode closes to its owner is looked into by root alone.
            if metadata.permissions().mode() & 0o500 == 0o500 {
                look(&entry.path(), depth + 1);
            }
        }
    }
}

/// The same bytes, with the checksum that each header would have.
fn repaired(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    let mut at = 0;
    while at + BLOCK <= bytes.len() {
        let mut header = Header::from_byte_slice(&bytes[at..at + BLOCK]).clone();
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            break;
        }
        header.set_cksum();
        bytes[at..at + BLOCK].copy_from_slice(header.as_bytes());
        let size = usize::try_from(header.entry_size().unwrap_or(0)).unwrap_or(usize::MAX);
        let blocks = size.div_ceil(BLOCK).saturating_add(1);
        at = at.saturating_add(blocks.saturating_mul(BLOCK));
    }
    bytes
}

fn archive(entries: &[(EntryType, &str, &str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, name, link, data) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(0o755);
        header.set_size(data.len() as u64);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

/// Layers with every kind of entry, and a saved image.
pub fn seeds() -> Vec<Vec<u8>> {
    use EntryType as T;
    let plain = archive(&[
        (T::Directory, "etc/", "", b""),
        (T::Regular, "etc/passwd", "", b"root"),
        (T::Symlink, "out", "/tmp", b""),
        (T::Symlink, "up", "../../..", b""),
        (T::Regular, "out/x", "", b"through a link"),
        (T::Regular, "up/y", "", b"through another"),
        (T::Link, "again", "etc/passwd", b""),
        (T::Regular, "etc/.wh.passwd", "", b""),
        (T::Regular, "etc/.wh..wh..opq", "", b""),
        (T::Char, "dev/null", "", b""),
    ]);
    let long = archive(&[
        (T::GNULongName, "././@LongLink", "", b"a/long/../name/\0"),
        (T::Regular, "short", "", b"x"),
        (T::XHeader, "pax", "", b"14 path=../evil\n"),
        (T::Regular, "other", "", b"y"),
    ]);
    let hex =
        |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let configuration = format!(r#"{{"rootfs":{{"diff_ids":["sha256:{}"]}}}}"#, hex(&plain));
    let name = format!("{}.json", hex(configuration.as_bytes()));
    let manifest = format!(r#"[{{"Config":"{name}","Layers":["0/layer.tar"]}}]"#);
    let saved = archive(&[
        (T::Regular, "0/layer.tar", "", &plain),
        (T::Regular, &name, "", configuration.as_bytes()),
        (T::Regular, "manifest.json", "", manifest.as_bytes()),
    ]);
    vec![plain, long, saved, archive(&[])]
}
