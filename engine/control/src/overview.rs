//! What the node is doing: FaaSter's `/v1/runtimes` and `/v1/resource`, and our own `/v1/instances` and `/v1/node`.
//!
//! Owns: how the funclets' slots and the shards' instances are put together. Must not know: how either is asked.
//! A slot and its instance are joined by funclet, slot and generation; either side may know of one first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use faaster_function::RuntimeSpec;
use faaster_limits::{BOOT_TIMEOUT, MEMORY_MB_MIN};
use faaster_protocol::funclet::{NodeInfo, SlotInfo, SlotState, ledger_mb};
use faaster_shard::api::{InstanceReport, Phases, ShardReport};
use serde::Serialize;

use crate::funclets::Description;
use crate::stamp::rfc3339_nano;

/// Name of a container in FaaSter's `RuntimeID`.
pub(crate) fn runtime_id(funclet: u16, slot: u32) -> String {
    format!("funclet-{funclet}-c{slot}")
}

/// The other way round.
pub(crate) fn parse_runtime_id(text: &str) -> Option<(u16, u32)> {
    let (funclet, slot) = text.strip_prefix("funclet-")?.split_once("-c")?;
    let id = (funclet.parse().ok()?, slot.parse().ok()?);
    // One spelling only: "+1" and "01" are nobody's name.
    (runtime_id(id.0, id.1) == text).then_some(id)
}

