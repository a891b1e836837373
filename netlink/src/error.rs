//! What can go wrong: the kernel's refusals with all that it says about them, and a connection's own failures.
//!
//! Owns: the error types and the reading of extended acknowledgements. Must not know: sockets, single requests.
//! Layout: `struct nlmsgerr` and `enum nlmsgerr_attrs` of include/uapi/linux/netlink.h.

use std::fmt;
use std::time::Duration;

use rustix::io::Errno;

use crate::attribute::{Attributes, split_body};
use crate::request::Protocol;
use crate::wire::{
    DecodeError, FLAG_CAPPED, FLAG_EXTENDED, HEADER_BYTES, Header, KIND_ERROR, Message, aligned,
};

const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;
const NLMSGERR_ATTR_MISS_TYPE: u16 = 5;

/// The kernel's refusal of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelError {
    /// What was asked, in words.
    pub what: &'static str,
    /// Why it was refused.
    pub errno: Errno,
    /// What the kernel says in words, where it does.
    pub text: Option<String>,
    /// Where in the request's message (its header included) the attribute begins that the kernel objects to, in bytes.
    pub offset_bytes: Option<u32>,
    /// The number of that attribute.
    pub attribute: Option<u16>,
    /// The number of an attribute that is missing (kernels from 6.1).
    pub missing: Option<u32>,
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel refused to {}: {}", self.what, self.errno)?;
        if let Some(text) = &self.text {
            write!(f, ": {text}")?;
        }
        match (self.attribute, self.offset_bytes) {
            (Some(kind), Some(offset)) => write!(f, " (attribute {kind} at byte {offset} of the request)")?,
            (None, Some(offset)) => write!(f, " (at byte {offset} of the request)")?,
            (_, None) => {}
        }
        match self.missing {
            Some(kind) => write!(f, " (attribute {kind} is missing)"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for KernelError {}

/// Why a netlink exchange came to no answer.
///
/// ```no_run
/// use faaster_netlink::{Connection, LinkChange, LinkName, NetlinkError, Protocol};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut connection = Connection::open(Protocol::Route)?;
/// let change = LinkChange::new(LinkName::new("eth0")?).mtu_bytes(1).request();
/// match connection.run(&change) {
///     // "... Invalid argument (os error 22): mtu less than device minimum"
///     Err(NetlinkError::Kernel(refusal)) => eprintln!("{refusal} ({})", refusal.errno),
///     other => other?,
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket could be opened or set up.
    #[error("cannot open a netlink socket for {protocol}: is the kernel built with it?")]
    Open {
        /// The kernel subsystem.
        protocol: Protocol,
        /// The system call's error.
        source: std::io::Error,
    },
    /// The kernel did not take the request.
    #[error("cannot send a request to {what}")]
    Send {
        /// What was asked.
        what: &'static str,
        /// The system call's error.
        source: Errno,
    },
    /// No answer could be read.
    #[error("cannot receive from a netlink socket")]
    Receive(#[source] Errno),
    /// The kernel had more to say than the socket's receive buffer holds; the answers are lost, the requests may have
    /// been carried out.
    #[error(
        "the kernel's answers did not fit into the socket's receive buffer and are lost: list what is there"
    )]
    Overrun,
    /// No whole answer came in time; the requests may have been carried out.
    #[error("the kernel did not answer a request to {what} within {} ms", waited.as_millis())]
    Deadline {
        /// What was asked.
        what: &'static str,
        /// How long it had.
        waited: Duration,
    },
    /// An answer is larger than any should be.
    #[error("an answer has {bytes} bytes where at most {max} are expected")]
    AnswerTooLarge {
        /// Bytes of the answer.
        bytes: usize,
        /// Bytes there is room for.
        max: usize,
    },
    /// An answer makes no sense.
    #[error("the kernel's answer to a request to {what} cannot be read")]
    Decode {
        /// What was asked.
        what: &'static str,
        /// Where it ends to make sense.
        source: DecodeError,
    },
    /// A request or transaction is larger than the kernel takes at once.
    #[error("a request to {what} has {bytes} bytes and may have {max}: ask for less at once")]
    RequestTooLarge {
        /// What was asked.
        what: &'static str,
        /// Bytes of it.
        bytes: usize,
        /// Bytes it may have.
        max: usize,
    },
    /// A listing is longer than the bound.
    #[error("there are more than {max} entries to {what}: ask for fewer")]
    TooManyEntries {
        /// What was asked.
        what: &'static str,
        /// Entries it may have.
        max: usize,
    },
    /// A listing changed each time while it was made.
    #[error("what a request to {what} lists changed {tries} times meanwhile: try again later")]
    Unsteady {
        /// What was asked.
        what: &'static str,
        /// How often it was asked.
        tries: u32,
    },
    /// A request was given to a connection to another kernel subsystem.
    #[error("a request to {what} is for {request} and was given to a connection to {connection}")]
    WrongProtocol {
        /// What was asked.
        what: &'static str,
        /// Where it belongs.
        request: Protocol,
        /// Where it was sent.
        connection: Protocol,
    },
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl NetlinkError {
    /// The error number of the kernel's refusal, if this is one.
    pub fn kernel_errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel(error) => Some(error.errno),
            _ => None,
        }
    }
}

