//! From bytes of a client to requests.
//!
//! Owns: the reading side of connections: heads, bodies, limits, pipelining depth, time limits of the client.
//! Must not know: what a request means; [`Shard::on_request`] takes over.

use faaster_http::{
    Attempt, BodyReader, Expectation, Framing, Head, HeadProgress, Method, Parsed, Persistence, Reject,
    Scratch, Status, Version, parse,
};
use faaster_limits::{
    BODY_IDLE_TIMEOUT, BODY_RESERVE_BYTES_MAX, BODY_TIMEOUT, HEAD_TIMEOUT, IDLE_TIMEOUT, LINGER_TIMEOUT,
    OUTBOX_HIGH_BYTES, PIPELINE_DEPTH_MAX, SPARE_BUFFER_BYTES, WRITE_TIMEOUT,
};
use faaster_sys::ring::{Armed, Group, Received, Ring, Sock};
use rustix::io::Errno;

use crate::api::Port;
use crate::connection::{AnswerBody, Connection, Reading, Receiving, Upload};
use crate::event::Source;
use crate::shard::Shard;
use crate::slab::Id;
use crate::timer::Owner;

/// The body of a complete request.
#[derive(Debug)]
pub(crate) enum Payload<'b> {
    /// Still in the buffer it came in.
    Borrowed(&'b [u8]),
    /// Put together from several.
    Owned(Vec<u8>),
}

impl Payload<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }

    pub(crate) fn into_vec(self) -> Vec<u8> {
        match self {
            Self::Borrowed(bytes) => bytes.to_vec(),
            Self::Owned(bytes) => bytes,
        }
    }
}

const BUSY: Reject = Reject::new(
    Status::SERVICE_UNAVAILABLE,
    "the engine holds too many request bytes already; try again later",
);

/// Nanoseconds of a limit.
pub(crate) fn ns(limit: std::time::Duration) -> u64 {
    u64::try_from(limit.as_nanos()).expect("limits are far below 584 years")
}

impl<R: Ring> Shard<R> {
    pub(crate) fn on_accepted(&mut self, listener: u32, result: Result<Sock, Errno>, armed: Armed) {
        let port = self.listeners[listener as usize].1;
        match result {
            Ok(sock) if self.connections.len() >= self.config.connections_max => {
                self.counters.connections_refused_total += 1;
                self.ring.close(sock);
            }
            Ok(sock) => self.open_connection(sock, port),
            // ENFILE, EMFILE: out of descriptors. The client waits in the backlog; closed ones make room.
            Err(Errno::CANCELED) => return,
            Err(_) => self.counters.connections_refused_total += 1,
        }
        if armed == Armed::No && self.draining.is_none() {
            self.listen(listener);
        }
    }

    pub(crate) fn listen(&mut self, listener: u32) {
        let sock = self.listeners[listener as usize].0;
        self.ring.accept(sock, Source::Listener.token(listener, 0));
    }

    fn open_connection(&mut self, sock: Sock, port: Port) {
        self.counters.connections_total += 1;
        let deadline_ns = self.now_ns + ns(HEAD_TIMEOUT);
        let id = self.connections.insert(Connection::new(sock, port, deadline_ns));
        self.arm_receive(id);
        self.arm_connection(id);
    }

    /// Makes sure that the connection's deadline is heard of.
    pub(crate) fn arm_connection(&mut self, id: Id<Connection>) {
        if let Some(connection) = self.connections.get_mut(id) {
            let owner = Owner::Connection { index: id.index, generation: id.generation };
            self.timers.arm(&mut connection.alarm, connection.deadline_ns, owner);
        }
    }

    fn arm_receive(&mut self, id: Id<Connection>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.receiving == Receiving::No && !connection.ended && !connection.closing {
            let token = Source::ClientReceive.of(id);
            let operation = self.ring.receive(connection.sock, Group::Client, token);
            connection.receiving = Receiving::Yes(operation);
        }
    }

    pub(crate) fn on_client_received(&mut self, id: Id<Connection>, received: Received, armed: Armed) {
        let Some(connection) = self.connections.get_mut(id) else {
            if let Received::Data(lease) = received {
                self.give_back(lease);
            }
            return;
        };
        if armed == Armed::No {
            connection.receiving = Receiving::No;
        }
        match received {
            Received::Data(lease) => {
                self.on_client_bytes(id, &lease);
                self.give_back(lease);
                if armed == Armed::No {
                    self.resume(id);
                }
            }
            Received::Failed(Errno::NOBUFS) => {
                self.counters.buffers_exhausted_total += 1;
                self.starved_connections.push(id);
            }
            // We stopped it, to hold the connection back; which may be over by now.
            Received::Failed(Errno::CANCELED) => self.resume(id),
            Received::End => self.on_client_end(id),
            Received::Failed(_) => self.drop_connection(id),
        }
    }

