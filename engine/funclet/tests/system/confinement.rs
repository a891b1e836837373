//! What a function sees, and what it cannot do.

use faaster_protocol::frame::FrameType;
use serde_json::json;

use crate::support::{Instance, Node, Options, Proc, can_run};

fn loaded(node: &mut Node) -> Instance {
    let code = node.code(1, &[("hello.txt", "from the package")]);
    let mut instance = node.engine.claim(0, code);
    assert_eq!(instance.load().kind, FrameType::Ready);
    instance
}

/// Calls a system call by number; gives the errno's name, or `null`.
const SYSCALL: &str = "
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    if libc.syscall(*arguments) >= 0:
        return None
    return errno.errorcode[ctypes.get_errno()]
def attempt(function):
    try:
        function()
    except OSError as error:
        return errno.errorcode[error.errno]
";

#[test]
fn a_function_is_nobody_in_namespaces_of_its_own() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let mut instance = loaded(&mut node);
    assert_eq!(instance.run("result = open('/var/task/hello.txt').read()"), "from the package");
    let ids =
        instance.run("import os; result = [os.getuid(), os.getgid(), os.getgroups(), os.getpid() < 20]");
    assert_eq!(ids, json!([1000, 1000, [], true]));
    let fds = instance.run("result = sorted(int(fd) for fd in os.listdir('/proc/self/fd'))");
    assert_eq!(fds, json!([0, 1, 2, 3, 4]), "the last is the directory just read");
    let status = instance.run(
        "result = {k: v.strip() for k, v in (line.split(':', 1) for line in open('/proc/self/status') if ':' in line)}",
    );
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!((&status["NoNewPrivs"], &status["Seccomp"]), (&json!("1"), &json!("2")));
    let host_uid = crate::support::uid_of(instance.pid).unwrap();
    assert!(host_uid >= node.config.uid_base, "init's user on the host is {host_uid}");
    let pids = instance.run("result = sorted(int(p) for p in os.listdir('/proc') if p.isdigit())");
    assert_eq!(pids.as_array().unwrap().len(), 2, "init and the runtime: {pids}");
    assert_eq!(instance.run("import socket; result = socket.gethostname()"), "function");
    assert_eq!(instance.run("result = [name for _, name in socket.if_nameindex()]"), json!(["lo"]));
    let loopback = "
a = socket.create_server(('127.0.0.1', 0)); b = socket.create_connection(a.getsockname()); result = True";
    assert_eq!(instance.run(loopback), true);
    let mut peak = String::new();
    std::io::Read::read_to_string(&mut instance.gauge, &mut peak).unwrap();
    assert!((1 << 20..256 << 20).contains(&peak.trim().parse::<u64>().unwrap()), "{peak}");
    let environment =
        instance.run("result = [os.environ.get(n) for n in ('HOME', 'TMPDIR', 'LANG', 'COLOUR')]");
    assert_eq!(
        environment,
        json!(["/tmp", "/tmp", "C.UTF-8", null]),
        "user variables come with load, not before"
    );
    assert_eq!(
        instance.run("import resource; result = resource.getrlimit(resource.RLIMIT_CORE)"),
        json!([1, 1]),
        "1 is the one value that also stops a dump into a pipe"
    );
    let ranks =
        "result = [resource.getrlimit(getattr(resource, n)) for n in ('RLIMIT_RTPRIO', 'RLIMIT_NICE')]";
    let found = instance.run(ranks);
    assert_eq!(found, json!([[0, 0], [0, 0]]));
    assert_eq!(instance.run("result = resource.getrlimit(resource.RLIMIT_NOFILE)[0]"), 1024);
}

#[test]
fn privileged_calls_are_denied() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let mut instance = loaded(&mut node);
    instance.run(SYSCALL);
    // Numbers of x86_64.
    let denied = [
        ("mount", 165),
        ("umount2", 166),
        ("pivot_root", 155),
        ("unshare", 272),
        ("setns", 308),
        ("ptrace", 101),
        ("bpf", 321),
        ("keyctl", 250),
        ("kexec_load", 246),
        ("init_module", 175),
        ("open_tree", 428),
        ("fsopen", 430),
        ("perf_event_open", 298),
        ("userfaultfd", 323),
        ("process_vm_readv", 310),
        ("chroot", 161),
        ("reboot", 169),
    ];
    for (name, number) in denied {
        assert_eq!(instance.run(&format!("result = call({number}, 0, 0, 0, 0, 0)")), "EPERM", "{name}");
    }
    for (name, number) in [("io_uring_setup", 425), ("io_uring_enter", 426), ("clone3", 435)] {
        assert_eq!(instance.run(&format!("result = call({number}, 0, 0, 0, 0, 0)")), "ENOSYS", "{name}");
    }
    let new_user = "result = call(56, 0x10000000 | 17, 0, 0, 0, 0)";
    assert_eq!(instance.run(new_user), "EPERM", "clone(CLONE_NEWUSER)");
    for family in ["AF_PACKET", "AF_VSOCK", "AF_ALG"] {
        let code = format!(
            "result = attempt(lambda: __import__('socket').socket(__import__('socket').{family}, 3, 0))"
        );
        assert_eq!(instance.run(&code), "EPERM", "{family}");
    }
    assert_eq!(instance.run("import os; result = attempt(lambda: os.setuid(0))"), "EPERM");
    assert_eq!(instance.run("result = attempt(lambda: os.kill(1, 9))"), "EPERM");
    let threads = "
