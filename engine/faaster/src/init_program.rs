//! The program that is process 1 of containers, faaster-init: which file it is, and whether it can be that.
//!
//! Owns: where it is looked for, and the check. Must not know: what it does, how containers are made.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadRef};

use crate::config::Config;
use crate::runtimes::embedded;

/// Bytes from a program's start within which linkers put its program headers.
const HEADERS_BYTES_MAX: u64 = 64 * 1024;

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Named with `--init`.
    Named(PathBuf),
    BuiltIn,
    /// A file beside this program.
    Beside(PathBuf),
}

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    #[error(
        "the program for process 1 of containers, faaster-init, is neither built in nor beside {0}: build it with `cargo rustc --release -p faaster-init --bin faaster-init -- -C target-feature=+crt-static`, or name it with --init"
    )]
    Absent(PathBuf),
    #[error("cannot read {path}, which is to be process 1 of containers: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{0} cannot be process 1 of containers: it is no program for this machine")]
    Foreign(PathBuf),
    #[error(
        "{0} cannot be process 1 of containers: it loads shared libraries, which are not there; link it with `cargo rustc --release -p faaster-init --bin faaster-init -- -C target-feature=+crt-static`"
    )]
    Dynamic(PathBuf),
}

/// As configured, built in, or beside this program; what is not built in has been checked.
///
/// # Errors
/// It is absent or unfit.
pub(crate) fn find(config: &Config) -> Result<Place, InitError> {
    if let Some(path) = &config.init {
        return check(path).map(|()| Place::Named(path.clone()));
    }
    if embedded::has_init() {
        return Ok(Place::BuiltIn);
    }
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.with_file_name("faaster-init");
    if !beside.is_file() {
        return Err(InitError::Absent(own));
    }
    check(&beside).map(|()| Place::Beside(beside))
}

/// Whether a file can be run where no shared library is: a container's process becomes it before it has a file system
/// of its own, in a funclet that sees next to nothing of the host's.
fn check(path: &Path) -> Result<(), InitError> {
    let unreadable = |source| InitError::Unreadable { path: path.to_owned(), source };
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(HEADERS_BYTES_MAX).read_to_end(&mut head))
        .map_err(unreadable)?;
    match needs_interpreter(head.as_slice()) {
        Ok(false) => Ok(()),
        Ok(true) => Err(InitError::Dynamic(path.to_owned())),
        Err(_) => Err(InitError::Foreign(path.to_owned())),
    }
}

/// Whether an ELF program names an interpreter, as those do that load shared libraries (System V gABI, PT_INTERP).
fn needs_interpreter<'data, R: ReadRef<'data>>(program: R) -> object::read::Result<bool> {
    let header = FileHeader64::<Endianness>::parse(program)?;
    let endian = header.endian()?;
    Ok(header.program_headers(endian, program)?.iter().any(|part| part.p_type(endian) == PT_INTERP))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use object::elf::{PT_LOAD, ProgramType};

    use super::*;

    /// An ELF64 header (gABI, figure 4-3) and one program header of a type.
    fn program(part: ProgramType) -> Vec<u8> {
        let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
        bytes.resize(16, 0);
        bytes.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        bytes.extend([0; 8]);
        bytes.extend(64_u64.to_le_bytes());
        bytes.extend([0; 12]);
        bytes.extend([64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
        bytes.extend(part.0.to_le_bytes());
        bytes.resize(64 + 56, 0);
        bytes
    }

    #[test]
    fn a_program_that_loads_shared_libraries_is_refused_and_one_that_does_not_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("init");
        let check = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            check(&path)
        };
        check(&program(PT_LOAD)).unwrap();
        assert!(matches!(check(&program(PT_INTERP)), Err(InitError::Dynamic(_))));
        for cut in 0..program(PT_LOAD).len() {
            assert!(matches!(check(&program(PT_LOAD)[..cut]), Err(InitError::Foreign(_))), "cut at {cut}");
        }
        assert!(matches!(check(b"#!/bin/sh\nexit 0\n"), Err(InitError::Foreign(_))));
        assert!(matches!(super::check(&folder.path().join("none")), Err(InitError::Unreadable { .. })));
    }

    /// This test's own program, which cargo links as it does by default.
    #[test]
    fn real_programs_are_told_apart() {
        let own = std::env::current_exe().unwrap();
        let dynamic = cfg!(not(target_feature = "crt-static"));
        assert_eq!(matches!(check(&own), Err(InitError::Dynamic(_))), dynamic);
    }
}
