//! The first frame of a runtime, which says that its container can be claimed (docs/protocol.md section 4).
//!
//! Owns: the bytes of it. Must not know: the frames after it; not one byte of those is read here.

use std::os::fd::OwnedFd;

use faaster_limits::HELLO_META_BYTES_MAX;
use faaster_protocol::frame::{FrameError, FrameType, HEADER_BYTES, Header, HelloMeta};
use rustix::io::Errno;
use rustix::net::RecvFlags;

/// Version of the frame protocol that the engine speaks.
const PROTOCOL: u32 = 1;

/// Why a runtime is not fit for use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloError {
    #[error("it closed its channel")]
    Closed,
    #[error("its channel cannot be read")]
    Read(#[source] Errno),
    #[error("its first frame breaks the protocol: {0}")]
    Frame(#[from] FrameError),
    #[error("its first frame is {0:?} instead of hello")]
    Unexpected(FrameType),
    #[error("its first frame has {0} bytes, more than a hello may have")]
    Large(usize),
    #[error("it reported an error: {0}")]
    Reported(String),
    #[error("its hello is not what docs/protocol.md section 3 says")]
    Meta(#[source] serde_json::Error),
    #[error("it speaks version {0} of the frame protocol, not 1")]
    Version(u32),
}

/// How far the first frame has come.
#[derive(Debug, Default)]
pub(crate) struct HelloReader {
    bytes: Vec<u8>,
}

impl HelloReader {
    /// Reads what is there; the hello once it is whole.
    ///
    /// # Errors
    /// What about it is wrong.
    pub(crate) fn advance(&mut self, channel: &OwnedFd) -> Result<Option<HelloMeta>, HelloError> {
        loop {
            let wanted = self.wanted()?;
            if self.bytes.len() == wanted {
                return self.finish().map(Some);
            }
            let before = self.bytes.len();
            let mut chunk = [0u8; HEADER_BYTES + HELLO_META_BYTES_MAX];
            let room = &mut chunk[..wanted - before];
            match rustix::io::retry_on_intr(|| rustix::net::recv(channel, &mut *room, RecvFlags::DONTWAIT)) {
                Ok((0, _)) => return Err(HelloError::Closed),
                Ok((count, _)) => self.bytes.extend_from_slice(&chunk[..count]),
                Err(Errno::AGAIN) => return Ok(None),
                Err(errno) => return Err(HelloError::Read(errno)),
            }
        }
    }

    /// Length of the frame as far as it is known: nothing beyond it is taken from the socket.
    fn wanted(&self) -> Result<usize, HelloError> {
        let Some(header) = Header::decode(&self.bytes)? else { return Ok(HEADER_BYTES) };
        match header.kind {
            FrameType::Hello | FrameType::Error if header.payload_bytes() <= HELLO_META_BYTES_MAX => {
                Ok(HEADER_BYTES + header.payload_bytes())
            }
            FrameType::Hello | FrameType::Error => {
                Err(HelloError::Large(HEADER_BYTES + header.payload_bytes()))
            }
            other => Err(HelloError::Unexpected(other)),
        }
    }

    fn finish(&self) -> Result<HelloMeta, HelloError> {
        let header = Header::decode(&self.bytes)?.expect("a whole frame has a header");
        let payload = &self.bytes[HEADER_BYTES..];
        if header.kind == FrameType::Error {
            return Err(HelloError::Reported(String::from_utf8_lossy(payload).into_owned()));
        }
        let meta: HelloMeta =
            serde_json::from_slice(&payload[..header.meta_bytes as usize]).map_err(HelloError::Meta)?;
        if meta.protocol == PROTOCOL { Ok(meta) } else { Err(HelloError::Version(meta.protocol)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

    fn pair() -> (OwnedFd, OwnedFd) {
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn hello(meta: &str) -> Vec<u8> {
        let mut header = Header::new(FrameType::Hello, 0);
        header.meta_bytes = u32::try_from(meta.len()).unwrap();
        [&header.encode()[..], meta.as_bytes()].concat()
    }

    fn send(socket: &OwnedFd, bytes: &[u8]) {
        assert_eq!(rustix::net::send(socket, bytes, SendFlags::NOSIGNAL), Ok(bytes.len()));
    }

    #[test]
    fn hello_in_any_pieces_and_not_a_byte_more() {
        let frame = hello(r#"{"protocol":1,"runtime":"python3","features":["concurrent"]}"#);
        for cut in [1, 63, 64, 65, frame.len() - 1] {
            let (engine, runtime) = pair();
            let mut reader = HelloReader::default();
            send(&runtime, &frame[..cut]);
            assert!(reader.advance(&engine).unwrap().is_none(), "{cut}");
            send(&runtime, &[&frame[cut..], b"next"].concat());
            assert_eq!(reader.advance(&engine).unwrap().unwrap().runtime, "python3");
            let mut rest = [0; 16];
            assert_eq!(rustix::io::read(&engine, &mut rest), Ok(4));
        }
    }

    #[test]
    fn everything_else_is_named() {
        let read = |bytes: &[u8]| {
            let (engine, runtime) = pair();
            send(&runtime, bytes);
            drop(runtime);
            HelloReader::default().advance(&engine).unwrap_err()
        };
        assert!(matches!(read(b"x"), HelloError::Closed));
        assert!(matches!(read(&[7; 64]), HelloError::Frame(_)));
        assert!(matches!(read(&Header::new(FrameType::Ready, 0).encode()), HelloError::Unexpected(_)));
        assert!(matches!(read(&hello("{}")), HelloError::Meta(_)));
        assert!(matches!(read(&hello(r#"{"protocol":2}"#)), HelloError::Version(2)));
        let mut large = Header::new(FrameType::Hello, 0);
        large.meta_bytes = 60_000;
        assert!(matches!(read(&large.encode()), HelloError::Large(_)));
        let mut error = Header::new(FrameType::Error, 0);
        error.body_bytes = 2;
        assert!(
            matches!(read(&[&error.encode()[..], b"{}"].concat()), HelloError::Reported(text) if text == "{}")
        );
    }
}
