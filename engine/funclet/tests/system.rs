//! The funclet against a real kernel: containers, claims, limits, deaths, and that nothing is left.
//!
//! As root: `unshare --pid --fork --kill-child --mount-proc -- cargo test -p faaster-funclet --test system -- --test-threads=1`.
//! Without root every test says that it is skipped.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod support;

use faaster_protocol::frame::FrameType;
use support::{Node, Options, can_run};

/// Not a test: the process that [`support`] starts this binary for.
#[test]
#[ignore = "started by the other tests"]
fn funclet_process() {
    let Some(file) = std::env::var_os("FUNCLET_CONFIG") else { return };
    let config = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let inherited = |name: &str| {
        let number = std::env::var(name).unwrap().parse().unwrap();
        let fd = faaster_sys::inherited::take(number).unwrap();
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).unwrap();
        fd
    };
    let reason = faaster_funclet::run(config, inherited("FUNCLET_LINK"), inherited("FUNCLET_DEATH"));
    assert!(reason.is_ok(), "{reason:?}");
}

#[test]
fn a_pooled_container_answers_and_nothing_is_left() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let code = node.code(1, &[("hello.txt", "from the package")]);
    let mut instance = node.engine.claim(0, code);
    assert_eq!(instance.load().kind, FrameType::Ready);
    assert_eq!(instance.run("result = open('/var/task/hello.txt').read()"), "from the package");
    assert_eq!(node.stop(), 0);
    node.assert_nothing_left();
}
