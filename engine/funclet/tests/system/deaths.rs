//! How containers end, by themselves and otherwise, and what the engine hears of it.

use faaster_protocol::funclet::{CodeHash, End, Event, Generation, Request};
use serde_json::json;

use crate::support::{Engine, Instance, Node, Options, can_run, eventually};

struct Ended {
    end: End,
    memory_peak_bytes: u64,
    memory_limit_bytes: u64,
    cpu_used_us: u64,
}

fn ended(engine: &mut Engine, instance: &Instance) -> Ended {
    let wanted = (instance.slot, instance.generation);
    engine.expect(|event| match *event {
        Event::Ended { slot, generation, end, memory_peak_bytes, memory_limit_bytes, cpu_used_us }
            if (slot, generation) == wanted =>
        {
            Some(Ended { end, memory_peak_bytes, memory_limit_bytes, cpu_used_us })
        }
        _ => None,
    })
}

fn start() -> (Node, CodeHash) {
    let node = Node::start(Options::default());
    let code = node.code(1, &[]);
    (node, code)
}

fn loaded(node: &mut Node, code: CodeHash) -> Instance {
    let mut instance = node.engine.claim(0, code);
    instance.load();
    instance
}

#[test]
fn exit_codes_and_signals_are_told_apart() {
    if !can_run() {
        return;
    }
    let (mut node, code) = start();
    for (program, expected) in [
        ("__import__('os')._exit(0)", End::Exited(0)),
        ("__import__('os')._exit(7)", End::Exited(7)),
        ("import os; os.kill(os.getpid(), 9)", End::Signalled(9)),
        ("import os; os.kill(os.getpid(), 15)", End::Signalled(15)),
        ("import ctypes; ctypes.string_at(0)", End::Signalled(11)),
    ] {
        let mut instance = loaded(&mut node, code);
        instance.invoke(program);
        assert!(instance.receive().is_none());
        let ended = ended(&mut node.engine, &instance);
        assert_eq!(ended.end, expected, "{program}");
        assert!(ended.memory_peak_bytes > 1 << 20 && ended.cpu_used_us > 0);
        assert_eq!(ended.memory_limit_bytes, 256 << 20);
    }
}

#[test]
fn out_of_memory_is_named() {
    if !can_run() {
        return;
    }
    let (mut node, code) = start();
    let mut neighbour = loaded(&mut node, code);
    let mut instance = loaded(&mut node, code);
    instance.invoke("x = bytearray(600 << 20)");
    assert!(instance.receive().is_none());
    assert_eq!(ended(&mut node.engine, &instance).end, End::OutOfMemory);
    // Only a child of the runtime is killed, and the runtime ends because of it.
    let mut instance = loaded(&mut node, code);
    instance.invoke(
        "
import os
child = os.fork()
if child == 0:
    x = bytearray(600 << 20)
os.waitpid(child, 0)
os._exit(1)",
    );
    assert!(instance.receive().is_none());
    assert_eq!(ended(&mut node.engine, &instance).end, End::OutOfMemory);
    assert_eq!(neighbour.run("result = 'untouched'"), "untouched");
}

#[test]
fn a_fork_bomb_stays_in_its_container() {
    if !can_run() {
        return;
    }
    let (mut node, code) = start();
    let mut neighbour = loaded(&mut node, code);
    let mut claim = node.engine.claim_request(0, code);
    claim.pids_max = 16;
    let mut instance = node.engine.claim_with(claim);
    instance.load();
    let bomb = "
import os, time
made = 0
try:
    while made < 1000:
        if os.fork() == 0:
            time.sleep(1000)
        made += 1
except BlockingIOError:
    pass
result = made";
    assert_eq!(instance.run(bomb), 14, "its init and the runtime are two of the sixteen");
    assert_eq!(neighbour.run("import subprocess; result = subprocess.run(['/bin/true']).returncode"), 0);
    node.engine.kill(&instance);
    assert_eq!(ended(&mut node.engine, &instance).end, End::Killed);
    eventually("all of the bomb is gone", || {
        node.cgroups().iter().all(|top| !top.join(group(&instance)).exists())
    });
}

