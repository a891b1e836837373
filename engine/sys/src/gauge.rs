//! Files of the kernel that hold one number, read without blocking worth mentioning (cgroup and procfs files).
//!
//! Owns: nothing. Must not know: what the number counts.

use std::os::fd::AsFd;

/// The number at the start of the file; 0 if there is none (the cgroup is gone).
pub fn read_number(file: impl AsFd) -> u64 {
    let mut text = [0u8; 24];
    let length = rustix::io::pread(file, &mut text, 0).unwrap_or(0);
    let digits = text[..length].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}
