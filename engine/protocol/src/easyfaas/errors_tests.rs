//! Error bodies against the recorded ones.

use super::*;

fn written<T>(write: impl FnOnce(&mut Vec<u8>) -> T) -> (T, String) {
    let mut out = Vec::new();
    let result = write(&mut out);
    (result, String::from_utf8(out).unwrap())
}

#[test]
fn bodies_are_the_recorded_ones() {
    let key = b"8f6e5a28c663957ea04522547a66d08f:nope:1";
    for ((status, body), expected) in [
        (
            written(|out| append_invalid_caller(out, "df391b08c64c426a81645468c75163a5", "")),
            (
                403,
                r#"{"Code":"InvalidInvokeCallerException","Cause":"owner id df391b08c64c426a81645468c75163a5 caller id ","Message":"Invalid caller id","Status":403,"Type":"User"}"#,
            ),
        ),
        (
            written(|out| append_not_found(out, key)),
            (
                404,
                r#"{"Code":"ResourceNotFoundException","Cause":"get function from data storer failed","Message":"The resource specified in the request does not exist","Status":404,"Type":"User","Backtrace":[{"Message":"not found function brn:cloud:faas:bj:8f6e5a28c663957ea04522547a66d08f:function:nope:1"}]}"#,
            ),
        ),
        (
            written(append_no_capacity),
            (
                429,
                r#"{"Code":"TooManyRequestsException","Cause":"empty runtime","Message":"Too many requests","Status":429,"Type":"User"}"#,
            ),
        ),
        (
            written(|out| append_internal(out, "invaild runtime python3.6")),
            (
                500,
                r#"{"Code":"ServiceException","Message":"Service encountered an internal error","Status":500,"Type":"Server","Backtrace":[{"Message":"invaild runtime python3.6"}]}"#,
            ),
        ),
    ] {
        assert_eq!((status, body.as_str()), expected);
    }
}

#[test]
fn identifiers_are_refused_as_recorded() {
    for (error, status, marks, expected) in [
        (
            RouteError::MissingQualifier,
            500,
            Marks::Bare,
            r#"{"Code":"InvalidParameterValueException","Cause":"missing query parameter Qualifier","Message":"One of the parameters in the request is invalid","Status":400,"Type":"User"}"#,
        ),
        (
            RouteError::InvalidBrn,
            400,
            Marks::Marked,
            r#"{"Code":"InvalidParameterValueException","Cause":"invalid brn","Message":"One of the parameters in the request is invalid","Status":400,"Type":"User"}"#,
        ),
        (
            RouteError::NotEnoughSections,
            500,
            Marks::Marked,
            r#"{"Code":"ServiceException","Message":"Service encountered an internal error","Status":500,"Type":"Server","Backtrace":[{"Message":"brn: not enough sections"}]}"#,
        ),
        (
            RouteError::InvalidPrefix,
            500,
            Marks::Marked,
            r#"{"Code":"ServiceException","Message":"Service encountered an internal error","Status":500,"Type":"Server","Backtrace":[{"Message":"brn: invalid prefix"}]}"#,
        ),
        (
            RouteError::Pattern,
            500,
            Marks::Marked,
            r#"{"Code":"ServiceException","Message":"Service encountered an internal error","Status":500,"Type":"Server","Backtrace":[{"Message":"member must satisfy regular expression pattern: (brn:(cloud[a-zA-Z-]*)?:faas:)?([a-z]{2,5}[0-9]*:)?([0-9a-z]{32}:)?(function:)?([a-zA-Z0-9-_]+)(:(\\$LATEST|[a-zA-Z0-9-_]+))?"}]}"#,
        ),
    ] {
        let (got, body) = written(|out| append_route_error(out, error));
        assert_eq!((got, body.as_str()), ((status, marks), expected));
    }
    let (_, body) = written(|out| append_route_error(out, RouteError::InvalidQualifier));
    assert!(body.contains("invalid function qualifier"));
}

#[test]
fn failures_of_functions_are_the_recorded_ones() {
    let id = "59f5f8bd-cef6-4325-9e62-93f100c318ff";
    let ((), body) = written(|out| append_timed_out(out, id, 1000));
    assert_eq!(body, format!(r#"{{"errorMessage":"{id} Task timed out after 1 seconds"}}"#));
    assert_eq!(body.len(), 86);
    let ((), body) = written(|out| append_exited(out, id));
    assert_eq!(body, format!("RequestID: {id} Process exited before completing request"));
    let ((), body) = written(|out| append_not_ready(out, id, "funclet-controller-c17"));
    assert_eq!(
        body,
        format!(r#"{{"errorMessage":"{id} wait runtime error: runtime funclet-controller-c17 not ready"}}"#)
    );
    let ((), body) = written(|out| append_timed_out(out, "a\"b", 900_000));
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&body).unwrap()["errorMessage"],
        "a\"b Task timed out after 900 seconds"
    );
    let ((), body) = written(|out| append_out_of_memory(out, id, 128));
    assert!(body.ends_with("before completing request: out of memory, its limit is 128 MB"));
    let ((), body) = written(|out| append_response_too_large(out, 7_000_000, 6_291_556));
    assert!(
        serde_json::from_str::<serde_json::Value>(&body).unwrap()["errorMessage"]
            .as_str()
            .unwrap()
            .contains("(7000000 bytes)")
    );
}

#[test]
fn a_status_below_400_has_no_type() {
    let (status, body) = written(|out| append(out, ErrorCode::RequestTimeout, "", None));
    assert_eq!(status, 200);
    assert_eq!(body, r#"{"Code":"RequestTimeoutException","Message":"Task timed out","Status":200}"#);
}
