//! See `faaster_fuzz::trigger`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| faaster_fuzz::trigger::check(data));
