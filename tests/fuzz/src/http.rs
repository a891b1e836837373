//! HTTP requests: however the bytes are cut, the same head, the same body, the same refusal.
//!
//! Owns: the check. Must not know: what a request asks for.

use faaster_http::{Attempt, BodyReader, Framing, Head, HeadProgress, Parsed, Reject, Scratch, parse};

/// More than this is refused.
const BODY_BYTES_MAX: u64 = 100_000;

/// The first byte says how the rest is cut.
pub fn check(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let mut scratch = Scratch::new();
    let whole = parse(bytes, &mut scratch);
    check_pieces(bytes, *choice, &whole);
    if let Ok(Parsed::Complete(head)) = whole {
        check_head(&head, bytes);
        check_body(head.framing, &bytes[head.bytes..], *choice);
    }
}

/// A connection that gets the bytes in pieces ends up with what `whole` says.
fn check_pieces(bytes: &[u8], choice: u8, whole: &Result<Parsed<'_, '_>, Reject>) {
    let mut progress = HeadProgress::new();
    let mut so_far = 0;
    for piece in crate::pieces(bytes, choice) {
        so_far += piece.len();
        if progress.observe(&bytes[..so_far]) == Attempt::Wait {
            continue;
        }
        let mut scratch = Scratch::new();
        match parse(&bytes[..so_far], &mut scratch) {
            Ok(Parsed::Partial) => {}
            Ok(Parsed::Complete(head)) => {
                let Ok(Parsed::Complete(other)) = whole else {
                    panic!("{head:?} in pieces, {whole:?} whole")
                };
                assert_eq!(&head, other);
                return;
            }
            Err(reject) => {
                // Which mistake is seen first may depend on the pieces; that there is one may not.
                assert!(whole.is_err(), "{reject:?} in pieces, {whole:?} whole");
                return;
            }
        }
    }
    let complete = matches!(whole, Ok(Parsed::Complete(_)));
    assert!(!complete, "a complete head was not noticed in pieces");
}

fn check_head(head: &Head<'_, '_>, bytes: &[u8]) {
    assert!(head.bytes <= bytes.len());
    assert!(bytes[..head.bytes].ends_with(b"\n"), "a head ends with a line");
    let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    for header in head.headers {
        assert!(!header.value.iter().any(control), "{header:?}");
        assert!(!header.name.is_empty() && header.name.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    assert!(head.path.starts_with(b"/") || head.path == b"*", "{head:?}");
    assert!(!head.target.iter().any(|byte| byte.is_ascii_whitespace() || control(byte)));
    // Both at once is how requests are smuggled.
    let lengths = head.headers.iter().filter(|it| it.name.eq_ignore_ascii_case("content-length")).count();
    let codings = head.headers.iter().filter(|it| it.name.eq_ignore_ascii_case("transfer-encoding")).count();
    assert!(lengths == 0 || codings == 0, "{head:?}");
}

/// What a body reader makes of a body: its data, the bytes used, and whether it is complete.
fn read<'b>(
    framing: Framing,
    pieces: impl Iterator<Item = &'b [u8]>,
) -> Result<(Vec<u8>, usize, bool), Reject> {
    let mut reader = BodyReader::new(framing, BODY_BYTES_MAX)?;
    let (mut body, mut used) = (Vec::new(), 0);
    // An empty body is complete before its first byte.
    let mut done = reader.feed(b"", &mut |_| {})?.done;
    for piece in pieces {
        if done {
            break;
        }
        let fed = reader.feed(piece, &mut |data| body.extend_from_slice(data))?;
        assert!(fed.consumed <= piece.len() && (fed.done || fed.consumed == piece.len()));
        used += fed.consumed;
        done = fed.done;
    }
    assert!(body.len() as u64 <= BODY_BYTES_MAX && body.len() as u64 == reader.received_bytes());
    Ok((body, used, done))
}

fn check_body(framing: Framing, bytes: &[u8], choice: u8) {
    let whole = read(framing, std::iter::once(bytes));
    let pieces = read(framing, crate::pieces(bytes, choice));
    match (&whole, &pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces),
        (Err(whole), Err(pieces)) => assert_eq!(whole.status, pieces.status),
        _ => panic!("{whole:?} whole, {pieces:?} in pieces"),
    }
}

/// Requests of every framing.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        &b"\x01GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x90POST /v1/functions/f/invocations?Qualifier=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"\x03POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: 1\r\n\r\n",
        b"\xf0OPTIONS * HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
        b"\x05GET http://h:1/p%20q?a=b HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n",
        b"\xa0POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\nContent-Length: 1\r\n\r\nx",
    ]
    .into_iter()
    .map(<[u8]>::to_vec)
    .collect()
}
