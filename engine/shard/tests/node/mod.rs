//! A shard on a simulated ring without faults, driven by hand: for tests of one thing at a time.
//!
//! Owns: the shard, the clock, one funclet's channel. Must not know: what a test wants to see.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use faaster_function::code_use::CodeUses;
use faaster_protocol::frame::{FrameType, HEADER_BYTES, Header};
use faaster_protocol::funclet::{ClaimSource, Event, Generation, Request, SlotId};
use faaster_shard::api::{HealthRule, InstancePlacement, ShardConfig};
use faaster_shard::audit::Audit;
use faaster_shard::{Command, CommandSender, Notice, Parts, Port, Shard, ShardId, network};
use faaster_sys::ring::sim::{Faults, PeerView, RingId, Sim, SimHandle, WireId};
use faaster_sys::ring::{GroupSize, Ring};

use crate::play::ACCOUNT;

/// See the module.
pub(crate) struct Node {
    pub(crate) sim: SimHandle,
    shard: Shard<Sim>,
    ring: RingId,
    listener: WireId,
    pub(crate) commands: CommandSender,
    pub(crate) notices: mpsc::Receiver<Notice>,
    #[allow(dead_code, reason = "not every test looks at it")]
    pub(crate) code_uses: Arc<CodeUses>,
    funclet: WireId,
    slots: u32,
}

/// A frame that the engine sent.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: Header,
    #[allow(dead_code, reason = "not every test looks at it")]
    pub(crate) meta: String,
    pub(crate) body: Vec<u8>,
}

/// A runtime's end of its channel.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) channel: WireId,
    input: Vec<u8>,
}

