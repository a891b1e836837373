//! Layers in the registry: versions of each, numbered from 1 and never again.
//!
//! Owns: the table and what is done to it. Must not know: functions, which name layers' packages themselves.

use faaster_function::layer::LayerRecord;
use faaster_function::record::CodeRef;
use faaster_function::{AccountHash, FunctionName};
use faaster_limits::LAYER_VERSIONS_MAX;
use faaster_protocol::funclet::CodeHash;
use redb::{Error, ReadableTable, ReadableTableMetadata, TableDefinition};

use super::tables::{NUMBERS, Write, read};
use super::{Done, Registry, RegistryError};

/// `<hashed account>:<name>:<version, 20 digits>` to the record's JSON.
pub(super) const LAYERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("layers");

/// A layer version to be.
#[derive(Debug, Clone)]
pub struct NewLayer {
    pub account: AccountHash,
    pub name: FunctionName,
    pub description: String,
    pub code: CodeRef,
    pub created_secs: u64,
}

fn key(account: &AccountHash, name: &FunctionName, version: u64) -> String {
    format!("{account}:{name}:{version:020}")
}

impl Registry {
    /// Keeps a new version of a layer.
    ///
    /// # Errors
    /// Only that it could not be handed over; all else goes to `done`.
    pub fn publish_layer(&self, new: NewLayer, done: Done<LayerRecord>) -> Result<(), RegistryError> {
        self.write_other(move |write| write.publish_layer(new), done)
    }

    /// Deletes a version; `None` where it was not there, else code that nothing names any more.
    ///
    /// # Errors
    /// Only that it could not be handed over; all else goes to `done`.
    pub fn delete_layer(
        &self,
        account: AccountHash,
        name: FunctionName,
        version: u64,
        done: Done<Option<Vec<CodeHash>>>,
    ) -> Result<(), RegistryError> {
        self.write_other(move |write| write.delete_layer(&key(&account, &name, version)), done)
    }

    /// Versions of a layer, or of all layers of an account, or of everybody, in order.
    ///
    /// # Errors
    /// Only that it could not be handed over; all else goes to `done`.
    pub fn layers(
        &self,
        of: Option<(AccountHash, Option<FunctionName>)>,
        done: Done<Vec<LayerRecord>>,
    ) -> Result<(), RegistryError> {
        let (start, end) = match of {
            None => (String::new(), "\u{10ffff}".to_owned()),
            Some((account, None)) => (format!("{account}:"), format!("{account};")),
            Some((account, Some(name))) => (format!("{account}:{name}:"), format!("{account}:{name};")),
        };
        self.read(move |journal| journal.with(|database| list(database, &start, &end)), done)
    }

    /// One version.
    ///
    /// # Errors
    /// Only that it could not be handed over; all else goes to `done`.
    pub fn layer(
        &self,
        account: &AccountHash,
        name: &FunctionName,
        version: u64,
        done: Done<Option<LayerRecord>>,
    ) -> Result<(), RegistryError> {
        let key = key(account, name, version);
        let end = format!("{key}\0");
        self.read(
            move |journal| journal.with(|database| Ok(list(database, &key, &end)?.into_iter().next())),
            done,
        )
    }
}

fn list(database: &redb::Database, start: &str, end: &str) -> Result<Vec<LayerRecord>, RegistryError> {
    let found = read(database, |transaction| {
        let layers = transaction.open_table(LAYERS)?;
        let mut found = Vec::new();
        for entry in layers.range::<&str>(start..end)? {
            let (key, value) = entry?;
            found.push((key.value().to_owned(), value.value().to_vec()));
        }
        Ok(found)
    })?;
    found.into_iter().map(|(key, bytes)| decode(&key, &bytes)).collect()
}

fn decode(key: &str, bytes: &[u8]) -> Result<LayerRecord, RegistryError> {
    serde_json::from_slice(bytes)
        .map_err(|source| RegistryError::Record { key: key.to_owned(), source: source.into() })
}

