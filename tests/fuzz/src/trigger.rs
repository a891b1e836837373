//! HTTP triggers: no result of a function breaks out of its answer, no request breaks out of its event.
//!
//! Owns: the check. Must not know: paths, accounts.

use std::collections::BTreeMap;

use faaster_http::response::is_reserved;
use faaster_protocol::trigger::{
    TriggerAnswer, TriggerRequest, append_bad_response, append_event, append_function_error, interpret,
};

/// The bytes are a handler's result, its error, and parts of a request.
pub fn check(data: &[u8]) {
    match interpret(data) {
        Ok(answer) => check_answer(&answer),
        Err(error) => {
            let mut text = Vec::new();
            assert!((500..=599).contains(&append_bad_response(&mut text, &error)));
            check_json(&text);
        }
    }
    let mut text = Vec::new();
    append_function_error(&mut text, data);
    check_json(&text);
    let (first, rest) = data.split_at(data.len() / 2);
    let mut event = Vec::new();
    let headers = [(&b"X-A"[..], first), (&b"x-a"[..], rest), (&b"Cookie"[..], rest), (first, rest)];
    append_event(&mut event, TriggerRequest { method: b"GET", query: Some(first), headers, body: rest });
    check_json(&event);
    let read: Event = serde_json::from_slice(&event).expect("an event has these members");
    if read.is_base64_encoded.is_none() {
        assert_eq!(read.body.as_bytes(), rest, "text comes as it is");
    }
}

/// What a handler may rely on.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[expect(dead_code, reason = "only whether it can be read matters")]
    headers: BTreeMap<String, String>,
    body: String,
    is_base64_encoded: Option<bool>,
}

fn check_answer(answer: &TriggerAnswer<'_>) {
    assert!((200..=599).contains(&answer.status));
    let lines = String::from_utf8_lossy(&answer.header_lines);
    assert!(lines.is_empty() || lines.ends_with("\r\n"));
    for line in lines.split_terminator("\r\n") {
        let (name, value) = line.split_once(": ").expect("a header has a name and a value");
        assert!(
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'),
            "{line:?}"
        );
        assert!(!value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t'), "{line:?}");
        assert!(!is_reserved(name.as_bytes()), "{line:?} is for the engine to say");
    }
}

/// Not by way of `serde_json::Value`: that one takes a member named `$serde_json::private::RawValue` for its own.
fn check_json(text: &[u8]) {
    let read = serde_json::from_slice::<serde::de::IgnoredAny>(text);
    assert!(read.is_ok(), "{read:?}: {:?}", String::from_utf8_lossy(text));
}

/// Results of every shape.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        &br#"{"isBase64Encoded":false,"statusCode":200,"headers":{"A":"b","Content-Type":"t"},"body":"x"}"#[..],
        br#"{"isBase64Encoded":true,"statusCode":"404","headers":{"n":1,"t":true,"z":null},"body":"aGk="}"#,
        br#"{"statusCode":204,"headers":{"Set-Cookie":"a\r\nb"},"body":{"an":"object"}}"#,
        br#"{"statusCode":99,"body":null}"#,
        br#"  "just text \u00e9" "#,
        b"null",
        b"a=1&b=%20+&=&%zz",
        b"\xff\xfe not text",
    ]
    .into_iter()
    .map(<[u8]>::to_vec)
    .collect()
}
