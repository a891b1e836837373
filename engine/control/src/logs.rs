//! The last lines of every function, in memory, and those who wait for more.
//!
//! Owns: bounds in bytes and in functions, cursors, long polls. Must not know: who writes lines, where they are shown.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use faaster_limits::{LOG_POLLS_MAX, LOG_RING_BYTES_MAX, LOG_RINGS_MAX};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Some output of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry {
    /// Grows over all functions of the node.
    #[serde(skip)]
    pub(crate) cursor: u64,
    pub(crate) time: String,
    pub(crate) version: String,
    /// Empty where the lines belong to no invocation.
    pub(crate) request_id: String,
    pub(crate) text: String,
}

/// What a reader gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    pub(crate) entries: Vec<Entry>,
    /// To ask with the next time.
    pub(crate) cursor: u64,
    /// Lines after the reader's cursor were dropped for the bound.
    pub(crate) gap: bool,
}

/// What a reader asks for.
#[derive(Debug)]
pub(crate) struct Ask {
    /// `<hashed account>:<name>`
    pub(crate) function: String,
    pub(crate) version: Option<String>,
    pub(crate) since: u64,
    /// With nothing to show, wait for so long.
    pub(crate) wait: Duration,
    /// What it printed before this engine's start; `None`: nobody has looked.
    pub(crate) earlier: Option<Vec<Entry>>,
    pub(crate) reply: oneshot::Sender<Lines>,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Cursor of the last entry that was dropped.
    dropped: u64,
    written: u64,
}

/// All rings and polls.
#[derive(Debug)]
pub(crate) struct LogDesk {
    rings: BTreeMap<String, Ring>,
    cursor: u64,
    polls: Vec<(Instant, Ask)>,
}

impl LogDesk {
    /// `first` must be above every cursor of earlier engines: a reader that lives on sees all that is new.
    pub(crate) fn new(first: u64) -> Self {
        Self { rings: BTreeMap::new(), cursor: first, polls: Vec::new() }
    }

    /// Adds output of a function and answers who waits for it.
    pub(crate) fn append(&mut self, function: &str, mut entry: Entry) {
        self.cursor += 1;
        entry.cursor = self.cursor;
        self.make_room(function);
        let ring = self.rings.entry(function.to_owned()).or_default();
        ring.written = self.cursor;
        ring.bytes += cost(&entry);
        ring.entries.push_back(entry);
        while ring.bytes > LOG_RING_BYTES_MAX {
            let Some(old) = ring.entries.pop_front() else { break };
            ring.bytes -= cost(&old);
            ring.dropped = old.cursor;
        }
        self.answer(|ask, _| ask.function == function);
    }

    /// Answers at once, or keeps the question.
    pub(crate) fn ask(&mut self, ask: Ask, now: Instant) {
        let lines = self.read(&ask);
        let is_full = self.polls.len() >= LOG_POLLS_MAX;
        if !lines.entries.is_empty() || ask.wait.is_zero() || is_full {
            drop(ask.reply.send(lines));
        } else {
            self.polls.push((now + ask.wait, ask));
        }
    }

    /// Answers polls that have waited long enough, with nothing.
    pub(crate) fn expire(&mut self, now: Instant) {
        let (due, waiting) =
            std::mem::take(&mut self.polls).into_iter().partition(|(until, _)| *until <= now);
        self.polls = waiting;
        for (_, ask) in due {
            let lines = self.read(&ask);
            drop(ask.reply.send(lines));
        }
    }

    /// When [`Self::expire`] has something to do.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.polls.iter().map(|(until, _)| *until).min()
    }

    fn answer(&mut self, concerns: impl Fn(&Ask, &Lines) -> bool) {
        let mut waiting = Vec::with_capacity(self.polls.len());
        for (until, ask) in std::mem::take(&mut self.polls) {
            let lines = self.read(&ask);
            if concerns(&ask, &lines) && !lines.entries.is_empty() {
                drop(ask.reply.send(lines));
            } else if !ask.reply.is_closed() {
                waiting.push((until, ask));
            }
        }
        self.polls = waiting;
    }

    fn read(&self, ask: &Ask) -> Lines {
        // The clock was set back meanwhile: then all that there is is new.
        let since = if ask.since > self.cursor { 0 } else { ask.since };
        let of_version =
            |entry: &&Entry| ask.version.as_ref().is_none_or(|version| *version == entry.version);
        let ring = self.rings.get(&ask.function);
        let here = ring.iter().flat_map(|ring| &ring.entries).filter(|entry| entry.cursor > since);
        let dropped = ring.map_or(0, |ring| ring.dropped);
        // Not where lines between them and what is left here are gone.
        let earlier = ask.earlier.iter().flatten().filter(|_| dropped == 0);
        let entries = earlier.chain(here).filter(of_version).cloned().collect();
        Lines { entries, cursor: self.cursor, gap: since > 0 && dropped > since }
    }

    /// The function written to longest ago makes room for a new one.
    fn make_room(&mut self, function: &str) {
        if self.rings.len() < LOG_RINGS_MAX || self.rings.contains_key(function) {
            return;
        }
        let oldest = self.rings.iter().min_by_key(|(_, ring)| ring.written).map(|(name, _)| name.clone());
        if let Some(oldest) = oldest {
            self.rings.remove(&oldest);
        }
    }
}

