//! The control thread's loop.
//!
//! Owns: who may be served at once, the start and the stop. Must not know: what a request is about.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, Uri};
use faaster_limits::{
    CODE_COLLECT_INTERVAL, CODE_COLLECT_INTERVAL_MIN, CONTROL_HELD_BYTES_MAX, CONTROL_REPORT_TIMEOUT,
    CONTROL_REQUESTS_MAX, DEPLOY_TIMEOUT, WRITE_TIMEOUT,
};
use faaster_shard::api::{ControlReply, ControlRequest, LogChunk, ReplyTo};
use faaster_shard::{Command, Notice, Port, ShardId};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tower::ServiceExt;

use crate::code_room::bring_back;
use crate::code_thread::CodeThread;
use crate::config::{ControlCommand, ControlConfig, Parts};
use crate::deploy::collect_unused;
use crate::funclets::FuncletDesk;
use crate::log_thread::LogThread;
use crate::logs::{Ask, Entry, LogDesk};
use crate::node::{Node, NodeParts, Phase, ask_registry};
use crate::routes;
use crate::shards::ShardSilent;
use crate::stamp::{rfc3339_nano, unix_now};

/// Why the control thread ended.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("cannot start the code thread")]
    CodeThread { source: std::io::Error },
    #[error("cannot start the log thread")]
    LogThread { source: std::io::Error },
    #[error("stored functions cannot be read")]
    Load { source: faaster_store::registry::RegistryError },
    #[error("stored functions did not reach the shards: {0}")]
    Deploy(String),
    #[error("shards are gone")]
    ShardsGone,
}

/// Bytes of a body in one permit of the semaphore that counts them.
const PERMIT_BYTES: usize = 1024;
/// Requests for logs on their way to the loop.
const LOG_ASKS_MAX: usize = 256;

/// Serves until it is told to stop. Runs on a tokio current-thread runtime; every function that is stored is with the
/// shards before `/readyz` says so.
///
/// # Errors
/// The stored functions cannot be loaded, or the shards are gone.
pub async fn run(config: ControlConfig, parts: Parts) -> Result<(), ControlError> {
    let Parts { registry, mut code, runtimes, shards, code_uses, mut notices, mut commands, log } = parts;
    code.limit(config.code_budget_bytes);
    code.watch(code_uses);
    let code_disk = code.counters();
    let code = CodeThread::start(code).map_err(|source| ControlError::CodeThread { source })?;
    let (desk, funclets) = FuncletDesk::new();
    let (phase_setter, phase) = watch::channel(Phase::Loading);
    let (log_asks, mut asked) = mpsc::channel(LOG_ASKS_MAX);
    let node = Arc::new(Node::new(NodeParts {
        config,
        registry,
        code,
        runtimes,
        shards,
        funclets,
        logs: log_asks,
        code_disk,
        phase,
        log,
    }));
    let server = Server::new(node.clone());
    let kept = start_log_thread(&node)?;
    let mut logs = LogDesk::new(u64::try_from(unix_now().as_micros()).unwrap_or_default());
    let (loaded, mut loading) = oneshot::channel();
    let loader = node.clone();
    tokio::spawn(async move { drop(loaded.send(load(&loader).await)) });
    tokio::spawn(collect_forever(Arc::downgrade(&node), collect_interval(node.config.code_idle)));
    tokio::spawn(measure_code(node.clone()));
    let (drained, mut draining) = oneshot::channel();
    let mut orders = Orders { node: node.clone(), desk, phase: phase_setter, drained: Some(drained) };
    let mut is_loading = true;
    loop {
        // A far time stands for never.
        let expiry = logs.next_expiry().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            notice = notices.recv() => match notice {
                Some(Notice::Request(request)) => server.accept(request),
                Some(Notice::Log(chunk)) => keep(&mut logs, kept.as_ref(), chunk),
                Some(Notice::CodeWanted { shard, function }) => {
                    tokio::spawn(bring_back(node.clone(), shard, function));
                }
                Some(Notice::FuncletLost { shard, funclet }) => {
                    (node.log)(&format!("shard {} lost funclet {funclet}; waiting for its restart", shard.0));
                }
                None => return Err(ControlError::ShardsGone),
            },
            Some(ask) = asked.recv() => {
                if let Some(ask) = look_at_the_disk(&node, kept.as_ref(), ask) {
                    logs.ask(ask, Instant::now());
                }
            }
            () = sleep_until(expiry) => logs.expire(Instant::now()),
            result = &mut loading, if is_loading => {
                result.unwrap_or(Err(ControlError::ShardsGone))?;
                is_loading = false;
                orders.loaded();
            }
            Some(command) = commands.recv() => orders.obey(command),
            // While nobody drains, its sender lives in `orders`.
            result = &mut draining => {
                if let Ok(Err(silent)) = result {
                    (node.log)(&format!("not everything was finished within the grace time: {silent}"));
                }
                return Ok(());
            }
        }
    }
}

