//! What comes back from the kernel, and what follows from it.
//!
//! Owns: nothing of its own; it is the half of [`Worker`] that deals with one connection at a time.
//! Must not know: the schedule.

use faaster_sys::ring::{Armed, Completion, Group, Lease, Received, Ring};
use rustix::io::Errno;

use super::connection::{Event, Flight, Listed, Phase, position, token};
use super::window::nanoseconds;
use super::{SWEEP_MAX, Worker};
use crate::bounds::{RECONNECT_PAUSE, TICK};
use crate::plan::{Loop, Phases};
use crate::request::KeepAlive;
use crate::response::{Answer, Persistence};
use crate::tally::Failure;

/// A server that said it would close is waited for this long.
const ENDING_PATIENCE_NS: u64 = 1_000_000_000;

/// What kind of failure an errno of a socket is; `received` says whether the connection ever brought anything.
fn failure_of(errno: Errno, received_bytes: u64) -> Failure {
    match errno {
        Errno::CONNREFUSED
        | Errno::TIMEDOUT
        | Errno::HOSTUNREACH
        | Errno::NETUNREACH
        | Errno::ADDRNOTAVAIL
        | Errno::NOTCONN
            if received_bytes == 0 =>
        {
            Failure::Connect
        }
        _ => Failure::Reset,
    }
}

impl Worker {
    /// Hands owed requests to the kernel.
    pub(super) fn flush(&mut self, now_ns: u64) {
        if !self.to_send.is_empty() {
            self.sent_at_ns = now_ns;
        }
        let mut to_send = std::mem::take(&mut self.to_send);
        for index in to_send.drain(..) {
            self.connections[index as usize].listed = Listed::No;
            self.write(index, now_ns);
        }
        self.to_send = to_send;
    }

    fn write(&mut self, index: u32, now_ns: u64) {
        let connection = &mut self.connections[index as usize];
        let (Some(sock), true) = (connection.sock, connection.owed > 0) else { return };
        // While the kernel has the buffer, the requests wait for its return.
        let Some(mut buffer) = connection.out.take() else { return };
        let begin = connection.flights.len() - connection.owed;
        connection.flights.range_mut(begin..).for_each(|flight| flight.sent_ns = now_ns);
        connection.out_from = self.writer.fill(&mut buffer, connection.owed, self.plan.pipeline);
        connection.owed = 0;
        self.ring.send(sock, buffer, connection.out_from, token(index, connection.generation));
    }

    pub(super) fn handle(&mut self, completion: Completion, now_ns: u64) {
        match completion {
            Completion::Received { token, received, armed } => match position(token, &self.connections) {
                Some(index) => self.on_received(index, received, armed, now_ns),
                None => {
                    if let Received::Data(lease) = received {
                        self.ring.give_back(lease);
                    }
                }
            },
            Completion::Sent { token, result, buffer } => {
                if let Some(index) = position(token, &self.connections) {
                    self.on_sent(index, result, buffer, now_ns);
                }
            }
            Completion::Accepted { .. } | Completion::Message { .. } | Completion::Rung { .. } => {
                unreachable!("a client asks for none of these")
            }
        }
    }

    fn on_sent(&mut self, index: u32, result: Result<usize, Errno>, buffer: Vec<u8>, now_ns: u64) {
        let connection = &mut self.connections[index as usize];
        let sent = match result {
            Ok(sent) => sent,
            // A server that answers and closes without reading on still has its answer on the way.
            Err(_) if connection.phase == Phase::Ending => return connection.out = Some(buffer),
            Err(errno) => {
                let failure = failure_of(errno, connection.received_bytes);
                connection.out = Some(buffer);
                return self.lose(index, failure, now_ns);
            }
        };
        if self.window.holds(now_ns) {
            self.tally.bytes_sent += sent as u64;
        }
        connection.out_from += sent;
        if connection.out_from < buffer.len() {
            let sock = connection.sock.expect("a present token means that there is a socket");
            self.ring.send(sock, buffer, connection.out_from, token(index, connection.generation));
            return;
        }
        connection.out = Some(buffer);
        self.write(index, now_ns);
    }

