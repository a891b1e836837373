//! See `faaster_fuzz::messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| faaster_fuzz::messages::check(data));