/// What the engine's main thread can order.
struct Orders {
    node: Arc<Node>,
    desk: FuncletDesk,
    phase: watch::Sender<Phase>,
    drained: Option<oneshot::Sender<Result<Vec<ShardId>, ShardSilent>>>,
}

impl Orders {
    fn loaded(&self) {
        // Not over Stopping, if that came first.
        self.phase.send_if_modified(|phase| {
            let is_first = *phase == Phase::Loading;
            if is_first {
                *phase = Phase::Ready;
            }
            is_first
        });
    }

    fn obey(&mut self, command: ControlCommand) {
        match command {
            ControlCommand::FuncletUp { funclet, channel } => {
                if let Err(error) = self.desk.up(funclet, channel) {
                    (self.node.log)(&format!("channel of funclet {funclet} cannot be watched: {error}"));
                }
            }
            ControlCommand::Stop { grace } => {
                self.phase.send_replace(Phase::Stopping);
                // A second Stop changes nothing: the first one's grace is running.
                if let Some(drained) = self.drained.take() {
                    let node = self.node.clone();
                    tokio::spawn(async move {
                        drop(drained.send(node.shards.ask_all(grace, Command::Drain).await));
                    });
                }
            }
        }
    }
}

/// Sends every stored function to the shards.
async fn load(node: &Node) -> Result<(), ControlError> {
    let records =
        ask_registry(|done| node.registry.all(done)).await.map_err(|source| ControlError::Load { source })?;
    let mut deployable = Vec::with_capacity(records.len());
    for record in records {
        match record.deployed(&node.runtimes) {
            Ok(deployed) => deployable.push(Arc::new(deployed)),
            Err(error) => {
                (node.log)(&format!("{} stays stored and is not served: {error}", record.brn()));
                node.skipped.lock().await.push(record.brn());
            }
        }
    }
    for deployed in deployable {
        let order = node.shards.ask_all(DEPLOY_TIMEOUT, |reply| Command::Deploy(deployed.clone(), reply));
        order.await.map_err(|error| ControlError::Deploy(error.to_string()))?;
    }
    Ok(())
}

/// Finds out what packages take that were there at the start.
async fn measure_code(node: Arc<Node>) {
    // Nobody is left to be told when the code thread is gone.
    if let Ok(Err(error)) = node.code.run(|store| store.measure()).await {
        (node.log)(&format!("packages on disk are not all counted: {error}"));
    }
}

/// Looks for unused code now and then, for as long as the node lives.
async fn collect_forever(node: std::sync::Weak<Node>, interval: Duration) {
    let mut seen = BTreeSet::new();
    loop {
        tokio::time::sleep(interval).await;
        let Some(node) = node.upgrade() else { return };
        collect_unused(&node, &mut seen).await;
        let idle = node.config.code_idle;
        if let Ok(Err(error)) = node.code.run(move |store| store.sweep_idle(idle)).await {
            (node.log)(&format!("code that nobody calls stays for now: {error}"));
        }
    }
}

/// Often enough for the age that code may have.
fn collect_interval(idle: Option<Duration>) -> Duration {
    let half = idle.map_or(CODE_COLLECT_INTERVAL, |idle| idle / 2);
    half.clamp(CODE_COLLECT_INTERVAL_MIN, CODE_COLLECT_INTERVAL)
}

/// `None`: nothing is to be kept on disk.
fn start_log_thread(node: &Arc<Node>) -> Result<Option<LogThread>, ControlError> {
    let (config, counters) = (&node.config, node.log_disk.clone());
    if config.log_budget.bytes == 0 {
        return Ok(None);
    }
    let told = Arc::downgrade(node);
    let complain = move |text: &str| {
        if let Some(node) = told.upgrade() {
            (node.log)(text);
        }
    };
    let thread = LogThread::start(config.data.join("logs"), config.log_budget, counters, complain);
    thread.map(Some).map_err(|source| ControlError::LogThread { source })
}

/// A reader that begins gets what earlier engines kept as well: its question comes back with that. `Some`: it need not.
fn look_at_the_disk(node: &Arc<Node>, kept: Option<&LogThread>, mut ask: Ask) -> Option<Ask> {
    if ask.since > 0 || ask.earlier.is_some() {
        return Some(ask);
    }
    let Some(found) = kept.and_then(|kept| kept.earlier(&ask.function)) else { return Some(ask) };
    let back = node.logs.clone();
    tokio::spawn(async move {
        // A disk that is slow holds nobody up: what is in memory is told without it.
        let found = timeout(CONTROL_REPORT_TIMEOUT, found).await;
        ask.earlier = Some(found.ok().and_then(Result::ok).unwrap_or_default());
        drop(back.send(ask).await);
    });
    None
}

