//! The chunked coding by example; `tests/properties.rs` has the properties.
//!
//! Owns: one row per rule of RFC 9112 section 7.1. Must not know: limits of bodies.

use super::{ChunkStep, ChunkedDecoder, write_chunk_end, write_chunk_head, write_last_chunk};
use faaster_limits::{CHUNK_LINE_BYTES_MAX, CHUNK_OVERHEAD_BYTES_MAX, TRAILERS_BYTES_MAX};

/// Decodes in pieces of `piece` bytes: the data and the bytes that the body took; `None` for the bytes if it is not
/// complete; or the status of the refusal.
fn decode(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, Option<usize>), u16> {
    let mut decoder = ChunkedDecoder::new();
    let mut data = Vec::new();
    let mut taken = 0;
    for chunk in bytes.chunks(piece) {
        let mut input = chunk;
        loop {
            match decoder.step(input).map_err(|reject| reject.status.code())? {
                ChunkStep::NeedMore { consumed } => {
                    assert_eq!(consumed, input.len());
                    taken += consumed;
                    break;
                }
                ChunkStep::Data { consumed_before, len } => {
                    assert!(len > 0);
                    data.extend_from_slice(&input[consumed_before..consumed_before + len]);
                    input = &input[consumed_before + len..];
                    taken += consumed_before + len;
                }
                ChunkStep::Done { consumed } => return Ok((data, Some(taken + consumed))),
            }
        }
    }
    Ok((data, None))
}

#[track_caller]
fn check(text: &str, expected: Result<(&str, Option<usize>), u16>) {
    for piece in [1, 2, 3, 7, text.len().max(1)] {
        let expected = expected.map(|(data, taken)| (data.as_bytes().to_vec(), taken));
        assert_eq!(decode(text.as_bytes(), piece), expected, "{text:?} in pieces of {piece}");
    }
}

#[test]
fn complete_bodies() {
    for (body, data) in [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("1\r\na\r\n00A\r\n0123456789\r\n000\r\n\r\n", "a0123456789"),
        ("a;x=1;y=\"z;\t\u{e4}\"\r\n0123456789\r\n0;end\r\n\r\n", "0123456789"),
        ("1 \t;x\r\na\r\n0\r\n\r\n", "a"),
        ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
        ("0\r\nA: b\r\nC:\r\nD: \u{e4}\t\r\n\r\n", ""),
    ] {
        for next in ["", "GET / HTTP/1.1\r\n", "0\r\n\r\n"] {
            check(&format!("{body}{next}"), Ok((data, Some(body.len()))));
        }
    }
}

#[test]
fn incomplete_bodies() {
    for text in ["", "5", "5\r", "5\r\n", "0\r\n", "0\r\n\r", "0\r\nA: b\r\n"] {
        check(text, Ok(("", None)));
    }
    check("5\r\nhell", Ok(("hell", None)));
    check("5\r\nhello\r", Ok(("hello", None)));
}

#[test]
fn malformed_bodies() {
    for text in [
        "\r\n",
        "g\r\n",
        " 5\r\n",
        "-5\r\n",
        "+5\r\n",
        "0x5\r\n",
        "5_0\r\n",
        ";x\r\n",
        "5\n",
        "5\rx",
        "5 \r\n",
        "5 5\r\n",
        "5;x\n",
        "5;x\rx",
        "5;\0\r\n",
        "5;\u{7f}\r\n",
        "5\r\nhello0\r\n",
        "5\r\nhello\n",
        "5\r\nhello\rx",
        "5\r\nhello!\r\n",
        "10000000000000000\r\n",
        "ffffffffffffffffffff\r\n",
        "0\r\n\n",
        "0\r\n\rx",
        "0\r\n A: b\r\n",
        "0\r\n: b\r\n",
        "0\r\nA : b\r\n",
        "0\r\nA\r\n",
        "0\r\nA: b\n",
        "0\r\nA: b\rx",
        "0\r\nA: \0\r\n",
        "0\r\nGET / HTTP/1.1\r\n",
    ] {
        check(text, Err(400));
    }
}