/// What came back on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(None)
    }

    pub(crate) fn with(health: Option<HealthRule>) -> Self {
        let sim = SimHandle::new(1, Faults::NONE);
        let buffers = GroupSize { count: 64, bytes: 4096 };
        let mut ring = sim.ring(buffers, GroupSize { bytes: 32 * 1024, ..buffers });
        let id = ring.id();
        let (listener, descriptor) = sim.listener();
        let listeners = vec![(ring.adopt(descriptor), Port::Controller)];
        let (mut ends, mut senders) = network(1).expect("a test has descriptors left");
        let (mailbox, commands) = (ends.remove(0), senders.remove(0));
        let bell = ring.adopt(mailbox.bell().expect("a test has descriptors left"));
        let (notice_in, notices) = mpsc::channel();
        let config = ShardConfig {
            connections_max: 64,
            default_account: ACCOUNT.into(),
            simple_auth: true,
            http_trigger: true,
            max_runtime_idle: Duration::from_secs(60),
            freeze_after: Some(Duration::from_secs(20)),
            health,
            placement: InstancePlacement::Free,
            retry_after_secs: 7,
            funclets: 1,
            shards: 1,
        };
        let sink = Box::new(move |notice| notice_in.send(notice).map_err(|back| back.0));
        let code_uses = Arc::<CodeUses>::default();
        let parts = Parts {
            id: ShardId(0),
            core: 0,
            config,
            mailbox,
            sink,
            code_uses: code_uses.clone(),
            seed: [1, 2],
        };
        let mut shard = Shard::new(ring, parts, listeners, bell);
        shard.begin();
        let (funclet, channel) = sim.records();
        assert!(commands.send(Command::FuncletUp { funclet: 0, channel }).is_ok());
        let mut node =
            Self { sim, shard, ring: id, listener, commands, notices, code_uses, funclet, slots: 0 };
        node.settle();
        node
    }

    /// Lets the shard do all it can do now.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            let due = self.sim.is_due(self.ring) || self.shard.next_wait() == Some(Duration::ZERO);
            if !due {
                return;
            }
            self.shard.turn(Some(Duration::ZERO)).expect("a simulated ring does not fail");
        }
        panic!("the shard is in a busy loop");
    }

    /// Lets simulated time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until_ns = self.sim.now_ns() + u64::try_from(time.as_nanos()).expect("short");
        loop {
            self.settle();
            let wait = self
                .shard
                .next_wait()
                .map_or(u64::MAX, |wait| u64::try_from(wait.as_nanos()).expect("short"));
            let next_ns = self.sim.now_ns().saturating_add(wait);
            if next_ns > until_ns {
                self.sim.advance_to(until_ns);
                self.settle();
                return;
            }
            self.sim.advance_to(next_ns);
        }
    }

    pub(crate) fn audit(&self) -> Audit {
        let audit = self.shard.audit();
        assert!(audit.contradictions.is_empty(), "{:?}", audit.contradictions);
        audit
    }

    pub(crate) fn command(&mut self, command: Command) {
        assert!(self.commands.send(command).is_ok());
        self.settle();
    }

    pub(crate) fn connect(&mut self) -> WireId {
        let client = self.sim.connect(self.listener);
        self.settle();
        client
    }

    pub(crate) fn send(&mut self, wire: WireId, bytes: &[u8]) {
        self.sim.send(wire, bytes);
        self.settle();
    }

    /// All that came back on a connection; `bodiless`: answers have no body (HEAD).
    pub(crate) fn answers(&mut self, client: WireId, bodiless: bool) -> VecDeque<Answer> {
        self.settle();
        let mut bytes = Vec::new();
        loop {
            let more = self.sim.take(client, usize::MAX);
            if more.is_empty() {
                break;
            }
            bytes.extend(more);
            self.settle();
        }
        let mut answers = VecDeque::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let head_end = rest.windows(4).position(|window| window == b"\r\n\r\n").expect("whole heads") + 4;
            let head = String::from_utf8(rest[..head_end].to_vec()).expect("heads are text");
            let status: u16 = head[9..12].parse().expect("a status");
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let length: usize = length.map_or(0, |length| length.parse().expect("a number"));
            let length = if bodiless { 0 } else { length };
            let body = rest[head_end..head_end + length].to_vec();
            rest = &rest[head_end + length..];
            answers.push_back(Answer { status, head, body });
        }
        answers
    }

    /// The only answer that came back.
    pub(crate) fn answer(&mut self, client: WireId) -> Answer {
        let mut answers = self.answers(client, false);
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0).expect("just counted")
    }

    pub(crate) fn is_closed(&self, client: WireId) -> bool {
        self.sim.peer_view(client) != PeerView::Open
    }

    // --- The other side ------------------------------------------------------------------------------------------

    pub(crate) fn next_request(&mut self) -> Option<Request> {
        self.settle();
        let record = self.sim.take_record(self.funclet)?;
        Some(Request::decode(&record).expect("the engine sends whole requests"))
    }

    /// Says something as the funclet.
    pub(crate) fn tell(&mut self, event: &Event, descriptors: Vec<OwnedFd>) {
        self.sim.send_record(self.funclet, &event.encode(), descriptors);
        self.settle();
    }

    /// Serves the one claim that waits: the instance has its load frame and has said nothing.
    pub(crate) fn serve(&mut self) -> Instance {
        let Some(Request::Claim(claim)) = self.next_request() else { panic!("a claim was expected") };
        self.slots += 1;
        let (channel, engine_channel) = self.sim.stream();
        let (_, engine_log) = self.sim.pipe();
        let event = Event::Claimed {
            ticket: claim.ticket,
            slot: SlotId(self.slots),
            generation: Generation(1),
            pid: 1,
            source: ClaimSource::Pool,
            claim_us: 1,
            attach_us: 1,
        };
        self.tell(&event, vec![engine_channel, engine_log]);
        let mut instance = Instance { channel, input: Vec::new() };
        let load = self.frame(&mut instance).expect("a load frame");
        assert_eq!(load.header.kind, FrameType::Load);
        instance
    }

    /// Serves the one claim that waits, up to ready.
    pub(crate) fn start(&mut self) -> Instance {
        let instance = self.serve();
        self.say(&instance, FrameType::Ready, 0, b"");
        instance
    }

    /// The next frame that the engine sent to an instance.
    pub(crate) fn frame(&mut self, instance: &mut Instance) -> Option<Frame> {
        self.settle();
        instance.input.extend(self.sim.take(instance.channel, usize::MAX));
        let header = Header::decode(&instance.input).expect("whole frames")?;
        let total = HEADER_BYTES + header.payload_bytes();
        assert!(instance.input.len() >= total, "whole frames");
        let rest = instance.input.split_off(total);
        let frame = std::mem::replace(&mut instance.input, rest);
        let (meta, body) = frame[HEADER_BYTES..].split_at(header.meta_bytes as usize);
        let meta = String::from_utf8(meta.to_vec()).expect("meta objects are text");
        Some(Frame { header, meta, body: body.to_vec() })
    }

    /// The next frame, which must be a call; its id and event.
    pub(crate) fn call(&mut self, instance: &mut Instance) -> (u64, Vec<u8>) {
        let frame = self.frame(instance).expect("a call");
        assert_eq!(frame.header.kind, FrameType::Invoke);
        (frame.header.invocation, frame.body)
    }

    pub(crate) fn say(&mut self, instance: &Instance, kind: FrameType, id: u64, body: &[u8]) {
        self.say_with(instance, kind, 0, id, body);
    }

    pub(crate) fn say_with(
        &mut self,
        instance: &Instance,
        kind: FrameType,
        flags: u16,
        id: u64,
        body: &[u8],
    ) {
        let mut header = Header::new(kind, id);
        header.flags = flags;
        header.body_bytes = u32::try_from(body.len()).expect("small");
        self.send(instance.channel, &[&header.encode()[..], body].concat());
    }
}
