//! Tests of reading, planning and unpacking, mostly with zips that mean harm.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use proptest::prelude::*;

use super::build::{Entry, file, link, zip};
use super::plan::{Executable, plan};
use super::unpack::{UnpackError, Unpacked, unpack};
use super::*;

fn refused(entries: &[Entry]) -> ZipError {
    plan(&zip(entries)).map(|plan| format!("{plan:?}")).unwrap_err()
}

fn unpacked(bytes: &[u8], target: &Path) -> Result<Unpacked, UnpackError> {
    unpack(&plan(bytes).map_err(UnpackError::Zip)?, target)
}

/// The zip of FaaSter's quick start: a macOS folder, no Unix mode on index.js, data descriptors, odd deflate blocks.
pub(crate) const QUICK_START: &str = "UEsDBBQAAAAAAHCjX00AAAAAAAAAAAAAAAAJABUAX19NQUNPU1gvVVgIALSf2Vu0n9lbVVQFAAG0n9lbUEsDBBQACAAIAAyjX00AAAAAAAAAAAAAAAATABUAX19NQUNPU1gvLl9pbmRleC5qc1VYCACwn9lb+J7ZW1VUBQAB+J7ZW2JgFWNnYGJg8E1MVvAPVohQgAKQGAMnAwODEQMDQx0DA5i/gYEo4BgSEgRlgnQsYGBgEEBTwogQl0rOz9VLLCjISdXLSSwuKS1OTUlJLElVDggGKXw772Y0iO5J8tAH0YAAAAD//1BLBwgOCcksZgAAALAAAABQSwMEFAAIAAgAAAAAAAAAAAAAAAAAAAAAAAgAAABpbmRleC5qc0qtKMgvKinWy0jMS8lJLVKwVdBILUvNK9FRSM7PK0mtADESc3KSEpOzNRVs7RSquRQUFOBCGnmlOTk6CkoeqTk5+Qrl+UU5KYpKmtZctdaAAAAA//9QSwcILzRMjVUAAABYAAAAUEsBAhQDFAAAAAAAcKNfTQAAAAAAAAAAAAAAAAkAFQAAAAAAAAAAQP1BAAAAAF9fTUFDT1NYL1VYCAC0n9lbtJ/ZW1VUBQABtJ/ZW1BLAQIUAxQACAAIAAyjX00OCcksZgAAALAAAAATABUAAAAAAAAAAECkgTwAAABfX01BQ09TWC8uX2luZGV4LmpzVVgIALCf2Vv4ntlbVVQFAAH4ntlbUEsBAhQAFAAIAAgAAAAAAC80TI1VAAAAWAAAAAgAAAAAAAAAAAAAAAAA+AAAAGluZGV4LmpzUEsFBgAAAAADAAMA2AAAAIMBAAAAAA==";

/// Base64 without a dependency, for the one constant.
fn base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut out = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 6 | u32::from(value(*byte)));
        let bits = bits << (6 * (4 - group.len()));
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    out
}

