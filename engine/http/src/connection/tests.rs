//! Heads in small pieces and bodies against their limits, by example.
//!
//! Owns: the tests of `connection`. Must not know: the syntax of chunks beyond plain ones.

use super::{Attempt, BodyReader, Fed, HeadProgress};
use crate::parse::Framing;
use faaster_limits::HEAD_BYTES_MAX;

/// Data, bytes taken, whether it is done; or the status of the refusal.
type Outcome<D> = Result<(D, usize, bool), u16>;
/// Framing, limit, input, what must come of it.
type Case = (Framing, u64, &'static [u8], Outcome<&'static [u8]>);

/// Feeds `input` in pieces of `piece` bytes.
fn read(framing: Framing, limit: u64, input: &[u8], piece: usize) -> Outcome<Vec<u8>> {
    let mut reader = BodyReader::new(framing, limit).map_err(|reject| reject.status.code())?;
    let mut data = Vec::new();
    let mut taken = 0;
    for part in input.chunks(piece) {
        let fed = reader
            .feed(part, &mut |bytes| {
                assert!(!bytes.is_empty());
                data.extend_from_slice(bytes);
            })
            .map_err(|reject| reject.status.code())?;
        taken += fed.consumed;
        if fed.done {
            assert_eq!(reader.received_bytes(), data.len() as u64);
            return Ok((data, taken, true));
        }
        assert_eq!(fed.consumed, part.len());
    }
    Ok((data, taken, false))
}

#[test]
fn bodies() {
    let cases: &[Case] = &[
        (Framing::None, 0, b"next", Ok((b"", 0, true))),
        (Framing::Length(0), 0, b"next", Ok((b"", 0, true))),
        (Framing::Length(5), 5, b"hellonext", Ok((b"hello", 5, true))),
        (Framing::Length(5), 9, b"hell", Ok((b"hell", 4, false))),
        (Framing::Length(6), 5, b"", Err(413)),
        (Framing::Length(u64::MAX), 5, b"", Err(413)),
        (Framing::Chunked, 0, b"0\r\n\r\nnext", Ok((b"", 5, true))),
        (Framing::Chunked, 5, b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\nnext", Ok((b"hello", 20, true))),
        (Framing::Chunked, 5, b"2\r\nhe\r\n3\r\nll", Ok((b"hell", 12, false))),
        (Framing::Chunked, 4, b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", Err(413)),
        (Framing::Chunked, 4, b"2\r\nhe\r\n3\r\n", Err(413)), // announced, not there yet
        (Framing::Chunked, 4, b"ffffffffffffffff\r\nx", Err(413)),
        (Framing::Chunked, 4, b"1\r\nx\r\nffffffffffffffff\r\n", Err(413)),
        (Framing::Chunked, 4, b"ffffffffffffffff\n", Err(400)),
        (Framing::Chunked, 4, b"x", Err(400)),
    ];
    for (framing, limit, input, expected) in cases {
        for piece in [1, 2, 3, input.len().max(1)] {
            let expected = expected.map(|(data, taken, done)| (data.to_vec(), taken, done));
            assert_eq!(
                read(*framing, *limit, input, piece),
                expected,
                "{framing:?} {input:?} pieces of {piece}"
            );
        }
    }
}

#[test]
fn a_body_without_bytes_is_done_at_once() {
    for framing in [Framing::None, Framing::Length(0)] {
        let mut reader = BodyReader::new(framing, 10).expect("fits");
        assert_eq!(reader.length_bytes(), Some(0));
        assert_eq!(reader.feed(b"", &mut |_| panic!("no data")), Ok(Fed { consumed: 0, done: true }));
    }
}

#[test]
fn a_done_reader_takes_nothing() {
    for (framing, body) in [(Framing::Length(2), &b"ab"[..]), (Framing::Chunked, b"2\r\nab\r\n0\r\n\r\n")] {
        let mut reader = BodyReader::new(framing, 2).expect("fits");
        assert_eq!(reader.feed(body, &mut |_| {}), Ok(Fed { consumed: body.len(), done: true }));
        assert_eq!(reader.feed(b"next", &mut |_| panic!("no data")), Ok(Fed { consumed: 0, done: true }));
    }
}

#[test]
fn a_failed_reader_stays_failed() {
    let mut reader = BodyReader::new(Framing::Chunked, 1).expect("nothing announced");
    let first = reader.feed(b"2\r\n", &mut |_| panic!("no data"));
    assert_eq!(first.map_err(|reject| reject.status.code()), Err(413));
    assert_eq!(reader.feed(b"ab\r\n", &mut |_| panic!("no data")), first);
    assert_eq!(reader.length_bytes(), None);
}

#[test]
fn length_is_known_before_the_end() {
    let mut reader = BodyReader::new(Framing::Length(5), 5).expect("fits");
    let mut sink = |_: &[u8]| {};
    assert_eq!(reader.feed(b"ab", &mut sink), Ok(Fed { consumed: 2, done: false }));
    assert_eq!((reader.length_bytes(), reader.received_bytes()), (Some(5), 2));
}

/// The lengths at which a head that comes byte by byte is parsed.
fn attempts(head: &[u8]) -> Vec<usize> {
    let mut progress = HeadProgress::new();
    (1..=head.len()).filter(|len| progress.observe(&head[..*len]) == Attempt::Parse).collect()
}

#[test]
fn a_trickling_head_is_parsed_rarely_and_at_its_end() {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "v".repeat(5000));
    let attempts = attempts(head.as_bytes());
    assert_eq!(attempts.last(), Some(&head.len()));
    assert!(attempts.len() <= 15, "{attempts:?}");
}

#[test]
fn an_empty_line_of_any_kind_is_noticed() {
    for end in ["\r\n\r\n", "\n\n", "\r\n\n", "\n\r\n"] {
        let head = format!("GET / HTTP/1.1{end}");
        assert_eq!(attempts(head.as_bytes()).last(), Some(&head.len()), "{end:?}");
        let mut progress = HeadProgress::new();
        assert_eq!(progress.observe(b"GET / HTTP"), Attempt::Parse);
        assert_eq!(progress.observe(b"GET / HTTP/"), Attempt::Wait);
        assert_eq!(progress.observe(head.as_bytes()), Attempt::Parse);
    }
}

#[test]
fn a_head_at_its_limit_is_parsed() {
    let head = vec![b'x'; HEAD_BYTES_MAX];
    assert_eq!(attempts(&head).last(), Some(&HEAD_BYTES_MAX));
}
