//! Runs with more than one thread, over IPv6, and with as many connections as the machine has descriptors for.
//!
//! Owns: a server process per test. What is asserted are counts and bytes; no test depends on how fast anything is.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod server;

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use server::{LOADGEN, Server, result};

#[test]
fn two_threads_share_the_work_and_lose_none_of_it() {
    let server = Server::start(&[]);
    for (flags, name) in [
        (&["-c", "5"][..], "closed"),
        (&["-c", "5", "-r", "3000"], "open"),
        (&["-c", "4", "-p", "3", "-r", "3000", "--arrivals", "poisson"], "poisson and pipelined"),
        (&["-c", "4", "--no-keepalive"], "a connection each"),
    ] {
        let (result, _) = result(&server.url, &[flags, &["-t", "2", "-n", "1501"]].concat());
        assert_eq!(
            (&result["requests"], &result["succeeded"]),
            (&1501.into(), &1501.into()),
            "{name}: {result}"
        );
        assert_eq!(result["generator"]["busy"].as_array().unwrap().len(), 2, "{name}");
        let request_bytes = result["setting"]["request_bytes"].as_u64().unwrap();
        assert_eq!(result["bytes_sent"], 1501 * request_bytes, "{name}");
    }
}

#[test]
fn two_threads_keep_one_schedule() {
    let server = Server::start(&[]);
    let flags = ["-t", "2", "-c", "20", "-r", "2000", "-d", "2s"];
    let (result, _) = result(&server.url, &flags);
    assert_eq!(result["requests"], 4000, "{result}");
    let seconds = result["seconds"].as_array().unwrap();
    let answered: Vec<u64> = seconds.iter().map(|it| it["succeeded"].as_u64().unwrap()).collect();
    assert_eq!((answered.len(), answered.iter().sum::<u64>()), (2, 4000), "{result}");
    assert_eq!(result["latency"]["send_lag"]["count"], 4000);
    let (ramp, _) = self::result(&server.url, &["-t", "2", "-c", "20", "-r", "0..2000", "-d", "2s"]);
    let due = ramp["requests"].as_u64().unwrap();
    assert!(due.abs_diff(2000) <= 2, "half of the rate at its end, over 2 s: {due}");
}

#[test]
fn threads_are_pinned_each_to_a_core_of_its_own() {
    let server = Server::start(&["--delay", "constant:1h"]);
    let mut generator = Command::new(LOADGEN)
        .args(["run", "-t", "2", "-c", "2", "-n", "2", "-w", "0", "--timeout", "60s", &server.url])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let tasks = format!("/proc/{}/task", generator.id());
    let until = Instant::now() + Duration::from_secs(60);
    let cores = loop {
        let mut cores: Vec<String> = std::fs::read_dir(&tasks)
            .unwrap()
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok())
            .filter(|status| status.starts_with("Name:\tloadgen-"))
            .filter_map(|status| {
                Some(status.lines().find_map(|it| it.strip_prefix("Cpus_allowed_list:"))?.trim().to_owned())
            })
            .filter(|list| list.parse::<u16>().is_ok())
            .collect();
        cores.sort();
        cores.dedup();
        if cores.len() == 2 || Instant::now() > until {
            break cores;
        }
        std::thread::yield_now();
    };
    generator.kill().unwrap();
    generator.wait().unwrap();
    assert_eq!(cores.len(), 2, "{cores:?}");
}

#[test]
fn ipv6_is_spoken() {
    if TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let server = Server::start_tcp("[::1]", &[]);
    for flags in [&["-c", "3"][..], &["-c", "3", "--no-keepalive"], &["-c", "4", "-t", "2", "-r", "2000"]] {
        let (result, _) = result(&server.url, &[flags, &["-n", "1000"]].concat());
        assert_eq!(result["succeeded"], 1000, "{flags:?}: {result}");
        assert!(result["setting"]["target"].as_str().unwrap().starts_with("[::1]:"), "{result}");
    }
}

#[test]
fn ten_thousand_connections_fit_64_mb() {
    let server = Server::start(&[]);
    let (result, _) = result(&server.url, &["-c", "10000", "-n", "40000"]);
    assert_eq!(result["succeeded"], 40_000, "{result}");
    let peak_kib = result["generator"]["memory_peak_kib"].as_u64().unwrap();
    assert!(peak_kib < 64 * 1024, "{peak_kib} KiB");
}

/// All but those that the tool needs itself.
#[test]
fn as_many_connections_as_descriptors_are_served_and_one_more_is_refused() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    // The server has a table of its own size, and needs some descriptors too.
    let possible = limit.unwrap_or(u64::MAX).saturating_sub(64).min(19_936);
    let server = Server::start(&[]);
    let (count, requests) = (possible.to_string(), (2 * possible).to_string());
    let flags = ["-t", "2", "-c", &count, "-n", &requests, "--connect-timeout", "60s", "--timeout", "60s"];
    let (result, _) = result(&server.url, &flags);
    assert_eq!(
        (&result["succeeded"], &result["reconnects"]),
        (&(2 * possible).into(), &0.into()),
        "{result}"
    );
    let script = format!("ulimit -n {}; exec \"$0\" run -c {} \"$1\"", possible + 64, possible + 1);
    let output = Command::new("sh").args(["-c", &script, LOADGEN, &server.url]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&format!("`ulimit -n {}`", possible + 65)), "{stderr}");
}

#[test]
fn the_servers_cpu_time_is_told_per_request() {
    let server = Server::start(&[]);
    let pid = server.child.id().to_string();
    let (result, _) = result(&server.url, &["-c", "10", "-n", "60000", "--pid", &pid]);
    let told = &result["server"];
    assert_eq!(told["processes"], 1, "{result}");
    // 60,000 answers take many ticks of 10 ms; and no request can need more than the whole of the time.
    let each_us = told["cpu_us_per_request"].as_f64().unwrap();
    let wall_us = result["duration_s"].as_f64().unwrap() * 1e6;
    assert!(each_us > 0.0 && each_us * 60_000.0 <= 1.5 * wall_us + 20_000.0, "{result}");
}
