//! User namespaces below another: what fork servers and their children's containers are made of, tried.
//!
//! Owns: the trial. Must not know: what a fork server is for. `crate::forks::birth` does the same in earnest.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use faaster_sys::child::{REPORT_BYTES, REPORT_FAILED, Step};
use faaster_sys::clone3::{Birth, Memory, Namespaces};
use faaster_sys::fdpass;
use faaster_sys::nested::{NUMBER_BYTES, Nested};
use faaster_sys::pidfd::{Exit, PidFd, ProcessId};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, pipe_with};

use super::Outcome;
use crate::config::UID_BASE_DEFAULT;

/// Ids of the outer namespace: its own root, and one more for the inner.
const OUTER_MAP_IDS: u32 = 2;
const INNER_MAP: &[u8] = b"0 1 1";

/// Which part of it the kernel refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum NestedError {
    #[error("what it takes cannot be made: {0}")]
    Descriptors(Errno),
    #[error("the outer one cannot be made: {0}")]
    Outer(Errno),
    #[error("the outer one cannot have ids from {UID_BASE_DEFAULT} on: {0}")]
    Map(Errno),
    #[error("the inner one cannot be made: {0}")]
    Inner(Errno),
    #[error("a process of the inner one cannot be its root, or set up its network or cgroup namespace: {0}")]
    Inside(Errno),
}

/// Whether a process can be made in namespaces of its own below a user namespace that has no right on this host.
pub(super) fn nested() -> Outcome {
    outcome(try_it())
}

fn outcome(tried: Result<(), NestedError>) -> Outcome {
    let Err(error) = tried else {
        return Outcome::Ok("containers below a fork server's own".to_owned());
    };
    let remedy = match error {
        NestedError::Outer(Errno::NOSPC) | NestedError::Inner(Errno::NOSPC | Errno::USERS) => {
            ": `sysctl user.max_user_namespaces=65536`, and of its neighbours"
        }
        NestedError::Map(_) => {
            ": run the engine where these ids are mapped, outside of a container with a user namespace of its own"
        }
        _ => {
            ": lift what restricts user namespaces (kernel.unprivileged_userns_clone=1, a seccomp or AppArmor profile)"
        }
    };
    Outcome::Degraded(format!("{error}, so runtimes with a fork server boot one by one{remedy}"))
}

fn try_it() -> Result<(), NestedError> {
    let made = NestedError::Descriptors;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open(c"/proc", flags, Mode::empty()).map_err(made)?;
    let own = PidFd::of_self().map_err(made)?;
    let outer = outer_namespace(proc.as_fd(), &own)?;
    let (records, report) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(made)?;
    let (go, awaited) = gate().map_err(made)?;
    let steps = [
        Step::DieWithParent(own.as_fd()),
        Step::AwaitGo(awaited.as_fd()),
        Step::BecomeRoot,
        Step::NewCgroupNamespace,
        Step::LoopbackUp,
    ];
    let inner = inner_process(proc.as_fd(), &outer, &steps, report.as_fd())?;
    fdpass::send_with_fds(&go, b"g", &[]).map_err(made)?;
    inner.reap().map_err(NestedError::Inner)?;
    match refusal(&records) {
        Some(errno) => Err(NestedError::Inside(errno)),
        None => Ok(()),
    }
}

/// A user namespace with ids of its own, held by the descriptor alone.
fn outer_namespace(proc: BorrowedFd<'_>, own: &PidFd) -> Result<OwnedFd, NestedError> {
    let (_records, report) = pipe_with(PipeFlags::CLOEXEC).map_err(NestedError::Descriptors)?;
    let (_go, awaited) = gate().map_err(NestedError::Descriptors)?;
    let steps = [Step::DieWithParent(own.as_fd()), Step::AwaitGo(awaited.as_fd())];
    let birth = Birth { namespaces: Namespaces::User, cgroup: None, steps: &steps, report: report.as_fd() };
    let child = birth.start().map_err(NestedError::Outer)?;
    let at = |name: &str| format!("{}/{name}", child.pid.get());
    let map = format!("0 {UID_BASE_DEFAULT} {OUTER_MAP_IDS}");
    let mapped = ["uid_map", "gid_map"].into_iter().try_for_each(|name| {
        let file = rustix::fs::openat(proc, at(name), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, map.as_bytes()).map(drop)
    });
    let opened = rustix::fs::openat(proc, at("ns/user"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    child.pidfd.kill().ok();
    child.pidfd.reap().map_err(NestedError::Outer)?;
    mapped.map_err(NestedError::Map)?;
    opened.map_err(NestedError::Outer)
}

/// A process in namespaces below the outer one, made there by another that ends: a child of ours.
fn inner_process(
    proc: BorrowedFd<'_>,
    outer: &OwnedFd,
    steps: &[Step<'_>],
    report: BorrowedFd<'_>,
) -> Result<PidFd, NestedError> {
    let refused = NestedError::Inner;
    let (told, number) =
        pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(NestedError::Descriptors)?;
    let nested = Nested {
        namespaces: Namespaces::Own,
        memory: Memory::Copied,
        steps,
        report,
        proc,
        id_map: INNER_MAP,
        number: number.as_fd(),
    };
    let between =
        [Step::EnterUserNamespace(outer.as_fd()), Step::BecomeRoot, Step::Dumpable, Step::Bear(&nested)];
    let birth =
        Birth { namespaces: Namespaces::Shared, cgroup: None, steps: &between, report: number.as_fd() };
    let ended = birth.run().map_err(refused)?;
    let mut bytes = [0; NUMBER_BYTES + REPORT_BYTES];
    let count = rustix::io::read(&told, &mut bytes).unwrap_or(0);
    let is_well = ended == Exit::Code(0) && count == NUMBER_BYTES;
    let (head, tail) = bytes.split_at(NUMBER_BYTES);
    if is_well || count == bytes.len() {
        let pid = i32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let pid = ProcessId::new(pid).ok_or(refused(Errno::RANGE))?;
        // A child of ours that nobody has reaped: the number is its own.
        let inner = PidFd::open(pid).map_err(refused)?;
        if is_well {
            return Ok(inner);
        }
        inner.kill().ok();
        inner.reap().ok();
    }
    Err(refused(errno_of(if count == bytes.len() { tail } else { head })))
}

fn gate() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Why a process ended early, if it did.
fn refusal(records: &OwnedFd) -> Option<Errno> {
    let mut record = [0; REPORT_BYTES];
    let count = rustix::io::read(records, &mut record).unwrap_or(0);
    (count == REPORT_BYTES && record[0] == REPORT_FAILED).then(|| errno_of(&record))
}

fn errno_of(record: &[u8]) -> Errno {
    Errno::from_raw_os_error(i32::from(u16::from_le_bytes([record[2], record[3]])).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_works_here_and_leaves_no_process() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: user namespaces with ids of others take root");
            return;
        }
        assert_eq!(outcome(try_it()), Outcome::Ok("containers below a fork server's own".to_owned()));
    }

    #[test]
    fn a_refusal_names_what_and_the_remedy() {
        for (error, what, remedy) in [
            (NestedError::Outer(Errno::NOSPC), "outer", "user.max_user_namespaces"),
            (NestedError::Inner(Errno::PERM), "inner", "unprivileged_userns_clone"),
            (NestedError::Map(Errno::PERM), "cannot have ids", "are mapped"),
        ] {
            let Outcome::Degraded(text) = outcome(Err(error)) else { panic!("{error} is good") };
            assert!(text.contains(what) && text.contains(remedy) && text.contains("one by one"), "{text}");
        }
    }
}
