//! The controller's port (8001) without its calls: health, introspection, logs.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::routing::{MethodRouter, get, post};
use faaster_function::reference::Qualifier;
use faaster_limits::{CONTROL_REPORT_TIMEOUT, LOG_POLL_MAX};
use faaster_protocol::funclet::{Generation, SlotId, SlotState};
use faaster_shard::Command;
use faaster_shard::api::ShardReport;
use tokio::sync::oneshot;

use super::allow;
use super::answer::{Reply, empty, forbidden, json, later, text};
use super::registry::{named, parameter};
use crate::config::Access;
use crate::funclets::{Question, describe_all, describe_every};
use crate::logs;
use crate::node::{Node, Phase};
use crate::overview::{self, Facts, parse_runtime_id};
use crate::stamp::unix_now;
use crate::view::to_json;

type Shared = State<Arc<Node>>;

pub(super) fn router() -> Router<Arc<Node>> {
    const READ: &str = "GET, HEAD, OPTIONS";
    Router::new()
        .route("/healthz", allow(get(healthz), READ))
        .route("/readyz", allow(get(readyz), READ))
        .route("/v1/runtimes", allow(get(runtimes), READ))
        .route("/v1/resource", allow(get(resource), READ))
        .route("/v1/runtimes/{id}/invalidate", allow(post(invalidate), "OPTIONS, POST"))
        .route("/v1/instances", allow(get(instances), READ))
        .route("/v1/node", allow(get(node_view), READ))
        .route("/v1/functions/{name}/logs", allow(get(read_logs), READ))
        // The shards take the calls; what comes here has another method.
        .route("/v1/functions/{name}/invocations", allow(MethodRouter::new(), "OPTIONS, POST"))
}

async fn healthz() -> Reply {
    text(200, "hello controller")
}

async fn readyz(State(node): Shared) -> Reply {
    let phase = *node.phase.borrow();
    match phase {
        Phase::Ready => text(200, "ready"),
        Phase::Loading => later("engine is loading its functions"),
        Phase::Stopping => later("engine is stopping"),
    }
}

/// What shards and funclets say, at one moment.
struct Snapshot {
    reports: Vec<ShardReport>,
    funclets: std::collections::BTreeMap<u16, crate::funclets::Description>,
    abnormal: std::collections::BTreeSet<(u16, u32, u32)>,
    now: Duration,
    now_ns: u64,
}

impl Snapshot {
    async fn take(node: &Node) -> Result<Self, Reply> {
        let known = node.funclets.borrow().clone();
        let (reports, funclets) = tokio::join!(node.shards.reports(), describe_all(known));
        let reports = reports.map_err(|error| later(&error.to_string()))?;
        let clock = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let since_boot = Duration::try_from(clock).unwrap_or_default();
        Ok(Self {
            reports,
            funclets,
            abnormal: node.abnormal.lock().await.clone(),
            now: unix_now(),
            now_ns: u64::try_from(since_boot.as_nanos()).unwrap_or(u64::MAX),
        })
    }

    fn facts<'a>(&'a self, node: &'a Node) -> Facts<'a> {
        Facts {
            reports: &self.reports,
            funclets: &self.funclets,
            runtimes: &node.runtimes,
            abnormal: &self.abnormal,
            now: self.now,
            now_ns: self.now_ns,
        }
    }
}

async fn runtimes(State(node): Shared) -> Reply {
    match Snapshot::take(&node).await {
        Ok(snapshot) => text(200, to_json(&snapshot.facts(&node).runtimes())),
        Err(reply) => reply,
    }
}

async fn resource(State(node): Shared) -> Reply {
    // Half of the node would be a wrong answer.
    let Some(funclets) = describe_every(&node.funclets, usize::from(node.config.funclets)).await else {
        return later("a funclet did not answer; it may be starting");
    };
    text(200, to_json(&overview::resource(node.config.millicpus, &funclets)))
}

async fn instances(State(node): Shared) -> Reply {
    match Snapshot::take(&node).await {
        Ok(snapshot) => {
            let instances = snapshot.facts(&node).instances();
            json(to_json(&serde_json::json!({ "Instances": instances })))
        }
        Err(reply) => reply,
    }
}

