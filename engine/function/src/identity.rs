//! Who owns a function and what it is called.
//!
//! Owns: the newtypes and their checks. Must not know: which functions or accounts exist.

use std::fmt;

use faaster_limits::{ACCOUNT_ID_BYTES_MAX, FUNCTION_NAME_BYTES_MAX, VERSION_DIGITS_MAX};
use faaster_protocol::easyfaas::account::{HASH_BYTES, Partition, account_hash};
use faaster_protocol::easyfaas::brn;
use serde::{Deserialize, Serialize};

/// Why text is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("account id must have 1 to {ACCOUNT_ID_BYTES_MAX} visible ASCII characters")]
    Account,
    #[error("hashed account must be 32 characters of 0-9 and a-z")]
    Hash,
    #[error("function name must have 1 to {FUNCTION_NAME_BYTES_MAX} characters of a-z, A-Z, 0-9, - and _")]
    Name,
    #[error("version must be $LATEST or a number of at most {VERSION_DIGITS_MAX} digits")]
    Version,
}

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $error:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// # Errors
            /// The text breaks the rule that the error names.
            pub fn parse(text: &str) -> Result<Self, IdentityError> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.into())) } else { Err(IdentityError::$error) }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdentityError;
            fn try_from(text: String) -> Result<Self, IdentityError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_newtype!(
    /// An account as it comes in the account header.
    AccountId,
    Account,
    |text| (1..=ACCOUNT_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
);
text_newtype!(
    /// The 32 digits that stand for an account in keys and BRNs.
    AccountHash,
    Hash,
    |text| brn::is_account_hash(text.as_bytes())
);
text_newtype!(
    /// A function's name, without account and version.
    FunctionName,
    Name,
    |text| text.len() <= FUNCTION_NAME_BYTES_MAX && brn::is_name(text.as_bytes())
);
text_newtype!(
    /// `$LATEST` or a number.
    Version,
    Version,
    |text| text.len() <= VERSION_DIGITS_MAX && brn::is_version(text.as_bytes())
);

impl AccountId {
    /// Lowercase hex of `md5(account + "cloud-cfc-2017")`.
    pub fn hash(&self) -> AccountHash {
        self.hash_in(Partition::Cloud)
    }

    /// The hash that BRNs of `partition` show; only the one of [`Partition::Cloud`] is in keys.
    pub fn hash_in(&self, partition: Partition) -> AccountHash {
        let hash: [u8; HASH_BYTES] = account_hash(self.0.as_bytes(), partition);
        AccountHash(String::from_utf8_lossy(&hash).into())
    }
}

impl Version {
    /// `$LATEST`
    pub fn latest() -> Self {
        Self("$LATEST".into())
    }
}

/// `<hashed account>:<name>:<version>`: what shards route by and the registry sorts by.
pub fn key(account: &AccountHash, name: &FunctionName, version: &Version) -> String {
    format!("{account}:{name}:{version}")
}

/// `brn:cloud:faas:bj:<hashed account>:function:<name>:<version>`, our one spelling of a function's BRN.
pub fn brn_of(account: &AccountHash, name: &FunctionName, version: &str) -> String {
    format!("brn:cloud:faas:bj:{account}:function:{name}:{version}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_checked() {
        assert!(AccountId::parse("df391b08c64c426a81645468c75163a5").is_ok());
        assert_eq!(AccountId::parse("").unwrap_err(), IdentityError::Account);
        assert_eq!(AccountId::parse("a b").unwrap_err(), IdentityError::Account);
        assert_eq!(AccountId::parse(&"a".repeat(129)).unwrap_err(), IdentityError::Account);
        assert_eq!(FunctionName::parse("a.b").unwrap_err(), IdentityError::Name);
        assert_eq!(FunctionName::parse(&"a".repeat(141)).unwrap_err(), IdentityError::Name);
        assert!(FunctionName::parse(&"a".repeat(140)).is_ok());
        assert_eq!(Version::parse("prod").unwrap_err(), IdentityError::Version);
        assert!(Version::parse("$LATEST").is_ok() && Version::parse("7").is_ok());
        assert_eq!(
            serde_json::from_str::<Version>("\"x\"").unwrap_err().classify(),
            serde_json::error::Category::Data
        );
    }

    #[test]
    fn a_key_is_what_routing_makes() {
        let account = AccountId::parse("df391b08c64c426a81645468c75163a5").unwrap();
        let name = FunctionName::parse("f").unwrap();
        let mut out = [0; 256];
        let routed = faaster_protocol::easyfaas::route::canonical_key(
            b"f",
            Some(b"$LATEST"),
            account.as_str().as_bytes(),
            &mut out,
        );
        assert_eq!(key(&account.hash(), &name, &Version::latest()).as_bytes(), routed.unwrap());
    }
}
