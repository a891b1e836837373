//! Code that gets room: uploads and calls, instances that end for them, and what is in use.

use faaster_function::code_use::CodeLease;
use faaster_protocol::funclet::CodeHash;
use faaster_shard::api::CodeAbsent;
use tokio::sync::mpsc as tokio_mpsc;

use super::introspection::instance;
use super::*;
use crate::code_room::{bring_back, resting};

/// An instance of the played shard, and the lease that it holds.
type Running = (InstanceReport, CodeLease);
type Found = Result<CodeLease, CodeAbsent>;

/// A bench with one shard, whose instances go when they are told to.
struct Crowded {
    bench: Bench,
    running: watch::Sender<Vec<Running>>,
    answers: tokio_mpsc::UnboundedReceiver<Found>,
    names: u64,
}

impl Crowded {
    fn new() -> Self {
        let running = watch::Sender::new(Vec::<Running>::new());
        let (sender, told) = channel();
        let (found, answers) = tokio_mpsc::unbounded_channel();
        let (fake, instances) = (fake_shards(sender), running.clone());
        let shards = Shards::new(1, move |shard, command| match command {
            Command::Report(reply) => {
                let instances = instances.borrow().iter().map(|(report, _)| report.clone()).collect();
                let (shard, counters) = (ShardId(0), Counters::default());
                reply(ShardReport { shard, counters, instances, queued: vec![] });
                Ok(())
            }
            Command::Invalidate { slot, reply, .. } => {
                let before = instances.borrow().len();
                instances.send_modify(|running| running.retain(|(report, _)| report.slot != slot));
                reply(instances.borrow().len() < before);
                Ok(())
            }
            Command::Code(_, answer) => {
                found.send(answer).unwrap();
                Ok(())
            }
            other => fake.try_send(shard, other),
        });
        Self { bench: Bench::with(Access::Owner, shards, told), running, answers, names: 0 }
    }

    /// Text that does not pack well, so that zips count too: 3.2 MB, and half of it packed.
    fn large(seed: u64) -> String {
        let mut state = seed;
        let step = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            format!("{state:016x}")
        };
        with_code(r#""Timeout":1,"#, &(0..200_000).map(step).collect::<String>())
    }

    fn create(&mut self) -> Arc<Deployed> {
        self.names += 1;
        self.bench.create(&format!("f{}", self.names), &Self::large(self.names));
        let Some(Told::Deploy(_, deployed)) = self.bench.told().pop() else { panic!("no deploy") };
        deployed
    }

    fn refused(&self) {
        let answer = self.bench.registry("POST", "/v1/functions/refused", &Self::large(99));
        assert_eq!(answer.status, 507, "{}", answer.text());
        assert!(answer.text().contains("code_disk"), "{}", answer.text());
        assert_eq!(self.bench.registry("GET", "/v1/functions/refused", "").status, 404);
    }

    fn run(&self, function: &Arc<Deployed>, slot: u32, state: &'static str) {
        let lease = self.bench.uses.take(function.code, None).unwrap();
        let report = InstanceReport { state, in_flight: 0, ..instance(function.clone(), slot) };
        self.running.send_modify(|running| running.push((report, lease)));
    }

    fn is_unpacked(&self, function: &Deployed) -> bool {
        self.bench.code_files().contains(&function.code.to_string())
    }

    fn wanted(&mut self, function: &Arc<Deployed>) -> Found {
        let (node, answers) = (self.bench.node.clone(), &mut self.answers);
        self.bench.runtime.block_on(async {
            bring_back(node, ShardId(0), function.clone()).await;
            answers.recv().await.unwrap()
        })
    }

    fn counters(&self) -> serde_json::Value {
        self.bench.controller("GET", "/v1/node").json()["CodeDisk"].clone()
    }
}

#[test]
fn unused_code_makes_room_for_uploads_and_calls_and_comes_back() {
    let mut crowded = Crowded::new();
    let (first, second) = (crowded.create(), crowded.create());
    assert_eq!((crowded.is_unpacked(&first), crowded.is_unpacked(&second)), (false, true));
    for function in [&first, &second, &first] {
        let lease = crowded.wanted(function).unwrap();
        assert!(crowded.is_unpacked(function));
        assert!(!crowded.is_unpacked(if function.code == first.code { &second } else { &first }));
        drop(lease);
    }
    let counters = crowded.counters();
    assert!(counters["Bytes"].as_u64().unwrap() <= CODE_BUDGET_BYTES);
    assert_eq!((&counters["EvictedTotal"], &counters["UnpackedAgainTotal"]), (&4.into(), &3.into()));
    assert_eq!((&counters["RefusedTotal"], &counters["InstancesEndedTotal"]), (&0.into(), &0.into()));
}