    /// The client closed its sending side. Running calls still get their answer tried; waiting ones are taken back.
    fn on_client_end(&mut self, id: Id<Connection>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.ended = true;
        if connection.unanswered() == 0 && connection.outbox.pending_bytes() == 0 {
            self.drop_connection(id);
            return;
        }
        if connection.unanswered() == 0 {
            connection.closing = true;
            return;
        }
        let connection = self.connections.get(id).expect("got above");
        if let Some(sequence) = connection.find_call(|call| self.waits(call)) {
            // What has not begun will not.
            self.cut_off(id, sequence);
        }
        let Some(connection) = self.connections.get(id) else { return };
        let calls: Vec<_> = connection.calls().collect();
        for call in calls {
            self.tell_half_closed(call);
        }
    }

    /// The client gets what is owed before `sequence`, and nothing else.
    pub(crate) fn cut_off(&mut self, id: Id<Connection>, sequence: u64) {
        self.give_up_upload(id);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let dropped = connection.cut_off(sequence);
        connection.closing |= connection.unanswered() == 0;
        for call in dropped {
            self.abandon(call);
        }
        self.mark_connection(id);
    }

    fn on_client_bytes(&mut self, id: Id<Connection>, bytes: &[u8]) {
        let now_ns = self.now_ns;
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.closing {
            return;
        }
        if connection.input.is_empty() {
            let used = self.consume(id, bytes);
            if let Some(connection) = self.connections.get_mut(id)
                && used < bytes.len()
            {
                connection.input.extend_from_slice(&bytes[used..]);
                connection.head_deadline_ns = now_ns + ns(HEAD_TIMEOUT);
            }
        } else {
            connection.input.extend_from_slice(bytes);
            self.consume_input(id);
        }
        self.after_input(id);
    }

    /// Parses what is kept in the connection's input.
    fn consume_input(&mut self, id: Id<Connection>) {
        let now_ns = self.now_ns;
        let Some(connection) = self.connections.get_mut(id) else { return };
        let mut input = std::mem::take(&mut connection.input);
        let used = self.consume(id, &input);
        if let Some(connection) = self.connections.get_mut(id) {
            input.drain(..used);
            if used > 0 {
                // What is left is the start of another head, which gets its own time.
                connection.head_deadline_ns = now_ns + ns(HEAD_TIMEOUT);
            }
            debug_assert!(connection.input.is_empty());
            connection.input = input;
        }
    }

    /// Holds the connection back when it is owed too much, and sets the deadline that fits what it waits for.
    fn after_input(&mut self, id: Id<Connection>) {
        let now_ns = self.now_ns;
        let Some(connection) = self.connections.get_mut(id) else { return };
        if must_wait(connection)
            && let Receiving::Yes(operation) = connection.receiving
        {
            connection.receiving = Receiving::Stopping;
            self.ring.stop(operation);
        }
        set_deadline(connection, now_ns);
        self.arm_connection(id);
    }

    /// Goes on reading a connection that was held back.
    pub(crate) fn resume(&mut self, id: Id<Connection>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if must_wait(connection) || connection.closing {
            return;
        }
        if !connection.input.is_empty() && !matches!(connection.reading, Reading::Lingering) {
            self.consume_input(id);
            let Some(connection) = self.connections.get_mut(id) else { return };
            if must_wait(connection) {
                return;
            }
        }
        if let Some(connection) = self.connections.get_mut(id)
            && !matches!(connection.receiving, Receiving::Yes(_))
        {
            // It could not be read for a while, which was not its fault.
            connection.head_deadline_ns = self.now_ns + ns(HEAD_TIMEOUT);
        }
        self.arm_receive(id);
        if let Some(connection) = self.connections.get_mut(id) {
            set_deadline(connection, self.now_ns);
            self.arm_connection(id);
        }
    }

