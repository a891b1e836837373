//! The database's tables and what is done to them.
//!
//! Owns: names, keys and encodings on disk. Must not know: threads, callers.

use std::path::Path;

use faaster_function::{AccountHash, FunctionName, FunctionRecord, Version};
use faaster_limits::FUNCTIONS_MAX;
use faaster_protocol::funclet::CodeHash;
use redb::{
    Builder, Database, DatabaseError, Error, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, WriteTransaction,
};

use super::layers::LAYERS;
use super::{Deleted, Page, RegistryError, Upsert, Upserted};

/// `<hashed account>:<name>:<version>` to the record's JSON.
const FUNCTIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("functions");
/// SHA-256 to the number of versions that name it.
const CODE_USES: TableDefinition<'_, &[u8; 32], u64> = TableDefinition::new("code_uses");
pub(super) const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const TEXTS: TableDefinition<'_, &str, &str> = TableDefinition::new("texts");

const FORMAT: &str = "format";
const FORMAT_KNOWN: u64 = 1;
/// Grows with every deploy on the node; never reused, also not after a delete.
const REVISION: &str = "revision";
const NODE_ID: &str = "node_id";
/// Pages kept in memory; the registry is read at start and then rarely.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

pub(super) fn open(path: &Path) -> Result<Database, RegistryError> {
    let shown = || path.display().to_string();
    let database = Builder::new().set_cache_size(CACHE_BYTES).create(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => RegistryError::InUse { path: shown() },
        other => RegistryError::database("opening the registry", other),
    })?;
    let step = |error: Error| RegistryError::database("preparing the registry", error);
    let write = database.begin_write().map_err(|error| step(error.into()))?;
    {
        let mut numbers = write.open_table(NUMBERS).map_err(|error| step(error.into()))?;
        let found = numbers.get(FORMAT).map_err(|error| step(error.into()))?.map(|value| value.value());
        match found {
            None => {
                numbers.insert(FORMAT, FORMAT_KNOWN).map_err(|error| step(error.into()))?;
            }
            Some(found) if found > FORMAT_KNOWN => {
                return Err(RegistryError::Format { path: shown(), found, known: FORMAT_KNOWN });
            }
            Some(_) => {}
        }
        let mut texts = write.open_table(TEXTS).map_err(|error| step(error.into()))?;
        let has_id = texts.get(NODE_ID).map_err(|error| step(error.into()))?.is_some();
        if !has_id {
            texts.insert(NODE_ID, &*random_id()).map_err(|error| step(error.into()))?;
        }
        write.open_table(FUNCTIONS).map_err(|error| step(error.into()))?;
        write.open_table(CODE_USES).map_err(|error| step(error.into()))?;
        write.open_table(LAYERS).map_err(|error| step(error.into()))?;
    }
    write.commit().map_err(|error| step(error.into()))?;
    Ok(database)
}

/// 16 hex digits from the kernel's generator.
fn random_id() -> String {
    let mut bytes = [0_u8; 8];
    // 8 bytes are below the size that getrandom(2) may cut short; without entropy the process id still tells nodes apart.
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    if filled.is_err() {
        bytes[..4].copy_from_slice(&std::process::id().to_le_bytes());
    }
    format!("{:016x}", u64::from_le_bytes(bytes))
}

pub(super) fn node_id(database: &Database) -> Result<String, RegistryError> {
    read(database, |transaction| {
        let texts = transaction.open_table(TEXTS)?;
        Ok(texts.get(NODE_ID)?.map(|id| id.value().to_owned()).unwrap_or_default())
    })
}

pub(super) fn get(database: &Database, key: &str) -> Result<Option<FunctionRecord>, RegistryError> {
    let bytes = read(database, |transaction| {
        let functions = transaction.open_table(FUNCTIONS)?;
        Ok(functions.get(key)?.map(|record| record.value().to_vec()))
    })?;
    bytes.map(|bytes| decode(key, &bytes)).transpose()
}

pub(super) fn list(
    database: &Database,
    account: &AccountHash,
    marker: Option<&str>,
    limit: usize,
) -> Result<Page, RegistryError> {
    let start = format!("{account}:{}", marker.unwrap_or_default());
    // One more than asked for shows whether there is another page; the marker itself may come first.
    let found = range(database, &start, &format!("{account};"), limit.saturating_add(2))?;
    let mut after = found.into_iter().filter(|(key, _)| marker.is_none() || *key != start);
    let mut page = Page::default();
    for (key, bytes) in after.by_ref().take(limit) {
        page.records.push(decode(&key, &bytes)?);
    }
    if after.next().is_some() {
        page.next = page.records.last().map(|last| format!("{}:{}", last.name, last.version));
    }
    Ok(page)
}

pub(super) fn versions(
    database: &Database,
    account: &AccountHash,
    name: &FunctionName,
) -> Result<Vec<FunctionRecord>, RegistryError> {
    let mut records =
        range(database, &format!("{account}:{name}:"), &format!("{account}:{name};"), usize::MAX)?
            .into_iter()
            .map(|(key, bytes)| decode(&key, &bytes))
            .collect::<Result<Vec<_>, _>>()?;
    let order = |version: &Version| {
        let text = version.as_str().to_owned();
        (text != "$LATEST", text.len(), text)
    };
    records.sort_by_key(|record| order(&record.version));
    Ok(records)
}

pub(super) fn all(database: &Database) -> Result<Vec<FunctionRecord>, RegistryError> {
    range(database, "", "\u{10ffff}", usize::MAX)?
        .into_iter()
        .map(|(key, bytes)| decode(&key, &bytes))
        .collect()
}

pub(super) fn code_uses(database: &Database, code: &CodeHash) -> Result<u64, RegistryError> {
    read(database, |transaction| {
        let uses = transaction.open_table(CODE_USES)?;
        Ok(uses.get(&code.0)?.map(|count| count.value()).unwrap_or_default())
    })
}

