//! Making a process and becoming another program, for processes with one thread.
//!
//! Owns: the C view of argument lists. Must not know: which programs.

use std::ffi::{CStr, CString, c_char};
use std::fmt;

use rustix::io::Errno;

use crate::credentials::thread_count;
use crate::errno::check;
use crate::pidfd::ProcessId;

/// Strings as execve(2) wants them: an array of pointers that ends with a null pointer.
pub struct CStringArray {
    // The pointers point into these; a CString's bytes do not move when the vector does.
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl CStringArray {
    /// Takes the strings over.
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Self { _strings: strings, pointers }
    }

    pub(crate) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

impl fmt::Debug for CStringArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self._strings).finish()
    }
}

/// Which side of a fork the caller is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    Parent(ProcessId),
    Child,
}

/// Why there was no fork.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    #[error("a process with {0} threads may not fork: the others' locks would stay locked in the child")]
    Threads(usize),
    #[error("cannot count threads in /proc/self/task")]
    CountThreads(#[source] Errno),
    #[error("fork failed")]
    Fork(#[source] Errno),
}

/// fork(2).
///
/// # Errors
/// [`ForkError::Threads`] when the process has more than one thread.
pub fn fork() -> Result<Fork, ForkError> {
    let threads = thread_count().map_err(ForkError::CountThreads)?;
    if threads != 1 {
        return Err(ForkError::Threads(threads));
    }
    // SAFETY: fork's condition is that a child of a process with threads keeps to async-signal-safe calls; this
    // process has one thread (checked above, and only this thread could make another).
    let pid = unsafe { libc::fork() };
    match check(i64::from(pid)).map_err(ForkError::Fork)? {
        0 => Ok(Fork::Child),
        _ => ProcessId::new(pid).map(Fork::Parent).ok_or(ForkError::Fork(Errno::INVAL)),
    }
}

/// Becomes another program, with default signal handling. Returns only when that failed, with why.
///
/// Unlike execvp(3) this neither searches PATH nor hands a file of unknown format to a shell.
pub fn exec(program: &CStr, arguments: &CStringArray, environment: &CStringArray) -> Errno {
    reset_signals();
    // SAFETY: the three pointers stay valid until the call returns: `program` is a C string, and both arrays end with
    // a null pointer and point to C strings that they own.
    let result = unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    check(i64::from(result)).err().unwrap_or(Errno::IO)
}

/// Rust ignores SIGPIPE, and both that and a signal mask survive execve; a program expects neither.
fn reset_signals() {
    // SAFETY: SIG_DFL is a valid disposition of SIGPIPE, and no handler of ours depends on the old one.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: sigset_t is a plain array of integers, for which all zero bits are a value: the empty set.
    let empty: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `empty` is a set that outlives the call; a null pointer for the old mask is allowed.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_may_not_fork() {
        let (hold, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        assert!(matches!(fork(), Err(ForkError::Threads(n)) if n > 1));
        drop(hold);
        assert!(other.join().unwrap().is_err());
    }

    #[test]
    fn a_failed_exec_says_why() {
        let none = CStringArray::new(vec![]);
        assert_eq!(exec(c"/nonexistent", &none, &none), Errno::NOENT);
        assert_eq!(exec(c"/etc/passwd", &none, &none), Errno::ACCESS);
    }
}
