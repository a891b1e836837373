//! One random scenario: which functions, clients, troubles and faults, all from one seed.
//!
//! Owns: the choices. Must not know: how they are played.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use faaster_function::{Deployed, deployed::Concurrency};
use faaster_protocol::funclet::{CodeHash, RuntimeIndex};
use faaster_shard::api::{HealthRule, InstancePlacement, ShardConfig};
use faaster_sys::ring::GroupSize;
use faaster_sys::ring::sim::{Dice, Faults};

use crate::client::{Habits, Leaves, Request};
use crate::funclet::Manner;
use crate::judge::{Asked, Trouble};
use crate::work::{Act, Work};

const ACCOUNT: &str = "df391b08c64c426a81645468c75163a5";
const HASH: &str = "8f6e5a28c663957ea04522547a66d08f";

/// A function of the scenario.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) name: String,
    /// Calls at once in one instance; 0: exclusive.
    pub(crate) quota: u32,
    pub(crate) revision: u64,
}

impl Plan {
    pub(crate) fn key(&self) -> Box<str> {
        format!("{HASH}:{}:1", self.name).into()
    }

    /// The next revision of it.
    pub(crate) fn next(&mut self, dice: &mut Dice, handler: &str) -> Arc<Deployed> {
        self.revision += 1;
        let concurrency = match self.quota {
            0 => Concurrency::Exclusive,
            quota => Concurrency::Shared(quota),
        };
        Arc::new(Deployed {
            key: self.key(),
            brn: format!("brn:cloud:faas:bj:{HASH}:function:{}:1", self.name).into(),
            name: self.name.as_str().into(),
            version: "1".into(),
            owner: ACCOUNT.into(),
            handler: handler.into(),
            runtime: RuntimeIndex(0),
            code: CodeHash([0; 32]),
            commit_id: "c".into(),
            revision: self.revision,
            memory_mb: 128,
            timeout_ms: 1000 * dice.between(1, TIMEOUT_SECS_MAX),
            concurrency,
            instances_max: u32::try_from(dice.between(1, 4)).expect("small"),
            instances_min: 0,
            env: Default::default(),
            function_tag: self.revision,
            account_tag: 1,
            network_mode: None,
            layers: None,
        })
    }
}

const TIMEOUT_SECS_MAX: u64 = 3;
/// Shorter than every function's time-out, so that a call behind a ping that nobody answers ends with it.
pub(crate) const HEALTH_TIMEOUT_NS: u64 = 500_000_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) faults: Faults,
    pub(crate) shards: u16,
    pub(crate) client_buffers: GroupSize,
    pub(crate) instance_buffers: GroupSize,
    pub(crate) plans: Vec<Plan>,
    pub(crate) trouble: Trouble,
    pub(crate) manner: Manner,
    /// Times of redeploys, invalidations and other acts of an operator.
    pub(crate) operator_acts: usize,
    pub(crate) funclet_deaths: usize,
    pub(crate) length_ns: u64,
    pub(crate) clients: usize,
    requests_per_client: u64,
    next_number: u64,
    appetite: Appetite,
}

/// Which results a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Appetite {
    Mixed,
    /// So large that a few fill what may wait for a client.
    Large,
    /// So small that many fit in a buffer.
    Small,
}

impl Scenario {
    pub(crate) fn random(dice: &mut Dice) -> Self {
        let funclet = dice.one_in(4);
        let removals = dice.one_in(6);
        let trouble = Trouble {
            crashes: dice.one_in(3),
            silence: dice.one_in(3),
            hangs: dice.one_in(3),
            funclet,
            bad_versions: dice.one_in(6),
            removals,
            timeout_ns_max: TIMEOUT_SECS_MAX * 1_000_000_000,
            timeout_ns_min: 1_000_000_000,
        };
        let size = |dice: &mut Dice, least: u64, most: u64| GroupSize {
            count: u16::try_from(dice.between(2, 40)).expect("small"),
            bytes: usize::try_from(dice.between(least, most)).expect("small"),
        };
        let faults = if dice.one_in(5) { Faults::NONE } else { Faults::random(dice) };
        let plans = (0..dice.between(1, 3))
            .map(|n| Plan {
                name: format!("fn{n}"),
                quota: if dice.one_in(2) { 0 } else { u32::try_from(dice.between(1, 6)).expect("small") },
                revision: 0,
            })
            .collect();
        Self {
            faults,
            shards: if dice.one_in(3) { 2 } else { 1 },
            client_buffers: size(dice, 200, 4096),
            instance_buffers: size(dice, 1000, 32 * 1024),
            plans,
            trouble,
            manner: Manner {
                refuses: if funclet { 200 } else { 0 },
                slow_ns_max: if dice.one_in(3) { 200_000_000 } else { 5_000_000 },
            },
            operator_acts: if removals || dice.one_in(2) { dice.index(8) } else { 0 },
            funclet_deaths: if funclet { dice.index(3) } else { 0 },
            length_ns: dice.between(10_000_000, 4_000_000_000),
            clients: dice.index(6) + 1,
            requests_per_client: dice.between(1, 30),
            next_number: 0,
            appetite: Appetite::Mixed,
        }
    }

