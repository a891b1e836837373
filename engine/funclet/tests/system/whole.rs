//! What a container costs that is made from nothing, used for one byte and removed, beside what `bwrap` and `runc` need
//! for a program that does nothing; prints, and decides nothing. Ours and runc's is the same program, null.c.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use faaster_protocol::funclet::{CodeHash, Event, NetworkMode};

use crate::support::{Node, Options, can_run, provided};

const ROUNDS: usize = 200;
/// Prints only when it is told to, for it takes its time.
const WANTED: &str = "FAASTER_WHOLE_CONTAINERS";
const PROGRAM_SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system/null.c");

/// A static program without a C library, which answers on its channel if it has one.
fn null_program(folder: &Path) -> PathBuf {
    let program = folder.join("null");
    let mut compile = Command::new("cc");
    compile.args(["-O2", "-static", "-nostdlib", "-o"]).arg(&program).arg(PROGRAM_SOURCE);
    run(&mut compile);
    program
}

/// Bundle of a container of runc, with all namespaces, whose program is static and does nothing.
fn runc_bundle(folder: &Path, program: &Path) -> PathBuf {
    let bundle = folder.join("bundle");
    std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
    std::fs::copy(program, bundle.join("rootfs/null")).unwrap();
    run(Command::new("runc").arg("spec").current_dir(&bundle));
    let path = bundle.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    spec["process"]["args"] = serde_json::json!(["/null"]);
    spec["process"]["terminal"] = false.into();
    std::fs::write(path, spec.to_string()).unwrap();
    bundle
}

fn run(command: &mut Command) {
    let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert!(ended.success(), "{command:?}: {ended}");
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// From the claim to the first frame, and from the kill to the last process's end.
fn container(node: &mut Node, code: CodeHash) -> (f64, f64) {
    let began = Instant::now();
    let mut instance = node.engine.claim(0, code);
    instance.load();
    let made = micros(began);
    let began = Instant::now();
    node.engine.kill(&instance);
    let wanted = (instance.slot, instance.generation);
    node.engine.expect(|event| match event {
        Event::Ended { slot, generation, .. } if (*slot, *generation) == wanted => Some(()),
        _ => None,
    });
    (made, micros(began))
}

/// One JSON object for each round: microseconds of each contender, which take turns.
#[test]
#[ignore = "prints times; bench/coldstarts runs it"]
fn whole_containers() {
    if std::env::var_os(WANTED).is_none() {
        eprintln!("skipped: {WANTED} is not set");
        return;
    }
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options {
        pool: 0,
        network: Some(NetworkMode::Egress),
        runtimes: vec![provided()],
        ..Options::default()
    });
    let code = node.code(1, &[("bootstrap", "")]);
    let folder = tempfile::tempdir().unwrap();
    let program = null_program(folder.path());
    std::fs::copy(&program, node.config.code_dir.join(code.to_string()).join("bootstrap")).unwrap();
    let bundle = runc_bundle(folder.path(), &program);
    for round in 0..ROUNDS {
        let (made, removed) = container(&mut node, code);
        let began = Instant::now();
        run(Command::new("bwrap").args(["--unshare-all", "--ro-bind", "/", "/", "true"]));
        let bwrap = micros(began);
        let began = Instant::now();
        run(Command::new("runc").args(["run", "-b"]).arg(&bundle).arg(format!("null-{round}")));
        let runc = micros(began);
        println!(
            "{}",
            serde_json::json!({"made_us": made, "removed_us": removed, "bwrap_us": bwrap, "runc_us": runc})
        );
    }
    assert_eq!(node.stop(), 0);
}
