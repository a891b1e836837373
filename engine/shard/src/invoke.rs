//! From a request to a call: which function, whether the caller may, here or on another shard.
//!
//! Owns: admission of invocations and HTTP triggers, and crossing to the home shard and back.
//! Must not know: instances; how an answer looks on the wire.

use std::sync::Arc;

use faaster_function::Deployed;
use faaster_http::{Head, Method, percent};
use faaster_limits::{
    ASYNC_QUEUE_MAX, ASYNC_REQUEST_BYTES_MAX, CONTROL_BODY_BYTES_MAX, ERRANDS_KEPT_MAX,
    SYNC_REQUEST_BYTES_MAX,
};
use faaster_protocol::easyfaas::errors::{self, ErrorCode, Marks};
use faaster_protocol::easyfaas::headers::{
    CallHeaders, InvokeType, LogToBody, LogType, append_client_context,
};
use faaster_protocol::easyfaas::route::{
    KEY_BYTES_MAX, KeyBuffer, Target, canonical_key, invocation_target, trigger_key,
};
use faaster_protocol::trigger::{TriggerRequest, append_event};
use faaster_sys::ring::Ring;

use crate::answer::{Outcome, Refused};
use crate::api::{ControlRequest, Notice, Port, ReplyTo, ShardId};
use crate::call::{Call, Credit, Origin, Place, RequestId, Style, Tail};
use crate::connection::Connection;
use crate::errand::{Errand, Leaving, Packet};
use crate::ingress::Payload;
use crate::shard::Shard;
use crate::slab::Id;

/// Where a client waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seat {
    pub(crate) connection: Id<Connection>,
    pub(crate) sequence: u64,
}

impl<R: Ring> Shard<R> {
    /// The most bytes that the body of this request may have.
    pub(crate) fn body_limit(port: Port, head: &Head<'_, '_>) -> usize {
        match Self::call_target(port, head) {
            Some(_) => SYNC_REQUEST_BYTES_MAX,
            None => CONTROL_BODY_BYTES_MAX,
        }
    }

    fn call_target<'b>(port: Port, head: &Head<'_, 'b>) -> Option<Target<'b>> {
        if port == Port::Registry {
            return None;
        }
        match invocation_target(head.path) {
            Some(Target::Invocation { .. }) if head.method != Method::Post => None,
            target => target,
        }
    }

    /// A request is complete.
    pub(crate) fn on_request(
        &mut self,
        connection: Id<Connection>,
        sequence: u64,
        port: Port,
        head: &Head<'_, '_>,
        body: Payload<'_>,
    ) {
        let seat = Seat { connection, sequence };
        match Self::call_target(port, head) {
            Some(Target::Invocation { identifier }) => self.on_invocation(seat, identifier, head, body),
            Some(Target::Trigger { user, function, version }) if self.config.http_trigger => {
                self.on_trigger(seat, (user, function, version), head, &body);
            }
            _ => self.on_control(seat, port, head, body),
        }
    }

    fn on_invocation(&mut self, seat: Seat, identifier: &[u8], head: &Head<'_, '_>, body: Payload<'_>) {
        let fields = head.headers.iter().map(|field| (field.name.as_bytes(), field.value));
        let headers = CallHeaders::classify(fields, head.query);
        let request_id = self.request_id(headers.request_id);
        let qualifier = qualifier(head.query);
        let default_account = std::mem::take(&mut self.config.default_account);
        let account = headers.account.unwrap_or(default_account.as_bytes());
        let mut buffer: KeyBuffer = [0; KEY_BYTES_MAX];
        let admitted = match canonical_key(identifier, qualifier, account, &mut buffer) {
            Err(error) => {
                let mut text = Vec::new();
                let (status, marks) = errors::append_route_error(&mut text, error);
                let marked = (marks == Marks::Marked).then_some(request_id);
                self.answer_error(seat, status, marked, &text);
                None
            }
            Ok(key) => self.authorized(seat, key, account, request_id),
        };
        self.config.default_account = default_account;
        if let Some(index) = admitted {
            self.admit_typed(seat, index, &headers, request_id, body);
        }
    }

    /// The function's index, or `None` after the refusal went out.
    fn authorized(&mut self, seat: Seat, key: &[u8], account: &[u8], request_id: RequestId) -> Option<u32> {
        let mut text = Vec::new();
        let Some((index, function)) = self.functions.find(key) else {
            let status = errors::append_not_found(&mut text, key);
            self.answer_error(seat, status, Some(request_id), &text);
            return None;
        };
        if self.config.simple_auth && function.deployed.owner.as_bytes() != account {
            let caller = String::from_utf8_lossy(account);
            let status = errors::append_invalid_caller(&mut text, &function.deployed.owner, &caller);
            self.answer_error(seat, status, Some(request_id), &text);
            return None;
        }
        Some(index)
    }

