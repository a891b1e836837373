//! A runtime played by the test: the other end of docs/protocol.md, and its critic.
//!
//! Owns: one container's view of its channel. Panics when the engine breaks the protocol or runs too much at once.
//! Must not know: HTTP, the shard.

use std::collections::{BTreeMap, BTreeSet};

use faaster_protocol::frame::{FLAG_MORE, FrameType, HEADER_BYTES, Header};
use faaster_sys::ring::sim::{Dice, PeerView, SimHandle, WireId};

use crate::work::{Act, Work};

/// What the runtime does by itself, later.
#[derive(Debug, Clone)]
pub(crate) enum RuntimeDeed {
    Ready,
    LoadError,
    Exit(u8),
    Garbage,
    /// Answers the call with this id on the channel.
    Answer(u64, Work),
}

/// Bytes that an answer may have sent before it is granted more.
const CREDIT_BYTES: usize = 256 * 1024;
const PART_BYTES: usize = 64 * 1024;

#[derive(Debug)]
struct Sending {
    id: u64,
    rest: Vec<u8>,
    credit: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) channel: WireId,
    pub(crate) log: WireId,
    pub(crate) slot: u32,
    pub(crate) shard: usize,
    pub(crate) alive: bool,
    /// Its processes are stopped.
    pub(crate) frozen: bool,
    /// Some of these stop answering for good.
    may_hang: bool,
    input: Vec<u8>,
    /// Calls at once; `None` before `load`.
    quota: Option<usize>,
    /// Events that have not come whole.
    partial: BTreeMap<u64, Vec<u8>>,
    in_flight: BTreeSet<u64>,
    seen: BTreeSet<u64>,
    sending: Vec<Sending>,
    shut_down: bool,
    /// It promised to answer pings.
    answers_pings: bool,
    /// It hangs since then.
    deaf_since_ns: Option<u64>,
}

impl Runtime {
    pub(crate) fn new(channel: WireId, log: WireId, slot: u32, shard: usize, may_hang: bool) -> Self {
        Self {
            channel,
            log,
            slot,
            shard,
            alive: true,
            frozen: false,
            may_hang,
            input: Vec::new(),
            quota: None,
            partial: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            seen: BTreeSet::new(),
            sending: Vec::new(),
            shut_down: false,
            answers_pings: false,
            deaf_since_ns: None,
        }
    }

    /// Takes what the engine sent. Appends what will follow, each with its delay in nanoseconds.
    pub(crate) fn poll(
        &mut self,
        sim: &SimHandle,
        dice: &mut Dice,
        later: &mut Vec<(u64, RuntimeDeed)>,
    ) -> bool {
        if !self.alive || self.frozen || self.deaf_since_ns.is_some() {
            return false;
        }
        let new = sim.take(self.channel, usize::MAX);
        let progressed = !new.is_empty();
        self.input.extend(new);
        let mut at = 0;
        while let Some(header) = Header::decode(&self.input[at..]).expect("the engine sends whole frames") {
            let total = HEADER_BYTES + header.payload_bytes();
            if self.input.len() - at < total {
                break;
            }
            let meta_end = at + HEADER_BYTES + header.meta_bytes as usize;
            let meta = self.input[at + HEADER_BYTES..meta_end].to_vec();
            let body = self.input[meta_end..at + total].to_vec();
            at += total;
            self.on_frame(sim, dice, &header, &meta, &body, later);
        }
        self.input.drain(..at);
        self.go_on_sending(sim);
        if sim.peer_view(self.channel) != PeerView::Open && !self.shut_down {
            self.shut_down = true;
            later.push((dice.below(1_000_000), RuntimeDeed::Exit(0)));
            return true;
        }
        progressed
    }

