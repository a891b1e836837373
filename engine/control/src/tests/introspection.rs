//! What the node says of itself: `/v1/runtimes`, `/v1/resource`, `/v1/instances`, `/v1/node`, logs.

use super::*;

pub(super) fn instance(function: Arc<Deployed>, slot: u32) -> InstanceReport {
    InstanceReport {
        function,
        funclet: 0,
        slot,
        generation: 5,
        state: "busy",
        in_flight: 2,
        accepted_total: 7,
        failed_total: 1,
        age: Duration::from_secs(10),
        idle: Duration::from_secs(1),
        load: Duration::from_millis(11),
        phases: Some(Phases {
            queue: Duration::from_micros(20),
            claim: Duration::from_micros(150),
            attach: Duration::from_micros(60),
            load: Duration::from_micros(700),
            run: Duration::from_micros(300),
        }),
    }
}

fn slot(slot: u32, generation: u32, state: SlotState) -> SlotInfo {
    SlotInfo {
        slot: SlotId(slot),
        generation: Generation(generation),
        state,
        runtime: RuntimeIndex(0),
        function_tag: 0,
        account_tag: 0,
        pid: 4242,
        memory_mb: 0,
        memory_used_bytes: 1 << 20,
        cpu_used_us: 9,
        created_ns: 1,
        claimed_ns: 0,
    }
}

