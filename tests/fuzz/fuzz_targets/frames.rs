//! See `faaster_fuzz::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| faaster_fuzz::frames::check(data));
