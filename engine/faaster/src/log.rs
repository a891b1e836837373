//! Lines on standard error, for whoever runs the engine.
//!
//! Owns: their form and the level below which they are dropped. Must not know: logs of functions.

use std::fmt::Display;
use std::io::Write;

use crate::config::LogLevel;

/// The voice of one process of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Log {
    who: &'static str,
    level: LogLevel,
}

impl Log {
    pub(crate) fn new(who: &'static str, level: LogLevel) -> Self {
        Self { who, level }
    }

    pub(crate) fn error(&self, text: impl Display) {
        self.write(LogLevel::Error, "error", &text);
    }

    pub(crate) fn warn(&self, text: impl Display) {
        self.write(LogLevel::Warn, "warning", &text);
    }

    pub(crate) fn info(&self, text: impl Display) {
        self.write(LogLevel::Info, "info", &text);
    }

    pub(crate) fn debug(&self, text: impl Display) {
        self.write(LogLevel::Debug, "debug", &text);
    }

    fn write(&self, level: LogLevel, word: &str, text: &dyn Display) {
        if level <= self.level {
            // One write for a line, so that lines of several processes do not mix. If standard error is
            // closed, nobody listens and nothing is lost.
            let line = format!("faaster[{}] {word}: {text}\n", self.who);
            drop(std::io::stderr().write_all(line.as_bytes()));
        }
    }
}
