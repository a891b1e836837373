//! Tests of the registry: versions, uses of code, paging, restarts, kill -9.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use faaster_function::deployed::Concurrency;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::*;

fn account(id: &str) -> AccountId {
    AccountId::parse(id).unwrap()
}

fn upsert(owner: &str, name: &str, version: &str, code: u8, commit: &str) -> Upsert {
    Upsert {
        account: account(owner).hash(),
        owner: account(owner),
        name: FunctionName::parse(name).unwrap(),
        version: Version::parse(version).unwrap(),
        settings: Settings {
            description: None,
            runtime: "nodejs10".into(),
            handler: "index.handler".into(),
            timeout_secs: 5,
            memory_mb: 128,
            concurrency: Concurrency::Exclusive,
            instances_max: None,
            instances_min: None,
            network_mode: None,
            layers: None,
            environment: std::collections::BTreeMap::new(),
        },
        code: CodeRef { sha256: CodeHash([code; 32]), bytes: 9 },
        fresh_commit_id: commit.into(),
        modified_secs: 1,
    }
}

fn put(registry: &Registry, request: Upsert) -> Upserted {
    wait(|done| registry.upsert(request, done)).unwrap()
}

fn uses(registry: &Registry, code: u8) -> u64 {
    wait(|done| registry.code_uses(CodeHash([code; 32]), done)).unwrap()
}

#[test]
fn a_redeploy_keeps_the_commit_of_the_same_code_and_grows_the_revision() {
    let directory = tempfile::tempdir().unwrap();
    let (registry, thread) = Registry::open(directory.path()).unwrap();
    let first = put(&registry, upsert("a", "f", "1", 1, "c1"));
    let same = put(&registry, upsert("a", "f", "1", 1, "c2"));
    let other = put(&registry, upsert("a", "f", "1", 2, "c3"));
    assert_eq!((&*first.record.commit_id, first.unused), ("c1", vec![]));
    assert_eq!((&*same.record.commit_id, same.unused), ("c1", vec![]));
    assert_eq!((&*other.record.commit_id, other.unused), ("c3", vec![CodeHash([1; 32])]));
    assert!(first.record.revision < same.record.revision && same.record.revision < other.record.revision);
    assert_eq!((uses(&registry, 1), uses(&registry, 2)), (0, 1));
    // A key that was deleted and comes back does not begin anew.
    let name = FunctionName::parse("f").unwrap();
    let gone = wait(|done| registry.delete(account("a").hash(), name.clone(), None, done)).unwrap();
    assert_eq!((gone.records.len(), gone.unused), (1, vec![CodeHash([2; 32])]));
    let again = put(&registry, upsert("a", "f", "1", 2, "c4"));
    assert!(again.record.revision > other.record.revision);
    assert_eq!(again.record.commit_id, "c4");
    drop(registry);
    thread.join();
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (registry, thread) = Registry::open(directory.path()).unwrap();
    let node = registry.node_id().to_owned();
    let put_record = put(&registry, upsert("a", "f", "$LATEST", 1, "c")).record;
    assert!(matches!(Registry::open(directory.path()), Err(RegistryError::InUse { .. })));
    drop(registry);
    thread.join();
    let (registry, thread) = Registry::open(directory.path()).unwrap();
    assert_eq!(registry.node_id(), node);
    assert_eq!(node.len(), 16);
    assert_eq!(wait(|done| registry.get(put_record.key(), done)).unwrap(), Some(put_record));
    assert_eq!(wait(|done| registry.get("x:y:z".into(), done)).unwrap(), None);
    drop(registry);
    thread.join();
}

#[test]
fn listings_hold_one_account_page_by_page() {
    let directory = tempfile::tempdir().unwrap();
    let (registry, thread) = Registry::open(directory.path()).unwrap();
    for (owner, name, version) in [
        ("a", "f", "10"),
        ("a", "f", "2"),
        ("a", "f", "$LATEST"),
        ("a", "f-g", "1"),
        ("a", "z", "1"),
        ("b", "f", "1"),
    ] {
        put(&registry, upsert(owner, name, version, 1, "c"));
    }
    let page = |marker: Option<&str>, limit| {
        let page =
            wait(|done| registry.list(account("a").hash(), marker.map(str::to_owned), limit, done)).unwrap();
        let names: Vec<String> = page.records.iter().map(|r| format!("{}:{}", r.name, r.version)).collect();
        (names.join(" "), page.next)
    };
    assert_eq!(page(None, 10), ("f-g:1 f:$LATEST f:10 f:2 z:1".into(), None));
    assert_eq!(page(None, 2), ("f-g:1 f:$LATEST".into(), Some("f:$LATEST".into())));
    assert_eq!(page(Some("f:$LATEST"), 2), ("f:10 f:2".into(), Some("f:2".into())));
    assert_eq!(page(Some("f:2"), 2), ("z:1".into(), None));
    assert_eq!(page(Some("zz"), 2), (String::new(), None));
    assert_eq!(page(None, 5).1, None, "a page that ends with the last one names no next");
    let name = FunctionName::parse("f").unwrap();
    let versions = wait(|done| registry.versions(account("a").hash(), name.clone(), done)).unwrap();
    let versions: Vec<&str> = versions.iter().map(|record| record.version.as_str()).collect();
    assert_eq!(versions, ["$LATEST", "2", "10"]);
    // One version goes, then all: those of a name that only begins alike stay.
    let two = Version::parse("2").unwrap();
    let gone = wait(|done| registry.delete(account("a").hash(), name.clone(), Some(two), done)).unwrap();
    assert_eq!(gone.records.len(), 1);
    let gone = wait(|done| registry.delete(account("a").hash(), name, None, done)).unwrap();
    assert_eq!(gone.records.len(), 2);
    assert_eq!(page(None, 10).0, "f-g:1 z:1");
    assert_eq!(wait(|done| registry.all(done)).unwrap().len(), 3);
    drop(registry);
    thread.join();
}

