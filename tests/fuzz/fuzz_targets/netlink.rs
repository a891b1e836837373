//! See `faaster_fuzz::netlink`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| faaster_fuzz::netlink::check(data));