    fn admit_typed(
        &mut self,
        seat: Seat,
        index: u32,
        headers: &CallHeaders<'_>,
        request_id: RequestId,
        body: Payload<'_>,
    ) {
        let refuse = |this: &mut Self, code: ErrorCode, cause: &str| {
            let mut text = Vec::new();
            let status = errors::append(&mut text, code, cause, None);
            this.answer_error(seat, status, Some(request_id), &text);
        };
        let mut client_context = None;
        if let Some(encoded) = headers.client_context {
            let mut json = Vec::new();
            if append_client_context(&mut json, encoded).is_err() {
                return refuse(
                    self,
                    ErrorCode::InvalidRequestContent,
                    "client context is not base64 of a JSON object",
                );
            }
            client_context = Some(json);
        }
        let event = if body.as_slice().is_empty() { Payload::Borrowed(b"{}") } else { body };
        match headers.invoke_type {
            InvokeType::Common => {}
            InvokeType::Event => return self.admit_async(seat, index, request_id, client_context, event),
            InvokeType::Stream | InvokeType::Mqhub => {
                return refuse(
                    self,
                    ErrorCode::NotImplemented,
                    "this invoke type is not served by this version",
                );
            }
        }
        let style =
            if headers.log_to_body == LogToBody::Yes { Style::InvokeLogToBody } else { Style::Invoke };
        let tail = if headers.log_type == LogType::Tail { Tail::Wanted } else { Tail::Unwanted };
        let origin = Origin::Client { connection: seat.connection, sequence: seat.sequence };
        let call = self.new_call(origin, index, request_id, style, tail, client_context);
        let id = self.start(call, event);
        self.seat(seat, id);
    }

    /// Remembers in the connection which call will answer.
    fn seat(&mut self, seat: Seat, id: Id<Call>) {
        if let Some(connection) = self.connections.get_mut(seat.connection)
            && let Some(slot) = connection.slot_mut(seat.sequence)
        {
            slot.call = Some(id);
        }
    }

    fn admit_async(
        &mut self,
        seat: Seat,
        index: u32,
        request_id: RequestId,
        client_context: Option<Vec<u8>>,
        event: Payload<'_>,
    ) {
        let mut text = Vec::new();
        if event.as_slice().len() > ASYNC_REQUEST_BYTES_MAX {
            let cause = format!("an event may have {ASYNC_REQUEST_BYTES_MAX} bytes");
            let status = errors::append(&mut text, ErrorCode::InvalidRequestContent, &cause, None);
            return self.answer_error(seat, status, Some(request_id), &text);
        }
        let home = self.functions.get(index).home;
        let event = Payload::Owned(event.into_vec());
        self.counters.invocations_total += 1;
        if home != self.id {
            // The home shard says whether it keeps the event.
            let origin = Origin::Client { connection: seat.connection, sequence: seat.sequence };
            let call = self.new_call(origin, index, request_id, Style::Event, Tail::Unwanted, client_context);
            let id = self.forward(call, home, event);
            return self.seat(seat, id);
        }
        let call =
            self.new_call(Origin::Nobody, index, request_id, Style::Event, Tail::Unwanted, client_context);
        match self.keep_event(call, event) {
            Outcome::Success => self.answer_created(seat),
            _ => self.answer_event_refused(seat, request_id),
        }
    }

    /// Takes an event that is at home here, if there is room: only what is kept is acknowledged.
    fn keep_event(&mut self, call: Call, event: Payload<'_>) -> Outcome {
        let full = self.async_queued >= ASYNC_QUEUE_MAX || self.draining.is_some();
        if !full {
            self.async_queued += 1;
            let id = self.run_or_queue(call, event);
            if self.calls.get(id).is_some() {
                self.counters.async_accepted_total += 1;
                return Outcome::Success;
            }
        }
        self.counters.async_refused_total += 1;
        Outcome::Refused(Refused::Busy)
    }

    pub(crate) fn answer_event_refused(&mut self, seat: Seat, request_id: RequestId) {
        let mut text = Vec::new();
        let status = errors::append(&mut text, ErrorCode::TooManyRequests, "event queue is full", None);
        self.answer_error(seat, status, Some(request_id), &text);
    }

