//! Finding runtimes in folders that the test writes.

use super::*;
use crate::config::Rootfs;

static HOST: std::sync::LazyLock<Rootfs> = std::sync::LazyLock::new(Rootfs::host);

fn on_host() -> Roots<'static> {
    Roots::new(&HOST, Path::new("/"))
}

fn write(folder: &Path, name: &str, toml: &str) {
    fs::create_dir_all(folder.join(name)).unwrap();
    fs::write(folder.join(name).join("runtime.toml"), toml).unwrap();
}

const SHELL: &str = r#"
name = "shell"
names = ["shell*"]
kind = "pooled"
interpreters = ["/no/such/sh", "/bin/sh"]
version = ["{interpreter}", "-c", "echo shell 1.0; echo more"]
argv = ["{interpreter}", "/var/runtime/bootstrap"]
pool = 2
example = "hello"
imports = ["one", "two.three"]
"#;

#[test]
fn a_runtime_is_found_with_its_interpreter_and_version() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "sh", SHELL);
    fs::create_dir(folder.path().join("no-runtime")).unwrap();
    let found = find(&[folder.path().to_owned()], &BTreeMap::new(), &mut on_host()).unwrap();
    let [shell] = &found.runtimes[..] else { panic!("{found:?}") };
    assert_eq!((shell.name.as_str(), shell.version.as_str(), shell.pool), ("shell", "shell 1.0", 2));
    assert_eq!(shell.argv, ["/bin/sh", "/var/runtime/bootstrap"]);
    assert_eq!(shell.env["FAASTER_IMPORTS"], "one two.three");
    assert_eq!(found.examples["shell"], folder.path().join("sh/examples/hello"));
}

#[test]
fn a_runtime_with_a_fork_server_can_be_had_without() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "sh", &format!("{SHELL}fork_server = [\"{{interpreter}}\", \"-s\"]\nforks = 7\n"));
    let pool = BTreeMap::from([("shell-exec".to_owned(), 1)]);
    let found = find(&[folder.path().to_owned()], &pool, &mut on_host()).unwrap();
    let [forked, unforked] = &found.runtimes[..] else { panic!("{found:?}") };
    assert_eq!(
        (&forked.fork_server[..], forked.forks),
        (&["/bin/sh".to_owned(), "-s".to_owned()][..], Some(7))
    );
    assert_eq!(
        (unforked.name.as_str(), unforked.pool, unforked.argv == forked.argv),
        ("shell-exec", 1, true)
    );
    assert!(unforked.fork_server.is_empty() && unforked.names == ["shell-exec"]);
}

#[test]
fn a_pool_is_what_the_memory_affords() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "sh", &SHELL.replace("pool = 2", "pool = 64"));
    let mut spec =
        find(&[folder.path().to_owned()], &BTreeMap::new(), &mut on_host()).unwrap().runtimes.remove(0);
    let pools = |spec: &RuntimeSpec| [1, 4, 20, 1000].map(|gib| affordable_pool(spec, gib << 30));
    assert_eq!(pools(&spec), [1, 4, 20, 64]);
    spec.fork_server = spec.argv.clone();
    assert_eq!(pools(&spec), [3, 12, 64, 64]);
    spec.kind = RuntimeKind::Exec;
    assert_eq!(pools(&spec), [16, 64, 64, 64]);
    assert_eq!(affordable_pool(&spec, 0), 1);
}

#[test]
fn a_missing_interpreter_is_told_and_no_error() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "sh", &SHELL.replace("\"/bin/sh\"", "\"/no/sh\""));
    let found = find(&[folder.path().to_owned()], &BTreeMap::new(), &mut on_host()).unwrap();
    assert!(found.runtimes.is_empty());
    assert_eq!(found.unusable, [("shell".to_owned(), "none of /no/such/sh, /no/sh is installed".to_owned())]);
}

#[test]
fn a_later_folder_replaces_and_the_pool_setting_overrides() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(first.path(), "sh", SHELL);
    write(second.path(), "other-folder-name", &SHELL.replace("shell 1.0", "shell 2.0"));
    let folders = [first.path().to_owned(), second.path().to_owned()];
    let found = find(&folders, &BTreeMap::from([("shell".to_owned(), 9)]), &mut on_host()).unwrap();
    assert_eq!((found.runtimes[0].version.as_str(), found.runtimes[0].pool), ("shell 2.0", 9));
    let error = find(&folders, &BTreeMap::from([("perl".to_owned(), 9)]), &mut on_host()).unwrap_err();
    assert!(error.to_string().contains("perl") && error.to_string().contains("shell"), "{error}");
}

#[test]
fn bad_runtimes_are_named() {
    for (from, to) in [
        ("pool = 2", "pool = \"two\""),
        ("pool = 2", "pool = 2\nsurprise = 1"),
        ("name = \"shell\"", "name = \"../shell\""),
        ("example = \"hello\"", "example = \"../hello\""),
        ("two.three", "two three"),
        ("argv = [\"{interpreter}\", \"/var/runtime/bootstrap\"]", "argv = []"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "sh", &SHELL.replace(from, to));
        let error = find(&[folder.path().to_owned()], &BTreeMap::new(), &mut on_host()).unwrap_err();
        assert!(matches!(error, RuntimesError::Toml { .. }), "{to}: {error}");
    }
}

#[test]
fn the_shipped_runtimes_are_good() {
    let folder = tempfile::tempdir().unwrap();
    embedded::unpack(folder.path()).unwrap();
    let found = find(&[folder.path().to_owned()], &BTreeMap::new(), &mut on_host()).unwrap();
    assert!(found.runtimes.len() + found.unusable.len() >= 1);
    for (name, example) in &found.examples {
        assert!(example.is_dir(), "{name}: {}", example.display());
    }
}

#[test]
fn a_version_command_that_hangs_or_fails_gives_none() {
    assert_eq!(version(&["/no/such/program".to_owned()]), "");
    assert_eq!(version(&["/bin/true".to_owned()]), "");
    assert_eq!(version(&[]), "");
}

#[test]
fn an_interpreter_is_looked_for_in_the_runtimes_own_root() {
    let (folder, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(folder.path(), "sh", SHELL);
    let setting = Rootfs::parse(&[format!("shell={}", tree.path().display())]).unwrap();
    let folders = [folder.path().to_owned()];
    let search = || find(&folders, &BTreeMap::new(), &mut Roots::new(&setting, Path::new("/"))).unwrap();
    let [(_, reason)] = &search().unusable[..] else { panic!("a shell in an empty tree") };
    assert!(reason.contains(&tree.path().display().to_string()), "{reason}");
    fs::create_dir_all(tree.path().join("bin")).unwrap();
    fs::write(tree.path().join("bin/sh"), "").unwrap();
    let found = search();
    let real = tree.path().canonicalize().unwrap();
    assert_eq!((found.runtimes[0].rootfs.as_deref(), found.runtimes[0].version.as_str()), (Some(&*real), ""));
    let unknown = Rootfs::parse(&["cobol=host".to_owned()]).unwrap();
    let error = find(&folders, &BTreeMap::new(), &mut Roots::new(&unknown, Path::new("/"))).unwrap_err();
    assert!(matches!(error, RuntimesError::UnknownRootfs(..)), "{error}");
    let absent = Rootfs::parse(&["absent".to_owned()]).unwrap();
    let error = find(&folders, &BTreeMap::new(), &mut Roots::new(&absent, tree.path())).unwrap_err();
    assert!(error.to_string().contains("no root file system absent"), "{error}");
}
