//! Tests of defaults, bounds, runtime names, and that every problem of a request is named.

use std::path::PathBuf;

use super::*;
use crate::draft;
use crate::runtime::{CallsAtOnce, RuntimeKind};

fn spec(name: &str, names: &[&str], handler: &str) -> RuntimeSpec {
    RuntimeSpec {
        name: name.into(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        kind: RuntimeKind::Pooled,
        version: format!("{name} 1.2"),
        folder: PathBuf::new(),
        argv: vec![],
        fork_server: vec![],
        forks: None,
        env: BTreeMap::new(),
        pool: 1,
        default_handler: handler.into(),
        default_code: None,
        calls: CallsAtOnce::ByQuota,
        rootfs: None,
    }
}

fn runtimes() -> Vec<RuntimeSpec> {
    vec![
        spec("nodejs", &["nodejs*"], "index.handler"),
        spec("python3", &["python3*", "python"], "index.handler"),
        spec("provided", &["provided*"], "bootstrap"),
        spec("nodejs22", &["nodejs22"], "index.handler"),
    ]
}

fn create(body: &str) -> Result<Settings, String> {
    let mut problems = Problems::default();
    let settings = for_create(&draft::parse(body.as_bytes()).unwrap(), &runtimes(), &mut problems);
    problems.or(settings).map_err(|problems| problems.to_string())
}

#[test]
fn defaults_are_faasters() {
    let expected = Settings {
        description: None,
        runtime: "nodejs8.5".into(),
        handler: "index.handler".into(),
        timeout_secs: 5,
        memory_mb: 128,
        concurrency: Concurrency::Exclusive,
        instances_max: None,
        instances_min: None,
        environment: BTreeMap::new(),
        network_mode: None,
        layers: None,
    };
    assert_eq!(create("{}").unwrap(), expected);
    assert_eq!(
        create(r#"{"Timeout":0,"MemorySize":0,"PodConcurrentQuota":0,"Description":""}"#).unwrap(),
        expected
    );
    assert_eq!(create(r#"{"Runtime":"provided"}"#).unwrap().handler, "bootstrap");
}

#[test]
fn bounds_hold_at_their_edges() {
    for (body, valid) in [
        (r#"{"Timeout":1}"#, true),
        (r#"{"Timeout":900}"#, true),
        (r#"{"Timeout":901}"#, false),
        (r#"{"Timeout":-1}"#, false),
        (r#"{"MemorySize":127}"#, false),
        (r#"{"MemorySize":10240}"#, true),
        (r#"{"MemorySize":100000}"#, false),
        (r#"{"PodConcurrentQuota":1024}"#, true),
        (r#"{"PodConcurrentQuota":1025}"#, false),
        (r#"{"PodConcurrentQuota":-1}"#, false),
        (r#"{"MaxInstances":0}"#, false),
        (r#"{"MaxInstances":1000}"#, true),
        (r#"{"MaxInstances":1001}"#, false),
        (r#"{"MinInstances":0}"#, true),
        (r#"{"MinInstances":-1}"#, false),
        (r#"{"MinInstances":4,"MaxInstances":4}"#, true),
        (r#"{"MinInstances":5,"MaxInstances":4}"#, false),
        (r#"{"Timeout":9223372036854775807}"#, false),
        (r#"{"Environment":{"Variables":{"_A1":"x"}}}"#, true),
        (r#"{"Environment":{"Variables":{"1A":"x"}}}"#, false),
        (r#"{"Environment":{"Variables":{"A-B":"x"}}}"#, false),
        (r#"{"Environment":{"Variables":{"":"x"}}}"#, false),
        (r#"{"Environment":{"Variables":{"FAASTER_X":"x"}}}"#, false),
        (r#"{"Environment":{"Variables":{"A":"\u0000"}}}"#, false),
        (r#"{"Handler":"a\nb"}"#, false),
        (r#"{"NetworkMode":"egress"}"#, true),
        (r#"{"NetworkMode":""}"#, true),
        (r#"{"NetworkMode":"Egress"}"#, false),
    ] {
        assert_eq!(create(body).is_ok(), valid, "{body}");
    }
    let variables =
        |bytes: usize| format!(r#"{{"Environment":{{"Variables":{{"A":"{}"}}}}}}"#, "x".repeat(bytes - 1));
    assert!(create(&variables(ENVIRONMENT_BYTES_MAX)).is_ok());
    assert!(create(&variables(ENVIRONMENT_BYTES_MAX + 1)).is_err());
    assert!(create(&format!(r#"{{"Handler":"{}"}}"#, "h".repeat(129))).is_err());
    assert!(create(&format!(r#"{{"Description":"{}"}}"#, "d".repeat(257))).is_err());
}

#[test]
fn a_network_mode_can_be_given_back() {
    let full = create(r#"{"NetworkMode":"full"}"#).unwrap();
    assert_eq!(full.network_mode, Some(NetworkMode::Full));
    let update = |body: &str| {
        let mut problems = Problems::default();
        let changed = for_update(&full, &draft::parse(body.as_bytes()).unwrap(), &runtimes(), &mut problems);
        problems.or(changed).unwrap().network_mode
    };
    assert_eq!(update("{}"), Some(NetworkMode::Full));
    assert_eq!(update(r#"{"NetworkMode":"none"}"#), Some(NetworkMode::None));
    assert_eq!(update(r#"{"NetworkMode":""}"#), None);
}

#[test]
fn every_problem_is_named_at_once() {
    let text = create(
        r#"{"Timeout":-1,"MemorySize":1,"PodConcurrentQuota":5000,"MaxInstances":0,"Runtime":"java8","Environment":{"Variables":{"a b":"c"}}}"#,
    )
    .unwrap_err();
    for part in [
        "Timeout must be from 1 to 900 seconds, not -1",
        "MemorySize",
        "PodConcurrentQuota",
        "MaxInstances",
        "java8",
        "a b",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn names_map_to_what_is_installed() {
    let runtimes = runtimes();
    for (asked, expected) in [
        ("nodejs6.11", Some(0)),
        ("nodejs8.5", Some(0)),
        ("nodejs12", Some(0)),
        ("nodejs22", Some(3)),
        ("python3", Some(1)),
        ("python3.6", Some(1)),
        ("python", Some(1)),
        ("provided.al2", Some(2)),
        ("python2.7", None),
        ("java8", None),
        ("lua5.3", None),
        ("", None),
    ] {
        assert_eq!(resolve_runtime(asked, &runtimes).map(|index| index.0), expected, "{asked}");
    }
    let text = unknown_runtime("python2.7", &runtimes);
    assert!(
        text.starts_with(
            "Runtime \"python2.7\" is not available on this node; it has: nodejs* (nodejs 1.2), "
        ),
        "{text}"
    );
    assert!(text.contains("python3* or python (python3 1.2)"));
}

#[test]
fn an_update_changes_what_it_names() {
    let current = create(
        r#"{"Timeout":9,"MemorySize":256,"PodConcurrentQuota":4,"Description":"d","Environment":{"Variables":{"A":"1"}}}"#,
    )
    .unwrap();
    let update = |body: &str| {
        let mut problems = Problems::default();
        let settings =
            for_update(&current, &draft::parse(body.as_bytes()).unwrap(), &runtimes(), &mut problems);
        problems.or(settings)
    };
    assert_eq!(update("{}").unwrap(), current);
    assert_eq!(update(r#"{"Timeout":7}"#).unwrap(), Settings { timeout_secs: 7, ..current.clone() });
    assert_eq!(update(r#"{"PodConcurrentQuota":0}"#).unwrap().concurrency, Concurrency::Exclusive);
    assert_eq!(update(r#"{"Description":""}"#).unwrap().description, None);
    assert!(update(r#"{"Environment":{"Variables":{}}}"#).unwrap().environment.is_empty());
    assert!(update(r#"{"Runtime":"java8"}"#).is_err());
}

#[test]
fn versions_are_checked() {
    let mut problems = Problems::default();
    let draft = draft::parse(br#"{"Version":"prod"}"#).unwrap();
    assert_eq!(version_of(&draft, &mut problems), None);
    assert!(problems.to_string().contains("version must be $LATEST or a number"));
}