async fn invalidate(State(node): Shared, Path(id): Path<String>) -> Reply {
    // FaaSter says it twice.
    let unknown = || text(404, format!("can not find runtime {id}can not find runtime {id}"));
    let Some((funclet, slot)) = parse_runtime_id(&id) else { return unknown() };
    let snapshot = match Snapshot::take(&node).await {
        Ok(snapshot) => snapshot,
        Err(reply) => return reply,
    };
    let Some((generation, state)) = snapshot.facts(&node).find(funclet, slot) else { return unknown() };
    let order = |reply| Command::Invalidate { funclet, slot, reply };
    let had = match node.shards.ask_all(CONTROL_REPORT_TIMEOUT, order).await {
        Ok(answers) => answers.contains(&true),
        Err(error) => return later(&error.to_string()),
    };
    if !had && state == Some(SlotState::Cold) {
        // In the pool: nobody runs in it, so it may end at once. A funclet that is busy keeps it; no harm is done.
        let questions = node.funclets.borrow().get(&funclet).cloned();
        if let Some(questions) = questions {
            drop(questions.try_send(Question::Kill(SlotId(slot), Generation(generation))));
        }
    }
    let mut abnormal = node.abnormal.lock().await;
    // Containers that are gone are forgotten here, so the set stays as small as the node.
    let there = |entry: &(u16, u32, u32)| {
        snapshot.facts(&node).find(entry.0, entry.1).is_some_and(|f| f.0 == entry.2)
    };
    abnormal.retain(there);
    abnormal.insert((funclet, slot, generation));
    empty(200)
}

async fn node_view(State(node): Shared) -> Reply {
    let snapshot = match Snapshot::take(&node).await {
        Ok(snapshot) => snapshot,
        Err(reply) => return reply,
    };
    let phase = *node.phase.borrow();
    let shards: Vec<_> = snapshot.reports.iter().map(overview::shard).collect();
    let funclets: Vec<_> = snapshot
        .funclets
        .iter()
        .map(|(index, description)| overview::funclet(*index, description, &node.runtimes))
        .collect();
    let runtimes: Vec<_> = node.runtimes.iter().map(overview::runtime).collect();
    let skipped = node.skipped.lock().await.clone();
    json(to_json(&serde_json::json!({
        "NodeID": node.registry.node_id(),
        "Version": node.config.version,
        "Phase": match phase {
            Phase::Loading => "loading",
            Phase::Ready => "ready",
            Phase::Stopping => "stopping",
        },
        "UptimeSeconds": node.started.elapsed().as_secs(),
        "DefaultAccount": node.config.default_account.as_str(),
        "Shards": shards,
        "Funclets": funclets,
        "Runtimes": runtimes,
        "LogDisk": node.log_disk.view(node.config.log_budget),
        "CodeDisk": {
            "Bytes": node.code_disk.held_bytes(),
            "BudgetBytes": node.config.code_budget_bytes,
            "RefusedTotal": node.code_disk.refused_total(),
            "EvictedTotal": node.code_disk.evicted_total(),
            "UnpackedAgainTotal": node.code_disk.unpacked_again_total(),
            "InstancesEndedTotal": node.code_disk.instances_ended_total(),
        },
        // Stored functions whose runtime this node does not have.
        "SkippedFunctions": skipped,
    })))
}

/// `?since=<cursor>` shows what is new; `&wait=<seconds>` waits for it. `?Qualifier=` narrows to one version.
async fn read_logs(
    State(node): Shared,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Reply {
    let query = query.as_deref();
    let (caller, reference) = match named(&node, &headers, &name, query) {
        Ok(named) => named,
        Err(error) => return error.reply(400),
    };
    if node.config.access == Access::Owner && reference.account != caller.hash() {
        return forbidden(reference.account.as_str(), caller.as_str());
    }
    let number = |name: &str| parameter(query, name).map_or(Ok(0), |text| text.parse::<u64>());
    let (Ok(since), Ok(wait)) = (number("since"), number("wait")) else {
        return text(400, "since and wait must be whole numbers");
    };
    let wait = Duration::from_secs(wait).min(LOG_POLL_MAX);
    let (reply, answer) = oneshot::channel();
    let function = format!("{}:{}", reference.account, reference.name);
    let version = reference.qualifier.as_ref().map(|qualifier| Qualifier::as_str(qualifier).to_owned());
    let ask = logs::Ask { function, version, since, wait, earlier: None, reply };
    if node.logs.try_send(ask).is_err() {
        return later("too many requests for logs are waiting");
    }
    match answer.await {
        Ok(lines) => json(to_json(&serde_json::json!({
            "Cursor": lines.cursor.to_string(),
            "Entries": lines.entries,
            "Gap": lines.gap,
        }))),
        Err(_) => later("engine is stopping"),
    }
}
