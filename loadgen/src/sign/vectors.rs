//! The AWS Signature Version 4 Test Suite (Copyright 2019 Amazon.com, Inc. or its affiliates, Apache-2.0), as far as it does
//! not normalise paths, fold header lines or sign Content-Length: none of our requests needs that. Signed bodies are
//! checked by tests/system/test_loadgen_tool.py.
//!
//! Owns: the cases. Must not know: how a signature is made. A case's date and token are left out of its head, for the
//! signer writes them.

use super::{Credentials, Identity, Scope, Signer, hash_of};

struct Vector {
    name: &'static str,
    /// Request line and header lines.
    head: &'static [&'static str],
    token: Option<&'static str>,
    signed_headers: &'static str,
    signature: &'static str,
}

/// 2015-08-30, 12:36:00 UTC.
const AT_SECS: u64 = 1_440_938_160;

/// Whose signatures the suite holds.
pub(super) fn identity(token: Option<&str>) -> Identity {
    Identity {
        credentials: Credentials {
            access_key: "AKIDEXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: token.map(str::to_owned),
        },
        scope: Scope { region: "us-east-1".to_owned(), service: "service".to_owned() },
    }
}

#[test]
fn the_published_signatures_come_out() {
    for vector in VECTORS {
        let mut signer = Signer::new(identity(vector.token));
        let head: String = vector.head.iter().map(|line| format!("{line}\r\n")).collect();
        let mut out = Vec::new();
        signer.sign(head.as_bytes(), &hash_of(b""), AT_SECS, &mut out);
        let text = String::from_utf8(out).unwrap();
        let wanted = format!(
            "Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders={}, Signature={}\r\n",
            vector.signed_headers, vector.signature
        );
        assert!(text.ends_with(&wanted), "{}: {text}", vector.name);
        assert!(text.starts_with(&format!("{head}X-Amz-Date: 20150830T123600Z\r\n")), "{text}");
    }
}

#[rustfmt::skip]
const VECTORS: &[Vector] = &[
    Vector {
        name: "get-header-key-duplicate",
        head: &["GET / HTTP/1.1", "Host:example.amazonaws.com", "My-Header1:value2", "My-Header1:value2", "My-Header1:value1"],
        token: None,
        signed_headers: "host;my-header1;x-amz-date",
        signature: "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
    },
    Vector {
        name: "get-header-value-order",
        head: &["GET / HTTP/1.1", "Host:example.amazonaws.com", "My-Header1:value4", "My-Header1:value1", "My-Header1:value3", "My-Header1:value2"],
        token: None,
        signed_headers: "host;my-header1;x-amz-date",
        signature: "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
    },
    Vector {
        name: "get-header-value-trim",
        head: &["GET / HTTP/1.1", "Host:example.amazonaws.com", "My-Header1: value1", "My-Header2: \"a   b   c\""],
        token: None,
        signed_headers: "host;my-header1;my-header2;x-amz-date",
        signature: "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    },
    Vector {
        name: "get-unreserved",
        head: &["GET /-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz HTTP/1.1", "Host:example.amazonaws.com"],
        token: None,
        signed_headers: "host;x-amz-date",
        signature: "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
    },
    Vector {
        name: "get-utf8",
        head: &["GET /ሴ HTTP/1.1", "Host:example.amazonaws.com"],
        token: None,
        signed_headers: "host;x-amz-date",
        signature: "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
    },
    Vector {
        name: "get-vanilla",
        head: &["GET / HTTP/1.1", "Host:example.amazonaws.com"],
        token: None,
        signed_headers: "host;x-amz-date",
        signature: "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    },
    Vector {
        name: "get-vanilla-empty-query-key",
        head: &["GET /?Param1=value1 HTTP/1.1", "Host:example.amazonaws.com"],
        token: None,
        signed_headers: "host;x-amz-date",
        signature: "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
    },
    Vector {
        name: "get-vanilla-query",
        head: &["GET / HTTP/1.1", "Host:example.amazonaws.com"],
        token: None,
        signed_headers: "host;x-amz-date",
        signature: "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    },
    Vector {
        name: "get-vanilla-query-order-key",
        head: &["GET /?Param1=value2&Param1=Value1 HTTP/1.1", "Host:example.amazonaws.com"],
        token: None,
        signed_headers: "host;x-amz-date",
        signature: "eedbc4e291e521cf13422ffca22be7d2eb8146eecf653089df300a15b2382bd1",
    },
    Vector {
        name: "get-vanilla-query-order-key-case",
        head: &["GET /?Param2=value2&Param1=value1 HTTP/1.1", "Host:example.amazonaws.com"],
        token: None,
        signed_headers: "host;x-amz-date",
        signature: "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    },
    Vector {
        name: "get-vanilla-query-order-value",
        head: &["GET /?Param1=value2&Param1=value1 HTTP/1.1", "Host:example.amazonaws.com"],
        token: None,
        signed_headers: "host;x-amz-date",
        signature: "5772eed61e12b33fae39ee5e7012498b51d56abc0abb7c60486157bd471c4694",
    },
    Vector {
        name: "get-vanilla-query-unreserved",
        head: &["GET /?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz=-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz HTTP/1.1", "Host:example.amazonaws.com"],
        token: None,
        signed_headers: "host;x-amz-date",
        signature: "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
    },
    Vector {
        name: "get-vanilla-utf8-query",
        head: &["GET /?ሴ=bar HTTP/1.1", "Host:example.amazonaws.com"],
        token: None,
        signed_headers: "host;x-amz-date",
        signature: "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
    },
    Vector {
        name: "get-space",
        head: &["GET /example space/ HTTP/1.1", "Host:example.amazonaws.com"],
        token: None,
        signed_headers: "host;x-amz-date",
        signature: "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
    },
    Vector {
        name: "post-header-key-sort",
        head: &["POST / HTTP/1.1", "Host:example.amazonaws.com", "My-Header1:value1"],
        token: None,
        signed_headers: "host;my-header1;x-amz-date",
        signature: "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
    },
    Vector {
        name: "post-header-value-case",
        head: &["POST / HTTP/1.1", "Host:example.amazonaws.com", "My-Header1:VALUE1"],
        token: None,
        signed_headers: "host;my-header1;x-amz-date",
        signature: "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
    },
    Vector {
        name: "post-sts-header-before",
        head: &["POST / HTTP/1.1", "Host:example.amazonaws.com"],
        token: Some("AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="),
        signed_headers: "host;x-amz-date;x-amz-security-token",
        signature: "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
    },
    Vector {
        name: "post-vanilla",
        head: &["POST / HTTP/1.1", "Host:example.amazonaws.com"],
        token: None,
        signed_headers: "host;x-amz-date",
        signature: "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    },
    Vector {
        name: "post-vanilla-query",
        head: &["POST /?Param1=value1 HTTP/1.1", "Host:example.amazonaws.com"],
        token: None,
        signed_headers: "host;x-amz-date",
        signature: "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
    },
    Vector {
        name: "post-x-www-form-urlencoded",
        head: &["POST / HTTP/1.1", "Content-Type:application/x-www-form-urlencoded; charset=utf-8", "Host:example.amazonaws.com"],
        token: None,
        signed_headers: "content-type;host;x-amz-date",
        signature: "0c3bc22986c53164a4755b4466c2e17db853888c5ddb98567e700a3ecdb262f6",
    },
];
