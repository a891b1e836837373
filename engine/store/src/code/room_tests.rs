//! Tests of unpacked code that goes and comes back: for room, for its age, with its layers, over a restart.

use std::sync::Arc;

use super::*;
use crate::zip::build::{file, zip};

const DATA_BYTES: u64 = 4000;

fn package(byte: u8) -> Vec<u8> {
    zip(&[file("data", &[byte; 4000])])
}

/// Stores a package that nothing pins.
fn put(store: &mut CodeStore, byte: u8) -> CodeHash {
    let hash = store.put_zip(&package(byte)).unwrap().code.sha256;
    store.unpin(&hash);
    hash
}

fn open(root: &Path) -> (CodeStore, Arc<CodeUses>) {
    let (mut store, _) = CodeStore::open(root, |_| true).unwrap();
    let uses = Arc::<CodeUses>::default();
    store.watch(uses.clone());
    (store, uses)
}

/// Which of these are unpacked.
fn there(store: &CodeStore, hashes: &[CodeHash]) -> Vec<bool> {
    hashes.iter().map(|hash| store.directory(hash).is_dir()).collect()
}

/// Ends a use of a package now.
fn use_now(uses: &Arc<CodeUses>, hash: CodeHash) {
    let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap();
    uses.take(hash, None).unwrap().used_until(u64::try_from(now.as_nanos()).unwrap());
}

/// What the zips of these take.
fn packed(store: &CodeStore, hashes: &[CodeHash]) -> u64 {
    hashes.iter().map(|hash| store.read_zip(hash).unwrap().len() as u64).sum()
}

/// The room that `count` unpacked packages and all the zips of `zips` take.
fn room_for(count: u64, zips: u64) -> u64 {
    // They differ by a byte or two.
    count * DATA_BYTES + zips * (package(b'a').len() as u64 + 8)
}

#[test]
fn the_longest_unused_goes_for_room_and_comes_back_when_it_is_wanted() {
    let root = tempfile::tempdir().unwrap();
    let (mut store, uses) = open(root.path());
    store.limit(room_for(2, 4));
    let (a, b) = (put(&mut store, b'a'), put(&mut store, b'b'));
    use_now(&uses, b);
    use_now(&uses, a);
    let c = put(&mut store, b'c');
    assert_eq!(there(&store, &[a, b, c]), [true, false, true]);
    // Called in turns, again and again: all can be had, and the budget holds.
    for hash in [b, c, a, b, c, a] {
        let lease = store.bring_back(hash, None).unwrap();
        assert_eq!(fs::read(store.directory(&hash).join("data")).unwrap().len(), 4000);
        assert!(store.counters().held_bytes() <= room_for(2, 4));
        drop(lease);
        use_now(&uses, hash);
    }
    assert!(store.counters().unpacked_again_total() > 0 && store.counters().evicted_total() > 1);
    // An upload makes room in the same way; its zip stays, and so do the others'.
    let d = put(&mut store, b'd');
    assert!(store.directory(&d).is_dir());
    for hash in [a, b, c, d] {
        assert!(store.zip_path(&hash).is_file());
    }
    assert_eq!(store.counters().held_bytes(), 2 * DATA_BYTES + packed(&store, &[a, b, c, d]));
}

#[test]
fn what_is_in_use_or_pinned_stays_and_the_rest_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (mut store, uses) = open(root.path());
    store.limit(room_for(2, 3));
    let a = put(&mut store, b'a');
    let pinned = store.put_zip(&package(b'b')).unwrap().code.sha256;
    let lease = uses.take(a, None).unwrap();
    let refused = store.put_zip(&package(b'c')).unwrap_err();
    assert!(matches!(refused, CodeError::OverBudget { .. }), "{refused}");
    assert_eq!(there(&store, &[a, pinned]), [true, true]);
    assert_eq!(store.remove(&a).unwrap(), Removed::InUse);
    assert_eq!(store.sweep_idle(Some(Duration::ZERO)).unwrap(), 0);
    drop(lease);
    put(&mut store, b'c');
    assert_eq!(there(&store, &[a, pinned]), [false, true]);
    let refused = store.bring_back(CodeHash([9; 32]), None).unwrap_err();
    assert!(matches!(refused, CodeError::Io { .. }), "there never was such a package: {refused}");
}