/// Thousandths of a core that go with this much memory: Lambda's rule, 1,769 MB for a core.
fn millicpus(memory_mb: u64) -> u64 {
    (memory_mb * 1000).div_ceil(1769)
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Resource {
    #[serde(rename = "MilliCPUs")]
    millicpus: u64,
    #[serde(rename = "Memory")]
    memory: u64,
}

impl Resource {
    fn of_bytes(memory: u64) -> Self {
        Self { millicpus: millicpus(memory >> 20), memory }
    }
}

/// `/v1/resource`
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ResourceView {
    capacity: Resource,
    allocatable: Resource,
    used: Resource,
    marked: Resource,
    default: Resource,
    base_memory: u64,
}

/// Sums up the node. CPU is shared by weight and not handed out, so all of it is allocatable.
pub(crate) fn resource(millicpus: u32, funclets: &BTreeMap<u16, Description>) -> ResourceView {
    let sum = |part: fn(&NodeInfo) -> u64| funclets.values().map(|funclet| part(&funclet.node)).sum::<u64>();
    let default_memory = u64::from(MEMORY_MB_MIN) << 20;
    ResourceView {
        capacity: Resource { millicpus: millicpus.into(), memory: sum(|node| node.memory_capacity_bytes) },
        allocatable: Resource {
            millicpus: millicpus.into(),
            memory: sum(|node| node.memory_allocatable_bytes),
        },
        used: Resource::of_bytes(sum(|node| node.memory_used_bytes)),
        marked: Resource::of_bytes(sum(|node| node.memory_marked_bytes)),
        default: Resource::of_bytes(default_memory),
        base_memory: default_memory,
    }
}

/// One entry of `/v1/runtimes`; members as FaaSter spells them.
#[derive(Debug, Serialize)]
pub(crate) struct RuntimeView {
    #[serde(rename = "RuntimeID")]
    runtime_id: String,
    #[serde(rename = "State")]
    state: &'static str,
    used: bool,
    marked: bool,
    abnormal: bool,
    #[serde(rename = "abnormalTimes")]
    abnormal_times: u32,
    #[serde(rename = "Resource")]
    resource: Resource,
    #[serde(rename = "UserID")]
    user_id: String,
    #[serde(rename = "CommitID")]
    commit_id: String,
    #[serde(rename = "MemorySize")]
    memory_size: u64,
    #[serde(rename = "ConcurrentMode")]
    concurrent_mode: bool,
    #[serde(rename = "DefaultConcurrentMode")]
    default_concurrent_mode: bool,
    #[serde(rename = "Concurrency")]
    concurrency: u32,
    #[serde(rename = "WithStreamMode")]
    with_stream_mode: bool,
    #[serde(rename = "WaitRuntimeAliveTimeout")]
    wait_runtime_alive_timeout: u64,
    #[serde(rename = "PreLoadTimeMS")]
    pre_load_time_ms: u64,
    #[serde(rename = "PostLoadTimeMS")]
    post_load_time_ms: u64,
    #[serde(rename = "PreInitTimeMS")]
    pre_init_time_ms: u64,
    #[serde(rename = "PostInitTimeMS")]
    post_init_time_ms: u64,
    #[serde(rename = "AcceptReqCnt")]
    accept_req_cnt: u64,
    #[serde(rename = "RejectReqCnt")]
    reject_req_cnt: u64,
    #[serde(rename = "LastLivenessTime")]
    last_liveness_time: String,
    #[serde(rename = "LastAccessTime")]
    last_access_time: String,
    #[serde(rename = "LastResetTime")]
    last_reset_time: String,
}

/// A container as both sides know it.
struct Joined<'a> {
    funclet: u16,
    slot: u32,
    generation: u32,
    info: Option<&'a SlotInfo>,
    instance: Option<(&'a InstanceReport, u16)>,
}

fn join<'a>(reports: &'a [ShardReport], funclets: &'a BTreeMap<u16, Description>) -> Vec<Joined<'a>> {
    let mut all: BTreeMap<(u16, u32, u32), Joined<'a>> = BTreeMap::new();
    for (funclet, description) in funclets {
        for info in &description.slots {
            let key = (*funclet, info.slot.0, info.generation.0);
            let (funclet, slot, generation) = key;
            all.insert(key, Joined { funclet, slot, generation, info: Some(info), instance: None });
        }
    }
    for report in reports {
        for instance in &report.instances {
            let key = (instance.funclet, instance.slot, instance.generation);
            let (funclet, slot, generation) = key;
            let fresh = Joined { funclet, slot, generation, info: None, instance: None };
            all.entry(key).or_insert(fresh).instance = Some((instance, report.shard.0));
        }
    }
    all.into_values().collect()
}

/// FaaSter's name for a state (DESIGN section 6). A container that is being made is as closed as FaaSter's.
fn state(joined: &Joined<'_>) -> &'static str {
    match (joined.instance.map(|(instance, _)| instance.state), joined.info.map(|info| info.state)) {
        (Some("loading"), _) => "warmup",
        (Some("draining"), _) => "stopping",
        (Some(_), _) => "warm",
        (None, Some(SlotState::Cold)) => "cold",
        (None, Some(SlotState::Warming)) => "warmup",
        (None, Some(SlotState::Warm | SlotState::Frozen)) => "warm",
        (None, Some(SlotState::Draining)) => "stopping",
        (None, Some(SlotState::Creating | SlotState::Dead) | None) => "closed",
    }
}

/// What `/v1/runtimes` and `/v1/instances` are made from.
pub(crate) struct Facts<'a> {
    pub(crate) reports: &'a [ShardReport],
    pub(crate) funclets: &'a BTreeMap<u16, Description>,
    pub(crate) runtimes: &'a [RuntimeSpec],
    /// Funclet, slot, generation of containers that were invalidated.
    pub(crate) abnormal: &'a BTreeSet<(u16, u32, u32)>,
    /// Since 1970.
    pub(crate) now: Duration,
    /// `CLOCK_MONOTONIC` at the same moment.
    pub(crate) now_ns: u64,
}

impl Facts<'_> {
    /// Whether a container is among them, and its generation.
    pub(crate) fn find(&self, funclet: u16, slot: u32) -> Option<(u32, Option<SlotState>)> {
        join(self.reports, self.funclets)
            .into_iter()
            // The newest life of the slot.
            .rfind(|joined| (joined.funclet, joined.slot) == (funclet, slot))
            .map(|joined| (joined.generation, joined.info.map(|info| info.state)))
    }

    /// `/v1/runtimes`
    pub(crate) fn runtimes(&self) -> Vec<RuntimeView> {
        join(self.reports, self.funclets).iter().map(|joined| self.runtime(joined)).collect()
    }

    fn runtime(&self, joined: &Joined<'_>) -> RuntimeView {
        let instance = joined.instance.map(|(instance, _)| instance);
        let function = instance.map(|instance| &instance.function);
        let memory_mb = function
            .map(|function| function.memory_mb)
            .or(joined.info.map(|info| info.memory_mb))
            .filter(|memory| *memory > 0)
            .unwrap_or(MEMORY_MB_MIN);
        let memory = u64::from(memory_mb) << 20;
        let taken = u64::from(ledger_mb(memory_mb)) << 20;
        let abnormal = self.abnormal.contains(&(joined.funclet, joined.slot, joined.generation));
        let claimed = instance.map(|instance| self.now.saturating_sub(instance.age));
        let loaded = instance.and_then(|instance| {
            (instance.state != "loading").then(|| claimed.unwrap_or_default() + instance.load)
        });
        let milliseconds = |time: Option<Duration>| {
            time.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        };
        let created = joined.info.map_or(self.now, |info| self.wall(info.created_ns));
        let used = instance.map(|instance| self.now.saturating_sub(instance.idle));
        RuntimeView {
            runtime_id: runtime_id(joined.funclet, joined.slot),
            state: state(joined),
            used: instance.is_some(),
            marked: instance.is_some(),
            abnormal,
            abnormal_times: u32::from(abnormal),
            resource: Resource::of_bytes(taken),
            user_id: function.map(|function| function.owner.to_string()).unwrap_or_default(),
            commit_id: function.map(|function| function.commit_id.to_string()).unwrap_or_default(),
            memory_size: function.map_or(0, |_| memory),
            concurrent_mode: function.is_none_or(|function| function.concurrency.quota() > 0),
            default_concurrent_mode: true,
            concurrency: instance.map_or(0, |instance| instance.in_flight),
            with_stream_mode: false,
            wait_runtime_alive_timeout: BOOT_TIMEOUT.as_secs(),
            pre_load_time_ms: 0,
            post_load_time_ms: 0,
            pre_init_time_ms: milliseconds(claimed),
            post_init_time_ms: milliseconds(loaded),
            accept_req_cnt: instance.map_or(0, |instance| instance.accepted_total),
            reject_req_cnt: instance.map_or(0, |instance| instance.failed_total),
            last_liveness_time: rfc3339_nano(self.now),
            last_access_time: rfc3339_nano(used.unwrap_or(created)),
            // Go's zero time: a container is never reset, it is replaced.
            last_reset_time: "0001-01-01T00:00:00Z".to_owned(),
        }
    }

    fn wall(&self, monotonic_ns: u64) -> Duration {
        self.now.saturating_sub(Duration::from_nanos(self.now_ns.saturating_sub(monotonic_ns)))
    }

    /// `/v1/instances`: the containers that run a function.
    pub(crate) fn instances(&self) -> Vec<InstanceView> {
        join(self.reports, self.funclets)
            .iter()
            .filter_map(|joined| {
                let (instance, shard) = joined.instance?;
                let function = &instance.function;
                let runtime = self.runtimes.get(usize::from(function.runtime.0));
                let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                Some(InstanceView {
                    id: runtime_id(joined.funclet, joined.slot),
                    function_name: function.name.to_string(),
                    version: function.version.to_string(),
                    function_brn: function.brn.to_string(),
                    runtime: runtime.map(|spec| spec.name.clone()).unwrap_or_default(),
                    state: instance.state,
                    in_flight: instance.in_flight,
                    concurrency: function.concurrency.quota(),
                    accepted: instance.accepted_total,
                    failed: instance.failed_total,
                    age_ms: milliseconds(instance.age),
                    idle_ms: milliseconds(instance.idle),
                    load_ms: milliseconds(instance.load),
                    start: instance.phases.map(PhasesView::from),
                    memory_mb: function.memory_mb,
                    memory_used_bytes: joined.info.map(|info| info.memory_used_bytes),
                    cpu_used_us: joined.info.map(|info| info.cpu_used_us),
                    pid: joined.info.map(|info| info.pid),
                    shard,
                    funclet: joined.funclet,
                    slot: joined.slot,
                    generation: joined.generation,
                    commit_id: function.commit_id.to_string(),
                    revision: function.revision,
                })
            })
            .collect()
    }
}

