//! The tool's own proof, as its users run it. A file of its own, so that no other test runs beside it.
//!
//! Owns: nothing. Must not know: the checks.

use std::process::Command;

#[test]
fn the_selftest_holds() {
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).arg("selftest").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("ok ")).count(), 6, "{text}");
}
