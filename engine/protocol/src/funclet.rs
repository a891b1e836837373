//! Messages between the engine and a funclet: fixed size, one per `SOCK_SEQPACKET` record.
//!
//! Owns: their layout and the checks that hold for any sender. Must not know: what a funclet does about them.
//! Descriptors travel beside a message with `SCM_RIGHTS`; each message says how many there are and in which order.
//! The engine is not trusted: a funclet checks every number again against its own bounds.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes of every message, both ways.
pub const MESSAGE_BYTES: usize = 192;

/// Position of a container's slot in its funclet's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// How often the slot has been used; a message about an earlier life is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Generation(pub u32);

/// The engine's number for a claim under way; unique per channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// Index into the node's list of runtimes, which engine and funclet were both started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuntimeIndex(pub u16);

/// SHA-256 of a code package.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CodeHash(pub [u8; 32]);

impl fmt::Display for CodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeHash({self})")
    }
}

/// Which core an instance may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// All cores that the node may use.
    Free,
    /// This one: the core of the instance's home shard.
    Core(u16),
}

/// What a function may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// Itself.
    None,
    /// The world; not private ranges, not this host and its networks, not other containers.
    Egress,
    /// These as well, but never other containers, link-local addresses, and the engine.
    Full,
}

impl NetworkMode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Egress, Self::Full];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Egress => "egress",
            Self::Full => "full",
        }
    }

    /// The mode of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

/// The least memory of a function is what the node's ledger counts in.
const LEDGER_UNIT_MB: u32 = faaster_limits::MEMORY_MB_MIN;

/// MiB that a function takes of the node's ledger: whole containers of the base size, as many as its memory needs.
/// FaaSter merges so many of its equal containers for it.
pub fn ledger_mb(memory_mb: u32) -> u32 {
    memory_mb.div_ceil(LEDGER_UNIT_MB).saturating_mul(LEDGER_UNIT_MB)
}

/// What the engine wants to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub ticket: Ticket,
    pub runtime: RuntimeIndex,
    pub placement: Placement,
    pub code: CodeHash,
    /// Same for all functions of one account; a slot's network is reused within one account only.
    pub account_tag: u64,
    /// Same for all instances of one deployed function version; comes back in [`SlotInfo`].
    pub function_tag: u64,
    pub memory_mb: u32,
    pub pids_max: u32,
    pub tmp_mb: u32,
    /// After this, in ns of `CLOCK_MONOTONIC`, the claim is of no use any more.
    pub deadline_ns: u64,
    /// `None`: the node's default.
    pub network: Option<NetworkMode>,
    /// What is mounted at /opt.
    pub layers: Option<CodeHash>,
}

/// What a container is to have after its function's memory was edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub memory_mb: u32,
    pub tmp_mb: u32,
    /// See [`Claim::function_tag`]: the edited function has another one.
    pub function_tag: u64,
}

/// Engine to funclet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Make a container run this code. Answer: [`Event::Claimed`] or [`Event::Refused`].
    Claim(Claim),
    /// Nobody wants this claim any more; if it is still waiting it is refused with [`Refusal::Cancelled`].
    CancelClaim { ticket: Ticket },
    /// End the container, whole tree, at once. Answer: [`Event::Ended`].
    Kill { slot: SlotId, generation: Generation },
    /// Let the container run elsewhere.
    Place { slot: SlotId, generation: Generation, placement: Placement },
    /// Describe everything: [`Event::Slot`] each, [`Event::Pool`] each, then [`Event::Node`].
    Describe,
    /// Stop every process of an idle container. Answer: [`Event::Frozen`], or [`Event::Thawed`] where it cannot be.
    Freeze { slot: SlotId, generation: Generation },
    /// Let them go on. Answer: [`Event::Thawed`].
    Thaw { slot: SlotId, generation: Generation },
    /// The container's function has another memory from now on. Answer: none, or [`Event::NotResized`].
    Resize { slot: SlotId, generation: Generation, size: Size },
}

/// Why a claim could not be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Refusal {
    /// The ledger has no memory left for it, and no idle instance made room in time.
    Memory = 1,
    /// All slots are in use.
    Slots = 2,
    /// The runtime's interpreter could not be booted.
    Boot = 3,
    /// There is no such code directory, or it is not what it should be.
    Code = 4,
    /// A number of the claim is out of its bounds.
    Invalid = 5,
    /// More claims per second than the bound.
    Rate = 6,
    /// Its deadline passed while it waited.
    Deadline = 7,
    /// The engine took it back.
    Cancelled = 8,
    /// A system call failed; the errno says which way.
    System = 9,
}