impl Write {
    fn publish_layer(&self, new: NewLayer) -> Result<LayerRecord, RegistryError> {
        let step = |error: Error| RegistryError::database("writing the registry", error);
        let mut layers = self.0.open_table(LAYERS).map_err(|error| step(error.into()))?;
        if layers.len().map_err(|error| step(error.into()))? >= LAYER_VERSIONS_MAX as u64 {
            return Err(RegistryError::LayersFull);
        }
        let NewLayer { account, name, description, code, created_secs } = new;
        let version = self.next_number(&format!("layer:{account}:{name}")).map_err(step)?;
        let record = LayerRecord { account, name, version, description, code, created_secs };
        let bytes = serde_json::to_vec(&record).expect("strings and numbers always serialise");
        let key = key(&record.account, &record.name, version);
        layers.insert(&*key, &*bytes).map_err(|error| step(error.into()))?;
        self.count(&record.code.sha256, 1).map_err(step)?;
        Ok(record)
    }

    fn delete_layer(&self, key: &str) -> Result<Option<Vec<CodeHash>>, RegistryError> {
        let step = |error: Error| RegistryError::database("writing the registry", error);
        let mut layers = self.0.open_table(LAYERS).map_err(|error| step(error.into()))?;
        let found = layers.remove(key).map_err(|error| step(error.into()))?;
        let Some(bytes) = found.map(|value| value.value().to_vec()) else { return Ok(None) };
        let code = decode(key, &bytes)?.code.sha256;
        let left = self.count(&code, -1).map_err(step)?;
        Ok(Some(if left == 0 { vec![code] } else { Vec::new() }))
    }

    /// The next of a series of numbers that begins with 1.
    pub(super) fn next_number(&self, series: &str) -> Result<u64, Error> {
        let mut numbers = self.0.open_table(NUMBERS)?;
        let next = numbers.get(series)?.map(|value| value.value()).unwrap_or_default() + 1;
        numbers.insert(series, next)?;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::wait;

    fn new_layer(name: &str, byte: u8) -> NewLayer {
        NewLayer {
            account: AccountHash::parse(&"0".repeat(32)).unwrap(),
            name: FunctionName::parse(name).unwrap(),
            description: String::new(),
            code: CodeRef { sha256: CodeHash([byte; 32]), bytes: 9 },
            created_secs: 1,
        }
    }

    #[test]
    fn versions_are_numbered_listed_and_never_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let (registry, thread) = Registry::open(folder.path()).unwrap();
        let publish = |name, byte| wait(|done| registry.publish_layer(new_layer(name, byte), done)).unwrap();
        let (account, name) = (new_layer("a", 0).account, new_layer("a", 0).name);
        let delete =
            |version| wait(|done| registry.delete_layer(account.clone(), name.clone(), version, done));
        assert_eq!([publish("a", 1).version, publish("a", 2).version, publish("b", 1).version], [1, 2, 1]);
        assert_eq!(delete(2).unwrap(), Some(vec![CodeHash([2; 32])]));
        assert_eq!(delete(2).unwrap(), None);
        assert_eq!(delete(1).unwrap(), Some(vec![]), "b has the same package");
        let third = publish("a", 3);
        assert_eq!(third.version, 3);
        let of_a = wait(|done| registry.layers(Some((account.clone(), Some(name.clone()))), done)).unwrap();
        assert_eq!(of_a, std::slice::from_ref(&third));
        assert_eq!(wait(|done| registry.layers(Some((account.clone(), None)), done)).unwrap().len(), 2);
        assert_eq!(wait(|done| registry.layer(&account, &name, 3, done)).unwrap(), Some(third));
        assert_eq!(wait(|done| registry.layer(&account, &name, 1, done)).unwrap(), None);
        drop(registry);
        thread.join();
    }
}