fn keep(logs: &mut LogDesk, kept: Option<&LogThread>, chunk: LogChunk) {
    // The key without its version: one ring for all versions of a function.
    let key = &chunk.function.key;
    let function = key.rsplit_once(':').map_or(&**key, |(function, _)| function).to_owned();
    let entry = Entry {
        cursor: 0,
        time: rfc3339_nano(unix_now()),
        version: chunk.function.version.to_string(),
        request_id: chunk.request_id,
        text: String::from_utf8_lossy(&chunk.text).into_owned(),
    };
    if let Some(kept) = kept {
        kept.keep(&function, &entry);
    }
    logs.append(&function, entry);
}

/// Gives requests to the routers and answers back to the shards.
struct Server {
    node: Arc<Node>,
    controller: Router,
    registry: Router,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Server {
    fn new(node: Arc<Node>) -> Self {
        Self {
            controller: routes::controller(node.clone()),
            registry: routes::registry(node.clone()),
            node,
            requests: Arc::new(Semaphore::new(CONTROL_REQUESTS_MAX)),
            bytes: Arc::new(Semaphore::new(CONTROL_HELD_BYTES_MAX / PERMIT_BYTES)),
        }
    }

    /// Serves a request as a task of its own, or says at once that there are too many.
    fn accept(&self, request: ControlRequest) {
        let router = match request.port {
            Port::Controller => self.controller.clone(),
            Port::Registry => self.registry.clone(),
        };
        let weight = u32::try_from(request.body.len().div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let places =
            (self.requests.clone().try_acquire_owned(), self.bytes.clone().try_acquire_many_owned(weight));
        let node = self.node.clone();
        tokio::spawn(async move {
            let reply_to = request.reply_to;
            let reply = match places {
                (Ok(_request), Ok(_bytes)) => serve(router, request).await,
                _ => busy(reply_to),
            };
            send_reply(&node, reply).await;
        });
    }
}

fn busy(reply_to: ReplyTo) -> ControlReply {
    ControlReply {
        reply_to,
        status: 503,
        headers: vec![
            ("Content-Type".into(), b"text/plain; charset=utf-8".to_vec()),
            ("Retry-After".into(), b"1".to_vec()),
        ],
        body: b"too many control requests are under way; try again later".to_vec(),
    }
}

async fn serve(router: Router, request: ControlRequest) -> ControlReply {
    let reply_to = request.reply_to;
    let (status, headers, body) =
        answer(router, &request.method, &request.target, request.headers, request.body).await;
    ControlReply { reply_to, status, headers, body }
}

/// Headers as they go to the shard.
pub(crate) type Fields = Vec<(String, Vec<u8>)>;

/// One request through a router. HEAD is served as GET: the shard knows to send no body.
pub(crate) async fn answer(
    router: Router,
    method: &str,
    target: &str,
    headers: Fields,
    body: Vec<u8>,
) -> (u16, Fields, Vec<u8>) {
    let method = if method == "HEAD" { "GET" } else { method };
    let (Ok(method), Ok(uri)) = (method.parse::<Method>(), target.parse::<Uri>()) else {
        // The shard's parser lets nothing pass that these do not read, except targets that are no path ("*").
        return (
            404,
            vec![("Content-Type".into(), b"text/plain; charset=utf-8".to_vec())],
            b"Not Found".to_vec(),
        );
    };
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(&value)) {
            request.headers_mut().append(name, value);
        }
    }
    let response = match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (head, body) = response.into_parts();
    // Bodies are made whole by the routes, so there is nothing to wait for.
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let fields = head
        .headers
        .iter()
        // axum adds it, and the shard writes its own.
        .filter(|(name, _)| *name != axum::http::header::CONTENT_LENGTH)
        .map(|(name, value)| (spelled(name), value.as_bytes().to_vec()))
        .collect();
    (head.status.as_u16(), fields, body.into())
}

/// `content-type` as `Content-Type`, as FaaSter writes its headers.
fn spelled(name: &HeaderName) -> String {
    let spelled = faaster_protocol::trigger::canonical_name(name.as_str().as_bytes());
    String::from_utf8_lossy(&spelled).into_owned()
}

/// A shard that does not take an answer for so long has lost its client anyway.
async fn send_reply(node: &Node, reply: ControlReply) {
    let shard = usize::from(reply.reply_to.shard.0);
    let deadline = Instant::now() + WRITE_TIMEOUT;
    let sent = timeout(WRITE_TIMEOUT, node.shards.send(shard, Command::Reply(reply), deadline)).await;
    if !matches!(sent, Ok(Ok(()))) {
        (node.log)(&format!("shard {shard} does not take answers"));
    }
}
