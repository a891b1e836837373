//! What a claim names besides its code: seen at /opt, by nobody else, and read-only.

use faaster_protocol::funclet::{CodeHash, Refusal, Request};
use serde_json::json;

use super::claims::{describe, refusal};
use crate::support::{Node, Options, can_run, python};

#[test]
fn layers_are_seen_at_opt_and_cannot_be_written() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options { runtimes: vec![python()], ..Options::default() });
    let (code, layers) = (node.code(1, &[("own", "code")]), node.code(2, &[("shared", "layer")]));
    let mut claim = node.engine.claim_request(0, code);
    claim.layers = Some(layers);
    let mut with = node.engine.claim_with(claim);
    with.load();
    assert_eq!(
        with.run("result = [open('/var/task/own').read(), open('/opt/shared').read()]"),
        json!(["code", "layer"])
    );
    let refused = "
import errno
def attempt(path):
    try:
        open(path, 'w')
    except OSError as error:
        return errno.errorcode[error.errno]
result = [attempt('/opt/new'), attempt('/opt/shared')]";
    assert_eq!(with.run(refused), json!(["EROFS", "EROFS"]));
    let flags =
        with.run("result = [line.split()[3] for line in open('/proc/mounts') if line.split()[1] == '/opt']");
    let flags = flags[0].as_str().unwrap().to_owned();
    assert!(["ro", "nosuid", "nodev"].iter().all(|flag| flags.split(',').any(|it| it == *flag)), "{flags}");
    let mut without = node.engine.claim(0, code);
    without.load();
    assert_eq!(without.run("import os; result = os.path.exists('/opt/shared')"), false);
    // One that is not there, and one that somebody else made, are refused, and nothing stays promised.
    std::os::unix::fs::chown(node.config.code_dir.join(layers.to_string()), Some(0), Some(0)).unwrap();
    for wrong in [CodeHash([9; 32]), layers] {
        let mut claim = node.engine.claim_request(0, code);
        claim.layers = Some(wrong);
        node.engine.send(&Request::Claim(claim));
        assert_eq!(refusal(&mut node.engine, claim.ticket), Refusal::Code);
    }
    assert_eq!(describe(&mut node.engine).1.memory_marked_bytes, 0);
    assert_eq!(node.stop(), 0);
    node.assert_nothing_left();
}
