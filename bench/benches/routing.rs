//! Cost of routing: from a raw path to the canonical key, and from the key to its home shard (no allocation on the way).
//!
//! Owns: the measurements. Must not know: shards.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use faaster_protocol::easyfaas::route::{
    KEY_BYTES_MAX, Target, canonical_key, invocation_target, trigger_key,
};
use faaster_shard::functions::home_of;

const ACCOUNT: &[u8] = b"df391b08c64c426a81645468c75163a5";
const BY_BRN: &[u8] =
    b"/v1/functions/brn:cloud:faas:bj:8f6e5a28c663957ea04522547a66d08f:function:hello:1/invocations";
const BY_ENCODED_BRN: &[u8] =
    b"/v1/functions/brn:cloud:faas:bj:8f6e5a28c663957ea04522547a66d08f:function:hello:%24LATEST/invocations";
const BY_NAME: &[u8] = b"/v1/functions/hello/invocations";
const TRIGGER: &[u8] = b"/df391b08c64c426a81645468c75163a5/hello/1";

/// A request line's part and the key that it must lead to.
struct Request {
    name: &'static str,
    path: &'static [u8],
    qualifier: Option<&'static [u8]>,
    key: &'static [u8],
}

const REQUESTS: [Request; 4] = [
    Request { name: "BRN", path: BY_BRN, qualifier: None, key: b"8f6e5a28c663957ea04522547a66d08f:hello:1" },
    Request {
        name: "BRN, encoded $LATEST",
        path: BY_ENCODED_BRN,
        qualifier: None,
        key: b"8f6e5a28c663957ea04522547a66d08f:hello:$LATEST",
    },
    Request {
        name: "name and qualifier (md5 of the account)",
        path: BY_NAME,
        qualifier: Some(b"1"),
        key: b"8f6e5a28c663957ea04522547a66d08f:hello:1",
    },
    Request {
        name: "trigger path (md5 of the account)",
        path: TRIGGER,
        qualifier: None,
        key: b"8f6e5a28c663957ea04522547a66d08f:hello:1",
    },
];

/// The whole way of one request to its key.
fn routes<'k>(path: &[u8], qualifier: Option<&[u8]>, out: &'k mut [u8; KEY_BYTES_MAX]) -> Option<&'k [u8]> {
    match invocation_target(path)? {
        Target::Invocation { identifier } => canonical_key(identifier, qualifier, ACCOUNT, out).ok(),
        Target::Trigger { user, function, version } => Some(trigger_key(user, function, version, out)),
    }
}

fn paths(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    let mut buffer = [0; KEY_BYTES_MAX];
    for Request { name, path, qualifier, key } in REQUESTS {
        assert_eq!(routes(path, qualifier, &mut buffer), Some(key), "{name}");
        group.bench_function(name, |b| {
            b.iter(|| routes(black_box(path), qualifier, &mut buffer).map(<[u8]>::len))
        });
    }
    group.bench_function("path that is no call", |b| {
        b.iter(|| routes(black_box(b"/v1/runtimes"), None, &mut buffer).map(<[u8]>::len))
    });
    group.finish();
}

fn home_shard(c: &mut Criterion) {
    let key = REQUESTS[0].key;
    let mut group = c.benchmark_group("home shard");
    for shards in [1, 2, 16, 128] {
        assert!(home_of(key, shards).0 < shards);
        group.bench_function(format!("of {shards}"), |b| b.iter(|| home_of(black_box(key), shards)));
    }
    group.finish();
}

criterion_group!(benches, paths, home_shard);
criterion_main!(benches);
