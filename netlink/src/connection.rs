//! A connection to one subsystem of the kernel: sends requests, many at once, and gathers their answers.
//!
//! Owns: the socket, the numbering of requests, deadlines. Must not know: what any request is about.
//!
//! A socket belongs for ever to the network namespace that its thread was in when it was opened. To work in another
//! namespace, open the connection on a thread that has entered it (`setns`, which is the caller's business), or
//! hand in a socket that was opened there ([`Connection::adopt`]).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use faaster_limits::{
    NETLINK_ANSWER_BYTES_MAX, NETLINK_DUMP_ENTRIES_MAX, NETLINK_DUMP_TRIES_MAX, NETLINK_RECEIVE_BUFFER_BYTES,
    NETLINK_SEND_BYTES_MAX, NETLINK_SEND_MESSAGES_MAX, NETLINK_TIMEOUT, NETLINK_TRANSACTION_BYTES_MAX,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use rustix::net::{RecvFlags, SendFlags, recvfrom, sendto};

use crate::error::{KernelError, NetlinkError, decode_answer};
use crate::request::{Protocol, Request};
use crate::wire::{
    DecodeError, FLAG_DUMP, FLAG_DUMP_INTERRUPTED, FLAG_REQUEST, KIND_DONE, KIND_ERROR, KIND_NOTHING,
    Message, Messages,
};

/// The kernel's own address.
const KERNEL: SocketAddrNetlink = SocketAddrNetlink::new(0, 0);

/// Longest wait that can be asked for: nothing that is longer is meant, and clocks can add it.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// An open netlink socket.
///
/// ```no_run
/// use std::time::Duration;
/// use faaster_netlink::{Connection, LinkChange, LinkName, LinkState, Protocol};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut connection = Connection::open(Protocol::Route)?;
/// connection.set_timeout(Duration::from_secs(2));
/// let up = |name| LinkName::new(name).map(|name| LinkChange::new(name).state(LinkState::Up).request());
/// // One system call for both; each has an outcome of its own.
/// for outcome in connection.run_all(&[up("eth0")?, up("eth1")?])? {
///     if let Err(error) = outcome {
///         eprintln!("{error}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    protocol: Protocol,
    timeout: Duration,
    sequence: u32,
    unread: Unread,
    send: Vec<u8>,
    receive: Vec<u8>,
}

/// A batch that ended early: what was answered until then, and why no more was.
#[derive(Debug, thiserror::Error)]
#[error("{answered} of {} requests were answered, then no more", outcomes.len(), answered = outcomes.iter().flatten().count())]
pub struct BatchError {
    /// One entry per request, in order; `None` where it is not known what became of it. Requests behind the last that
    /// was answered may or may not have been carried out.
    pub outcomes: Vec<Option<Result<(), KernelError>>>,
    /// Why.
    pub source: NetlinkError,
}

/// Whether answers may lie in the socket that nobody waits for any more. They must not take the room of new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unread {
    Perhaps,
    No,
}

/// Whether a listing was all of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    Steady,
    Changed,
}

