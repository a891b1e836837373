//! Responses good and bad, whole and in pieces.

use proptest::prelude::*;

use super::*;

/// All answers in `bytes` fed in pieces of these lengths, with their bodies; then what the end of the stream says.
fn read(bytes: &[u8], cuts: &[usize], allowed: BodyAllowed) -> Result<Vec<(Answer, Vec<u8>)>, ParseError> {
    let mut parser = ResponseParser::new(allowed);
    let (mut answers, mut body) = (Vec::new(), Vec::new());
    let mut rest = bytes;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let length = cuts.next().map_or(rest.len(), |cut| (*cut).clamp(1, rest.len()));
        let (mut piece, after) = rest.split_at(length);
        rest = after;
        while !piece.is_empty() {
            let fed = parser.feed(piece, &mut |data| body.extend_from_slice(data))?;
            assert!(fed.consumed > 0 && fed.consumed <= piece.len());
            assert!(fed.answer.is_some() || fed.consumed == piece.len());
            piece = &piece[fed.consumed..];
            answers.extend(fed.answer.map(|answer| (answer, std::mem::take(&mut body))));
        }
    }
    answers.extend(parser.end()?.map(|answer| (answer, std::mem::take(&mut body))));
    Ok(answers)
}

fn one(text: &str) -> Result<(u16, String, Persistence), ParseError> {
    let mut answers = read(text.as_bytes(), &[], BodyAllowed::Yes)?;
    assert_eq!(answers.len(), 1, "{text:?}");
    let (answer, body) = answers.remove(0);
    assert_eq!(answer.body_bytes, body.len() as u64);
    Ok((answer.status, String::from_utf8(body).unwrap(), answer.persistence))
}

#[test]
fn responses_end_where_their_headers_say() {
    use Persistence::{Close, KeepAlive};
    for (text, status, body, persistence) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello", KeepAlive),
        ("HTTP/1.1 200\r\ncontent-length:0\r\n\r\n", 200, "", KeepAlive),
        ("HTTP/1.1 404 Not Found\nCONTENT-LENGTH: 2\nConnection: x, Close\n\nno", 404, "no", Close),
        ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, "x", Close),
        ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\nx", 200, "x", KeepAlive),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, "", KeepAlive),
        ("HTTP/1.1 304 \r\nContent-Length: 900\r\n\r\n", 304, "", KeepAlive),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, "until the end", Close),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc", 200, "abc", Close),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\nB\r\n chunked it\r\n0\r\nT: 1\r\n\r\n",
            200,
            "hello chunked it",
            KeepAlive,
        ),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, "x", KeepAlive),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 200, "abc", KeepAlive),
    ] {
        let wanted = body.to_owned();
        if text.contains("chunked it") {
            // 0xB is eleven bytes: " chunked it".
            assert_eq!(one(text), Ok((status, wanted, persistence)));
        } else {
            assert_eq!(one(text), Ok((status, wanted, persistence)), "{text:?}");
        }
    }
}

#[test]
fn what_is_no_response_is_refused_with_its_reason() {
    for (text, error) in [
        ("SSH-2.0-OpenSSH_9.2\r\n", ParseError::StatusLine),
        ("HTTP/2 200\r\n\r\n", ParseError::StatusLine),
        ("HTTP/1.1 99 x\r\n\r\n", ParseError::StatusLine),
        ("HTTP/1.1 2000 OK\r\n\r\n", ParseError::StatusLine),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", ParseError::HeaderLine),
        ("HTTP/1.1 200 OK\r\nA: 1\r\n folded: 2\r\n\r\n", ParseError::HeaderLine),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", ParseError::ContentLength),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n", ParseError::ContentLength),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", ParseError::ContentLength),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", ParseError::ContentLength),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            ParseError::TwoLengths,
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", ParseError::ChunkSize),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", ParseError::ChunkEnd),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            ParseError::ChunkSize,
        ),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", ParseError::Upgrade),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", ParseError::Truncated),
        ("HTTP/1.1 200 OK\r\nConte", ParseError::Truncated),
    ] {
        assert_eq!(read(text.as_bytes(), &[], BodyAllowed::Yes), Err(error), "{text:?}");
        assert_eq!(read(text.as_bytes(), &[1], BodyAllowed::Yes), Err(error), "{text:?} in single bytes");
    }
}

