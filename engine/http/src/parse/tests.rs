//! The rules of RFC 9110 and RFC 9112 for request heads, one table row each.
//!
//! Owns: examples; `tests/properties.rs` has the properties. Must not know: bodies.

use super::{Expectation, Framing, Method, Parsed, Persistence, Scratch, Version, parse};
use faaster_limits::{EMPTY_LINES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, METHOD_BYTES_MAX, TARGET_BYTES_MAX};

/// 0 for complete, 1 for partial, else the status of the refusal.
fn outcome(bytes: &[u8]) -> u16 {
    match parse(bytes, &mut Scratch::new()) {
        Ok(Parsed::Complete(_)) => 0,
        Ok(Parsed::Partial) => 1,
        Err(reject) => {
            assert!(!reject.reason.is_empty() && !reject.reason.ends_with('.'), "{reject}");
            reject.status.code()
        }
    }
}

const COMPLETE: u16 = 0;
const PARTIAL: u16 = 1;

#[track_caller]
fn check(cases: &[(&str, u16)]) {
    for (text, expected) in cases {
        assert_eq!(outcome(text.as_bytes()), *expected, "{text:?}");
    }
}

/// Checks each line as the only field besides `Host`.
#[track_caller]
fn check_fields(cases: &[(&str, u16)]) {
    for (fields, expected) in cases {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        assert_eq!(outcome(text.as_bytes()), *expected, "{fields:?}");
    }
}

#[test]
fn a_whole_request() {
    let text =
        b"\r\nPOST /v1/functions/f/invocations?logType=Tail HTTP/1.1\r\nhOST: faas:8003\r\nX-A:  b \t\r\n\
        Content-Length: 7\r\nExpect: 100-Continue\r\nEmpty:\r\nNon-Ascii: \xc3\xa4\xff\r\n\r\n{\"a\":1}";
    let mut scratch = Scratch::new();
    let Ok(Parsed::Complete(head)) = parse(text, &mut scratch) else { panic!("not complete") };
    assert_eq!((head.method, head.method_text), (Method::Post, &b"POST"[..]));
    assert_eq!(head.target, b"/v1/functions/f/invocations?logType=Tail");
    assert_eq!(head.path, b"/v1/functions/f/invocations");
    assert_eq!(head.query, Some(&b"logType=Tail"[..]));
    assert_eq!(head.host, Some(&b"faas:8003"[..]));
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.framing, Framing::Length(7));
    assert_eq!(head.persistence, Persistence::KeepAlive);
    assert_eq!(head.expectation, Expectation::Continue);
    assert_eq!(&text[head.bytes..], b"{\"a\":1}");
    let fields: Vec<_> = head.headers.iter().map(|header| (header.name, header.value)).collect();
    assert_eq!(fields.len(), 6);
    assert_eq!(fields[0], ("hOST", &b"faas:8003"[..]));
    assert_eq!(fields[1], ("X-A", &b"b"[..]));
    assert_eq!(head.header("empty"), Some(&b""[..]));
    assert_eq!(head.header("NON-ascii"), Some(&b"\xc3\xa4\xff"[..]));
    assert_eq!(head.header("absent"), None);
}

#[test]
fn request_lines() {
    check(&[
        ("", PARTIAL),
        ("\r", PARTIAL),
        ("\r\n", PARTIAL),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r", PARTIAL),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", COMPLETE),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", COMPLETE),
        ("GET / HTTP/1.0\r\n\r\n", COMPLETE),
        ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", COMPLETE),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", COMPLETE),
        ("!#$%&'*+-.^_`|~09aZ / HTTP/1.1\r\nHost: a\r\n\r\n", COMPLETE),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\r\n", 400),
        ("GET\r\n\r\n", 400),
        ("GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}", 400),
    ]);
}

