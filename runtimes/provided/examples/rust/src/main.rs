//! A function of the `provided` runtime: two handlers, and which one runs says the function's handler name.
//!
//! Owns: the handlers. Must not know: frames (channel.rs does).
#![deny(unsafe_code)]

mod channel;

use std::process::ExitCode;

/// Answers `Hello world!`, whatever the event.
fn hello(_event: &[u8], answer: &mut Vec<u8>) -> Result<(), String> {
    answer.extend_from_slice(b"Hello world!");
    Ok(())
}

/// Answers with the event's own bytes.
fn echo(event: &[u8], answer: &mut Vec<u8>) -> Result<(), String> {
    answer.extend_from_slice(event);
    Ok(())
}

fn main() -> ExitCode {
    let name = std::env::var("FAASTER_HANDLER").unwrap_or_default();
    let handler = if name == "echo" { echo } else { hello };
    match channel::take().and_then(|channel| channel::serve(channel, handler)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("{cause}");
            ExitCode::FAILURE
        }
    }
}
