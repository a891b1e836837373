//! Precedence, refusal of unknown names, and that all problems come together.

use std::ffi::OsString;
use std::io::Write;

use clap::{Args, FromArgMatches};

use super::settings::{SETTINGS, find};
use super::*;

fn machine() -> Machine {
    Machine { cores: vec![0, 1], parallelism: 2, memory_bytes: 8 << 30 }
}

fn flags(arguments: &[&str]) -> SettingFlags {
    let command = SettingFlags::augment_args(clap::Command::new("faaster"));
    let matches = command.try_get_matches_from([&["faaster"], arguments].concat()).unwrap();
    SettingFlags::from_arg_matches(&matches).unwrap()
}

fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

/// A configuration from flags, variables and the text of a file.
fn read(
    arguments: &[&str],
    variables: &[(&str, &str)],
    file: &str,
) -> Result<(Config, Vec<Effective>), Vec<String>> {
    let mut stored = tempfile::NamedTempFile::new().unwrap();
    stored.write_all(file.as_bytes()).unwrap();
    let path = stored.path().to_str().unwrap().to_owned();
    let arguments = [&["--config", path.as_str()], arguments].concat();
    let raw = Raw::collect(&flags(&arguments), environment(variables).into_iter());
    validate(&raw, &machine()).map_err(|error| {
        let describe =
            |problem: &Problem| format!("{}: {}", problem.origin, problem.text).replace(&path, "FILE");
        error.problems.iter().map(describe).collect()
    })
}

#[test]
fn defaults_are_good_and_every_setting_is_read() {
    let (config, effective) = read(&[], &[], "").unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8001");
    assert_eq!((config.shards, config.funclets), (2, 1));
    assert_eq!(config.memory_bytes, (8 << 30) / 100 * 80);
    let read: std::collections::BTreeSet<_> = effective.iter().map(|row| row.name).collect();
    let known: std::collections::BTreeSet<_> = SETTINGS.iter().map(|setting| setting.name).collect();
    assert_eq!(read, known);
    assert!(effective.iter().all(|row| row.origin == Origin::Default));
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let file = "shards = 3\nfunclets = 3\ngrace = \"3s\"\n";
    let variables = [("FAASTER_SHARDS", "4"), ("FAASTER_FUNCLETS", "4")];
    let (config, effective) = read(&["--shards", "5"], &variables, file).unwrap();
    assert_eq!((config.shards, config.funclets, config.grace), (5, 4, Duration::from_secs(3)));
    let origin = |name: &str| effective.iter().find(|row| row.name == name).unwrap().origin.clone();
    assert_eq!(origin("shards"), Origin::Flag("shards".into()));
    assert_eq!(origin("funclets"), Origin::Environment("FAASTER_FUNCLETS".into()));
    assert!(matches!(origin("grace"), Origin::File(_, key) if key == "grace"));
    assert_eq!(origin("data"), Origin::Default);
}

#[test]
fn all_problems_come_at_once_with_their_origin() {
    let file = "lisen = \"x\"\nshards = [1]\ngrace = \"soon\"\n[pool]\npython3 = \"many\"\n";
    let variables = [("FAASTER_SHARD", "1"), ("FAASTER_FUNCLETS", "99"), ("FAASTER_CONTROLLER", "http://x")];
    let problems = read(&["--engine-uid", "0", "--listen=here"], &variables, file).unwrap_err();
    assert_eq!(
        problems,
        [
            "lisen in FILE: there is no such setting; `faaster config` lists them",
            "shards in FILE: must be one string or number",
            "FAASTER_SHARD (environment): there is no such setting; `faaster config` lists them",
            "--listen: `here` must be an IP address and a port, such as 127.0.0.1:8001 or [::1]:8001",
            "FAASTER_FUNCLETS (environment): `99` must be a whole number from 1 to 16",
            "pool in FILE: `python3=many` must be a whole number from 0 to 3000",
            "--engine-uid: `0` must be a whole number from 1 to 4294967294",
            "grace in FILE: `soon` must be a duration such as 500ms, 30s, 5m or 2h",
        ]
    );
}

#[test]
fn a_broken_file_does_not_hide_other_problems() {
    let problems = read(&["--shards", "0"], &[], "grace = \n").unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("FILE: line 1: "), "{problems:?}");
}

#[test]
fn a_missing_file_that_was_named_is_a_problem() {
    let raw = Raw::collect(&flags(&["--config", "/no/such.toml"]), std::iter::empty());
    assert_eq!(raw.problems.len(), 1);
    let named = Raw::collect(&flags(&[]), environment(&[("FAASTER_CONFIG", "/no/such.toml")]).into_iter());
    assert_eq!(named.problems.len(), 1);
}