#[test]
fn what_is_wanted_does_not_go_for_its_own_layers() {
    let root = tempfile::tempdir().unwrap();
    let (mut store, uses) = open(root.path());
    let code = put(&mut store, b'f');
    let (one, two) = (put(&mut store, b'1'), put(&mut store, b'2'));
    let tree = store.put_tree(&[one, two]).unwrap();
    store.unpin(&tree);
    store.limit(room_for(3, 4));
    let other = put(&mut store, b'o');
    // The longest unused is a layer; what it is part of goes with it, or nothing would be freed.
    let gone = there(&store, &[code, one, two]).iter().filter(|there| !**there).count();
    assert_eq!(gone, 1);
    let lease = store.bring_back(code, Some(tree)).unwrap();
    assert_eq!(there(&store, &[code, one, two, tree, other]), [true, true, true, true, false]);
    assert!(uses.is_used(&code) && uses.is_used(&tree));
    // A layer whose tree is in use is in use.
    assert!(store.bring_back(other, None).is_err());
    assert_eq!(there(&store, &[code, one, two, tree]), [true; 4]);
    drop(lease);
    store.sweep_idle(Some(Duration::ZERO)).unwrap();
    assert_eq!(there(&store, &[code, one, two, tree]), [false; 4]);
    assert_eq!(store.counters().held_bytes(), packed(&store, &[code, one, two, other]));
    assert_eq!(store.unpacked_bytes(&code).unwrap(), DATA_BYTES, "known without being there");
}

#[test]
fn ages_outlast_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let (mut store, uses) = open(root.path());
    let (a, b, c) = (put(&mut store, b'a'), put(&mut store, b'b'), put(&mut store, b'c'));
    let hour = Duration::from_secs(3600);
    for (hash, hours) in [(a, 3), (b, 2), (c, 1)] {
        touch(&store.zip_path(&hash), SystemTime::now() - hour * hours).unwrap();
    }
    drop(store);
    let (mut store, _) = open(root.path());
    store.watch(uses.clone());
    let lease = uses.take(b, None).unwrap();
    assert_eq!(store.sweep_idle(Some(hour * 5 / 2)).unwrap(), 1);
    assert_eq!(there(&store, &[a, b, c]), [false, true, true]);
    drop(lease);
    // b was in use a moment ago, which the next engine knows, though nobody tells it.
    drop(store);
    let (mut store, _) = open(root.path());
    assert_eq!(store.sweep_idle(None).unwrap(), 0);
    assert_eq!(store.sweep_idle(Some(hour / 2)).unwrap(), 1);
    assert_eq!(there(&store, &[a, b, c]), [false, true, false]);
    assert_eq!(store.counters().held_bytes(), DATA_BYTES + packed(&store, &[a, b, c]));
}

#[test]
fn who_rests_longest_is_in_the_way() {
    let root = tempfile::tempdir().unwrap();
    let (mut store, uses) = open(root.path());
    let (a, b) = (put(&mut store, b'a'), put(&mut store, b'b'));
    store.limit(room_for(2, 3));
    let leases = [a, b].map(|hash| uses.take(hash, None).unwrap());
    let needed = room_for(1, 1);
    assert_eq!(store.in_the_way(&Resting::new(), needed), None, "both are busy");
    let resting = vec![(a, Duration::ZERO), (b, Duration::ZERO)];
    let chosen = store.in_the_way(&resting, needed).unwrap();
    assert_eq!(chosen.len(), 1);
    assert_eq!(store.in_the_way(&resting, room_for(2, 1)), Some([a, b].into()));
    assert_eq!(store.in_the_way(&resting, room_for(3, 1)), None, "not even both would do");
    drop(leases);
    assert_eq!(store.in_the_way(&Resting::new(), needed), Some([].into()), "there is room for the asking");
}
