//! Room for code on disk: code that calls wait for is unpacked again, and instances without a call end where it takes that.
//!
//! Owns: whose instances end, and how long room is waited for. Must not know: which packages go (the store's), how an
//! instance ends (its shard's).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use faaster_function::Deployed;
use faaster_function::code_use::CodeLease;
use faaster_limits::{
    CODE_ROOM_POLL, CODE_ROOM_RETRY, CODE_ROOM_TIMEOUT, CONTROL_REPORT_TIMEOUT, DEPLOY_TIMEOUT,
};
use faaster_protocol::funclet::CodeHash;
use faaster_shard::api::{CodeAbsent, InstanceReport, ShardReport};
use faaster_shard::{Command, ShardId};
use faaster_store::CodeStore;
use faaster_store::code::{CodeError, Resting};
use tokio::time::{Instant, sleep};

use crate::deploy::ChangeError;
use crate::node::Node;

/// Serves a shard whose calls wait for a function's code.
pub(crate) async fn bring_back(node: Arc<Node>, shard: ShardId, function: Arc<Deployed>) {
    let found = find(&node, &function).await;
    let command = Command::Code(function, found);
    let sent = node.shards.send(usize::from(shard.0), command, Instant::now() + DEPLOY_TIMEOUT).await;
    if sent.is_err() {
        (node.log)(&format!("shard {} does not take news of code", shard.0));
    }
}

async fn find(node: &Node, function: &Deployed) -> Result<CodeLease, CodeAbsent> {
    // As long as the first of its calls may wait.
    let patience = Duration::from_millis(function.timeout_ms);
    let deadline = Instant::now() + patience;
    let (code, layers) = (function.code, function.layers);
    loop {
        match node.code.run(move |store| store.bring_back(code, layers)).await {
            Ok(Ok(lease)) => return Ok(lease),
            Ok(Err(CodeError::OverBudget { needed_bytes, .. })) => {
                if !make_room(node, needed_bytes, deadline).await {
                    node.code_disk.refused();
                    return Err(CodeAbsent::NoRoom);
                }
            }
            Ok(Err(error)) => {
                (node.log)(&format!("code of {} cannot be unpacked again: {error}", function.key));
                return Err(CodeAbsent::Missing);
            }
            // The engine is stopping.
            Err(_) => return Err(CodeAbsent::Missing),
        }
        if Instant::now() >= deadline {
            return Err(CodeAbsent::NoRoom);
        }
    }
}

/// Does a client's job; if code finds no room on disk, once more after room was made. What the job did before it failed must
/// not matter to the second try.
pub(crate) async fn upload<T: Send + 'static>(
    node: &Node,
    job: impl Fn(&mut CodeStore) -> Result<T, ChangeError> + Send + Sync + 'static,
) -> Result<T, ChangeError> {
    let job = Arc::new(job);
    let deadline = Instant::now() + CODE_ROOM_TIMEOUT;
    loop {
        let again = job.clone();
        match node.code.upload(move |store| again(store)).await? {
            Err(ChangeError::Code(error @ CodeError::OverBudget { .. })) => {
                let CodeError::OverBudget { needed_bytes, .. } = error else { return Err(error.into()) };
                // Whoever uploads hears at once that everything is in use.
                let made = make_room(node, needed_bytes, Instant::now()).await;
                if !made || Instant::now() >= deadline {
                    node.code_disk.refused();
                    return Err(error.into());
                }
            }
            result => return result,
        }
    }
}

/// Ends instances that have no call until code of so many bytes finds room. `false`: what is in use leaves none; while that may
/// change, it is waited for until `deadline`.
async fn make_room(node: &Node, needed_bytes: u64, deadline: Instant) -> bool {
    // One at a time: two would end instances for each other's room.
    let _turn = node.code_room.lock().await;
    let ended_by = Instant::now() + CODE_ROOM_TIMEOUT;
    loop {
        let Ok(reports) = node.shards.reports().await else { return false };
        let resting = resting(&reports);
        let asked = node.code.run(move |store| store.in_the_way(&resting, needed_bytes)).await;
        let Ok(in_the_way) = asked else { return false };
        let pause = match in_the_way {
            Some(packages) if packages.is_empty() => return true,
            Some(packages) => {
                end(node, &reports, &packages).await;
                CODE_ROOM_POLL
            }
            None if Instant::now() >= deadline => return false,
            None => CODE_ROOM_RETRY,
        };
        if Instant::now() >= ended_by.max(deadline) {
            return false;
        }
        sleep(pause).await;
    }
}

/// Packages of an instance.
fn packages(instance: &InstanceReport) -> impl Iterator<Item = CodeHash> {
    std::iter::once(instance.function.code).chain(instance.function.layers)
}

/// Whether an instance may end for the sake of others, or is about to end anyway.
fn rests(instance: &InstanceReport) -> bool {
    let is_kept = instance.function.instances_min > 0;
    match instance.state {
        "idle" | "freezing" | "frozen" => !is_kept,
        "draining" => instance.in_flight == 0,
        _ => false,
    }
}

/// Packages of which all instances rest, and since when the last one does.
pub(crate) fn resting(reports: &[ShardReport]) -> Resting {
    let mut resting = BTreeMap::<CodeHash, Option<Duration>>::new();
    for instance in reports.iter().flat_map(|report| &report.instances) {
        for package in packages(instance) {
            let rest = resting.entry(package).or_insert(Some(Duration::MAX));
            *rest = rest.filter(|_| rests(instance)).map(|rest| rest.min(instance.idle));
        }
    }
    resting.into_iter().filter_map(|(package, rest)| Some((package, rest?))).collect()
}

/// Ends the instances of these packages that rest.
async fn end(node: &Node, reports: &[ShardReport], of: &BTreeSet<CodeHash>) {
    let all = reports.iter().flat_map(|report| &report.instances);
    let goes =
        |it: &&InstanceReport| packages(it).any(|package| of.contains(&package)) && it.state != "draining";
    for instance in all.filter(goes) {
        let (funclet, slot) = (instance.funclet, instance.slot);
        // One that took a call meanwhile finishes it first.
        let order = |reply| Command::Invalidate { funclet, slot, reply };
        if node.shards.ask_all(CONTROL_REPORT_TIMEOUT, order).await.is_ok_and(|had| had.contains(&true)) {
            node.code_disk.instance_ended();
        }
    }
}