    pub(crate) fn config(&self) -> ShardConfig {
        ShardConfig {
            connections_max: 64,
            default_account: ACCOUNT.into(),
            simple_auth: true,
            http_trigger: true,
            max_runtime_idle: Duration::from_secs(6),
            freeze_after: match self.length_ns % 3 {
                0 => None,
                1 => Some(Duration::from_millis(3)),
                _ => Some(Duration::from_millis(200)),
            },
            health: match self.length_ns % 4 {
                0 => None,
                1 => Some(Duration::from_millis(2)),
                2 => Some(Duration::from_millis(50)),
                _ => Some(Duration::from_millis(700)),
            }
            .map(|interval| HealthRule { interval, timeout: Duration::from_nanos(HEALTH_TIMEOUT_NS) }),
            placement: if self.length_ns.is_multiple_of(2) {
                InstancePlacement::Free
            } else {
                InstancePlacement::HomeCore
            },
            retry_after_secs: 1,
            funclets: 1,
            shards: self.shards,
        }
    }

    /// How the next client behaves; [`Self::requests`] are of its appetite.
    pub(crate) fn habits(&mut self, dice: &mut Dice, start_ns: u64) -> Habits {
        self.appetite = match dice.below(16) {
            0 | 1 => Appetite::Large,
            2 | 3 => Appetite::Small,
            _ => Appetite::Mixed,
        };
        let at_ns = start_ns + dice.below(self.length_ns);
        Habits {
            depth: match dice.below(4) {
                _ if self.appetite == Appetite::Small => 80,
                0 | 1 => 1,
                2 => dice.index(20) + 1,
                _ => 80,
            },
            pause_ns_max: if self.appetite == Appetite::Small {
                0
            } else {
                [0, 1_000, 1_000_000, 100_000_000][dice.index(4)]
            },
            in_pieces: [0, 0, 300, 900][dice.index(4)],
            reads: if dice.one_in(6) { 300 } else { 0 },
            leaves: match dice.below(6) {
                0 => Leaves::At(at_ns),
                1 => Leaves::HalfAt(at_ns),
                _ => Leaves::WhenDone,
            },
        }
    }

    /// What one client will ask, in order.
    pub(crate) fn requests(&mut self, dice: &mut Dice) -> VecDeque<Request> {
        let count = match self.appetite {
            // More than may be unanswered at once.
            Appetite::Small => dice.between(60, 200),
            _ => dice.between(1, self.requests_per_client),
        };
        let mut requests: VecDeque<Request> = (0..count).map(|_| self.request(dice)).collect();
        let no_request = |asked, wire: &[u8]| Request {
            asked,
            wire: wire.to_vec(),
            pause_at: None,
            last: true,
            bodiless: false,
        };
        if dice.one_in(8) {
            requests.push_back(no_request(Asked::Malformed, b"GET / HTTP/1.1\r\nHost : x\r\n\r\n"));
        } else if dice.one_in(20) {
            requests.push_back(no_request(Asked::Unfinished, b"GET / HTTP/1.1\r\nHost: x\r\n"));
        } else if let Some(last) = requests.back_mut()
            && dice.one_in(6)
        {
            close_after(last, dice);
        }
        requests
    }

