//! What a funclet says to people: single lines on standard error, which the supervisor passes on.
//!
//! Owns: the pace. An engine that has been taken over can give cause for a line with every message, and must not fill
//! the machine's log with them. Must not know: what a line is about.

use std::cell::Cell;
use std::io::Write;

use faaster_limits::NOTICES_PER_SECOND_MAX;

use crate::config::FuncletConfig;
use crate::timers::Nanos;

const SECOND_NS: u64 = 1_000_000_000;

/// Lines of the second that is running.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    second: u64,
    said: u32,
    left_out: u64,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is said, after so many that were not.
    Said(u64),
    LeftOut,
}

impl Pace {
    fn admit(&mut self, now: Nanos) -> Fate {
        let second = now.0 / SECOND_NS;
        if second != self.second {
            (self.second, self.said) = (second, 0);
        }
        if self.said >= NOTICES_PER_SECOND_MAX {
            self.left_out += 1;
            return Fate::LeftOut;
        }
        self.said += 1;
        Fate::Said(std::mem::take(&mut self.left_out))
    }
}

thread_local! {
    /// A funclet is one thread.
    static PACE: Cell<Pace> = Cell::default();
}

/// Writes one line; what follows a line break is marked as belonging to it. More lines per second than the bound are
/// left out, and the next line says how many.
pub(crate) fn notice(config: &FuncletConfig, text: &str) {
    let mut pace = PACE.get();
    let fate = pace.admit(Nanos::now());
    PACE.set(pace);
    let Fate::Said(left_out) = fate else { return };
    let mut out = std::io::stderr();
    // Nobody is there to be told when standard error is gone.
    if left_out > 0 {
        writeln!(out, "funclet {}: {left_out} lines were left out", config.index).ok();
    }
    let text = text.trim_end().replace('\n', "\n  | ");
    writeln!(out, "funclet {}: {text}", config.index).ok();
}

/// An error and what caused it.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let mut pace = Pace::default();
        let at = |second: u64| Nanos(second * SECOND_NS + 5);
        for _ in 0..NOTICES_PER_SECOND_MAX {
            assert_eq!(pace.admit(at(7)), Fate::Said(0));
        }
        for _ in 0..100 {
            assert_eq!(pace.admit(at(7)), Fate::LeftOut);
        }
        assert_eq!(pace.admit(at(8)), Fate::Said(100));
        assert_eq!(pace.admit(at(8)), Fate::Said(0));
    }
}