#[test]
fn the_largest_size_is_counted_right() {
    let mut decoder = ChunkedDecoder::new();
    assert_eq!(decoder.step(b"ffffffffffffffff"), Ok(ChunkStep::NeedMore { consumed: 16 }));
    assert_eq!(decoder.chunk_left_bytes(), 0);
    assert_eq!(decoder.step(b"\r\n"), Ok(ChunkStep::NeedMore { consumed: 2 }));
    assert_eq!(decoder.chunk_left_bytes(), u64::MAX);
    assert_eq!(decoder.step(b"abc"), Ok(ChunkStep::Data { consumed_before: 0, len: 3 }));
    assert_eq!(decoder.chunk_left_bytes(), u64::MAX - 3);
}

#[test]
fn a_failure_stays() {
    let mut decoder = ChunkedDecoder::new();
    let first = decoder.step(b"x");
    assert!(first.is_err());
    assert_eq!(decoder.step(b"0\r\n\r\n"), first);
}

#[test]
fn after_the_end_nothing_is_consumed() {
    let mut decoder = ChunkedDecoder::new();
    assert_eq!(decoder.step(b"0\r\n\r\n0\r\n\r\n"), Ok(ChunkStep::Done { consumed: 5 }));
    assert_eq!(decoder.step(b"0\r\n\r\n"), Ok(ChunkStep::Done { consumed: 0 }));
}

#[test]
fn line_limits() {
    let longest = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(CHUNK_LINE_BYTES_MAX - 4));
    check(&longest, Ok(("a", Some(longest.len()))));
    check(&format!("1;{}", "x".repeat(CHUNK_LINE_BYTES_MAX - 1)), Err(400));
    check(&"0".repeat(CHUNK_LINE_BYTES_MAX + 1), Err(400));
    let longest = format!("0\r\nA:{}\r\n\r\n", "x".repeat(CHUNK_LINE_BYTES_MAX - 4));
    check(&longest, Ok(("", Some(longest.len()))));
    check(&format!("0\r\nA:{}\r\n", "x".repeat(CHUNK_LINE_BYTES_MAX - 3)), Err(431));
}

#[test]
fn trailers_limit() {
    let line = format!("A:{}\r\n", "x".repeat(1020));
    assert_eq!(TRAILERS_BYTES_MAX % line.len(), 0);
    // One byte of the limit is for the CR of the empty line.
    let most = line.repeat(TRAILERS_BYTES_MAX / line.len() - 1);
    check(&format!("0\r\n{most}B: c\r\n\r\n"), Ok(("", Some(most.len() + 11))));
    check(&format!("0\r\n{most}{line}B: c\r\n\r\n"), Err(431));
}

#[test]
fn extensions_are_bounded_over_the_whole_body_but_small_chunks_are_not() {
    let greedy = format!("1;{}\r\na\r\n", "x".repeat(1000));
    check(&greedy.repeat(CHUNK_OVERHEAD_BYTES_MAX / 1000 + 2), Err(400));
    let small = "1\r\na\r\n".repeat(50_000);
    let (data, _) = decode(small.as_bytes(), 4096).expect("small chunks are fine");
    assert_eq!(data.len(), 50_000);
    // One signature of 100 bytes per chunk of 64 KiB, as some upload clients send.
    let signed = format!("10000;{}\r\n{}\r\n", "s".repeat(100), "d".repeat(0x10000)).repeat(300);
    let (data, _) = decode(signed.as_bytes(), 4096).expect("signed chunks are fine");
    assert_eq!(data.len(), 300 * 0x10000);
}

#[test]
fn chunk_heads() {
    for len in [1, 9, 10, 15, 16, 255, 256, 4095, 65_536, 0xdead_beef, usize::MAX] {
        let mut out = b"kept".to_vec();
        write_chunk_head(&mut out, len);
        assert_eq!(out, format!("kept{len:x}\r\n").into_bytes());
    }
    let mut out = Vec::new();
    write_chunk_head(&mut out, 2);
    out.extend_from_slice(b"ab");
    write_chunk_end(&mut out);
    write_last_chunk(&mut out);
    assert_eq!(out, b"2\r\nab\r\n0\r\n\r\n");
}
