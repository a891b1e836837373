//! Runtimes of kind `exec`: the function's own program, run at claim.

use faaster_protocol::frame::FrameType;

use crate::support::{Node, Options, can_run};

/// Speaks just enough: `ready`, then what it was told about itself as an answer to anything.
const BOOTSTRAP: &str = r#"#!/usr/bin/python3 -S
import json, os, socket, struct
channel = socket.socket(fileno=3)
header = struct.Struct("<4sHHQQIII28x")
def send(kind, invocation, body):
    channel.sendall(header.pack(b"FAS\x01", kind, 0, invocation, 0, 0, len(body), 0) + body)
send(3, 0, b"")
while True:
    head = channel.recv(64, socket.MSG_WAITALL)
    if len(head) < 64:
        break
    fields = header.unpack(head)
    channel.recv(fields[5] + fields[6], socket.MSG_WAITALL) if fields[5] + fields[6] else b""
    send(6, fields[3], json.dumps([dict(os.environ), os.getcwd(), os.getuid()]).encode())
"#;

#[test]
fn a_program_gets_its_variables_and_serves() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let code = node.code(1, &[("bootstrap", BOOTSTRAP)]);
    let mut instance = node.engine.claim(1, code);
    assert_eq!(instance.load().kind, FrameType::Ready);
    let answer = instance.run("");
    let variable = |name: &str| answer[0][name].as_str().unwrap_or_default().to_owned();
    assert_eq!(variable("COLOUR"), "green");
    assert_eq!(variable("FAASTER_FUNCTION_NAME"), "hello");
    assert_eq!(variable("FAASTER_MEMORY_MB"), "256");
    assert_eq!(variable("FAASTER_HANDLER"), "h");
    assert_eq!(variable("HOME"), "/tmp");
    assert_eq!((answer[1].as_str(), answer[2].as_u64()), (Some("/var/task"), Some(1000)));
}

#[test]
fn programs_that_cannot_run_are_explained() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options::default());
    let cases: [(&[(&str, &str)], &str); 3] = [
        (&[("other", "")], "the code package has no file /var/task/bootstrap"),
        (&[("bootstrap", "not a program")], "neither a program for this machine nor a script"),
        (&[("bootstrap", "#!/no/such/interpreter\n")], "the interpreter or loader"),
    ];
    for (number, (files, expected)) in (1u8..).zip(cases) {
        let code = node.code(number, files);
        explain(&mut node, code, expected);
    }
    let code = node.code(9, &[("bootstrap", BOOTSTRAP)]);
    let file = node.config.code_dir.join(code.to_string()).join("bootstrap");
    std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    explain(&mut node, code, "is not executable");
}

fn explain(node: &mut Node, code: faaster_protocol::funclet::CodeHash, expected: &str) {
    let mut instance = node.engine.claim(1, code);
    let frame = instance.load();
    assert_eq!(frame.kind, FrameType::Error);
    let body: serde_json::Value = serde_json::from_slice(&frame.body).unwrap();
    assert!(body["errorMessage"].as_str().unwrap().contains(expected), "{body}");
    assert_eq!(body["errorType"], "Runtime.InvalidEntrypoint");
    assert!(instance.receive().is_none());
}
