//! When requests are due in an open loop: a pure function of rate, kind and seed.
//!
//! Owns: the next arrival's time. Must not know: answers, the clock. Nothing that happens in a run moves an arrival, so
//! the schedule is settled before the run begins, whatever the server does; it is only written down lazily.

use std::time::Duration;

/// How arrivals follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Evenly spaced.
    Constant,
    /// Independent of each other, as from many users.
    Poisson,
}

/// Requests per second over time: `from` at the start, `to` after `ramp`, even in between and `to` afterwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub from: f64,
    pub to: f64,
    pub ramp: Duration,
}

impl Rate {
    /// The same rate all the time.
    pub fn steady(rate: f64) -> Self {
        Self { from: rate, to: rate, ramp: Duration::ZERO }
    }

    /// Arrivals due before `secs`.
    pub fn expected_until(&self, secs: f64) -> f64 {
        let ramp = self.ramp.as_secs_f64();
        if secs >= ramp {
            return (self.from + self.to) / 2.0 * ramp + self.to * (secs - ramp);
        }
        self.from * secs + (self.to - self.from) / (2.0 * ramp) * secs * secs
    }

    /// When `count` arrivals are due: the inverse of [`Self::expected_until`].
    fn time_of(&self, count: f64) -> f64 {
        let ramp = self.ramp.as_secs_f64();
        let in_ramp = (self.from + self.to) / 2.0 * ramp;
        if count >= in_ramp {
            return ramp + (count - in_ramp) / self.to;
        }
        // a t^2 + from t = count, in the form that does not cancel for small a.
        let a = (self.to - self.from) / (2.0 * ramp);
        2.0 * count / (self.from + (self.from * self.from + 4.0 * a * count).max(0.0).sqrt())
    }
}

/// The arrivals of one thread, in nanoseconds from the start, in rising order, without end.
#[derive(Debug, Clone)]
pub struct Schedule {
    rate: Rate,
    arrivals: Arrivals,
    /// Constant: position of the next arrival among all threads'. Poisson: unit-rate time of the last one.
    count: f64,
    step: f64,
    dice: Dice,
}

impl Schedule {
    /// Arrivals of thread `thread` out of `threads`, which share the rate evenly.
    pub fn new(rate: Rate, arrivals: Arrivals, seed: u64, thread: usize, threads: usize) -> Self {
        assert!(thread < threads && rate.from >= 0.0 && rate.to > 0.0);
        #[expect(clippy::cast_precision_loss, reason = "there are at most a few dozen threads")]
        let (thread_part, step) = (thread as f64, threads as f64);
        let count = if arrivals == Arrivals::Constant { thread_part } else { 0.0 };
        let dice = Dice::new(seed, thread as u64);
        Self { rate, arrivals, count, step, dice }
    }
}

impl Iterator for Schedule {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let at = match self.arrivals {
            Arrivals::Constant => {
                let at = self.count;
                self.count += self.step;
                at
            }
            // Threads' independent Poisson streams add up to one of the whole rate.
            Arrivals::Poisson => {
                self.count += self.step * self.dice.exponential();
                self.count
            }
        };
        Some(nanoseconds(self.rate.time_of(at)))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's `as` saturates")]
fn nanoseconds(secs: f64) -> u64 {
    (secs * 1e9).round() as u64
}

/// Random numbers from a seed: SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The same numbers for the same seed and stream, other ones for others.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut dice = Self(seed);
        let start = dice.word() ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03);
        Self(start)
    }

    /// 64 random bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Even in the open interval from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a float")]
    pub fn unit(&mut self) -> f64 {
        ((self.word() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Exponential with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -self.unit().ln()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(rate: Rate, arrivals: Arrivals, threads: usize, until_ns: u64) -> Vec<u64> {
        let mut times: Vec<u64> = (0..threads)
            .flat_map(|thread| {
                Schedule::new(rate, arrivals, 7, thread, threads).take_while(move |at| *at < until_ns)
            })
            .collect();
        times.sort_unstable();
        times
    }

    #[test]
    fn constant_arrivals_are_evenly_spaced_over_all_threads() {
        let times = all(Rate::steady(20_000.0), Arrivals::Constant, 3, 1_000_000_000);
        assert_eq!(times.len(), 20_000);
        assert!(times.iter().enumerate().all(|(n, at)| at.abs_diff(n as u64 * 50_000) <= 1));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() {
        let times = all(Rate::steady(10_000.0), Arrivals::Poisson, 2, 20_000_000_000);
        // Standard deviation of the count is sqrt(200,000) = 447; the seed is fixed, so this never varies.
        assert!(times.len().abs_diff(200_000) < 4 * 447, "{}", times.len());
        let mut buckets = [0.0; 2000];
        times.iter().for_each(|at| buckets[usize::try_from(at / 10_000_000).unwrap()] += 1.0);
        let mean = buckets.iter().sum::<f64>() / 2000.0;
        let variance = buckets.iter().map(|it| (it - mean) * (it - mean)).sum::<f64>() / 1999.0;
        // Index of dispersion: 1 for Poisson, standard error sqrt(2 / 1999) = 0.032.
        assert!((variance / mean - 1.0).abs() < 4.0 * 0.032, "{}", variance / mean);
        // Every gap of a steady constant schedule is the same; here a share of 1 - 1/e is shorter than the mean.
        let short = times.windows(2).filter(|pair| pair[1] - pair[0] < 100_000).count();
        assert!(short.abs_diff(126_424) < 1000, "{short}");
    }

    #[test]
    fn a_ramp_has_its_rates_at_both_ends() {
        let rate = Rate { from: 100.0, to: 1100.0, ramp: Duration::from_secs(10) };
        let times = all(rate, Arrivals::Constant, 1, 12_000_000_000);
        let between =
            |from: u64, to: u64| times.iter().filter(|at| (from..to).contains(&(**at / 1_000_000))).count();
        assert!(between(0, 1000).abs_diff(150) <= 1);
        assert!(between(9000, 10_000).abs_diff(1050) <= 1);
        assert!(between(10_000, 11_000).abs_diff(1100) <= 1);
    }

    proptest! {
        #[test]
        fn schedules_rise_repeat_and_keep_their_rate(
            from in 0.0f64..5000.0, to in 1.0f64..50_000.0, ramp_ms in 0u64..3000, seed: u64,
            threads in 1usize..5, poisson: bool,
        ) {
            let rate = Rate { from, to, ramp: Duration::from_millis(ramp_ms) };
            let kind = if poisson { Arrivals::Poisson } else { Arrivals::Constant };
            for thread in 0..threads {
                let make = || Schedule::new(rate, kind, seed, thread, threads).take(300);
                let times: Vec<u64> = make().collect();
                prop_assert!(times.is_sorted());
                prop_assert!(make().eq(times.iter().copied()));
                if !poisson {
                    for (n, at) in times.iter().enumerate() {
                        let due = rate.expected_until(*at as f64 / 1e9);
                        let position = (n * threads + thread) as f64;
                        prop_assert!((due - position).abs() < 1e-3 * (1.0 + position), "{} {}", due, position);
                    }
                }
            }
        }

        #[test]
        fn another_seed_or_thread_is_another_schedule(seed: u64) {
            let first = |seed, thread| Schedule::new(Rate::steady(1e3), Arrivals::Poisson, seed, thread, 2).next();
            prop_assert_ne!(first(seed, 0), first(seed.wrapping_add(1), 0));
            prop_assert_ne!(first(seed, 0), first(seed, 1));
        }
    }
}
