//! Cost of the frame codec (docs/protocol.md section 2), engine side: what each warm call pays twice.
//!
//! Owns: the measurements. Must not know: sockets.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use faaster_protocol::frame::{FrameType, HEADER_BYTES, Header, LoadMeta, append_invoke_meta};

/// Frames that a busy concurrent instance sends in one write.
const BATCH: u64 = 64;
const REQUEST_ID: &[u8] = b"9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d";
const RESULT: &[u8] = b"Hello world!";

fn response_frames(count: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for invocation in 1..=count {
        let mut header = Header::new(FrameType::Response, invocation);
        header.body_bytes = u32::try_from(RESULT.len()).expect("a short literal");
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(RESULT);
    }
    bytes
}

/// Walks over all frames, as the shard does with what one receive brought.
fn walk(mut bytes: &[u8]) -> u64 {
    let mut sum = 0;
    while let Some(header) = Header::decode(bytes).expect("the frames are well formed") {
        sum += header.invocation;
        bytes = &bytes[HEADER_BYTES + header.payload_bytes()..];
    }
    sum
}

fn headers(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    let header =
        Header { meta_bytes: 52, body_bytes: 12, deadline_ns: 1 << 50, ..Header::new(FrameType::Invoke, 7) };
    let wire = header.encode();
    group.bench_function("encode header", |b| b.iter(|| black_box(&header).encode()));
    group.bench_function("decode header", |b| b.iter(|| Header::decode(black_box(&wire))));
    group.bench_function("append invoke meta", |b| {
        let mut out = Vec::with_capacity(256);
        b.iter(|| {
            out.clear();
            append_invoke_meta(&mut out, black_box(REQUEST_ID), None, None)
        });
    });
    let batch = response_frames(BATCH);
    assert_eq!(walk(&batch), (1..=BATCH).sum::<u64>());
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("walk 64 responses", |b| b.iter(|| walk(black_box(&batch))));
    group.finish();
}

fn load(c: &mut Criterion) {
    let env: BTreeMap<String, String> = (0..8).map(|i| (format!("NAME_{i}"), format!("value {i}"))).collect();
    let meta = LoadMeta {
        function_name: "hello",
        function_version: "1",
        brn: "brn:cloud:faas:bj:8f6e5a28c663957ea04522547a66d08f:function:hello:1",
        handler: "index.handler",
        memory_mb: 128,
        timeout_ms: 5000,
        concurrency: 64,
        user_id: "df391b08c64c426a81645468c75163a5",
        env: &env,
    };
    c.bench_function("frame/encode load", |b| b.iter(|| black_box(&meta).encode_frame()));
}

criterion_group!(benches, headers, load);
criterion_main!(benches);
