//! Tests of the header pass: spelling, families, precedence, bad values.

use super::*;

fn classify<'b>(headers: &[(&'b str, &'b str)], query: Option<&'b str>) -> CallHeaders<'b> {
    CallHeaders::classify(
        headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        query.map(str::as_bytes),
    )
}

#[test]
fn both_families_are_known_in_any_case() {
    for (account, id, kind, trigger) in [
        (
            "X-easyfaas-Account-Id",
            "X-easyfaas-Request-Id",
            "X-easyfaas-Invoke-Type",
            "X-easyfaas-Faas-Trigger",
        ),
        ("X-Bce-Account-Id", "X-Bce-Request-Id", "X-Bce-Invoke-Type", "X-Bce-Faas-Trigger"),
        ("x-EASYFAAS-account-ID", "x-bce-request-id", "X-EasyFaaS-Invoke-Type", "x-easyfaas-faas-trigger"),
    ] {
        let got = classify(&[(account, "acc"), (id, "r-1"), (kind, "Event"), (trigger, "KAFKA")], None);
        assert_eq!(got.account, Some(&b"acc"[..]));
        assert_eq!(got.request_id, Some(&b"r-1"[..]));
        assert_eq!((got.invoke_type, got.trigger), (InvokeType::Event, TriggerType::Kafka));
    }
}

#[test]
fn easyfaas_wins_over_bce_in_either_order_and_the_first_of_a_kind_wins() {
    let got = classify(&[("X-Bce-Account-Id", "b"), ("X-easyfaas-Account-Id", "e")], None);
    assert_eq!(got.account, Some(&b"e"[..]));
    let got = classify(&[("X-easyfaas-Account-Id", "e"), ("X-Bce-Account-Id", "b")], None);
    assert_eq!(got.account, Some(&b"e"[..]));
    let got = classify(&[("X-easyfaas-Account-Id", "1"), ("X-easyfaas-Account-Id", "2")], None);
    assert_eq!(got.account, Some(&b"1"[..]));
    let got = classify(&[("X-easyfaas-Account-Id", ""), ("X-Bce-Account-Id", "b")], None);
    assert_eq!(got.account, Some(&b"b"[..]), "an empty header says nothing");
}

#[test]
fn log_words_come_from_header_then_query() {
    // Golden cases 85-97: any case of Tail; X-Bce-Log-Type is not known; nonsense is None.
    for (headers, query, log_type, to_body) in [
        (&[("Log-Type", "Tail")][..], None, LogType::Tail, LogToBody::No),
        (&[("log-type", "tail")], None, LogType::Tail, LogToBody::No),
        (&[], Some("logType=Tail"), LogType::Tail, LogToBody::No),
        (&[], Some("logToBody=true&logType=Tail"), LogType::Tail, LogToBody::Yes),
        (&[("X-Bce-Log-Type", "Tail")], None, LogType::None, LogToBody::No),
        (&[("Log-Type", "bogus")], None, LogType::None, LogToBody::No),
        (&[("Log-Type", "bogus")], Some("logType=Tail"), LogType::Tail, LogToBody::No),
        (&[("Log-Type", "None")], Some("logType=Tail"), LogType::None, LogToBody::No),
        (&[("Log-To-Body", "true")], None, LogType::None, LogToBody::Yes),
        (&[("Log-To-Body", "TRUE")], None, LogType::None, LogToBody::No),
    ] {
        let got = classify(headers, query);
        assert_eq!((got.log_type, got.log_to_body), (log_type, to_body), "{headers:?} {query:?}");
    }
}

#[test]
fn ids_that_would_spoil_a_log_line_are_not_taken() {
    let long = "x".repeat(REQUEST_ID_BYTES_MAX + 1);
    for bad in ["a b", "a\tb", "h\u{e9}", long.as_str()] {
        assert_eq!(classify(&[("X-easyfaas-Request-Id", bad)], None).request_id, None, "{bad}");
    }
    let long = "x".repeat(ACCOUNT_ID_BYTES_MAX + 1);
    assert_eq!(classify(&[("X-easyfaas-Account-Id", &long)], None).account, None);
}

#[test]
fn unknown_words_are_the_defaults() {
    let got = classify(&[("X-easyfaas-Invoke-Type", "dance"), ("X-easyfaas-Faas-Trigger", "dance")], None);
    assert_eq!((got.invoke_type, got.trigger), (InvokeType::Common, TriggerType::Generic));
    assert_eq!(classify(&[], None), CallHeaders::default());
}

#[test]
fn client_context_is_checked_and_compact() {
    let mut out = b"ctx=".to_vec();
    // {"b": 1, "a": {"x": [1, 2]}}
    append_client_context(&mut out, b"eyJiIjogMSwgImEiOiB7IngiOiBbMSwgMl19fQ==").unwrap();
    assert_eq!(out, br#"ctx={"a":{"x": [1, 2]},"b":1}"#);
    for bad in [&b"***"[..], b"MQ==", b"W10=", b"e30", b"eyJhIjp9"] {
        let mut out = b"ctx=".to_vec();
        assert_eq!(append_client_context(&mut out, bad), Err(ClientContextError), "{bad:?}");
        assert_eq!(out, b"ctx=");
    }
}
