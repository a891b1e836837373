//! Whether two handfuls of measurements differ.
//!
//! Owns: nothing. Must not know: what was measured. Few values from a shared machine are not normally distributed, so
//! nothing here assumes that they are: medians, a rank test, and resampling.

use crate::schedule::Dice;

/// Resamples of a confidence range.
const RESAMPLES: usize = 4000;
/// Most values of one side that are looked at; evenly thinned beyond.
const VALUES_MAX: usize = 200;

/// The middle value; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (sorted[middle - 1] + upper) / 2.0 })
}

/// Smallest and largest value; `None` of nothing.
pub fn range(values: &[f64]) -> Option<(f64, f64)> {
    let first = *values.first()?;
    Some(values.iter().fold((first, first), |(least, most), it| (least.min(*it), most.max(*it))))
}

/// Probability that two samples of one distribution differ in ranks at least as much as these: the exact two-sided
/// Mann-Whitney test, ties at their mean rank. 1 where one side is empty.
pub fn rank_test(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (thinned(a), thinned(b));
    if a.is_empty() || b.is_empty() {
        return 1.0;
    }
    let ranks = doubled_ranks(&a, &b);
    let observed: usize = ranks[..a.len()].iter().sum();
    let all: usize = ranks.iter().sum();
    // ways[n][s]: how many choices of n ranks add up to s.
    let mut ways = vec![vec![0.0f64; all + 1]; a.len() + 1];
    ways[0][0] = 1.0;
    for rank in &ranks {
        for chosen in (1..=a.len()).rev() {
            let (fewer, more) = ways.split_at_mut(chosen);
            for sum in *rank..=all {
                more[0][sum] += fewer[chosen - 1][sum - rank];
            }
        }
    }
    let counts = &ways[a.len()];
    // The mean sum is a.len() (N + 1) in doubled ranks; both tails at least as far from it count.
    let mean = a.len() * (ranks.len() + 1);
    let distance = observed.abs_diff(mean);
    let total: f64 = counts.iter().sum();
    let beyond: f64 = counts
        .iter()
        .enumerate()
        .filter(|(sum, _)| sum.abs_diff(mean) >= distance)
        .map(|(_, count)| count)
        .sum();
    (beyond / total).min(1.0)
}

/// Twice the rank of each value of `a`, then of `b`, so that the mean rank of ties is whole.
fn doubled_ranks(a: &[f64], b: &[f64]) -> Vec<usize> {
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    all.iter()
        .map(|value| {
            let below = all.iter().filter(|it| *it < value).count();
            let not_above = all.iter().filter(|it| *it <= value).count();
            below + not_above + 1
        })
        .collect()
}

fn thinned(values: &[f64]) -> Vec<f64> {
    let step = values.len().div_ceil(VALUES_MAX).max(1);
    values.iter().copied().step_by(step).collect()
}

/// 95 % range of median(b) / median(a), by resampling both sides (percentile bootstrap, fixed seed). `None` where a
/// side is empty or the median of `a` is 0.
pub fn ratio_range(a: &[f64], b: &[f64]) -> Option<(f64, f64)> {
    let mut dice = Dice::new(20_260, 0);
    let mut pick = |values: &[f64]| -> Option<f64> {
        let count = u64::try_from(values.len()).ok().filter(|count| *count > 0)?;
        let resample: Vec<f64> = values
            .iter()
            .map(|_| values[usize::try_from(dice.word() % count).expect("below a length")])
            .collect();
        median(&resample)
    };
    let mut ratios = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let (below, above) = (pick(a)?, pick(b)?);
        if below <= 0.0 {
            return None;
        }
        ratios.push(above / below);
    }
    ratios.sort_by(f64::total_cmp);
    Some((ratios[RESAMPLES * 25 / 1000], ratios[RESAMPLES * 975 / 1000 - 1]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(range(&[3.0, 1.0, 2.0]), Some((1.0, 3.0)));
    }

    #[test]
    fn the_rank_test_gives_the_textbook_values() {
        // Complete separation of 5 and 5: 2 of the 252 choices are as extreme.
        let p = rank_test(&[1.0, 2.0, 3.0, 4.0, 5.0], &[6.0, 7.0, 8.0, 9.0, 10.0]);
        assert!((p - 2.0 / 252.0).abs() < 1e-12, "{p}");
        // U = 1 of 4 and 4: 4 of 70.
        let p = rank_test(&[1.0, 2.0, 3.0, 5.0], &[4.0, 6.0, 7.0, 8.0]);
        assert!((p - 4.0 / 70.0).abs() < 1e-12, "{p}");
        assert!((rank_test(&[1.0, 1.0], &[1.0, 1.0]) - 1.0).abs() < 1e-12, "nothing but ties");
        assert!((rank_test(&[], &[1.0]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn ranges_hold_the_ratio_and_shrink_with_certainty() {
        let (a, b) = ([100.0, 101.0, 99.0, 100.0, 102.0], [200.0, 202.0, 198.0, 201.0, 199.0]);
        let (least, most) = ratio_range(&a, &b).unwrap();
        assert!(least <= 2.0 && most >= 2.0 && most - least < 0.1, "{least} {most}");
        assert_eq!(ratio_range(&[], &b), None);
        assert_eq!(ratio_range(&[0.0], &b), None);
    }

    proptest! {
        #[test]
        fn the_test_is_symmetric_and_a_probability(
            a in proptest::collection::vec(0u8..20, 1..8), b in proptest::collection::vec(0u8..20, 1..8),
        ) {
            let a: Vec<f64> = a.into_iter().map(f64::from).collect();
            let b: Vec<f64> = b.into_iter().map(f64::from).collect();
            let p = rank_test(&a, &b);
            prop_assert!((0.0..=1.0).contains(&p));
            prop_assert!((p - rank_test(&b, &a)).abs() < 1e-9);
            prop_assert!(rank_test(&a, &a) > 0.99);
        }
    }
}
