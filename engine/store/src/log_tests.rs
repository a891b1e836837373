//! Logs on disk: budgets, order of removal, what an earlier engine left.

use super::*;
use proptest::prelude::*;

const BUDGET: LogBudget = LogBudget { bytes: 10_000, per_function_bytes: 4000 };

fn open(root: &Path) -> LogStore {
    LogStore::open(root, BUDGET).unwrap()
}

/// All of a function's log, oldest first.
fn text(root: &Path, function: &str) -> String {
    let Ok(folder) = fs::read_dir(root.join(function)) else { return String::new() };
    let mut paths: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

fn on_disk(root: &Path) -> u64 {
    let sizes =
        |folder: PathBuf| fs::read_dir(folder).unwrap().map(|it| it.unwrap().metadata().unwrap().len());
    fs::read_dir(root).unwrap().flat_map(|entry| sizes(entry.unwrap().path())).sum()
}

fn line(number: usize) -> Vec<u8> {
    format!("{number:0>99}\n").into_bytes()
}

#[test]
fn a_function_keeps_its_newest_lines_and_no_more_than_its_budget() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path());
    for number in 0..1000 {
        assert_eq!(store.append("f", &line(number)).unwrap(), Kept::Yes);
        assert!(store.bytes() <= BUDGET.per_function_bytes);
    }
    assert_eq!(store.bytes(), on_disk(root.path()));
    assert_eq!(store.bytes() + store.removed_bytes(), 100_000);
    let kept = text(root.path(), "f");
    // All that is there is whole and in order, up to the last line; at least what is left when a segment goes.
    let numbers: Vec<usize> = kept.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (1000 - numbers.len()..1000).collect::<Vec<_>>());
    assert!(kept.len() as u64 > BUDGET.per_function_bytes / 2, "{}", kept.len());
}

#[test]
fn the_oldest_of_all_goes_when_the_node_s_budget_is_full() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path());
    for function in ["a", "b", "c", "d"] {
        for number in 0..30 {
            store.append(function, &line(number)).unwrap();
            assert!(store.bytes() <= BUDGET.bytes);
        }
    }
    assert_eq!(store.bytes(), on_disk(root.path()));
    assert_eq!(text(root.path(), "d").lines().count(), 30, "the newest is whole");
    assert!(text(root.path(), "a").lines().count() < 30, "the oldest has given");
    for number in 0..1000 {
        store.append("e", &line(number)).unwrap();
    }
    assert!(!root.path().join("a").exists(), "a function without lines has no folder");
}

#[test]
fn what_an_earlier_engine_left_counts_and_goes_first() {
    let root = tempfile::tempdir().unwrap();
    let mut first = open(root.path());
    for number in 0..30 {
        first.append("old", &line(number)).unwrap();
    }
    drop(first);
    fs::write(root.path().join("notes.txt"), "the operator's").unwrap();
    fs::create_dir(root.path().join("old/folder.log")).unwrap();
    let mut second = open(root.path());
    assert_eq!(second.bytes(), 3000);
    second.append("old", &line(30)).unwrap();
    assert_eq!(text_without_folders(root.path(), "old").lines().count(), 31);
    drop(second);
    // A smaller budget is kept from the start.
    let small = LogBudget { bytes: 1500, per_function_bytes: 1500 };
    let third = LogStore::open(root.path(), small).unwrap();
    assert!(third.bytes() <= 1500 && third.removed_bytes() >= 1600, "{third:?}");
    let nothing = LogBudget { bytes: 0, ..small };
    assert_eq!(LogStore::open(root.path(), nothing).unwrap().bytes(), 0);
    assert!(root.path().join("notes.txt").exists());
}

fn text_without_folders(root: &Path, function: &str) -> String {
    fs::remove_dir(root.join(function).join("folder.log")).unwrap();
    text(root, function)
}

#[test]
fn what_is_too_large_or_no_name_is_not_kept() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path());
    assert_eq!(store.append("f", &vec![b'x'; 4001]).unwrap(), Kept::No);
    for name in ["", "..", "a/b", ".hidden", "a\0b", &"x".repeat(256)] {
        assert_eq!(store.append(name, b"x\n").unwrap(), Kept::No, "{name:?}");
    }
    assert_eq!((store.bytes(), fs::read_dir(root.path()).unwrap().count()), (0, 0));
}

#[test]
fn a_link_is_not_followed() {
    let root = tempfile::tempdir().unwrap();
    let target = tempfile::NamedTempFile::new().unwrap();
    let mut store = open(root.path());
    fs::create_dir(root.path().join("f")).unwrap();
    std::os::unix::fs::symlink(target.path(), store.path("f", 0)).unwrap();
    assert!(store.append("f", b"x\n").is_err());
    assert_eq!(fs::read(target.path()).unwrap(), b"");
}

proptest! {
    #[test]
    fn budgets_hold_and_nothing_is_lost_count_of(lines in proptest::collection::vec((0usize..4, 1usize..900), 1..120)) {
        let root = tempfile::tempdir().unwrap();
        let mut store = open(root.path());
        let mut written = 0;
        for (function, length) in lines {
            let mut line = vec![b'x'; length];
            line.push(b'\n');
            if store.append(["a", "b", "c", "d"][function], &line).unwrap() == Kept::Yes {
                written += line.len() as u64;
            }
            prop_assert!(store.bytes() <= BUDGET.bytes);
        }
        prop_assert_eq!(store.bytes(), on_disk(root.path()));
        prop_assert_eq!(store.bytes() + store.removed_bytes(), written);
        prop_assert_eq!(open(root.path()).bytes(), store.bytes());
    }
}

#[test]
fn what_earlier_engines_wrote_can_be_read_from_its_end() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path());
    (0..30).for_each(|number| assert_eq!(store.append("f", &line(number)).unwrap(), Kept::Yes));
    assert_eq!(store.earlier("f", 10_000).unwrap(), b"", "this engine wrote it");
    drop(store);
    let mut store = open(root.path());
    store.append("f", &line(30)).unwrap();
    let numbers = |bytes_max: u64| {
        let text = String::from_utf8(store.earlier("f", bytes_max).unwrap()).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(|line| line.parse().unwrap()).collect::<Vec<usize>>()
    };
    // Segments hold ten lines.
    assert_eq!(numbers(10_000), (0..30).collect::<Vec<_>>());
    assert_eq!(numbers(3000), (0..30).collect::<Vec<_>>());
    assert_eq!(numbers(2050), (10..30).collect::<Vec<_>>());
    assert_eq!(numbers(1099), (20..30).collect::<Vec<_>>());
    assert_eq!(numbers(150), [29]);
    assert_eq!(numbers(50), [0usize; 0]);
    assert_eq!(store.earlier("other", 100).unwrap(), b"");
}
