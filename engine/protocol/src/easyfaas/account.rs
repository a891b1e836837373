//! How FaaSter turns an account id into the 32 digits that stand in a BRN.
//!
//! Owns: the two salts. Must not know: which accounts exist.

use md5::{Digest, Md5};

/// Bytes of a hashed account: lowercase hex of an MD5.
pub const HASH_BYTES: usize = 32;

/// Partition of a BRN. It chooses the salt of the account's hash and says nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Partition {
    /// `cloud...`: what FaaSter's code makes. Our canonical form.
    Cloud,
    /// `bce`: what FaaSter's documents show. Its hash of the same account is another one.
    Bce,
}

impl Partition {
    fn salt(self) -> &'static [u8] {
        match self {
            Self::Cloud => b"cloud-cfc-2017",
            Self::Bce => b"bce-cfc-2017",
        }
    }
}

/// Lowercase hex of `md5(account + salt of the partition)` (FaaSter pkg/brn, `Md5BceUid`; the `bce` salt follows from
/// the BRNs in its documents, whose hash is that of the account in the same example).
pub fn account_hash(account: &[u8], partition: Partition) -> [u8; HASH_BYTES] {
    let mut md5 = Md5::new();
    md5.update(account);
    md5.update(partition.salt());
    hex(&md5.finalize().into())
}

/// A 64-bit name for `parts`, the same on every run and machine. Not secret: only spread.
pub fn stable_tag(parts: &[&[u8]]) -> u64 {
    let mut md5 = Md5::new();
    for part in parts {
        // The length stands before each part: "ab","c" and "a","bc" are different.
        md5.update((part.len() as u64).to_le_bytes());
        md5.update(part);
    }
    let digest: [u8; 16] = md5.finalize().into();
    let mut head = [0; 8];
    head.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(head)
}

fn hex(bytes: &[u8; 16]) -> [u8; HASH_BYTES] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = [0; HASH_BYTES];
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &[u8] = b"df391b08c64c426a81645468c75163a5";

    #[test]
    fn hashes_are_those_of_the_quick_start_and_of_the_documents() {
        assert_eq!(&account_hash(ACCOUNT, Partition::Cloud), b"8f6e5a28c663957ea04522547a66d08f");
        assert_eq!(&account_hash(ACCOUNT, Partition::Bce), b"cd64f99c69d7c404b61de0a4f1865834");
    }

    #[test]
    fn tags_keep_their_parts_apart() {
        assert_ne!(stable_tag(&[b"ab", b"c"]), stable_tag(&[b"a", b"bc"]));
        assert_eq!(stable_tag(&[b"a"]), stable_tag(&[b"a"]));
    }
}