impl Refusal {
    fn from_wire(value: u16) -> Option<Self> {
        use Refusal as R;
        [R::Memory, R::Slots, R::Boot, R::Code, R::Invalid, R::Rate, R::Deadline, R::Cancelled, R::System]
            .into_iter()
            .find(|refusal| *refusal as u16 == value)
    }
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The runtime exited by itself with this code.
    Exited(u8),
    /// A signal ended the runtime, not on our demand.
    Signalled(u8),
    /// The kernel killed for memory.
    OutOfMemory,
    /// Killed on the engine's demand.
    Killed,
}

/// State of a slot's container, under DESIGN section 6's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SlotState {
    Creating = 1,
    Cold = 2,
    Warming = 3,
    Warm = 4,
    Frozen = 5,
    Draining = 6,
    Dead = 7,
}

impl SlotState {
    fn from_wire(value: u8) -> Option<Self> {
        use SlotState as S;
        [S::Creating, S::Cold, S::Warming, S::Warm, S::Frozen, S::Draining, S::Dead]
            .into_iter()
            .find(|state| *state as u8 == value)
    }
}

/// One slot, for introspection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotInfo {
    pub slot: SlotId,
    pub generation: Generation,
    pub state: SlotState,
    pub runtime: RuntimeIndex,
    pub function_tag: u64,
    pub account_tag: u64,
    /// Host process id of the container's init.
    pub pid: u32,
    pub memory_mb: u32,
    pub memory_used_bytes: u64,
    pub cpu_used_us: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub created_ns: u64,
    pub claimed_ns: u64,
}

/// A funclet's part of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeInfo {
    /// Memory of the node's part, bytes, before overcommit.
    pub memory_capacity_bytes: u64,
    /// What may be promised to functions, bytes: capacity x overcommit.
    pub memory_allocatable_bytes: u64,
    /// Promised to claimed containers, bytes.
    pub memory_used_bytes: u64,
    /// Promised to claims that are under way, bytes.
    pub memory_marked_bytes: u64,
    pub slots_total: u32,
    pub slots_cold: u32,
    pub slots_claimed: u32,
    pub slots_quarantined: u32,
    pub claims_total: u64,
    pub claims_refused_total: u64,
    /// Requests about containers that were gone, or another engine's.
    pub requests_ignored_total: u64,
}

/// Prepared containers of one runtime, for introspection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolInfo {
    pub runtime: RuntimeIndex,
    /// Kept whatever happens.
    pub floor: u32,
    /// To be kept now: demand raises it, quiet lowers it.
    pub target: u32,
    /// Claimable.
    pub cold: u32,
    /// Being made.
    pub creating: u32,
}

/// Funclet to engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The container runs and its runtime will take a `load` frame.
    /// Descriptors: \[channel (AF_UNIX stream, docs/protocol.md), log pipe (standard output and error), and, where the
    /// kernel has one, the cgroup file with the peak of its memory (read-only)\].
    Claimed {
        ticket: Ticket,
        slot: SlotId,
        generation: Generation,
        pid: u32,
        source: ClaimSource,
        /// Microseconds from the claim's arrival to this message.
        claim_us: u32,
        /// Of it: mounting code and writing limits.
        attach_us: u32,
    },
    Refused {
        ticket: Ticket,
        refusal: Refusal,
        errno: u16,
    },
    /// Sent once for every claimed container.
    Ended {
        slot: SlotId,
        generation: Generation,
        end: End,
        memory_peak_bytes: u64,
        memory_limit_bytes: u64,
        cpu_used_us: u64,
    },
    /// Claims are waiting for this much memory, or prepared containers need it to be claimed: end idle instances.
    Shortage {
        memory_mb: u32,
    },
    Slot(SlotInfo),
    Node(NodeInfo),
    Pool(PoolInfo),
    /// No process of the container runs.
    Frozen {
        slot: SlotId,
        generation: Generation,
    },
    /// Its processes run.
    Thawed {
        slot: SlotId,
        generation: Generation,
    },
    /// The container keeps the limits that it has: it uses more than the new ones allow, or the node has no more to give.
    NotResized {
        slot: SlotId,
        generation: Generation,
    },
}

