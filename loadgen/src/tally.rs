//! What was counted: latencies as histograms, failures by kind, bytes.
//!
//! Owns: the counts of one thread's second, or sums of such. Must not know: where they come from. Histograms are added
//! up, never their percentiles averaged; values beyond the range count as its end rather than being lost.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::bounds::{LATENCY_NS_MAX, PHASES_MAX};

/// Why a request did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(usize)]
pub enum Failure {
    /// No connection could be opened for it, or not within the time-out.
    Connect,
    /// The connection broke.
    Reset,
    /// The server closed the connection before its whole answer.
    Closed,
    /// Sent, and no whole answer within the time-out.
    Timeout,
    /// Due, and not sent before the time-out after the end of the run, because no connection came free.
    Unsent,
    /// What came is not HTTP.
    Parse,
    /// A status that was not expected.
    Status,
    /// A body that was not expected.
    Body,
    /// An answer that says that the function behind it failed.
    Function,
}

impl Failure {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Connect,
        Self::Reset,
        Self::Closed,
        Self::Timeout,
        Self::Unsent,
        Self::Parse,
        Self::Status,
        Self::Body,
        Self::Function,
    ];

    /// As it stands in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Unsent => "unsent",
            Self::Parse => "parse",
            Self::Status => "status",
            Self::Body => "body",
            Self::Function => "function",
        }
    }
}

/// An empty histogram of nanoseconds: 3 significant digits from 1 ns to an hour.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are constants that it takes")
}

/// Counts of measured requests.
#[derive(Debug, Clone)]
pub struct Tally {
    /// From the intended send to the whole answer, failures included as the time-out.
    pub intended_to_done: Histogram<u64>,
    /// From the send to the whole answer, likewise. In a closed loop both are the same and only this one is filled.
    pub sent_to_done: Histogram<u64>,
    /// From when the generator could have sent to when it did: its own lateness.
    pub lag: Histogram<u64>,
    /// Requests answered as expected.
    pub succeeded: u64,
    /// Requests that were not, by kind.
    pub failed: [u64; Failure::ALL.len()],
    /// Good answers that came within the measured time, whenever their requests were due.
    pub completed_in_window: u64,
    /// Arrivals that found every connection busy.
    pub waited_for_connection: u64,
    /// Longest such wait, in nanoseconds.
    pub connection_wait_ns_max: u64,
    /// Connections opened again.
    pub reconnects: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Latencies that were longer than a histogram can tell.
    pub overflowed: u64,
    /// What servers told of the time inside of them, by phase, in the order in which they were first told.
    pub phases: Vec<(String, Histogram<u64>)>,
}

/// Name of the time that no phase of an answer accounts for: the way there and back, and what the server does not tell.
pub const ELSEWHERE: &str = "elsewhere";

impl Default for Tally {
    fn default() -> Self {
        Self {
            intended_to_done: histogram(),
            sent_to_done: histogram(),
            lag: histogram(),
            succeeded: 0,
            failed: [0; Failure::ALL.len()],
            completed_in_window: 0,
            waited_for_connection: 0,
            connection_wait_ns_max: 0,
            reconnects: 0,
            bytes_sent: 0,
            bytes_received: 0,
            overflowed: 0,
            phases: Vec::new(),
        }
    }
}

impl Tally {
    /// One request's latencies in nanoseconds; `None` for the first in a closed loop.
    pub fn record(&mut self, intended_to_done_ns: Option<u64>, sent_to_done_ns: u64) {
        if let Some(latency) = intended_to_done_ns {
            self.overflowed += u64::from(latency > LATENCY_NS_MAX);
            self.intended_to_done.saturating_record(latency);
        }
        self.sent_to_done.saturating_record(sent_to_done_ns);
    }

    /// What a good answer told of its phases; `whole_ns` is the time that the client saw. An answer that told nothing
    /// is not counted.
    pub fn record_phases(&mut self, phases: Vec<(String, Duration)>, whole_ns: u64) {
        if phases.is_empty() {
            return;
        }
        let mut rest_ns = whole_ns;
        for (name, time) in phases {
            let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            rest_ns = rest_ns.saturating_sub(time_ns);
            self.phase(&name, |times| times.saturating_record(time_ns));
        }
        self.phase(ELSEWHERE, |times| times.saturating_record(rest_ns));
    }

