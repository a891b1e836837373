//! System call filters: what a function's process may ask the kernel, and what the engine's may not.
//!
//! Owns: the lists. Must not know: who installs them.
//! The allow-list and its exceptions were tried with Node (workers), Python (fork, spawn, forkserver) and Java
//! (research/probes.md). A filter of seccompiler has one action for what matches; what needs another, such as ENOSYS
//! where libc then falls back to an older call, is in the tree before it. One filter, for each takes time to install.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

mod lists;
mod tree;

/// Bytes of one BPF instruction (`struct sock_filter`, include/uapi/linux/filter.h).
const INSTRUCTION_BYTES: usize = 8;
/// The kernel's bound on instructions of one filter (BPF_MAXINSNS).
const INSTRUCTIONS_MAX: usize = 4096;
/// Filters of one process.
const FILTERS_MAX: usize = 1;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("cannot build the system call filter")]
    Build(#[source] seccompiler::BackendError),
    #[error("this machine's architecture has no system call filter")]
    Architecture(#[source] seccompiler::BackendError),
    #[error("the system call filter does not begin with a look at the architecture")]
    Shape,
    #[error("cannot install the system call filter")]
    Install(#[source] seccompiler::Error),
    #[error("these bytes are no system call filters")]
    Bytes,
}

/// Compiled filters, in the order in which they are installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filters(Vec<BpfProgram>);

/// Which threads a filter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    CallingThread,
    AllThreads,
}

/// What a function's process may do: 240-odd calls; no new namespaces, mounts, rings, tracing, keys or modules.
/// The families that are denied are the rows of this module's tests.
///
/// # Errors
/// On an architecture that seccompiler does not know.
pub fn function_filters() -> Result<Filters, SeccompError> {
    let conditional = conditional_rules().map_err(SeccompError::Build)?;
    let allowed = lists::ALLOWED.iter().filter(|call| !conditional.contains_key(call));
    let missing = lists::MISSING.iter().map(|call| (call, errno(libc::ENOSYS)));
    let always = allowed.map(|call| (call, SeccompAction::Allow)).chain(missing);
    let always = always.map(|(call, action)| u32::try_from(*call).map(|number| (number, action)));
    let always = always.collect::<Result<_, _>>().expect("system calls have small numbers");
    let others = compile(conditional, errno(libc::EPERM), SeccompAction::Allow)?;
    Ok(Filters(vec![tree::answering(&always, &others).ok_or(SeccompError::Shape)?]))
}

/// What the engine gives up once it has its rings: new rings (seccomp cannot look inside of them), other programs,
/// and everything that only a way out would need.
///
/// # Errors
/// As [`function_filters`].
pub fn engine_filter() -> Result<Filters, SeccompError> {
    let denied: Rules = lists::DENIED_TO_ENGINE.iter().map(|call| (*call, vec![])).collect();
    Ok(Filters(vec![compile(denied, SeccompAction::Allow, errno(libc::EPERM))?]))
}

impl Filters {
    /// Installs them for good, with no_new_privs.
    ///
    /// # Errors
    /// seccomp(2)'s; with [`Scope::AllThreads`] also when a thread has filters that are not ours.
    pub fn install(&self, scope: Scope) -> Result<(), SeccompError> {
        for program in &self.0 {
            match scope {
                Scope::CallingThread => seccompiler::apply_filter(program),
                Scope::AllThreads => seccompiler::apply_filter_all_threads(program),
            }
            .map_err(SeccompError::Install)?;
        }
        Ok(())
    }

    /// For another process: count of filters, then each as its count of instructions and these, native byte order.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![u8::try_from(self.0.len()).expect("at most FILTERS_MAX filters")];
        for program in &self.0 {
            let count = u16::try_from(program.len()).expect("at most INSTRUCTIONS_MAX instructions");
            out.extend_from_slice(&count.to_ne_bytes());
            for instruction in program {
                out.extend_from_slice(&instruction.code.to_ne_bytes());
                out.extend_from_slice(&[instruction.jt, instruction.jf]);
                out.extend_from_slice(&instruction.k.to_ne_bytes());
            }
        }
        out
    }

    /// The reverse of [`Self::to_bytes`].
    ///
    /// # Errors
    /// [`SeccompError::Bytes`] for anything that it did not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SeccompError> {
        let (count, mut rest) = bytes.split_first().ok_or(SeccompError::Bytes)?;
        if usize::from(*count) > FILTERS_MAX || *count == 0 {
            return Err(SeccompError::Bytes);
        }
        let mut programs = Vec::with_capacity(usize::from(*count));
        for _ in 0..*count {
            let (length, tail) = rest.split_first_chunk::<2>().ok_or(SeccompError::Bytes)?;
            let instructions = usize::from(u16::from_ne_bytes(*length));
            if instructions > INSTRUCTIONS_MAX {
                return Err(SeccompError::Bytes);
            }
            let (code, tail) =
                tail.split_at_checked(instructions * INSTRUCTION_BYTES).ok_or(SeccompError::Bytes)?;
            programs.push(code.chunks_exact(INSTRUCTION_BYTES).map(instruction_from).collect());
            rest = tail;
        }
        if rest.is_empty() { Ok(Self(programs)) } else { Err(SeccompError::Bytes) }
    }
}

fn instruction_from(b: &[u8]) -> sock_filter {
    sock_filter {
        code: u16::from_ne_bytes([b[0], b[1]]),
        jt: b[2],
        jf: b[3],
        k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn errno(number: libc::c_int) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, SeccompError> {
    let arch = std::env::consts::ARCH.try_into().map_err(SeccompError::Architecture)?;
    SeccompFilter::new(rules, otherwise, matched, arch)
        .and_then(BpfProgram::try_from)
        .map_err(SeccompError::Build)
}

// Of include/uapi/asm-generic/ioctls.h; their type differs from one C library to the next.
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;

/// Calls that are allowed with some arguments only.
fn conditional_rules() -> Result<Rules, seccompiler::BackendError> {
    let equals = |index, value| SeccompCondition::new(index, Len::Dword, Op::Eq, value);
    let masked = |index, mask, value| SeccompCondition::new(index, Len::Dword, Op::MaskedEq(mask), value);
    let mut sockets = Vec::new();
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            // The low four bits are the kind, those above are flags; so no raw and no packet sockets.
            let conditions = vec![equals(0, number(family))?, masked(1, 0xf, number(kind))?];
            sockets.push(SeccompRule::new(conditions)?);
        }
    }
    // getaddrinfo and getifaddrs ask the routing protocol, which is number 0.
    sockets.push(SeccompRule::new(vec![equals(0, number(libc::AF_NETLINK))?, equals(2, 0)?])?);
    // Both type into somebody's terminal: one a character, the other what is selected on a console.
    let differs = |value| SeccompCondition::new(1, Len::Dword, Op::Ne, value);
    let not_typing = vec![differs(TIOCSTI)?, differs(TIOCLINUX)?];
    Ok(BTreeMap::from([
        (libc::SYS_clone, vec![SeccompRule::new(vec![masked(0, lists::NAMESPACE_FLAGS, 0)?])?]),
        (libc::SYS_socket, sockets),
        (libc::SYS_ioctl, vec![SeccompRule::new(not_typing)?]),
        (libc::SYS_personality, vec![SeccompRule::new(vec![equals(0, 0)?])?]),
    ]))
}

fn number(value: libc::c_int) -> u64 {
    u64::from(value.unsigned_abs())
}

#[cfg(test)]
mod tests;