/// A funclet that answers from a thread of its own, until the channel is closed; tells what it was asked to kill.
fn fake_funclet(slots: Vec<SlotInfo>) -> (OwnedFd, Receiver<(SlotId, Generation)>) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let (killed, kills) = channel();
    std::thread::spawn(move || {
        let mut bytes = [0; MESSAGE_BYTES];
        while let Ok((length @ 1.., _)) = recv(&theirs, &mut bytes[..], RecvFlags::empty()) {
            let say = |event: Event| assert!(send(&theirs, &event.encode(), SendFlags::NOSIGNAL).is_ok());
            match Request::decode(&bytes[..length]).unwrap() {
                Request::Describe => {
                    say(Event::Shortage { memory_mb: 1 });
                    slots.iter().for_each(|slot| say(Event::Slot(*slot)));
                    let (floor, target, cold, creating) = (4, 9, 3, 2);
                    let runtime = RuntimeIndex(1);
                    say(Event::Pool(PoolInfo { runtime, floor, target, cold, creating }));
                    say(Event::Node(NodeInfo {
                        memory_capacity_bytes: 8 << 30,
                        memory_allocatable_bytes: 32 << 30,
                        memory_used_bytes: 128 << 20,
                        memory_marked_bytes: 256 << 20,
                        slots_total: 20,
                        ..NodeInfo::default()
                    }));
                }
                Request::Kill { slot, generation } => killed.send((slot, generation)).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    });
    (ours, kills)
}

/// A bench whose shard 0 has one instance, in slot 3 of generation 5.
fn busy_bench() -> Bench {
    let (running, instances) = watch::channel(Vec::<InstanceReport>::new());
    let (sender, told) = channel();
    let fake = fake_shards(sender);
    let shards = Shards::new(1, move |shard, command| match command {
        Command::Report(reply) => {
            let instances = instances.borrow().clone();
            reply(ShardReport {
                shard: ShardId(0),
                counters: Counters::default(),
                instances,
                queued: vec![],
            });
            Ok(())
        }
        Command::Invalidate { slot, reply, .. } => {
            reply(slot == 3);
            Ok(())
        }
        other => fake.try_send(shard, other),
    });
    let bench = Bench::with(Access::Owner, shards, told);
    bench.create("f", r#"{"Version":"1","PodConcurrentQuota":10}"#);
    let Some(Told::Deploy(_, deployed)) = bench.told().pop() else { panic!("no deploy") };
    running.send_replace(vec![instance(deployed, 3)]);
    bench
}

impl Bench {
    fn attach(&self, funclet: u16, slots: Vec<SlotInfo>) -> Receiver<(SlotId, Generation)> {
        let (channel, kills) = fake_funclet(slots);
        self.runtime.block_on(async { self.funclets.up(funclet, channel) }).unwrap();
        kills
    }
}

#[test]
fn runtimes_have_faasters_members_in_its_order() {
    let bench = busy_bench();
    bench.attach(0, vec![slot(3, 5, SlotState::Warm), slot(9, 1, SlotState::Cold)]);
    let answer = bench.controller("GET", "/v1/runtimes");
    assert_eq!(answer.headers["Content-Type"], "text/plain; charset=utf-8");
    let names: Vec<&str> =
        answer.text().split("},{\"RuntimeID\"").next().unwrap().split('"').skip(1).step_by(2).collect();
    // Keys and string values alternate in this cut; only the keys of the record are looked for, in order.
    let recorded = [
        "RuntimeID",
        "State",
        "used",
        "marked",
        "abnormal",
        "abnormalTimes",
        "Resource",
        "MilliCPUs",
        "Memory",
        "UserID",
        "CommitID",
        "MemorySize",
        "ConcurrentMode",
        "DefaultConcurrentMode",
        "Concurrency",
        "WithStreamMode",
        "WaitRuntimeAliveTimeout",
        "PreLoadTimeMS",
        "PostLoadTimeMS",
        "PreInitTimeMS",
        "PostInitTimeMS",
        "AcceptReqCnt",
        "RejectReqCnt",
        "LastLivenessTime",
        "LastAccessTime",
        "LastResetTime",
    ];
    let keys: Vec<&str> = names.into_iter().filter(|name| recorded.contains(name)).collect();
    assert_eq!(keys, recorded);
    let list = answer.json();
    assert_eq!((&list[0]["RuntimeID"], &list[0]["State"]), (&"funclet-0-c3".into(), &"warm".into()));
    assert_eq!((&list[0]["UserID"], &list[0]["AcceptReqCnt"]), (&ACCOUNT.into(), &7.into()));
    assert_eq!((&list[0]["ConcurrentMode"], &list[0]["Concurrency"]), (&true.into(), &2.into()));
    let (claimed, ready) =
        (list[0]["PreInitTimeMS"].as_u64().unwrap(), list[0]["PostInitTimeMS"].as_u64().unwrap());
    assert_eq!(ready - claimed, 11);
    assert_eq!(
        (&list[1]["RuntimeID"], &list[1]["State"], &list[1]["used"]),
        (&"funclet-0-c9".into(), &"cold".into(), &false.into())
    );
    assert_eq!(list.as_array().unwrap().len(), 2);
}

#[test]
fn an_invalidated_container_is_abnormal_and_an_unknown_one_is_not_found() {
    let bench = busy_bench();
    let kills = bench.attach(0, vec![slot(3, 5, SlotState::Warm), slot(9, 1, SlotState::Cold)]);
    let answer = bench.controller("POST", "/v1/runtimes/funclet-0-c3/invalidate").is(200, "");
    assert!(answer.headers.is_empty());
    let list = bench.controller("GET", "/v1/runtimes").json();
    assert_eq!((&list[0]["abnormal"], &list[0]["abnormalTimes"]), (&true.into(), &1.into()));
    assert_eq!(list[1]["abnormal"], false);
    bench.controller("POST", "/v1/runtimes/funclet-0-c9/invalidate").is(200, "");
    // The loop is not running between requests here: this one comes after the kill on the same channel.
    bench.controller("GET", "/v1/runtimes");
    assert_eq!(kills.recv_timeout(Duration::from_secs(5)).unwrap(), (SlotId(9), Generation(1)));
    assert!(kills.try_recv().is_err(), "an instance is the shard's to end");
    for unknown in ["nope", "funclet-0-c4", "funclet-7-c3"] {
        let twice = format!("can not find runtime {unknown}can not find runtime {unknown}");
        bench.controller("POST", &format!("/v1/runtimes/{unknown}/invalidate")).is(404, &twice);
    }
    assert_eq!(bench.controller("GET", "/v1/runtimes/nope/invalidate").status, 405);
}

#[test]
fn resource_is_the_sum_of_the_funclets() {
    let bench = Bench::new();
    let answer = bench.controller("GET", "/v1/resource");
    assert_eq!(answer.status, 503, "no funclet, no answer: {}", answer.text());
    bench.attach(0, vec![]);
    bench.attach(1, vec![]);
    bench.controller("GET", "/v1/resource").is(
        200,
        r#"{"Capacity":{"MilliCPUs":2000,"Memory":17179869184},"Allocatable":{"MilliCPUs":2000,"Memory":68719476736},"Used":{"MilliCPUs":145,"Memory":268435456},"Marked":{"MilliCPUs":290,"Memory":536870912},"Default":{"MilliCPUs":73,"Memory":134217728},"BaseMemory":134217728}"#,
    );
    // A restarted funclet takes its place.
    bench.attach(1, vec![]);
    assert_eq!(bench.controller("GET", "/v1/resource").status, 200);
}

#[test]
fn a_funclet_that_died_does_not_hang_an_answer() {
    let bench = busy_bench();
    bench.attach(0, vec![slot(3, 5, SlotState::Warm)]);
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    drop(theirs);
    bench.runtime.block_on(async { bench.funclets.up(1, ours) }).unwrap();
    assert_eq!(bench.controller("GET", "/v1/runtimes").json().as_array().unwrap().len(), 1);
    assert_eq!(bench.controller("GET", "/v1/resource").status, 503, "half a node is no answer");
}

#[test]
fn instances_and_node_are_for_the_command_line() {
    let bench = busy_bench();
    bench.attach(0, vec![slot(3, 5, SlotState::Warm), slot(9, 1, SlotState::Cold)]);
    let answer = bench.controller("GET", "/v1/instances");
    assert_eq!(answer.headers["Content-Type"], "application/json; charset=utf-8");
    let list = answer.json();
    let only = &list["Instances"][0];
    assert_eq!(
        (&only["FunctionName"], &only["State"], &only["PID"]),
        (&"f".into(), &"busy".into(), &4242.into())
    );
    assert_eq!(
        (&only["AgeMS"], &only["MemoryUsedBytes"], &only["Runtime"]),
        (&10_000.into(), &(1 << 20).into(), &"nodejs".into())
    );
    let start =
        serde_json::json!({"QueueUS": 20, "ClaimUS": 150, "AttachUS": 60, "LoadUS": 700, "RunUS": 300});
    assert_eq!(only["Start"], start);
    assert_eq!(list["Instances"].as_array().unwrap().len(), 1, "the pool's are no instances");
    let node = bench.controller("GET", "/v1/node").json();
    assert_eq!((&node["Phase"], &node["Funclets"][0]["SlotsTotal"]), (&"ready".into(), &20.into()));
    let pool = serde_json::json!({"Runtime": "python3", "Floor": 4, "Target": 9, "Cold": 3, "Creating": 2});
    assert_eq!(node["Funclets"][0]["Pools"], serde_json::json!([pool]));
    assert_eq!(
        (&node["Runtimes"][1]["Name"], &node["Shards"][0]["Counters"]["requests_total"]),
        (&"python3".into(), &0.into())
    );
    bench.controller("GET", "/readyz").is(200, "ready");
}

#[test]
fn logs_are_the_owners() {
    let bench = Bench::new();
    let all = bench.controller("GET", "/v1/functions/f/logs").json();
    assert_eq!(all["Entries"].as_array().unwrap().len(), 2);
    assert_eq!(
        all["Entries"][0],
        serde_json::json!({"Time": "t", "Version": "1", "RequestId": "r", "Text": "one\n"})
    );
    let cursor = all["Cursor"].as_str().unwrap();
    let none = bench.controller("GET", &format!("/v1/functions/f/logs?since={cursor}")).json();
    assert_eq!((none["Entries"].as_array().unwrap().len(), none["Cursor"].as_str()), (0, Some(cursor)));
    let second = bench.controller("GET", "/v1/functions/f/logs?Qualifier=2").json();
    assert_eq!(second["Entries"][0]["Text"], "two\n");
    let foreign = format!("/v1/functions/brn:cloud:faas:bj:{}:function:f/logs", "0".repeat(32));
    assert_eq!(bench.controller("GET", &foreign).status, 403);
    assert_eq!(bench.controller("GET", "/v1/functions/f/logs?since=x").status, 400);
    assert_eq!(bench.controller("GET", "/v1/functions/a%20b/logs").status, 400);
}
