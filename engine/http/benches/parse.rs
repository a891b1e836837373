//! Costs of the hot path: one parsed invocation request, one appended answer head.
//!
//! Owns: the measured examples. Must not know: anything that is not public.
//! Run with `cargo bench -p faaster-http`.
#![forbid(unsafe_code)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use faaster_http::{BodyReader, DateCache, Framing, Scratch, Template, parse};
use std::hint::black_box;

/// An invocation as an SDK sends it.
const REQUEST: &[u8] =
    b"POST /v1/functions/brn:cloud:faas:bj:df391b08c64c426a81645468c75163a5:function:hello:1/invocations \
HTTP/1.1\r\nHost: 127.0.0.1:8003\r\nX-easyfaas-Account-Id: df391b08c64c426a81645468c75163a5\r\n\
Content-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"name\":\"ab\"}";

/// A request as a browser sends it.
const BROWSER: &[u8] = b"GET /demo/index.html?a=1&b=2 HTTP/1.1\r\nHost: faas.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\nConnection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\n\
Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: none\r\nSec-Fetch-User: ?1\r\n\
Priority: u=0, i\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\r\n";

fn parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for (name, request) in [("invocation", REQUEST), ("browser", BROWSER)] {
        group.throughput(Throughput::Bytes(request.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut scratch = Scratch::new();
                black_box(parse(black_box(request), &mut scratch)).is_ok()
            });
        });
        // What httparse alone costs: the rest is ours.
        group.bench_function(format!("{name}, httparse alone"), |bencher| {
            bencher.iter(|| {
                let mut headers = [const { std::mem::MaybeUninit::uninit() }; faaster_limits::HEADERS_MAX];
                let mut parsed = httparse::Request::new(&mut []);
                let result = parsed.parse_with_uninit_headers(black_box(request), &mut headers);
                black_box(&parsed);
                result.is_ok()
            });
        });
    }
    group.finish();
}

fn answering(criterion: &mut Criterion) {
    let template = Template::new(&DateCache::new(784_111_777));
    let mut out = Vec::with_capacity(4096);
    criterion.bench_function("template append", |bencher| {
        bencher.iter(|| {
            out.clear();
            template.append_ok(&mut out, black_box(1234));
            black_box(out.len())
        });
    });
}

fn chunks(criterion: &mut Criterion) {
    let body = format!("1000\r\n{}\r\n", "d".repeat(0x1000)).repeat(16) + "0\r\n\r\n";
    let mut group = criterion.benchmark_group("chunked");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("64 KiB in chunks of 4 KiB", |bencher| {
        bencher.iter(|| {
            let mut reader = BodyReader::new(Framing::Chunked, 1 << 20).expect("nothing announced");
            let mut total = 0;
            let fed = reader.feed(black_box(body.as_bytes()), &mut |part| total += part.len());
            black_box((fed, total))
        });
    });
    group.finish();
}

criterion_group!(benches, parsing, answering, chunks);
criterion_main!(benches);
