//! See `faaster_fuzz::http`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| faaster_fuzz::http::check(data));