import threading, subprocess
t = threading.Thread(target=lambda: None); t.start(); t.join()
result = subprocess.run(['/bin/echo', 'hi'], capture_output=True, text=True).stdout";
    assert_eq!(instance.run(threads), "hi\n", "threads and programs still work");
}

#[test]
fn only_tmp_can_be_written_to() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let mut instance = loaded(&mut node);
    instance.run(SYSCALL);
    for folder in [
        "/",
        "/usr",
        "/usr/bin",
        "/etc",
        "/dev",
        "/var",
        "/var/task",
        "/var/runtime",
        "/opt",
        "/run",
        "/home",
    ] {
        let result = instance.run(&format!("result = attempt(lambda: open('{folder}/x', 'w'))"));
        assert!(result == "EROFS" || result == "EACCES", "{folder}: {result}");
    }
    for file in [
        "/etc/passwd",
        "/var/task/hello.txt",
        "/var/runtime/boot.py",
        "/usr/bin/env",
        "/proc/sys/kernel/hostname",
    ] {
        let result = instance.run(&format!("result = attempt(lambda: open('{file}', 'r+'))"));
        assert!(result == "EROFS" || result == "EACCES", "{file}: {result}");
    }
    assert_eq!(instance.run("open('/tmp/x', 'w').write('1'); result = open('/tmp/x').read()"), "1");
    assert_eq!(instance.run("open('/dev/shm/y', 'w').write('1'); result = open('/dev/shm/y').read()"), "1");
    assert_eq!(
        instance.run("open('/dev/null', 'w').write('1'); result = len(open('/dev/urandom', 'rb').read(5))"),
        5
    );
    assert_eq!(
        instance.run("result = attempt(lambda: os.mknod('/tmp/n', 0o20666, os.makedev(1, 3)))"),
        "EPERM"
    );
    let shadow = instance
        .run("result = [os.path.exists(p) for p in ('/etc/shadow', '/root/.ssh', '/work', '/sys/fs')]");
    assert_eq!(shadow, json!([false, false, false, false]));
    let proc = "result = [line.split()[5].split(',')[0] for line in open('/proc/self/mountinfo') if line.split()[4] == '/proc']";
    assert_eq!(instance.run(proc), json!(["ro"]));
    for file in ["/proc/self/oom_score_adj", "/proc/self/comm", "/proc/sys/net/ipv4/ip_forward"] {
        let result = instance.run(&format!("result = attempt(lambda: open('{file}', 'w'))"));
        assert_eq!(result, "EROFS", "{file}");
    }
    // For the kernel's choice when memory is out: set before there was a /proc to write to.
    assert_eq!(instance.run("result = open('/proc/self/oom_score_adj').read()"), "500\n");
}

#[test]
fn tmp_has_the_size_of_the_claim() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let code = node.code(1, &[]);
    let mut claim = node.engine.claim_request(0, code);
    claim.tmp_mb = 8;
    let mut instance = node.engine.claim_with(claim);
    instance.load();
    instance.run(SYSCALL);
    let fill = "
def fill():
    with open('/tmp/big', 'wb', buffering=0) as f:
        for _ in range(64):
            written = 0
            while written < 1 << 20:
                written += f.write(bytes((1 << 20) - written))
result = [attempt(fill), os.path.getsize('/tmp/big')]";
    assert_eq!(instance.run(&format!("import os{fill}")), json!(["ENOSPC", 8 << 20]));
    assert_eq!(
        instance.run("os.unlink('/tmp/big'); result = attempt(lambda: open('/tmp/x', 'w').write('1'))"),
        json!(null)
    );
}

#[test]
fn output_reaches_the_log_pipe_and_ends_with_the_runtime() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let mut instance = loaded(&mut node);
    instance
        .run("import sys; print('to output', flush=True); print('to error', file=sys.stderr, flush=True)");
    instance.run("open('/dev/stdout', 'w').write('by name\\n')");
    instance.invoke("os = __import__('os'); os._exit(0)");
    assert!(instance.receive().is_none());
    let mut text = String::new();
    std::io::Read::read_to_string(&mut instance.log, &mut text).unwrap();
    assert_eq!(text, "to output\nto error\nby name\n");
}

#[test]
fn a_masked_proc_outside_gives_a_whole_one_inside() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options { proc: Proc::Masked, ..Options::default() });
    let mut instance = loaded(&mut node);
    let pids = instance.run("import os; result = [int(p) for p in os.listdir('/proc') if p.isdigit()]");
    assert_eq!(pids.as_array().unwrap().len(), 2, "{pids}");
    assert_eq!(node.stop(), 0);
    node.assert_nothing_left();
}
