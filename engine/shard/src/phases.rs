//! Where the time of a cold start went.
//!
//! Owns: the phases that one call saw between its arrival and its answer. Must not know: how an instance is made.

use std::time::Duration;

use faaster_protocol::easyfaas::tail::append_exec_time;

/// Phases of a cold start as the call saw them that waited for it. They follow one upon the other, so that their sum is
/// the time from the request's last byte to the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// Until the shard asked its funclet for an instance.
    pub queue: Duration,
    /// Until a container was there, and on the way to the funclet and back.
    pub claim: Duration,
    /// Of that: code, limits and cores given to it.
    pub attach: Duration,
    /// Until the runtime had loaded the handler.
    pub load: Duration,
    /// Until its answer.
    pub run: Duration,
}

/// When an instance came to what, in ns of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(crate) asked_ns: u64,
    /// As the funclet measured it.
    pub(crate) attach_ns: u64,
    pub(crate) claimed_ns: u64,
    pub(crate) ready_ns: u64,
}

impl Start {
    /// What of this start a call waited for that arrived then; what was over before is not the call's.
    pub(crate) fn seen_from(&self, arrived_ns: u64) -> Phases {
        let attach_from_ns = self.claimed_ns.saturating_sub(self.attach_ns).max(self.asked_ns);
        let mut at_ns = arrived_ns;
        let mut until = |end_ns: u64| {
            let took_ns = end_ns.saturating_sub(at_ns);
            at_ns = at_ns.max(end_ns);
            Duration::from_nanos(took_ns)
        };
        Phases {
            queue: until(self.asked_ns),
            claim: until(attach_from_ns),
            attach: until(self.claimed_ns),
            load: until(self.ready_ns),
            run: Duration::ZERO,
        }
    }
}

impl Phases {
    /// The line of the answer's head (<https://www.w3.org/TR/server-timing/>); milliseconds.
    pub(crate) fn append_header(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Server-Timing: ");
        let named =
            [("queue", self.queue), ("claim", self.claim), ("attach", self.attach), ("load", self.load)];
        for (name, took) in named.into_iter().chain([("run", self.run)]) {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b";dur=");
            append_exec_time(out, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            out.extend_from_slice(if name == "run" { b"\r\n" } else { b", " });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Start = Start { asked_ns: 1_000, attach_ns: 300, claimed_ns: 2_000, ready_ns: 5_000 };

    fn phases(queue: u64, claim: u64, attach: u64, load: u64) -> Phases {
        let ns = Duration::from_nanos;
        Phases { queue: ns(queue), claim: ns(claim), attach: ns(attach), load: ns(load), run: Duration::ZERO }
    }

    #[test]
    fn the_phases_of_a_call_are_the_whole_of_its_wait() {
        assert_eq!(START.seen_from(900), phases(100, 700, 300, 3_000));
        assert_eq!(START.seen_from(1_500), phases(0, 200, 300, 3_000));
        assert_eq!(START.seen_from(4_000), phases(0, 0, 0, 1_000));
        assert_eq!(START.seen_from(6_000), phases(0, 0, 0, 0));
    }

    #[test]
    fn a_funclet_that_says_too_much_takes_no_time_from_other_phases() {
        let start = Start { attach_ns: 9_999, ..START };
        assert_eq!(start.seen_from(900), phases(100, 0, 1_000, 3_000));
    }

    #[test]
    fn the_header_is_in_milliseconds() {
        let mut out = Vec::new();
        let run = Duration::from_micros(300);
        Phases { run, ..phases(120_000, 400_499, 0, 1_000_800_000) }.append_header(&mut out);
        let expected =
            b"Server-Timing: queue;dur=0.120, claim;dur=0.400, attach;dur=0.000, load;dur=1000.800, run;dur=0.300\r\n";
        assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(expected));
    }
}