    /// Parses as many requests as are there; answers with how many bytes were used.
    fn consume(&mut self, id: Id<Connection>, bytes: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let Some(connection) = self.connections.get_mut(id) else { return bytes.len() };
            if connection.closing || matches!(connection.reading, Reading::Lingering) {
                return bytes.len();
            }
            let rest = &bytes[used..];
            if matches!(connection.reading, Reading::Body(_)) {
                match self.consume_body(id, rest) {
                    Progress::Used(count) => used += count,
                    Progress::NeedMore => return bytes.len(),
                }
                continue;
            }
            if rest.is_empty() || connection.unanswered() >= PIPELINE_DEPTH_MAX {
                return used;
            }
            match self.consume_head(id, rest) {
                Progress::Used(count) => used += count,
                Progress::NeedMore => return used,
            }
        }
    }

    fn consume_head(&mut self, id: Id<Connection>, bytes: &[u8]) -> Progress {
        let Some(connection) = self.connections.get_mut(id) else { return Progress::NeedMore };
        let Reading::Head(progress) = &mut connection.reading else { return Progress::NeedMore };
        if progress.observe(bytes) == Attempt::Wait {
            return Progress::NeedMore;
        }
        let mut scratch = Scratch::new();
        match parse(bytes, &mut scratch) {
            Ok(Parsed::Partial) => Progress::NeedMore,
            Ok(Parsed::Complete(head)) => self.on_head(id, &head, bytes),
            Err(reject) => {
                self.reject(id, reject);
                Progress::Used(bytes.len())
            }
        }
    }

    fn on_head(&mut self, id: Id<Connection>, head: &Head<'_, '_>, bytes: &[u8]) -> Progress {
        let Some(connection) = self.connections.get_mut(id) else { return Progress::NeedMore };
        let rest = &bytes[head.bytes..];
        let whole = match head.framing {
            Framing::None => Some(0),
            Framing::Length(length) => usize::try_from(length).ok().filter(|length| *length <= rest.len()),
            Framing::Chunked => None,
        };
        let port = connection.port;
        let limit = Self::body_limit(port, head);
        if let Some(length) = whole
            && length <= limit
        {
            connection.reading = Reading::Head(HeadProgress::new());
            let sequence = open_slot(connection, head);
            self.counters.requests_total += 1;
            self.on_request(id, sequence, port, head, Payload::Borrowed(&rest[..length]));
            return Progress::Used(head.bytes + length);
        }
        // An interim answer must not overtake those that are owed; the head is parsed again after them.
        if head.expectation == Expectation::Continue && connection.unanswered() > 0 {
            connection.reading = Reading::Head(HeadProgress::new());
            return Progress::NeedMore;
        }
        let reader = match BodyReader::new(head.framing, limit as u64) {
            Ok(reader) => reader,
            Err(reject) => {
                self.reject(id, reject);
                return Progress::Used(bytes.len());
            }
        };
        let reserved =
            reader.length_bytes().map_or(0, |length| usize::try_from(length).unwrap_or(limit)).min(limit);
        if !self.hold(reserved) {
            self.reject(id, BUSY);
            return Progress::Used(bytes.len());
        }
        let began_ns = self.now_ns;
        let Some(connection) = self.connections.get_mut(id) else { return Progress::NeedMore };
        if head.expectation == Expectation::Continue && rest.is_empty() {
            faaster_http::response::continue_100(connection.outbox.staging());
            self.mark_connection(id);
        }
        let Some(connection) = self.connections.get_mut(id) else { return Progress::NeedMore };
        let fresh = Upload { head: Vec::new(), body: Vec::new(), reader, reserved_bytes: reserved, began_ns };
        let mut upload = match self.spares.upload() {
            Some(mut used) => {
                let (head, body) = (std::mem::take(&mut used.head), std::mem::take(&mut used.body));
                *used = Upload { head, body, ..fresh };
                used
            }
            None => Box::new(fresh),
        };
        upload.head.extend_from_slice(&bytes[..head.bytes]);
        upload.body.reserve(reserved.min(BODY_RESERVE_BYTES_MAX));
        connection.reading = Reading::Body(upload);
        Progress::Used(head.bytes)
    }

    fn consume_body(&mut self, id: Id<Connection>, bytes: &[u8]) -> Progress {
        let Some(connection) = self.connections.get_mut(id) else { return Progress::NeedMore };
        let Reading::Body(upload) = &mut connection.reading else { return Progress::NeedMore };
        let upload = upload.as_mut();
        let body = &mut upload.body;
        let fed = upload.reader.feed(bytes, &mut |data| body.extend_from_slice(data));
        let grown = upload.body.len().saturating_sub(upload.reserved_bytes);
        upload.reserved_bytes += grown;
        match fed {
            Err(reject) => {
                // What grew is not counted yet; the upload is given up with what was.
                upload.reserved_bytes -= grown;
                self.reject(id, reject);
                Progress::Used(bytes.len())
            }
            Ok(_) if grown > 0 && !self.hold(grown) => {
                self.uncount_growth(id, grown);
                self.reject(id, BUSY);
                Progress::Used(bytes.len())
            }
            Ok(fed) if fed.done => {
                self.on_upload_complete(id);
                Progress::Used(fed.consumed)
            }
            Ok(_) => Progress::NeedMore,
        }
    }

    fn uncount_growth(&mut self, id: Id<Connection>, grown: usize) {
        if let Some(Connection { reading: Reading::Body(upload), .. }) = self.connections.get_mut(id) {
            upload.reserved_bytes -= grown;
        }
    }

    fn on_upload_complete(&mut self, id: Id<Connection>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let port = connection.port;
        let done = std::mem::replace(&mut connection.reading, Reading::Head(HeadProgress::new()));
        let Reading::Body(mut upload) = done else { unreachable!("only a body can be complete") };
        let mut scratch = Scratch::new();
        let Ok(Parsed::Complete(head)) = parse(&upload.head, &mut scratch) else {
            unreachable!("these bytes were parsed before")
        };
        let sequence = open_slot(connection, &head);
        self.unhold(upload.reserved_bytes);
        self.counters.requests_total += 1;
        if upload.body.len() <= SPARE_BUFFER_BYTES {
            // Small enough to be copied if it has to wait; so the buffers can be used again.
            self.on_request(id, sequence, port, &head, Payload::Borrowed(&upload.body));
        } else {
            let body = std::mem::take(&mut upload.body);
            self.on_request(id, sequence, port, &head, Payload::Owned(body));
        }
        self.spares.keep_upload(upload);
    }

    /// Answers a request that is no request, and reads nothing more from this client.
    pub(crate) fn reject(&mut self, id: Id<Connection>, reject: Reject) {
        self.counters.requests_rejected_total += 1;
        self.give_up_upload(id);
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.reading = Reading::Lingering;
        connection.input.clear();
        let sequence = connection.open_slot(Version::Http11, Persistence::Close, AnswerBody::Sent);
        self.answer_plain(id, sequence, reject.status, reject.reason.as_bytes());
    }

    fn give_up_upload(&mut self, id: Id<Connection>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if let Reading::Body(upload) = &connection.reading {
            let reserved = upload.reserved_bytes;
            connection.reading = Reading::Lingering;
            self.unhold(reserved);
        }
    }

    pub(crate) fn on_connection_deadline(&mut self, id: Id<Connection>) {
        let now_ns = self.now_ns;
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.deadline_ns > now_ns {
            self.arm_connection(id);
            return;
        }
        let stuck = connection.outbox.pending_bytes() > 0 || connection.closing;
        let waiting = connection.unanswered() > 0;
        let begun = !connection.input.is_empty() || matches!(connection.reading, Reading::Body(_));
        if !stuck && waiting {
            // Its calls have deadlines of their own.
            connection.deadline_ns = now_ns + ns(IDLE_TIMEOUT);
            self.arm_connection(id);
        } else if !stuck && begun && !matches!(connection.reading, Reading::Lingering) {
            let slow = "the request did not arrive in time; send it faster";
            self.reject(id, Reject::new(Status::REQUEST_TIMEOUT, slow));
            self.after_input(id);
        } else {
            self.drop_connection(id);
        }
    }

    /// Everything is answered and sent, and nothing more will be.
    pub(crate) fn finish_closing(&mut self, id: Id<Connection>) {
        let now_ns = self.now_ns;
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.ended || !matches!(connection.reading, Reading::Lingering) {
            self.drop_connection(id);
            return;
        }
        // The client may still be sending: closing now would reset the connection and the answer with it.
        connection.deadline_ns = now_ns + ns(LINGER_TIMEOUT);
        let sock = connection.sock;
        self.ring.shutdown_write(sock);
        self.arm_connection(id);
    }

    /// Closes at once; waiting calls are taken back, running ones run on for nobody.
    pub(crate) fn drop_connection(&mut self, id: Id<Connection>) {
        self.give_up_upload(id);
        let Some(connection) = self.connections.remove(id) else { return };
        let calls: Vec<_> = connection.calls().collect();
        for call in calls {
            self.abandon(call);
        }
        self.unhold(connection.held_bytes);
        self.ring.close(connection.sock);
    }
}

