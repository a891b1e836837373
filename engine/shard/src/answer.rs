//! From the end of a call to bytes for its client.
//!
//! Owns: the shape of every answer that the data plane gives: results, errors of functions, refusals, log tails.
//! Must not know: how the call ran.

use std::time::Duration;

use faaster_http::{Persistence, Status, Version, response};
use faaster_limits::ANSWER_BYTES_UNCOUNTED_MAX;
use faaster_protocol::easyfaas::errors;
use faaster_protocol::easyfaas::headers::{JSON, TEXT};
use faaster_protocol::easyfaas::tail::{LogTail, Usage, append_base64, append_exec_time, append_log_body};
use faaster_protocol::trigger;
use faaster_sys::ring::Ring;

use crate::call::{Call, Origin, Place, RequestId, Style, Tail};
use crate::connection::{AnswerBody, Connection};
use crate::errand::Packet;
use crate::ingress::Payload;
use crate::invoke::Seat;
use crate::phases::Phases;
use crate::shard::Shard;
use crate::slab::Id;

const TOO_MUCH_UNREAD: &[u8] =
    b"the answer is ready, but too many large answers wait for their clients to read them: come again later";

/// What the headers of an answer say of its call.
#[derive(Debug, Clone, Copy)]
struct Mark<'a> {
    request_id: &'a RequestId,
    /// Only where it waited for its instance to start.
    cold: Option<&'a Phases>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The body is the handler's result.
    Success,
    /// The body says what went wrong in the function or with its instance.
    FunctionError,
    /// It never ran.
    Refused(Refused),
}

/// Why a call never ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No instance became free in time, or the queue is full.
    Busy,
    /// No instance came up in time.
    NotReady,
    /// The function's code is not on this node.
    CodeMissing,
    /// The function was deleted while the call waited.
    Removed,
    /// Its client left before it began.
    Abandoned,
}

impl<R: Ring> Shard<R> {
    /// Ends a call of this shard: answers its client, or its shard of origin.
    pub(crate) fn answer(&mut self, id: Id<Call>, outcome: Outcome, body: Payload<'_>) {
        if let Some(mut call) = self.forget(id) {
            self.deliver(&mut call, outcome, body);
        }
    }

    /// Answers a call whose result is still coming, and keeps it until that has ended or its time is up.
    pub(crate) fn answer_early(&mut self, id: Id<Call>, outcome: Outcome, body: Payload<'_>) {
        let Some(call) = self.calls.get_mut(id) else { return };
        let held = std::mem::take(&mut call.held_bytes);
        let mut answered = Call {
            origin: std::mem::replace(&mut call.origin, Origin::Answered),
            client_context: None,
            event: Vec::new(),
            held_bytes: 0,
            result: Vec::new(),
            log: std::mem::take(&mut call.log),
            cold: call.cold.take(),
            ..*call
        };
        call.result = Vec::new();
        call.credit.unheld = 0;
        self.unhold(held);
        self.deliver(&mut answered, outcome, body);
    }

    fn deliver(&mut self, call: &mut Call, outcome: Outcome, body: Payload<'_>) {
        let run_ns = if call.started_ns == 0 { 0 } else { self.now_ns.saturating_sub(call.started_ns) };
        if let Some(phases) = &mut call.cold {
            phases.run = Duration::from_nanos(run_ns);
            self.note_phases(call.place, **phases);
        }
        let log = if call.tail == Tail::Wanted { self.tail_text(call, run_ns) } else { Vec::new() };
        match call.origin {
            Origin::Nobody | Origin::Answered => {}
            Origin::Client { .. } => self.respond(call, outcome, body, run_ns, &log),
            Origin::Remote { shard, call: remote } => {
                let mut errand = self.empty_errand();
                errand.call = remote;
                errand.outcome = outcome;
                errand.run_ns = run_ns;
                errand.log = log;
                errand.cold = call.cold.take();
                match body {
                    Payload::Owned(bytes) => errand.payload = bytes,
                    Payload::Borrowed(bytes) => {
                        errand.payload.clear();
                        errand.payload.extend_from_slice(bytes);
                    }
                }
                self.send_packet(shard, Packet::Answer(errand));
            }
        }
    }