#[test]
fn settings_must_agree_with_each_other() {
    let arguments = [
        "--listen=127.0.0.1:9000",
        "--registry-listen=127.0.0.1:9000",
        "--run=/a",
        "--data=/a/b",
        "--funclets=2",
    ];
    let problems = read(&arguments, &[("FAASTER_SLOTS_MAX", "1")], "").unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(read(&["--listen=127.0.0.1:0", "--registry-listen=127.0.0.1:0"], &[], "").is_ok());
}

#[test]
fn switches_and_lists_are_typed_in_several_ways() {
    let (config, _) = read(&["--simple-auth=false", "--http-trigger"], &[], "http_trigger = false").unwrap();
    assert!(!config.simple_auth && config.http_trigger);
    let (config, _) = read(&["--pool", "a=1,b=2", "--pool", "c=3"], &[], "").unwrap();
    assert_eq!(config.pool.len(), 3);
    let (config, _) = read(&[], &[], "runtimes = [\"/tmp\", \"/usr\"]\npool = { a = 1 }").unwrap();
    assert_eq!(config.runtimes, [PathBuf::from("/tmp"), PathBuf::from("/usr")]);
    assert_eq!(config.pool["a"], 1);
}

#[test]
fn code_may_rest_for_months_or_for_good_but_not_for_no_time() {
    let idle = |text: &str| read(&["--code-idle", text], &[], "").map(|(config, _)| config.code_idle);
    let hours = |count: u64| Ok(Some(Duration::from_secs(count * 3600)));
    assert_eq!(read(&[], &[], "").unwrap().0.code_idle, hours(168).unwrap());
    assert_eq!((idle("8000h"), idle("never")), (hours(8000), Ok(None)));
    for (text, said) in [("0s", "longer than 0s"), ("9000h", "not be longer"), ("soon", "a duration")] {
        let problems = idle(text).unwrap_err();
        assert!(problems[0].contains(said), "{problems:?}");
    }
}

#[test]
fn the_network_is_read_and_its_nonsense_refused() {
    let (config, _) = read(&[], &[], "").unwrap();
    assert_eq!((config.network.mode, config.network.subnet), (Some(NetworkMode::Egress), None));
    let file = "network = \"off\"\nnetwork_subnet = \"192.168.64.0/20\"\nnetwork_dns = [\"9.9.9.9\", \"fd00::53\"]\n";
    let (config, _) = read(&["--network-mtu=1400", "--network-ipv6=off"], &[], file).unwrap();
    assert_eq!(
        (config.network.mode, config.network.mtu_bytes, config.network.v6),
        (None, Some(1400), V6::Off)
    );
    assert_eq!(config.network.subnet.unwrap().to_string(), "192.168.64.0/20");
    assert_eq!(config.network.dns.len(), 2);
    for wrong in [
        "--network=some",
        "--network-subnet=10.0.0.0",
        "--network-subnet=10.0.0.0/30",
        "--network-subnet=fd00::/64",
        "--network-mtu=1000",
        "--network-dns=127.0.0.53",
        "--network-dns=example.com",
        "--network-ipv6=on",
    ] {
        let problems = read(&[wrong], &[], "").unwrap_err();
        assert_eq!(problems.len(), 1, "{wrong}: {problems:?}");
    }
}

#[test]
fn every_setting_has_help_and_a_distinct_flag() {
    let mut seen = std::collections::BTreeSet::new();
    for setting in SETTINGS {
        assert!(!setting.help.is_empty() && seen.insert(setting.flag()), "{}", setting.name);
        assert!(find(setting.name).is_some());
    }
}

#[test]
fn the_last_of_two_flags_counts() {
    let (config, _) =
        read(&["--shards=1", "--simple-auth", "--shards=2", "--simple-auth=false"], &[], "").unwrap();
    assert_eq!((config.shards, config.simple_auth), (2, false));
}

#[test]
fn flags_can_be_passed_on() {
    let given =
        flags(&["--config", "/x", "--shards", "3", "--pool", "a=1", "--pool", "b=2", "--simple-auth"]);
    let words: Vec<String> = given.arguments().into_iter().map(|word| word.into_string().unwrap()).collect();
    assert_eq!(words, ["--config=/x", "--pool=a=1", "--pool=b=2", "--shards=3", "--simple-auth=true"]);
    let again = flags(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(again.arguments(), given.arguments());
}
