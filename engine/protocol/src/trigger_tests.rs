//! Tests of both directions of an HTTP trigger, from the record and against injection.

use proptest::prelude::*;

use super::*;

fn event(method: &str, query: Option<&str>, headers: &[(&str, &str)], body: &[u8]) -> String {
    let mut out = Vec::new();
    let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    append_event(
        &mut out,
        TriggerRequest { method: method.as_bytes(), query: query.map(str::as_bytes), headers, body },
    );
    String::from_utf8(out).unwrap()
}

#[test]
fn events_are_the_recorded_ones() {
    // Golden cases 139 and 140.
    assert_eq!(
        event("GET", Some("x=1&y=2"), &[("Host", "127.0.0.1:8001"), ("Accept", "*/*"), ("X-Q", "1")], b""),
        r#"{"httpMethod":"GET","headers":{"Accept":"*/*","Content-Length":"0","Host":"127.0.0.1:8001","X-Q":"1"},"queryStringParameters":{"x":"1","y":"2"},"body":""}"#
    );
    assert_eq!(
        event(
            "POST",
            None,
            &[("host", "127.0.0.1:8001"), ("content-type", "application/json"), ("content-length", "7")],
            br#"{"k":1}"#
        ),
        r#"{"httpMethod":"POST","headers":{"Content-Length":"7","Content-Type":"application/json","Host":"127.0.0.1:8001"},"queryStringParameters":{},"body":"{\"k\":1}"}"#
    );
}

#[test]
fn nothing_of_a_request_is_lost() {
    let headers =
        [("A", "1"), ("Cookie", "a=1"), ("a", "2"), ("cookie", "b=2"), ("Transfer-Encoding", "chunked")];
    let got: serde_json::Value =
        serde_json::from_str(&event("PUT", Some("q=%C3%A9+x&q=2&e&=v"), &headers, "h\u{e9}\"".as_bytes()))
            .unwrap();
    assert_eq!(got["headers"], serde_json::json!({"A": "1, 2", "Cookie": "a=1; b=2", "Content-Length": "4"}));
    assert_eq!(got["queryStringParameters"], serde_json::json!({"q": "2", "e": "", "": "v"}));
    assert_eq!(got["body"], "h\u{e9}\"");
    assert_eq!(got.get("isBase64Encoded"), None);
}

#[test]
fn bodies_that_are_no_text_come_as_base64() {
    for (kind, body) in [("application/bson", &b"hello"[..]), ("image/png", b"\x89PNG\xff")] {
        let got: serde_json::Value =
            serde_json::from_str(&event("PUT", None, &[("Content-Type", kind)], body)).unwrap();
        assert_eq!(got["isBase64Encoded"], true);
        let decoded =
            base64::engine::general_purpose::STANDARD.decode(got["body"].as_str().unwrap()).unwrap();
        assert_eq!(decoded, body);
    }
}

fn read(result: &str) -> (u16, String, String, Shape) {
    let answer = interpret(result.as_bytes()).unwrap();
    let lines = String::from_utf8(answer.header_lines).unwrap();
    (answer.status, lines, String::from_utf8(answer.body.into_owned()).unwrap(), answer.shape)
}