    /// The first call that an instance answered tells how the instance came to be.
    fn note_phases(&mut self, place: Place, phases: Phases) {
        if let Place::Running(instance) = place
            && let Some(instance) = self.instances.get_mut(instance)
        {
            instance.phases.get_or_insert(phases);
        }
    }

    fn tail_text(&self, call: &Call, run_ns: u64) -> Vec<u8> {
        let deployed = &self.functions.get(call.function).deployed;
        let request_id = call.request_id.as_str();
        let mut tail = LogTail::new(request_id, &deployed.version);
        tail.push(&call.log);
        let memory_peak_bytes = match call.place {
            Place::Running(instance) => self.instances.get(instance).map_or(0, |it| it.memory_peak_bytes()),
            _ => 0,
        };
        let duration_ms = run_ns / 1_000_000;
        tail.finish(request_id, Usage { duration_ms, memory_mb: deployed.memory_mb, memory_peak_bytes })
    }

    /// Writes the answer of a call to its client's connection.
    pub(crate) fn respond(
        &mut self,
        call: &Call,
        outcome: Outcome,
        body: Payload<'_>,
        run_ns: u64,
        log: &[u8],
    ) {
        let Origin::Client { connection, sequence } = call.origin else { return };
        let seat = Seat { connection, sequence };
        let mark = Mark { request_id: &call.request_id, cold: call.cold.as_deref() };
        match (outcome, call.style) {
            (Outcome::Refused(Refused::Abandoned), _) => self.cut_off(connection, sequence),
            (Outcome::Success, Style::Event) => self.answer_created(seat),
            (_, Style::Event) => self.answer_event_refused(seat, call.request_id),
            (Outcome::Refused(refused), style) => self.respond_refused(seat, call, refused, style),
            (_, Style::Trigger) => self.respond_trigger(seat, mark, outcome, body, run_ns),
            (_, Style::InvokeLogToBody) => {
                let error = if outcome == Outcome::FunctionError { "Unhandled" } else { "" };
                let mut wrapped = Vec::with_capacity(body.as_slice().len() + log.len() + 64);
                append_log_body(&mut wrapped, error, log, body.as_slice());
                self.put(seat, Payload::Owned(wrapped), |out, length| {
                    begin(out, Status::OK, JSON, length);
                    call_headers(out, mark, run_ns);
                });
            }
            (_, Style::Invoke) => self.respond_invoke(seat, mark, outcome, body, run_ns, log),
        }
    }

    fn respond_invoke(
        &mut self,
        seat: Seat,
        mark: Mark<'_>,
        outcome: Outcome,
        body: Payload<'_>,
        run_ns: u64,
        log: &[u8],
    ) {
        // The template is moved out for the time of the borrow; it is put back below.
        let template = self.template.take();
        let common = template.as_ref().expect("only ever taken inside this function");
        self.put_dated(seat, body, |out, length| {
            common.append_ok_open(out, length);
            call_headers(out, mark, run_ns);
            if outcome == Outcome::FunctionError {
                out.extend_from_slice(b"X-Easyfaas-Function-Error: Unhandled\r\n");
            }
            if !log.is_empty() {
                out.extend_from_slice(b"X-Bce-Log-Result: ");
                append_base64(out, log);
                out.extend_from_slice(b"\r\n");
            }
        });
        self.template = template;
    }