    fn on_received(&mut self, index: u32, received: Received, armed: Armed, now_ns: u64) {
        let generation = self.connections[index as usize].generation;
        match received {
            Received::Data(lease) => {
                self.on_data(index, &lease, now_ns);
                self.ring.give_back(lease);
            }
            Received::End => return self.on_end(index, now_ns),
            // All buffers are given back within the turn, so asking again will find some.
            Received::Failed(Errno::NOBUFS) => {}
            Received::Failed(errno) => {
                let failure = failure_of(errno, self.connections[index as usize].received_bytes);
                return self.lose(index, failure, now_ns);
            }
        }
        let connection = &self.connections[index as usize];
        if armed == Armed::No
            && let Some(sock) = connection.sock
            && connection.generation == generation
        {
            self.ring.receive(sock, Group::Client, token(index, generation));
        }
    }

    fn on_data(&mut self, index: u32, lease: &Lease, now_ns: u64) {
        if self.window.holds(now_ns) {
            self.tally.bytes_received += lease.len() as u64;
        }
        let mut rest: &[u8] = lease;
        self.connections[index as usize].received_bytes += rest.len() as u64;
        while !rest.is_empty() {
            let connection = &mut self.connections[index as usize];
            if connection.phase != Phase::Open {
                return;
            }
            if connection.flights.is_empty() {
                // Bytes that nobody asked for: whatever comes next would be taken for the wrong answer.
                return self.lose(index, Failure::Parse, now_ns);
            }
            let (check, expected) = (&mut connection.check, self.plan.expectation.body.as_deref());
            let fed = connection.parser.feed(rest, &mut |data| {
                if let Some(expected) = expected {
                    check.take(expected, data);
                }
            });
            match fed {
                Ok(fed) => {
                    rest = &rest[fed.consumed..];
                    if let Some(answer) = fed.answer {
                        self.on_answer(index, &answer, now_ns);
                    }
                }
                Err(_) => return self.lose(index, Failure::Parse, now_ns),
            }
        }
    }

    fn on_answer(&mut self, index: u32, answer: &Answer, now_ns: u64) {
        let connection = &mut self.connections[index as usize];
        let flight = connection.flights.pop_front().expect("an answer is only read while a request waits");
        self.in_flight -= 1;
        let expectation = &self.plan.expectation;
        let body_is_right = expectation.body.as_deref().is_none_or(|body| connection.check.finish(body));
        let outcome = if !expectation.takes(answer) {
            Err(Failure::Status)
        } else if expectation.sees_function_error(answer) {
            Err(Failure::Function)
        } else if !body_is_right {
            Err(Failure::Body)
        } else {
            Ok(())
        };
        if self.plan.phases == Phases::Read {
            let phases = self.connections[index as usize].parser.take_phases();
            if outcome.is_ok() && self.counts(&flight, now_ns) {
                self.tally.record_phases(phases, now_ns.saturating_sub(flight.sent_ns));
            }
        }
        self.record(flight, outcome, now_ns);
        if answer.persistence == Persistence::Close {
            let connection = &mut self.connections[index as usize];
            connection.meet(Event::LastAnswer);
            connection.ending_since_ns = now_ns;
            // Those pipelined behind it will not be answered.
            self.fail_flights(index, Failure::Closed, now_ns);
        } else if self.plan.keep_alive == KeepAlive::Off {
            // It was asked to close and does not say that it will: nothing would come of waiting.
            self.lose(index, Failure::Closed, now_ns);
        }
        self.free_slot(index, now_ns);
    }

    fn on_end(&mut self, index: u32, now_ns: u64) {
        let connection = &mut self.connections[index as usize];
        if connection.phase == Phase::Open
            && let Ok(Some(answer)) = connection.parser.end()
        {
            self.on_answer(index, &answer, now_ns);
        }
        self.lose(index, Failure::Closed, now_ns);
    }

