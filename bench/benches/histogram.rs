//! Cost of recording one latency in an HdrHistogram, and of what a report does with many.
//!
//! Owns: the measurements. Must not know: who records. Values are microseconds up to a minute, 3 significant digits.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use hdrhistogram::Histogram;

/// Highest value that is told apart; above it, values count as this.
const HIGHEST_US: u64 = 60_000_000;

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_US, 3).expect("the bounds are in order")
}

/// Latencies as a busy server has them: most near 100 us, a tail up to seconds. Xorshift, so that each run is the same.
fn latencies() -> Vec<u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..4096)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let spread = 80 + state % 60;
            if state.is_multiple_of(97) { spread * 200 } else { spread }
        })
        .collect()
}

fn record(c: &mut Criterion) {
    let values = latencies();
    let mut group = c.benchmark_group("histogram");
    group.bench_function("record", |b| {
        let (mut histogram, mut next) = (empty(), values.iter().cycle());
        b.iter(|| histogram.saturating_record(black_box(*next.next().expect("a cycle has no end"))));
    });
    let mut filled = empty();
    values.iter().for_each(|value| filled.saturating_record(*value));
    group.bench_function("p99", |b| b.iter(|| black_box(&filled).value_at_quantile(0.99)));
    group.bench_function("merge", |b| {
        let mut sum = empty();
        b.iter(|| sum.add(black_box(&filled)).expect("both have the same bounds"));
    });
    group.finish();
}

criterion_group!(benches, record);
criterion_main!(benches);