#[test]
fn the_quick_starts_zip_unpacks() {
    let target = tempfile::tempdir().unwrap();
    let got = unpacked(&base64(QUICK_START), target.path()).unwrap();
    assert_eq!(got.files, 2);
    let index = target.path().join("index.js");
    assert!(fs::read_to_string(&index).unwrap().contains("Hello world!"));
    assert_eq!(fs::metadata(&index).unwrap().mode() & 0o7777, 0o644, "no mode in the zip means 0644");
    assert_eq!(fs::metadata(target.path().join("__MACOSX")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn modes_are_ours_whatever_the_zip_says() {
    let target = tempfile::tempdir().unwrap();
    let with_mode = |name: &str, mode| Entry { mode, ..file(name, b"x") };
    let bytes = zip(&[
        with_mode("none", 0),
        with_mode("zero", 0o100_000),
        with_mode("secret", 0o100_600),
        with_mode("run", 0o100_700),
        with_mode("setuid", 0o104_755),
        with_mode("open", 0o100_666),
        Entry { host: 0, ..with_mode("bootstrap", 0) },
        with_mode("dir/", 0o040_000),
        with_mode("dir/inner", 0o100_644),
    ]);
    unpacked(&bytes, target.path()).unwrap();
    for (name, expected) in [
        ("none", 0o644),
        ("zero", 0o644),
        ("secret", 0o644),
        ("run", 0o755),
        ("setuid", 0o755),
        ("open", 0o644),
        ("bootstrap", 0o755),
        ("dir", 0o755),
        ("dir/inner", 0o644),
    ] {
        let mode = fs::metadata(target.path().join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, expected, "{name}: {mode:o}");
    }
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["../x", "a/../../x", "a/..", "..", "a/b/../../../../etc/passwd"] {
        assert_eq!(refused(&[file(name, b"x")]), ZipError::Traversal(name.into()), "{name}");
    }
    for name in ["/etc/passwd", "//x"] {
        assert_eq!(refused(&[file(name, b"x")]), ZipError::Absolute(name.into()), "{name}");
    }
    let windows = |name: &str| Entry { host: 0, ..file(name, b"x") };
    assert_eq!(refused(&[windows("..\\x")]), ZipError::Traversal("..\\x".into()));
    assert_eq!(refused(&[windows("C:\\x")]), ZipError::Absolute("C:\\x".into()));
    assert_eq!(refused(&[windows("\\x")]), ZipError::Absolute("\\x".into()));
    assert_eq!(refused(&[file("a\\b", b"x")]), ZipError::Backslash("a\\b".into()));
    assert_eq!(refused(&[file("a\0b", b"x")]), ZipError::BadName("a\0b".into()));
    assert_eq!(refused(&[file("", b"x")]), ZipError::BadName(String::new()));
    assert!(matches!(refused(&[file(&"n".repeat(256), b"x")]), ZipError::BadName(_)));
    assert!(matches!(refused(&[file(&"n/".repeat(600), b"x")]), ZipError::LongName(_)));
    assert!(matches!(refused(&[Entry { name: vec![0xff, b'a'], ..file("", b"x") }]), ZipError::NotUtf8(_)));
}

#[test]
fn names_are_made_plain() {
    let bytes = zip(&[
        file("./a.js", b"1"),
        file("d//e/./f", b"2"),
        Entry { host: 0, mode: 0, ..file("w\\x\\y.js", b"3") },
        Entry { host: 0, mode: 0, ..file("w\\empty\\", b"") },
        file("./", b""),
        file("d/", b""),
    ]);
    let plan = plan(&bytes).unwrap();
    let files: Vec<&str> = plan.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(files, ["a.js", "d/e/f", "w/x/y.js"]);
    assert_eq!(plan.directories, ["d", "d/e", "w", "w/empty", "w/x"]);
    assert!(plan.files.iter().all(|file| file.executable == Executable::No));
}

#[test]
fn the_same_name_twice_is_refused() {
    for (entries, at) in [
        (vec![file("a", b"1"), file("a", b"2")], "a"),
        (vec![file("a", b"1"), file("./a", b"2")], "a"),
        (vec![file("a", b"1"), file("a/", b"")], "a"),
        (vec![file("a/b", b"1"), file("a", b"2")], "a"),
        (vec![file("a/b", b"1"), link("a", "b")], "a"),
    ] {
        assert_eq!(refused(&entries), ZipError::Duplicate(at.into()));
    }
    assert_eq!(refused(&[file("a", b"1"), file("a/b", b"2")]), ZipError::BelowFile("a/b".into()));
    assert_eq!(refused(&[link("a", "."), file("a/b", b"2")]), ZipError::BelowFile("a/b".into()));
}

#[test]
fn links_stay_inside() {
    let target = tempfile::tempdir().unwrap();
    let bytes = zip(&[
        file("bin/tool/cli.js", b"cli"),
        link("node_modules/.bin/tool", "../../bin/tool/cli.js"),
        link("latest", "bin"),
        link("chain", "latest/tool/cli.js"),
        link("here", "."),
        Entry { method: 8, ..link("deflated", "bin/tool") },
    ]);
    unpacked(&bytes, target.path()).unwrap();
    assert_eq!(fs::read(target.path().join("node_modules/.bin/tool")).unwrap(), b"cli");
    assert_eq!(fs::read(target.path().join("chain")).unwrap(), b"cli");
    assert_eq!(fs::read(target.path().join("deflated/cli.js")).unwrap(), b"cli");
    for (entries, why) in [
        (vec![link("a", "/etc/passwd")], "absolute"),
        (vec![link("a", "../x")], "leads out"),
        (vec![link("d/a", "../../x")], "leads out"),
        (vec![link("a", "nowhere")], "not in the zip"),
        (vec![link("a", "f/x"), file("f", b"")], "not in the zip"),
        (vec![link("a", "f/../f"), file("f", b"")], "not in the zip"),
        (vec![link("a", "a")], "too many links"),
        (vec![link("a", "b"), link("b", "a")], "too many links"),
        // Each link is harmless alone: b is d/e, and ".." of it is d, but the kernel walks b first.
        (vec![link("b", "d/e"), file("d/e/f", b""), link("a", "b/../../x")], "not in the zip"),
        (vec![link("b", "d"), file("d/f", b""), link("a", "b/../../x")], "leads out"),
        (vec![link("a", "")], "no path"),
        (vec![link("a", &"x/".repeat(600))], "target is too long"),
    ] {
        let mut entries = entries;
        entries.push(file("index.js", b""));
        let text = refused(&entries).to_string();
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn what_is_no_file_is_refused() {
    for kind in [0o010_000, 0o020_000, 0o060_000, 0o140_000] {
        let entry = Entry { mode: kind | 0o644, ..file("dev", b"") };
        assert_eq!(refused(&[entry]), ZipError::Special("dev".into()));
    }
    assert_eq!(refused(&[Entry { flags: 1, ..file("a", b"x") }]), ZipError::Encrypted("a".into()));
    assert_eq!(refused(&[Entry { method: 12, ..file("a", b"x") }]), ZipError::Method("a".into(), 12));
    assert_eq!(refused(&[]), ZipError::Empty);
    assert_eq!(refused(&[file("only/", b"")]), ZipError::Empty);
}

#[test]
fn counts_and_sizes_are_bounded() {
    let many: Vec<Entry> =
        (0..=ZIP_ENTRIES_MAX).map(|at| Entry { method: 0, ..file(&format!("f{at}"), b"") }).collect();
    assert_eq!(refused(&many), ZipError::TooManyEntries);
    // 60 names that imply 500 directories each.
    let deep: Vec<Entry> = (0..60).map(|at| file(&format!("{at}/{}f", "d/".repeat(500)), b"")).collect();
    assert_eq!(refused(&deep), ZipError::TooManyEntries);
    let stated = Entry { size_lie: i64::try_from(UNZIPPED_BYTES_MAX).unwrap() + 1, ..file("a", b"") };
    assert_eq!(refused(&[stated]), ZipError::Bomb);
    let target = tempfile::tempdir().unwrap();
    let ten_thousand: Vec<Entry> =
        (0..10_000).map(|at| file(&format!("d{}/f{at}", at % 100), b"x")).collect();
    assert_eq!(unpacked(&zip(&ten_thousand), target.path()).unwrap().files, 10_000);
}

#[test]
fn bombs_are_counted_while_they_are_inflated() {
    // 64 MiB of zeros deflate to 64 KiB; the directory claims one byte.
    let target = tempfile::tempdir().unwrap();
    let zeros = vec![0; 64 << 20];
    let liar = Entry { size_lie: 1 - (64 << 20), ..file("liar", &zeros) };
    let error = unpacked(&zip(&[liar]), target.path()).unwrap_err();
    assert!(error.to_string().contains("larger than the directory says"), "{error}");
    assert!(fs::metadata(target.path().join("liar")).unwrap().len() <= 1);
}

#[test]
fn damage_is_named() {
    for (entry, what) in [
        (Entry { crc_lie: 1, ..file("a", b"hello") }, "checksum"),
        (Entry { size_lie: 1, ..file("a", b"hello") }, "smaller than"),
        (Entry { size_lie: -1, ..file("a", b"hello") }, "larger than"),
        (Entry { offset_lie: 1, ..file("a", b"hello") }, "where the directory says"),
        (Entry { offset_lie: 1 << 30, ..file("a", b"hello") }, "where the directory says"),
    ] {
        let target = tempfile::tempdir().unwrap();
        let text = unpacked(&zip(&[entry]), target.path()).unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
    }
    let mut cut = zip(&[file("a", &[7; 5000])]);
    let middle = cut.len() / 2;
    cut.drain(middle..middle + 20);
    assert!(plan(&cut).is_err() || unpacked(&cut, tempfile::tempdir().unwrap().path()).is_err());
    for bytes in [&b""[..], b"hello", b"PK\x03\x04", &[0; 22]] {
        assert!(matches!(plan(bytes), Err(ZipError::NotZip(_))), "{bytes:?}");
    }
}

#[test]
fn bytes_around_the_archive_do_no_harm() {
    let plain = zip(&[file("a", b"hello")]);
    let target = tempfile::tempdir().unwrap();
    let mut prefixed = b"#!/bin/sh\nexec unzip $0\n".to_vec();
    prefixed.extend_from_slice(&plain);
    assert_eq!(unpacked(&prefixed, target.path()).unwrap().bytes, 5);
    let mut commented = plain;
    let at = commented.len() - 2;
    commented[at..].copy_from_slice(&4_u16.to_le_bytes());
    commented.extend_from_slice(b"note");
    assert_eq!(plan(&commented).unwrap().files.len(), 1);
}

proptest! {
    #[test]
    fn any_file_comes_back(content in proptest::collection::vec(any::<u8>(), 0..2000), method in prop_oneof![Just(0_u16), Just(8)]) {
        let target = tempfile::tempdir().unwrap();
        unpacked(&zip(&[Entry { method, ..file("d/f", &content) }]), target.path()).unwrap();
        prop_assert_eq!(fs::read(target.path().join("d/f")).unwrap(), content);
    }

    #[test]
    fn bent_zips_do_not_panic_and_write_nothing_outside(
        at in 0_usize..400, value in any::<u8>(), second in 0_usize..400, other in any::<u8>(),
    ) {
        let mut bytes = zip(&[file("a/b.js", b"hello hello hello"), link("c", "a/b.js"), file("d", b"x")]);
        let len = bytes.len();
        bytes[at % len] = value;
        bytes[second % len] = other;
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("t");
        fs::create_dir(&target).unwrap();
        let _result = unpacked(&bytes, &target);
        prop_assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut framed = bytes;
        framed.extend_from_slice(b"PK\x05\x06\0\0\0\0\x01\0\x01\0\x30\0\0\0\0\0\0\0\0\0");
        let _result = plan(&framed);
    }
}
