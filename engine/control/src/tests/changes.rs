//! Creates, updates and deletes: what is stored, what the shards are told, what is left.

use super::*;

fn configuration(bench: &Bench, target: &str) -> serde_json::Value {
    bench.registry("GET", target, "").json()["Configuration"].clone()
}

#[test]
fn a_deploy_is_acknowledged_by_every_shard() {
    let bench = Bench::new();
    let body = with_code(
        r#""Version":"1","Environment":{"Variables":{"A":"b"}},"MaxInstances":7,"MinInstances":2,"PodConcurrentQuota":2,"NetworkMode":"none","#,
        "1",
    );
    bench.create("f", &body);
    let told = bench.told();
    let [Told::Deploy(0, first), Told::Deploy(1, second)] = &told[..] else { panic!("{told:?}") };
    assert!(Arc::ptr_eq(first, second), "shards share what they run");
    assert_eq!(&*first.key, format!("{HASH}:f:1"));
    assert_eq!((first.instances_max, first.concurrency.slots(), first.env["A"].as_str()), (7, 2, "b"));
    assert_eq!((first.runtime, &*first.owner), (RuntimeIndex(0), ACCOUNT));
    let shown = configuration(&bench, "/v1/functions/f?Qualifier=1");
    assert_eq!(shown["Environment"]["Variables"], serde_json::json!({"A": "b"}));
    assert_eq!((&shown["MaxInstances"], &shown["MinInstances"]), (&7.into(), &2.into()));
    assert_eq!((first.network_mode, &shown["NetworkMode"]), (Some(NetworkMode::None), &"none".into()));
    assert_eq!(shown["CodeSha256"], base64::engine::general_purpose::STANDARD.encode(first.code.0));
    assert!(bench.data.path().join(format!("code/{}/index.js", first.code)).is_file());
}

#[test]
fn a_redeploy_grows_the_revision_and_keeps_the_commit_of_the_same_code() {
    let bench = Bench::new();
    let deploy = |code: &str| {
        bench.create("f", &with_code("", code));
        match bench.told().pop() {
            Some(Told::Deploy(_, deployed)) => deployed,
            other => panic!("{other:?}"),
        }
    };
    let (first, same, other) = (deploy("1"), deploy("1"), deploy("2"));
    assert_eq!(first.commit_id, same.commit_id);
    assert_ne!(first.commit_id, other.commit_id);
    assert!(first.revision < same.revision && same.revision < other.revision);
    assert_ne!(first.function_tag, same.function_tag);
}