/// One entry of `/v1/instances`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct InstanceView {
    #[serde(rename = "ID")]
    id: String,
    function_name: String,
    version: String,
    function_brn: String,
    runtime: String,
    /// `loading`, `idle`, `busy`, `draining`.
    state: &'static str,
    in_flight: u32,
    /// 0: one call at a time.
    concurrency: u32,
    accepted: u64,
    failed: u64,
    #[serde(rename = "AgeMS")]
    age_ms: u64,
    #[serde(rename = "IdleMS")]
    idle_ms: u64,
    #[serde(rename = "LoadMS")]
    load_ms: u64,
    /// Null where no caller waited for it, or none was answered yet.
    start: Option<PhasesView>,
    #[serde(rename = "MemoryMB")]
    memory_mb: u32,
    /// These three are null while the funclet is silent.
    memory_used_bytes: Option<u64>,
    #[serde(rename = "CPUUsedUS")]
    cpu_used_us: Option<u64>,
    #[serde(rename = "PID")]
    pid: Option<u32>,
    shard: u16,
    funclet: u16,
    slot: u32,
    generation: u32,
    commit_id: String,
    revision: u64,
}

/// How an instance came to its first answer, microseconds of each phase; the same as that answer's `Server-Timing`.
#[derive(Debug, Serialize)]
struct PhasesView {
    #[serde(rename = "QueueUS")]
    queue: u64,
    #[serde(rename = "ClaimUS")]
    claim: u64,
    #[serde(rename = "AttachUS")]
    attach: u64,
    #[serde(rename = "LoadUS")]
    load: u64,
    #[serde(rename = "RunUS")]
    run: u64,
}

