//! What a child of the supervisor is started with.
//!
//! A child finds its link as standard input. The first record on it carries a memory file with a [`Start`] as JSON
//! and says how many descriptors follow; they come in order, in further records. So no descriptor has to survive
//! an exec, and nothing is in the command line or the environment.
//! Owns: that exchange, both sides. Must not know: what a child does with it.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use faaster_funclet::InstanceId;
use faaster_funclet::network::NetworkConfig;
use faaster_function::RuntimeSpec;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::link::{self, LinkError, RECORD_FDS_MAX};
use crate::config::Config;

/// A child waits this long for what the supervisor has ready when it starts it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of the JSON: a bound against a broken parent, far above what the settings can need.
const START_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// First argument of the engine's process.
pub(crate) const ENGINE_COMMAND: &str = "__engine";
/// First argument of a funclet's process.
pub(crate) const FUNCLET_COMMAND: &str = "__funclet";

/// Which process of ours a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    Engine,
    Funclet(u16),
}

impl Role {
    /// Hidden subcommand that becomes it.
    pub(crate) fn subcommand(self) -> &'static str {
        match self {
            Self::Engine => ENGINE_COMMAND,
            Self::Funclet(_) => FUNCLET_COMMAND,
        }
    }
}

impl Role {
    /// At most 15 bytes: what the kernel keeps.
    pub(crate) fn process_name(self) -> &'static CStr {
        match self {
            Self::Engine => c"faaster-engine",
            Self::Funclet(_) => c"faaster-funclet",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Engine => f.write_str("engine"),
            Self::Funclet(index) => write!(f, "funclet {index}"),
        }
    }
}

/// Everything that a child has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Start {
    pub role: Role,
    pub config: Config,
    pub instance: InstanceId,
    pub runtimes: Vec<RuntimeSpec>,
    /// Program that is process 1 of containers.
    pub init: std::path::PathBuf,
    /// Directory of this run.
    pub directory: std::path::PathBuf,
    /// `None`: containers have their loopback alone.
    pub network: Option<NetworkConfig>,
}

/// Why a child could not be told how to start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("cannot make a memory file: {0}")]
    Memory(#[source] Errno),
    #[error("cannot write or read the start record: {0}")]
    Io(#[from] std::io::Error),
    #[error("the start record cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the start record is not what a supervisor of this version sends")]
    Shape,
}

/// Supervisor's side.
///
/// # Errors
/// What failed.
pub(crate) fn send(socket: BorrowedFd<'_>, start: &Start, fds: &[BorrowedFd<'_>]) -> Result<(), StartError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("faaster-start", flags).map_err(StartError::Memory)?);
    serde_json::to_writer(&mut file, start)?;
    file.flush()?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK)
        .map_err(StartError::Memory)?;
    let count = u32::try_from(fds.len()).map_err(|_| StartError::Shape)?;
    link::send(socket, &count.to_le_bytes(), &[file.as_fd()])?;
    for chunk in fds.chunks(RECORD_FDS_MAX) {
        link::send(socket, b"fds", chunk)?;
    }
    Ok(())
}

/// Child's side.
///
/// # Errors
/// What failed.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Result<(Start, Vec<OwnedFd>), StartError> {
    let link::Record { bytes, fds: mut files } = link::receive_blocking(socket, PATIENCE)?;
    let count = u32::from_le_bytes(bytes.try_into().map_err(|_| StartError::Shape)?);
    let mut file = File::from(files.pop().filter(|_| files.is_empty()).ok_or(StartError::Shape)?);
    // The offset is shared with the writer's end.
    file.rewind()?;
    let mut text = Vec::new();
    file.take(START_BYTES_MAX).read_to_end(&mut text)?;
    let start = serde_json::from_slice(&text)?;
    let count = usize::try_from(count).map_err(|_| StartError::Shape)?;
    let mut fds = Vec::new();
    while fds.len() < count {
        let more = link::receive_blocking(socket, PATIENCE)?.fds;
        if more.is_empty() {
            return Err(StartError::Shape);
        }
        fds.extend(more);
    }
    if fds.len() == count { Ok((start, fds)) } else { Err(StartError::Shape) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Machine, Raw, SettingFlags, validate};

    #[test]
    fn a_start_arrives_whole() {
        let raw = Raw::collect(&SettingFlags::default(), std::iter::empty());
        let (config, _) = validate(&raw, &Machine::read()).unwrap();
        let start = Start {
            role: Role::Funclet(3),
            config,
            runtimes: vec![],
            init: "/init".into(),
            instance: InstanceId::try_from("0123abcd".to_owned()).unwrap(),
            directory: "/run/x".into(),
            network: None,
        };
        let (here, there) = link::pair().unwrap();
        let fds = vec![here.as_fd(); RECORD_FDS_MAX + 2];
        send(here.as_fd(), &start, &fds).unwrap();
        let (received, received_fds) = receive(there.as_fd()).unwrap();
        assert_eq!(received_fds.len(), fds.len());
        assert_eq!(serde_json::to_value(&received).unwrap(), serde_json::to_value(&start).unwrap());
    }
}