    fn on_frame(
        &mut self,
        sim: &SimHandle,
        dice: &mut Dice,
        header: &Header,
        meta: &[u8],
        body: &[u8],
        later: &mut Vec<(u64, RuntimeDeed)>,
    ) {
        let id = header.invocation;
        match header.kind {
            FrameType::Load => self.on_load(sim, dice, meta, later),
            FrameType::Invoke => {
                let quota = self.quota.expect("a call comes after ready");
                assert!(id != 0 && self.seen.insert(id), "call ids are used once on a channel");
                self.in_flight.insert(id);
                assert!(
                    self.in_flight.len() <= quota,
                    "{} calls at once, {quota} allowed",
                    self.in_flight.len()
                );
                assert!(header.deadline_ns > sim.now_ns(), "a call that is late when it comes");
                let meta: serde_json::Value = serde_json::from_slice(meta).expect("meta is JSON");
                assert!(meta["requestId"].is_string(), "{meta}");
                self.on_event(header, body, later);
            }
            FrameType::RequestPart => {
                assert!(self.partial.contains_key(&id), "a part of an event that is complete");
                self.on_event(header, body, later);
            }
            FrameType::Window => {
                assert!(header.credit_bytes > 0 && self.seen.contains(&id));
                if let Some(sending) = self.sending.iter_mut().find(|sending| sending.id == id) {
                    sending.credit += header.credit_bytes as usize;
                }
            }
            FrameType::Cancel => {
                assert!(self.quota != Some(1), "an exclusive instance gets no cancel");
                if dice.one_in(2) {
                    // It stops: nothing more is heard of the call.
                    self.sending.retain(|sending| sending.id != id);
                    self.in_flight.remove(&id);
                }
            }
            FrameType::Ping => {
                assert!(self.answers_pings, "a ping for a runtime that promised nothing");
                assert!(self.in_flight.is_empty() && !self.shut_down, "a ping for a busy runtime");
                if self.may_hang && dice.one_in(6) {
                    self.deaf_since_ns = Some(sim.now_ns());
                } else {
                    sim.send(self.channel, &frame(FrameType::Pong, 0, 0, b"", b""));
                }
            }
            FrameType::Shutdown => {
                self.shut_down = true;
                // Some runtimes do not care and have to be killed.
                if !dice.one_in(4) {
                    later.push((dice.below(100_000_000), RuntimeDeed::Exit(0)));
                }
            }
            other => panic!("{other:?} does not go to a runtime"),
        }
    }

    fn on_load(
        &mut self,
        sim: &SimHandle,
        dice: &mut Dice,
        meta: &[u8],
        later: &mut Vec<(u64, RuntimeDeed)>,
    ) {
        assert!(self.quota.is_none(), "one load for each process");
        let meta: serde_json::Value = serde_json::from_slice(meta).expect("meta is JSON");
        let concurrency = meta["concurrency"].as_u64().expect("load says how many");
        self.quota = Some(usize::try_from(concurrency.max(1)).expect("small"));
        if dice.one_in(2) {
            sim.send(self.channel, &frame(FrameType::Hello, 0, 0, b"{\"protocol\":1}", b""));
        }
        let delay_ns = dice.below(3_000_000);
        match meta["handler"].as_str().expect("load names the handler") {
            "throws" => {
                later.push((delay_ns, RuntimeDeed::LoadError));
                later.push((delay_ns + 1000, RuntimeDeed::Exit(1)));
            }
            "crashes" => later.push((delay_ns, RuntimeDeed::Exit(3))),
            "babbles" => later.push((delay_ns, RuntimeDeed::Garbage)),
            "hangs" => {}
            _ => later.push((delay_ns, RuntimeDeed::Ready)),
        }
    }

    fn on_event(&mut self, header: &Header, body: &[u8], later: &mut Vec<(u64, RuntimeDeed)>) {
        let id = header.invocation;
        let event = self.partial.entry(id).or_default();
        event.extend_from_slice(body);
        if header.has_more() {
            return;
        }
        let event = self.partial.remove(&id).expect("entered above");
        let work = Work::parse(&event);
        let takes_ns = work.takes_us * 1000;
        later.push(match work.act {
            Act::Silent => return,
            Act::Crash => (takes_ns, RuntimeDeed::Exit(7)),
            Act::Garbage => (takes_ns, RuntimeDeed::Garbage),
            Act::WrongId => (takes_ns, RuntimeDeed::Answer(id ^ 1 << 40, work)),
            Act::Echo | Act::Fail | Act::TooLarge => (takes_ns, RuntimeDeed::Answer(id, work)),
        });
    }

