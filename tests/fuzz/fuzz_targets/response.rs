//! See `faaster_fuzz::response`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| faaster_fuzz::response::check(data));
