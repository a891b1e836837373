//! The `load` frame, read on behalf of a program that is executed only then (docs/protocol.md sections 4 and 9).
//!
//! Owns: the environment of an `exec` runtime. Must not know: how the process is confined.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use faaster_protocol::frame::{FrameError, FrameType, HEADER_BYTES, Header};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::runtime::pair;

/// Where the code is mounted.
pub(crate) const CODE_FOLDER: &CStr = c"/var/task";

/// The meta object of `load`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Load {
    function_name: String,
    function_version: String,
    brn: String,
    handler: String,
    #[serde(rename = "memoryMB")]
    memory_mb: u32,
    timeout_ms: u64,
    concurrency: u32,
    user_id: String,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

/// Why the program does not run. The texts go to the function's owner.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("the engine has closed the channel")]
    Closed,
    #[error("cannot read the load frame: {0}")]
    Read(std::io::Error),
    #[error("the load frame breaks the protocol: {0}")]
    Frame(#[from] FrameError),
    #[error("expected a load frame, got {0:?}")]
    Unexpected(FrameType),
    #[error("the load frame's meta object is not what docs/protocol.md says: {0}")]
    Meta(serde_json::Error),
    #[error("environment variable {0:?} has a name or value that cannot be passed to a program")]
    Environment(String),
    #[error("the code package has no file {0}")]
    Missing(String),
    #[error("{0} is not executable; give it mode 0755 before zipping")]
    NotExecutable(String),
    #[error("{0} is neither a program for this machine nor a script that starts with #!")]
    Format(String),
    #[error("the interpreter or loader that {0} names is not in the container")]
    Interpreter(String),
    #[error("cannot run {program}: {errno}")]
    Exec { program: String, errno: Errno },
}

impl LoadError {
    /// What a failed execve of `program` means.
    pub(crate) fn of_exec(program: &CStr, errno: Errno) -> Self {
        let name = program.to_string_lossy().into_owned();
        match errno {
            Errno::NOENT if rustix::fs::stat(program).is_ok() => Self::Interpreter(name),
            Errno::NOENT | Errno::NOTDIR => Self::Missing(name),
            Errno::ACCESS => Self::NotExecutable(name),
            Errno::NOEXEC => Self::Format(name),
            errno => Self::Exec { program: name, errno },
        }
    }

    fn error_type(&self) -> &'static str {
        match self {
            Self::Missing(_) | Self::NotExecutable(_) | Self::Format(_) | Self::Interpreter(_) => {
                "Runtime.InvalidEntrypoint"
            }
            _ => "Runtime.LoadError",
        }
    }
}

/// Reads exactly one `load` frame: what follows belongs to the program.
pub(crate) fn receive(channel: &OwnedFd) -> Result<Load, LoadError> {
    let mut reader = Channel(channel);
    let mut head = [0u8; HEADER_BYTES];
    read_exactly(&mut reader, &mut head)?;
    let header = Header::decode(&head)?.expect("the header is whole");
    if header.kind != FrameType::Load {
        return Err(LoadError::Unexpected(header.kind));
    }
    if header.body_bytes != 0 {
        return Err(LoadError::Frame(FrameError::Body(header.body_bytes)));
    }
    let mut meta = vec![0u8; header.payload_bytes()];
    read_exactly(&mut reader, &mut meta)?;
    let load: Load = serde_json::from_slice(&meta).map_err(LoadError::Meta)?;
    for (name, value) in &load.env {
        if pair(OsStr::new(name), OsStr::new(value)).is_none() {
            return Err(LoadError::Environment(name.clone()));
        }
    }
    Ok(load)
}

/// Sends `error` about the process itself; there is nobody else to tell.
pub(crate) fn send_failure(channel: &OwnedFd, failure: &LoadError) {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        error_message: String,
        error_type: &'a str,
        stack_trace: [String; 0],
    }
    let body = Body { error_message: failure.to_string(), error_type: failure.error_type(), stack_trace: [] };
    let body = serde_json::to_vec(&body).expect("strings always serialise");
    let mut header = Header::new(FrameType::Error, 0);
    header.body_bytes = u32::try_from(body.len()).expect("a sentence is shorter than 4 GiB");
    let frame = [&header.encode()[..], &body].concat();
    Channel(channel).write_all(&frame).ok();
}

impl Load {
    /// The program's whole environment. What the platform says of the function wins over the function's variables,
    /// and these win over the base.
    pub(crate) fn environment(&self, base: impl Iterator<Item = (OsString, OsString)>) -> Vec<CString> {
        let mut all: BTreeMap<OsString, OsString> = base.collect();
        all.extend(self.env.iter().map(|(name, value)| (name.into(), value.into())));
        let platform = [
            ("FAASTER_FUNCTION_NAME", self.function_name.clone()),
            ("FAASTER_FUNCTION_VERSION", self.function_version.clone()),
            ("FAASTER_BRN", self.brn.clone()),
            ("FAASTER_HANDLER", self.handler.clone()),
            ("FAASTER_MEMORY_MB", self.memory_mb.to_string()),
            ("FAASTER_TIMEOUT_MS", self.timeout_ms.to_string()),
            ("FAASTER_CONCURRENCY", self.concurrency.to_string()),
            ("FAASTER_USER_ID", self.user_id.clone()),
        ];
        all.extend(platform.map(|(name, value)| (name.into(), value.into())));
        all.iter().filter_map(|(name, value)| pair(name, value)).collect()
    }
}