    fn fail_flights(&mut self, index: u32, failure: Failure, now_ns: u64) {
        self.writer.unclaim(self.connections[index as usize].owed);
        while let Some(flight) = self.connections[index as usize].flights.pop_front() {
            self.in_flight -= 1;
            self.record(flight, Err(failure), now_ns);
            self.free_slot(index, now_ns);
        }
        self.connections[index as usize].owed = 0;
    }

    /// Closes a connection; what it had not answered has failed.
    pub(super) fn lose(&mut self, index: u32, failure: Failure, now_ns: u64) {
        let connection = &mut self.connections[index as usize];
        let sock = connection.sock.take().expect("only a connection with a socket is lost");
        self.ring.close(sock);
        connection.meet(Event::Lost);
        if failure == Failure::Connect {
            // Left alone for a while, so that a server that is gone is not stormed.
            connection.meet(Event::Refused);
            let until_ns = now_ns + nanoseconds(RECONNECT_PAUSE);
            self.paused.push_back((until_ns, index));
            self.chore_at_ns = self.chore_at_ns.min(until_ns);
        }
        self.fail_flights(index, failure, now_ns);
        self.unpark_if_usable(index, now_ns);
    }

    fn unpark_if_usable(&mut self, index: u32, now_ns: u64) {
        if self.connections[index as usize].phase == Phase::Closed {
            self.unpark(index, now_ns);
        }
    }

    /// Whether a request that ends now is among those measured. A closed loop is cut where its time ends; what was due
    /// in an open one counts whenever it comes.
    fn counts(&self, flight: &Flight, now_ns: u64) -> bool {
        let timed = self.window.stop_ns.is_some();
        let cut = self.plan.drive == Loop::Closed && timed;
        self.window.holds(if cut { now_ns } else { flight.intended_ns })
    }

    /// Counts a request that ended.
    pub(super) fn record(&mut self, flight: Flight, outcome: Result<(), Failure>, now_ns: u64) {
        let closed = self.plan.drive == Loop::Closed;
        let in_window = self.window.holds(now_ns);
        self.tally.completed_in_window += u64::from(in_window && outcome.is_ok());
        if !self.counts(&flight, now_ns) {
            return;
        }
        self.effort.last_done_ns = now_ns;
        let (mut intended, mut sent) =
            (now_ns.saturating_sub(flight.intended_ns), now_ns.saturating_sub(flight.sent_ns));
        match outcome {
            Ok(()) => self.tally.succeeded += 1,
            Err(failure) => {
                // A quick failure must not look like a quick answer.
                let timeout_ns = nanoseconds(self.plan.timeout);
                (intended, sent) = (intended.max(timeout_ns), sent.max(timeout_ns));
                self.tally.failed[failure as usize] += 1;
            }
        }
        self.tally.record((!closed).then_some(intended), sent);
    }

    /// Ends what has waited too long, a part of the connections at a time.
    pub(super) fn sweep(&mut self, now_ns: u64) {
        let count = self.connections.len();
        let timeout_ns = nanoseconds(self.plan.timeout);
        for _ in 0..count.min(SWEEP_MAX) {
            self.swept = (self.swept + 1) % count;
            let index = u32::try_from(self.swept).expect("bounded far below");
            let connection = &self.connections[self.swept];
            let oldest = connection.flights.front().map(|flight| flight.sent_ns + timeout_ns);
            match connection.phase {
                Phase::Open if oldest.is_some_and(|at| at <= now_ns) => {
                    // What is sent on a connection that does not stand yet, the kernel keeps.
                    let connecting = connection.out.is_none() && connection.received_bytes == 0;
                    let failure = if connecting { Failure::Connect } else { Failure::Timeout };
                    self.lose(index, failure, now_ns);
                }
                Phase::Ending if connection.ending_since_ns + ENDING_PATIENCE_NS <= now_ns => {
                    self.lose(index, Failure::Closed, now_ns);
                }
                _ => {}
            }
        }
    }
}

const _: () = assert!(TICK.as_nanos() < ENDING_PATIENCE_NS as u128);
