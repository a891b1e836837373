//! Packing folders, ignoring, guessing.

use std::os::unix::fs::symlink;

use super::*;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn names(package: &Package) -> Vec<String> {
    let mut archive = ZipArchive::new(Cursor::new(&package.zip)).unwrap();
    (0..archive.len()).map(|index| archive.by_index(index).unwrap().name().unwrap().into_owned()).collect()
}

fn pack(folder: &Path) -> Result<Package, PackageError> {
    package(folder, &mut |_| {})
}

#[test]
fn a_folder_is_packed_whole_sorted_and_with_modes() {
    let folder = folder(&[("index.js", "x"), ("lib/a/b.js", "y"), ("run.sh", "z")]);
    fs::set_permissions(folder.path().join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut bytes = 0;
    let package = package(folder.path(), &mut |count| bytes += count).unwrap();
    assert_eq!(names(&package), ["index.js", "lib/a/b.js", "run.sh"]);
    assert_eq!(bytes, 3);
    let mut archive = ZipArchive::new(Cursor::new(&package.zip)).unwrap();
    assert_eq!(archive.by_name("run.sh").unwrap().unix_mode().unwrap() & 0o777, 0o755);
}

#[test]
fn the_same_files_make_the_same_zip() {
    let (first, second) = (folder(&[("a.py", "x")]), folder(&[("a.py", "x")]));
    assert_eq!(pack(first.path()).unwrap().zip, pack(second.path()).unwrap().zip);
}

#[test]
fn what_is_ignored_stays_out() {
    let folder = folder(&[
        ("index.js", ""),
        (".git/config", ""),
        ("a.log", ""),
        ("deep/b.log", ""),
        ("deep/keep", ""),
        ("docs/x/y", ""),
        (".faasterignore", "# comment\n*.log\n\n/docs/x/\n"),
    ]);
    assert_eq!(names(&pack(folder.path()).unwrap()), ["deep/keep", "index.js"]);
}

#[test]
fn patterns_match_within_a_name() {
    for (pattern, text, expected) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("*.log", "x.log", true),
        ("*.log", ".log", true),
        ("*.log", "x.logs", false),
        ("a*b*c", "aXbYc", true),
        ("a*b*c", "aXcYb", false),
        ("dir/*", "dir/x", true),
        ("dir/*", "dir/x/y", false),
        ("*", "ü", true),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}

#[test]
fn links_stay_inside() {
    let inside = folder(&[("index.js", "x")]);
    symlink("index.js", inside.path().join("again.js")).unwrap();
    symlink(".", inside.path().join("circle")).unwrap();
    assert_eq!(names(&pack(inside.path()).unwrap()), ["again.js", "index.js"]);
    symlink("/etc/passwd", inside.path().join("out")).unwrap();
    assert!(matches!(pack(inside.path()), Err(PackageError::LinkOut { .. })));
}

#[test]
fn nothing_and_no_zip_are_refused() {
    assert!(matches!(pack(folder(&[]).path()), Err(PackageError::Empty(_))));
    let file = folder(&[("code.zip", "this is no zip")]);
    assert!(matches!(pack(&file.path().join("code.zip")), Err(PackageError::NoCode(_))));
    assert!(matches!(pack(Path::new("/no/such/folder")), Err(PackageError::Read { .. })));
}

#[test]
fn a_zip_is_taken_as_it_is_and_guessed_from() {
    let source = folder(&[("handler.py", "def handler(event, context): pass")]);
    let packed = pack(source.path()).unwrap();
    let file = folder(&[]);
    let path = file.path().join("code.zip");
    fs::write(&path, &packed.zip).unwrap();
    let taken = pack(&path).unwrap();
    assert_eq!((taken.zip, taken.guess), (packed.zip, packed.guess));
}

#[test]
fn runtimes_and_handlers_are_guessed() {
    for (files, runtime, handler) in [
        (vec![("index.js", "exports.handler = 1")], Some("nodejs"), Some("index.handler")),
        (
            vec![("util.py", ""), ("main.py", "def lambda_handler(e, c):")],
            Some("python3"),
            Some("main.lambda_handler"),
        ),
        (
            vec![("lambda_function.py", "def lambda_handler(e, c): handler()")],
            Some("python3"),
            Some("lambda_function.handler"),
        ),
        (vec![("only.rb", "def handler")], Some("ruby"), Some("only.handler")),
        (vec![("bootstrap", ""), ("index.js", "")], Some("provided"), Some("bootstrap")),
        (vec![("a.py", ""), ("b.py", "")], Some("python3"), None),
        (vec![("a.py", ""), ("b.js", "")], None, None),
        (vec![("README.md", "")], None, None),
    ] {
        let tops: Vec<_> =
            files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
        let expected = Guess { runtime, handler: handler.map(str::to_owned) };
        assert_eq!(guess(&tops), expected, "{files:?}");
    }
}
