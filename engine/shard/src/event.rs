//! Everything that can happen to a shard, on one screen, and how the ring's tokens name it.
//!
//! Owns: the token layout: kind in the top byte, generation in the next three, index in the lower four.
//! Must not know: what the loop does about an event.

use faaster_sys::ring::Token;

use crate::slab::Id;

/// What a completion is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Source {
    /// A listener (index into the shard's listeners) took a connection.
    Listener = 1,
    /// A client sent something, or closed.
    ClientReceive = 2,
    /// Something to a client went out.
    ClientSend = 3,
    /// An instance's runtime sent something, or closed.
    InstanceReceive = 4,
    InstanceSend = 5,
    /// An instance printed something.
    InstanceLog = 6,
    /// A funclet (index) said something.
    Funclet = 7,
    FuncletSend = 8,
    /// Another thread rang.
    Bell = 9,
}

impl Source {
    fn from_bits(bits: u64) -> Option<Self> {
        use Source as S;
        [
            S::Listener,
            S::ClientReceive,
            S::ClientSend,
            S::InstanceReceive,
            S::InstanceSend,
            S::InstanceLog,
            S::Funclet,
            S::FuncletSend,
            S::Bell,
        ]
        .into_iter()
        .find(|source| *source as u64 == bits)
    }

    /// The token of an operation on `index` in its `generation`.
    pub(crate) fn token(self, index: u32, generation: u32) -> Token {
        assert!(generation <= 0x00ff_ffff, "generations have 24 bits");
        Token((self as u64) << 56 | u64::from(generation) << 32 | u64::from(index))
    }

    /// The token of an operation on something in a slab.
    pub(crate) fn of<T>(self, id: Id<T>) -> Token {
        self.token(id.index, id.generation)
    }

    /// Takes a token apart.
    pub(crate) fn parse(token: Token) -> (Self, u32, u32) {
        let source = Self::from_bits(token.0 >> 56).expect("tokens are made by `token` alone");
        let generation = u32::try_from(token.0 >> 32 & 0x00ff_ffff).expect("24 bits fit");
        let index = u32::try_from(token.0 & 0xffff_ffff).expect("32 bits fit");
        (source, index, generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_apart_as_they_were_made() {
        for source in [Source::Listener, Source::InstanceLog, Source::Bell] {
            let token = source.token(u32::MAX, 0x00ff_ffff);
            assert_eq!(Source::parse(token), (source, u32::MAX, 0x00ff_ffff));
        }
    }
}
