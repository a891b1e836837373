//! The percentile listing that HdrHistogram's plotters read (`.hgrm`).
//!
//! Owns: its columns: value in milliseconds, quantile, count so far, 1 / (1 - quantile). Must not know: whose values.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// Lines for each halving of what is left, as the other implementations print.
const TICKS_PER_HALF: u32 = 5;

/// Writes a histogram of nanoseconds out.
pub fn listing(histogram: &Histogram<u64>) -> String {
    let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut so_far = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        so_far += step.count_since_last_iteration();
        let (value, quantile) = (millis(step.value_iterated_to()), step.quantile_iterated_to());
        let rest = 1.0 - quantile;
        let inverse = if rest > 0.0 { format!("{:>14.2}", 1.0 / rest) } else { String::new() };
        let line = format!("{value:>12.5} {quantile:>14.12} {so_far:>10} {inverse}");
        writeln!(out, "{}", line.trim_end()).expect("writing to a string cannot fail");
    }
    let (mean, deviation) = (histogram.mean() / 1e6, histogram.stdev() / 1e6);
    let (max, count) = (millis(histogram.max()), histogram.len());
    writeln!(out, "#[Mean    = {mean:>12.5}, StdDeviation   = {deviation:>12.5}]")
        .and_then(|()| writeln!(out, "#[Max     = {max:>12.5}, Total count    = {count:>12}]"))
        .and_then(|()| {
            let (buckets, sub) = (histogram.buckets(), 2048);
            writeln!(out, "#[Buckets = {buckets:>12}, SubBuckets     = {sub:>12}]")
        })
        .expect("writing to a string cannot fail");
    out
}

#[expect(clippy::cast_precision_loss, reason = "an hour of nanoseconds fits 53 bits")]
fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::histogram;

    #[test]
    fn listings_rise_to_the_whole_count() {
        let mut values = histogram();
        for value in 1..=10_000u64 {
            values.record(value * 1000).unwrap();
        }
        let text = listing(&values);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|it| it.parse().unwrap()).collect())
            .collect();
        assert!(rows.len() > 20 && rows.iter().all(|row| row.len() >= 3));
        assert!(rows.is_sorted_by(|a, b| a[0] <= b[0] && a[1] <= b[1] && a[2] <= b[2]));
        let last = rows.last().unwrap();
        assert!((last[1] - 1.0).abs() < 1e-12 && (last[2] - 10_000.0).abs() < 0.5, "{last:?}");
        let half = rows.iter().find(|row| row[1] >= 0.5).unwrap();
        assert!((half[0] - 5.0).abs() < 0.05, "{half:?}");
        assert!(text.contains("Total count    =        10000"));
    }

    #[test]
    fn nothing_is_listed_of_nothing() {
        assert!(listing(&histogram()).contains("Total count    =            0"));
    }
}
