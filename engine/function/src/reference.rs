//! What a registry request's path names: a name, a part of a BRN, or a whole one (FaaSter pkg/brn, `DealFName`).
//!
//! Owns: the reading of identifiers on the registry's port. Must not know: whether the function exists.

use faaster_protocol::easyfaas::account::{HASH_BYTES, Partition};
use faaster_protocol::easyfaas::brn;

use crate::identity::{AccountHash, AccountId, FunctionName, Version};

/// A function, perhaps with a version or an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The caller's, or the one in the BRN.
    pub account: AccountHash,
    pub name: FunctionName,
    pub qualifier: Option<Qualifier>,
}

/// What follows the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Qualifier {
    Version(Version),
    Alias(Box<str>),
}

impl Qualifier {
    /// # Errors
    /// Neither a version nor `^[a-zA-Z0-9-_]+$`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if let Ok(version) = Version::parse(text) {
            return Ok(Self::Version(version));
        }
        if brn::is_name(text.as_bytes()) { Ok(Self::Alias(text.into())) } else { Err(ReferenceError) }
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Version(version) => version.as_str(),
            Self::Alias(alias) => alias,
        }
    }
}

/// FaaSter's sentence for identifiers that follow no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", brn::PATTERN_MESSAGE)]
pub struct ReferenceError;

/// Reads a percent-decoded identifier for a caller.
///
/// One part is a name; two are `account:name` if they begin with the caller's hash, else `name:qualifier`; three are
/// `account:name:qualifier` of the caller's own account. A caller's hash of the `bce` partition is as good as the other.
///
/// # Errors
/// None of these, or a name that is too long.
pub fn resolve(identifier: &str, caller: &AccountId) -> Result<Reference, ReferenceError> {
    if let Some(function) = brn::parse(identifier.as_bytes()).ok().and_then(|parsed| parsed.function()) {
        let hash = hash_from(function.account, function.partition, caller)?;
        return reference(hash, text(function.name)?, function.qualifier.map(text).transpose()?);
    }
    let own = |part: &str| {
        [Partition::Cloud, Partition::Bce]
            .into_iter()
            .any(|partition| caller.hash_in(partition).as_str() == part)
    };
    let parts: Vec<&str> = identifier.split(':').collect();
    match parts[..] {
        [name] => reference(caller.hash(), name, None),
        [account, name] if own(account) => reference(caller.hash(), name, None),
        [name, qualifier] => reference(caller.hash(), name, Some(qualifier)),
        [account, name, qualifier] if own(account) => reference(caller.hash(), name, Some(qualifier)),
        _ => Err(ReferenceError),
    }
}

fn reference(account: AccountHash, name: &str, qualifier: Option<&str>) -> Result<Reference, ReferenceError> {
    let name = FunctionName::parse(name).map_err(|_| ReferenceError)?;
    Ok(Reference { account, name, qualifier: qualifier.map(Qualifier::parse).transpose()? })
}

fn text(bytes: &[u8]) -> Result<&str, ReferenceError> {
    std::str::from_utf8(bytes).map_err(|_| ReferenceError)
}

fn hash_from(
    hash: &[u8; HASH_BYTES],
    partition: Partition,
    caller: &AccountId,
) -> Result<AccountHash, ReferenceError> {
    let hash = faaster_protocol::easyfaas::route::canonical_hash(partition, hash, caller.as_str().as_bytes());
    AccountHash::parse(text(&hash)?).map_err(|_| ReferenceError)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "8f6e5a28c663957ea04522547a66d08f";
    const BCE: &str = "cd64f99c69d7c404b61de0a4f1865834";

    fn caller() -> AccountId {
        AccountId::parse("df391b08c64c426a81645468c75163a5").unwrap()
    }

    fn read(identifier: &str) -> Option<(String, String, Option<String>)> {
        let got = resolve(identifier, &caller()).ok()?;
        let qualifier = got.qualifier.map(|qualifier| qualifier.as_str().to_owned());
        Some((got.account.as_str().to_owned(), got.name.as_str().to_owned(), qualifier))
    }

    #[test]
    fn parts_are_read_as_faaster_reads_them() {
        let other = "0".repeat(32);
        for (identifier, expected) in [
            ("f".to_owned(), Some((HASH, "f", None))),
            ("f:1".to_owned(), Some((HASH, "f", Some("1")))),
            ("f:$LATEST".to_owned(), Some((HASH, "f", Some("$LATEST")))),
            ("f:prod".to_owned(), Some((HASH, "f", Some("prod")))),
            (format!("{HASH}:f"), Some((HASH, "f", None))),
            (format!("{BCE}:f"), Some((HASH, "f", None))),
            (format!("{HASH}:f:2"), Some((HASH, "f", Some("2")))),
            (format!("{other}:f"), Some((HASH, other.as_str(), Some("f")))),
            (format!("{other}:f:2"), None),
            (format!("brn:cloud:faas:bj:{HASH}:function:f:1"), Some((HASH, "f", Some("1")))),
            (format!("brn:bce:faas:bj:{BCE}:function:f:1"), Some((HASH, "f", Some("1")))),
            (format!("brn:cloud:faas:bj:{other}:function:f"), Some((other.as_str(), "f", None))),
            (format!("brn:cloud:faas:bj:{HASH}:function:f:1:2"), None),
            ("brn:foo".to_owned(), Some((HASH, "brn", Some("foo")))),
            (String::new(), None),
            ("a b".to_owned(), None),
            ("a/b".to_owned(), None),
            ("a:".to_owned(), None),
            (":a".to_owned(), None),
            ("n".repeat(141), None),
        ] {
            let expected = expected
                .map(|(a, n, q): (&str, &str, Option<&str>)| (a.into(), n.into(), q.map(str::to_owned)));
            assert_eq!(read(&identifier), expected, "{identifier}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(identifier in any::<String>()) {
            let _read = resolve(&identifier, &caller());
        }
    }
}