    fn request(&mut self, dice: &mut Dice) -> Request {
        match dice.below(12) {
            0 => self.control(dice),
            1 => {
                let body = self.work(dice, Act::Echo).event();
                let head = head("absent", "", "x");
                framed(dice, self.appetite, Asked::Missing, &head, &body)
            }
            2 => {
                let mut work = self.work(dice, Act::Echo);
                work.result_bytes = work.result_bytes.min(1000);
                let plan = dice.index(self.plans.len());
                let request_id = format!("event-{}", work.number);
                let head = head(&self.plans[plan].name, "X-easyfaas-Invoke-Type: event\r\n", &request_id);
                framed(dice, self.appetite, Asked::Event { request_id }, &head, &work.event())
            }
            _ => {
                let act = self.act(dice);
                let work = self.work(dice, act);
                let plan = &self.plans[dice.index(self.plans.len())];
                let request_id = format!("call-{}", work.number);
                let tail = if dice.one_in(4) { "Log-Type: Tail\r\n" } else { "" };
                let head = head(&plan.name, tail, &request_id);
                let asked = Asked::Call { work, shared: plan.quota > 0, request_id };
                framed(dice, self.appetite, asked, &head, &work.event())
            }
        }
    }

    fn act(&self, dice: &mut Dice) -> Act {
        let roll = dice.below(40);
        match roll {
            0 | 1 if self.trouble.crashes => [Act::Crash, Act::Garbage, Act::WrongId][dice.index(3)],
            2 if self.trouble.silence => Act::Silent,
            3 | 4 => Act::Fail,
            5 if dice.one_in(10) => Act::TooLarge,
            _ => Act::Echo,
        }
    }

    fn work(&mut self, dice: &mut Dice, act: Act) -> Work {
        self.next_number += 1;
        let size = |dice: &mut Dice| match dice.below(10) {
            0 => dice.index(300_000),
            1 | 2 => dice.index(20_000),
            _ => dice.index(200),
        };
        Work {
            number: self.next_number,
            act,
            result_bytes: match (act, self.appetite) {
                (Act::TooLarge, _) => 7_500_000,
                (_, Appetite::Large) => dice.index(300_000),
                (_, Appetite::Mixed) => size(dice),
                (_, Appetite::Small) => dice.index(20),
            },
            filler_bytes: if self.appetite == Appetite::Small { 0 } else { size(dice) },
            takes_us: match dice.below(4) {
                _ if self.appetite == Appetite::Small => dice.below(20_000),
                0 => dice.below(300_000),
                1 => dice.below(10_000),
                _ => dice.below(200),
            },
        }
    }

    fn control(&mut self, dice: &mut Dice) -> Request {
        self.next_number += 1;
        let target = format!("/v1/status/{}", self.next_number);
        let bodiless = dice.one_in(4);
        let method = if bodiless { "HEAD" } else { "GET" };
        let wire = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
        let target = if bodiless { String::new() } else { target };
        Request { asked: Asked::Control { target }, wire, pause_at: None, last: false, bodiless }
    }
}

fn head(function: &str, more: &str, request_id: &str) -> String {
    format!(
        "POST /v1/functions/brn:cloud:faas:bj:{HASH}:function:{function}:1/invocations HTTP/1.1\r\nHost: x\r\n\
         X-easyfaas-Account-Id: {ACCOUNT}\r\nX-easyfaas-Request-Id: {request_id}\r\n{more}"
    )
}

/// Puts head and body together: with a length, or chunked, or with a pause between them.
fn framed(dice: &mut Dice, appetite: Appetite, asked: Asked, head: &str, body: &[u8]) -> Request {
    let mut wire = head.as_bytes().to_vec();
    // Whoever waits for permission does not pipeline.
    let expects = dice.one_in(10) && appetite != Appetite::Small;
    if expects {
        wire.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    let pause_at;
    if dice.one_in(5) {
        wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        pause_at = wire.len();
        let mut rest = body;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(1 + dice.index(rest.len()));
            wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
            rest = after;
        }
        wire.extend_from_slice(b"0\r\n\r\n");
    } else {
        wire.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        pause_at = wire.len();
        wire.extend_from_slice(body);
    }
    Request { asked, wire, pause_at: expects.then_some(pause_at), last: false, bodiless: false }
}

/// Makes a request the last one of its connection.
fn close_after(request: &mut Request, dice: &mut Dice) {
    let text = String::from_utf8_lossy(&request.wire);
    let line_end = text.find("\r\n").expect("a request line") + 2;
    let chunked = text.contains("Transfer-Encoding");
    if dice.one_in(2) && request.pause_at.is_none() && !chunked {
        // HTTP/1.0: the version's last digit stands before the line's end.
        request.wire[line_end - 3] = b'0';
    } else {
        let addition = b"Connection: close\r\n";
        request.wire.splice(line_end..line_end, addition.iter().copied());
        request.pause_at = request.pause_at.map(|at| at + addition.len());
    }
    request.last = true;
}
