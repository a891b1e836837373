//! The routers in process, with shards and funclets that are only messages; and the loop with its start and stop.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use axum::Router;
use base64::Engine as _;
use faaster_function::code_use::CodeUses;
use faaster_function::runtime::RuntimeKind;
use faaster_function::{AccountId, CallsAtOnce, Deployed, RuntimeSpec};
use faaster_protocol::funclet::{
    Event, Generation, MESSAGE_BYTES, NetworkMode, NodeInfo, PoolInfo, Request, RuntimeIndex, SlotId,
    SlotInfo, SlotState,
};
use faaster_shard::api::{Counters, InstanceReport, Phases, ShardReport};
use faaster_shard::{Command, ShardId};
use faaster_store::log::LogBudget;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use crate::code_thread::CodeThread;
use crate::config::{Access, ControlCommand, ControlConfig, Parts, Store};
use crate::funclets::FuncletDesk;
use crate::logs::{Entry, LogDesk};
use crate::node::{Node, NodeParts, Phase};
use crate::run::answer;
use crate::shards::Shards;
use crate::{deploy, routes};

mod changes;
mod code_room;
mod golden;
mod introspection;
mod layers;
mod looping;

const ACCOUNT: &str = "df391b08c64c426a81645468c75163a5";
const HASH: &str = "8f6e5a28c663957ea04522547a66d08f";
const BCE_HASH: &str = "cd64f99c69d7c404b61de0a4f1865834";
const OTHER: &str = "00000000000000000000000000000000";

/// What the fake shards were told.
#[derive(Debug)]
enum Told {
    Deploy(usize, Arc<Deployed>),
    Remove(usize, String),
    Drain,
}

/// A node without engine: real registry and code, shards that only say yes.
struct Bench {
    runtime: Runtime,
    node: Arc<Node>,
    controller: Router,
    registry: Router,
    told: Receiver<Told>,
    phase: watch::Sender<Phase>,
    funclets: FuncletDesk,
    uses: Arc<CodeUses>,
    data: tempfile::TempDir,
}

/// An answer of a router.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    #[track_caller]
    fn is(self, status: u16, body: &str) -> Self {
        assert_eq!((self.status, self.text()), (status, body));
        self
    }
}