#[test]
fn a_later_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    {
        let database = redb::Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        write
            .open_table(redb::TableDefinition::<&str, u64>::new("numbers"))
            .unwrap()
            .insert("format", 9)
            .unwrap();
        write.commit().unwrap();
    }
    let error = Registry::open(directory.path()).unwrap_err();
    assert!(error.to_string().contains("has format 9, this engine knows up to 1"), "{error}");
}

/// Runs only as the child of the test below: writes until it is killed, and prints what was acknowledged.
#[test]
fn child_that_writes() {
    let Ok(directory) = std::env::var("FAASTER_TEST_REGISTRY") else { return };
    let (registry, _thread) = Registry::open(Path::new(&directory)).unwrap();
    for number in 0..1_000_000_u32 {
        let record =
            put(&registry, upsert("a", &format!("f{}", number % 50), "1", 1, &number.to_string())).record;
        println!("\nacknowledged {} {}", record.name, record.revision);
    }
}

#[test]
fn kill_9_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = std::collections::BTreeMap::new();
    for round in 0..5_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["registry::tests::child_that_writes", "--exact", "--nocapture"])
            .env("FAASTER_TEST_REGISTRY", directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let mut seen = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            let words: Vec<&str> = line.split(' ').collect();
            if let ["acknowledged", name, revision] = words[..] {
                acknowledged.insert(name.to_owned(), revision.parse::<u64>().unwrap());
                seen += 1;
                if seen == 20 + 7 * round {
                    pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(seen >= 20, "the child wrote only {seen}");
        let (registry, thread) = Registry::open(directory.path()).unwrap();
        for (name, revision) in &acknowledged {
            let key = upsert("a", name, "1", 1, "").account.as_str().to_owned() + ":" + name + ":1";
            let record = wait(|done| registry.get(key, done)).unwrap().unwrap();
            assert!(
                record.revision >= *revision,
                "{name}: {} is older than acknowledged {revision}",
                record.revision
            );
        }
        let records = wait(|done| registry.all(done)).unwrap().len() as u64;
        assert_eq!(uses(&registry, 1), records, "uses of code agree with the records");
        drop(registry);
        thread.join();
    }
}

/// Runs only as the child of the test below, in a mount namespace of its own.
#[test]
fn child_on_a_disk_that_fills() {
    let Ok(directory) = std::env::var("FAASTER_TEST_FULL_REGISTRY") else {
        eprintln!("skipped: runs only as the child of another test");
        return;
    };
    let directory = Path::new(&directory);
    let (registry, thread) = Registry::open(directory).unwrap();
    put(&registry, upsert("a", "before", "1", 1, "c"));
    let filler = directory.join("filler");
    let full = std::fs::write(&filler, vec![1; 64 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    // The database has room of its own for a while; large records use it up.
    let mut refused = None;
    let mut acknowledged = vec!["before".to_owned()];
    for number in 0..2000 {
        let name = format!("f{number}");
        let mut request = upsert("a", &name, "1", 1, "c");
        request.settings.environment.insert("A".into(), "x".repeat(4000));
        match wait(|done| registry.upsert(request, done)) {
            Ok(_) => acknowledged.push(name),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.expect("a full disk refuses at some point");
    assert!(matches!(refused, RegistryError::DiskFull { .. }), "{refused:?}");
    std::fs::remove_file(filler).unwrap();
    put(&registry, upsert("a", "after", "1", 1, "c"));
    acknowledged.push("after".into());
    drop(registry);
    thread.join();
    let (registry, _thread) = Registry::open(directory).unwrap();
    for name in acknowledged {
        let key = format!("{}:{name}:1", account("a").hash());
        assert!(wait(|done| registry.get(key, done)).unwrap().is_some(), "{name} was acknowledged");
    }
}

#[test]
fn a_disk_that_was_full_does_no_lasting_harm() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting a small disk needs root");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=4m none \"$1\" && exec \"$2\" registry::tests::child_on_a_disk_that_fills --exact";
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-ec", script, "sh"])
        .arg(root.path())
        .arg(std::env::current_exe().unwrap())
        .env("FAASTER_TEST_FULL_REGISTRY", root.path())
        .status()
        .unwrap();
    assert!(status.success(), "the child says what failed");
}
