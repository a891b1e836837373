//! Log tails against the recorded ones.

use super::*;

const ID: &str = "39dc53d9-dc8d-4586-af37-b2768800b863";

#[test]
fn a_tail_is_the_recorded_one() {
    // Golden case 86.
    let mut tail = LogTail::new(ID, "1");
    tail.push(format!("2026-11-22T12:05:41.185Z\t{ID}\tout line\n").as_bytes());
    tail.push(format!("2026-11-22T12:05:41.186Z\t{ID}\terr line\n").as_bytes());
    let text = tail.finish(ID, Usage { duration_ms: 1, memory_mb: 128, memory_peak_bytes: 352 << 10 });
    let mut encoded = Vec::new();
    append_base64(&mut encoded, &text);
    assert_eq!(
        String::from_utf8(encoded).unwrap(),
        "U1RBUlQgUmVxdWVzdElEOiAzOWRjNTNkOS1kYzhkLTQ1ODYtYWYzNy1iMjc2ODgwMGI4NjMgVmVyc2lvbjogMQoyMDI2LTExLTIyVDEyOjA1OjQxLjE4NVoJMzlkYzUzZDktZGM4ZC00NTg2LWFmMzctYjI3Njg4MDBiODYzCW91dCBsaW5lCjIwMjYtMTEtMjJUMTI6MDU6NDEuMTg2WgkzOWRjNTNkOS1kYzhkLTQ1ODYtYWYzNy1iMjc2ODgwMGI4NjMJZXJyIGxpbmUKRU5EIFJlcXVlc3RJRDogMzlkYzUzZDktZGM4ZC00NTg2LWFmMzctYjI3Njg4MDBiODYzCU1lbW9yeSBTcGVjIFNpemU6IDEyOE1CClJFUE9SVCBSZXF1ZXN0SUQ6IDM5ZGM1M2Q5LWRjOGQtNDU4Ni1hZjM3LWIyNzY4ODAwYjg2MwlEdXJhdGlvbjogMW1zCUJpbGxlZCBEdXJhdGlvbjogMTAwbXMJTWF4IE1lbW9yeSBVc2VkOiAzNTJL"
    );
}

#[test]
fn a_long_log_is_cut_where_the_recorded_one_is() {
    // Golden case 94: 4,288 bytes in all, START (64) counts among the 4,096, and a line feed closes the cut line.
    let mut tail = LogTail::new("dbde7103-7f5b-49e1-81f7-bbce34ff255e", "1");
    for line in 0..200 {
        let x = "x".repeat(40);
        let text =
            format!("2026-11-22T12:05:41.554Z\tdbde7103-7f5b-49e1-81f7-bbce34ff255e\tline {line} {x}\n");
        tail.push(text.as_bytes());
    }
    let usage = Usage { duration_ms: 126, memory_mb: 128, memory_peak_bytes: 104 << 10 };
    let text = String::from_utf8(tail.finish("dbde7103-7f5b-49e1-81f7-bbce34ff255e", usage)).unwrap();
    assert_eq!(text.len(), 4288);
    let ends: Vec<&str> = text.lines().rev().take(3).collect();
    assert_eq!(ends[2], "2026-11-22T12:05:41.554Z\tdbde7103-7f5b-49e1-8");
    assert_eq!(ends[1], "END RequestID: dbde7103-7f5b-49e1-81f7-bbce34ff255e\tMemory Spec Size: 128MB");
    assert_eq!(
        ends[0],
        "REPORT RequestID: dbde7103-7f5b-49e1-81f7-bbce34ff255e\tDuration: 126ms\tBilled Duration: 200ms\tMax Memory Used: 104K"
    );
}

#[test]
fn output_is_bounded_byte_by_byte_and_at_once() {
    let mut whole = LogTail::new("i", "1");
    whole.push(&[b'a'; 10_000]);
    let mut single = LogTail::new("i", "1");
    for _ in 0..10_000 {
        single.push(b"a");
    }
    assert_eq!(whole.text.len(), LOG_TAIL_BYTES_MAX + 1);
    assert_eq!(whole.text, single.text);
}

#[test]
fn numbers_are_written_as_go_writes_them() {
    for (ms, expected) in [
        (0, "0s"),
        (3, "3ms"),
        (999, "999ms"),
        (1000, "1s"),
        (1142, "1.142s"),
        (1500, "1.5s"),
        (60_000, "1m0s"),
        (61_020, "1m1.02s"),
        (900_000, "15m0s"),
        (3_600_500, "1h0m0.5s"),
    ] {
        assert_eq!(go_duration(ms), expected);
    }
    for (bytes, expected) in [
        (0, "0"),
        (1, "1B"),
        (1023, "1023B"),
        (352 << 10, "352K"),
        (27_787_264, "26.5M"),
        (1 << 20, "1M"),
        (3 << 30, "3G"),
        (5 << 40, "5T"),
        (u64::MAX, "16777216T"),
    ] {
        assert_eq!(byte_size(bytes), expected, "{bytes}");
    }
    for (ns, expected) in [
        (0, "0.000"),
        (162_000, "0.162"),
        (1_142_763_499, "1142.763"),
        (1_142_763_500, "1142.764"),
        (5_000, "0.005"),
    ] {
        let mut out = Vec::new();
        append_exec_time(&mut out, ns);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn billing_rounds_up_to_100_ms() {
    for (ms, expected) in
        [(0, "Billed Duration: 0s"), (1, "100ms"), (100, "100ms"), (101, "200ms"), (950, "1s")]
    {
        let mut out = Vec::new();
        append_report(&mut out, "i", Usage { duration_ms: ms, memory_mb: 128, memory_peak_bytes: 0 });
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.split("Billed").nth(1).unwrap().contains(expected.trim_start_matches("Billed ")),
            "{text}"
        );
    }
}

#[test]
fn log_to_body_is_the_recorded_shape() {
    let body = |error: &str, log: &str, payload: &str| {
        let mut out = Vec::new();
        append_log_body(&mut out, error, log.as_bytes(), payload.as_bytes());
        String::from_utf8(out).unwrap()
    };
    assert_eq!(body("", "", "logged"), r#"{"Payload":"logged"}"#);
    assert_eq!(body("", "a\tb\n", "logged"), r#"{"LogResult":"a\tb\n","Payload":"logged"}"#);
    assert_eq!(
        body("Unhandled", "", r#"{"errorMessage":"<boom>"}"#),
        r#"{"FunctionError":"Unhandled","Payload":"{\"errorMessage\":\"\u003cboom\u003e\"}"}"#
    );
}
