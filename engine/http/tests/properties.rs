//! Properties of the codec over its public API: the outcome does not hang on how bytes are cut, decoding undoes
//! encoding, nothing panics, and whatever is accepted is unambiguous.
//!
//! Owns: the generators. Must not know: the codec's inside.
#![forbid(unsafe_code)]

use faaster_http::{
    Attempt, BodyReader, Framing, Head, HeadProgress, Parsed, Reject, Scratch, parse, write_chunk_end,
    write_chunk_head, write_last_chunk,
};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::Index;

/// A head that must be accepted.
fn valid_head() -> impl Strategy<Value = Vec<u8>> {
    let method =
        prop_oneof![Just("GET"), Just("POST"), Just("PUT"), Just("PATCH"), Just("OPTIONS"), Just("x-Y")];
    let target = prop_oneof![
        "(/[a-zA-Z0-9._~%:$@-]{0,12}){1,4}(\\?[a-z0-9=&%+]{0,20})?",
        "http://[a-z0-9.]{1,12}(:[0-9]{1,4})?(/[a-z]{0,8})?",
    ];
    let framing = prop_oneof![
        Just(String::new()),
        any::<u64>().prop_map(|length| format!("Content-Length: {length}\r\n")),
        Just("transfer-encoding: chunked\r\nExpect: 100-continue\r\n".to_owned()),
    ];
    // A letter first keeps these apart from the fields with a meaning.
    let field =
        "X-[a-zA-Z0-9!#$%&'*+.^_`|~-]{0,24}:[ \t]{0,2}([!-~\u{80}-\u{ff}][ -~\t\u{80}-\u{ff}]{0,80})?\r\n";
    let connection =
        prop_oneof![Just(""), Just("Connection: close\r\n"), Just("Connection: keep-alive, x\r\n")];
    (0..=4_usize, method, target, vec(field, 0..12), framing, connection).prop_map(
        |(empty_lines, method, target, fields, framing, connection)| {
            let mut head = "\r\n".repeat(empty_lines);
            head += &format!("{method} {target} HTTP/1.1\r\nHost: a.example:80\r\n");
            let half = fields.len() / 2;
            head +=
                &format!("{}{framing}{}{connection}\r\n", fields[..half].concat(), fields[half..].concat());
            head.into_bytes()
        },
    )
}

/// A valid head with a few bytes put in, taken out or replaced, preferably by bytes that matter.
fn mutated_head() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        prop::sample::select(b"\r\n\t\0 :,;/?#*%[]@\x7f\x80".to_vec()),
        prop::sample::select(b"\r\n".to_vec()),
        any::<u8>(),
    ];
    (valid_head(), vec((any::<Index>(), 0..3_u8, byte), 0..4)).prop_map(|(mut head, changes)| {
        for (index, change, byte) in changes {
            let at = index.index(head.len());
            match change {
                0 => head.insert(at, byte),
                1 => head[at] = byte,
                _ => drop(head.remove(at)),
            }
            if head.is_empty() {
                head.push(byte);
            }
        }
        head
    })
}

/// What a head's fields add up to, read again without cleverness from the accepted bytes.
fn assert_unambiguous(bytes: &[u8], head: &Head<'_, '_>) {
    let text = &bytes[..head.bytes];
    assert!(text.ends_with(b"\r\n\r\n"));
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'\r' => assert_eq!(text.get(at + 1), Some(&b'\n'), "bare CR at {at}"),
            b'\n' => assert_eq!(at.checked_sub(1).map(|before| text[before]), Some(b'\r'), "bare LF at {at}"),
            b'\t' => {}
            _ => assert!(!byte.is_ascii_control(), "control at {at}"),
        }
    }
    let start = text.iter().position(|byte| !b"\r\n".contains(byte)).expect("a request line");
    let lines: Vec<&[u8]> = text[start..]
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .collect();
    let request_line: Vec<&[u8]> = lines[0].split(|byte| *byte == b' ').collect();
    assert_eq!(request_line[..2], [head.method_text, head.target]);
    assert!(request_line[2] == b"HTTP/1.1" || request_line[2] == b"HTTP/1.0");
    assert_eq!(request_line.len(), 3);
    // After the last field come the empty line and what follows its LF: nothing.
    let fields = &lines[1..lines.len() - 2];
    assert_eq!(fields.len(), head.headers.len());
    let mut lengths = Vec::new();
    let mut codings = Vec::new();
    let mut hosts = 0;
    for (line, header) in fields.iter().zip(head.headers) {
        let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
        assert_eq!(header.name.as_bytes(), &line[..colon]);
        assert_eq!(header.value, line[colon + 1..].trim_ascii());
        match header.name.to_ascii_lowercase().as_str() {
            "content-length" => lengths.push(header.value),
            "transfer-encoding" => codings.push(header.value),
            "host" => hosts += 1,
            _ => {}
        }
    }
    assert!(hosts == 1 || (hosts == 0 && request_line[2] == b"HTTP/1.0"));
    match head.framing {
        Framing::None => assert!(lengths.is_empty() && codings.is_empty()),
        Framing::Length(length) => {
            assert!(lengths.len() == 1 && codings.is_empty());
            assert!(lengths[0].iter().all(u8::is_ascii_digit));
            assert_eq!(std::str::from_utf8(lengths[0]).map(str::parse), Ok(Ok(length)));
        }
        Framing::Chunked => {
            assert!(lengths.is_empty() && codings.len() == 1 && codings[0].eq_ignore_ascii_case(b"chunked"));
        }
    }
}