#[test]
fn results_are_read_as_faaster_reads_them() {
    assert_eq!(
        read(
            r#"{"statusCode":201,"headers":{"X-A":"b","Content-Type":"text/html"},"body":"<p>\"GET\"</p>"}"#
        ),
        (201, "Content-Type: text/html\r\nX-A: b\r\n".into(), "<p>\"GET\"</p>".into(), Shape::Proxy)
    );
    let json = "Content-Type: application/json\r\n";
    let text = "Content-Type: text/plain\r\n";
    for (result, lines) in [
        (r#"{"a":1}"#, json),
        (r#"{"statusCode":99,"body":"x"}"#, json),
        (r#"{"statusCode":600,"body":"x"}"#, json),
        (r#"{"statusCode":101,"body":"x"}"#, json),
        (r#"{"statusCode":"200","body":"x"}"#, json),
        (r#"{"statusCode":200,"isBase64Encoded":true,"body":"***"}"#, json),
        ("null", json),
        ("Hello world!", text),
        ("\"quoted\"", text),
        ("[1]", text),
        ("{bad", text),
        ("", text),
    ] {
        assert_eq!(read(result), (200, lines.into(), result.into(), Shape::Plain), "{result}");
    }
}

#[test]
fn base64_is_decoded() {
    let answer =
        interpret(br#"{"isBase64Encoded":true,"statusCode":200,"headers":{},"body":"aGVsbG8="}"#).unwrap();
    assert_eq!((answer.status, &*answer.body), (200, &b"hello"[..]));
    let answer = interpret(
        br#"{"isBase64Encoded":true,"statusCode":200,"headers":{"content-type":"image/x"},"body":"/wA="}"#,
    )
    .unwrap();
    assert_eq!(&*answer.body, b"\xff\0");
    assert_eq!(answer.header_lines, b"Content-Type: image/x\r\n");
}

#[test]
fn odd_bodies_and_headers_are_taken_kindly() {
    assert_eq!(read(r#"{"statusCode":200}"#).1, "");
    assert_eq!(read(r#"{"statusCode":200,"body":{"a":1}}"#).2, r#"{"a":1}"#);
    assert_eq!(read(r#"{"statusCode":204,"body":"x"}"#), (204, String::new(), String::new(), Shape::Proxy));
    let (_, lines, ..) = read(r#"{"statusCode":200,"headers":{"x-n":1,"x-none":null," ":null},"body":"a"}"#);
    assert_eq!(lines, "X-N: 1\r\nContent-Type: text/plain; charset=utf-8\r\n");
}

#[test]
fn hop_by_hop_headers_do_not_pass() {
    let (_, lines, ..) = read(
        r#"{"statusCode":200,"headers":{"connection":"close","transfer-encoding":"chunked","CONTENT-LENGTH":"9","upgrade":"h2c","te":"x","x":"y"}}"#,
    );
    assert_eq!(lines, "X: y\r\n");
}

#[test]
fn injected_lines_are_refused() {
    for headers in [
        r#"{"X":"a\r\nSet-Cookie: b"}"#,
        r#"{"X":"a\nb"}"#,
        r#"{"X":"a\u0000b"}"#,
        r#"{"X\r\nY":"a"}"#,
        r#"{"X: Y":"a"}"#,
        r#"{"":"a"}"#,
        r#"{"X Y":"a"}"#,
    ] {
        let result = format!(r#"{{"statusCode":200,"headers":{headers},"body":""}}"#);
        let error = interpret(result.as_bytes()).unwrap_err();
        let mut out = Vec::new();
        assert_eq!(append_bad_response(&mut out, &error), 502);
        let body: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(body["Code"], "BadGatewayException", "{headers}");
    }
}

#[test]
fn errors_keep_only_their_message() {
    let mut out = Vec::new();
    append_function_error(&mut out, br#"{"errorMessage":"boom","errorType":"Error","stackTrace":["a"]}"#);
    assert_eq!(out, br#"{"errorMessage":"boom"}"#);
    out.clear();
    append_function_error(&mut out, b"RequestID: x Process exited before completing request");
    assert_eq!(out, br#"{"errorMessage":"RequestID: x Process exited before completing request"}"#);
    out.clear();
    assert_eq!(append_engine_error(&mut out, 503, b"no"), 503);
    assert!(out.starts_with(br#"{"Code":"InternalException","Cause":"no""#));
}

proptest! {
    #[test]
    fn events_are_always_json(
        query in proptest::collection::vec(any::<u8>(), 0..40),
        headers in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 1..9), proptest::collection::vec(any::<u8>(), 0..9)), 0..6),
        body in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut out = Vec::new();
        let headers = headers.iter().map(|(name, value)| (&name[..], &value[..]));
        append_event(&mut out, TriggerRequest { method: b"GET", query: Some(&query), headers, body: &body });
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
    }

    #[test]
    fn no_result_makes_a_header_line_of_its_own(name in any::<String>(), value in any::<String>(), raw in any::<Vec<u8>>()) {
        let result = serde_json::json!({"statusCode": 200, "headers": {name: value}, "body": ""}).to_string();
        if let Ok(answer) = interpret(result.as_bytes()) {
            let lines = answer.header_lines.iter().filter(|byte| **byte == b'\n').count();
            prop_assert!(lines <= 1);
        }
        let _any = interpret(&raw);
    }
}
