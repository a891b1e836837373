//! The knee: the highest rate at which a server keeps a latency bound.
//!
//! Owns: the search. Must not know: how a rate is tried.

use serde::{Deserialize, Serialize};

use crate::gates::{GateName, GateState};
use crate::result::RunResult;

/// Rates rise by this factor until one fails.
const STEP_UP: f64 = 1.5;
/// The search ends when the failing rate is at most this factor above the best one.
const NARROW: f64 = 1.05;
/// Never more tries than this.
const TRIES_MAX: usize = 40;

/// Whether a rate kept the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    Yes,
    No,
}

/// Looks for the knee between two rates.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    from: f64,
    to: f64,
    /// Best rate that kept the bound, and lowest that did not.
    kept: Option<f64>,
    failed: Option<f64>,
    tries: usize,
}

impl Search {
    /// Looks between these rates.
    pub fn new(from: f64, to: f64) -> Self {
        assert!(from > 0.0 && from <= to, "rates are checked before");
        Self { from, to, kept: None, failed: None, tries: 0 }
    }

    /// The rate to try next; `None` when the knee is known well enough.
    pub fn next_rate(&self) -> Option<f64> {
        if self.tries >= TRIES_MAX {
            return None;
        }
        match (self.kept, self.failed) {
            (None, None) => Some(self.from),
            (Some(kept), None) if kept >= self.to => None,
            (Some(kept), None) => Some((kept * STEP_UP).min(self.to)),
            // Not even the lowest.
            (None, Some(_)) => None,
            (Some(kept), Some(failed)) if failed <= kept * NARROW => None,
            (Some(kept), Some(failed)) => Some((kept * failed).sqrt()),
        }
    }

    /// What the last rate did.
    pub fn note(&mut self, rate: f64, kept: Kept) {
        self.tries += 1;
        match kept {
            Kept::Yes => self.kept = Some(self.kept.map_or(rate, |best| best.max(rate))),
            Kept::No => self.failed = Some(self.failed.map_or(rate, |least| least.min(rate))),
        }
    }

    /// The highest rate that kept the bound so far.
    pub fn knee(&self) -> Option<f64> {
        self.kept
    }
}

/// One rate that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub rate: f64,
    pub achieved: f64,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub p999_us: Option<f64>,
    pub kept: Kept,
    /// Gates that broke for another reason than that the server was too slow.
    pub doubts: Vec<GateName>,
}

/// All rates that were tried, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    pub p99_max_us: f64,
    /// Requests per second; `None` when not even the lowest rate kept the bound.
    pub knee: Option<f64>,
    /// In rising order of their rate.
    pub points: Vec<Point>,
}

impl Point {
    /// Judges a run at `rate`.
    pub fn of(rate: f64, result: &RunResult, p99_max_us: f64) -> Self {
        let at = |percent| result.latency.intended_to_done.as_ref().and_then(|it| it.at(percent));
        let broken: Vec<GateName> =
            result.gates.iter().filter(|it| it.state == GateState::Broken).map(|it| it.name).collect();
        let of_server = |name: &GateName| matches!(name, GateName::Delivered | GateName::Errors);
        let in_time = at(99.0).is_some_and(|p99| p99 <= p99_max_us);
        let kept = if in_time && !broken.iter().any(of_server) { Kept::Yes } else { Kept::No };
        let doubts = broken.into_iter().filter(|name| !of_server(name)).collect();
        Self {
            rate,
            achieved: result.rate,
            p50_us: at(50.0),
            p99_us: at(99.0),
            p999_us: at(99.9),
            kept,
            doubts,
        }
    }

    /// As one line.
    pub fn text(&self) -> String {
        let time = |us: Option<f64>| us.map_or("-".to_owned(), crate::text::duration);
        let (p50, p99, p999) = (time(self.p50_us), time(self.p99_us), time(self.p999_us));
        let kept = if self.kept == Kept::Yes { "kept" } else { "failed" };
        let doubts = if self.doubts.is_empty() {
            String::new()
        } else {
            format!("  INVALID: {}", format!("{:?}", self.doubts).to_lowercase())
        };
        format!("{:>10.0} {:>10.0} {p50:>12} {p99:>12} {p999:>12}  {kept}{doubts}", self.rate, self.achieved)
    }
}

/// Heading of [`Point::text`].
pub const HEADING: &str = "   asked/s answered/s          p50          p99        p99.9";

impl Sweep {
    /// Whether the knee may be quoted: neither the run at it nor the lowest that failed, which bounds it from above, broke a
    /// gate for which the server is not to blame.
    pub fn is_valid(&self) -> bool {
        let at_knee = self.points.iter().find(|point| Some(point.rate) == self.knee);
        let above = self.points.iter().find(|point| point.kept == Kept::No);
        at_knee.into_iter().chain(above).all(|point| point.doubts.is_empty())
    }

    /// The last line.
    pub fn verdict(&self) -> String {
        let bound = crate::text::duration(self.p99_max_us);
        match self.knee {
            None => format!("no rate that was tried kept p99 within {bound}: begin lower with --from"),
            Some(knee) => {
                let doubt =
                    if self.is_valid() { "" } else { " (INVALID: see its line and that of the next rate)" };
                format!("knee: {knee:.0} requests/s with p99 within {bound}{doubt}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_knee_is_as_good_as_the_runs_on_both_sides_of_it() {
        let point = |rate, kept, doubts: &[GateName]| Point {
            rate,
            achieved: rate,
            p50_us: None,
            p99_us: None,
            p999_us: None,
            kept,
            doubts: doubts.to_vec(),
        };
        let (lag, cpu) = (&[GateName::Lag][..], &[GateName::Cpu][..]);
        let valid =
            |knee, points: &[Point]| Sweep { p99_max_us: 1.0, knee, points: points.to_vec() }.is_valid();
        let (below, knee, above) =
            (point(1.0, Kept::Yes, lag), point(2.0, Kept::Yes, &[]), point(3.0, Kept::No, &[]));
        assert!(valid(Some(2.0), &[below.clone(), knee.clone(), above, point(4.0, Kept::No, cpu)]));
        assert!(!valid(Some(2.0), &[knee.clone(), point(3.0, Kept::No, cpu)]), "who failed there?");
        assert!(!valid(Some(1.0), &[below, point(3.0, Kept::No, &[])]));
        assert!(valid(Some(2.0), &[knee]), "nothing failed up to the highest rate");
        assert!(!valid(None, &[point(3.0, Kept::No, lag)]));
    }

    proptest! {
        #[test]
        fn the_knee_is_found(limit in 1.0f64..1e6, from in 1.0f64..1e4, span in 1.0f64..1e4) {
            let to = from * span;
            let mut search = Search::new(from, to);
            let mut tries = 0;
            while let Some(rate) = search.next_rate() {
                prop_assert!(rate >= from && rate <= to * (1.0 + 1e-9));
                search.note(rate, if rate <= limit { Kept::Yes } else { Kept::No });
                tries += 1;
            }
            prop_assert!(tries <= TRIES_MAX);
            match search.knee() {
                None => prop_assert!(limit < from),
                Some(knee) => {
                    prop_assert!(knee <= limit);
                    prop_assert!(knee >= to || knee * NARROW >= limit, "{} {}", knee, limit);
                }
            }
        }
    }
}
