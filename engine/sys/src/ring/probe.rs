//! Which io_uring this kernel gives us, and in plain words why it gives none.
//!
//! Owns: the ladder of set-up flags and the diagnosis of a refusal. Features are tried, versions never parsed.
//! Must not know: what a shard does with a ring.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::Duration;

use io_uring::{IoUring, opcode, types::Fixed};

/// What the kernel offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingFeatures {
    /// IORING_SETUP_DEFER_TASKRUN (6.1): completions run when we ask for them, not when the kernel likes.
    pub defer_taskrun: bool,
    /// IORING_SETUP_NO_SQARRAY (6.6): one indirection less.
    pub no_sqarray: bool,
    /// Direct descriptors: accept into the ring's own table (5.19), where closing one really closes it.
    pub direct_descriptors: bool,
}

/// Why there is no usable ring; each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RingRefusal {
    #[error(
        "io_uring is switched off on this host: set `sysctl kernel.io_uring_disabled=0` (it is {0}) and start again"
    )]
    Sysctl(u8),
    #[error(
        "io_uring is not allowed here, most likely by the container's seccomp profile: run with a profile that \
         allows io_uring_setup, io_uring_enter and io_uring_register, or with --security-opt seccomp=unconfined"
    )]
    Seccomp(#[source] io::Error),
    #[error("this kernel has no io_uring: Linux 6.1 or newer is needed")]
    Absent,
    #[error("the memory lock limit is too low for a ring: raise it with `ulimit -l 8192` or LimitMEMLOCK=8M")]
    MemoryLock(#[source] io::Error),
    #[error("this kernel's io_uring lacks {0}: Linux 6.1 or newer is needed")]
    Operation(&'static str),
    #[error("the kernel refused a ring")]
    Other(#[source] io::Error),
}

/// Tries a small ring and says what it can do.
///
/// # Errors
/// The reason why the engine cannot run here.
pub fn probe() -> Result<RingFeatures, RingRefusal> {
    let (ring, features) = build(8, 16, Birth::Enabled)?;
    let mut found = io_uring::Probe::new();
    ring.submitter().register_probe(&mut found).map_err(RingRefusal::Other)?;
    for (code, name) in [
        (opcode::AcceptMulti::CODE, "accept"),
        (opcode::RecvMulti::CODE, "recv"),
        (opcode::Send::CODE, "send"),
        (opcode::RecvMsg::CODE, "recvmsg"),
        (opcode::Read::CODE, "read"),
        (opcode::PollAdd::CODE, "poll"),
        (opcode::AsyncCancel2::CODE, "cancel"),
        (opcode::Shutdown::CODE, "shutdown"),
        (opcode::Close::CODE, "close"),
    ] {
        if !found.is_supported(code) {
            return Err(RingRefusal::Operation(name));
        }
    }
    Ok(features)
}

/// Whether a new ring takes work at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Birth {
    Enabled,
    /// IORING_SETUP_R_DISABLED: restrictions can be set, and the thread that enables it becomes its issuer.
    Disabled,
}

/// Builds a ring with the best flags that the kernel takes.
pub(super) fn build(
    entries: u32,
    completions: u32,
    birth: Birth,
) -> Result<(IoUring, RingFeatures), RingRefusal> {
    let mut last = io::Error::from_raw_os_error(libc::EINVAL);
    for (defer_taskrun, no_sqarray) in [(true, true), (true, false), (false, false)] {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_submit_all().setup_clamp().setup_cqsize(completions);
        builder.setup_coop_taskrun().setup_taskrun_flag();
        if defer_taskrun {
            builder.setup_defer_taskrun();
        }
        if no_sqarray {
            builder.setup_no_sqarray();
        }
        if birth == Birth::Disabled {
            builder.setup_r_disabled();
        }
        match builder.build(entries) {
            Ok(ring) => {
                let direct_descriptors = direct_close_is_prompt();
                return Ok((ring, RingFeatures { defer_taskrun, no_sqarray, direct_descriptors }));
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = error,
            Err(error) => return Err(explain(error)),
        }
    }
    Err(RingRefusal::Other(last))
}

/// How long the other end of a socket may take to see that this one is closed.
const CLOSE_PATIENCE: Duration = Duration::from_millis(10);

/// Whether what is closed in a ring's table is closed at once; tried once. Linux 6.1 keeps it until every operation that
/// had begun by then on any file of the table has ended: a receive on one idle connection would hold all that are closed.
pub(super) fn direct_close_is_prompt() -> bool {
    static PROMPT: OnceLock<bool> = OnceLock::new();
    *PROMPT.get_or_init(|| try_direct_close().unwrap_or(false))
}

fn try_direct_close() -> io::Result<bool> {
    let mut ring = IoUring::new(2)?;
    let (idle, _peer) = UnixStream::pair()?;
    let (closed, mut other) = UnixStream::pair()?;
    ring.submitter().register_files(&[idle.as_raw_fd(), closed.as_raw_fd()])?;
    drop(closed);
    let readable = u32::from(libc::POLLIN.unsigned_abs());
    let entries = [opcode::PollAdd::new(Fixed(0), readable).build(), opcode::Close::new(Fixed(1)).build()];
    // SAFETY: neither entry refers to memory.
    unsafe { ring.submission().push_multiple(&entries) }.map_err(io::Error::other)?;
    // The close ends; nothing ever comes to the idle one.
    ring.submit_and_wait(1)?;
    other.set_read_timeout(Some(CLOSE_PATIENCE))?;
    match other.read(&mut [0]) {
        Ok(length) => Ok(length == 0),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// The cause behind io_uring_setup(2)'s errno.
pub(super) fn explain(error: io::Error) -> RingRefusal {
    match error.raw_os_error() {
        // EPERM: the sysctl or a seccomp filter that answers EPERM; ENOSYS: Docker's filter, or no io_uring.
        Some(libc::EPERM) => match disabled_sysctl() {
            0 => RingRefusal::Seccomp(error),
            value => RingRefusal::Sysctl(value),
        },
        Some(libc::ENOSYS) if seccomp_active() => RingRefusal::Seccomp(error),
        Some(libc::ENOSYS) => RingRefusal::Absent,
        Some(libc::ENOMEM) => RingRefusal::MemoryLock(error),
        _ => RingRefusal::Other(error),
    }
}

fn disabled_sysctl() -> u8 {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

fn seccomp_active() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|text| text.lines().any(|line| line.starts_with("Seccomp:") && !line.ends_with('0')))
}