fn spec(name: &str, names: &[&str], default_code: Option<PathBuf>) -> RuntimeSpec {
    RuntimeSpec {
        name: name.into(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        kind: RuntimeKind::Pooled,
        version: "1.2".into(),
        folder: format!("/runtimes/{name}").into(),
        argv: vec![format!("/usr/bin/{name}"), "/var/runtime/bootstrap".into()],
        fork_server: vec![],
        forks: None,
        env: BTreeMap::new(),
        pool: 1,
        default_handler: "index.handler".into(),
        default_code,
        calls: CallsAtOnce::ByQuota,
        rootfs: None,
    }
}

fn runtimes(data: &Path) -> Arc<[RuntimeSpec]> {
    let code = data.join("default-code");
    std::fs::create_dir_all(&code).unwrap();
    std::fs::write(code.join("index.js"), "exports.handler = (e, c, cb) => cb(null, 'Hello world!');")
        .unwrap();
    [
        spec("nodejs", &["nodejs*"], Some(code.clone())),
        spec("python3", &["python3*"], Some(code)),
        spec("bare", &["bare"], None),
    ]
    .into()
}

fn fake_shards(told: Sender<Told>) -> Shards {
    Shards::new(2, move |shard, command| {
        let id = ShardId(u16::try_from(shard).unwrap());
        match command {
            Command::Deploy(deployed, reply) => {
                told.send(Told::Deploy(shard, deployed)).ok();
                reply(id);
            }
            Command::Remove(key, reply) => {
                told.send(Told::Remove(shard, key.into())).ok();
                reply(id);
            }
            Command::Drain(reply) => {
                told.send(Told::Drain).ok();
                reply(id);
            }
            Command::Report(reply) => {
                reply(ShardReport {
                    shard: id,
                    counters: Counters::default(),
                    instances: vec![],
                    queued: vec![],
                });
            }
            Command::Invalidate { reply, .. } => reply(false),
            other => panic!("unexpected {other:?}"),
        }
        Ok(())
    })
}

/// Room for the largest of the tests' packages, and not for two like it.
const CODE_BUDGET_BYTES: u64 = 8_000_000;

fn config(data: &Path, access: Access) -> ControlConfig {
    ControlConfig {
        default_account: AccountId::parse(ACCOUNT).unwrap(),
        access,
        millicpus: 2000,
        funclets: 2,
        log_budget: LogBudget { bytes: 1 << 20, per_function_bytes: 1 << 20 },
        code_budget_bytes: CODE_BUDGET_BYTES,
        code_idle: None,
        version: "0.0.0",
        data: data.to_owned(),
    }
}

impl Bench {
    fn new() -> Self {
        let (sender, told) = channel();
        Self::with(Access::Owner, fake_shards(sender), told)
    }

    fn with(access: Access, shards: Shards, told: Receiver<Told>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let Store { registry, mut code, .. } = Store::open(data.path()).unwrap();
        code.limit(CODE_BUDGET_BYTES);
        let uses = Arc::<CodeUses>::default();
        code.watch(uses.clone());
        let code_disk = code.counters();
        let (funclets, up) = FuncletDesk::new();
        let (phase, seen) = watch::channel(Phase::Ready);
        let (logs, mut asked) = mpsc::channel(8);
        let node = Arc::new(Node::new(NodeParts {
            config: config(data.path(), access),
            registry,
            code: CodeThread::start(code).unwrap(),
            runtimes: runtimes(data.path()),
            shards,
            funclets: up,
            logs,
            code_disk,
            phase: seen,
            log: Box::new(|line| panic!("{line}")),
        }));
        // What the loop does with logs.
        runtime.spawn(async move {
            let mut desk = LogDesk::new(100);
            let entry = |version: &str, text: &str| Entry {
                cursor: 0,
                time: "t".into(),
                version: version.into(),
                request_id: "r".into(),
                text: text.into(),
            };
            desk.append(&format!("{HASH}:f"), entry("1", "one\n"));
            desk.append(&format!("{HASH}:f"), entry("2", "two\n"));
            while let Some(ask) = asked.recv().await {
                desk.ask(ask, tokio::time::Instant::now());
            }
        });
        let (controller, registry) = (routes::controller(node.clone()), routes::registry(node.clone()));
        Self { runtime, node, controller, registry, told, phase, funclets, uses, data }
    }

    fn send(
        &self,
        router: &Router,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        let (status, headers, body) =
            self.runtime.block_on(answer(router.clone(), method, target, headers, body.to_vec()));
        let headers =
            headers.into_iter().map(|(name, value)| (name, String::from_utf8(value).unwrap())).collect();
        Answer { status, headers, body }
    }

    /// A request to the registry's port by the quick start's account.
    fn registry(&self, method: &str, target: &str, body: &str) -> Answer {
        let headers =
            [("Content-Type", "application/json; charset=utf-8"), ("X-easyfaas-Account-Id", ACCOUNT)];
        self.send(&self.registry, method, target, &headers, body.as_bytes())
    }

    /// The same for another account, in the other family's header.
    fn registry_as(&self, account: &str, method: &str, target: &str, body: &str) -> Answer {
        self.send(&self.registry, method, target, &[("X-Bce-Account-Id", account)], body.as_bytes())
    }

    fn controller(&self, method: &str, target: &str) -> Answer {
        self.send(&self.controller, method, target, &[("X-easyfaas-Account-Id", ACCOUNT)], b"")
    }

    #[track_caller]
    fn create(&self, name: &str, body: &str) {
        let answer = self.registry("POST", &format!("/v1/functions/{name}"), body).is(200, "");
        assert!(answer.headers.is_empty(), "{:?}", answer.headers);
    }

    fn told(&self) -> Vec<Told> {
        self.told.try_iter().collect()
    }

    fn code_files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.data.path().join("code"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// A create's body with this index.js.
fn with_code(settings: &str, code: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index.js"), code).unwrap();
    let zip = faaster_store::pack::pack_folder(folder.path()).unwrap();
    format!(r#"{{{settings}"Code":"{}"}}"#, base64::engine::general_purpose::STANDARD.encode(zip))
}
