//! Root file systems other than the host's programs: what is refused before any container is made.

use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};

use crate::support::{Node, Options, can_run, python};

/// A tree that would do.
fn tree(folder: &Path) -> PathBuf {
    let tree = folder.join("tree");
    for name in ["dev", "proc", "tmp", "var/task", "var/runtime"] {
        std::fs::create_dir_all(tree.join(name)).unwrap();
    }
    tree
}

/// Whether a funclet starts with a tree.
fn starts(tree: PathBuf) -> bool {
    let mut runtime = python();
    runtime.rootfs = Some(tree);
    let mut node = Node::start(Options { pool: 0, runtimes: vec![runtime], ..Options::default() });
    let code = node.stop_if_it_runs();
    node.assert_nothing_left();
    code == 0
}

#[test]
fn only_a_tree_of_roots_with_all_mount_points_and_without_links_is_used() {
    if !can_run() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let good = tree(folder.path());
    assert!(starts(good.clone()));
    let link = folder.path().join("link");
    symlink(&good, &link).unwrap();
    assert!(!starts(link), "a link");
    assert!(!starts(folder.path().join("absent")), "nothing");
    for name in ["dev", "var/task"] {
        let wrong = good.join(name);
        std::fs::remove_dir(&wrong).unwrap();
        assert!(!starts(good.clone()), "without {name}");
        // The kernel would follow it out of the tree when something is mounted there.
        symlink("/tmp", &wrong).unwrap();
        assert!(!starts(good.clone()), "{name} is a link");
        std::fs::remove_file(&wrong).unwrap();
        std::fs::create_dir(&wrong).unwrap();
    }
    chown(&good, Some(61_234), None).unwrap();
    assert!(!starts(good), "the engine's, and so exchangeable");
}