    fn on_trigger(
        &mut self,
        seat: Seat,
        (user, function, version): (&[u8], &[u8], Option<&[u8]>),
        head: &Head<'_, '_>,
        body: &Payload<'_>,
    ) {
        let fields = head.headers.iter().map(|field| (field.name.as_bytes(), field.value));
        let given = CallHeaders::classify(fields.clone(), None).request_id;
        let request_id = self.request_id(given);
        let mut buffer: KeyBuffer = [0; KEY_BYTES_MAX];
        let key = trigger_key(user, function, version, &mut buffer);
        let Some((index, _)) = self.functions.find(key) else {
            let mut text = Vec::new();
            let status = errors::append_not_found(&mut text, key);
            return self.answer_error(seat, status, Some(request_id), &text);
        };
        let mut event = Vec::with_capacity(512 + body.as_slice().len());
        let request = TriggerRequest {
            method: head.method_text,
            query: head.query,
            headers: fields,
            body: body.as_slice(),
        };
        append_event(&mut event, request);
        let origin = Origin::Client { connection: seat.connection, sequence: seat.sequence };
        let call = self.new_call(origin, index, request_id, Style::Trigger, Tail::Unwanted, None);
        let id = self.start(call, Payload::Owned(event));
        self.seat(seat, id);
    }

    fn on_control(&mut self, seat: Seat, port: Port, head: &Head<'_, '_>, body: Payload<'_>) {
        let full = self.control_in_flight >= faaster_limits::CONTROL_IN_FLIGHT_MAX;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let request = ControlRequest {
            reply_to: ReplyTo {
                shard: self.id,
                connection: seat.connection.index,
                generation: seat.connection.generation,
                sequence: seat.sequence,
            },
            port,
            method: text(head.method_text),
            target: text(head.target),
            headers: head.headers.iter().map(|field| (field.name.to_owned(), field.value.to_vec())).collect(),
            body: body.into_vec(),
        };
        self.control_in_flight += 1;
        if full || (self.sink)(Notice::Request(request)).is_err() {
            self.control_in_flight -= 1;
            let busy = b"the control API has too many requests under way; try again later";
            self.answer_plain(
                seat.connection,
                seat.sequence,
                faaster_http::Status::SERVICE_UNAVAILABLE,
                busy,
            );
        }
    }

    fn request_id(&mut self, given: Option<&[u8]>) -> RequestId {
        given
            .and_then(RequestId::given)
            .unwrap_or_else(|| RequestId::random(self.random.next(), self.random.next()))
    }

    fn new_call(
        &self,
        origin: Origin,
        function: u32,
        request_id: RequestId,
        style: Style,
        tail: Tail,
        client_context: Option<Vec<u8>>,
    ) -> Call {
        Call {
            origin,
            style,
            tail,
            place: Place::Queued,
            function,
            request_id,
            client_context,
            event: Vec::new(),
            held_bytes: 0,
            credit: Credit::default(),
            arrived_ns: self.now_ns,
            started_ns: 0,
            deadline_ns: 0,
            result: Vec::new(),
            log: Vec::new(),
            cold: None,
        }
    }

    /// Runs a call here if this is its home, else sends it there.
    fn start(&mut self, call: Call, event: Payload<'_>) -> Id<Call> {
        self.counters.invocations_total += 1;
        let home = self.functions.get(call.function).home;
        if home == self.id {
            return self.run_or_queue(call, event);
        }
        self.forward(call, home, event)
    }

    fn forward(&mut self, mut call: Call, home: ShardId, event: Payload<'_>) -> Id<Call> {
        self.counters.invocations_forwarded_total += 1;
        call.place = Place::Forwarded(home);
        let deployed: Arc<Deployed> = self.functions.get(call.function).deployed.clone();
        let mut errand = self.empty_errand();
        errand.key.clear();
        errand.key.extend_from_slice(deployed.key.as_bytes());
        errand.request_id = call.request_id;
        errand.style = call.style;
        errand.tail = call.tail;
        errand.client_context = call.client_context.take();
        errand.arrived_ns = call.arrived_ns;
        match event {
            Payload::Owned(bytes) => errand.payload = bytes,
            Payload::Borrowed(bytes) => {
                errand.payload.clear();
                errand.payload.extend_from_slice(bytes);
            }
        }
        let id = self.calls.insert(call);
        errand.call = id.to_bits();
        if let Err(packet) = self.mailbox.send(home, Packet::Invoke(errand)) {
            self.counters.mailbox_full_total += 1;
            self.keep_errand(packet);
            self.answer(id, Outcome::Refused(Refused::Busy), Payload::Borrowed(b""));
        }
        id
    }

