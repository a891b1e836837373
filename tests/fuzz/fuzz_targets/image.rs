//! See `faaster_fuzz::image`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| faaster_fuzz::image::check(data));
