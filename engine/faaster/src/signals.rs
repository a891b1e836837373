//! Signals as readable descriptors.
//!
//! Owns: the handlers of SIGINT, SIGTERM, SIGHUP and SIGCHLD. Must not know: what a signal leads to.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

/// Gets a byte for each signal that arrives; reading it does not block.
fn arrivals_of(signal: i32) -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal, writer)?;
    Ok(reader)
}

/// Deaths of children arrive here, adopted ones' too.
#[derive(Debug)]
pub(crate) struct Deaths(UnixStream);

impl Deaths {
    /// # Errors
    /// What the kernel refused.
    pub(crate) fn catch() -> io::Result<Self> {
        arrivals_of(SIGCHLD).map(Self)
    }

    /// Readable after a death.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Forgets what was told so far.
    pub(crate) fn clear(&mut self) {
        let mut bytes = [0; 64];
        while self.0.read(&mut bytes).is_ok_and(|count| count == bytes.len()) {}
    }
}

/// A signal that asks the program to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StopSignal(pub u8);

/// Stop signals from now on arrive here instead of ending the process.
#[derive(Debug)]
pub(crate) struct Signals {
    streams: Vec<(StopSignal, UnixStream)>,
}

impl Signals {
    /// # Errors
    /// What the kernel refused.
    pub(crate) fn catch() -> io::Result<Self> {
        let mut streams = Vec::new();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let number = u8::try_from(signal).expect("signal numbers are below 65");
            streams.push((StopSignal(number), arrivals_of(signal)?));
        }
        Ok(Self { streams })
    }

    /// Descriptors to poll for reading.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.streams.iter().map(|(_, stream)| stream.as_fd())
    }

    /// Signals that arrived since the last time; each at least once, two quick ones may count as one.
    pub(crate) fn take(&mut self) -> Vec<StopSignal> {
        let mut taken = Vec::new();
        for (signal, stream) in &mut self.streams {
            let mut bytes = [0; 16];
            // Several bytes are several signals: a second Ctrl-C must be seen even if both came together.
            let count = stream.read(&mut bytes).unwrap_or(0);
            taken.extend(std::iter::repeat_n(*signal, count));
        }
        taken
    }
}

/// SIGINT, SIGTERM and SIGHUP do nothing in this process: its supervisor decides when it stops. A handler rather
/// than `SIG_IGN`, which programs that this process executes would inherit.
///
/// # Errors
/// What the kernel refused.
pub(crate) fn leave_to_supervisor() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)))?;
    }
    Ok(())
}
