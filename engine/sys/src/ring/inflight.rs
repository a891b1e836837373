//! What the kernel still works on, and the memory it needs for that.
//!
//! Owns: every buffer of an operation from submission to its last completion. Must not know: the ring's queues.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use super::{Group, MESSAGE_BYTES_MAX, MESSAGE_DESCRIPTORS_MAX, Message, Sock, Token};

/// What the kernel was asked for.
#[derive(Debug)]
pub(super) enum Work {
    Accept,
    Receive(Group),
    /// A pipe is to be read once it is readable.
    Read(PipeRead),
    /// The first try does not wait for room in the socket, and so is over when it is submitted; the second does.
    Send {
        buffer: Vec<u8>,
        sock: Sock,
        from: usize,
    },
    SendPatiently(Vec<u8>),
    Message(Box<MessageMemory>),
    /// Its word belongs to the ring: there is one bell.
    Bell,
}

/// Which pipe, and whose buffer its bytes stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct PipeRead {
    pub(super) raw: RawFd,
    /// Of the descriptor under this number: numbers are used again.
    pub(super) serial: u64,
    pub(super) group: Group,
}

/// Everything that recvmsg(2) reads and writes, at one stable address.
pub(super) struct MessageMemory {
    header: libc::msghdr,
    parts: [libc::iovec; 1],
    bytes: [u8; MESSAGE_BYTES_MAX],
    control: ControlBytes,
}

const CONTROL_BYTES: usize = 64;

#[repr(C, align(8))]
struct ControlBytes([u8; CONTROL_BYTES]);

// cmsghdr is 16 bytes on 64-bit Linux and descriptors are 4 each.
const _: () = assert!(CONTROL_BYTES >= 16 + 4 * MESSAGE_DESCRIPTORS_MAX);

impl std::fmt::Debug for MessageMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MessageMemory")
    }
}

impl MessageMemory {
    pub(super) fn new() -> Box<Self> {
        // SAFETY: msghdr is a C struct of integers and pointers; all-zero is a valid value for each.
        let header: libc::msghdr = unsafe { std::mem::zeroed() };
        let mut this = Box::new(Self {
            header,
            parts: [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }],
            bytes: [0; MESSAGE_BYTES_MAX],
            control: ControlBytes([0; CONTROL_BYTES]),
        });
        // The box never moves its content, so these addresses stay right until the operation is over.
        this.parts[0] = libc::iovec { iov_base: this.bytes.as_mut_ptr().cast(), iov_len: MESSAGE_BYTES_MAX };
        this.header.msg_iov = this.parts.as_mut_ptr();
        this.header.msg_iovlen = 1;
        this.header.msg_control = this.control.0.as_mut_ptr().cast();
        this.header.msg_controllen = CONTROL_BYTES;
        this
    }

    pub(super) fn header(&mut self) -> *mut libc::msghdr {
        &raw mut self.header
    }

    /// What the kernel left here after receiving `length` bytes.
    pub(super) fn into_message(self: Box<Self>, length: usize) -> Result<Option<Box<Message>>, Errno> {
        let descriptors = self.take_descriptors();
        if length == 0 {
            return Ok(None);
        }
        if self.header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
            return Err(Errno::MSGSIZE);
        }
        Ok(Some(Box::new(Message { bytes: self.bytes, length, descriptors })))
    }

    fn take_descriptors(&self) -> Vec<OwnedFd> {
        let mut descriptors = Vec::new();
        // SAFETY: the header points to this struct's own control bytes, whose length the kernel wrote.
        let mut current = unsafe { libc::CMSG_FIRSTHDR(&raw const self.header) };
        while !current.is_null() {
            // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR answer only with headers that lie whole in the control bytes.
            let header = unsafe { *current };
            if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS {
                // SAFETY: `current` is a valid header; its data follows it.
                let data = unsafe { libc::CMSG_DATA(current) };
                // SAFETY: pure arithmetic on a length.
                let overhead = unsafe { libc::CMSG_LEN(0) } as usize;
                for position in 0..(header.cmsg_len - overhead) / size_of::<libc::c_int>() {
                    // SAFETY: the kernel wrote cmsg_len bytes, so this many descriptors lie in the data.
                    let at = unsafe { data.cast::<libc::c_int>().add(position) };
                    // SAFETY: in bounds as above; the data need not be aligned for c_int.
                    let raw = unsafe { at.read_unaligned() };
                    // SAFETY: the kernel made this descriptor for us with this message; nobody else owns it.
                    descriptors.push(unsafe { OwnedFd::from_raw_fd(raw) });
                }
            }
            // SAFETY: both pointers are valid as above.
            current = unsafe { libc::CMSG_NXTHDR(&raw const self.header, current) };
        }
        descriptors
    }
}

/// The table of operations under way. Positions are reused under a new generation, so that a number which has gone
/// stale names nothing.
#[derive(Debug, Default)]
pub(super) struct Inflight {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    work: Option<(Token, Work)>,
}

impl Inflight {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { entries: Vec::with_capacity(capacity), free: Vec::with_capacity(capacity) }
    }

    /// Keeps `work` and answers with the user_data for it: generation in the upper half, position in the lower.
    pub(super) fn insert(&mut self, token: Token, work: Work) -> u64 {
        let position = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, work: None });
            u32::try_from(self.entries.len() - 1).expect("fewer operations than 4 billion")
        });
        let entry = &mut self.entries[position as usize];
        assert!(entry.work.is_none(), "a free position holds no work");
        entry.work = Some((token, work));
        u64::from(entry.generation) << 32 | u64::from(position)
    }

    pub(super) fn get_mut(&mut self, user_data: u64) -> Option<&mut (Token, Work)> {
        let entry = self.entries.get_mut(position(user_data))?;
        if u64::from(entry.generation) != user_data >> 32 { None } else { entry.work.as_mut() }
    }

    /// Makes first tries to send on `sock` the only ones; answers with how many there were.
    pub(super) fn settle_for_one_try(&mut self, sock: Sock) -> usize {
        let mut count = 0;
        for (_, work) in self.entries.iter_mut().filter_map(|entry| entry.work.as_mut()) {
            if let Work::Send { buffer, sock: other, .. } = work
                && *other == sock
            {
                *work = Work::SendPatiently(std::mem::take(buffer));
                count += 1;
            }
        }
        count
    }

    pub(super) fn remove(&mut self, user_data: u64) -> Option<(Token, Work)> {
        let at = position(user_data);
        let entry = self.entries.get_mut(at)?;
        if u64::from(entry.generation) != user_data >> 32 {
            return None;
        }
        let taken = entry.work.take()?;
        // The top bit stays clear: user_data with all bits set means something else.
        entry.generation = entry.generation.wrapping_add(1) & 0x7fff_ffff;
        self.free.push(u32::try_from(at).expect("positions are made from u32"));
        Some(taken)
    }
}

fn position(user_data: u64) -> usize {
    usize::try_from(user_data & 0xffff_ffff).expect("32 bits fit")
}