#[test]
fn endless_heads_lines_and_interim_responses_end() {
    let long = [b"HTTP/1.1 200 OK\r\nX: ", vec![b'a'; HEAD_BYTES_MAX].as_slice()].concat();
    assert_eq!(read(&long, &[1000], BodyAllowed::Yes), Err(ParseError::HeadTooLong));
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let line = [&chunked[..], b"1;", vec![b'a'; CHUNK_LINE_BYTES_MAX].as_slice()].concat();
    assert_eq!(read(&line, &[1000], BodyAllowed::Yes), Err(ParseError::ChunkSize));
    let trailers = [&chunked[..], b"0\r\n", "a: b\r\n".repeat(TRAILER_BYTES_MAX / 6 + 1).as_bytes()].concat();
    assert_eq!(read(&trailers, &[1000], BodyAllowed::Yes), Err(ParseError::TrailersTooLong));
    let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(INTERIM_MAX + 1);
    assert_eq!(read(interim.as_bytes(), &[], BodyAllowed::Yes), Err(ParseError::InterimTooMany));
}

#[test]
fn answers_to_head_have_no_body() {
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n";
    assert_eq!(read(text, &[], BodyAllowed::No).unwrap().len(), 2);
}

/// A response as a server may write it, and its body.
fn response() -> impl Strategy<Value = (Vec<u8>, u16, Vec<u8>)> {
    let body = proptest::collection::vec(any::<u8>(), 0..600);
    let extra = proptest::collection::vec("[A-Za-z-]{1,12}: [ -~]{0,20}", 0..5);
    (200u16..=599, body, extra, proptest::option::of(1usize..90))
        .prop_filter("these have no body", |(status, ..)| *status != 204 && *status != 304)
        .prop_filter("these would change the framing", |(_, _, extra, _)| {
            !extra.iter().any(|line| {
                let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
                ["content-length", "transfer-encoding", "connection"].contains(&name.as_str())
            })
        })
        .prop_map(|(status, body, extra, chunk)| {
            let mut bytes = format!("HTTP/1.1 {status} Some Reason\r\n").into_bytes();
            for line in extra {
                bytes.extend_from_slice(line.as_bytes());
                bytes.extend_from_slice(b"\r\n");
            }
            match chunk {
                None => {
                    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                    bytes.extend_from_slice(&body);
                }
                Some(size) => {
                    bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                    for piece in body.chunks(size) {
                        bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                        bytes.extend_from_slice(piece);
                        bytes.extend_from_slice(b"\r\n");
                    }
                    bytes.extend_from_slice(b"0\r\n\r\n");
                }
            }
            (bytes, status, body)
        })
}

proptest! {
    #[test]
    fn pipelined_responses_are_told_apart_however_they_are_cut(
        responses in proptest::collection::vec(response(), 1..5),
        cuts in proptest::collection::vec(1usize..200, 1..8),
    ) {
        let stream: Vec<u8> = responses.iter().flat_map(|(bytes, ..)| bytes.clone()).collect();
        let answers = read(&stream, &cuts, BodyAllowed::Yes).unwrap();
        prop_assert_eq!(answers.len(), responses.len());
        for ((answer, got), (_, status, body)) in answers.iter().zip(&responses) {
            prop_assert_eq!(answer.status, *status);
            prop_assert_eq!(got, body);
        }
    }

    #[test]
    fn broken_responses_mean_the_same_however_they_are_cut(
        (mut bytes, ..) in response(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cuts in proptest::collection::vec(1usize..50, 1..8),
    ) {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        match (read(&bytes, &[], BodyAllowed::Yes), read(&bytes, &cuts, BodyAllowed::Yes)) {
            (Ok(whole), Ok(pieces)) => prop_assert_eq!(whole, pieces),
            // Which mistake is seen first may depend on the pieces; that there is one may not.
            (Err(_), Err(_)) => {}
            (whole, pieces) => prop_assert!(false, "{:?} whole, {:?} in pieces", whole, pieces),
        }
    }

    #[test]
    fn no_bytes_at_all_break_the_parser(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        cuts in proptest::collection::vec(1usize..50, 1..8),
    ) {
        drop(read(&bytes, &cuts, BodyAllowed::Yes));
    }
}