/// The data of a body that comes in the given pieces, the bytes that the body took, whether it was complete.
fn read_body(
    framing: Framing,
    limit: u64,
    bytes: &[u8],
    cuts: &[Index],
) -> Result<(Vec<u8>, usize, bool), Reject> {
    let mut reader = BodyReader::new(framing, limit)?;
    let mut data = Vec::new();
    let mut taken = 0;
    for piece in pieces(bytes, cuts) {
        let fed = reader.feed(piece, &mut |part| data.extend_from_slice(part))?;
        taken += fed.consumed;
        if fed.done {
            return Ok((data, taken, true));
        }
        assert_eq!(fed.consumed, piece.len());
    }
    Ok((data, taken, false))
}

/// Cuts bytes into pieces; some may be empty.
fn pieces<'b>(bytes: &'b [u8], cuts: &[Index]) -> Vec<&'b [u8]> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut start = 0;
    ends.into_iter()
        .map(|end| {
            let piece = &bytes[start..end];
            start = end;
            piece
        })
        .collect()
}

proptest! {
    #[test]
    fn every_prefix_of_a_head_is_partial_and_the_rest_does_not_matter(bytes in valid_head(), body: Vec<u8>) {
        for len in 0..bytes.len() {
            let mut scratch = Scratch::new();
            prop_assert_eq!(parse(&bytes[..len], &mut scratch), Ok(Parsed::Partial), "{} bytes", len);
        }
        let mut scratch = Scratch::new();
        let Ok(Parsed::Complete(head)) = parse(&bytes, &mut scratch) else { panic!("not complete") };
        prop_assert_eq!(head.bytes, bytes.len());
        assert_unambiguous(&bytes, &head);
        let with_body = [bytes.clone(), body].concat();
        let mut scratch = Scratch::new();
        prop_assert_eq!(parse(&with_body, &mut scratch), Ok(Parsed::Complete(head)));
    }

    #[test]
    fn a_mutated_head_is_unambiguous_or_refused_and_a_refusal_is_final(bytes in mutated_head()) {
        let mut refused = false;
        let mut complete = None;
        for len in 0..=bytes.len() {
            let mut scratch = Scratch::new();
            match parse(&bytes[..len], &mut scratch) {
                Ok(Parsed::Partial) => prop_assert!(!refused && complete.is_none()),
                Ok(Parsed::Complete(head)) => {
                    prop_assert!(!refused);
                    assert_unambiguous(&bytes, &head);
                    prop_assert_eq!(head.bytes, *complete.get_or_insert(len));
                }
                Err(_) => {
                    prop_assert!(complete.is_none());
                    refused = true;
                }
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
        let mut scratch = Scratch::new();
        if let Ok(Parsed::Complete(head)) = parse(&bytes, &mut scratch) {
            assert_unambiguous(&bytes, &head);
        }
    }

    #[test]
    fn progress_never_waits_when_the_head_is_complete(bytes in valid_head(), cuts: Vec<Index>) {
        let mut progress = HeadProgress::new();
        let mut len = 0;
        let mut attempt = Attempt::Wait;
        for piece in pieces(&bytes, &cuts).into_iter().filter(|piece| !piece.is_empty()) {
            len += piece.len();
            attempt = progress.observe(&bytes[..len]);
        }
        prop_assert_eq!(attempt, Attempt::Parse);
    }

    #[test]
    fn chunked_bodies_survive_any_cuts(chunks in vec(vec(any::<u8>(), 1..300), 0..12), cuts: Vec<Index>, next: Vec<u8>) {
        let mut bytes = Vec::new();
        for chunk in &chunks {
            write_chunk_head(&mut bytes, chunk.len());
            bytes.extend_from_slice(chunk);
            write_chunk_end(&mut bytes);
        }
        write_last_chunk(&mut bytes);
        let body_bytes = bytes.len();
        bytes.extend_from_slice(&next);
        let data = chunks.concat();
        let limit = data.len() as u64;
        prop_assert_eq!(read_body(Framing::Chunked, limit, &bytes, &cuts), Ok((data, body_bytes, true)));
        if limit > 0 {
            let short = read_body(Framing::Chunked, limit - 1, &bytes, &cuts);
            prop_assert_eq!(short.map_err(|reject| reject.status.code()), Err(413));
        }
    }

    #[test]
    fn plain_bodies_survive_any_cuts(data: Vec<u8>, cuts: Vec<Index>, next: Vec<u8>) {
        let bytes = [data.clone(), next].concat();
        let length = data.len() as u64;
        let read = read_body(Framing::Length(length), length, &bytes, &cuts);
        let taken = data.len();
        prop_assert_eq!(read, Ok((data, taken, true)));
    }

    #[test]
    fn broken_chunks_end_the_same_however_they_are_cut(
        bytes in vec(prop::sample::select(b"0012aF;x \t\r\n\r\n\r\n:A\0\xff".to_vec()), 0..60),
        cuts: Vec<Index>,
        limit in 0..40_u64,
    ) {
        let whole = read_body(Framing::Chunked, limit, &bytes, &[]);
        let cut = read_body(Framing::Chunked, limit, &bytes, &cuts);
        prop_assert_eq!(cut, whole);
    }

    #[test]
    fn arbitrary_chunked_bytes_do_not_panic(bytes: Vec<u8>, cuts: Vec<Index>) {
        let whole = read_body(Framing::Chunked, 100, &bytes, &[]);
        prop_assert_eq!(read_body(Framing::Chunked, 100, &bytes, &cuts), whole);
    }
}
