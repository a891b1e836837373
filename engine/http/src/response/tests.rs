//! Answers by example, and what a hostile header value can do: nothing.
//!
//! Owns: the tests of `response`. Must not know: requests.

use super::{
    HeaderError, Template, connection_close, connection_keep_alive, content_length, continue_100, date,
    end_head, header, is_reserved, server, start, transfer_chunked,
};
use crate::date::DateCache;
use crate::parse::Version;
use crate::status::Status;
use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

const SECOND: u64 = 784_111_777;

#[test]
fn a_whole_answer() {
    let mut out = b"before".to_vec();
    start(&mut out, Version::Http11, Status::TOO_MANY_REQUESTS);
    server(&mut out);
    date(&mut out, &DateCache::new(SECOND));
    header(&mut out, b"Retry-After", b"1").expect("valid");
    header(&mut out, b"X-Empty", b"").expect("valid");
    header(&mut out, b"X-Bytes", b"a\t\xc3\xa4").expect("valid");
    content_length(&mut out, 0);
    connection_close(&mut out);
    end_head(&mut out);
    let expected = b"beforeHTTP/1.1 429 Too Many Requests\r\nServer: faaster\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
        Retry-After: 1\r\nX-Empty: \r\nX-Bytes: a\t\xc3\xa4\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(out, expected);
}

#[test]
fn other_pieces() {
    let mut out = Vec::new();
    start(&mut out, Version::Http10, Status::from_code(299).expect("three digits"));
    connection_keep_alive(&mut out);
    transfer_chunked(&mut out);
    content_length(&mut out, u64::MAX);
    continue_100(&mut out);
    let expected = b"HTTP/1.0 299 \r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\
        Content-Length: 18446744073709551615\r\nHTTP/1.1 100 Continue\r\n\r\n";
    assert_eq!(out, expected);
}

#[test]
fn headers_that_would_break_the_answer() {
    let cases: &[(&[u8], &[u8], HeaderError)] = &[
        (b"", b"v", HeaderError::Name),
        (b"a b", b"v", HeaderError::Name),
        (b"a:", b"v", HeaderError::Name),
        (b"a\r\nb", b"v", HeaderError::Name),
        (b"\xc3\xa4", b"v", HeaderError::Name),
        (b"a", b"v\r\nb: c", HeaderError::Value),
        (b"a", b"v\r", HeaderError::Value),
        (b"a", b"\nv", HeaderError::Value),
        (b"a", b"v\0", HeaderError::Value),
        (b"a", b"\x1b", HeaderError::Value),
        (b"a", b"\x7f", HeaderError::Value),
    ];
    for (name, value, expected) in cases {
        let mut out = b"before".to_vec();
        assert_eq!(header(&mut out, name, value), Err(*expected), "{name:?} {value:?}");
        assert_eq!(out, b"before");
    }
}

#[test]
fn reserved_names() {
    for name in
        ["Connection", "content-length", "TRANSFER-ENCODING", "Keep-Alive", "Upgrade", "Trailer", "TE"]
    {
        assert!(is_reserved(name.as_bytes()), "{name}");
    }
    for name in ["Content-Type", "Date", "Server", "Location", "Set-Cookie", ""] {
        assert!(!is_reserved(name.as_bytes()), "{name}");
    }
}

#[test]
fn the_template_equals_the_pieces() {
    let mut template = Template::new(&DateCache::new(0));
    template.refresh(&DateCache::new(SECOND));
    let mut from_template = Vec::new();
    template.append_ok(&mut from_template, 12_345);
    let mut from_pieces = Vec::new();
    start(&mut from_pieces, Version::Http11, Status::OK);
    server(&mut from_pieces);
    date(&mut from_pieces, &DateCache::new(SECOND));
    header(&mut from_pieces, b"Content-Type", b"text/plain; charset=utf-8").expect("valid");
    content_length(&mut from_pieces, 12_345);
    end_head(&mut from_pieces);
    assert_eq!(from_template, from_pieces);

    let mut open = Vec::new();
    template.append_ok_open(&mut open, 12_345);
    assert_eq!(open, from_template[..from_template.len() - 2]);
    assert_eq!(Template::with_content_type(&DateCache::new(0), b"a\n").map(drop), Err(HeaderError::Value));
}

proptest! {
    #[test]
    fn a_written_header_is_read_back(name in "[a-zA-Z0-9-]{1,20}", value: Vec<u8>) {
        let mut out = Vec::new();
        let written = header(&mut out, name.as_bytes(), &value);
        end_head(&mut out);
        let mut headers = [httparse::EMPTY_HEADER; 2];
        let parsed = httparse::parse_headers(&out, &mut headers);
        if written.is_ok() {
            let trimmed = value.trim_ascii();
            let Ok(httparse::Status::Complete((_, headers))) = parsed else { panic!("{out:?}") };
            prop_assert_eq!(headers.len(), 1);
            prop_assert_eq!(headers[0].name, &name);
            prop_assert_eq!(headers[0].value, trimmed);
        } else {
            prop_assert!(value.iter().any(u8::is_ascii_control));
            prop_assert_eq!(out, b"\r\n");
        }
    }
}
