//! The runtime's end of the frame protocol (docs/protocol.md of faaster) for handlers that answer at once.
//!
//! Owns: the socket, frames not yet parsed, answers not yet written, events and results that travel in parts.
//! Must not know: what a handler does.
//!
//! Reads all that the socket holds, runs the handler for each invocation, writes all answers with one write.
//! Once the buffers have grown to what the traffic needs, a call allocates nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, RawFd};

/// The descriptor that a runtime finds its channel at.
const CHANNEL_FD: RawFd = 3;
const HEADER_BYTES: usize = 64;
const MAGIC: u32 = u32::from_le_bytes(*b"FAS\x01");
const MORE: u16 = 1;
const READY: u16 = 3;
const INVOKE: u16 = 4;
const REQUEST_PART: u16 = 5;
const RESPONSE: u16 = 6;
const WINDOW: u16 = 7;
const CANCEL: u16 = 8;
const ERROR: u16 = 9;
const SHUTDOWN: u16 = 11;
const PING: u16 = 12;
const PONG: u16 = 13;
/// What `ready` says of this runtime: it answers pings.
const ABOUT: &[u8] = br#"{"features":["ping"]}"#;

/// Bounds of the protocol, sections 2 and 5.
const META_BYTES_MAX: usize = 65_536;
const EVENT_FRAME_BYTES_MAX: usize = 262_144;
const RESULT_FRAME_BYTES_MAX: usize = 262_144;
const RESULT_PART_BYTES_MAX: usize = 65_536;
const RESULT_CREDIT_BYTES: usize = 262_144;

/// Bytes of a read; the buffer grows only for a frame that is larger.
const READ_BYTES: usize = 65_536;

/// A function's code: gets the event, appends the result to the buffer, or gives the message of an error.
pub type Handler = fn(&[u8], &mut Vec<u8>) -> Result<(), String>;

/// The channel that the engine has left at descriptor 3.
///
/// # Errors
/// The descriptor is not open: the program was not started by faaster.
pub fn take() -> io::Result<File> {
    // Looked at through /proc, so that a wrong start is a clear error and the unsafe block below is right.
    std::fs::symlink_metadata(format!("/proc/self/fd/{CHANNEL_FD}")).map_err(|cause| {
        io::Error::new(
            cause.kind(),
            format!("no channel at descriptor {CHANNEL_FD}: start me as a faaster function ({cause})"),
        )
    })?;
    #[expect(unsafe_code, reason = "the standard library has no safe way to take an inherited descriptor")]
    // SAFETY: `from_raw_fd` needs an open descriptor that nothing else owns. It is open (seen above; nothing can have closed it since,
    // for there is one thread), and it was inherited at exec: no object of this process was made for it, and `take` is called once.
    let channel = unsafe { File::from_raw_fd(CHANNEL_FD) };
    Ok(channel)
}

/// Says ready, then answers invocations until the engine ends the channel.
///
/// # Errors
/// Reading or writing failed, or the engine sent something that is no frame.
pub fn serve(mut channel: File, handler: Handler) -> io::Result<()> {
    let mut worker = Worker::new(handler);
    worker.put_ready();
    let mut input = vec![0_u8; READ_BYTES];
    let mut filled = 0;
    let mut next = Next::Read;
    loop {
        match channel.write_all(&worker.out) {
            Ok(()) => worker.out.clear(),
            // The engine has closed its end: the same as an end of file.
            Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(cause) => return Err(cause),
        }
        if next == Next::Read {
            let count = match channel.read(&mut input[filled..]) {
                Ok(count) => count,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(cause),
            };
            if count == 0 {
                return Ok(());
            }
            filled += count;
        }
        let parsed;
        (parsed, next) = match worker.take_frames(&input[..filled])? {
            Progress::Parsed(parsed) => (parsed, Next::Read),
            Progress::Pinged(parsed) => (parsed, Next::Parse),
            Progress::Shutdown => return Ok(()),
        };
        input.copy_within(parsed..filled, 0);
        filled -= parsed;
        if filled == input.len() {
            input.resize(HEADER_BYTES + META_BYTES_MAX + EVENT_FRAME_BYTES_MAX, 0);
        }
    }
}

/// What follows when all that is to be written has been.
#[derive(PartialEq, Eq)]
enum Next {
    Read,
    /// Frames may stand behind a ping.
    Parse,
}

enum Progress {
    /// So many bytes were whole frames.
    Parsed(usize),
    /// So many were, and the last was a ping: its answer is written before what stands behind it is run.
    Pinged(usize),
    Shutdown,
}

/// A result that waits for credit.
struct Outgoing {
    body: Vec<u8>,
    sent: usize,
    credit: usize,
}

struct Worker {
    handler: Handler,
    /// Frames to be written.
    out: Vec<u8>,
    /// Events whose parts are still coming.
    incoming: HashMap<u64, Vec<u8>>,
    outgoing: HashMap<u64, Outgoing>,
}

/// The fields of a header that a runtime needs.
struct Header {
    kind: u16,
    more: bool,
    invocation: u64,
    meta_bytes: usize,
    body_bytes: usize,
    credit: usize,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn garbage(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("protocol error: {what}"))
}