/// Where a claimed container came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ClaimSource {
    /// Prepared and booted before.
    Pool = 1,
    /// Made for this claim: the pool was empty.
    Fresh = 2,
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("message has {0} bytes instead of 192")]
    Size(usize),
    #[error("message kind {0} is unknown")]
    Kind(u8),
    #[error("field {0} of the message holds a value that does not exist")]
    Field(&'static str),
}

struct Writer {
    bytes: [u8; MESSAGE_BYTES],
    at: usize,
}

impl Writer {
    fn new(kind: u8) -> Self {
        let mut writer = Self { bytes: [0; MESSAGE_BYTES], at: 0 };
        writer.put(&[kind]);
        writer
    }
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        self
    }
    fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }
    fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }
    fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }
    fn network(&mut self, mode: Option<NetworkMode>) -> &mut Self {
        self.put(&[match mode {
            None => 0,
            Some(NetworkMode::None) => 1,
            Some(NetworkMode::Egress) => 2,
            Some(NetworkMode::Full) => 3,
        }])
    }
    fn package(&mut self, package: Option<CodeHash>) -> &mut Self {
        match package {
            None => self.put(&[0]),
            Some(hash) => self.put(&[1]).put(&hash.0),
        }
    }
    fn placement(&mut self, placement: Placement) -> &mut Self {
        self.u16(match placement {
            Placement::Free => u16::MAX,
            Placement::Core(core) => core,
        })
    }
}

struct Reader<'a> {
    bytes: &'a [u8; MESSAGE_BYTES],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes[self.at..self.at + N]);
        self.at += N;
        out
    }
    fn u8(&mut self) -> u8 {
        self.take::<1>()[0]
    }
    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
    fn slot(&mut self) -> (SlotId, Generation) {
        (SlotId(self.u32()), Generation(self.u32()))
    }
    fn network(&mut self) -> Result<Option<NetworkMode>, MessageError> {
        Ok(match self.u8() {
            0 => None,
            1 => Some(NetworkMode::None),
            2 => Some(NetworkMode::Egress),
            3 => Some(NetworkMode::Full),
            _ => return Err(MessageError::Field("network")),
        })
    }
    fn package(&mut self) -> Result<Option<CodeHash>, MessageError> {
        match self.u8() {
            0 => Ok(None),
            1 => Ok(Some(CodeHash(self.take()))),
            _ => Err(MessageError::Field("layers")),
        }
    }
    fn placement(&mut self) -> Placement {
        match self.u16() {
            u16::MAX => Placement::Free,
            core => Placement::Core(core),
        }
    }
}

fn sized(bytes: &[u8]) -> Result<&[u8; MESSAGE_BYTES], MessageError> {
    bytes.try_into().map_err(|_| MessageError::Size(bytes.len()))
}

impl Request {
    pub fn encode(&self) -> [u8; MESSAGE_BYTES] {
        match self {
            Self::Claim(claim) => {
                let mut w = Writer::new(1);
                w.u64(claim.ticket.0).u16(claim.runtime.0).placement(claim.placement).put(&claim.code.0);
                w.u64(claim.account_tag).u64(claim.function_tag).u32(claim.memory_mb).u32(claim.pids_max);
                w.u32(claim.tmp_mb).u64(claim.deadline_ns).network(claim.network).package(claim.layers);
                w.bytes
            }
            Self::CancelClaim { ticket } => Writer::new(2).u64(ticket.0).bytes,
            Self::Kill { slot, generation } => Writer::new(3).u32(slot.0).u32(generation.0).bytes,
            Self::Place { slot, generation, placement } => {
                Writer::new(4).u32(slot.0).u32(generation.0).placement(*placement).bytes
            }
            Self::Describe => Writer::new(5).bytes,
            Self::Freeze { slot, generation } => Writer::new(6).u32(slot.0).u32(generation.0).bytes,
            Self::Thaw { slot, generation } => Writer::new(7).u32(slot.0).u32(generation.0).bytes,
            Self::Resize { slot, generation, size } => {
                let mut w = Writer::new(8);
                w.u32(slot.0).u32(generation.0).u32(size.memory_mb).u32(size.tmp_mb).u64(size.function_tag);
                w.bytes
            }
        }
    }