    fn respond_refused(&mut self, seat: Seat, call: &Call, refused: Refused, style: Style) {
        let mut text = Vec::new();
        let deployed = self.functions.try_get(call.function).map(|function| function.deployed.clone());
        let key = deployed.as_ref().map_or("", |deployed| &deployed.key);
        let status = match refused {
            Refused::Busy | Refused::Abandoned => errors::append_no_capacity(&mut text),
            Refused::Removed => errors::append_not_found(&mut text, key.as_bytes()),
            Refused::CodeMissing => {
                errors::append_internal(&mut text, "the function's code is not on this node")
            }
            Refused::NotReady => {
                let name = deployed.as_ref().map_or("", |deployed| &deployed.name);
                errors::append_not_ready(&mut text, call.request_id.as_str(), name);
                let (body, request_id) = (Payload::Owned(text), &call.request_id);
                let mark = Mark { request_id, cold: None };
                return match style {
                    Style::Trigger => self.respond_trigger(seat, mark, Outcome::FunctionError, body, 0),
                    // FaaSter leaves the mark out (golden case 151), and callers take the sentence for a result.
                    _ => self.put(seat, body, |out, length| {
                        begin(out, Status::OK, TEXT, length);
                        id_header(out, request_id);
                        out.extend_from_slice(b"X-Easyfaas-Function-Error: Unhandled\r\n");
                    }),
                };
            }
        };
        self.answer_error(seat, status, Some(call.request_id), &text);
    }

    fn respond_trigger(
        &mut self,
        seat: Seat,
        mark: Mark<'_>,
        outcome: Outcome,
        body: Payload<'_>,
        run_ns: u64,
    ) {
        let mut text = Vec::new();
        if outcome == Outcome::FunctionError {
            trigger::append_function_error(&mut text, body.as_slice());
            return self.put(seat, Payload::Owned(text), |out, length| {
                begin(out, Status::INTERNAL_SERVER_ERROR, JSON, length);
            });
        }
        match trigger::interpret(body.as_slice()) {
            Ok(answer) => {
                let status = Status::from_code(answer.status).unwrap_or(Status::BAD_GATEWAY);
                let body = Payload::Owned(answer.body.into_owned());
                let (lines, shape) = (answer.header_lines, answer.shape);
                self.put(seat, body, |out, length| {
                    response::start(out, Version::Http11, status);
                    out.extend_from_slice(&lines);
                    response::content_length(out, length);
                    if shape == trigger::Shape::Plain {
                        call_headers(out, mark, run_ns);
                    }
                });
            }
            Err(error) => {
                let status = trigger::append_bad_response(&mut text, &error);
                self.answer_error(seat, status, Some(*mark.request_id), &text);
            }
        }
    }

    /// A refusal in the dialect's JSON; `marked` adds the headers of a call that had begun.
    pub(crate) fn answer_error(&mut self, seat: Seat, status: u16, marked: Option<RequestId>, text: &[u8]) {
        let status_line = Status::from_code(status).unwrap_or(Status::INTERNAL_SERVER_ERROR);
        let retry_after_secs = self.config.retry_after_secs;
        self.put(seat, Payload::Borrowed(text), |out, length| {
            begin(out, status_line, TEXT, length);
            if let Some(request_id) = marked {
                id_header(out, &request_id);
                out.extend_from_slice(b"X-Easyfaas-Function-Error: Unhandled\r\n");
            }
            if matches!(status, 429 | 503) {
                out.extend_from_slice(b"Retry-After: ");
                out.extend_from_slice(itoa::Buffer::new().format(retry_after_secs).as_bytes());
                out.extend_from_slice(b"\r\n");
            }
        });
    }

    /// `201 Created` without a body: an `event` invocation was taken.
    pub(crate) fn answer_created(&mut self, seat: Seat) {
        self.put(seat, Payload::Borrowed(b""), |out, length| {
            response::start(out, Version::Http11, Status::CREATED);
            response::content_length(out, length);
        });
    }

    /// A sentence as text.
    pub(crate) fn answer_plain(&mut self, id: Id<Connection>, sequence: u64, status: Status, text: &[u8]) {
        let seat = Seat { connection: id, sequence };
        let retry_after_secs = self.config.retry_after_secs;
        self.put(seat, Payload::Borrowed(text), |out, length| {
            begin(out, status, TEXT, length);
            if status == Status::SERVICE_UNAVAILABLE {
                out.extend_from_slice(b"Retry-After: ");
                out.extend_from_slice(itoa::Buffer::new().format(retry_after_secs).as_bytes());
                out.extend_from_slice(b"\r\n");
            }
        });
    }

