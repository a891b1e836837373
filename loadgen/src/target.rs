//! Where requests go: a URL, resolved once before the run.
//!
//! Owns: the address. Must not know: what is asked for, sockets. Names are resolved before the start, so that a slow
//! resolver is never taken for a slow server.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// What a URL can lack.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("{0:?} is no target: write http://host[:port]/path or unix:/path/of/socket:/path")]
    Form(String),
    #[error(
        "https is not spoken here: put the TLS proxy under test behind plain http, or measure the server behind it"
    )]
    Tls,
    #[error("the port in {0:?} is not a number from 1 to 65535")]
    Port(String),
    #[error("cannot resolve {host:?}: check the name, or write the address")]
    Resolve { host: String, source: std::io::Error },
    #[error("{0:?} has no address")]
    NoAddress(String),
    #[error("the path {0:?} holds a space or a control character: percent-encode it")]
    Path(String),
}

/// Address of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A server and what to ask it for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub address: Address,
    /// For the Host header.
    pub host: String,
    /// Path and query.
    pub path: String,
}

impl Target {
    /// Reads a URL and resolves its name.
    ///
    /// # Errors
    /// What is wrong with it, and how to write it.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        if let Some(rest) = url.strip_prefix("unix:") {
            // The socket's path ends at the last colon before a slash, so that the URL path may hold colons.
            let (socket, path) = rest.split_once(":/").unwrap_or((rest, ""));
            if socket.is_empty() {
                return Err(TargetError::Form(url.to_owned()));
            }
            let path = checked_path(&format!("/{path}"))?;
            return Ok(Self { address: Address::Unix(socket.into()), host: "localhost".to_owned(), path });
        }
        if url.starts_with("https:") {
            return Err(TargetError::Tls);
        }
        let rest = url.strip_prefix("http://").ok_or_else(|| TargetError::Form(url.to_owned()))?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if authority.is_empty() || authority.contains('@') {
            return Err(TargetError::Form(url.to_owned()));
        }
        let address = resolve(authority)?;
        Ok(Self { address: Address::Tcp(address), host: authority.to_owned(), path: checked_path(&path)? })
    }
}

fn checked_path(path: &str) -> Result<String, TargetError> {
    if path.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(path.to_owned())
    } else {
        Err(TargetError::Path(path.to_owned()))
    }
}

fn resolve(authority: &str) -> Result<SocketAddr, TargetError> {
    let after_host = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[after_host..].rfind(':') {
        None => (authority, 80),
        Some(colon) => {
            let (host, port) = authority.split_at(after_host + colon);
            let port = port[1..].parse().ok().filter(|port| *port != 0);
            (host, port.ok_or_else(|| TargetError::Port(authority.to_owned()))?)
        }
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut addresses = (bare, port)
        .to_socket_addrs()
        .map_err(|source| TargetError::Resolve { host: bare.to_owned(), source })?;
    addresses.next().ok_or_else(|| TargetError::NoAddress(bare.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(url: &str) -> (String, String, String) {
        let target = Target::parse(url).unwrap();
        (target.address.to_string(), target.host, target.path)
    }

    #[test]
    fn urls_name_an_address_a_host_and_a_path() {
        for (url, address, host, path) in [
            ("http://127.0.0.1:8080/a/b?c=d", "127.0.0.1:8080", "127.0.0.1:8080", "/a/b?c=d"),
            ("http://127.0.0.1", "127.0.0.1:80", "127.0.0.1", "/"),
            ("http://127.0.0.1?x", "127.0.0.1:80", "127.0.0.1", "/?x"),
            ("http://[::1]:81/#part", "[::1]:81", "[::1]:81", "/"),
            ("http://[::1]/", "[::1]:80", "[::1]", "/"),
            ("unix:/run/x.sock:/v1/f:1", "unix:/run/x.sock", "localhost", "/v1/f:1"),
            ("unix:/run/x.sock", "unix:/run/x.sock", "localhost", "/"),
        ] {
            assert_eq!(tcp(url), (address.into(), host.into(), path.into()), "{url}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for url in ["", "localhost", "ftp://x/", "http://", "http:///x", "unix:", "http://u@h/"] {
            assert!(matches!(Target::parse(url), Err(TargetError::Form(_))), "{url}");
        }
        for url in ["http://127.0.0.1:0/", "http://127.0.0.1:70000/", "http://127.0.0.1:/"] {
            assert!(matches!(Target::parse(url), Err(TargetError::Port(_))), "{url}");
        }
        assert!(matches!(Target::parse("https://127.0.0.1/"), Err(TargetError::Tls)));
        assert!(matches!(Target::parse("http://127.0.0.1/a b"), Err(TargetError::Path(_))));
        assert!(matches!(Target::parse("http://no.such.name.invalid/"), Err(TargetError::Resolve { .. })));
    }
}
