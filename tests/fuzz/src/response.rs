//! HTTP responses as the load generator reads them: however the bytes are cut, the same answers or a refusal.
//!
//! Owns: the check. Must not know: what was asked for.

use std::time::Duration;

use faaster_loadgen::response::{Answer, BodyAllowed, ParseError, ResponseParser};

/// The first byte says how the rest is cut, and whether answers may have bodies.
pub fn check(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let allowed = if choice % 8 == 0 { BodyAllowed::No } else { BodyAllowed::Yes };
    let whole = read(std::iter::once(bytes), allowed);
    match (whole, read(crate::pieces(bytes, *choice), allowed)) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces),
        // Which mistake is seen first may depend on the pieces; that there is one may not.
        (Err(_), Err(_)) => {}
        (whole, pieces) => panic!("{whole:?} whole, {pieces:?} in pieces"),
    }
}

/// An answer, its body, and what its head told of the time inside of the server.
type Told = (Answer, Vec<u8>, Vec<(String, Duration)>);

/// The answers.
fn read<'b>(
    pieces: impl Iterator<Item = &'b [u8]>,
    allowed: BodyAllowed,
) -> Result<Vec<Told>, ParseError> {
    let mut parser = ResponseParser::new(allowed).with_phases();
    let (mut answers, mut body) = (Vec::new(), Vec::new());
    for mut piece in pieces {
        while !piece.is_empty() {
            let fed = parser.feed(piece, &mut |data| body.extend_from_slice(data))?;
            assert!(fed.consumed > 0 && fed.consumed <= piece.len());
            assert!(fed.answer.is_some() || fed.consumed == piece.len());
            piece = &piece[fed.consumed..];
            answers.extend(fed.answer.map(|answer| (answer, std::mem::take(&mut body), parser.take_phases())));
        }
    }
    let last = parser.end()?;
    answers.extend(last.map(|answer| (answer, std::mem::take(&mut body), parser.take_phases())));
    for (answer, body, _) in &answers {
        assert!((200..=599).contains(&answer.status) && answer.body_bytes == body.len() as u64);
    }
    Ok(answers)
}

/// Responses of every framing.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        &b"\x01HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 204 No Content\r\n\r\n"[..],
        b"\x91HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: 1\r\n\r\n",
        b"\x03HTTP/1.0 404 Not Found\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
        b"\xf1HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\nX: y\n\nuntil the end",
        b"\x08HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nHTTP/1.1 304 \r\n\r\n",
        b"\x05HTTP/1.1 200 OK\r\nServer-Timing: a;dur=1, b;desc=\"x,y\";dur=2.5\r\nX-Amz-Function-Error: Unhandled\r\n\r\n",
        b"\xa1HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    ]
    .into_iter()
    .map(<[u8]>::to_vec)
    .collect()
}
