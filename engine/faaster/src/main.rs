//! The program `faaster`.
#![forbid(unsafe_code)]

mod config;

fn main() {}