fn group(instance: &Instance) -> String {
    format!("s{}g{}", instance.slot.0, instance.generation.0)
}

#[test]
fn daemons_end_with_the_runtime() {
    if !can_run() {
        return;
    }
    let (mut node, code) = start();
    let mut instance = loaded(&mut node, code);
    let daemon = "
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(1, 32):
            try: signal.signal(number, signal.SIG_IGN)
            except OSError: pass
        time.sleep(1000)
    os._exit(0)
os.wait()
result = len([p for p in os.listdir('/proc') if p.isdigit()])";
    assert_eq!(instance.run(daemon), 3, "init, the runtime, the daemon");
    instance.invoke("os._exit(0)");
    assert_eq!(ended(&mut node.engine, &instance).end, End::Exited(0));
    eventually("the container's cgroups are gone", || {
        node.cgroups().iter().all(|top| !top.join(group(&instance)).exists())
    });
}

#[test]
fn orphans_are_reaped() {
    if !can_run() {
        return;
    }
    let (mut node, code) = start();
    let mut instance = loaded(&mut node, code);
    let orphans = "
import os, time
for _ in range(20):
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)
until = time.monotonic() + 20
while time.monotonic() < until and len([p for p in os.listdir('/proc') if p.isdigit()]) > 2:
    time.sleep(0.001)
result = len([p for p in os.listdir('/proc') if p.isdigit()])";
    assert_eq!(instance.run(orphans), 2);
}

#[test]
fn a_kill_is_reported_once_and_only_for_this_life() {
    if !can_run() {
        return;
    }
    let (mut node, code) = start();
    let mut instance = loaded(&mut node, code);
    instance.run("import signal; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]");
    for _ in 0..3 {
        node.engine.kill(&instance);
    }
    assert_eq!(ended(&mut node.engine, &instance).end, End::Killed);
    let mut other = loaded(&mut node, code);
    node.engine.kill(&instance);
    node.engine.send(&Request::Kill { slot: other.slot, generation: Generation(other.generation.0 + 1) });
    assert_eq!(other.run("result = 'alive'"), "alive");
    assert!(!node.engine.aside.iter().any(|event| matches!(event, Event::Ended { .. })));
}

#[test]
fn containers_of_an_engine_that_hangs_up_end_and_the_pool_stays() {
    if !can_run() {
        return;
    }
    let (mut node, code) = start();
    let mut stays = loaded(&mut node, code);
    let mut other = node.another_engine();
    let mut instance = other.claim(0, code);
    instance.load();
    drop(other);
    assert!(instance.receive().is_none());
    assert_eq!(stays.run("result = 'alive'"), "alive");
    let mut next = node.another_engine();
    let mut instance = next.claim(0, code);
    instance.load();
    assert_eq!(instance.run("result = [1]"), json!([1]));
}

#[test]
fn many_lives_leave_no_descriptor_and_no_zombie() {
    if !can_run() {
        return;
    }
    let (mut node, code) = start();
    let count = |node: &Node| std::fs::read_dir(format!("/proc/{}/fd", node.funclet_pid())).unwrap().count();
    let live = |node: &mut Node| {
        let mut instance = loaded(node, code);
        assert_eq!(instance.run("result = 1"), 1);
        node.engine.kill(&instance);
        ended(&mut node.engine, &instance);
    };
    live(&mut node);
    let mut before = usize::MAX;
    eventually("the pool is full and the dead are gone", || {
        before = before.min(count(&node));
        node.processes().len() == 4
    });
    for _ in 0..20 {
        live(&mut node);
    }
    eventually("descriptors are back", || count(&node) <= before);
    eventually("processes are back", || node.processes().len() == 4);
}
