//! Percent-decoding of paths and queries (RFC 3986 section 2.1).
//!
//! Owns: the decoding and the splitting of a query. Must not know: what a path or a name means; a decoded value may hold
//! any byte, also `/`, NUL and bytes that are not UTF-8, and whoever uses it as a name must check it.

use crate::reject::Reject;

const BAD_ESCAPE: Reject = Reject::bad_request(
    "a '%' in the request target is not followed by two hexadecimal digits; write it as %25",
);

/// Decodes a path segment; `+` stays `+`.
///
/// Without `%` the answer is `raw` itself and `buf` is not touched; otherwise `buf` is cleared and filled.
///
/// # Errors
/// 400 if a `%` is not followed by two hexadecimal digits.
pub fn decode<'a>(raw: &'a [u8], buf: &'a mut Vec<u8>) -> Result<&'a [u8], Reject> {
    if memchr::memchr(b'%', raw).is_none() {
        return Ok(raw);
    }
    fill(raw, buf, |byte| byte)?;
    Ok(buf)
}

/// Decodes a name or a value of a query, where `+` stands for a space (the WHATWG URL standard,
/// `application/x-www-form-urlencoded`). Otherwise like [`decode`].
///
/// # Errors
/// 400 if a `%` is not followed by two hexadecimal digits.
pub fn decode_query<'a>(raw: &'a [u8], buf: &'a mut Vec<u8>) -> Result<&'a [u8], Reject> {
    if memchr::memchr2(b'%', b'+', raw).is_none() {
        return Ok(raw);
    }
    fill(raw, buf, |byte| if byte == b'+' { b' ' } else { byte })?;
    Ok(buf)
}

fn fill(raw: &[u8], buf: &mut Vec<u8>, literal: impl Fn(u8) -> u8) -> Result<(), Reject> {
    buf.clear();
    buf.reserve(raw.len());
    let mut rest = raw;
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            buf.push(literal(*first));
            continue;
        }
        let [high, low, after @ ..] = rest else { return Err(BAD_ESCAPE) };
        let (Some(high), Some(low)) = (hex_digit(*high), hex_digit(*low)) else { return Err(BAD_ESCAPE) };
        buf.push(high << 4 | low);
        rest = after;
    }
    Ok(())
}

/// The value of a hexadecimal digit of either case.
pub(crate) fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The raw (still encoded) names and values of a query, in order; a pair without `=` has an empty value, empty pairs
/// (`a&&b`) are left out.
pub fn query_pairs(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &[][..]),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{decode, decode_query, query_pairs};
    use proptest::prelude::{any, prop_assert_eq, proptest};

    /// Raw, decoded as a segment, decoded as a query; `None` for a refusal.
    type Case = (&'static [u8], Option<&'static [u8]>, Option<&'static [u8]>);

    #[test]
    fn decoding() {
        let cases: &[Case] = &[
            (b"", Some(b""), Some(b"")),
            (b"plain", Some(b"plain"), Some(b"plain")),
            (b"%24LATEST", Some(b"$LATEST"), Some(b"$LATEST")),
            (b"a%2Fb%2fc", Some(b"a/b/c"), Some(b"a/b/c")),
            (b"a+b", Some(b"a+b"), Some(b"a b")),
            (b"a+b%2B", Some(b"a+b+"), Some(b"a b+")),
            (b"%00%ff", Some(b"\0\xff"), Some(b"\0\xff")),
            (b"%2525", Some(b"%25"), Some(b"%25")),
            (b"%", None, None),
            (b"a%4", None, None),
            (b"%zz", None, None),
            (b"%+1", None, None),
            (b"%%41", None, None),
        ];
        for (raw, segment, query) in cases {
            let mut buf = b"left over".to_vec();
            assert_eq!(decode(raw, &mut buf).ok(), *segment, "{raw:?}");
            let mut buf = b"left over".to_vec();
            assert_eq!(decode_query(raw, &mut buf).ok(), *query, "{raw:?}");
        }
    }

    #[test]
    fn without_an_escape_nothing_is_copied() {
        let raw = b"invocations";
        let mut buf = Vec::new();
        let decoded = decode(raw, &mut buf).expect("valid");
        assert!(std::ptr::eq(decoded, &raw[..]));
        assert_eq!(buf.capacity(), 0);
    }

    #[test]
    fn pairs() {
        let pairs: Vec<_> = query_pairs(b"a=1&b&=c&&d=x=y&").collect();
        let expected: Vec<(&[u8], &[u8])> = vec![(b"a", b"1"), (b"b", b""), (b"", b"c"), (b"d", b"x=y")];
        assert_eq!(pairs, expected);
        assert_eq!(query_pairs(b"").count(), 0);
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(bytes: Vec<u8>, plain in any::<bool>()) {
            let mut encoded = Vec::new();
            for byte in &bytes {
                if plain && byte.is_ascii_alphanumeric() {
                    encoded.push(*byte);
                } else {
                    encoded.extend_from_slice(format!("%{byte:02x}").as_bytes());
                }
            }
            let mut buf = Vec::new();
            prop_assert_eq!(decode(&encoded, &mut buf), Ok(&bytes[..]));
            prop_assert_eq!(decode_query(&encoded, &mut buf), Ok(&bytes[..]));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
            let mut buf = Vec::new();
            if let Ok(decoded) = decode(&bytes, &mut buf) {
                assert!(decoded.len() <= bytes.len());
            }
            assert!(query_pairs(&bytes).all(|(name, value)| name.len() + value.len() <= bytes.len()));
        }
    }
}