/// Bytes that an entry counts for: its texts and what holds them.
fn cost(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.time.len() + entry.version.len() + entry.request_id.len() + entry.text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Entry {
        Entry {
            cursor: 0,
            time: "t".into(),
            version: "1".into(),
            request_id: String::new(),
            text: text.into(),
        }
    }

    fn ask(function: &str, since: u64, wait_ms: u64) -> (Ask, oneshot::Receiver<Lines>) {
        let (reply, answer) = oneshot::channel();
        let wait = Duration::from_millis(wait_ms);
        (Ask { function: function.into(), version: None, since, wait, earlier: None, reply }, answer)
    }

    fn read(desk: &mut LogDesk, function: &str, since: u64) -> Lines {
        let (ask, mut answer) = ask(function, since, 0);
        desk.ask(ask, Instant::now());
        answer.try_recv().unwrap()
    }

    fn texts(lines: &Lines) -> Vec<&str> {
        lines.entries.iter().map(|entry| entry.text.as_str()).collect()
    }

    #[test]
    fn a_cursor_shows_what_is_new() {
        let mut desk = LogDesk::new(0);
        desk.append("f", entry("one"));
        desk.append("g", entry("other"));
        let first = read(&mut desk, "f", 0);
        assert_eq!(texts(&first), ["one"]);
        assert!(read(&mut desk, "f", first.cursor).entries.is_empty());
        desk.append("f", entry("two"));
        assert_eq!(texts(&read(&mut desk, "f", first.cursor)), ["two"]);
        assert_eq!(texts(&read(&mut desk, "f", 999)), ["one", "two"], "a cursor of another life");
        assert!(read(&mut desk, "none", 0).entries.is_empty());
    }

    #[test]
    fn lines_of_an_earlier_engine_come_first_and_once() {
        let mut desk = LogDesk::new(5);
        let earlier = || {
            let other = Entry { version: "2".into(), ..entry("other") };
            Some(vec![entry("old"), other])
        };
        let (mut first, mut answer) = ask("f", 0, 1000);
        first.earlier = earlier();
        first.version = Some("1".into());
        desk.ask(first, Instant::now());
        let lines = answer.try_recv().expect("there is something to tell");
        assert_eq!((texts(&lines), lines.cursor), (vec!["old"], 5));
        desk.append("f", entry("new"));
        assert_eq!(texts(&read(&mut desk, "f", lines.cursor)), ["new"]);
        let (mut both, mut answer) = ask("f", 0, 0);
        both.earlier = earlier();
        desk.ask(both, Instant::now());
        assert_eq!(texts(&answer.try_recv().unwrap()), ["old", "other", "new"]);
        desk.append("f", entry(&"x".repeat(LOG_RING_BYTES_MAX - 100)));
        let (late, mut answer) = ask("f", 0, 0);
        desk.ask(Ask { earlier: earlier(), ..late }, Instant::now());
        assert_eq!(answer.try_recv().unwrap().entries.len(), 0, "what fits nowhere, and a hole before it");
    }

    #[test]
    fn old_lines_make_room_and_the_gap_is_told() {
        let mut desk = LogDesk::new(0);
        for number in 0..10 {
            desk.append("f", entry(&format!("{number}{}", "x".repeat(LOG_RING_BYTES_MAX / 4))));
        }
        let lines = read(&mut desk, "f", 1);
        assert!(lines.gap && lines.entries.len() == 3, "{}", lines.entries.len());
        assert!(!read(&mut desk, "f", 9).gap);
        desk.append("f", entry(&"x".repeat(LOG_RING_BYTES_MAX + 1)));
        assert!(read(&mut desk, "f", 0).entries.is_empty(), "what fits nowhere is not kept");
    }

    #[test]
    fn the_function_written_longest_ago_goes() {
        let mut desk = LogDesk::new(0);
        for number in 0..LOG_RINGS_MAX {
            desk.append(&format!("f{number}"), entry("x"));
        }
        desk.append("f0", entry("again"));
        desk.append("new", entry("x"));
        assert_eq!(desk.rings.len(), LOG_RINGS_MAX);
        assert!(read(&mut desk, "f1", 0).entries.is_empty());
        assert_eq!(read(&mut desk, "f0", 0).entries.len(), 2);
    }

    #[test]
    fn a_poll_is_answered_by_its_function_or_by_time() {
        let mut desk = LogDesk::new(0);
        let now = Instant::now();
        let (first, mut answer) = ask("f", 0, 1000);
        desk.ask(first, now);
        desk.append("g", entry("other"));
        assert!(answer.try_recv().is_err());
        desk.append("f", entry("mine"));
        assert_eq!(texts(&answer.try_recv().unwrap()), ["mine"]);
        let (late, mut answer) = ask("f", desk.cursor, 1000);
        desk.ask(late, now);
        assert_eq!(desk.next_expiry(), Some(now + Duration::from_secs(1)));
        desk.expire(now + Duration::from_millis(999));
        assert!(answer.try_recv().is_err());
        desk.expire(now + Duration::from_secs(1));
        assert!(answer.try_recv().unwrap().entries.is_empty());
        assert_eq!(desk.next_expiry(), None);
    }

    #[test]
    fn polls_are_bounded() {
        let mut desk = LogDesk::new(0);
        let mut answers = Vec::new();
        for _ in 0..=LOG_POLLS_MAX {
            let (poll, answer) = ask("f", 0, 1000);
            desk.ask(poll, Instant::now());
            answers.push(answer);
        }
        assert_eq!(desk.polls.len(), LOG_POLLS_MAX);
        assert!(answers.last_mut().unwrap().try_recv().is_ok(), "one too many is answered at once");
    }
}
