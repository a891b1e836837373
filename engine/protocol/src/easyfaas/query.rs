//! Query strings and percent-encoding, as FaaSter's HTTP library reads them.
//!
//! Owns: finding one parameter without allocating. Must not know: which parameters there are.

use std::borrow::Cow;

/// Cuts a request target at its first `?`.
pub fn split(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

/// The pairs of a query, still encoded; a parameter without `=` has an empty value.
pub fn pairs(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        }
    })
}

/// First value of `name`, still encoded. Names are compared as they stand: those of the dialect need no encoding.
pub fn find<'q>(query: Option<&'q [u8]>, name: &[u8]) -> Option<&'q [u8]> {
    pairs(query?).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// What `+` means where text is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plus {
    /// In paths.
    Itself,
    /// In queries (application/x-www-form-urlencoded).
    Space,
}

/// Decodes `%XX`. A `%` that is followed by something else stays, as FaaSter's library leaves it.
pub fn decode(raw: &[u8], plus: Plus) -> Cow<'_, [u8]> {
    let plain =
        memchr::memchr(b'%', raw).is_none() && (plus == Plus::Itself || memchr::memchr(b'+', raw).is_none());
    if plain {
        return Cow::Borrowed(raw);
    }
    let mut out = vec![0; raw.len()];
    let len = decode_into(raw, plus, &mut out).expect("decoding never grows");
    out.truncate(len);
    Cow::Owned(out)
}

/// Decodes into a buffer of the caller; says how many bytes it holds then, or `None` if they do not fit.
pub fn decode_into(raw: &[u8], plus: Plus, out: &mut [u8]) -> Option<usize> {
    let (mut at, mut len) = (0, 0);
    while at < raw.len() {
        let byte = match (raw[at], raw.get(at + 1..at + 3).and_then(hex_pair)) {
            (b'%', Some(byte)) => {
                at += 2;
                byte
            }
            (b'+', _) if plus == Plus::Space => b' ',
            (byte, _) => byte,
        };
        *out.get_mut(len)? = byte;
        at += 1;
        len += 1;
    }
    Some(len)
}

fn hex_pair(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(digit(pair[0])? << 4 | digit(pair[1])?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_and_decodes_parameters() {
        let (path, query) = split(b"/a/b?Qualifier=%24LATEST&logType=Tail&flag&x=a+b");
        assert_eq!(path, b"/a/b");
        assert_eq!(find(query, b"Qualifier"), Some(&b"%24LATEST"[..]));
        assert_eq!(find(query, b"flag"), Some(&b""[..]));
        assert_eq!(find(query, b"none"), None);
        assert_eq!(find(None, b"x"), None);
        assert_eq!(&*decode(b"%24LATEST", Plus::Itself), b"$LATEST");
        assert_eq!(&*decode(b"a+b%2B", Plus::Space), b"a b+");
        assert_eq!(&*decode(b"a+b", Plus::Itself), b"a+b");
        assert_eq!(&*decode(b"%zz%4", Plus::Itself), b"%zz%4");
    }

    #[test]
    fn a_buffer_too_small_is_refused() {
        assert_eq!(decode_into(b"abc", Plus::Itself, &mut [0; 2]), None);
        assert_eq!(decode_into(b"%41", Plus::Itself, &mut [0; 1]), Some(1));
    }

    proptest! {
        #[test]
        fn encoded_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let encoded: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(&*decode(encoded.as_bytes(), Plus::Space), &bytes[..]);
        }

        #[test]
        fn decoding_never_grows(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(decode(&bytes, Plus::Space).len() <= bytes.len());
        }
    }
}