fn parse(bytes: &[u8]) -> io::Result<Header> {
    let (kind_and_flags, low, high) = (u32_at(bytes, 4), u32_at(bytes, 8), u32_at(bytes, 12));
    let header = Header {
        kind: (kind_and_flags & 0xffff) as u16,
        more: (kind_and_flags >> 16) as u16 & MORE != 0,
        invocation: u64::from(high) << 32 | u64::from(low),
        meta_bytes: u32_at(bytes, 24) as usize,
        body_bytes: u32_at(bytes, 28) as usize,
        credit: u32_at(bytes, 32) as usize,
    };
    if u32_at(bytes, 0) != MAGIC {
        return Err(garbage("bad magic"));
    }
    if header.meta_bytes > META_BYTES_MAX || header.body_bytes > EVENT_FRAME_BYTES_MAX {
        return Err(garbage("a length over its limit"));
    }
    Ok(header)
}

impl Worker {
    fn new(handler: Handler) -> Self {
        Self {
            handler,
            out: Vec::with_capacity(READ_BYTES),
            incoming: HashMap::new(),
            outgoing: HashMap::new(),
        }
    }

    fn take_frames(&mut self, input: &[u8]) -> io::Result<Progress> {
        let mut at = 0;
        while input.len() - at >= HEADER_BYTES {
            let header = parse(&input[at..])?;
            let body = at + HEADER_BYTES + header.meta_bytes;
            let end = body + header.body_bytes;
            if end > input.len() {
                break;
            }
            if header.kind == SHUTDOWN {
                return Ok(Progress::Shutdown);
            }
            at = end;
            if header.kind == PING {
                self.put_header(PONG, 0, 0, 0);
                return Ok(Progress::Pinged(at));
            }
            self.take_frame(&header, &input[body..end])?;
        }
        Ok(Progress::Parsed(at))
    }

    fn take_frame(&mut self, header: &Header, body: &[u8]) -> io::Result<()> {
        let id = header.invocation;
        match header.kind {
            INVOKE if header.more => drop(self.incoming.insert(id, body.to_vec())),
            INVOKE => self.call(id, body),
            REQUEST_PART => {
                if let Some(event) = self.incoming.get_mut(&id) {
                    event.extend_from_slice(body);
                    if !header.more
                        && let Some(event) = self.incoming.remove(&id)
                    {
                        self.call(id, &event);
                    }
                }
            }
            WINDOW => {
                if let Some(outgoing) = self.outgoing.get_mut(&id) {
                    outgoing.credit += header.credit;
                    self.pump(id);
                }
            }
            CANCEL => {
                if self.incoming.remove(&id).is_some() || self.outgoing.remove(&id).is_some() {
                    self.put_error(id, "Runtime.Cancelled", "the invocation was cancelled");
                }
            }
            _ => return Err(garbage("unexpected type")),
        }
        Ok(())
    }

    /// Runs the handler straight into the write buffer; the header is completed when the length is known.
    fn call(&mut self, id: u64, event: &[u8]) {
        let start = self.out.len();
        self.put_header(RESPONSE, 0, id, 0);
        let result = (self.handler)(event, &mut self.out);
        let body_bytes = self.out.len() - start - HEADER_BYTES;
        if let Err(message) = result {
            self.out.truncate(start);
            self.put_error(id, "Error", &message);
        } else if body_bytes > RESULT_FRAME_BYTES_MAX {
            let body = self.out.split_off(start + HEADER_BYTES);
            self.out.truncate(start);
            self.outgoing.insert(id, Outgoing { body, sent: 0, credit: RESULT_CREDIT_BYTES });
            self.pump(id);
        } else {
            self.out[start + 28..start + 32].copy_from_slice(&length(body_bytes).to_le_bytes());
        }
    }

    /// Sends as much of a large result as the credit allows.
    fn pump(&mut self, id: u64) {
        let Some(mut outgoing) = self.outgoing.remove(&id) else { return };
        while outgoing.credit > 0 {
            let left = outgoing.body.len() - outgoing.sent;
            let count = left.min(RESULT_PART_BYTES_MAX).min(outgoing.credit);
            let last = count == left;
            self.put_header(RESPONSE, if last { 0 } else { MORE }, id, count);
            self.out.extend_from_slice(&outgoing.body[outgoing.sent..outgoing.sent + count]);
            outgoing.sent += count;
            outgoing.credit -= count;
            if last {
                return;
            }
        }
        self.outgoing.insert(id, outgoing);
    }

    fn put_ready(&mut self) {
        let start = self.out.len();
        self.put_header(READY, 0, 0, 0);
        self.out[start + 24..start + 28].copy_from_slice(&length(ABOUT.len()).to_le_bytes());
        self.out.extend_from_slice(ABOUT);
    }

    fn put_header(&mut self, kind: u16, flags: u16, id: u64, body_bytes: usize) {
        let mut header = [0_u8; HEADER_BYTES];
        header[..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[4..6].copy_from_slice(&kind.to_le_bytes());
        header[6..8].copy_from_slice(&flags.to_le_bytes());
        header[8..16].copy_from_slice(&id.to_le_bytes());
        header[28..32].copy_from_slice(&length(body_bytes).to_le_bytes());
        self.out.extend_from_slice(&header);
    }

    /// `message` is put into JSON; what would need escaping is replaced.
    fn put_error(&mut self, id: u64, error_type: &str, message: &str) {
        let message: String =
            message.chars().map(|c| if c.is_control() || c == '"' || c == '\\' { ' ' } else { c }).collect();
        let body = format!(r#"{{"errorMessage":"{message}","errorType":"{error_type}","stackTrace":[]}}"#);
        self.put_header(ERROR, 0, id, body.len());
        self.out.extend_from_slice(body.as_bytes());
    }
}

/// A frame's length field; bodies are cut to fit long before this could fail.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a frame's body is at most 256 KiB")
}
