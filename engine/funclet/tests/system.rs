//! The funclet against a real kernel: containers, claims, limits, deaths, and that nothing is left.
//!
//! As root: `unshare --pid --fork --kill-child --mount-proc -- cargo test -p faaster-funclet --test system -- --test-threads=1`.
//! Without root every test says that it is skipped. Claim times:
//! `... --test system -- --test-threads=1 --ignored --nocapture claim_times`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod support;

#[path = "system/claims.rs"]
mod claims;
#[path = "system/confinement.rs"]
mod confinement;
#[path = "system/deaths.rs"]
mod deaths;
#[path = "system/faults.rs"]
mod faults;
#[path = "system/frozen.rs"]
mod frozen;
#[path = "system/hostile_engine.rs"]
mod hostile_engine;
#[path = "system/layers.rs"]
mod layers;
#[path = "system/leftovers.rs"]
mod leftovers;
#[path = "system/links.rs"]
mod links;
#[path = "system/pools.rs"]
mod pools;
#[path = "system/programs.rs"]
mod programs;
#[path = "system/reclaimed.rs"]
mod reclaimed;
#[path = "system/resize.rs"]
mod resize;
#[path = "system/reuse.rs"]
mod reuse;
#[path = "system/roots.rs"]
mod roots;
#[path = "system/stuck.rs"]
mod stuck;
#[path = "system/times.rs"]
mod times;
#[path = "system/whole.rs"]
mod whole;

use faaster_sys::mount;

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
    if std::env::var("FUNCLET_PROC").is_ok_and(|proc| proc == "Masked") {
        mount::unshare_mounts().unwrap();
        rustix::mount::mount_bind("/proc/sys", "/proc/sys").unwrap();
    }
    let reason = faaster_funclet::run(config, inherited("FUNCLET_LINK"), inherited("FUNCLET_DEATH"));
    assert!(reason.is_ok(), "{reason:?}");
}