#[test]
fn instances_without_a_call_end_for_room_and_busy_ones_do_not() {
    let mut crowded = Crowded::new();
    let first = crowded.create();
    crowded.run(&first, 1, "busy");
    crowded.refused();
    assert!(crowded.is_unpacked(&first));
    assert_eq!(crowded.running.borrow().len(), 1);
    // As soon as nobody calls it, it is in the way of who is called.
    crowded.running.send_modify(|running| running[0].0.state = "idle");
    let second = crowded.create();
    assert_eq!((crowded.is_unpacked(&first), crowded.is_unpacked(&second)), (false, true));
    crowded.run(&second, 2, "frozen");
    let lease = crowded.wanted(&first).unwrap();
    assert!(crowded.running.borrow().is_empty());
    let counters = crowded.counters();
    assert_eq!((&counters["RefusedTotal"], &counters["InstancesEndedTotal"]), (&1.into(), &2.into()));
    drop(lease);
}

#[test]
fn a_call_waits_for_room_no_longer_than_its_function_s_time() {
    let mut crowded = Crowded::new();
    let (first, second) = (crowded.create(), crowded.create());
    crowded.run(&second, 1, "busy");
    assert_eq!(crowded.wanted(&first).err(), Some(CodeAbsent::NoRoom));
    assert!(crowded.is_unpacked(&second));
    // Meanwhile the busy one may end by itself.
    let running = crowded.running.clone();
    crowded.bench.runtime.spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        running.send_modify(Vec::clear);
    });
    assert!(crowded.wanted(&first).is_ok());
    assert_eq!(crowded.counters()["RefusedTotal"], 1);
}

#[test]
fn a_package_rests_when_all_its_instances_do() {
    let crowded = Crowded::new();
    crowded.bench.create("f", "{}");
    let Some(Told::Deploy(_, deployed)) = crowded.bench.told().pop() else { panic!("no deploy") };
    let hash = deployed.code;
    let of = |code: CodeHash, state, idle| {
        let function = Arc::new(Deployed { code, ..(*deployed).clone() });
        InstanceReport { state, in_flight: 0, idle: Duration::from_secs(idle), ..instance(function, 1) }
    };
    let report = |instances: Vec<InstanceReport>| {
        let (shard, counters) = (ShardId(0), Counters::default());
        resting(&[ShardReport { shard, counters, instances, queued: vec![] }])
    };
    let (idle, young) = (of(hash, "idle", 9), of(hash, "frozen", 4));
    assert_eq!(report(vec![idle.clone(), young.clone()]), [(hash, Duration::from_secs(4))]);
    for state in ["busy", "loading", "thawing"] {
        assert_eq!(report(vec![idle.clone(), of(hash, state, 8)]), [], "{state}");
        assert_eq!(report(vec![of(hash, state, 8), idle.clone()]), [], "{state}");
    }
    let other = of(CodeHash([1; 32]), "busy", 1);
    assert_eq!(report(vec![other, young]), [(hash, Duration::from_secs(4))]);
    let mut kept = idle;
    Arc::make_mut(&mut kept.function).instances_min = 1;
    assert_eq!(report(vec![kept]), [], "it would come back at once");
}

#[test]
fn a_deleted_function_s_code_goes_when_nothing_runs_it() {
    let mut crowded = Crowded::new();
    let function = crowded.create();
    crowded.run(&function, 1, "busy");
    crowded.bench.registry("DELETE", "/v1/functions/f1", "").is(200, "");
    let mut seen = std::collections::BTreeSet::new();
    let mut collect = |crowded: &Crowded| {
        crowded.bench.runtime.block_on(deploy::collect_unused(&crowded.bench.node, &mut seen))
    };
    for _ in 0..3 {
        collect(&crowded);
    }
    assert!(crowded.is_unpacked(&function), "it is in use");
    crowded.running.send_modify(Vec::clear);
    collect(&crowded);
    assert_eq!((crowded.counters()["Bytes"].as_u64(), crowded.bench.code_files().len()), (Some(0), 0));
}