    /// # Errors
    /// What about the bytes is no message of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut r = Reader { bytes: sized(bytes)?, at: 0 };
        Ok(match r.u8() {
            1 => Self::Claim(Claim {
                ticket: Ticket(r.u64()),
                runtime: RuntimeIndex(r.u16()),
                placement: r.placement(),
                code: CodeHash(r.take()),
                account_tag: r.u64(),
                function_tag: r.u64(),
                memory_mb: r.u32(),
                pids_max: r.u32(),
                tmp_mb: r.u32(),
                deadline_ns: r.u64(),
                network: r.network()?,
                layers: r.package()?,
            }),
            2 => Self::CancelClaim { ticket: Ticket(r.u64()) },
            3 => {
                let (slot, generation) = r.slot();
                Self::Kill { slot, generation }
            }
            4 => {
                let (slot, generation) = r.slot();
                Self::Place { slot, generation, placement: r.placement() }
            }
            5 => Self::Describe,
            6 => {
                let (slot, generation) = r.slot();
                Self::Freeze { slot, generation }
            }
            7 => {
                let (slot, generation) = r.slot();
                Self::Thaw { slot, generation }
            }
            8 => {
                let (slot, generation) = r.slot();
                let size = Size { memory_mb: r.u32(), tmp_mb: r.u32(), function_tag: r.u64() };
                Self::Resize { slot, generation, size }
            }
            kind => return Err(MessageError::Kind(kind)),
        })
    }
}

impl Event {
    pub fn encode(&self) -> [u8; MESSAGE_BYTES] {
        match self {
            Self::Claimed { ticket, slot, generation, pid, source, claim_us, attach_us } => {
                let mut w = Writer::new(1);
                w.u64(ticket.0).u32(slot.0).u32(generation.0).u32(*pid).put(&[*source as u8]);
                w.u32(*claim_us).u32(*attach_us);
                w.bytes
            }
            Self::Refused { ticket, refusal, errno } => {
                Writer::new(2).u64(ticket.0).u16(*refusal as u16).u16(*errno).bytes
            }
            Self::Ended { slot, generation, end, memory_peak_bytes, memory_limit_bytes, cpu_used_us } => {
                let (kind, value) = match end {
                    End::Exited(code) => (1, *code),
                    End::Signalled(signal) => (2, *signal),
                    End::OutOfMemory => (3, 0),
                    End::Killed => (4, 0),
                };
                let mut w = Writer::new(3);
                w.u32(slot.0).u32(generation.0).put(&[kind, value]);
                w.u64(*memory_peak_bytes).u64(*memory_limit_bytes).u64(*cpu_used_us);
                w.bytes
            }
            Self::Shortage { memory_mb } => Writer::new(4).u32(*memory_mb).bytes,
            Self::Slot(info) => {
                let mut w = Writer::new(5);
                w.u32(info.slot.0).u32(info.generation.0).put(&[info.state as u8]).u16(info.runtime.0);
                w.u64(info.function_tag).u64(info.account_tag).u32(info.pid).u32(info.memory_mb);
                w.u64(info.memory_used_bytes).u64(info.cpu_used_us).u64(info.created_ns).u64(info.claimed_ns);
                w.bytes
            }
            Self::Node(node) => {
                let mut w = Writer::new(6);
                w.u64(node.memory_capacity_bytes).u64(node.memory_allocatable_bytes);
                w.u64(node.memory_used_bytes).u64(node.memory_marked_bytes);
                w.u32(node.slots_total)
                    .u32(node.slots_cold)
                    .u32(node.slots_claimed)
                    .u32(node.slots_quarantined);
                w.u64(node.claims_total).u64(node.claims_refused_total).u64(node.requests_ignored_total);
                w.bytes
            }
            Self::Frozen { slot, generation } => Writer::new(7).u32(slot.0).u32(generation.0).bytes,
            Self::Thawed { slot, generation } => Writer::new(8).u32(slot.0).u32(generation.0).bytes,
            Self::Pool(pool) => {
                let mut w = Writer::new(9);
                w.u16(pool.runtime.0).u32(pool.floor).u32(pool.target).u32(pool.cold).u32(pool.creating);
                w.bytes
            }
            Self::NotResized { slot, generation } => Writer::new(10).u32(slot.0).u32(generation.0).bytes,
        }
    }