#[test]
fn versions() {
    for (version, expected) in [
        ("HTTP/1.1", COMPLETE),
        ("HTTP/1.0", COMPLETE),
        ("HTTP/2.0", 505),
        ("HTTP/1.2", 505),
        ("HTTP/0.9", 505),
        ("HTTP/9.9", 505),
        ("HTTP/2", 400),
        ("HTTP/1.", 400),
        ("HTTP/1.10", 400),
        ("HTTP/11.1", 400),
        ("HTTP/1,1", 400),
        ("HTTP/a.b", 400),
        ("HTTP/1.1x", 400),
        ("http/1.1", 400),
        ("HTTPS/1.1", 400),
        ("FTP/1.1", 400),
        ("", 400),
    ] {
        let text = format!("GET / {version}\r\nHost: a\r\n\r\n");
        assert_eq!(outcome(text.as_bytes()), expected, "{version:?}");
        let short = format!("GET / {version}\r\n");
        let expected = if expected == COMPLETE { PARTIAL } else { expected };
        assert_eq!(outcome(short.as_bytes()), expected, "{short:?}");
    }
    check(&[
        ("GET / HTTP/2", PARTIAL),
        ("GET / HTTP/2.", PARTIAL),
        ("GET / HTTP/2.0", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ]);
}

#[test]
fn every_line_ends_with_cr_lf() {
    let whole = "GET / HTTP/1.1\r\nHost: a\r\nX:\r\nY: b\r\n\r\n";
    check(&[(whole, COMPLETE)]);
    for (at, _) in whole.match_indices("\r\n") {
        let mut bare_lf = whole.to_owned();
        bare_lf.remove(at);
        assert_eq!(outcome(bare_lf.as_bytes()), 400, "{bare_lf:?}");
        let mut bare_cr = whole.to_owned();
        bare_cr.remove(at + 1);
        // At the very end the LF may still come; any other byte settles it.
        bare_cr.push('x');
        assert_eq!(outcome(bare_cr.as_bytes()), 400, "{bare_cr:?}");
    }
    check(&[
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    ]);
}

#[test]
fn a_bare_lf_cannot_hide_behind_a_spare_cr_in_the_body() {
    check(&[("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n\r\n\r\n", 400)]);
}

#[test]
fn field_syntax() {
    check_fields(&[
        ("X: b", COMPLETE),
        ("X:b", COMPLETE),
        ("X:", COMPLETE),
        ("X: \t ", COMPLETE),
        ("X: a\tb", COMPLETE),
        ("X: \u{e4}", COMPLETE),
        ("!#$%&'*+-.^_`|~: ok", COMPLETE),
        ("X: a\r\n b", 400),  // obs-fold
        ("X: a\r\n\tb", 400), // obs-fold
        ("X:\r\n b", 400),    // obs-fold
        ("X : b", 400),       // white space before the colon
        ("X\t: b", 400),
        (": b", 400), // no name
        (" : b", 400),
        ("X", 400), // no colon
        ("X b", 400),
        ("X Y: b", 400),
        ("X(: b", 400),
        ("X\u{e4}: b", 400),
        ("X\0: b", 400),
        ("X\": b", 400),
    ]);
    check(&[
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\tX: b\r\nHost: a\r\n\r\n", 400),
    ]);
}

#[test]
fn control_characters_are_refused_at_every_distance() {
    // The distances cross the widths of the vector code.
    for byte in (0..=0x1f_u8).chain([0x7f]).filter(|byte| *byte != b'\t') {
        for distance in 0..70 {
            let filler = "v".repeat(distance);
            let mut text = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {filler}").into_bytes();
            text.push(byte);
            text.extend_from_slice(b"vvv\r\n\r\n");
            assert_eq!(outcome(&text), 400, "value, byte {byte:#x} after {distance}");
            let mut text = format!("GET /{filler}").into_bytes();
            text.push(byte);
            text.extend_from_slice(b" HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(outcome(&text), 400, "target, byte {byte:#x} after {distance}");
        }
    }
}

#[test]
fn names_and_targets_are_ascii() {
    for byte in 0x80..=0xff_u8 {
        let mut text = b"GET /".to_vec();
        text.push(byte);
        text.extend_from_slice(b" HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(outcome(&text), 400, "target, byte {byte:#x}");
    }
    check(&[("GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n", 400)]);
}

#[test]
fn hosts() {
    for (host, expected) in [
        ("", COMPLETE),
        ("a", COMPLETE),
        ("a.example:80", COMPLETE),
        ("a.example:", COMPLETE),
        ("127.0.0.1:65535", COMPLETE),
        ("[::1]", COMPLETE),
        ("[2001:db8::1]:8003", COMPLETE),
        ("a%41_~!b", COMPLETE),
        ("a:65536", 400),
        ("a:000080", 400),
        ("a:80:80", 400),
        ("a:b", 400),
        ("a:-1", 400),
        (":80", 400),
        ("a b", 400),
        ("a,b", 400),
        ("a/b", 400),
        ("a?b", 400),
        ("a#b", 400),
        ("a\\b", 400),
        ("u@a", 400),
        ("a%4", 400),
        ("a%zz", 400),
        ("[::1", 400),
        ("[::1]x", 400),
        ("[]", 400),
        ("[::g]", 400),
        ("[::1%25eth0]", 400),
        ("\u{e4}", 400),
        ("<a>", 400),
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(outcome(text.as_bytes()), expected, "{host:?}");
    }
    check(&[
        ("GET / HTTP/1.1\r\nX: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\nHost: a b\r\n\r\n", 400),
        ("GET http://a/ HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHosts: a\r\n\r\n", 400),
    ]);
}

#[test]
fn framing_shapes_that_smuggle() {
    check_fields(&[
        ("Content-Length: 0", COMPLETE),
        ("Content-Length: 007", COMPLETE),
        ("content-LENGTH:\t18446744073709551615 ", COMPLETE),
        ("Content-Length: 18446744073709551616", 400),
        ("Content-Length: 99999999999999999999999999", 400),
        ("Content-Length:", 400),
        ("Content-Length: +1", 400),
        ("Content-Length: -1", 400),
        ("Content-Length: 1 1", 400),
        ("Content-Length: 1_1", 400),
        ("Content-Length: 0x1", 400),
        ("Content-Length: 1e1", 400),
        ("Content-Length: 1.0", 400),
        ("Content-Length: \"1\"", 400),
        ("Content-Length: 1, 1", 400),
        ("Content-Length: 1,", 400),
        ("Content-Length: ,1", 400),
        ("Content-Length: \u{661}", 400),
        ("Content-Length: 1\r\nContent-Length: 1", 400),
        ("Content-Length: 1\r\ncontent-length: 2", 400),
        ("Content-Length: 0\r\nContent-Length: 0", 400),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", 400),
        ("Transfer-Encoding: identity\r\nContent-Length: 1", 400),
        ("Transfer-Encoding:\r\nContent-Length: 1", 400),
        ("Content-Length : 1", 400),
        ("Content-Length\t: 1", 400),
        ("Transfer-Encoding : chunked", 400),
        ("Transfer-Encoding: chunked", COMPLETE),
        ("transfer-encoding:CHUNKED\t", COMPLETE),
        ("Transfer-Encoding:", 400),
        ("Transfer-Encoding: ,", 400),
        ("Transfer-Encoding: chunked,", 400),
        ("Transfer-Encoding: ,chunked", 400),
        ("Transfer-Encoding: chunked, chunked", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding:", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 400),
        ("Transfer-Encoding: chunked, gzip", 400),
        ("Transfer-Encoding: gzip", 400),
        ("Transfer-Encoding: identity", 400),
        ("Transfer-Encoding: xchunked", 400),
        ("Transfer-Encoding: chunkedx", 400),
        ("Transfer-Encoding: \"chunked\"", 400),
        ("Transfer-Encoding: chunked;q=1", 400),
        ("Transfer-Encoding: chunked chunked", 400),
        ("Transfer-Encoding: \u{b}chunked", 400),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 501),
        ("Transfer-Encoding: identity, chunked", 501),
        ("Transfer-Encoding: gzip, chunked, chunked", 400),
        ("Transfer-Encoding:\r\n chunked", 400),
        ("Transfer_Encoding: chunked", COMPLETE), // another name: has no meaning here
    ]);
    check(&[
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
    ]);
}

/// The framing, persistence and expectation of a request with these fields.
fn meaning(version: &str, fields: &str) -> (Framing, Persistence, Expectation) {
    let text = format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n\r\n");
    match parse(text.as_bytes(), &mut Scratch::new()) {
        Ok(Parsed::Complete(head)) => (head.framing, head.persistence, head.expectation),
        other => panic!("{fields:?} gave {other:?}"),
    }
}

#[test]
fn framing_is_what_the_fields_say() {
    for (fields, expected) in [
        ("X: b", Framing::None),
        ("Content-Length: 0", Framing::Length(0)),
        ("Content-Length: 0012", Framing::Length(12)),
        ("Content-Length: 18446744073709551615", Framing::Length(u64::MAX)),
        ("Transfer-Encoding: Chunked", Framing::Chunked),
        ("Content-Lengths: 5", Framing::None),
        ("Content_Length: 5", Framing::None),
    ] {
        assert_eq!(meaning("1.1", fields).0, expected, "{fields:?}");
    }
}

#[test]
fn persistence_follows_version_and_connection() {
    use Persistence::{Close, KeepAlive};
    for (fields, in_10, in_11) in [
        ("X: b", Close, KeepAlive),
        ("Connection: close", Close, Close),
        ("Connection: CLOSE", Close, Close),
        ("connection: keep-alive", KeepAlive, KeepAlive),
        ("Connection: Keep-Alive, Upgrade", KeepAlive, KeepAlive),
        ("Connection: x ,\tclose\t, y", Close, Close),
        ("Connection: keep-alive, close", Close, Close),
        ("Connection: close\r\nConnection: keep-alive", Close, Close),
        ("Connection: keep-alive\r\nConnection: close", Close, Close),
        ("Connection: x\r\nConnection: keep-alive", KeepAlive, KeepAlive),
        ("Connection: closed", Close, KeepAlive),
        ("Connection: xclose", Close, KeepAlive),
        ("Connection:", Close, KeepAlive),
        ("Connection: ,,", Close, KeepAlive),
        ("Proxy-Connection: keep-alive", Close, KeepAlive),
        ("Connectio_: close", Close, KeepAlive),
    ] {
        assert_eq!(meaning("1.0", fields).1, in_10, "1.0, {fields:?}");
        assert_eq!(meaning("1.1", fields).1, in_11, "1.1, {fields:?}");
    }
}

#[test]
fn expectations() {
    use Expectation::{Continue, None};
    for (fields, in_10, in_11) in [
        ("Content-Length: 1", None, None),
        ("Content-Length: 1\r\nExpect: 100-continue", None, Continue),
        ("EXPECT: 100-CONTINUE\r\nContent-Length: 1", None, Continue),
        ("Transfer-Encoding: chunked\r\nExpect: 100-continue", None, Continue),
        ("Content-Length: 0\r\nExpect: 100-continue", None, None),
        ("Expect: 100-continue", None, None),
    ] {
        if !fields.contains("Transfer") {
            assert_eq!(meaning("1.0", fields).2, in_10, "1.0, {fields:?}");
        }
        assert_eq!(meaning("1.1", fields).2, in_11, "1.1, {fields:?}");
    }
    check_fields(&[
        ("Expect: 200-ok", 417),
        ("Expect:", 417),
        ("Expect: 100-continue, x", 417),
        ("Expect: 100-continue\r\nExpect: x", 417),
        ("Expect: 100-continue;q=1", 417),
    ]);
}

#[test]
fn targets() {
    for (method, target, expected) in [
        ("GET", "/", Some(("/", None, "h"))),
        ("GET", "/a/b%20c", Some(("/a/b%20c", None, "h"))),
        ("GET", "//a/../b", Some(("//a/../b", None, "h"))),
        ("GET", "/a?b=c?d", Some(("/a", Some("b=c?d"), "h"))),
        ("GET", "/?", Some(("/", Some(""), "h"))),
        ("GET", "/a|{}\"<>", Some(("/a|{}\"<>", None, "h"))),
        ("GET", "http://b:80/c?d", Some(("/c", Some("d"), "b:80"))),
        ("GET", "HTTPS://b", Some(("/", None, "b"))),
        ("GET", "http://b?d", Some(("/", Some("d"), "b"))),
        ("GET", "http://[::1]:80/c", Some(("/c", None, "[::1]:80"))),
        ("OPTIONS", "*", Some(("*", None, "h"))),
        ("OPTIONS", "/a", Some(("/a", None, "h"))),
        ("GET", "*", None),
        ("OPTIONS", "**", None),
        ("OPTIONS", "*?a", None),
        ("GET", "a", None),
        ("GET", "?a", None),
        ("GET", "b:80", None),
        ("GET", "/a#b", None),
        ("GET", "/a?b#c", None),
        ("GET", "http://b/#c", None),
        ("GET", "http://b#c", None),
        ("GET", "http:///c", None),
        ("GET", "http://", None),
        ("GET", "http://u:p@b/c", None),
        ("GET", "http://b:x/c", None),
        ("GET", "http:/b/c", None),
        ("GET", "ftp://b/c", None),
        ("GET", "httpx://b/c", None),
    ] {
        let text = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        let mut scratch = Scratch::new();
        let parsed = parse(text.as_bytes(), &mut scratch);
        match (parsed, expected) {
            (Ok(Parsed::Complete(head)), Some((path, query, host))) => {
                assert_eq!(head.target, target.as_bytes());
                assert_eq!(head.path, path.as_bytes(), "{target:?}");
                assert_eq!(head.query, query.map(str::as_bytes), "{target:?}");
                assert_eq!(head.host, Some(host.as_bytes()), "{target:?}");
            }
            (Err(reject), None) => assert_eq!(reject.status.code(), 400, "{target:?}"),
            (other, _) => panic!("{method} {target:?} gave {other:?}"),
        }
    }
    check(&[
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
        ("CONNECT [::1]:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
        ("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ]);
}

#[test]
fn without_a_host_in_http_10() {
    let mut scratch = Scratch::new();
    let Ok(Parsed::Complete(head)) = parse(b"HEAD /a HTTP/1.0\r\n\r\n", &mut scratch) else {
        panic!("not complete")
    };
    assert_eq!((head.method, head.host, head.version), (Method::Head, None, Version::Http10));
}

#[test]
fn methods() {
    for (text, method) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Put),
        ("DELETE", Method::Delete),
        ("PATCH", Method::Patch),
        ("OPTIONS", Method::Options),
        ("TRACE", Method::Other),
        ("Get", Method::Other),
        ("GETS", Method::Other),
    ] {
        let request = format!("{text} / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut scratch = Scratch::new();
        let Ok(Parsed::Complete(head)) = parse(request.as_bytes(), &mut scratch) else { panic!("{text}") };
        assert_eq!((head.method, head.method_text), (method, text.as_bytes()));
    }
    let longest = "M".repeat(METHOD_BYTES_MAX);
    check(&[
        (&longest, PARTIAL),
        (&format!("{longest} / HTTP/1.1\r\nHost: a\r\n\r\n"), COMPLETE),
        (&format!("{longest}M"), 501),
        (&format!("{longest}M / HTTP/1.1\r\nHost: a\r\n\r\n"), 501),
    ]);
}

#[test]
fn target_limit() {
    let longest = "t".repeat(TARGET_BYTES_MAX - 1);
    check(&[
        (&format!("GET /{longest}"), PARTIAL),
        (&format!("GET /{longest} HTTP/1.1\r\nHost: a\r\n\r\n"), COMPLETE),
        (&format!("GET /{longest}t"), 414),
        (&format!("\r\nGET /{longest}t"), 414),
        (&format!("GET /{longest}t HTTP/1.1\r\n"), 414),
        (&format!("GET /{longest}t HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (&format!("GET /{longest}t HTTP/2."), 414),
        (&format!("GET /{}", "t".repeat(HEAD_BYTES_MAX)), 414),
    ]);
}

#[test]
fn head_limits() {
    let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    let fill = HEAD_BYTES_MAX - start.len() - 4;
    let longest = format!("{start}{}\r\n\r\n", "v".repeat(fill));
    assert_eq!(longest.len(), HEAD_BYTES_MAX);
    let longer = format!("{start}{}\r\n\r\n", "v".repeat(fill + 1));
    check(&[
        (&longest, COMPLETE),
        (&format!("{longest}body"), COMPLETE),
        (&longest[..HEAD_BYTES_MAX - 1], PARTIAL),
        (&longer, 431),
        (&longer[..HEAD_BYTES_MAX], 431),
        (&format!("\r\n{longest}"), 431),
        (&format!("{longer}{longer}"), 431),
    ]);
}

#[test]
fn field_count_limit() {
    let most = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X: b\r\n".repeat(HEADERS_MAX - 1));
    check(&[
        (&most, PARTIAL),
        (&format!("{most}\r\n"), COMPLETE),
        (&format!("{most}X: b"), PARTIAL),
        (&format!("{most}X: b\r\n"), 431),
        (&format!("{most}X: b\r\n\r\n"), 431),
    ]);
}

#[test]
fn empty_lines_limit() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let most = "\r\n".repeat(EMPTY_LINES_MAX);
    check(&[
        (&most, PARTIAL),
        (&format!("{most}{request}"), COMPLETE),
        (&format!("{most}\r\n"), 400),
        (&format!("{most}\r\n{request}"), 400),
    ]);
}

#[test]
fn refusals_name_the_mistake() {
    for (text, part) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", "folded"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n", "between a header name and its colon"),
        ("GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n", "no name"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", "no colon"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX(: a\r\n\r\n", "not allowed in names"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", "control character"),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", "CR LF"),
        ("\u{16}\u{3}", "plain HTTP"),
        ("GET /\u{7f} HTTP/1.1", "percent-encoded"),
    ] {
        let Err(reject) = parse(text.as_bytes(), &mut Scratch::new()) else { panic!("{text:?}") };
        assert!(reject.reason.contains(part), "{text:?} gave {reject}");
    }
}
