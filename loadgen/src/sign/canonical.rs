//! The one form of a request that both sides hash.
//!
//! Owns: nothing. Must not know: keys.

use std::collections::BTreeMap;

/// What is hashed, and which headers are in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Canonical {
    pub(super) text: Vec<u8>,
    pub(super) signed_headers: String,
}

/// Headers that proxies and clients write or change on the way.
const UNSIGNED: [&str; 6] =
    ["authorization", "connection", "content-length", "expect", "user-agent", "x-amzn-trace-id"];

/// Brings a request into its canonical form. `head` is the request line and the header lines.
pub(super) fn request(head: &[u8], date: &str, token: Option<&str>, body_hash: &str) -> Canonical {
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|it| !it.is_empty());
    let request_line = lines.next().unwrap_or_default();
    let method_end = request_line.iter().position(|it| *it == b' ').unwrap_or(request_line.len());
    let target_end = request_line.iter().rposition(|it| *it == b' ').unwrap_or(request_line.len());
    let target = request_line.get(method_end + 1..target_end).unwrap_or_default();
    let mark = target.iter().position(|it| *it == b'?');
    let (path, query) = mark.map_or((target, &[][..]), |at| (&target[..at], &target[at + 1..]));
    let mut headers: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    headers.insert("x-amz-date".to_owned(), date.as_bytes().to_vec());
    if let Some(token) = token {
        headers.insert("x-amz-security-token".to_owned(), token.as_bytes().to_vec());
    }
    for line in lines {
        let colon = line.iter().position(|it| *it == b':').unwrap_or(line.len());
        let name = String::from_utf8_lossy(&line[..colon]).trim().to_ascii_lowercase();
        if UNSIGNED.contains(&name.as_str()) {
            continue;
        }
        let value = single_spaced(line.get(colon + 1..).unwrap_or_default());
        let all = headers.entry(name).or_default();
        if !all.is_empty() {
            all.push(b',');
        }
        all.extend_from_slice(&value);
    }
    let signed_headers = headers.keys().map(String::as_str).collect::<Vec<_>>().join(";");
    let mut text = request_line[..method_end].to_vec();
    text.push(b'\n');
    encode_into(&mut text, path, b"/");
    text.push(b'\n');
    text.extend_from_slice(&canonical_query(query));
    text.push(b'\n');
    for (name, value) in &headers {
        text.extend_from_slice(name.as_bytes());
        text.push(b':');
        text.extend_from_slice(value);
        text.push(b'\n');
    }
    text.push(b'\n');
    text.extend_from_slice(signed_headers.as_bytes());
    text.push(b'\n');
    text.extend_from_slice(body_hash.as_bytes());
    Canonical { text, signed_headers }
}

/// Without spaces around, and with one where there are several.
fn single_spaced(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for byte in value.trim_ascii() {
        if *byte != b' ' || out.last() != Some(&b' ') {
            out.push(*byte);
        }
    }
    out
}

/// Parameters sorted by encoded name, then value; each with its `=`.
fn canonical_query(query: &[u8]) -> Vec<u8> {
    let parameters = query.split(|byte| *byte == b'&').filter(|it| !it.is_empty());
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = parameters
        .map(|parameter| {
            let end = parameter.iter().position(|it| *it == b'=').unwrap_or(parameter.len());
            let (name, value) = (&parameter[..end], parameter.get(end + 1..).unwrap_or_default());
            (encoded(&decoded(name)), encoded(&decoded(value)))
        })
        .collect();
    pairs.sort();
    let pairs: Vec<Vec<u8>> = pairs.into_iter().map(|(name, value)| [name, value].join(&b'=')).collect();
    pairs.join(&b'&')
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| {
        byte.and_then(|it| char::from(*it).to_digit(16)).and_then(|it| u8::try_from(it).ok())
    };
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match (byte, digit(text.get(at + 1)), digit(text.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

fn encoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    encode_into(&mut out, text, b"");
    out
}

/// Percent-encodes all but the unreserved characters (RFC 3986 section 2.3) and those of `kept`.
fn encode_into(out: &mut Vec<u8>, text: &[u8], kept: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) || kept.contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_encoded_once_more_and_a_query_is_not() {
        let head = b"POST /f/arn%3Aaws/x?b=%24LATEST&a HTTP/1.1\r\nHost: h:1\r\nConnection: close\r\n";
        let canonical = request(head, "D", None, "hash");
        let wanted =
            "POST\n/f/arn%253Aaws/x\na=&b=%24LATEST\nhost:h:1\nx-amz-date:D\n\nhost;x-amz-date\nhash";
        assert_eq!(String::from_utf8(canonical.text).unwrap(), wanted);
        assert_eq!(canonical.signed_headers, "host;x-amz-date");
    }

    #[test]
    fn odd_escapes_stay_what_they_are() {
        for (text, plain) in [("%41%4a", "AJ"), ("%", "%"), ("%4", "%4"), ("%zz%41", "%zzA")] {
            assert_eq!(decoded(text.as_bytes()), plain.as_bytes(), "{text}");
        }
    }
}