    /// # Errors
    /// What about the bytes is no message of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut r = Reader { bytes: sized(bytes)?, at: 0 };
        Ok(match r.u8() {
            1 => {
                let ticket = Ticket(r.u64());
                let (slot, generation) = r.slot();
                let pid = r.u32();
                let source = match r.u8() {
                    1 => ClaimSource::Pool,
                    2 => ClaimSource::Fresh,
                    _ => return Err(MessageError::Field("source")),
                };
                Self::Claimed { ticket, slot, generation, pid, source, claim_us: r.u32(), attach_us: r.u32() }
            }
            2 => Self::Refused {
                ticket: Ticket(r.u64()),
                refusal: Refusal::from_wire(r.u16()).ok_or(MessageError::Field("refusal"))?,
                errno: r.u16(),
            },
            3 => {
                let (slot, generation) = r.slot();
                let end = match (r.u8(), r.u8()) {
                    (1, code) => End::Exited(code),
                    (2, signal) => End::Signalled(signal),
                    (3, _) => End::OutOfMemory,
                    (4, _) => End::Killed,
                    _ => return Err(MessageError::Field("end")),
                };
                Self::Ended {
                    slot,
                    generation,
                    end,
                    memory_peak_bytes: r.u64(),
                    memory_limit_bytes: r.u64(),
                    cpu_used_us: r.u64(),
                }
            }
            4 => Self::Shortage { memory_mb: r.u32() },
            5 => {
                let (slot, generation) = r.slot();
                Self::Slot(SlotInfo {
                    slot,
                    generation,
                    state: SlotState::from_wire(r.u8()).ok_or(MessageError::Field("state"))?,
                    runtime: RuntimeIndex(r.u16()),
                    function_tag: r.u64(),
                    account_tag: r.u64(),
                    pid: r.u32(),
                    memory_mb: r.u32(),
                    memory_used_bytes: r.u64(),
                    cpu_used_us: r.u64(),
                    created_ns: r.u64(),
                    claimed_ns: r.u64(),
                })
            }
            6 => Self::Node(NodeInfo {
                memory_capacity_bytes: r.u64(),
                memory_allocatable_bytes: r.u64(),
                memory_used_bytes: r.u64(),
                memory_marked_bytes: r.u64(),
                slots_total: r.u32(),
                slots_cold: r.u32(),
                slots_claimed: r.u32(),
                slots_quarantined: r.u32(),
                claims_total: r.u64(),
                claims_refused_total: r.u64(),
                requests_ignored_total: r.u64(),
            }),
            7 => {
                let (slot, generation) = r.slot();
                Self::Frozen { slot, generation }
            }
            8 => {
                let (slot, generation) = r.slot();
                Self::Thawed { slot, generation }
            }
            9 => Self::Pool(PoolInfo {
                runtime: RuntimeIndex(r.u16()),
                floor: r.u32(),
                target: r.u32(),
                cold: r.u32(),
                creating: r.u32(),
            }),
            10 => {
                let (slot, generation) = r.slot();
                Self::NotResized { slot, generation }
            }
            kind => return Err(MessageError::Kind(kind)),
        })
    }
}

/// Supervisor to engine or funclet, on the link that the process is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkMessage {
    /// New channels to the peer (to an engine: funclet `peer`; to a funclet: the engine, `peer` 0).
    /// Descriptors: one `SOCK_SEQPACKET` socket for each shard, then one for the control thread.
    Channels { peer: u16, count: u16 },
    /// Finish what is in flight within this time, then exit with code 0.
    Stop { grace_ms: u32 },
}

impl LinkMessage {
    pub fn encode(&self) -> [u8; MESSAGE_BYTES] {
        match self {
            Self::Channels { peer, count } => Writer::new(1).u16(*peer).u16(*count).bytes,
            Self::Stop { grace_ms } => Writer::new(2).u32(*grace_ms).bytes,
        }
    }

    /// # Errors
    /// What about the bytes is no message of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut r = Reader { bytes: sized(bytes)?, at: 0 };
        Ok(match r.u8() {
            1 => Self::Channels { peer: r.u16(), count: r.u16() },
            2 => Self::Stop { grace_ms: r.u32() },
            kind => return Err(MessageError::Kind(kind)),
        })
    }
}

#[cfg(test)]
#[path = "funclet_tests.rs"]
mod tests;
