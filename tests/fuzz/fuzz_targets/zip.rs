//! See `faaster_fuzz::zip`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| faaster_fuzz::zip::check(data));