    /// Puts an answer in its place: straight into the outbox if it is its turn. `head` writes the status line and all
    /// headers but Date, Server and Connection; it is told the length of the body.
    pub(crate) fn put(&mut self, seat: Seat, body: Payload<'_>, head: impl FnOnce(&mut Vec<u8>, u64)) {
        let date = self.date;
        self.put_dated(seat, body, |out, length| {
            head(out, length);
            response::server(out);
            response::date(out, &date);
        });
    }

    /// Counts a large answer among what the shard holds until its client has taken it; says whether there is room.
    fn hold_answer(&mut self, id: Id<Connection>, bytes: usize) -> bool {
        if self.connections.get(id).is_none() {
            return true;
        }
        if !self.hold(bytes) {
            self.counters.answers_refused_total += 1;
            return false;
        }
        let connection = self.connections.get_mut(id).expect("looked at above");
        connection.held_bytes += bytes;
        true
    }

    /// Like [`Self::put`], where `head` writes Date and Server too.
    fn put_dated(&mut self, seat: Seat, body: Payload<'_>, head: impl FnOnce(&mut Vec<u8>, u64)) {
        let bytes = body.as_slice().len();
        if bytes > ANSWER_BYTES_UNCOUNTED_MAX && !self.hold_answer(seat.connection, bytes) {
            let status = Status::SERVICE_UNAVAILABLE;
            return self.answer_plain(seat.connection, seat.sequence, status, TOO_MUCH_UNREAD);
        }
        let draining = self.draining.is_some();
        let Some(connection) = self.connections.get_mut(seat.connection) else { return };
        let turn = connection.is_turn(seat.sequence);
        let Some(slot) = connection.slot_mut(seat.sequence) else { return };
        slot.call = None;
        let (version, mode) = (slot.version, slot.body);
        let after = if draining { Persistence::Close } else { slot.persistence };
        let mut aside = if turn { Vec::new() } else { self.spares.buffer() };
        let out = if turn { connection.outbox.staging() } else { &mut aside };
        head(out, body.as_slice().len() as u64);
        finish_head(out, version, after);
        let body = if mode == AnswerBody::Omitted { Payload::Borrowed(&b""[..]) } else { body };
        if turn {
            match body {
                Payload::Borrowed(bytes) => connection.outbox.staging().extend_from_slice(bytes),
                Payload::Owned(bytes) => connection.outbox.push_owned(bytes),
            }
            connection.front_answered(after, &mut self.spares);
            // Held back for its depth, or with a request that had to wait for this answer.
            let held_back = connection.may_go_on() && !connection.closing;
            self.mark_connection(seat.connection);
            self.give_time(seat.connection);
            if held_back {
                self.resume_later(seat.connection);
            }
        } else {
            let body = match body {
                Payload::Borrowed(bytes) if aside.len() + bytes.len() <= aside.capacity() => {
                    aside.extend_from_slice(bytes);
                    Vec::new()
                }
                other => other.into_vec(),
            };
            connection.keep(seat.sequence, aside, body, after);
        }
    }
}

fn begin(out: &mut Vec<u8>, status: Status, content_type: &str, length: u64) {
    response::start(out, Version::Http11, status);
    out.extend_from_slice(b"Content-Type: ");
    out.extend_from_slice(content_type.as_bytes());
    out.extend_from_slice(b"\r\n");
    response::content_length(out, length);
}

fn id_header(out: &mut Vec<u8>, request_id: &RequestId) {
    out.extend_from_slice(b"X-Easyfaas-Request-Id: ");
    out.extend_from_slice(request_id.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn call_headers(out: &mut Vec<u8>, mark: Mark<'_>, run_ns: u64) {
    id_header(out, mark.request_id);
    out.extend_from_slice(b"X-Easyfaas-Function-Exectime: ");
    append_exec_time(out, run_ns);
    out.extend_from_slice(b"\r\n");
    if let Some(phases) = mark.cold {
        phases.append_header(out);
    }
}

fn finish_head(out: &mut Vec<u8>, version: Version, after: Persistence) {
    match (after, version) {
        (Persistence::Close, _) => response::connection_close(out),
        (Persistence::KeepAlive, Version::Http10) => response::connection_keep_alive(out),
        (Persistence::KeepAlive, Version::Http11) => {}
    }
    response::end_head(out);
}
