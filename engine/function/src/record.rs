//! One version of a function, as the registry keeps it.
//!
//! Owns: the stored shape (JSON; unknown members are ignored and new ones must have defaults) and its way to the shards.
//! Must not know: the database.

use faaster_limits::INSTANCES_PER_FUNCTION_MAX;
use faaster_protocol::easyfaas::account::stable_tag;
use faaster_protocol::funclet::CodeHash;
use serde::{Deserialize, Serialize};

use crate::deployed::{Concurrency, Deployed};
use crate::identity::{self, AccountHash, AccountId, FunctionName, Version};
use crate::runtime::{CallsAtOnce, RuntimeSpec};
use crate::settings::{Settings, resolve_runtime, unknown_runtime};

/// A code package in the code store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeRef {
    #[serde(with = "hex_hash")]
    pub sha256: CodeHash,
    /// Of the zip.
    pub bytes: u64,
}

/// A function version with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionRecord {
    pub account: AccountHash,
    /// Whose hash `account` is.
    pub owner: AccountId,
    pub name: FunctionName,
    pub version: Version,
    pub settings: Settings,
    pub code: CodeRef,
    /// UUID, another one whenever the code of this key changes.
    pub commit_id: String,
    /// Grows with every deploy on the node, so also with every deploy of the key.
    pub revision: u64,
    /// Seconds since 1970, UTC.
    pub modified_secs: u64,
}

/// The node has no runtime for a stored function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RuntimeMissing(String);

impl FunctionRecord {
    /// `<hashed account>:<name>:<version>`
    pub fn key(&self) -> String {
        identity::key(&self.account, &self.name, &self.version)
    }

    /// Every package that must stay for as long as this record does.
    pub fn packages(&self) -> Vec<CodeHash> {
        let layers = self.settings.layers.iter();
        let of_layers = layers.flat_map(|it| it.list.iter().map(|layer| layer.code.sha256).chain([it.tree]));
        std::iter::once(self.code.sha256).chain(of_layers).collect()
    }

    /// With version.
    pub fn brn(&self) -> String {
        identity::brn_of(&self.account, &self.name, self.version.as_str())
    }

    /// What the shards run.
    ///
    /// # Errors
    /// No runtime of the node answers to the function's.
    pub fn deployed(&self, runtimes: &[RuntimeSpec]) -> Result<Deployed, RuntimeMissing> {
        let runtime = resolve_runtime(&self.settings.runtime, runtimes)
            .ok_or_else(|| RuntimeMissing(unknown_runtime(&self.settings.runtime, runtimes)))?;
        let spec = &runtimes[usize::from(runtime.0)];
        let key = self.key();
        Ok(Deployed {
            brn: self.brn().into(),
            name: self.name.as_str().into(),
            version: self.version.as_str().into(),
            owner: self.owner.as_str().into(),
            handler: self.settings.handler.as_str().into(),
            runtime,
            code: self.code.sha256,
            commit_id: self.commit_id.as_str().into(),
            revision: self.revision,
            memory_mb: self.settings.memory_mb,
            timeout_ms: u64::from(self.settings.timeout_secs) * 1000,
            concurrency: match spec.calls {
                CallsAtOnce::ByQuota => self.settings.concurrency,
                CallsAtOnce::One => Concurrency::Exclusive,
            },
            instances_max: self.settings.instances_max.unwrap_or(INSTANCES_PER_FUNCTION_MAX),
            instances_min: self.settings.instances_min.unwrap_or(0),
            env: self.settings.environment.clone(),
            network_mode: self.settings.network_mode,
            layers: self.settings.layers.as_ref().map(|layers| layers.tree),
            function_tag: stable_tag(&[key.as_bytes(), &self.revision.to_le_bytes()]),
            account_tag: stable_tag(&[self.owner.as_str().as_bytes()]),
            key: key.into(),
        })
    }
}

/// A [`CodeHash`] as 64 hex digits.
pub(crate) mod hex_hash {
    use faaster_protocol::funclet::CodeHash;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(hash: &CodeHash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(hash)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CodeHash, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_hash(&text).ok_or_else(|| D::Error::custom("code hash must be 64 hex digits"))
    }
}

/// Reads 64 lower- or upper-case hex digits.
pub fn parse_hash(text: &str) -> Option<CodeHash> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|value| u8::try_from(value).ok());
        *byte = digit(0)? << 4 | digit(1)?;
    }
    Some(CodeHash(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> FunctionRecord {
        let owner = AccountId::parse("df391b08c64c426a81645468c75163a5").unwrap();
        FunctionRecord {
            account: owner.hash(),
            owner,
            name: FunctionName::parse("f").unwrap(),
            version: Version::latest(),
            settings: Settings {
                description: Some("d".into()),
                runtime: "nodejs10".into(),
                handler: "index.handler".into(),
                timeout_secs: 5,
                memory_mb: 128,
                concurrency: Concurrency::Shared(10),
                instances_max: None,
                instances_min: None,
                environment: [("A".to_owned(), "1".to_owned())].into(),
                network_mode: None,
                layers: None,
            },
            code: CodeRef { sha256: CodeHash([0xab; 32]), bytes: 9 },
            commit_id: "c".into(),
            revision: 7,
            modified_secs: 1,
        }
    }

    #[test]
    fn a_record_reads_back_and_ignores_what_it_does_not_know() {
        let record = record();
        let mut json = serde_json::to_value(&record).unwrap();
        json["later"] = serde_json::json!(1);
        assert_eq!(json["code"]["sha256"], "ab".repeat(32));
        assert_eq!(serde_json::from_value::<FunctionRecord>(json).unwrap(), record);
        assert_eq!(parse_hash(&"xy".repeat(32)), None);
        assert_eq!(parse_hash("ab"), None);
    }

    #[test]
    fn a_deploy_carries_the_settings() {
        let spec = RuntimeSpec {
            name: "nodejs".into(),
            names: vec!["nodejs*".into()],
            kind: crate::runtime::RuntimeKind::Pooled,
            version: String::new(),
            folder: std::path::PathBuf::new(),
            argv: vec![],
            fork_server: vec![],
            forks: None,
            env: std::collections::BTreeMap::new(),
            pool: 1,
            default_handler: String::new(),
            default_code: None,
            calls: CallsAtOnce::ByQuota,
            rootfs: None,
        };
        let record = record();
        let deployed = record.deployed(std::slice::from_ref(&spec)).unwrap();
        assert_eq!(&*deployed.key, "8f6e5a28c663957ea04522547a66d08f:f:$LATEST");
        assert_eq!(&*deployed.brn, "brn:cloud:faas:bj:8f6e5a28c663957ea04522547a66d08f:function:f:$LATEST");
        assert_eq!(
            (deployed.timeout_ms, deployed.instances_max, deployed.concurrency.slots()),
            (5000, 1000, 10)
        );
        let later = FunctionRecord { revision: 8, ..record.clone() }.deployed(&[spec]).unwrap();
        assert_ne!(deployed.function_tag, later.function_tag);
        assert_eq!(deployed.account_tag, later.account_tag);
        assert!(record.deployed(&[]).unwrap_err().to_string().contains("it has: none"));
    }
}
