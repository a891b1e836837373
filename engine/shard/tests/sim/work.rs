//! What a call asks its runtime to do, written into the event, so that the runtime needs to know nothing else and the
//! client can foretell the answer.
//!
//! Owns: that little language. Must not know: HTTP, frames.

use faaster_sys::ring::sim::Dice;

/// What the handler does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Returns bytes that the call's number determines.
    Echo,
    /// Throws.
    Fail,
    /// Takes the whole runtime down.
    Crash,
    /// Writes bytes that are no frame.
    Garbage,
    /// Answers a call that nobody made.
    WrongId,
    /// Never answers.
    Silent,
    /// Returns more than is allowed.
    TooLarge,
}

const ACTS: [(Act, &str); 7] = [
    (Act::Echo, "echo"),
    (Act::Fail, "fail"),
    (Act::Crash, "crash"),
    (Act::Garbage, "garbage"),
    (Act::WrongId, "wrong-id"),
    (Act::Silent, "silent"),
    (Act::TooLarge, "too-large"),
];

/// One call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    /// Unique in a scenario.
    pub(crate) number: u64,
    pub(crate) act: Act,
    /// Bytes of the result.
    pub(crate) result_bytes: usize,
    /// Bytes of filler in the event.
    pub(crate) filler_bytes: usize,
    /// How long the handler takes.
    pub(crate) takes_us: u64,
}

impl Work {
    /// The event.
    pub(crate) fn event(&self) -> Vec<u8> {
        let (_, act) = ACTS.iter().find(|(act, _)| *act == self.act).expect("every act has a name");
        let mut event =
            format!("{} {act} {} {} {}\n", self.number, self.result_bytes, self.filler_bytes, self.takes_us)
                .into_bytes();
        event.extend(filler(!self.number, self.filler_bytes));
        event
    }

    /// Reads an event back; panics if any byte of it changed on the way.
    pub(crate) fn parse(event: &[u8]) -> Self {
        let line_end = event.iter().position(|byte| *byte == b'\n').expect("an event begins with a line");
        let line = std::str::from_utf8(&event[..line_end]).expect("the line is text");
        let mut words = line.split(' ');
        let mut word = || words.next().expect("five words");
        let number = word().parse().expect("a number");
        let name = word();
        let (act, _) = ACTS.into_iter().find(|(_, known)| *known == name).expect("a known act");
        let mut size = || word().parse::<usize>().expect("a size");
        let (result_bytes, filler_bytes) = (size(), size());
        let takes_us = size() as u64;
        let work = Self { number, act, result_bytes, filler_bytes, takes_us };
        assert!(event == work.event(), "the event of call {number} changed on its way");
        work
    }

    /// The handler's answer.
    pub(crate) fn result(&self) -> Vec<u8> {
        match self.act {
            Act::Fail => format!("{{\"errorMessage\":\"call {} failed\"}}", self.number).into_bytes(),
            _ => filler(self.number, self.result_bytes),
        }
    }
}

/// Bytes that `seed` determines.
fn filler(seed: u64, length: usize) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&dice.roll().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
