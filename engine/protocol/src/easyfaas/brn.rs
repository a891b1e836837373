//! BRN grammar, without allocation: `brn:<partition>:faas:<region>:<hashed account>:function:<name>[:<qualifier>]`.
//!
//! Owns: the two strictnesses that FaaSter has (a lenient split, then a regular expression) and their sentences.
//! Must not know: which function a BRN means, or whether it exists.

use super::account::{HASH_BYTES, Partition};

/// What every answer names when an identifier does not follow the pattern (FaaSter pkg/brn, `RegNotMatchErr`).
/// It is FaaSter's sentence to the letter; the partition `bce`, which we take as well, is not in it.
pub const PATTERN_MESSAGE: &str = r"member must satisfy regular expression pattern: (brn:(cloud[a-zA-Z-]*)?:faas:)?([a-z]{2,5}[0-9]*:)?([0-9a-z]{32}:)?(function:)?([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?";

/// The version that every function has without asking for one.
pub const LATEST: &[u8] = b"$LATEST";

/// Why text is no BRN at all (FaaSter pkg/brn, `Parse`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrnError {
    #[error("brn: invalid prefix")]
    InvalidPrefix,
    #[error("brn: not enough sections")]
    NotEnoughSections,
}

/// The text has six sections or more, and may still name no function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brn<'a> {
    pub partition: &'a [u8],
    pub service: &'a [u8],
    pub region: &'a [u8],
    pub account: &'a [u8],
    /// All that follows the account, colons included.
    pub resource: &'a [u8],
}

/// A BRN that satisfies the pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionBrn<'a> {
    pub partition: Partition,
    pub account: &'a [u8; HASH_BYTES],
    pub name: &'a [u8],
    /// `$LATEST`, a number or an alias.
    pub qualifier: Option<&'a [u8]>,
}

/// Splits as FaaSter's `Parse` does.
///
/// # Errors
/// The prefix is not `brn:`, or there are fewer than six sections.
pub fn parse(text: &[u8]) -> Result<Brn<'_>, BrnError> {
    let rest = text.strip_prefix(b"brn:").ok_or(BrnError::InvalidPrefix)?;
    let mut sections = rest.splitn(5, |byte| *byte == b':');
    let mut next = || sections.next().ok_or(BrnError::NotEnoughSections);
    Ok(Brn { partition: next()?, service: next()?, region: next()?, account: next()?, resource: next()? })
}

impl<'a> Brn<'a> {
    /// The part of the resource `function:<name>:<qualifier>` that FaaSter's controller looks at before anything else:
    /// its third section, if there are exactly three.
    pub fn lenient_qualifier(&self) -> Option<&'a [u8]> {
        let mut parts = self.resource.split(|byte| *byte == b':');
        let (_, _, qualifier) = (parts.next()?, parts.next()?, parts.next()?);
        parts.next().is_none().then_some(qualifier)
    }

    /// The strict reading; `None` where the pattern is not satisfied.
    pub fn function(&self) -> Option<FunctionBrn<'a>> {
        let partition = match self.partition {
            b"bce" => Partition::Bce,
            other => {
                let rest = other.strip_prefix(b"cloud")?;
                rest.iter()
                    .all(|byte| byte.is_ascii_alphabetic() || *byte == b'-')
                    .then_some(Partition::Cloud)?
            }
        };
        // "cfc" is the service's older name; FaaSter's documents use it in the bce partition.
        let service_known =
            self.service == b"faas" || (partition == Partition::Bce && self.service == b"cfc");
        let account: &[u8; HASH_BYTES] = self.account.try_into().ok()?;
        if !service_known || !is_region(self.region) || !is_account_hash(account) {
            return None;
        }
        let mut parts = self.resource.strip_prefix(b"function:")?.split(|byte| *byte == b':');
        let (name, qualifier) = (parts.next()?, parts.next());
        let valid = is_name(name) && qualifier.is_none_or(is_qualifier) && parts.next().is_none();
        valid.then_some(FunctionBrn { partition, account, name, qualifier })
    }
}

/// `^[a-zA-Z0-9-_]+$`
pub fn is_name(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// `^(\$LATEST|([0-9]+))$`
pub fn is_version(text: &[u8]) -> bool {
    text == LATEST || (!text.is_empty() && text.iter().all(u8::is_ascii_digit))
}

/// A version or an alias.
pub fn is_qualifier(text: &[u8]) -> bool {
    text == LATEST || is_name(text)
}

/// `^[0-9a-z]{32}$`
pub fn is_account_hash(text: &[u8]) -> bool {
    text.len() == HASH_BYTES && text.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

/// `^[a-z]{2,5}[0-9]*$`
fn is_region(text: &[u8]) -> bool {
    let letters = text.iter().take_while(|byte| byte.is_ascii_lowercase()).count();
    (2..=5).contains(&letters) && text[letters..].iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "8f6e5a28c663957ea04522547a66d08f";

    #[test]
    fn parse_says_what_faaster_says() {
        assert_eq!(parse(b"foo").unwrap_err().to_string(), "brn: invalid prefix");
        assert_eq!(parse(b"brn:foo").unwrap_err().to_string(), "brn: not enough sections");
        assert_eq!(parse(b"brn:a:b:c:d").unwrap_err(), BrnError::NotEnoughSections);
        assert_eq!(parse(b"brn:a:b:c:d:e:f:g").unwrap().resource, b"e:f:g");
    }

    #[test]
    fn the_pattern_holds_for_both_partitions() {
        for (text, expected) in [
            (format!("brn:cloud:faas:bj:{HASH}:function:f:1"), Some(("f", Some("1")))),
            (
                format!("brn:cloud-cn:faas:gz2:{HASH}:function:f-g_1:$LATEST"),
                Some(("f-g_1", Some("$LATEST"))),
            ),
            (format!("brn:bce:faas:bj:{HASH}:function:f:prod"), Some(("f", Some("prod")))),
            (format!("brn:bce:cfc:bj:{HASH}:function:f"), Some(("f", None))),
            (format!("brn:cloud:cfc:bj:{HASH}:function:f"), None),
            (format!("brn:aws:faas:bj:{HASH}:function:f"), None),
            (format!("brn:cloud:faas:b:{HASH}:function:f"), None),
            (format!("brn:cloud:faas:bj:{HASH}:layer:f"), None),
            (format!("brn:cloud:faas:bj:{HASH}:function:"), None),
            (format!("brn:cloud:faas:bj:{HASH}:function:f:"), None),
            (format!("brn:cloud:faas:bj:{HASH}:function:f:1:2"), None),
            (format!("brn:cloud:faas:bj:{}:function:f", &HASH[1..]), None),
            (format!("brn:cloud:faas:bj:{}:function:f", HASH.to_uppercase()), None),
        ] {
            let brn = parse(text.as_bytes()).unwrap();
            let got = brn.function().map(|f| (f.name, f.qualifier));
            assert_eq!(got, expected.map(|(n, q)| (n.as_bytes(), q.map(str::as_bytes))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..96)) {
            if let Ok(brn) = parse(&text) {
                let _ignored = (brn.function(), brn.lenient_qualifier());
            }
        }
    }
}
