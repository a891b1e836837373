//! What a funclet says to people: single lines on standard error, which the supervisor passes on.

use std::io::Write;

use crate::config::FuncletConfig;

/// Writes one line; what follows a line break is marked as belonging to it.
pub(crate) fn notice(config: &FuncletConfig, text: &str) {
    let text = text.trim_end().replace('\n', "\n  | ");
    // Nobody is there to be told when standard error is gone.
    writeln!(std::io::stderr(), "funclet {}: {text}", config.index).ok();
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
