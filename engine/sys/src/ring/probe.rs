//! Which io_uring this kernel gives us, and in plain words why it gives none.
//!
//! Owns: the ladder of set-up flags and the diagnosis of a refusal. Features are tried, versions never parsed.
//! Must not know: what a shard does with a ring.

use std::io;

use io_uring::{IoUring, opcode};

/// What the kernel offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingFeatures {
    /// IORING_SETUP_DEFER_TASKRUN (6.1): completions run when we ask for them, not when the kernel likes.
    pub defer_taskrun: bool,
    /// IORING_SETUP_NO_SQARRAY (6.6): one indirection less.
    pub no_sqarray: bool,
    /// Direct descriptors: accept into the ring's own table (5.19).
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
                return Ok((ring, RingFeatures { defer_taskrun, no_sqarray, direct_descriptors: true }));
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = error,
            Err(error) => return Err(explain(error)),
        }
    }
    Err(RingRefusal::Other(last))
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