#[test]
fn versions_come_from_path_then_parameter_then_body() {
    let bench = Bench::new();
    let key = |target: &str, body: &str| {
        bench.registry("POST", target, body).is(200, "");
        match bench.told().pop() {
            Some(Told::Deploy(_, deployed)) => deployed.version.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        key(
            &format!("/v1/functions/brn:cloud:faas:bj:{HASH}:function:f:3?Qualifier=4"),
            r#"{"Version":"5"}"#
        ),
        "3"
    );
    assert_eq!(key("/v1/functions/f?Qualifier=4", r#"{"Version":"5"}"#), "4");
    assert_eq!(key("/v1/functions/f", r#"{"Version":"5"}"#), "5");
    assert_eq!(key("/v1/functions/f", "{}"), "$LATEST");
    let listed = bench.registry("GET", "/v1/functions/f/versions", "").json();
    let versions: Vec<&str> =
        listed["Versions"].as_array().unwrap().iter().map(|v| v["Version"].as_str().unwrap()).collect();
    assert_eq!(versions, ["$LATEST", "3", "4", "5"]);
    let alias = bench.registry("POST", "/v1/functions/f:prod", "{}");
    assert_eq!(alias.status, 400, "{}", alias.text());
    assert_eq!(bench.registry("GET", "/v1/functions/none/versions", "").status, 404);
}

#[test]
fn an_update_changes_only_what_it_names() {
    let bench = Bench::new();
    bench
        .registry("PUT", "/v1/functions/f", "{}")
        .is(404, &format!("not found function brn:cloud:faas:bj:{HASH}:function:f:$LATEST"));
    bench.create("f", &with_code(r#""Timeout":9,"Description":"d","#, "1"));
    let before = configuration(&bench, "/v1/functions/f");
    bench.registry("PUT", "/v1/functions/f", r#"{"MemorySize":256}"#).is(200, "");
    let after = configuration(&bench, "/v1/functions/f");
    assert_eq!(after["MemorySize"], 256);
    for same in ["Timeout", "Description", "CodeSha256", "CommitId", "Runtime"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    bench.registry("PUT", "/v1/functions/f", &with_code("", "2")).is(200, "");
    let recoded = configuration(&bench, "/v1/functions/f");
    assert_ne!(recoded["CodeSha256"], after["CodeSha256"]);
    assert_ne!(recoded["CommitId"], after["CommitId"]);
    assert_eq!(recoded["MemorySize"], 256);
    bench
        .registry("PUT", "/v1/functions/f", r#"{"Version":"2"}"#)
        .is(400, "Version of an update is in its path or Qualifier; a version cannot be renamed");
    assert_eq!(bench.registry("PUT", "/v1/functions/f", r#"{"Timeout":0,"MemorySize":1}"#).status, 400);
    assert_eq!(bench.registry("PUT", "/v1/functions/f?Qualifier=9", "{}").status, 404);
    let deploys = bench.told().len();
    assert_eq!(deploys, 2 * 3, "a refused update tells the shards nothing");
}

#[test]
fn updates_at_once_lose_nothing() {
    let bench = Bench::new();
    bench.create("f", "{}");
    let one = |body: &'static str| {
        answer(bench.registry.clone(), "PUT", "/v1/functions/f", vec![], body.as_bytes().to_vec())
    };
    bench.runtime.block_on(async {
        let (a, b, c) = tokio::join!(
            one(r#"{"Timeout":7}"#),
            one(r#"{"MemorySize":256}"#),
            one(r#"{"Description":"d"}"#)
        );
        assert_eq!((a.0, b.0, c.0), (200, 200, 200));
    });
    let after = configuration(&bench, "/v1/functions/f");
    assert_eq!(
        (&after["Timeout"], &after["MemorySize"], &after["Description"]),
        (&7.into(), &256.into(), &"d".into())
    );
}

#[test]
fn a_delete_takes_one_version_or_all() {
    let bench = Bench::new();
    for version in ["1", "2", "3"] {
        bench.create("f", &with_code(&format!(r#""Version":"{version}","#), version));
    }
    bench.create("f-g", "{}");
    bench.told();
    bench.registry("DELETE", "/v1/functions/f?Qualifier=2", "").is(200, "");
    assert!(
        matches!(&bench.told()[..], [Told::Remove(0, key), Told::Remove(1, _)] if *key == format!("{HASH}:f:2"))
    );
    bench
        .registry("DELETE", "/v1/functions/f?Qualifier=2", "")
        .is(404, &format!("not found function brn:cloud:faas:bj:{HASH}:function:f:2"));
    bench.registry("DELETE", "/v1/functions/f", "").is(200, "");
    assert_eq!(bench.told().len(), 4);
    assert_eq!(bench.registry("DELETE", "/v1/functions/f", "").status, 404);
    let left = bench.registry("GET", "/v1/functions", "").json();
    assert_eq!(left["Functions"].as_array().unwrap().len(), 1);
}

#[test]
fn listings_are_paged() {
    let bench = Bench::new();
    for name in ["a", "b", "c"] {
        bench.create(name, "{}");
    }
    let page = |target: &str| {
        let page = bench.registry("GET", target, "").json();
        let names: Vec<String> = page["Functions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| f["FunctionName"].as_str().unwrap().to_owned())
            .collect();
        (names.join(""), page.get("NextMarker").and_then(|m| m.as_str()).map(str::to_owned))
    };
    assert_eq!(page("/v1/functions"), ("abc".into(), None));
    let (names, marker) = page("/v1/functions?MaxItems=2");
    assert_eq!((names.as_str(), marker.as_deref()), ("ab", Some("b:$LATEST")));
    assert_eq!(page("/v1/functions?MaxItems=2&Marker=b%3A%24LATEST"), ("c".into(), None));
    for bad in ["0", "10001", "x", "-1"] {
        let answer = bench.registry("GET", &format!("/v1/functions?MaxItems={bad}"), "");
        assert_eq!((answer.status, answer.text()), (400, "MaxItems must be a number from 1 to 10000"));
    }
    let other = bench.registry_as(OTHER, "GET", "/v1/functions", "");
    assert_eq!((other.status, other.text()), (200, r#"{"Functions":[]}"#));
    for (method, target) in
        [("GET", "/v1/functions"), ("GET", "/v1/functions/a"), ("POST", "/v1/functions/a")]
    {
        bench.registry_as("not an id", method, target, "").is(400, "account header holds no account id");
    }
}

#[test]
fn the_zip_can_be_had_again() {
    let bench = Bench::new();
    let body = with_code("", "1");
    bench.create("f", &body);
    let zip = bench.registry("GET", "/v1/functions/f/code", "");
    assert_eq!((zip.status, zip.headers["Content-Type"].as_str()), (200, "application/zip"));
    assert!(body.contains(&base64::engine::general_purpose::STANDARD.encode(&zip.body)));
    assert_eq!(bench.registry("GET", "/v1/functions/none/code", "").status, 404);
    assert_eq!(
        bench.registry("GET", "/v1/functions/f:prod/code", "").status,
        404,
        "there are no aliases yet"
    );
}

#[test]
fn unused_code_goes_after_a_second_look() {
    let bench = Bench::new();
    bench.create("f", &with_code("", "1"));
    bench.create("g", &with_code("", "1"));
    bench.create("f", &with_code("", "2"));
    assert_eq!(bench.code_files().len(), 4);
    let mut seen = std::collections::BTreeSet::new();
    let mut look = || bench.runtime.block_on(deploy::collect_unused(&bench.node, &mut seen));
    look();
    look();
    assert_eq!(bench.code_files().len(), 4, "g still has the first code");
    bench.registry("DELETE", "/v1/functions/g", "").is(200, "");
    look();
    assert_eq!(bench.code_files().len(), 4, "an instance may be on its way");
    look();
    assert_eq!(bench.code_files().len(), 2);
    bench.create("g", &with_code("", "1"));
    look();
    look();
    assert_eq!(bench.code_files().len(), 4, "code that came back stays");
}

#[test]
fn changes_wait_for_the_start_and_stop_at_the_stop() {
    let bench = Bench::new();
    bench.phase.send_replace(Phase::Loading);
    bench.runtime.block_on(async {
        let create = answer(bench.registry.clone(), "POST", "/v1/functions/f", vec![], b"{}".to_vec());
        let settle = async {
            tokio::task::yield_now().await;
            assert!(bench.told.try_recv().is_err(), "not before the stored functions are there");
            bench.phase.send_replace(Phase::Ready);
        };
        let ((status, ..), ()) = tokio::join!(create, settle);
        assert_eq!(status, 200);
    });
    bench.phase.send_replace(Phase::Stopping);
    let answer = bench.registry("POST", "/v1/functions/f", "{}");
    assert_eq!((answer.status, answer.text()), (503, "engine is stopping"));
    assert_eq!(answer.headers["Retry-After"], "1");
    assert_eq!(bench.controller("GET", "/readyz").status, 503);
}

#[test]
fn a_shard_that_is_silent_is_named_and_the_change_is_stored() {
    let (sender, told) = channel();
    let fake = fake_shards(sender);
    let shards = Shards::new(2, move |shard, command| match (shard, command) {
        // Takes the order and never answers.
        (1, Command::Deploy(_, reply)) => {
            drop(reply);
            Ok(())
        }
        (shard, command) => fake.try_send(shard, command),
    });
    let bench = Bench::with(Access::Owner, shards, told);
    let answer = bench.registry("POST", "/v1/functions/f", "{}");
    assert_eq!(answer.status, 500);
    assert!(
        answer.text().starts_with("change is stored, but not in force yet: shard 1 did not answer"),
        "{}",
        answer.text()
    );
    assert_eq!(bench.registry("GET", "/v1/functions/f", "").status, 200);
}

#[test]
fn a_large_zip_is_taken() {
    let bench = Bench::new();
    // Over axum's default bound of 2 MB; noise, so that it stays large.
    let mut state = 1_u64;
    let noise: String = (0..3_000_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'!' + u8::try_from(state >> 58).unwrap())
        })
        .collect();
    bench.create("big", &with_code("", &noise));
    assert_eq!(bench.told().len(), 2);
}