fn read_exactly(reader: &mut Channel<'_>, buffer: &mut [u8]) -> Result<(), LoadError> {
    reader.read_exact(buffer).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => LoadError::Closed,
        _ => LoadError::Read(error),
    })
}

/// The socket as std's traits see it.
struct Channel<'a>(&'a OwnedFd);

impl Read for Channel<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        Ok(rustix::io::read(self.0.as_fd(), buffer)?)
    }
}

impl Write for Channel<'_> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        Ok(rustix::net::send(self.0.as_fd(), buffer, rustix::net::SendFlags::NOSIGNAL)?)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use faaster_protocol::frame::LoadMeta;
    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    fn pair_of_sockets() -> (OwnedFd, OwnedFd) {
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn frame(env: &BTreeMap<String, String>) -> Vec<u8> {
        let meta = LoadMeta {
            function_name: "hello",
            function_version: "1",
            brn: "brn:x",
            handler: "h",
            memory_mb: 128,
            timeout_ms: 3000,
            concurrency: 0,
            user_id: "u",
            env,
        };
        meta.encode_frame()
    }

    fn received(bytes: &[u8]) -> Result<Load, LoadError> {
        let (engine, runtime) = pair_of_sockets();
        Channel(&engine).write_all(bytes).unwrap();
        drop(engine);
        receive(&runtime)
    }

    #[test]
    fn the_platform_wins_over_the_function_and_the_function_over_the_base() {
        let env = BTreeMap::from(
            [("PATH", "/mine"), ("FAASTER_BRN", "forged"), ("OWN", "1")].map(|(a, b)| (a.into(), b.into())),
        );
        let load = received(&frame(&env)).unwrap();
        let base = [("PATH", "/bin"), ("HOME", "/tmp")].map(|(a, b)| (OsString::from(a), OsString::from(b)));
        let all = load.environment(base.into_iter());
        for expected in
            [c"PATH=/mine", c"HOME=/tmp", c"OWN=1", c"FAASTER_BRN=brn:x", c"FAASTER_MEMORY_MB=128"]
        {
            assert!(all.iter().any(|entry| entry.as_c_str() == expected), "{expected:?}");
        }
        assert!(!all.iter().any(|entry| entry.to_bytes().ends_with(b"forged")));
    }

    #[test]
    fn only_the_load_frame_is_read() {
        let (engine, runtime) = pair_of_sockets();
        let mut bytes = frame(&BTreeMap::new());
        bytes.extend_from_slice(b"next");
        Channel(&engine).write_all(&bytes).unwrap();
        receive(&runtime).unwrap();
        let mut rest = [0; 16];
        assert_eq!(rustix::io::read(&runtime, &mut rest), Ok(4));
    }

    #[test]
    fn bad_input_is_named() {
        assert!(matches!(received(b""), Err(LoadError::Closed)));
        assert!(matches!(received(&[1; 64]), Err(LoadError::Frame(_))));
        assert!(matches!(
            received(&Header::new(FrameType::Invoke, 1).encode()),
            Err(LoadError::Unexpected(_))
        ));
        let mut no_meta = Header::new(FrameType::Load, 0);
        no_meta.meta_bytes = 2;
        assert!(matches!(received(&[&no_meta.encode()[..], b"{}"].concat()), Err(LoadError::Meta(_))));
        let env = BTreeMap::from([("A=B".to_owned(), String::new())]);
        assert!(matches!(received(&frame(&env)), Err(LoadError::Environment(_))));
    }

    #[test]
    fn a_failure_is_an_error_frame_about_the_process() {
        let (engine, runtime) = pair_of_sockets();
        send_failure(&runtime, &LoadError::of_exec(c"/var/task/bootstrap", Errno::NOENT));
        let mut bytes = [0u8; 1024];
        let count = rustix::io::read(&engine, &mut bytes).unwrap();
        let header = Header::decode(&bytes[..count]).unwrap().unwrap();
        assert_eq!((header.kind, header.invocation), (FrameType::Error, 0));
        let body: serde_json::Value = serde_json::from_slice(&bytes[HEADER_BYTES..count]).unwrap();
        assert_eq!(body["errorType"], "Runtime.InvalidEntrypoint");
        assert_eq!(body["errorMessage"], "the code package has no file /var/task/bootstrap");
    }

    #[test]
    fn exec_errors_are_told_apart() {
        let named = |errno| LoadError::of_exec(c"/etc/passwd", errno);
        assert!(matches!(named(Errno::NOENT), LoadError::Interpreter(_)));
        assert!(matches!(named(Errno::NOEXEC), LoadError::Format(_)));
        assert!(matches!(named(Errno::ACCESS), LoadError::NotExecutable(_)));
        assert!(matches!(named(Errno::IO), LoadError::Exec { .. }));
    }
}