/// The answer at the end of an exchange: an acknowledgement or a refusal (`NLMSG_ERROR`), or a listing's end
/// (`NLMSG_DONE`). `request` is the message as it was sent: the attribute that the kernel points at is looked up in it.
///
/// # Errors
/// [`DecodeError`] if the bytes are no such answer.
pub fn decode_answer(
    message: &Message<'_>,
    what: &'static str,
    request: &[u8],
) -> Result<Result<(), KernelError>, DecodeError> {
    if message.body.is_empty() && message.header.kind != KIND_ERROR {
        // Some subsystems end a listing without a status.
        return Ok(Ok(()));
    }
    let (status, _) = split_body::<4>("answer", message.body)?;
    let status = i32::from_ne_bytes(status);
    if status == 0 {
        return Ok(Ok(()));
    }
    // The kernel answers with negated error numbers (1 to 4095); anything else is none of its own.
    let raw = status.checked_neg().filter(|raw| (1..4096).contains(raw)).unwrap_or(Errno::IO.raw_os_error());
    let mut error = KernelError {
        what,
        errno: Errno::from_raw_os_error(raw),
        text: None,
        offset_bytes: None,
        attribute: None,
        missing: None,
    };
    for attribute in extended(message)? {
        let attribute = attribute?;
        match attribute.kind {
            NLMSGERR_ATTR_MSG => error.text = Some(attribute.text()),
            NLMSGERR_ATTR_OFFS => error.offset_bytes = Some(attribute.u32()?),
            NLMSGERR_ATTR_MISS_TYPE => error.missing = Some(attribute.u32()?),
            _ => {}
        }
    }
    error.attribute = error.offset_bytes.and_then(|offset| attribute_at(request, offset));
    Ok(Err(error))
}

/// The attributes of the extended acknowledgement, behind what is repeated of the request.
fn extended<'a>(message: &Message<'a>) -> Result<Attributes<'a>, DecodeError> {
    if message.header.flags & FLAG_EXTENDED == 0 {
        return Ok(Attributes::new(&[]));
    }
    let behind_status = message.body.get(4..).unwrap_or_default();
    if message.header.kind != KIND_ERROR {
        return Ok(Attributes::new(behind_status));
    }
    let repeated = Header::decode(behind_status)?;
    let skipped = if message.header.flags & FLAG_CAPPED == 0 {
        usize::try_from(repeated.length).unwrap_or(usize::MAX)
    } else {
        HEADER_BYTES
    };
    let left = behind_status.len();
    if skipped < HEADER_BYTES || skipped > left {
        return Err(DecodeError::MessageLength { length: skipped, left });
    }
    Ok(Attributes::new(&behind_status[aligned(skipped).min(left)..]))
}

/// The number of the attribute that begins at `offset` of a message.
fn attribute_at(request: &[u8], offset: u32) -> Option<u16> {
    let at = usize::try_from(offset).ok()?;
    let header = request.get(at..at.checked_add(4)?)?;
    Some(u16::from_ne_bytes([header[2], header[3]]) & 0x3fff)
}
