//! Layers: packages that functions share, seen at /opt (AWS's meaning).
//!
//! Owns: what a layer version is, how one is named, what a function keeps of its list. Must not know: where packages lie.

use faaster_limits::LAYERS_PER_FUNCTION_MAX;
use faaster_protocol::funclet::CodeHash;
use serde::{Deserialize, Serialize};

use crate::identity::{AccountHash, FunctionName};
use crate::record::{CodeRef, hex_hash};
use crate::settings::Problems;

/// One version of a layer, as the registry keeps it. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    pub account: AccountHash,
    /// By the rules of functions' names.
    pub name: FunctionName,
    /// From 1; never used again, also not after a delete.
    pub version: u64,
    pub description: String,
    pub code: CodeRef,
    /// Seconds since 1970, UTC.
    pub created_secs: u64,
}

/// A layer version that a function uses. It goes on doing so when the version is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerUse {
    pub name: FunctionName,
    pub version: u64,
    pub code: CodeRef,
}

/// A function's layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    /// In the order in which they are merged: the later wins. At least one.
    pub list: Vec<LayerUse>,
    /// What they make together: one directory in the code store.
    #[serde(with = "hex_hash")]
    pub tree: CodeHash,
}

/// `brn:cloud:faas:bj:<hashed account>:layer:<name>:<version>`
pub fn layer_brn(account: &AccountHash, name: &FunctionName, version: u64) -> String {
    format!("brn:cloud:faas:bj:{account}:layer:{name}:{version}")
}

impl LayerRecord {
    /// With version.
    pub fn brn(&self) -> String {
        layer_brn(&self.account, &self.name, self.version)
    }
}

/// Reads a function's list: `<name>:<version>`, or the whole BRN, of the function's own account.
pub fn parse_list(
    asked: &[String],
    account: &AccountHash,
    problems: &mut Problems,
) -> Vec<(FunctionName, u64)> {
    if asked.len() > LAYERS_PER_FUNCTION_MAX {
        problems.push(format!("Layers must be at most {LAYERS_PER_FUNCTION_MAX}, not {}", asked.len()));
        return Vec::new();
    }
    let mut read: Vec<(FunctionName, u64)> = Vec::new();
    for text in asked {
        match parse_one(text, account) {
            Some((name, _)) if read.iter().any(|(other, _)| *other == name) => {
                problems.push(format!("Layers name {name} twice; a function uses one version of a layer"));
            }
            Some(one) => read.push(one),
            None => problems.push(format!(
                "Layers must be <name>:<version> or brn:cloud:faas:bj:{account}:layer:<name>:<version>, not {text:?}"
            )),
        }
    }
    read
}

fn parse_one(text: &str, account: &AccountHash) -> Option<(FunctionName, u64)> {
    let own = format!("brn:cloud:faas:bj:{account}:layer:");
    let (name, version) = text.strip_prefix(&own).unwrap_or(text).split_once(':')?;
    let version = parse_version(version)?;
    Some((FunctionName::parse(name).ok()?, version))
}

/// A number from 1, spelled in one way only.
pub fn parse_version(text: &str) -> Option<u64> {
    let version: u64 = text.parse().ok()?;
    (version > 0 && version.to_string() == text).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> AccountHash {
        AccountHash::parse("8f6e5a28c663957ea04522547a66d08f").unwrap()
    }

    fn read(asked: &[&str]) -> Result<Vec<(String, u64)>, String> {
        let mut problems = Problems::default();
        let asked: Vec<String> = asked.iter().map(|text| (*text).to_owned()).collect();
        let read = parse_list(&asked, &account(), &mut problems);
        let read = read.into_iter().map(|(name, version)| (name.to_string(), version)).collect();
        problems.or(read).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_layer_is_named_shortly_or_in_full() {
        let full = layer_brn(&account(), &FunctionName::parse("b").unwrap(), 2);
        assert_eq!(read(&["a:1", &full]).unwrap(), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        assert_eq!(read(&[]).unwrap(), []);
    }

    #[test]
    fn bad_names_are_told_one_by_one() {
        for bad in [
            "a",
            "a:",
            "a:0",
            "a:01",
            "a:x",
            ":1",
            "a b:1",
            "../a:1",
            "a:1:2",
            "brn:cloud:faas:bj:0:layer:a:1",
        ] {
            let error = read(&["good:1", bad]).unwrap_err();
            assert!(error.contains(&format!("{bad:?}")), "{bad}: {error}");
        }
        assert!(read(&["a:1", "a:2"]).unwrap_err().contains("twice"));
        assert!(read(&["a:1", "b:1", "c:1", "d:1", "e:1", "f:1"]).unwrap_err().contains("at most 5, not 6"));
    }
}
