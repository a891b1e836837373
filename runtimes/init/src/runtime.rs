//! From init's child to the language runtime: an input of its own, limits, no privilege, filters, then the program.
//!
//! Owns: the order of these steps. Must not know: what the program does.

use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use faaster_init::{InitStep, RUNTIME_USER, Record};
use faaster_limits::{FUNCTION_FDS_DEFAULT, FUNCTION_FDS_MAX};
use faaster_sys::exec::{CStringArray, exec};
use faaster_sys::seccomp::{Filters, Scope};
use faaster_sys::{credentials, exec as sys_exec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use crate::load::{self, LoadError};
use crate::{Failure, Kind, Order, report};

/// Limits that leave nothing, whatever the engine was started with. Of core dumps 1 byte and not 0: where the host's
/// `core_pattern` is a pipe, 0 is ignored and only 1 stops the kernel from feeding a function's memory to a program of
/// the host's (core(5); fs/coredump.c). Nobody takes real-time priority or a better nice value.
const REFUSED: [(Resource, u64); 3] = [(Resource::Core, 1), (Resource::Rtprio, 0), (Resource::Nice, 0)];

/// Returns only when the program did not start: `Ok` when the engine has been told so, or has gone.
pub(crate) fn become_runtime(
    order: &Order,
    channel: &OwnedFd,
    log: &OwnedFd,
    status: &OwnedFd,
    filters: &Filters,
) -> Result<(), Failure> {
    own_files(log)?;
    set_limits()?;
    credentials::drop_to(RUNTIME_USER, RUNTIME_USER)
        .map_err(|_| Failure::new(InitStep::Drop, Errno::PERM))?;
    filters.install(Scope::CallingThread).map_err(|_| Failure::new(InitStep::Filters, Errno::INVAL))?;
    match order.kind {
        Kind::Pooled => {
            let environment = std::env::vars_os().filter_map(|(name, value)| pair(&name, &value)).collect();
            Err(Failure::new(InitStep::Exec, run(order, environment)))
        }
        Kind::Exec => {
            report(status, Record::Parked);
            load_and_run(order, channel);
            Ok(())
        }
        Kind::Forked => unreachable!("its process is not init's to make"),
    }
}

/// Its output goes to the log. The input that a container is born with is one open file for all of them: its flags would
/// be a way from one function to another.
fn own_files(log: &OwnedFd) -> Result<(), Failure> {
    let failed = |errno| Failure::new(InitStep::Descriptors, errno);
    let null =
        rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    rustix::stdio::dup2_stdin(&null).map_err(failed)?;
    rustix::stdio::dup2_stdout(log).map_err(failed)?;
    rustix::stdio::dup2_stderr(log).map_err(failed)
}

fn set_limits() -> Result<(), Failure> {
    let failed = |errno| Failure::new(InitStep::Limits, errno);
    let hard = rustix::process::getrlimit(Resource::Nofile)
        .maximum
        .unwrap_or(FUNCTION_FDS_MAX)
        .min(FUNCTION_FDS_MAX);
    let files = Rlimit { current: Some(FUNCTION_FDS_DEFAULT.min(hard)), maximum: Some(hard) };
    rustix::process::setrlimit(Resource::Nofile, files).map_err(failed)?;
    for (resource, most) in REFUSED {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::setrlimit(resource, limit).map_err(failed)?;
    }
    Ok(())
}

/// Waits for `load`, then runs the function's own program; what goes wrong is told on the channel.
fn load_and_run(order: &Order, channel: &OwnedFd) {
    let failure = match load::receive(channel) {
        Ok(load) => match rustix::process::chdir(load::CODE_FOLDER) {
            Ok(()) => LoadError::of_exec(&order.argv[0], run(order, load.environment(std::env::vars_os()))),
            Err(errno) => LoadError::of_exec(&order.argv[0], errno),
        },
        Err(failure) => failure,
    };
    load::send_failure(channel, &failure);
}

fn run(order: &Order, environment: Vec<CString>) -> Errno {
    let arguments = sys_exec::CStringArray::new(order.argv.clone());
    exec(&order.argv[0], &arguments, &CStringArray::new(environment))
}

/// `NAME=value`; nothing where that cannot be said.
pub(crate) fn pair(name: &OsStr, value: &OsStr) -> Option<CString> {
    let (name, value) = (name.as_bytes(), value.as_bytes());
    if name.is_empty() || name.contains(&b'=') {
        return None;
    }
    CString::new([name, b"=", value].concat()).ok()
}
