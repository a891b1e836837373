//! Adding up what the threads counted, second by second.
//!
//! Owns: the sums. Must not know: threads, when they report. Works in the memory of the tallies that it is given and gives
//! them back empty: it may run on the server's core, and what it uses of that is missing in the measurement.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use crate::plan::{Loop, Plan};
use crate::run::{Second, micros};
use crate::tally::Tally;
use crate::worker::Window;

/// A tally and the thread that it is from.
pub type Owned = (usize, Box<Tally>);

/// A second that not every thread has reported.
struct Open {
    reported: usize,
    /// The first that came, with the others added to it.
    sum: Owned,
}

/// Adds up the threads' seconds.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct Merge<'p> {
    threads: usize,
    window: Window,
    drive: Loop,
    /// Of all seconds that are complete.
    pub total: Tally,
    open: BTreeMap<u32, Open>,
    pub seconds: Vec<Second>,
    progress: &'p mut dyn FnMut(&Second),
}

impl<'p> Merge<'p> {
    /// Nothing yet; `progress` hears of every second that is complete.
    pub fn new(plan: &Plan, window: Window, progress: &'p mut dyn FnMut(&Second)) -> Self {
        Self {
            threads: plan.threads(),
            window,
            drive: plan.drive,
            total: Tally::default(),
            open: BTreeMap::new(),
            seconds: Vec::new(),
            progress,
        }
    }

    /// Takes a thread's second. Answers the tallies that are done with, empty.
    pub fn add(&mut self, thread: usize, index: u32, mut tally: Box<Tally>) -> Vec<Owned> {
        let mut done = Vec::new();
        let reported = match self.open.entry(index) {
            Entry::Vacant(entry) => entry.insert(Open { reported: 1, sum: (thread, tally) }).reported,
            Entry::Occupied(mut entry) => {
                let open = entry.get_mut();
                open.sum.1.add(&tally);
                open.reported += 1;
                tally.clear();
                done.push((thread, tally));
                open.reported
            }
        };
        if reported == self.threads {
            done.extend(self.close(index));
        }
        done
    }

    fn close(&mut self, index: u32) -> Option<Owned> {
        let (thread, mut sum) = self.open.remove(&index)?.sum;
        let histogram = if self.drive == Loop::Closed { &sum.sent_to_done } else { &sum.intended_to_done };
        let from_ns = self.window.measure_ns + u64::from(index) * 1_000_000_000;
        let length = self.window.stop_ns.map_or(1_000_000_000, |stop| stop.saturating_sub(from_ns));
        let second = Second {
            second: index,
            length_s: Duration::from_nanos(length.min(1_000_000_000)).as_secs_f64(),
            succeeded: sum.succeeded,
            failed: sum.failed_all(),
            bytes_received: sum.bytes_received,
            p50_us: micros(histogram.value_at_quantile(0.5)),
            p99_us: micros(histogram.value_at_quantile(0.99)),
            max_us: micros(histogram.max()),
        };
        (self.progress)(&second);
        self.seconds.push(second);
        self.total.add(&sum);
        sum.clear();
        Some((thread, sum))
    }

    /// Where requests are counted, threads need not take the same number of seconds.
    pub fn finish(&mut self) {
        while let Some(index) = self.open.keys().next().copied() {
            self.close(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::RunFlags;

    fn plan(cores: &str) -> Plan {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            flags: RunFlags,
        }
        Line::parse_from(["", "--cores", cores, "-r", "10"]).flags.plan("http://127.0.0.1:1/").unwrap()
    }

    fn one(latency_ns: u64) -> Box<Tally> {
        let mut tally = Box::<Tally>::default();
        tally.record(Some(latency_ns), latency_ns);
        tally.succeeded = 1;
        tally
    }

    #[test]
    fn tallies_go_back_empty_to_those_whose_they_are() {
        let plan = plan("0,0");
        let window = Window { begin_ns: 0, measure_ns: 0, stop_ns: Some(3_000_000_000) };
        let mut told = Vec::new();
        let mut say = |second: &Second| told.push((second.second, second.succeeded, second.max_us > 1.5));
        let mut merge = Merge::new(&plan, window, &mut say);
        let empty = format!("{:?}", Tally::default());
        let mut owners = |thread, index, tally| -> Vec<usize> {
            let done = merge.add(thread, index, tally);
            assert!(done.iter().all(|(_, tally)| format!("{tally:?}") == empty));
            done.into_iter().map(|(owner, _)| owner).collect()
        };
        assert_eq!(owners(1, 0, one(1_000)), [], "the other thread's is missing");
        assert_eq!(owners(1, 1, one(1_000)), []);
        assert_eq!(owners(0, 0, one(2_000)), [0, 1]);
        assert_eq!(owners(0, 1, one(1_000)), [0, 1]);
        assert_eq!(owners(0, 2, one(1_000)), []);
        merge.finish();
        assert_eq!((merge.total.succeeded, merge.total.sent_to_done.len(), merge.seconds.len()), (5, 5, 3));
        assert_eq!(told, [(0, 2, true), (1, 2, false), (2, 1, false)]);
    }
}