impl From<Phases> for PhasesView {
    fn from(phases: Phases) -> Self {
        let microseconds = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            queue: microseconds(phases.queue),
            claim: microseconds(phases.claim),
            attach: microseconds(phases.attach),
            load: microseconds(phases.load),
            run: microseconds(phases.run),
        }
    }
}

/// A shard in `/v1/node`: its counters under their own names.
pub(crate) fn shard(report: &ShardReport) -> serde_json::Value {
    let c = &report.counters;
    let queued: BTreeMap<&str, usize> = report.queued.iter().map(|(key, count)| (&**key, *count)).collect();
    serde_json::json!({
        "Shard": report.shard.0,
        "Instances": report.instances.len(),
        "Queued": queued,
        "Counters": {
            "connections_total": c.connections_total,
            "connections_open": c.connections_open,
            "connections_refused_total": c.connections_refused_total,
            "requests_total": c.requests_total,
            "requests_rejected_total": c.requests_rejected_total,
            "invocations_total": c.invocations_total,
            "invocations_forwarded_total": c.invocations_forwarded_total,
            "invocations_failed_total": c.invocations_failed_total,
            "invocations_timed_out_total": c.invocations_timed_out_total,
            "invocations_throttled_total": c.invocations_throttled_total,
            "invocations_abandoned_total": c.invocations_abandoned_total,
            "async_accepted_total": c.async_accepted_total,
            "async_refused_total": c.async_refused_total,
            "cold_starts_total": c.cold_starts_total,
            "instances_lost_total": c.instances_lost_total,
            "instances_frozen_total": c.instances_frozen_total,
            "instances_unresponsive_total": c.instances_unresponsive_total,
            "mailbox_full_total": c.mailbox_full_total,
            "log_bytes_dropped_total": c.log_bytes_dropped_total,
            "buffers_exhausted_total": c.buffers_exhausted_total,
            "answers_refused_total": c.answers_refused_total,
            "held_bytes": c.held_bytes,
        },
    })
}

/// A funclet in `/v1/node`.
pub(crate) fn funclet(index: u16, description: &Description, runtimes: &[RuntimeSpec]) -> serde_json::Value {
    let node = &description.node;
    let pools: Vec<_> = description
        .pools
        .iter()
        .filter_map(|pool| {
            let spec = runtimes.get(usize::from(pool.runtime.0))?;
            Some(serde_json::json!({
                "Runtime": spec.name,
                "Floor": pool.floor,
                "Target": pool.target,
                "Cold": pool.cold,
                "Creating": pool.creating,
            }))
        })
        .collect();
    serde_json::json!({
        "Funclet": index,
        "MemoryCapacityBytes": node.memory_capacity_bytes,
        "MemoryAllocatableBytes": node.memory_allocatable_bytes,
        "MemoryUsedBytes": node.memory_used_bytes,
        "MemoryMarkedBytes": node.memory_marked_bytes,
        "SlotsTotal": node.slots_total,
        "SlotsCold": node.slots_cold,
        "SlotsClaimed": node.slots_claimed,
        "SlotsQuarantined": node.slots_quarantined,
        "ClaimsTotal": node.claims_total,
        "ClaimsRefusedTotal": node.claims_refused_total,
        "RequestsIgnoredTotal": node.requests_ignored_total,
        "Pools": pools,
    })
}

/// A language in `/v1/node`.
pub(crate) fn runtime(spec: &RuntimeSpec) -> serde_json::Value {
    serde_json::json!({
        "Name": spec.name,
        "Names": spec.names,
        "Version": spec.version,
        "Kind": spec.kind,
        "Pool": spec.pool,
        "DefaultHandler": spec.default_handler,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_in_one_spelling_only() {
        assert_eq!(parse_runtime_id(&runtime_id(3, 41)), Some((3, 41)));
        for bad in ["funclet-1", "funclet-01-c2", "funclet-1-c+2", "funclet-x-c2", "", "funclet-99999-c1"] {
            assert_eq!(parse_runtime_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn cpu_goes_with_memory() {
        assert_eq!(millicpus(1769), 1000);
        assert_eq!(millicpus(128), 73);
    }
}
