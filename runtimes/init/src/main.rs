//! faaster-init: process 1 of a container.
//!
//! Owns: the assembly of its container, as it is told; the runtime's process, every orphan of the container, and the status pipe that says how the runtime ended.
//! Must not know: functions, the engine. It holds no capability once the runtime is started, and its end ends every
//! process of the container, because it is process 1 of their pid namespace.
#![forbid(unsafe_code)]

mod adopt;
mod load;
mod runtime;

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

use faaster_init::{InitStep, KIND_EXEC, KIND_FORKED, KIND_POOLED, Record, fd};
use faaster_limits::INIT_FILTERS_BYTES_MAX;
use faaster_sys::child::plan;
use faaster_sys::exec::Fork;
use faaster_sys::pidfd::ProcessId;
use faaster_sys::seccomp::Filters;
use faaster_sys::{credentials, exec, inherited};
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus};

/// When the runtime's program starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pooled,
    Exec,
    /// It comes from a fork server.
    Forked,
}

/// What to run, and when.
#[derive(Debug)]
struct Order {
    kind: Kind,
    argv: Vec<CString>,
}

/// Which step failed, and the kernel's reason.
#[derive(Debug, Clone, Copy)]
struct Failure {
    step: InitStep,
    errno: Errno,
}

fn main() -> ExitCode {
    let (Ok(order), Ok(status)) = (inherited::take(fd::ORDER), inherited::take(fd::STATUS)) else {
        eprintln!("faaster-init is started by faaster inside of a container, not by hand");
        return ExitCode::from(2);
    };
    let brought = match plan::follow(&order, status.as_fd()) {
        Ok(brought) => brought,
        Err(stopped) => {
            report(&status, Record::BirthFailed { position: stopped.position, errno: number(stopped.errno) });
            return ExitCode::FAILURE;
        }
    };
    match start(&status, order, brought) {
        Ok(Role::Init(main_child)) => {
            let record = reap_until(main_child);
            report(&status, record);
            ExitCode::SUCCESS
        }
        Ok(Role::RuntimeNotStarted) => ExitCode::FAILURE,
        Err(failure) => {
            report(&status, failure.record());
            ExitCode::FAILURE
        }
    }
}

/// Which of the two processes has come back from the start.
#[derive(Debug)]
enum Role {
    Init(ProcessId),
    /// The child: its program did not run, and whoever has to know has been told.
    RuntimeNotStarted,
}

impl Failure {
    fn new(step: InitStep, errno: Errno) -> Self {
        Self { step, errno }
    }

    fn record(self) -> Record {
        Record::InitFailed { step: self.step, errno: number(self.errno) }
    }
}

fn number(errno: Errno) -> u16 {
    u16::try_from(errno.raw_os_error()).unwrap_or(u16::MAX)
}

fn report(status: &OwnedFd, record: Record) {
    // A reader that is gone has no use for it.
    rustix::io::write(status, &record.encode()).ok();
}

/// Starts the runtime and gives up every privilege.
fn start(status: &OwnedFd, order_socket: OwnedFd, brought: Vec<OwnedFd>) -> Result<Role, Failure> {
    let failed = |errno| Failure::new(InitStep::Descriptors, errno);
    rustix::thread::set_name(c"faaster-init").ok();
    let order = parse(std::env::args_os().skip(1)).ok_or(Failure::new(InitStep::Arguments, Errno::INVAL))?;
    // The runtime must not be able to speak on it.
    rustix::io::fcntl_setfd(status, rustix::io::FdFlags::CLOEXEC).map_err(failed)?;
    if order.kind == Kind::Forked {
        let [adoption] = <[OwnedFd; 1]>::try_from(brought).map_err(|_| failed(Errno::BADF))?;
        drop(order_socket);
        give_up_privilege()?;
        return adopt::wait_for(adoption).map(Role::Init);
    }
    let [brought_channel, filters, log] =
        <[OwnedFd; 3]>::try_from(brought).map_err(|_| failed(Errno::BADF))?;
    // The runtime looks for it under the number that the order came by.
    let mut channel = order_socket;
    rustix::io::dup2(&brought_channel, &mut channel).map_err(failed)?;
    drop(brought_channel);
    let filters = read_filters(filters)?;
    match exec::fork().map_err(|_| Failure::new(InitStep::Fork, Errno::AGAIN))? {
        Fork::Child => {
            runtime::become_runtime(&order, &channel, &log, status, &filters)?;
            Ok(Role::RuntimeNotStarted)
        }
        Fork::Parent(child) => {
            // The log must reach its end when the runtime and its children are gone, so init must not hold it open.
            drop((channel, log));
            give_up_privilege()?;
            Ok(Role::Init(child))
        }
    }
}

fn give_up_privilege() -> Result<(), Failure> {
    credentials::drop_capabilities().map_err(|_| Failure::new(InitStep::Drop, Errno::PERM))?;
    credentials::hide_from_tracers().map_err(|errno| Failure::new(InitStep::Drop, errno))
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Order> {
    let kind = match arguments.next()?.to_str()? {
        KIND_POOLED => Kind::Pooled,
        KIND_EXEC => Kind::Exec,
        KIND_FORKED => Kind::Forked,
        _ => return None,
    };
    let argv: Vec<CString> =
        arguments.map(|argument| CString::new(argument.into_vec()).ok()).collect::<Option<_>>()?;
    (argv.is_empty() == (kind == Kind::Forked)).then_some(Order { kind, argv })
}

/// The file is shared by all containers, so its read position is nobody's: read from the start by offset.
fn read_filters(file: OwnedFd) -> Result<Filters, Failure> {
    let failed = |errno| Failure::new(InitStep::Filters, errno);
    let file = File::from(file);
    let size = file.metadata().map_err(|_| failed(Errno::IO))?.len();
    // Just as much memory as it takes: every container has its own copy of this process.
    let size = usize::try_from(size)
        .ok()
        .filter(|size| *size <= INIT_FILTERS_BYTES_MAX)
        .ok_or(failed(Errno::FBIG))?;
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0).map_err(|_| failed(Errno::IO))?;
    Filters::from_bytes(&bytes).map_err(|_| failed(Errno::INVAL))
}

/// Reaps orphans until the runtime itself has ended; says how that was.
fn reap_until(main_child: ProcessId) -> Record {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == main_child.get() => {
                return record_of(status);
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Failure::new(InitStep::Wait, errno).record(),
        }
    }
}

fn record_of(status: WaitStatus) -> Record {
    let small = |value: i32| u8::try_from(value).unwrap_or(u8::MAX);
    match (status.exit_status(), status.terminating_signal()) {
        (_, Some(signal)) => Record::Signalled(small(signal)),
        (code, None) => Record::Exited(small(code.unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Option<Order> {
        parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn command_lines_are_read() {
        let order = parsed(&["pooled", "/usr/bin/python3", "-E"]).unwrap();
        assert_eq!((order.kind, order.argv.len()), (Kind::Pooled, 2));
        assert_eq!(parsed(&["exec", "/var/task/bootstrap"]).unwrap().kind, Kind::Exec);
        assert!(parsed(&[]).is_none());
        assert!(parsed(&["pooled"]).is_none());
        assert_eq!(parsed(&["forked"]).unwrap().kind, Kind::Forked);
        assert!(parsed(&["forked", "/bin/true"]).is_none());
        assert!(parsed(&["other", "/bin/true"]).is_none());
    }
}