    /// Whether it has been hanging for longer than that.
    pub(crate) fn hangs_longer_than(&self, limit_ns: u64, now_ns: u64) -> bool {
        self.alive && self.deaf_since_ns.is_some_and(|since_ns| now_ns > since_ns + limit_ns)
    }

    /// Does what was announced. The exit code, if that was its end.
    pub(crate) fn perform(&mut self, sim: &SimHandle, dice: &mut Dice, deed: RuntimeDeed) -> Option<u8> {
        if !self.alive || self.deaf_since_ns.is_some() {
            return None;
        }
        match deed {
            RuntimeDeed::Ready => {
                self.answers_pings = !dice.one_in(4);
                let meta: &[u8] = if self.answers_pings { br#"{"features":["ping"]}"# } else { b"" };
                sim.send(self.channel, &frame(FrameType::Ready, 0, 0, meta, b""));
            }
            RuntimeDeed::LoadError => {
                let error = b"{\"errorMessage\":\"no such handler\"}";
                sim.send(self.channel, &frame(FrameType::Error, 0, 0, b"", error));
            }
            RuntimeDeed::Garbage => sim.send(self.channel, &[0x55; 70]),
            RuntimeDeed::Exit(code) => {
                self.die(sim);
                return Some(code);
            }
            RuntimeDeed::Answer(id, work) => self.answer(sim, dice, id, &work),
        }
        None
    }

    fn answer(&mut self, sim: &SimHandle, dice: &mut Dice, id: u64, work: &Work) {
        let known = self.in_flight.contains(&id);
        if !known && work.act != Act::WrongId {
            // It was stopped by a cancel.
            return;
        }
        if dice.one_in(3) {
            let line = format!("call {} says hello\n", work.number);
            if self.quota == Some(1) {
                sim.send(self.log, line.as_bytes());
            } else if known {
                sim.send(self.channel, &frame(FrameType::Log, id, 0, b"", line.as_bytes()));
            }
        }
        let result = work.result();
        match work.act {
            Act::Fail => {
                self.in_flight.remove(&id);
                sim.send(self.channel, &frame(FrameType::Error, id, 0, b"", &result));
            }
            _ if result.len() <= CREDIT_BYTES => {
                self.in_flight.remove(&id);
                sim.send(self.channel, &frame(FrameType::Response, id, 0, b"", &result));
            }
            _ => {
                self.sending.push(Sending { id, rest: result, credit: CREDIT_BYTES });
                self.go_on_sending(sim);
            }
        }
    }

    fn go_on_sending(&mut self, sim: &SimHandle) {
        for sending in &mut self.sending {
            loop {
                let part = sending.rest.len().min(PART_BYTES);
                if part == 0 || sending.credit < part {
                    break;
                }
                sending.credit -= part;
                let body: Vec<u8> = sending.rest.drain(..part).collect();
                let more = if sending.rest.is_empty() { 0 } else { FLAG_MORE };
                sim.send(self.channel, &frame(FrameType::Response, sending.id, more, b"", &body));
            }
            if sending.rest.is_empty() {
                self.in_flight.remove(&sending.id);
            }
        }
        self.sending.retain(|sending| !sending.rest.is_empty());
    }

    /// Ends the process: its descriptors close.
    pub(crate) fn die(&mut self, sim: &SimHandle) {
        if self.alive {
            self.alive = false;
            sim.close(self.channel);
            sim.shutdown(self.log);
        }
    }
}

fn frame(kind: FrameType, id: u64, flags: u16, meta: &[u8], body: &[u8]) -> Vec<u8> {
    let mut header = Header::new(kind, id);
    header.flags = flags;
    header.meta_bytes = u32::try_from(meta.len()).expect("small");
    header.body_bytes = u32::try_from(body.len()).expect("small");
    [&header.encode()[..], meta, body].concat()
}
