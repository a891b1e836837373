//! Tests of routing: which paths are calls, and the key or complaint for each identifier.

use proptest::prelude::*;

use super::*;

const ACCOUNT: &[u8] = b"df391b08c64c426a81645468c75163a5";
const HASH: &str = "8f6e5a28c663957ea04522547a66d08f";
const BCE_HASH: &str = "cd64f99c69d7c404b61de0a4f1865834";

fn key(identifier: &str, qualifier: Option<&str>) -> Result<String, RouteError> {
    let mut out = [0; KEY_BYTES_MAX];
    canonical_key(identifier.as_bytes(), qualifier.map(str::as_bytes), ACCOUNT, &mut out)
        .map(|key| String::from_utf8(key.to_vec()).unwrap())
}

#[test]
fn calls_are_recognised_and_nothing_else() {
    let trigger = |user, function, version: Option<&'static str>| {
        Some(Target::Trigger { user, function, version: version.map(str::as_bytes) })
    };
    for (path, expected) in [
        ("/v1/functions/f/invocations", Some(Target::Invocation { identifier: b"f" })),
        (
            "/v1/functions/brn:x:%24LATEST/invocations",
            Some(Target::Invocation { identifier: b"brn:x:%24LATEST" }),
        ),
        ("/v1/functions/f", None),
        ("/v1/functions//invocations", None),
        ("/v1/functions/invocations", None),
        ("/v1/functions/a/b/invocations", None),
        ("/v1/functions/f/invocations/", None),
        ("/v1/runtimes", None),
        ("/v1/resource/1", None),
        ("/v1/f", None),
        ("/healthz", None),
        ("/healthz/f", None),
        ("/readyz/f/1", None),
        ("/2015-03-31/functions/function/invocations", None),
        ("/2015-03-31/functions", None),
        ("/nope", None),
        ("/", None),
        ("", None),
        ("nope/f", None),
        ("/acc/f", trigger(b"acc", b"f", None)),
        ("/acc/f/", trigger(b"acc", b"f", None)),
        ("/acc_1/my-fn_2/17", trigger(b"acc_1", b"my-fn_2", Some("17"))),
        ("/acc/f/1/sub/path", None),
        ("/acc/f/1/", None),
        ("/acc/f/$LATEST", None),
        ("/acc/f/prod", None),
        ("/acc/f/123456789012345678901", None),
        ("/a-b/f", None),
        ("//f", None),
        ("/acc/", None),
        ("/acc/f%20", None),
    ] {
        assert_eq!(invocation_target(path.as_bytes()), expected, "{path}");
    }
}

#[test]
fn names_need_a_version() {
    assert_eq!(key("testDefault", Some("%24LATEST")).unwrap(), format!("{HASH}:testDefault:$LATEST"));
    assert_eq!(key("f", Some("$LATEST")).unwrap(), format!("{HASH}:f:$LATEST"));
    assert_eq!(key("f", Some("12")).unwrap(), format!("{HASH}:f:12"));
    assert_eq!(key("%66", Some("1")).unwrap(), format!("{HASH}:f:1"));
    assert_eq!(key("f", None), Err(RouteError::MissingQualifier));
    assert_eq!(key("f", Some("")), Err(RouteError::MissingQualifier));
    assert_eq!(key("f", Some("prod")), Err(RouteError::InvalidQualifier));
    assert_eq!(key("f", Some("123456789012345678901")), Err(RouteError::InvalidQualifier));
    assert_eq!(key(&"f".repeat(141), Some("1")), Err(RouteError::InvalidBrn));
}

#[test]
fn brns_of_both_partitions_name_the_same_function() {
    let expected = format!("{HASH}:f:$LATEST");
    for brn in [
        format!("brn:cloud:faas:bj:{HASH}:function:f:$LATEST"),
        format!("brn:cloud:faas:bj:{HASH}:function:f:%24LATEST"),
        format!("brn:bce:faas:bj:{HASH}:function:f:$LATEST"),
        format!("brn:bce:faas:bj:{BCE_HASH}:function:f:%24LATEST"),
        format!("brn%3Abce:faas:bj:{BCE_HASH}:function:f:%24LATEST"),
    ] {
        assert_eq!(key(&brn, None).as_deref(), Ok(expected.as_str()), "{brn}");
        assert_eq!(key(&brn, Some("7")).as_deref(), Ok(expected.as_str()), "the BRN's version stands");
    }
    let foreign = "00000000000000000000000000000000";
    assert_eq!(
        key(&format!("brn:bce:faas:bj:{foreign}:function:f:1"), None).unwrap(),
        format!("{foreign}:f:1")
    );
    // In the cloud partition the other salt's hash is just another account.
    assert_eq!(
        key(&format!("brn:cloud:faas:bj:{BCE_HASH}:function:f:1"), None).unwrap(),
        format!("{BCE_HASH}:f:1")
    );
}

#[test]
fn complaints_come_in_faasters_order() {
    for (identifier, expected) in [
        ("brn:foo".to_owned(), RouteError::NotEnoughSections),
        (format!("{HASH}:f:1"), RouteError::InvalidPrefix),
        ("f:1".to_owned(), RouteError::InvalidPrefix),
        ("a b".to_owned(), RouteError::InvalidPrefix),
        ("%00".to_owned(), RouteError::InvalidPrefix),
        (format!("brn:cloud:faas:bj:{HASH}:function:f"), RouteError::InvalidBrn),
        (format!("brn:cloud:faas:bj:{HASH}:function:f:prod"), RouteError::InvalidBrn),
        (format!("brn:cloud:faas:bj:{HASH}:function:f:1:2"), RouteError::InvalidBrn),
        (format!("brn:moon:faas:bj:{HASH}:function:f:1"), RouteError::Pattern),
        (format!("brn:cloud:faas:bj:{HASH}:function:a b:1"), RouteError::Pattern),
        ("x".repeat(IDENTIFIER_BYTES_MAX + 1), RouteError::InvalidBrn),
        (format!("brn:cloud:faas:bj:{HASH}:function:{}:1", "x".repeat(141)), RouteError::InvalidBrn),
    ] {
        assert_eq!(key(&identifier, None), Err(expected), "{identifier}");
    }
}

#[test]
fn the_longest_key_fits() {
    let name = "n".repeat(FUNCTION_NAME_BYTES_MAX);
    let version = "9".repeat(VERSION_DIGITS_MAX);
    assert_eq!(key(&name, Some(&version)).unwrap(), format!("{HASH}:{name}:{version}"));
    let mut out = [0; KEY_BYTES_MAX];
    assert_eq!(trigger_key(ACCOUNT, b"f", None, &mut out), format!("{HASH}:f:$LATEST").as_bytes());
}

proptest! {
    #[test]
    fn no_bytes_panic(path in proptest::collection::vec(any::<u8>(), 0..700), query in any::<Option<Vec<u8>>>()) {
        let _target = invocation_target(&path);
        let _key = canonical_key(&path, query.as_deref(), ACCOUNT, &mut [0; KEY_BYTES_MAX]);
    }

    #[test]
    fn a_trigger_target_always_makes_a_key(user in "[a-z0-9_]{1,40}", function in "[A-Za-z0-9_-]{1,140}") {
        let path = format!("/{user}/{function}");
        if let Some(Target::Trigger { user, function, version }) = invocation_target(path.as_bytes()) {
            let mut out = [0; KEY_BYTES_MAX];
            let key = trigger_key(user, function, version, &mut out);
            prop_assert!(key.ends_with(b":$LATEST"));
        }
    }
}