/// How far a step of parsing came.
enum Progress {
    Used(usize),
    NeedMore,
}

fn open_slot(connection: &mut Connection, head: &Head<'_, '_>) -> u64 {
    let body = if head.method == Method::Head { AnswerBody::Omitted } else { AnswerBody::Sent };
    connection.open_slot(head.version, head.persistence, body)
}

/// Whether the connection is owed so much that its requests are not read.
fn must_wait(connection: &Connection) -> bool {
    connection.unanswered() >= PIPELINE_DEPTH_MAX || connection.outbox.pending_bytes() > OUTBOX_HIGH_BYTES
}

fn set_deadline(connection: &mut Connection, now_ns: u64) {
    connection.deadline_ns = match &connection.reading {
        Reading::Body(upload) => (now_ns + ns(BODY_IDLE_TIMEOUT)).min(upload.began_ns + ns(BODY_TIMEOUT)),
        Reading::Lingering => now_ns + ns(LINGER_TIMEOUT),
        Reading::Head(_) if connection.outbox.pending_bytes() > 0 => now_ns + ns(WRITE_TIMEOUT),
        // A head in pieces does not get a new limit with each piece.
        Reading::Head(_) if !connection.input.is_empty() => connection.head_deadline_ns,
        Reading::Head(_) => now_ns + ns(IDLE_TIMEOUT),
    };
}
