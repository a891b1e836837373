//! Random bits for request ids.
//!
//! Owns: a xoroshiro128++ state (Blackman and Vigna, 2019), seeded by the kernel's generator once per shard: ids must be
//! unique, not secret. Must not know: what they are for.

/// See the module.
#[derive(Debug)]
pub(crate) struct Random {
    state: [u64; 2],
}

impl Random {
    pub(crate) fn new(seed: [u64; 2]) -> Self {
        // All zero is the one state that the generator never leaves.
        Self { state: if seed == [0, 0] { [1, 2] } else { seed } }
    }

    pub(crate) fn next(&mut self) -> u64 {
        let [s0, mut s1] = self.state;
        let result = s0.wrapping_add(s1).rotate_left(17).wrapping_add(s0);
        s1 ^= s0;
        self.state = [s0.rotate_left(49) ^ s1 ^ s1 << 21, s1.rotate_left(28)];
        result
    }
}