pub(super) fn read<T>(
    database: &Database,
    action: impl FnOnce(&redb::ReadTransaction) -> Result<T, Error>,
) -> Result<T, RegistryError> {
    let transaction =
        database.begin_read().map_err(|error| RegistryError::database("reading the registry", error))?;
    action(&transaction).map_err(|error| RegistryError::database("reading the registry", error))
}

/// Key and value of `start..end`, at most `limit`.
fn range(
    database: &Database,
    start: &str,
    end: &str,
    limit: usize,
) -> Result<Vec<(String, Vec<u8>)>, RegistryError> {
    read(database, |transaction| {
        let functions = transaction.open_table(FUNCTIONS)?;
        let mut found = Vec::new();
        for entry in functions.range::<&str>(start..end)?.take(limit) {
            let (key, value) = entry?;
            found.push((key.value().to_owned(), value.value().to_vec()));
        }
        Ok(found)
    })
}

fn decode(key: &str, bytes: &[u8]) -> Result<FunctionRecord, RegistryError> {
    serde_json::from_slice(bytes)
        .map_err(|source| RegistryError::Record { key: key.to_owned(), source: source.into() })
}

/// A transaction under way. Dropped without [`Self::commit`] it leaves no trace.
pub(super) struct Write(pub(super) WriteTransaction);

impl Write {
    pub(super) fn begin(database: &Database) -> Result<Self, RegistryError> {
        database
            .begin_write()
            .map(Self)
            .map_err(|error| RegistryError::database("writing the registry", error))
    }

    /// Flushes to the disk.
    pub(super) fn commit(self) -> Result<(), RegistryError> {
        self.0.commit().map_err(|error| RegistryError::database("flushing the registry", error))
    }

    pub(super) fn upsert(&self, upsert: Upsert) -> Result<Upserted, RegistryError> {
        let step = |error: Error| RegistryError::database("writing the registry", error);
        let key = faaster_function::identity::key(&upsert.account, &upsert.name, &upsert.version);
        let mut functions = self.0.open_table(FUNCTIONS).map_err(|error| step(error.into()))?;
        let before =
            functions.get(&*key).map_err(|error| step(error.into()))?.map(|record| record.value().to_vec());
        let before = before.map(|bytes| decode(&key, &bytes)).transpose()?;
        if before.is_none() && functions.len().map_err(|error| step(error.into()))? >= FUNCTIONS_MAX as u64 {
            return Err(RegistryError::Full);
        }
        let same_code = before.as_ref().filter(|record| record.code.sha256 == upsert.code.sha256);
        let record = FunctionRecord {
            commit_id: same_code.map_or(upsert.fresh_commit_id, |record| record.commit_id.clone()),
            account: upsert.account,
            owner: upsert.owner,
            name: upsert.name,
            version: upsert.version,
            settings: upsert.settings,
            code: upsert.code,
            revision: self.next_revision().map_err(step)?,
            modified_secs: upsert.modified_secs,
        };
        let bytes = serde_json::to_vec(&record).expect("strings and numbers always serialise");
        functions.insert(&*key, &*bytes).map_err(|error| step(error.into()))?;
        for package in record.packages() {
            self.count(&package, 1).map_err(step)?;
        }
        let old = before.map(|record| record.packages()).unwrap_or_default();
        let unused = self.no_longer_used(old).map_err(step)?;
        Ok(Upserted { record, unused })
    }

    pub(super) fn delete(
        &self,
        account: &AccountHash,
        name: &FunctionName,
        version: Option<&Version>,
    ) -> Result<Deleted, RegistryError> {
        let step = |error: Error| RegistryError::database("writing the registry", error);
        let mut functions = self.0.open_table(FUNCTIONS).map_err(|error| step(error.into()))?;
        let (start, end) = match version {
            Some(version) => {
                let key = faaster_function::identity::key(account, name, version);
                // The only key from `key` to just after it.
                (key.clone(), format!("{key}\0"))
            }
            None => (format!("{account}:{name}:"), format!("{account}:{name};")),
        };
        let mut doomed = Vec::new();
        for entry in functions.range::<&str>(&*start..&*end).map_err(|error| step(error.into()))? {
            let (key, value) = entry.map_err(|error| step(error.into()))?;
            // Read before anything is removed: a record that cannot be read refuses the whole delete.
            doomed.push((key.value().to_owned(), decode(key.value(), value.value())?));
        }
        let mut deleted = Deleted::default();
        for (key, record) in doomed {
            functions.remove(&*key).map_err(|error| step(error.into()))?;
            deleted.unused.extend(self.no_longer_used(record.packages()).map_err(step)?);
            deleted.records.push(record);
        }
        Ok(deleted)
    }

    fn next_revision(&self) -> Result<u64, Error> {
        self.next_number(REVISION)
    }

    /// Counts one use less of each package; those that nothing names any more.
    fn no_longer_used(&self, packages: Vec<CodeHash>) -> Result<Vec<CodeHash>, Error> {
        let mut unused = Vec::new();
        for package in packages {
            if self.count(&package, -1)? == 0 {
                unused.push(package);
            }
        }
        Ok(unused)
    }

    /// Adds to the uses of a package and says how many there are then.
    pub(super) fn count(&self, code: &CodeHash, change: i64) -> Result<u64, Error> {
        let mut uses = self.0.open_table(CODE_USES)?;
        let before = uses.get(&code.0)?.map(|count| count.value()).unwrap_or_default();
        let after = before.saturating_add_signed(change);
        if after == 0 {
            uses.remove(&code.0)?;
        } else {
            uses.insert(&code.0, after)?;
        }
        Ok(after)
    }
}
