//! Cost of reading one request with faaster-http: head in place, body by length and chunked, and the answer's head.
//!
//! Owns: the measurements. Must not know: sockets.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use faaster_http::{BodyReader, DateCache, Framing, Parsed, Scratch, Template, parse};

const INVOKE: &str =
    "/v1/functions/brn:cloud:faas:bj:8f6e5a28c663957ea04522547a66d08f:function:hello:1/invocations";
const BODY_BYTES_MAX: u64 = 6 * 1024 * 1024;

/// The head that `bench/run` has wrk send.
fn short_head() -> String {
    format!(
        "POST {INVOKE} HTTP/1.1\r\nHost: 127.0.0.1:8001\r\nContent-Type: application/json\r\n\
         X-easyfaas-Account-Id: df391b08c64c426a81645468c75163a5\r\nContent-Length: 50\r\n\r\n"
    )
}

/// A head as a browser behind a CDN sends it.
fn long_head() -> String {
    let mut head = short_head();
    head.truncate(head.len() - 2);
    head.push_str(
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
         Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
         Cookie: session=9b1deb4d3b7d4bad9bdd2b0d7b3dcb6d; theme=dark; consent=1\r\n\
         X-Forwarded-For: 203.0.113.7, 198.51.100.23\r\nX-Forwarded-Proto: https\r\nX-Real-IP: 203.0.113.7\r\n\
         Via: 1.1 edge-7 (cdn)\r\nCDN-Loop: cdn\r\nTraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
         Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: none\r\nPriority: u=0, i\r\n\r\n",
    );
    head
}

fn parses(bytes: &[u8]) -> usize {
    let mut scratch = Scratch::new();
    match parse(bytes, &mut scratch) {
        Ok(Parsed::Complete(head)) => head.bytes,
        _ => 0,
    }
}

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("http head");
    for (name, head) in [("wrk", short_head()), ("browser behind a CDN", long_head())] {
        assert_eq!(parses(head.as_bytes()), head.len(), "{name} must be a whole, valid head");
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), head.as_bytes(), |b, head| {
            b.iter(|| parses(black_box(head)));
        });
    }
    group.finish();
}

fn reads(framing: Framing, input: &[u8]) -> u64 {
    let mut reader = BodyReader::new(framing, BODY_BYTES_MAX).expect("the body is below the limit");
    let mut sum = 0;
    let fed = reader.feed(input, &mut |data| sum += data.len() as u64).expect("the body is well formed");
    assert!(fed.done, "the input holds the whole body");
    sum
}

fn bodies(c: &mut Criterion) {
    let mut group = c.benchmark_group("http body");
    let data = vec![b'a'; 4096];
    let mut chunked = Vec::new();
    for piece in data.chunks(256) {
        chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.bench_function("content-length", |b| b.iter(|| reads(Framing::Length(4096), black_box(&data))));
    group.bench_function("16 chunks", |b| b.iter(|| reads(Framing::Chunked, black_box(&chunked))));
    group.finish();
}

fn answers(c: &mut Criterion) {
    let template = Template::new(&DateCache::new(1_795_356_000));
    c.bench_function("http answer/head from the template", |b| {
        let mut out = Vec::with_capacity(512);
        b.iter(|| {
            out.clear();
            template.append_ok(&mut out, black_box(12));
        });
    });
}

criterion_group!(benches, heads, bodies, answers);
criterion_main!(benches);