    fn keep_errand(&mut self, packet: Packet) {
        if let Packet::Invoke(errand) | Packet::Answer(errand) = packet
            && self.errands.len() < ERRANDS_KEPT_MAX
        {
            self.errands.push(errand);
        }
    }

    pub(crate) fn empty_errand(&mut self) -> Box<Errand> {
        self.errands.pop().unwrap_or_else(|| {
            Box::new(Errand {
                call: 0,
                key: Vec::new(),
                request_id: RequestId::empty(),
                style: Style::Invoke,
                tail: Tail::Unwanted,
                client_context: None,
                payload: Vec::new(),
                arrived_ns: 0,
                outcome: Outcome::Success,
                run_ns: 0,
                log: Vec::new(),
                cold: None,
            })
        })
    }

    pub(crate) fn on_packet(&mut self, from: ShardId, packet: Packet) {
        match packet {
            Packet::Invoke(errand) => self.on_errand(from, errand),
            Packet::Answer(errand) => self.on_errand_back(errand),
            Packet::Abandon { call, leaving } => {
                let waits = |other: &Call| matches!(other.origin, Origin::Remote { shard, call: id } if shard == from && id == call);
                let found = self.calls.iter().find(|(_, other)| waits(other)).map(|(id, _)| id);
                let Some(id) = found else { return };
                match leaving {
                    Leaving::Gone => self.abandon(id),
                    Leaving::Half if self.waits(id) => {
                        let index = self.calls.get(id).expect("found above").function;
                        self.functions.get_mut(index).queue.retain(|queued| *queued != id);
                        self.counters.invocations_abandoned_total += 1;
                        self.answer(id, Outcome::Refused(Refused::Abandoned), Payload::Borrowed(b""));
                    }
                    Leaving::Half => {}
                }
            }
        }
    }

    /// A call of another shard, at home here.
    fn on_errand(&mut self, from: ShardId, mut errand: Box<Errand>) {
        let origin = match errand.style {
            Style::Event => Origin::Nobody,
            _ => Origin::Remote { shard: from, call: errand.call },
        };
        let found = self.functions.find(&errand.key).map(|(index, _)| index);
        let Some(index) = found else {
            // Removed a moment ago.
            errand.outcome = Outcome::Refused(Refused::Removed);
            errand.payload.clear();
            self.send_packet(from, Packet::Answer(errand));
            return;
        };
        let context = errand.client_context.take();
        let mut call = self.new_call(origin, index, errand.request_id, errand.style, errand.tail, context);
        call.arrived_ns = errand.arrived_ns;
        let event = std::mem::take(&mut errand.payload);
        if errand.style == Style::Event {
            errand.outcome = self.keep_event(call, Payload::Owned(event));
            self.send_packet(from, Packet::Answer(errand));
        } else {
            self.keep_errand(Packet::Invoke(errand));
            self.run_or_queue(call, Payload::Owned(event));
        }
    }

    /// The answer to a call that was sent to its home.
    fn on_errand_back(&mut self, mut errand: Box<Errand>) {
        let id = Id::from_bits(errand.call);
        let (outcome, run_ns) = (errand.outcome, errand.run_ns);
        let (body, log) = (std::mem::take(&mut errand.payload), std::mem::take(&mut errand.log));
        let cold = errand.cold.take();
        self.keep_errand(Packet::Answer(errand));
        if let Some(mut call) = self.forget(id) {
            call.cold = cold;
            self.respond(&call, outcome, Payload::Owned(body), run_ns, &log);
        }
    }

    /// Sends a packet now, or first thing next turn.
    pub(crate) fn send_packet(&mut self, to: ShardId, packet: Packet) {
        if !self.unsent.is_empty() {
            self.unsent.push_back((to, packet));
        } else if let Err(packet) = self.mailbox.send(to, packet) {
            self.counters.mailbox_full_total += 1;
            self.unsent.push_back((to, packet));
        }
    }

    pub(crate) fn send_unsent(&mut self) {
        while let Some((to, packet)) = self.unsent.pop_front() {
            if let Err(packet) = self.mailbox.send(to, packet) {
                self.unsent.push_front((to, packet));
                return;
            }
        }
    }
}

/// The value of `?Qualifier=`, raw.
fn qualifier(query: Option<&[u8]>) -> Option<&[u8]> {
    percent::query_pairs(query?).find(|(name, _)| *name == b"Qualifier").map(|(_, value)| value)
}
