//! Telling systemd, or whoever speaks its protocol, how far the engine is.
//!
//! Owns: the datagrams of sd_notify(3). Must not know: when something is worth telling.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where to tell it; nowhere, if nobody asked.
#[derive(Debug)]
pub(crate) struct Notify {
    socket: Option<OsString>,
}

impl Notify {
    /// As `NOTIFY_SOCKET` says.
    pub(crate) fn from_environment() -> Self {
        Self { socket: std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) }
    }

    /// Calls are served.
    pub(crate) fn ready(&self) {
        self.send("READY=1\n");
    }

    /// The engine stops.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\n");
    }

    fn send(&self, text: &str) {
        let Some(socket) = &self.socket else { return };
        let address = match socket.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(socket),
        };
        // If the service manager does not listen, it also does not miss anything.
        drop(address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listener_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        Notify { socket: Some(path.into_os_string()) }.ready();
        let mut bytes = [0; 32];
        let count = listener.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"READY=1\n");
        Notify { socket: None }.stopping();
        Notify { socket: Some("/no/such/socket".into()) }.stopping();
    }
}
