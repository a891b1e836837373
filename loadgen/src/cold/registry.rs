//! The engine's function registry: create and remove.
//!
//! Owns: its address and the account. Must not know: what the functions are for. Nothing here is measured: each request
//! has a connection of its own and is waited for, with a deadline.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::response::{BodyAllowed, ResponseParser};
use crate::target::{Address, Target};

/// Connecting takes less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A create with its upload, or a removal.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Registry {
    address: SocketAddr,
    host: String,
    account: String,
}

impl Registry {
    /// # Errors
    /// The URL is no address.
    pub(super) fn new(url: &str, account: &str) -> anyhow::Result<Self> {
        let target = Target::parse(url).context("--registry")?;
        let Address::Tcp(address) = target.address else {
            bail!("--registry {url:?} is no address like http://127.0.0.1:8002")
        };
        ensure!(target.path == "/", "--registry is the address alone, without {:?}", target.path);
        Ok(Self { address, host: target.host, account: account.to_owned() })
    }

    /// # Errors
    /// No answer, or the engine's refusal in its own words.
    pub(super) fn create(&self, name: &str, body: &str) -> anyhow::Result<()> {
        self.accepted("POST", name, body, &[]).with_context(|| format!("cannot deploy {name}"))
    }

    /// # Errors
    /// As [`Registry::create`]. That it is not there is none.
    pub(super) fn remove(&self, name: &str) -> anyhow::Result<()> {
        self.accepted("DELETE", name, "", &[404])
    }

    fn accepted(&self, method: &str, name: &str, body: &str, also: &[u16]) -> anyhow::Result<()> {
        let (status, text) = self.ask(method, name, body).with_context(|| {
            format!("no answer from {}: is the engine's registry there? (--registry)", self.host)
        })?;
        if status < 300 || also.contains(&status) {
            return Ok(());
        }
        bail!("the engine answers {status}: {}", text.trim())
    }

    fn ask(&self, method: &str, name: &str, body: &str) -> anyhow::Result<(u16, String)> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut stream = TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT)?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let request = format!(
            "{method} /v1/functions/{name} HTTP/1.1\r\nHost: {}\r\nX-easyfaas-Account-Id: {}\r\n\
             Content-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            self.account,
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut parser = ResponseParser::new(BodyAllowed::Yes);
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "none within {} s", ANSWER_TIMEOUT.as_secs());
            stream.set_read_timeout(Some(left))?;
            let bytes = match stream.read(&mut buffer) {
                // A stop signal lets the step under way end; what follows is for who waits for the signal.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let answer = if bytes == 0 {
                Some(parser.end()?.context("the connection ended")?)
            } else {
                parser.feed(&buffer[..bytes], &mut |data| text.extend_from_slice(data))?.answer
            };
            if let Some(answer) = answer {
                return Ok((answer.status, String::from_utf8_lossy(&text).into_owned()));
            }
        }
    }
}