impl Connection {
    /// Opens a connection to `protocol` in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        let open = || -> std::io::Result<OwnedFd> {
            let mut socket = netlink_sys::Socket::new(protocol.number())?;
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            if protocol == Protocol::Route {
                // Without it the kernel takes the filters of a listing and ignores them.
                socket.set_netlink_get_strict_chk(true)?;
            }
            // Room for the largest send and its answers: the host's defaults can be low.
            set_socket_send_buffer_size(&socket, NETLINK_TRANSACTION_BYTES_MAX)?;
            set_socket_recv_buffer_size(&socket, NETLINK_RECEIVE_BUFFER_BYTES)?;
            socket.bind_auto()?;
            // Its own type closes the descriptor twice if it is ever cloned; ours cannot be.
            socket.as_fd().try_clone_to_owned()
        };
        let socket = open().map_err(|source| NetlinkError::Open { protocol, source })?;
        Ok(Self::adopt(socket, protocol))
    }

    /// Takes over a netlink socket of `protocol` that was opened elsewhere, in another namespace say. Set
    /// `NETLINK_EXT_ACK` on it, or errors carry no more than an errno, and `NETLINK_GET_STRICT_CHK` for `Route`.
    pub fn adopt(socket: OwnedFd, protocol: Protocol) -> Self {
        Self {
            socket,
            protocol,
            timeout: NETLINK_TIMEOUT,
            sequence: 0,
            unread: Unread::No,
            send: Vec::new(),
            receive: vec![0; NETLINK_ANSWER_BYTES_MAX],
        }
    }

    /// The subsystem it speaks to.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Each exchange has this long (a batch's each send, a listing's each try), an hour at most. The kernel works on a
    /// request within the send itself, which can wait for its locks and has no deadline of its own.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout.min(TIMEOUT_MAX);
    }

    /// Carries out one request.
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`] if the kernel refuses it, others if its answer does not come.
    pub fn run(&mut self, request: &Request<'_>) -> Result<(), NetlinkError> {
        let outcomes = self.run_all(std::slice::from_ref(request)).map_err(|error| error.source)?;
        for outcome in outcomes {
            outcome?;
        }
        Ok(())
    }

    /// Carries out many requests, dozens with each system call. Each has its own outcome: one that fails does not keep
    /// the next from being carried out. The calling thread is in the kernel meanwhile (some 20 ms for a send of new
    /// links, more than a second for one of removals).
    ///
    /// # Errors
    /// [`BatchError`] if answers are missing; it holds those that came.
    pub fn run_all(
        &mut self,
        requests: &[Request<'_>],
    ) -> Result<Vec<Result<(), KernelError>>, Box<BatchError>> {
        let mut outcomes = vec![None; requests.len()];
        if let Err(source) = requests.iter().try_for_each(|request| self.check(request)) {
            return Err(Box::new(BatchError { outcomes, source }));
        }
        let mut begin = 0;
        while begin < requests.len() {
            let end = begin + chunk(&requests[begin..]);
            if let Err(source) = self.exchange(&requests[begin..end], &mut outcomes[begin..end]) {
                return Err(Box::new(BatchError { outcomes, source }));
            }
            begin = end;
        }
        Ok(outcomes.into_iter().map(|outcome| outcome.expect("exchange() leaves none open")).collect())
    }

    /// One send and its answers.
    fn exchange(
        &mut self,
        requests: &[Request<'_>],
        outcomes: &mut [Option<Result<(), KernelError>>],
    ) -> Result<(), NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        let mut send = std::mem::take(&mut self.send);
        send.clear();
        let mut places = Vec::with_capacity(requests.len());
        for request in requests {
            let at = send.len();
            self.sequence = self.sequence.wrapping_add(1);
            request.encode(self.sequence, &mut send);
            places.push(at..send.len());
        }
        let result = self
            .send_bytes(requests[0].what, &send)
            .and_then(|()| self.outcomes(requests, first, |index| &send[places[index].clone()], outcomes));
        self.send = send;
        result
    }

    /// Gathers the answers to what was just sent, from number `first` on.
    fn outcomes<'s>(
        &mut self,
        requests: &[Request<'_>],
        first: u32,
        sent: impl Fn(usize) -> &'s [u8],
        outcomes: &mut [Option<Result<(), KernelError>>],
    ) -> Result<(), NetlinkError> {
        let mut deadline = Instant::now() + self.timeout;
        let mut open = requests.len();
        let mut lost = false;
        while open > 0 {
            let what = requests[requests.len() - open].what;
            let received = self.receive(what, deadline, |message| {
                let index = message.header.sequence.wrapping_sub(first) as usize;
                // Anything else is a late answer to a request that was given up.
                if message.header.kind == KIND_ERROR && outcomes.get(index).is_some_and(Option::is_none) {
                    outcomes[index] = Some(decode_answer(&message, requests[index].what, sent(index))?);
                    open -= 1;
                }
                Ok(())
            });
            match received {
                // The answers that did fit are there still; no others will come.
                Err(NetlinkError::Overrun) => (lost, deadline) = (true, Instant::now()),
                Err(NetlinkError::Deadline { .. }) if lost => return Err(NetlinkError::Overrun),
                received => received?,
            }
        }
        self.unread = Unread::No;
        Ok(())
    }

    /// Asks for one thing; `visit` sees what is answered, which can be nothing.
    ///
    /// # Errors
    /// As [`Connection::run`].
    pub fn get(
        &mut self,
        request: &Request<'_>,
        mut visit: impl FnMut(&Message<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), NetlinkError> {
        self.check(request)?;
        self.sequence = self.sequence.wrapping_add(1);
        let mut send = Vec::with_capacity(request.message_bytes());
        request.encode(self.sequence, &mut send);
        self.listing(request.what, &send, &mut visit).map(|_| ())
    }

    /// Lists: `visit` sees every entry, in the kernel's order. When what is listed changes meanwhile, `restart` is
    /// called and the listing begins anew.
    ///
    /// # Errors
    /// As [`Connection::run`]; [`NetlinkError::Unsteady`] if it changes each time, [`NetlinkError::TooManyEntries`].
    pub fn dump<T>(
        &mut self,
        request: &Request<'_>,
        mut entry: impl FnMut(&Message<'_>) -> Result<Option<T>, DecodeError>,
    ) -> Result<Vec<T>, NetlinkError> {
        self.check(request)?;
        for _ in 0..NETLINK_DUMP_TRIES_MAX {
            let mut entries = Vec::new();
            self.sequence = self.sequence.wrapping_add(1);
            let mut send = Vec::with_capacity(request.message_bytes());
            request.encode_as(FLAG_REQUEST | FLAG_DUMP | request.flags, self.sequence, &mut send);
            let listing = self.listing(request.what, &send, &mut |message| {
                entries.extend(entry(message)?);
                Ok(())
            })?;
            if listing == Listing::Steady {
                return Ok(entries);
            }
        }
        Err(NetlinkError::Unsteady { what: request.what, tries: NETLINK_DUMP_TRIES_MAX })
    }

    /// Sends one message and shows all of its answers but the last, which is the outcome.
    fn listing(
        &mut self,
        what: &'static str,
        send: &[u8],
        visit: &mut dyn FnMut(&Message<'_>) -> Result<(), DecodeError>,
    ) -> Result<Listing, NetlinkError> {
        let sequence = self.sequence;
        let deadline = Instant::now() + self.timeout;
        self.send_bytes(what, send)?;
        let mut listing = Listing::Steady;
        let mut outcome = None;
        let mut entries = 0_usize;
        while outcome.is_none() && entries <= NETLINK_DUMP_ENTRIES_MAX {
            self.receive(what, deadline, |message| {
                if message.header.sequence != sequence || outcome.is_some() {
                    return Ok(());
                }
                if message.header.flags & FLAG_DUMP_INTERRUPTED != 0 && message.header.kind != KIND_ERROR {
                    listing = Listing::Changed;
                }
                match message.header.kind {
                    KIND_NOTHING => {}
                    KIND_ERROR | KIND_DONE => outcome = Some(decode_answer(&message, what, send)?),
                    _ => {
                        entries += 1;
                        visit(&message)?;
                    }
                }
                Ok(())
            })?;
        }
        match outcome {
            Some(outcome) => {
                self.unread = Unread::No;
                Ok(outcome.map(|()| listing)?)
            }
            None => Err(NetlinkError::TooManyEntries { what, max: NETLINK_DUMP_ENTRIES_MAX }),
        }
    }

    /// Sends messages that make one whole (a transaction of nftables) and shows every refusal and acknowledgement, by
    /// the place of its message, until `visit` says that it was the last.
    pub(crate) fn transact(
        &mut self,
        messages: &[(u16, &Request<'_>)],
        mut visit: impl FnMut(usize, Result<(), KernelError>) -> Finished,
    ) -> Result<(), NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        let mut send = Vec::with_capacity(messages.iter().map(|(_, request)| request.message_bytes()).sum());
        let mut places = Vec::with_capacity(messages.len());
        for (flags, request) in messages {
            self.check(request)?;
            let at = send.len();
            self.sequence = self.sequence.wrapping_add(1);
            request.encode_as(*flags, self.sequence, &mut send);
            places.push(at..send.len());
        }
        let what = messages.first().map_or("do nothing", |(_, request)| request.what);
        let deadline = Instant::now() + self.timeout;
        self.send_bytes(what, &send)?;
        let mut finished = Finished::No;
        let mut lost = false;
        while finished == Finished::No {
            let received = self.receive(what, deadline, |message| {
                let index = message.header.sequence.wrapping_sub(first) as usize;
                if message.header.kind == KIND_ERROR && index < places.len() && finished == Finished::No {
                    let answer =
                        decode_answer(&message, messages[index].1.what, &send[places[index].clone()])?;
                    finished = visit(index, answer);
                    if lost {
                        finished = Finished::Yes;
                    }
                }
                Ok(())
            });
            match received {
                // More refusals than the receive buffer holds; the first are in it still, and one is enough.
                Err(NetlinkError::Overrun) => lost = true,
                received => received?,
            }
        }
        Ok(())
    }

    fn check(&self, request: &Request<'_>) -> Result<(), NetlinkError> {
        let (what, connection) = (request.what, self.protocol);
        if request.protocol != connection {
            return Err(NetlinkError::WrongProtocol { what, request: request.protocol, connection });
        }
        let (bytes, max) = (request.message_bytes(), NETLINK_SEND_BYTES_MAX);
        if bytes > max {
            return Err(NetlinkError::RequestTooLarge { what, bytes, max });
        }
        Ok(())
    }

    fn send_bytes(&mut self, what: &'static str, bytes: &[u8]) -> Result<(), NetlinkError> {
        if self.unread == Unread::Perhaps {
            self.drain()?;
        }
        // Until all answers were seen.
        self.unread = Unread::Perhaps;
        loop {
            return match sendto(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &KERNEL) {
                Err(Errno::INTR) => continue,
                Err(source) => Err(NetlinkError::Send { what, source }),
                // The kernel takes a datagram whole.
                Ok(_) => Ok(()),
            };
        }
    }

    /// Throws away what lies in the socket. The kernel adds nothing meanwhile: it answers within the send.
    fn drain(&mut self) -> Result<(), NetlinkError> {
        for _ in 0..NETLINK_DUMP_ENTRIES_MAX {
            match recvfrom(&self.socket, &mut self.receive[..], RecvFlags::DONTWAIT) {
                Ok(_) | Err(Errno::INTR | Errno::NOBUFS) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(source) => return Err(NetlinkError::Receive(source)),
            }
        }
        // Other processes fill the socket faster than it is emptied.
        Err(NetlinkError::Overrun)
    }

    /// Waits for one datagram of the kernel's and shows its messages.
    fn receive(
        &mut self,
        what: &'static str,
        deadline: Instant,
        mut visit: impl FnMut(Message<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), NetlinkError> {
        loop {
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            let received = recvfrom(&self.socket, &mut self.receive[..], flags);
            match received {
                Ok((_, bytes, from)) => {
                    // Any process may send to any netlink port; only the kernel's own word counts.
                    if from.map(SocketAddrNetlink::try_from) != Some(Ok(KERNEL)) {
                        if Instant::now() >= deadline {
                            return Err(NetlinkError::Deadline { what, waited: self.timeout });
                        }
                        continue;
                    }
                    let max = self.receive.len();
                    let datagram =
                        self.receive.get(..bytes).ok_or(NetlinkError::AnswerTooLarge { bytes, max })?;
                    return Messages::new(datagram)
                        .try_for_each(|message| message.and_then(&mut visit))
                        .map_err(|source| NetlinkError::Decode { what, source });
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(what, deadline)?,
                Err(Errno::NOBUFS) => return Err(NetlinkError::Overrun),
                Err(source) => return Err(NetlinkError::Receive(source)),
            }
        }
    }

    fn wait(&self, what: &'static str, deadline: Instant) -> Result<(), NetlinkError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(NetlinkError::Deadline { what, waited: self.timeout });
        }
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::from(i32::MAX), tv_nsec: 0 });
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(source) => Err(NetlinkError::Receive(source)),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether a transaction's last answer was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finished {
    Yes,
    No,
}

/// How many of `requests`, at least one, go into the next send.
fn chunk(requests: &[Request<'_>]) -> usize {
    let mut bytes = 0;
    let fitting = requests
        .iter()
        .take(NETLINK_SEND_MESSAGES_MAX)
        .take_while(|request| {
            bytes += request.message_bytes();
            bytes <= NETLINK_SEND_BYTES_MAX
        })
        .count();
    fitting.max(1)
}