    /// Of a server that makes up ever new names, the later ones are left out.
    fn phase(&mut self, name: &str, count: impl FnOnce(&mut Histogram<u64>)) {
        let known = self.phases.iter().position(|(known, _)| known == name);
        let index = known.unwrap_or_else(|| {
            if self.phases.len() <= PHASES_MAX {
                self.phases.push((name.to_owned(), histogram()));
            }
            self.phases.len() - 1
        });
        if self.phases[index].0 == name {
            count(&mut self.phases[index].1);
        }
    }

    /// Requests that ended, well or not.
    pub fn ended(&self) -> u64 {
        self.succeeded + self.failed_all()
    }

    /// Requests that failed, of every kind.
    pub fn failed_all(&self) -> u64 {
        self.failed.iter().sum()
    }

    /// Adds another thread's or second's counts.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.intended_to_done, &other.intended_to_done),
            (&mut self.sent_to_done, &other.sent_to_done),
            (&mut self.lag, &other.lag),
        ] {
            if !theirs.is_empty() {
                mine.add(theirs).expect("all histograms have the same bounds");
            }
        }
        self.succeeded += other.succeeded;
        self.failed.iter_mut().zip(other.failed).for_each(|(mine, theirs)| *mine += theirs);
        self.completed_in_window += other.completed_in_window;
        self.waited_for_connection += other.waited_for_connection;
        self.connection_wait_ns_max = self.connection_wait_ns_max.max(other.connection_wait_ns_max);
        self.reconnects += other.reconnects;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.overflowed += other.overflowed;
        for (name, theirs) in &other.phases {
            self.phase(name, |mine| mine.add(theirs).expect("all histograms have the same bounds"));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn failures_are_numbered_as_they_are_listed() {
        for (number, kind) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }

    #[test]
    fn what_is_too_long_is_counted_at_the_end() {
        let mut tally = Tally::default();
        tally.record(Some(u64::MAX), u64::MAX);
        assert_eq!((tally.overflowed, tally.intended_to_done.len()), (1, 1));
        assert!(tally.intended_to_done.max() >= LATENCY_NS_MAX);
    }

    #[test]
    fn phases_keep_their_order_and_leave_the_rest_to_elsewhere() {
        let millis = |name: &str, count| (name.to_owned(), Duration::from_millis(count));
        let mut tally = Tally::default();
        tally.record_phases(vec![millis("queue", 1), millis("claim", 2)], 10_000_000);
        tally.record_phases(Vec::new(), 10_000_000);
        let mut sum = Tally::default();
        sum.add(&tally);
        sum.add(&tally);
        let told: Vec<(&str, u64, u64)> =
            sum.phases.iter().map(|(name, it)| (name.as_str(), it.len(), it.max() / 1_000_000)).collect();
        assert_eq!(told, [("queue", 2, 1), ("claim", 2, 2), ("elsewhere", 2, 7)]);
        for number in 0..100 {
            sum.record_phases(vec![millis(&format!("p{number}"), 1)], 1_000_000);
        }
        assert_eq!(sum.phases.len(), PHASES_MAX + 1);
        assert_eq!(sum.phases[1].1.len(), 2, "those that have no place are counted nowhere");
    }

    proptest! {
        #[test]
        fn merged_parts_are_the_whole(
            values in proptest::collection::vec((1u64..LATENCY_NS_MAX, 0usize..4), 1..200),
        ) {
            let mut whole = Tally::default();
            let mut parts = vec![Tally::default(); 4];
            for (value, part) in &values {
                for tally in [&mut whole, &mut parts[*part]] {
                    tally.record(Some(*value), value / 2 + 1);
                    tally.succeeded += 1;
                    tally.failed[part + 1] += 2;
                }
            }
            let mut sum = Tally::default();
            parts.iter().for_each(|part| sum.add(part));
            prop_assert_eq!(&sum.intended_to_done, &whole.intended_to_done);
            prop_assert_eq!(&sum.sent_to_done, &whole.sent_to_done);
            prop_assert_eq!((sum.ended(), sum.failed), (whole.ended(), whole.failed));
            // And the percentiles are those of the sorted values, to 3 digits.
            let mut sorted: Vec<u64> = values.iter().map(|(value, _)| *value).collect();
            sorted.sort_unstable();
            for percent in [50usize, 90, 99] {
                let at = (sorted.len() * percent).div_ceil(100) - 1;
                let exact = sorted[at];
                let told = sum.intended_to_done.value_at_quantile(percent as f64 / 100.0);
                prop_assert!(told.abs_diff(exact) <= exact / 1000 + 1, "{} {}", told, exact);
            }
        }
    }
}
