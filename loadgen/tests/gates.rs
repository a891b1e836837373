//! The ten gates in whole runs of the command: those whose verdict does not depend on how fast the machine is.
//!
//! Owns: a null server per test. The thresholds are tested where they are (`src/gates.rs`).
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;

use std::collections::BTreeSet;

use serde_json::Value;
use server::{Server, run};

/// As [`server::result`], with the warm-up that the flags name.
fn result(server: &Server, flags: &[&str]) -> Value {
    serde_json::from_slice(&run(&server.url, &[&["--json"], flags].concat()).stdout).unwrap()
}

fn gate<'r>(result: &'r Value, name: &str) -> &'r Value {
    result["gates"].as_array().unwrap().iter().find(|gate| gate["name"] == name).unwrap()
}

#[test]
fn every_run_says_how_each_of_the_ten_stands() {
    let server = Server::start(&[]);
    for (rate, of_the_schedule) in [(&[][..], "not_applicable"), (&["-r", "1000"], "passed")] {
        let result = result(&server, &[&["-n", "1000", "-w", "10ms"], rate].concat());
        let numbers: BTreeSet<u64> =
            result["gates"].as_array().unwrap().iter().map(|gate| gate["number"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (1..=10).collect());
        assert_eq!(gate(&result, "schedule")["state"], of_the_schedule);
        assert_eq!(gate(&result, "errors")["state"], "passed");
        assert_eq!(gate(&result, "samples")["state"], "passed");
        let broken = result["gates"].as_array().unwrap().iter().any(|gate| gate["state"] == "broken");
        assert_eq!(result["valid"], !broken);
    }
}

#[test]
fn a_server_that_may_use_the_generators_core_is_told() {
    let server = Server::start(&[]);
    // Many requests: only cores of threads that did something count, and that is told in ticks of 10 ms.
    let pid = server.child.id().to_string();
    let result = result(&server, &["-n", "100000", "-c", "20", "--pid", &pid]);
    let cpu = gate(&result, "cpu");
    assert_eq!(cpu["state"], "broken", "{cpu}");
    assert!(cpu["detail"].as_str().unwrap().contains("the server may run on the generator's cores"), "{cpu}");
    assert!(result["server"]["cpu_us_per_request"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_closed_loop_tells_a_rate_and_no_latencies() {
    let server = Server::start(&[]);
    let text = |flags: &[&str]| {
        let output = run(&server.url, &[&["-n", "2000", "-w", "10ms"], flags].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    let closed = text(&[]);
    assert!(closed.contains("rate") && !closed.contains("p50"), "{closed}");
    let on_request = text(&["--closed-times"]);
    assert!(on_request.contains("p50") && on_request.contains("do not quote"), "{on_request}");
    assert!(text(&["-r", "10000"]).contains("p50"));
    assert_eq!(result(&server, &["-n", "100"])["latency"]["intended_to_done"], Value::Null);
}

#[test]
fn every_result_discloses_machine_and_load() {
    let server = Server::start(&[]);
    let result = result(&server, &["-n", "100", "-c", "3", "-p", "2", "-r", "5000"]);
    let environment = &result["environment"];
    for told in ["kernel", "cpu", "governor", "clock_source", "load_average"] {
        assert!(!environment[told].as_str().unwrap().is_empty(), "{told}: {environment}");
    }
    assert!(environment["mitigations"].is_array() && environment["cores"].as_u64().unwrap() > 0);
    let setting = &result["setting"];
    assert_eq!(
        (&setting["connections"], &setting["pipeline"], &setting["keep_alive"], &setting["seed"]),
        (&3.into(), &2.into(), &true.into(), &1.into())
    );
    assert_eq!((setting["loop"].as_str(), setting["arrivals"].as_str()), (Some("open"), Some("constant")));
    assert!(setting["cores"].as_array().unwrap().len() == 1 && setting["target"].as_str().is_some());
}
