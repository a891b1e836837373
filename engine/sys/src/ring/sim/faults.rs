//! How the simulated kernel misbehaves, and the dice that decide when.
//!
//! Owns: the probabilities and the one source of randomness of a simulation. Must not know: what is simulated.

/// How often each fault happens, out of 1,000 chances. A kernel may do all of this at any time; it rarely does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faults {
    /// Data comes in a piece of any size instead of as much as a buffer holds.
    pub split: u16,
    /// A multishot operation ends with a completion that also carries something.
    pub disarm: u16,
    /// A receive hears NOBUFS although its group has buffers.
    pub starve: u16,
    /// A send takes fewer bytes than it was offered and the peer has room for.
    pub short_send: u16,
    /// An operation does nothing for a while.
    pub delay: u16,
    /// Longest such while, in nanoseconds of the simulated clock.
    pub delay_ns_max: u64,
    /// A completion stays back in one wait while those of other operations go ahead.
    pub hold_back: u16,
    /// An accept fails; the client stays in the backlog.
    pub refuse_accept: u16,
    /// A cancelled operation works on for a while before it ends.
    pub late_cancel: u16,
    /// A peer's end shows as a reset.
    pub reset: u16,
}

impl Faults {
    /// A kernel on its best day.
    pub const NONE: Self = Self {
        split: 0,
        disarm: 0,
        starve: 0,
        short_send: 0,
        delay: 0,
        delay_ns_max: 0,
        hold_back: 0,
        refuse_accept: 0,
        late_cancel: 0,
        reset: 0,
    };

    /// Any mixture, from none to much of each.
    pub fn random(dice: &mut Dice) -> Self {
        let mut level = |max: u16| {
            // Squared, so that gentle days are as common as wild ones.
            let share = dice.below(101) * dice.below(101);
            u16::try_from(u64::from(max) * share / 10_000).expect("a share of a u16")
        };
        Self {
            split: level(1000),
            disarm: level(500),
            starve: level(300),
            short_send: level(800),
            delay: level(500),
            delay_ns_max: u64::from(level(3000)) * 1000,
            hold_back: level(700),
            refuse_accept: level(300),
            late_cancel: level(1000),
            reset: level(1000),
        }
    }
}

/// Random numbers from a seed: SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// An index below `length`, which must not be 0.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a usize")
    }

    /// Whether a fault of this probability happens now.
    pub fn chance(&mut self, per_mille: u16) -> bool {
        per_mille > 0 && self.below(1000) < u64::from(per_mille)
    }

    /// Whether one of `parts` equal chances came up.
    pub fn one_in(&mut self, parts: u64) -> bool {
        self.below(parts) == 0
    }
}
